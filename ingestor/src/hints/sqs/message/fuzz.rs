//! The input is the body of a queue message.

use serde_json::json;

use super::{Place, Said, read};

const FOLDER: &str = "pending/";
const PREFIXES: [&str; 2] = ["", "zone"];

/// Keys from a message are below the folder, and a notification of these keys gives the same keys.
pub fn queue_message(input: &[u8]) {
    let Ok(body) = std::str::from_utf8(input) else { return };
    for prefix in PREFIXES {
        let place = Place { bucket: "landing".to_owned(), prefix: prefix.to_owned() };
        let Said::Created(keys) = read(body, &place, FOLDER) else { continue };
        for key in &keys {
            assert!(
                key.strip_prefix(FOLDER).is_some_and(|below| !below.is_empty() && !below.ends_with('/')),
                "{key:?}"
            );
            assert!(key.len() <= body.len(), "{key:?} is longer than the message");
        }
        let records: Vec<_> = keys.iter().map(|key| record(&full(prefix, key))).collect();
        let again = json!({ "Records": records }).to_string();
        assert_eq!(read(&again, &place, FOLDER), Said::Created(keys.clone()), "{again}");
        let wrapped = json!({ "Message": again }).to_string();
        assert_eq!(read(&wrapped, &place, FOLDER), Said::Created(keys), "{wrapped}");
    }
}

fn full(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") }
}

fn record(key: &str) -> serde_json::Value {
    let encoded: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
    json!({ "eventName": "ObjectCreated:Put", "s3": { "bucket": { "name": "landing" }, "object": { "key": encoded } } })
}
