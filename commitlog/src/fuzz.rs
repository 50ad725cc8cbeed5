//! The input is a checkpoint, or entries, of each of which a line has the operations.

#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "an oracle reports a failure by a panic")]

use crate::{Checkpoint, ENTRY_VERSION, Entry, Op, Places, Segment, State};

/// Whatever is read from objects is refused, or is the same after it was written and read again: entries one by one, and
/// the state that they make by its checkpoint.
pub fn object(input: &[u8]) {
    checkpoint(input);
    let (mut state, mut previous) = (State::default(), None);
    for (n, line) in (0..).zip(input.split(|byte| *byte == b'\n')) {
        let Ok(ops) = serde_json::from_slice::<Vec<Op>>(line) else { break };
        let entry = Entry { version: ENTRY_VERSION, n, previous, writer: String::new(), ops };
        // JSON does not keep every number.
        let Ok((bytes, sealed)) = entry.seal() else { break };
        assert_eq!(Entry::open(&bytes, n, previous).expect("an entry of ours"), sealed);
        if state.apply(&sealed.entry.ops).is_err() {
            break;
        }
        previous = Some(sealed.hash);
        assert_eq!(state.head.next, n + 1);
    }
    let Some(last_entry) = previous else { return };
    let split = Checkpoint::split(None, &Places::new(), &state, last_entry).expect("every value was read");
    let segments: Vec<Segment> =
        split.made.iter().map(|(named, bytes)| named.decode(bytes).expect("a segment of ours")).collect();
    let bytes = split.checkpoint.encode().expect("every value was read");
    let read = Checkpoint::decode(&bytes, state.head.next).expect("a checkpoint of ours");
    assert_eq!(read.join(segments).expect("its segments"), state);
}

fn checkpoint(input: &[u8]) {
    let Ok(parsed) = serde_json::from_slice::<Checkpoint>(input) else { return };
    let Ok(checkpoint) = Checkpoint::decode(input, parsed.entries) else { return };
    let bytes = checkpoint.encode().expect("every value was read");
    assert_eq!(Checkpoint::decode(&bytes, checkpoint.entries).expect("a checkpoint of ours"), checkpoint);
}
