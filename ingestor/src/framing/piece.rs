//! Finds the end of a bad piece: before the next event, or at its own end, whichever comes first.

use common::event::{EventFormat, EventProblem};

use super::resync::Resync;
use super::scout::{Scout, View};
use super::wrapper::{Wrapper, keep_head};
use super::{Core, Framed};

/// The scout advances by this much at a time, because it need not know more than is asked.
const STEP_BYTES: u64 = 256;

/// A bad piece whose end is not found yet.
pub(super) struct Piece {
    begin: u64,
    natural: Natural,
    /// `None`: determined by its bytes once its end is known.
    problem: Option<EventProblem>,
    /// It does not end by itself before this place.
    looked_to: u64,
    /// No event begins before this place.
    searched_to: u64,
    /// For a broken tail: the wrapper of an event that ends the piece, because the array had not ended.
    wrapper: Option<Wrapper>,
    /// The first bytes of a piece that is skipped as it streams by; otherwise it begins at the cursor and is kept
    /// completely.
    passed: Option<Vec<u8>>,
}

/// The end of a bad piece by its own bytes.
pub(super) enum Natural {
    /// The end of a whole value that is not an event.
    Known(u64),
    Resync(Resync),
}

impl Piece {
    pub(super) fn kept(begin: u64, natural: Natural, problem: Option<EventProblem>) -> Self {
        let (looked_to, searched_to) = (begin, begin + 1);
        Self { begin, natural, problem, looked_to, searched_to, wrapper: None, passed: None }
    }

    /// The tail of a wrapper that broke at `broken_at`; everything before `passed_to` was skipped.
    pub(super) fn tail(
        (begin, passed_to, broken_at): (u64, u64, u64),
        head: Vec<u8>,
        resync: Resync,
        problem: EventProblem,
        wrapper: Wrapper,
    ) -> Self {
        Self {
            begin,
            natural: Natural::Resync(resync),
            problem: Some(problem),
            looked_to: broken_at,
            searched_to: passed_to,
            wrapper: Some(wrapper),
            passed: Some(head),
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.passed.is_none()
    }

    /// Its own end, if that is at most `until`. `to_brace`: an event begins there, and the piece may end before that
    /// too.
    fn natural_end(&mut self, view: View<'_>, until: u64, to_brace: bool) -> Option<u64> {
        match &mut self.natural {
            Natural::Known(end) => (*end <= until).then_some(*end),
            Natural::Resync(resync) => {
                let length = resync.scan(view.range(self.looked_to, until + u64::from(to_brace)))?;
                Some(self.looked_to + length as u64)
            }
        }
    }
}

/// The end of a bad piece.
enum PieceEnd {
    Natural(u64),
    BeforeEvent(u64),
}

impl Core {
    pub(super) fn begin_piece(&mut self, piece: Piece, format: &EventFormat) {
        self.scout_from(piece.looked_to.min(piece.searched_to), format);
        self.piece = Some(piece);
    }

    /// Ensures that the scout covers the bytes from `place` on.
    pub(super) fn scout_from(&mut self, place: u64, format: &EventFormat) {
        let is_behind = self.scout.as_ref().is_none_or(|scout| scout.frontier() <= place);
        if is_behind {
            self.drop_scout();
            self.scout = Some(Box::new(Scout::new(place, &self.limits, format)));
        }
        if let Some(scout) = &mut self.scout {
            scout.retire(place);
        }
    }

    pub(super) fn drop_scout(&mut self) {
        if let Some(scout) = self.scout.take() {
            self.looked_at += scout.looked_at();
        }
    }

    /// Lets the scout advance a little; false if nothing more can be decided now.
    pub(super) fn advance_scout(&mut self, view: View<'_>, format: &EventFormat) -> bool {
        let Some(scout) = &mut self.scout else { return false };
        if scout.frontier() < view.end() {
            scout.scan(view, scout.frontier().saturating_add(STEP_BYTES).min(view.end()), format);
            return true;
        }
        let is_open = scout.decided() < scout.frontier();
        if self.finished && is_open {
            scout.finish();
        }
        self.finished && is_open
    }

    /// The current bad piece, once its end is found; `None` if more bytes are needed.
    pub(super) fn end_piece<'a>(&'a mut self, buffer: &'a [u8], format: &EventFormat) -> Option<Framed<'a>> {
        let view = View { bytes: buffer, base: self.base };
        let Some(end) = self.end_of_piece(view, format) else {
            self.pass_over_long_piece(view);
            return None;
        };
        let Piece { begin, natural, problem, passed, wrapper, .. } = self.piece.take()?;
        let cursor = self.offset();
        let end = match end {
            PieceEnd::Natural(end) => end,
            PieceEnd::BeforeEvent(end) => {
                self.position.state.wrapper = self.position.state.wrapper.or(wrapper);
                end
            }
        };
        self.position.advance(usize::try_from(end - cursor).unwrap_or(usize::MAX));
        let (bytes, length) = (view.range(cursor, end), end - begin);
        if let Some(mut head) = passed {
            keep_head(&mut head, bytes, self.limits.bad_head_bytes);
            self.passed_head = head;
            let problem = problem.unwrap_or_else(|| self.limits.too_large());
            return Some(Framed::Bad { offset: begin, length, head: &self.passed_head, problem });
        }
        let is_whole = matches!(natural, Natural::Known(known) if known == end);
        let problem = match problem.filter(|_| is_whole) {
            Some(problem) => problem,
            None if length > self.limits.max_event_bytes as u64 => self.limits.too_large(),
            None => {
                self.looked_at += 2 * length;
                explain(bytes, format)
            }
        };
        let head = &bytes[..bytes.len().min(self.limits.bad_head_bytes)];
        Some(Framed::Bad { offset: begin, length, head, problem })
    }

    fn end_of_piece(&mut self, view: View<'_>, format: &EventFormat) -> Option<PieceEnd> {
        loop {
            let (Some(piece), Some(scout)) = (&mut self.piece, &self.scout) else { return None };
            let decided = scout.decided();
            let event = scout.first_event(piece.searched_to, decided);
            piece.searched_to = piece.searched_to.max(decided);
            if let Some(event) = event.filter(|event| *event < piece.looked_to) {
                return Some(PieceEnd::BeforeEvent(event));
            }
            let until = event.unwrap_or(decided).max(piece.looked_to);
            let end = piece.natural_end(view, until, event.is_some());
            self.looked_at += end.unwrap_or(until).saturating_sub(piece.looked_to);
            if let Some(end) = end {
                return Some(PieceEnd::Natural(end));
            }
            piece.looked_to = until;
            if let Some(event) = event {
                return Some(PieceEnd::BeforeEvent(event));
            }
            if !self.advance_scout(view, format) {
                return self.finished.then(|| PieceEnd::Natural(view.end()));
            }
        }
    }

    /// Keeps only the first bytes of a piece that is longer than an event may be.
    fn pass_over_long_piece(&mut self, view: View<'_>) {
        let cursor = self.offset();
        let (Some(piece), Some(scout)) = (&mut self.piece, &self.scout) else { return };
        let done = piece.looked_to.min(scout.decided());
        if piece.looked_to - piece.begin <= self.limits.max_event_bytes as u64 || done < cursor {
            return;
        }
        let bytes = view.range(cursor, done);
        keep_head(piece.passed.get_or_insert_default(), bytes, self.limits.bad_head_bytes);
        self.position.advance(bytes.len());
        if let Some(scout) = &mut self.scout {
            scout.retire(cursor + bytes.len() as u64);
        }
    }
}

fn explain(bytes: &[u8], format: &EventFormat) -> EventProblem {
    match format.explain(bytes) {
        // Loose text has no end that could be missing.
        EventProblem::Truncated if bytes.first() != Some(&b'{') => EventProblem::NotJson("no whole value".to_owned()),
        problem => problem,
    }
}
