//! Parses a message of the queue: S3 event notifications, bare, wrapped by SNS, or from EventBridge.

#[cfg(feature = "fuzz")]
pub(super) mod fuzz;

use serde::Deserialize;

/// SNS wraps a message once; more levels are a loop or a mistake.
const MAX_WRAPS: u32 = 2;

/// The bucket and prefix of the landing zone.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub bucket: String,
    /// The prefix of the store, without a `/` at either end; empty = the whole bucket.
    pub prefix: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Objects below `folder` were created; none if the message is about something else.
    Created(Vec<String>),
    /// Not a notification, or one of another bucket.
    NotUnderstood,
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    /// `s3:TestEvent`, sent when notifications are configured.
    #[serde(rename = "Event")]
    event: Option<String>,
    /// SNS: the message inside.
    #[serde(rename = "Message")]
    message: Option<String>,
    /// EventBridge.
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    detail: Option<Entity>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName")]
    event_name: String,
    s3: Entity,
}

#[derive(Deserialize)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
}

/// The keys, relative to the store's root, of created objects below `folder` (which ends in `/`).
pub(super) fn read(body: &str, place: &Place, folder: &str) -> Said {
    match full_keys(body, place, MAX_WRAPS) {
        Some(keys) => {
            Said::Created(keys.iter().filter_map(|key| relative(key, place, folder)).map(str::to_owned).collect())
        }
        None => Said::NotUnderstood,
    }
}

fn full_keys(body: &str, place: &Place, wraps: u32) -> Option<Vec<String>> {
    match serde_json::from_str(body).ok()? {
        Body { records: Some(records), .. } => {
            let created: Vec<&Record> = records.iter().filter(|record| is_creation(&record.event_name)).collect();
            created.iter().map(|record| key_in(&record.s3, place).and_then(url_decode)).collect()
        }
        // EventBridge does not encode the key.
        Body { detail_type: Some(kind), detail: Some(detail), .. } if kind == "Object Created" => {
            Some(vec![key_in(&detail, place)?.to_owned()])
        }
        Body { event: Some(event), .. } if event == "s3:TestEvent" => Some(Vec::new()),
        Body { message: Some(message), .. } if wraps > 0 => full_keys(&message, place, wraps - 1),
        _ => None,
    }
}

/// AWS sends `ObjectCreated:Put`, others `s3:ObjectCreated:Put`.
fn is_creation(event_name: &str) -> bool {
    event_name.strip_prefix("s3:").unwrap_or(event_name).starts_with("ObjectCreated:")
}

fn key_in<'e>(entity: &'e Entity, place: &Place) -> Option<&'e str> {
    (entity.bucket.name == place.bucket).then_some(&*entity.object.key)
}

fn relative<'k>(key: &'k str, place: &Place, folder: &str) -> Option<&'k str> {
    let key = match place.prefix.as_str() {
        "" => key,
        prefix => key.strip_prefix(prefix)?.strip_prefix('/')?,
    };
    let below = key.strip_prefix(folder)?;
    // "Folders" made by consoles are empty objects whose key ends in a slash.
    (!below.is_empty() && !below.ends_with('/')).then_some(key)
}

/// Decodes a form: `+` is a space, `%XX` a byte. `None` if the result is not UTF-8.
fn url_decode(encoded: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn place(prefix: &str) -> Place {
        Place { bucket: "landing".to_owned(), prefix: prefix.to_owned() }
    }

    fn record(name: &str, bucket: &str, key: &str) -> serde_json::Value {
        json!({ "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name,
                "s3": { "bucket": { "name": bucket }, "object": { "key": key, "size": 1, "eTag": "x" } } })
    }

    fn notification(key: &str) -> serde_json::Value {
        json!({ "Records": [record("ObjectCreated:Put", "landing", key)] })
    }

    fn bridged(kind: &str, key: &str) -> serde_json::Value {
        json!({ "version": "0", "detail-type": kind, "source": "aws.s3",
                "detail": { "bucket": { "name": "landing" }, "object": { "key": key }, "reason": "PutObject" } })
    }

    fn created(keys: &[&str]) -> Said {
        Said::Created(keys.iter().map(|key| (*key).to_owned()).collect())
    }

    fn read_value(body: &serde_json::Value, prefix: &str) -> Said {
        read(&body.to_string(), &place(prefix), "pending/")
    }

    #[test]
    fn keys_are_decoded_and_made_relative() {
        let body = notification("zone/pending/a/%C3%A4+b%2Bc.json");
        assert_eq!(read_value(&body, "zone"), created(&["pending/a/ä b+c.json"]));
        assert_eq!(read_value(&notification("pending/x"), ""), created(&["pending/x"]));
        assert_eq!(read_value(&bridged("Object Created", "pending/a+b %41"), ""), created(&["pending/a+b %41"]));
    }

    #[test]
    fn every_wrapping_is_opened() {
        for body in [notification("pending/x"), bridged("Object Created", "pending/x")] {
            let wrapped = json!({ "Type": "Notification", "MessageId": "1", "Message": body.to_string() });
            assert_eq!(read_value(&wrapped, ""), created(&["pending/x"]));
        }
        let minio = json!({ "EventName": "s3:ObjectCreated:Put", "Key": "landing/pending/x",
                            "Records": [record("s3:ObjectCreated:Put", "landing", "pending/x")] });
        assert_eq!(read_value(&minio, ""), created(&["pending/x"]));
    }

    #[test]
    fn only_created_objects_below_pending_are_of_interest() {
        let records = json!({ "Records": [
            record("ObjectCreated:Put", "landing", "pending/1"),
            record("ObjectRemoved:Delete", "landing", "pending/2"),
            record("ObjectCreated:Copy", "landing", "processed/date=2021-01-14/3"),
            record("ObjectCreated:CompleteMultipartUpload", "landing", "pending/4"),
            record("ObjectCreated:Put", "landing", "pending/folder/"),
        ] });
        assert_eq!(read_value(&records, ""), created(&["pending/1", "pending/4"]));
        assert_eq!(read_value(&notification("elsewhere/pending/x"), "zone"), created(&[]));
        assert_eq!(read_value(&notification("zonepending/x"), "zone"), created(&[]));
        let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "landing" });
        assert_eq!(read_value(&test, ""), created(&[]));
        assert_eq!(read_value(&json!({ "Type": "Notification", "Message": test.to_string() }), ""), created(&[]));
    }

    #[test]
    fn other_buckets_and_foreign_messages_are_not_understood() {
        let other = json!({ "Records": [record("ObjectCreated:Put", "another", "pending/x")] });
        let bad_encoding = notification("pending/%GG");
        let bad_utf8 = notification("pending/%FF");
        let looped = (0..5).fold(notification("pending/x"), |body, _| json!({ "Message": body.to_string() }));
        let deleted = bridged("Object Deleted", "pending/x");
        for body in [other, bad_encoding, bad_utf8, looped, deleted, json!({}), json!([1]), json!({ "Records": 1 })] {
            assert_eq!(read_value(&body, ""), Said::NotUnderstood, "{body}");
        }
        assert_eq!(read("no JSON", &place(""), "pending/"), Said::NotUnderstood);
    }

    proptest! {
        #[test]
        fn any_key_survives_its_encoding(key in "\\PC{0,40}") {
            let encode = |byte: u8| match byte {
                b' ' => "+".to_owned(),
                b'a'..=b'z' | b'/' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            };
            let encoded: String = key.bytes().map(encode).collect();
            prop_assert_eq!(url_decode(&encoded), Some(key));
        }

        #[test]
        fn no_text_makes_decoding_panic(text in "\\PC{0,40}") {
            let _ = url_decode(&text);
            let _ = read(&text, &place(""), "pending/");
        }
    }
}
