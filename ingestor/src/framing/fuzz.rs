//! The input is a landing file.

#![allow(clippy::expect_used, reason = "an oracle reports a failure by a panic")]

use common::event::{EventFormat, PRESETS, TimeRule};
use common::json::Pointer;

use super::model::{Piece, SCANS, frame, model, resume_everywhere};
use super::{FramingState, Limits};
use crate::fuzz::lengths;

/// Small limits, so that small files exceed them.
const LIMITS: [Limits; 2] =
    [Limits { max_event_bytes: 4_000, bad_head_bytes: 64 }, Limits { max_event_bytes: 150, bad_head_bytes: 16 }];
/// Longer files are not resumed from every checkpoint.
const RESUMED_BYTES: usize = 1_500;

/// Under two formats and two sets of limits: the pieces are those of the rule, for every division of the file into read
/// pieces and from every checkpoint on; they are in order and do not overlap; time is linear.
pub fn framing(file: &[u8]) {
    let wrapped = Pointer::parse("/Records")
        .ok()
        .and_then(|pointer| EventFormat::new(&PRESETS[0].rules(), TimeRule::utc(), Some(&pointer)).ok());
    let formats = [EventFormat::default(), wrapped.expect("a format that is known to be sound")];
    let resumed = lengths(file)[0] % (formats.len() * LIMITS.len());
    let combinations = formats.iter().flat_map(|format| LIMITS.map(|limits| (format, limits)));
    for (number, (format, limits)) in combinations.enumerate() {
        let whole = check(format, limits, file);
        // Each checkpoint has the rest of the file framed again, so only one combination is resumed.
        if number == resumed && file.len() <= RESUMED_BYTES {
            resume_everywhere(format, limits, file, &whole);
        }
    }
    let state = serde_json::from_slice::<FramingState>(file);
    if let Ok(state) = state {
        let written = serde_json::to_vec(&state).expect("a state that can be written");
        assert_eq!(serde_json::from_slice::<FramingState>(&written).ok(), Some(state));
    }
}

fn check(format: &EventFormat, limits: Limits, file: &[u8]) -> Vec<Piece> {
    let (whole, _) = frame(format, limits, file, &[usize::MAX]);
    assert_eq!(whole, model(format, limits, file), "against the rule");
    let mut end = 0;
    for piece in &whole {
        let (offset, length) = match piece {
            Piece::Event(offset, _) => (*offset, 1),
            Piece::Bad(offset, length, _) => (*offset, *length),
        };
        assert!(offset >= end, "{piece:?} begins before {end}");
        end = offset + length;
    }
    assert!(end <= file.len() as u64);
    let (pieces, looked_at) = frame(format, limits, file, &lengths(file));
    assert_eq!(pieces, whole, "in pieces");
    assert!(looked_at <= SCANS * (file.len() as u64 + 100), "{looked_at} scans of {} bytes", file.len());
    whole
}
