//! An independent implementation of the module's rule, as simple and slow as possible: the framer must give the same
//! result.

use common::json::{Opened, ScanError, ScanErrorKind};

use super::super::tail::{Tail, TailProblem, TailStep};
use super::*;

struct Model<'a> {
    file: &'a [u8],
    format: &'a EventFormat,
    at: usize,
    in_array: bool,
    after_value: bool,
    wrapper: Option<Wrapper>,
    found: Vec<Piece>,
}

enum What {
    Event(usize, String),
    Value(usize, &'static str),
    Broken,
}

impl Model<'_> {
    fn window(&self, at: usize) -> &[u8] {
        &self.file[at..self.file.len().min(at + LIMITS.max_event_bytes)]
    }

    fn what(&self, at: usize) -> What {
        let mut spans = Spans::default();
        match self.format.scan(self.window(at), &mut spans) {
            _ if self.file[at] != b'{' => What::Broken,
            Ok(end) => match self.format.read(&self.file[at..at + end], &spans) {
                Ok(event) => What::Event(end, event.event_id.into_owned()),
                Err(problem) => What::Value(end, problem.code()),
            },
            Err(error) => match error.kind {
                ScanErrorKind::Duplicate { end, .. } => What::Value(end, "duplicate_field"),
                _ => What::Broken,
            },
        }
    }

    /// The byte after the bracket of the array of events.
    fn head(&self, at: usize) -> Option<usize> {
        match self.format.scan_to_records(self.window(at)) {
            Ok(Opened::Array { after }) if self.file[at] == b'{' => Some(at + after),
            _ => None,
        }
    }

    fn first_event(&self, from: usize, to: usize) -> Option<usize> {
        (from..to).find(|at| matches!(self.what(*at), What::Event(..)))
    }

    fn column(&self, at: usize) -> u64 {
        let line = self.file[..at].iter().rposition(|byte| b"\r\n".contains(byte)).map_or(0, |end| end + 1);
        (at - line) as u64
    }

    fn bad(&mut self, begin: usize, end: usize, code: &'static str) {
        self.found.push(Piece::Bad(begin as u64, (end - begin) as u64, code));
        self.at = end;
        self.after_value = true;
    }

    fn broken_code(&self, begin: usize, end: usize) -> &'static str {
        if end - begin > LIMITS.max_event_bytes {
            return "too_large";
        }
        match self.format.explain(&self.file[begin..end]).code() {
            "truncated" if self.file[begin] != b'{' => "not_json",
            code => code,
        }
    }

    fn broken(&mut self, begin: usize, from: usize, resync: &mut Resync, code: Option<&'static str>) {
        let natural = resync.scan(&self.file[from..]).map_or(self.file.len(), |length| from + length);
        let first = from.max(begin + 1);
        let end = self.first_event(first, natural).unwrap_or(natural);
        self.bad(begin, end, code.unwrap_or_else(|| self.broken_code(begin, end)));
    }

    fn is_inside(&self) -> bool {
        self.in_array || self.wrapper.is_some()
    }

    fn tail(&mut self, wrapper: Wrapper) {
        let begin = self.at;
        let mut tail = Tail::new(wrapper.braces as usize, self.format.records(), self.format.max_depth());
        let (from, code) = match tail.scan(&self.file[begin..]) {
            TailStep::Closed(length) => {
                self.at += length;
                self.after_value = true;
                return;
            }
            TailStep::Broken(length, TailProblem::NotJson) => (begin + length, "not_json"),
            TailStep::Broken(length, TailProblem::TooDeep) => (begin + length, "too_deep"),
            TailStep::Broken(length, TailProblem::Duplicate) => (begin + length, "duplicate_field"),
            TailStep::Inside => {
                self.bad(begin, self.file.len(), "truncated");
                self.in_array = false;
                return;
            }
        };
        let last_string = begin + usize::try_from(tail.before_last_string()).unwrap();
        let search_from = last_string.max(from.saturating_sub(LIMITS.max_event_bytes));
        let mut resync = Resync::inside(wrapper.column, tail.depth() as u64, tail.in_string(), tail.indent());
        let natural = resync.scan(&self.file[from..]).map_or(self.file.len(), |length| from + length);
        let event = self.first_event(search_from, natural);
        self.bad(begin, event.unwrap_or(natural), code);
        self.wrapper = event.map(|_| wrapper);
    }

    fn value(&mut self) {
        let (begin, column) = (self.at, self.column(self.at));
        let at_wrapper = self.format.records().is_some() && self.wrapper.is_none();
        let head = self.head(begin);
        if at_wrapper && let Some(after) = head {
            let braces = u32::try_from(self.format.records().unwrap().segments().len()).unwrap();
            self.wrapper = Some(Wrapper { braces, column });
            self.at = after;
            self.after_value = false;
            return;
        }
        let what = self.what(begin);
        if let What::Event(end, id) = what {
            self.found.push(Piece::Event(begin as u64, id));
            self.at += end;
            self.after_value = true;
            return;
        }
        if head.is_some() && self.wrapper.is_some_and(|wrapper| column <= wrapper.column) {
            self.wrapper = None;
            self.found.push(Piece::Bad(begin as u64, 0, "truncated"));
            return;
        }
        let scope = if self.is_inside() { Scope::Array } else { Scope::Top };
        match what {
            What::Value(end, code) if self.wrapper.is_none() => {
                let second_array = matches!(
                    self.format.scan_to_records(self.window(begin)),
                    Err(ScanError { kind: ScanErrorKind::Duplicate { .. }, .. })
                );
                let at_wrapper_code = if second_array { "duplicate_field" } else { "no_records" };
                self.bad(begin, begin + end, if at_wrapper { at_wrapper_code } else { code });
            }
            What::Value(length, code) => {
                let end = self.first_event(begin + 1, begin + length).unwrap_or(begin + length);
                let code = if end == begin + length { code } else { self.broken_code(begin, end) };
                self.bad(begin, end, code);
            }
            _ => self.broken(begin, begin, &mut Resync::new(column, scope), None),
        }
    }

    fn run(mut self) -> Vec<Piece> {
        while let Some(byte) = self.file.get(self.at).copied() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b',' if self.after_value => (self.at, self.after_value) = (self.at + 1, false),
                b']' if self.wrapper.is_some() => {
                    self.at += 1;
                    let wrapper = self.wrapper.take().unwrap();
                    self.tail(wrapper);
                }
                b'[' if !self.is_inside() => {
                    (self.at, self.in_array, self.after_value) = (self.at + 1, true, false);
                }
                b']' if self.in_array => (self.at, self.in_array, self.after_value) = (self.at + 1, false, true),
                0x1e if self.is_inside() => {
                    (self.in_array, self.wrapper) = (false, None);
                    self.found.push(Piece::Bad(self.at as u64, 0, "truncated"));
                }
                0x1e => (self.at, self.after_value) = (self.at + 1, false),
                _ if self.file[self.at..].starts_with(BYTE_ORDER_MARK) => self.at += BYTE_ORDER_MARK.len(),
                _ => self.value(),
            }
        }
        if self.is_inside() {
            self.found.push(Piece::Bad(self.at as u64, 0, "truncated"));
        }
        self.found
    }
}

pub(super) fn model(format: &EventFormat, file: &[u8]) -> Vec<Piece> {
    let model = Model { file, format, at: 0, in_array: false, after_value: false, wrapper: None, found: Vec::new() };
    model.run()
}

/// Parts of files, whole and broken, in every order.
fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z]{1,3}".prop_map(|id| event(&id)),
        1 => "[a-z]{1,3}".prop_map(|id| pretty(&id)),
        3 => ("[a-z]{1,3}", 1_usize..140).prop_map(|(id, end)| event(&id).chars().take(end).collect()),
        1 => ("[a-z]{1,3}", 1_usize..140).prop_map(|(id, end)| pretty(&id).chars().take(end).collect()),
        2 => ("[a-z]{1,3}", 1_usize..140).prop_map(|(id, begin)| event(&id).chars().skip(begin).collect()),
        1 => "[a-z]{1,3}".prop_map(|id| event(&id).replace("[1,", &format!("[{},", event("nested")))),
        1 => "[a-z]{1,3}".prop_map(|id| event(&id).replace("\"domain\":\"d\"", "\"domain\":\"\"")),
        1 => (1_usize..200).prop_map(nested),
        2 => prop::sample::select(vec![
            "[", "]", ",", ":", "{", "}", "\"", "\\", "\n", "\r", "\r\n", "\u{1e}", "\u{feff}", " ", "\0", "]}", "{\"a\":", "{\"a\":[",
            "{\"a\":[1,", "{}", "[]", "}}", "],\"x\":{}}\n", "],\"x\":", "{\"Records\":[", "\n{\"Records\":[", "{\n \"v\":1, \"Records\" : [",
            "{\"Records\":0,", "{\"Records\":{\"Records\":[", "1", "nul", "1e", "-",
        ]).prop_map(str::to_owned),
        2 => "[\\[\\]{}\",:a0\\\\\n ]{0,12}",
        1 => "[a-z]{30,90}".prop_map(|text| text.repeat(60)),
    ]
    .prop_map(String::into_bytes)
    .prop_flat_map(|text| {
        let length = text.len();
        prop_oneof![
            9 => Just(text.clone()),
            1 => (0..=length, any::<u8>()).prop_map(move |(at, byte)| {
                let mut damaged = text.clone();
                damaged.insert(at, byte);
                damaged
            }),
        ]
    })
}

pub(super) fn file() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(part(), 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_framer_does_what_the_rule_says(
        file in file(),
        wrapped in any::<bool>(),
        pieces in prop::collection::vec(1_usize..300, 1..6),
    ) {
        let format = if wrapped { records::wrapped_at("/Records") } else { EventFormat::default() };
        let expected = model(&format, &file);
        prop_assert_eq!(&frame_as(&format, &file, &[usize::MAX]), &expected);
        prop_assert_eq!(&frame_as(&format, &file, &pieces), &expected);
        resume_everywhere(&format, &file)?;
    }
}
