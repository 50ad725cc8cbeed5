//! The input is a commit, or a checkpoint.

#![allow(clippy::expect_used, clippy::panic, reason = "an oracle reports a failure by a panic")]

use bytes::Bytes;

use crate::action::{Action, read_actions, write_actions};
use crate::checkpoint::{self, Part, Writer};
use crate::{decode_path, encode_path};

/// What is read of a commit or a checkpoint is read again the same once it is written, and so are its paths.
pub fn delta(input: &[u8]) {
    if let Ok(actions) = read_actions(input) {
        let body = write_actions(&actions).expect("what was read has JSON");
        assert_eq!(read_actions(&body).expect("what was written can be read"), actions);
        check_paths(&actions);
    }
    let mut actions = Vec::new();
    for part in [Part::Head, Part::Files] {
        let mut take = |action| {
            actions.push(action);
            Ok(())
        };
        if checkpoint::read(Bytes::copy_from_slice(input), part, &mut take).is_err() {
            return;
        }
    }
    let mut writer = Writer::new().expect("a schema");
    for action in &actions {
        writer.push(action).expect("what was read can be written");
    }
    let body = Bytes::from(writer.finish().expect("a checkpoint").body);
    let mut found = Vec::new();
    for part in [Part::Head, Part::Files] {
        let mut take = |action| {
            found.push(action);
            Ok(())
        };
        checkpoint::read(body.clone(), part, &mut take).expect("what was written can be read");
    }
    // Each kind keeps its order; the kinds of a part are read one after another, rows at a time.
    let sorted = |actions: &[Action]| {
        let mut texts: Vec<String> = actions.iter().map(|action| format!("{action:?}")).collect();
        texts.sort_unstable();
        texts
    };
    assert_eq!(sorted(&found), sorted(&actions));
    check_paths(&actions);
}

fn check_paths(actions: &[Action]) {
    for action in actions {
        let path = match action {
            Action::Add(add) => &add.path,
            Action::Remove(remove) => &remove.path,
            _ => continue,
        };
        if let Some(decoded) = decode_path(path) {
            assert_eq!(decode_path(&encode_path(&decoded)), Some(decoded));
        }
    }
}
