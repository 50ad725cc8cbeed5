//! Records of other producers on the topic. Each has a defined outcome, and none stops the distributor except those
//! without a log-append time, which are refused with the remedy.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::Duration;

use arrow_array::cast::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::harness::{files, rows, services};
use crate::kafka_s3::Zone;

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// An ordinary producer: no transactions, no headers, another partitioner.
fn producer(zone: &Zone, codec: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", &zone.services.kafka)
        .set("compression.type", codec)
        .set("linger.ms", "50")
        .create()
        .unwrap()
}

struct Sender<'a> {
    producer: BaseProducer,
    zone: &'a Zone,
}

impl Sender<'_> {
    fn send(&self, key: Option<&[u8]>, value: Option<&[u8]>, headers: OwnedHeaders) {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.zone.topic).headers(headers);
        (record.key, record.payload) = (key, value);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn event(&self, id: &str, key: Option<&[u8]>, headers: OwnedHeaders) {
        self.send(key, Some(event(id).as_bytes()), headers);
    }

    /// With a header whose name is not UTF-8, as a client written in C may send it.
    #[expect(unsafe_code, reason = "the binding takes names as text only")]
    fn event_with_a_nameless_header(&self, id: &str) {
        use rdkafka::bindings::{
            rd_kafka_produceva, rd_kafka_vtype_t, rd_kafka_vu_s__bindgen_ty_1 as Value,
            rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 as Bytes, rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 as CHeader,
            rd_kafka_vu_t,
        };
        const COPY: i32 = 0x2;
        let (topic, name) = (CString::new(self.zone.topic.as_str()).unwrap(), c"\xff\xfe");
        let mut event = event(id).into_bytes();
        let value = Bytes { ptr: event.as_mut_ptr().cast(), size: event.len() };
        let header = CHeader { name: name.as_ptr(), val: topic.as_ptr().cast(), size: 1 };
        let arguments = [
            rd_kafka_vu_t { vtype: rd_kafka_vtype_t::RD_KAFKA_VTYPE_TOPIC, u: Value { cstr: topic.as_ptr() } },
            rd_kafka_vu_t { vtype: rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS, u: Value { i: COPY } },
            rd_kafka_vu_t { vtype: rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, u: Value { mem: value } },
            rd_kafka_vu_t { vtype: rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADER, u: Value { header } },
        ];
        // SAFETY: the client is alive; every pointer is valid until after the call, which copies the data.
        let error =
            unsafe { rd_kafka_produceva(self.producer.client().native_ptr(), arguments.as_ptr(), arguments.len()) };
        assert!(error.is_null());
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }
}

fn event(id: &str) -> String {
    format!(r#"{{"event_id":"{id}","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":1}}"#)
}

fn header(name: &str, value: Option<&[u8]>) -> OwnedHeaders {
    OwnedHeaders::new().insert(Header { key: name, value })
}

/// Creates the topics as the ingestor does.
fn make_topics(zone: &Zone) {
    std::fs::create_dir_all(zone.landing.1.join("pending")).unwrap();
    zone.ingest().args(&["--once"]).report();
}

/// The number of rejected rows, by reason.
fn rejected(zone: &Zone) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for path in files(&zone.trusted.1.join("rejected"), ".parquet") {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            for reason in batch.column_by_name("reason").unwrap().as_string::<i32>() {
                *reasons.entry(reason.unwrap().to_owned()).or_default() += 1;
            }
        }
    }
    reasons
}

#[test]
fn every_record_of_other_producers_has_its_place() {
    let zone = Zone::new(&services(), "foreign");
    make_topics(&zone);
    let none = OwnedHeaders::new;
    let mut expected = BTreeMap::new();
    for codec in CODECS {
        let sender = Sender { producer: producer(&zone, codec), zone: &zone };
        let mut row = |id: &str, key: Option<&[u8]>, headers, source: &str| {
            let id = format!("{codec}-{id}");
            sender.event(&id, key, headers);
            expected.insert(id, source.to_owned());
        };
        for number in 0..200 {
            row(&format!("plain-{number}"), Some(format!("k{number}").as_bytes()), none(), "");
        }
        row("no-key", None, none(), "");
        row("empty-key", Some(b""), none(), "");
        row("other-key", Some(b"\xff\x00"), none(), "");
        row("source", None, header("source", Some(b"a/b.json")), "a/b.json");
        row("first-source", None, header("source", Some(b"1")).insert(Header { key: "source", value: Some("2") }), "1");
        row("no-text", None, header("source", Some(b"\xff\xfe")), "");
        row("null-header", None, header("source", None::<&[u8]>), "");
        row("empty-name", None, header("", Some(b"x")), "");
        row("huge-header", None, header("trace", Some(&vec![b'x'; 500_000])), "");
        row(
            "many-headers",
            None,
            (0..2_000).fold(none(), |all, _| all.insert(Header { key: "h", value: Some("v") })),
            "",
        );
        row(
            "long-name",
            None,
            header(&"n".repeat(300), Some(b"x")).insert(Header { key: "source", value: Some("s") }),
            "s",
        );
        sender.event_with_a_nameless_header(&format!("{codec}-nameless"));
        expected.insert(format!("{codec}-nameless"), String::new());
        sender.send(Some(b"k"), None, none());
        sender.send(None, None, none());
        sender.send(None, Some(b""), none());
        sender.send(None, Some(b"\x00\x01 no JSON"), none());
        sender.send(None, Some(b"[]"), none());
        sender.flush();
    }
    let report = zone.distribute().args(&["--once"]).report();
    assert_eq!(report["written"]["rejected"].as_u64(), Some(25), "{report}");
    let written: BTreeMap<String, String> =
        rows(&zone.trusted.1).into_iter().map(|row| (row.event_id, row.source)).collect();
    assert!(
        written == expected,
        "{:?}",
        expected.iter().filter(|(id, source)| written.get(*id) != Some(source)).collect::<Vec<_>>()
    );
    let reasons = [("not_an_object", 5), ("not_json", 5), ("null_value", 10), ("truncated", 5)];
    let reasons = reasons.map(|(code, rows)| (code.to_owned(), rows));
    assert_eq!(rejected(&zone), BTreeMap::from(reasons));
    zone.assert_sound();
}

fn set_timestamp_type(zone: &Zone, to: &str) {
    zone.services.kafka_tool(
        "kafka.admin.ConfigCommand",
        &["--alter", "--topic", &zone.topic, "--add-config", &format!("message.timestamp.type={to}")],
    );
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_topic_whose_records_would_carry_the_producers_time_is_refused_at_the_start_with_the_fix() {
    let zone = Zone::new(&services(), "create-time");
    make_topics(&zone);
    set_timestamp_type(&zone, "CreateTime");
    for role in [zone.distribute(), zone.ingest()] {
        let output = role.args(&["--once"]).output();
        assert_eq!(output.status.code(), Some(1));
        let stderr = stderr(&output);
        assert!(stderr.contains("message.timestamp.type=CreateTime must be LogAppendTime"), "{stderr}");
    }
    assert!(files(&zone.trusted.1, "").is_empty(), "nothing was done");
}

/// The topic was changed and changed back: records written meanwhile have no place in log time. They are skipped only
/// on an operator's request.
#[test]
fn records_with_the_producers_time_are_refused_until_the_offset_is_set_past_them() {
    let zone = Zone::new(&services(), "mixed-time");
    std::fs::create_dir_all(zone.landing.1.join("pending")).unwrap();
    zone.ingest().set("log.partitions=1").args(&["--once"]).report();
    let sender = Sender { producer: producer(&zone, "none"), zone: &zone };
    let send = |id: &str| {
        sender.event(id, None, OwnedHeaders::new());
        sender.flush();
    };
    send("before");
    zone.distribute().args(&["--once"]).report();
    set_timestamp_type(&zone, "CreateTime");
    send("meanwhile");
    set_timestamp_type(&zone, "LogAppendTime");
    send("after");
    let refused = zone.distribute().args(&["--once"]).output();
    assert_eq!(refused.status.code(), Some(1));
    let message = stderr(&refused);
    for part in ["offset 1 carries no log-append time", "set the group's offset past"] {
        assert!(message.contains(part), "{part:?} is missing in {message}");
    }
    zone.services.kafka_tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &["--group", &zone.topic, "--topic", &zone.topic, "--reset-offsets", "--to-offset", "2", "--execute"],
    );
    zone.distribute().args(&["--once"]).report();
    let written: Vec<String> = rows(&zone.trusted.1).into_iter().map(|row| row.event_id).collect();
    assert_eq!(written, ["after", "before"]);
    let audit = zone.assert_sound();
    assert_eq!(audit["partitions"][0]["skipped_offsets"].as_u64(), Some(1), "{audit}");
}
