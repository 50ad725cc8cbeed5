//! The nested compressions of a file, as one state machine without I/O: bytes are pushed, and the output of the
//! innermost is the content.
//!
//! Each level is detected by the first bytes that reach it: a compressed stream, an unsupported format, or plain.
//! Senders compress data that is already compressed (CloudWatch Logs behind a Firehose that compresses), so two levels
//! are opened. A third is refused: it is never intended, and decompression bombs are built so.

use std::collections::VecDeque;

use bytes::Bytes;

use super::codec::{Codec, Fault};
use super::decoder::{Decoder, Failure, Progress};
use super::foreign::{HEAD_BYTES, recognise};
use super::{Compression, ExpansionLimits};

/// The most compressed levels.
const MAX_LEVELS: usize = 2;

pub(super) struct Levels {
    /// The file first. One more level than are compressed.
    levels: Vec<Level>,
    limits: ExpansionLimits,
    /// Work done, as [`Codec::cost`] counts it.
    spent: usize,
    /// The failure of an outer level; the inner ones first return the bytes that reached them.
    failure: Option<Failure>,
    /// Only the failure is left to return.
    is_over: bool,
}

impl Levels {
    pub fn new(limits: ExpansionLimits) -> Self {
        Self::with(Level::new(Form::Unknown), limits)
    }

    /// For content that is known to be plain.
    pub fn plain() -> Self {
        let unused = ExpansionLimits { max_ratio: u64::MAX, ratio_from_bytes: u64::MAX, max_bytes: u64::MAX };
        Self::with(Level::new(Form::Plain), unused)
    }

    fn with(level: Level, limits: ExpansionLimits) -> Self {
        Self { levels: vec![level], limits, spent: 0, failure: None, is_over: false }
    }

    /// The compression of the file itself; `None` until enough of it was pushed and processed.
    pub fn compression(&self) -> Option<Compression> {
        match &self.levels[0].form {
            Form::Unknown => None,
            Form::Plain => Some(Compression::None),
            Form::Compressed(decoder) => Some(decoder.compression()),
        }
    }

    /// Adds the next bytes of the file, when it is hungry.
    pub fn push(&mut self, bytes: Bytes) {
        self.levels[0].pieces.push_back(bytes);
    }

    /// Marks the end of the file.
    pub fn finish(&mut self) {
        self.levels[0].is_finished = true;
    }

    /// Work done since the last call.
    pub fn take_spent(&mut self) -> usize {
        std::mem::take(&mut self.spent)
    }

    /// Does a bounded amount of work.
    ///
    /// # Errors
    /// The reason why there is no more output, on every further call too.
    pub fn step(&mut self) -> Result<Progress, Failure> {
        if let Some(failure) = self.failure.as_ref().filter(|_| self.is_over) {
            return Err(failure.clone());
        }
        let mut at = self.levels.len() - 1;
        loop {
            let outcome = self.levels[at].step(&mut self.spent);
            self.check_expansion()?;
            let is_last = at + 1 == self.levels.len();
            match outcome {
                Ok(Outcome::Compressed) => self.open(at)?,
                Ok(Outcome::Progress(Progress::Hungry)) if at > 0 => at -= 1,
                Ok(Outcome::Progress(Progress::Ended)) if is_last => return self.end(),
                Ok(Outcome::Progress(progress)) if is_last => return Ok(progress),
                Ok(Outcome::Progress(Progress::Piece(bytes))) => {
                    self.levels[at + 1].pieces.push_back(bytes);
                    // An inner level may consume any number of pieces without output.
                    return Ok(Progress::Worked);
                }
                Ok(Outcome::Progress(Progress::Ended)) => {
                    at += 1;
                    self.levels[at].is_finished = true;
                }
                Ok(Outcome::Progress(progress)) => return Ok(progress),
                Err(failure) => {
                    let failure = within(&self.levels[..at], failure);
                    if is_last || !matches!(failure, Failure::Damaged(_)) {
                        return self.fail(failure);
                    }
                    self.failure.get_or_insert(failure);
                    at += 1;
                    self.levels[at].is_finished = true;
                }
            }
        }
    }

    /// A level is compressed: its output is the next level.
    fn open(&mut self, at: usize) -> Result<(), Failure> {
        if at == MAX_LEVELS {
            let names: Vec<_> = self.levels.iter().rev().filter_map(Level::name).collect();
            let what = format!("is compressed more than twice ({}): unpack it", names.join(" within "));
            return self.fail(Failure::Refused(what)).map(|_| ());
        }
        self.levels.push(Level::new(Form::Unknown));
        Ok(())
    }

    fn check_expansion(&mut self) -> Result<(), Failure> {
        let decoders = || self.levels.iter().filter_map(Level::decoder);
        let Some(consumed) = decoders().next().map(Decoder::consumed) else { return Ok(()) };
        match self.limits.judge(consumed, decoders().map(Decoder::produced).sum()) {
            Some(reason) => self.fail(Failure::Refused(reason)).map(|_| ()),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<Progress, Failure> {
        match self.failure.take() {
            Some(failure) => self.fail(failure),
            None => Ok(Progress::Ended),
        }
    }

    /// The failure of an outer level explains that of an inner one.
    fn fail(&mut self, failure: Failure) -> Result<Progress, Failure> {
        self.is_over = true;
        Err(self.failure.get_or_insert(failure).clone())
    }
}

/// Adds the streams that contain the failing one.
fn within(outer: &[Level], failure: Failure) -> Failure {
    let places: String =
        outer.iter().rev().filter_map(Level::name).map(|name| format!("within the {name} stream: ")).collect();
    match failure {
        Failure::Damaged(what) => Failure::Damaged(places + &what),
        Failure::Refused(what) => Failure::Refused(places + &what),
        Failure::NoMemory => Failure::NoMemory,
    }
}

/// One level: detects its format, then passes its bytes on or decodes them.
struct Level {
    /// Not yet inspected; no piece is empty.
    pieces: VecDeque<Bytes>,
    is_finished: bool,
    form: Form,
}

enum Form {
    Unknown,
    Plain,
    Compressed(Box<Decoder>),
}

enum Outcome {
    Progress(Progress),
    /// Just detected.
    Compressed,
}

impl Level {
    fn new(form: Form) -> Self {
        Self { pieces: VecDeque::new(), is_finished: false, form }
    }

    fn decoder(&self) -> Option<&Decoder> {
        if let Form::Compressed(decoder) = &self.form { Some(decoder) } else { None }
    }

    fn name(&self) -> Option<&'static str> {
        self.decoder().map(|decoder| decoder.compression().name())
    }

    fn step(&mut self, spent: &mut usize) -> Result<Outcome, Failure> {
        loop {
            match &mut self.form {
                Form::Unknown => {
                    let Some(head) = self.head() else { return Ok(Outcome::Progress(Progress::Hungry)) };
                    self.form = form(&head)?;
                    if matches!(self.form, Form::Compressed(_)) {
                        return Ok(Outcome::Compressed);
                    }
                }
                Form::Plain => {
                    return Ok(Outcome::Progress(match self.pieces.pop_front() {
                        Some(piece) => Progress::Piece(piece),
                        None if self.is_finished => Progress::Ended,
                        None => Progress::Hungry,
                    }));
                }
                Form::Compressed(decoder) => match decoder.step(spent)? {
                    Progress::Hungry => match self.pieces.pop_front() {
                        Some(piece) => decoder.push(piece),
                        None if self.is_finished => decoder.finish(),
                        None => return Ok(Outcome::Progress(Progress::Hungry)),
                    },
                    progress => return Ok(Outcome::Progress(progress)),
                },
            }
        }
    }

    /// The first bytes, once there are enough or the input has ended.
    fn head(&self) -> Option<Bytes> {
        if let Some(first) = self.pieces.front()
            && (first.len() >= HEAD_BYTES || (self.is_finished && self.pieces.len() == 1))
        {
            return Some(first.slice(..first.len().min(HEAD_BYTES)));
        }
        let there: usize = self.pieces.iter().map(Bytes::len).sum();
        (self.is_finished || there >= HEAD_BYTES)
            .then(|| self.pieces.iter().flat_map(|piece| piece.iter().copied()).take(HEAD_BYTES).collect())
    }
}

fn form(head: &[u8]) -> Result<Form, Failure> {
    let codec = Codec::new(Codec::of(head)).map_err(|fault| match fault {
        Fault::NoMemory => Failure::NoMemory,
        Fault::Broken(what) => Failure::Damaged(what),
    })?;
    match (codec, recognise(head)) {
        (Some(codec), _) => Ok(Form::Compressed(Box::new(Decoder::new(codec)))),
        (None, Some(foreign)) => Err(Failure::Refused(foreign.to_owned())),
        (None, None) => Ok(Form::Plain),
    }
}
