//! The inputs, by kind of fault.

use super::Case;
use super::land::{bzip2, event, event_at, event_of, event_with, events, gzip, ids, lines, utf16, zlib, zstd};

/// Long enough that half of it is not an event, short enough to be written out.
const CUT: &str = r#"{"event_id":"cut","timestamp":"2021-01-14T10:1"#;

pub fn cases() -> Vec<Case> {
    [framing(), compression(), containers(), nesting(), sizes(), fields(), encodings(), times(), names(), places()]
        .into_iter()
        .flatten()
        .collect()
}

fn file(name: &'static str, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Case {
    Case::new(name, move |land| land.file("input", bytes.as_ref()))
}

/// Events that are cut off, or have noise between them, in every form a file may have.
fn framing() -> Vec<Case> {
    let sound = || events("s", 50);
    let around = |separator: &str| [vec![CUT.to_owned()], sound()].concat().join(separator);
    vec![
        file("cut event before others without separators", around("")).rows(ids("s", 50)).letters(1),
        file("cut event in an array on one line", format!("[{}]", around(","))).rows(ids("s", 50)).letters(1),
        file("cut event in lines ended by CR", around("\r")).rows(ids("s", 50)).letters(1),
        file("cut event in lines", around("\n")).rows(ids("s", 50)).letters(1),
        file("cut event in a JSON text sequence", format!("\u{1e}{}\n", around("\n\u{1e}")))
            .rows(ids("s", 50))
            .letters(1),
        file("JSON text sequence", sound().iter().map(|event| format!("\u{1e}{event}\n")).collect::<String>())
            .rows(ids("s", 50)),
        file("lines ended by CR", sound().join("\r")).rows(ids("s", 50)),
        file("cut event at the end", format!("{}{CUT}", sound().concat())).rows(ids("s", 50)).letters(1),
        file("array that is never closed", format!("[{}", sound().join(","))).rows(ids("s", 50)).letters(1),
        file("words between events", sound().join("\nERROR disk full\n")).rows(ids("s", 50)).letters(49),
        file(
            "an unclosed quotation mark before each event",
            sound().iter().map(|event| format!("\"{event}\n")).collect::<String>(),
        )
        .rows(ids("s", 50))
        .letters(50),
        file("nothing but commas", ",".repeat(100_000)).letters(1),
        file("nothing but closing brackets", "]}".repeat(50_000)).letters(1).set("quarantine.max_errors=1000000"),
        file("an event within a broken one", format!(r#"{{"wrapped":{}"#, event("inner"))).rows(["inner"]).letters(1),
        file("an event within a sound one", event_with("outer", &event("inner"))).rows(["outer"]),
        file("empty file", ""),
        file("blanks only", " \n\t\r\n".repeat(10_000)),
    ]
}

/// Streams that are damaged, padded, nested, or decompress to far more than their size.
fn compression() -> Vec<Case> {
    let body = || lines("s", 50);
    let zeros = |megabytes: usize| vec![0_u8; megabytes << 20];
    let members = |member: &[u8], count: usize| member.repeat(count);
    let with = |bytes: &[u8], tail: &[u8]| [bytes, tail].concat();
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let bomb = |name, bytes: Vec<u8>| file(name, bytes).set("landing.max_expanded_bytes=20MB").quarantined(1);
    vec![
        bomb("gzip of zeros", members(&gzip(&zeros(4)), 100)),
        bomb("bzip2 of zeros", members(&bzip2(&zeros(4)), 100)),
        bomb("zstd of zeros", members(&zstd(&zeros(4)), 100)),
        bomb("gzip of blanks", members(&gzip(&b" ".repeat(4 << 20)), 100)),
        bomb("gzip of gzip of zeros", gzip(&members(&gzip(&zeros(4)), 100))),
        bomb("zstd of one event again and again", members(&zstd(lines("s", 1).repeat(50_000).as_bytes()), 10))
            .set("landing.max_published_bytes=1MB"),
        file("gzip", gzip(body().as_bytes())).rows(ids("s", 50)),
        file("gzip within gzip", gzip(&gzip(body().as_bytes()))).rows(ids("s", 50)),
        file("zstd within gzip", gzip(&zstd(body().as_bytes()))).rows(ids("s", 50)),
        file("gzip within gzip within gzip", gzip(&gzip(&gzip(body().as_bytes())))).quarantined(1),
        file("gzip with zeros behind it", with(&gzip(body().as_bytes()), &[0; 1000])).rows(ids("s", 50)),
        file("bzip2 with zeros behind it", with(&bzip2(body().as_bytes()), &[0; 1000])).rows(ids("s", 50)),
        file("zstd with zeros behind it", with(&zstd(body().as_bytes()), &[0; 1000])).rows(ids("s", 50)),
        file("gzip with rubbish behind it", with(&gzip(body().as_bytes()), b"rubbish")).quarantined(1),
        file("gzip cut off", cut(gzip(body().as_bytes()))).quarantined(1),
        file("bzip2 cut off", cut(bzip2(body().as_bytes()))).quarantined(1),
        file("zstd cut off", cut(zstd(body().as_bytes()))).quarantined(1),
        file("gzip of nothing", gzip(b"")),
        file("the first bytes of gzip", [0x1f, 0x8b, 8]).quarantined(1),
    ]
}

/// Formats that are not text, detected by their first bytes.
fn containers() -> Vec<Case> {
    let named = |name, bytes: Vec<u8>| file(name, bytes).quarantined(1);
    let tail = |magic: &[u8]| [magic, &[7_u8; 2000][..]].concat();
    vec![
        named("zip", tail(b"PK\x03\x04")),
        named("xz", tail(b"\xfd7zXZ\x00")),
        named("7z", tail(b"7z\xbc\xaf\x27\x1c")),
        named("lz4", tail(b"\x04\x22\x4d\x18")),
        named("zlib", zlib(lines("s", 50).as_bytes())),
        named("Parquet", tail(b"PAR1")),
        named("Avro", tail(b"Obj\x01")),
        named("ORC", tail(b"ORC")),
        named("UTF-16, little end first, marked", [&[0xff, 0xfe], &utf16(&lines("s", 5), false)[..]].concat()),
        named("UTF-16, big end first, marked", [&[0xfe, 0xff], &utf16(&lines("s", 5), true)[..]].concat()),
        named("UTF-16, little end first", utf16(&lines("s", 5), false)),
        named("UTF-16, big end first", utf16(&lines("s", 5), true)),
    ]
}

fn nesting() -> Vec<Case> {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let then = |text: String| format!("{text}\n{}\n", event("after"));
    vec![
        // Two letters: the value nested too deeply, and the array around it that is never closed.
        file("a hundred thousand opening brackets", then("[".repeat(100_000))).rows(["after"]).letters(2),
        file("a hundred thousand opening objects", then(r#"{"a":"#.repeat(100_000))).rows(["after"]).letters(1),
        file("data nested too deep", then(event_with("deep", &deep(100_000)))).rows(["after"]).letters(1),
        file("data nested as deep as is allowed", then(event_with("deep", &deep(126)))).rows(["after", "deep"]),
        file("empty objects on one line", "{}".repeat(20_000)).letters(0).quarantined(1),
        file("opening quotation marks", "\"\n".repeat(20_000)).quarantined(1),
        file("backslashes", then("\\".repeat(100_000))).rows(["after"]).letters(1),
        file("an object of half an object", then(r#"{"{"#.repeat(50_000))).rows(["after"]).letters(1),
    ]
}

fn sizes() -> Vec<Case> {
    let then = |text: String| format!("{text}\n{}\n", event("after"));
    vec![
        file("an event of 20 MB", then(event_with("big", &format!("\"{}\"", "x".repeat(20 << 20)))))
            .rows(["after"])
            .letters(1),
        file("a string of 20 MB that never ends", then(format!("{{\"event_id\":\"{}", "x".repeat(20 << 20))))
            .rows(["after"])
            .letters(1),
        file("an id of 100,000 characters", then(event(&"i".repeat(100_000)))).rows(["after"]).letters(1),
        file("an id of 16,384 characters", then(event(&"i".repeat(16_384))))
            .rows(["after".to_owned(), "i".repeat(16_384)]),
        file("a number of 100,000 digits", then(event_with("n", &"9".repeat(100_000)))).rows(["after", "n"]),
        file("a type of 100,000 characters", then(event_of("t", "d", &"t".repeat(100_000))))
            .rows(["after"])
            .not_rows(1),
        file("bad lines without number", "x\n".repeat(300_000)).quarantined(1),
        file(
            "a thousand keys",
            then(event_with(
                "k",
                &format!(
                    "{{{}}}",
                    ids("k", 1000).iter().map(|key| format!("\"{key}\":1")).collect::<Vec<_>>().join(",")
                ),
            )),
        )
        .rows(["after", "k"]),
        Case::new("a thousand files of one byte", |land| {
            for number in 0..1000 {
                land.file(&format!("{number}.json"), "x");
            }
        })
        .letters(1000),
    ]
}

/// Fields that would leave their folder, run or deceive if they were trusted. Each becomes a row, because they are only
/// names.
fn fields() -> Vec<Case> {
    [
        ("steps upwards", "../../..", "etc/passwd"),
        ("dots", "..", ".."),
        ("one dot", ".", "."),
        ("slashes", "/", "//"),
        ("steps within", "a/../../b", "c"),
        ("a line break", r"x\ny", "z"),
        ("an escape sequence", r"\u001b[31mred", r"\u0007"),
        ("a C1 control", r"\u009b31m", "x"),
        ("text that runs backwards", "\u{202e}gnp", "x"),
        ("device names", "con", "nul"),
        ("a hidden name", ".hidden", "_x"),
        ("equals signs", "=", "a=b"),
        ("percent signs", "%2e%2e", "%2f"),
        ("a star", "a", "*"),
        ("markup", "<script>alert(1)</script>", "x"),
        ("a statement", "'; DROP TABLE x;--", "t"),
        ("a byte order mark", "\u{feff}", "bom"),
        ("a null", r"\u0000", "x"),
    ]
    .into_iter()
    .map(|(name, domain, event_type)| {
        let name: &'static str = Box::leak(format!("a type with {name}").into_boxed_str());
        file(name, event_of("f", domain, event_type)).rows(["f"])
    })
    .collect()
}

fn encodings() -> Vec<Case> {
    let then = |bytes: &[u8]| [bytes, b"\n", event("after").as_bytes(), b"\n"].concat();
    let replaced = |with: &[u8]| {
        let event = event("X");
        let (before, after) = event.split_once('X').unwrap();
        [before.as_bytes(), with, after.as_bytes()].concat()
    };
    vec![
        file("nulls", then(&[0; 100_000])).rows(["after"]).letters(1),
        file("an id that is not UTF-8", then(&replaced(b"\xff\xfe"))).rows(["after"]).letters(1),
        file("an id that is half a surrogate pair", then(&replaced(br"\ud800"))).rows(["after"]).letters(1),
        file("an empty id", then(&replaced(b""))).rows(["after"]).letters(1),
        file("data with half a surrogate pair", then(event_with("h", r#""\ud83d""#).as_bytes())).rows(["after", "h"]),
        file("byte order marks", then("\u{feff}".repeat(10_000).as_bytes())).rows(["after"]),
        file("an id twice", then(br#"{"event_id":"a","event_id":"b","timestamp":"2021-01-14T10:15:30Z","domain":"d","event_type":"t","data":1}"#))
            .rows(["after"])
            .letters(1),
        file("an id twice, once in escapes", then(br#"{"event_id":"a","\u0065vent_id":"b","timestamp":"2021-01-14T10:15:30Z","domain":"d","event_type":"t","data":1}"#))
            .rows(["after"])
            .letters(1),
        file("overlong UTF-8", then(&replaced(b"\xc0\xaf"))).rows(["after"]).letters(1),
    ]
}

fn times() -> Vec<Case> {
    let at = |name, timestamp: &str| file(name, event_at("t", timestamp, "1"));
    vec![
        at("the year 0", "0000-01-01T00:00:00Z").not_rows(1),
        at("the end of the year 9999", "9999-12-31T23:59:59.999999999Z").not_rows(1),
        at("before 1970", "1969-12-31T23:59:59Z").not_rows(1),
        at("after 2100", "2101-01-01T00:00:00Z").not_rows(1),
        at("the last second of 2100", "2100-12-31T23:59:59Z").rows(["t"]),
        at("the 30th of February", "2021-02-30T00:00:00Z").letters(1),
        at("a time of day that is none", "2021-01-14T25:00:00Z").letters(1),
        at("no time at all", "yesterday").letters(1),
        at("an empty time", "").letters(1),
        at("the text of PostgreSQL", "2021-01-14 10:15:30.123456+00").rows(["t"]),
        at("the text of BigQuery", "2021-01-14 10:15:30 UTC").rows(["t"]),
    ]
}

fn names() -> Vec<Case> {
    let named = |name, file: String| Case::new(name, move |land| land.event(&file, "n")).rows(["n"]);
    vec![
        named("a name of 255 bytes", "n".repeat(255)),
        named(
            "a path of 1,000 bytes",
            format!("{}/n.json", ids("", 9).iter().map(|d| d.repeat(109)).collect::<Vec<_>>().join("/")),
        ),
        named("a name of blanks and signs", " a b%2F+&?*'\".json".to_owned()),
        named("a name with a line break and an escape", "a\nb\u{1b}[31m.json".to_owned()),
        named("a name that runs backwards", "\u{202e}nosj.a".to_owned()),
        Case::new("a name that is not UTF-8", |land| {
            use std::os::unix::ffi::OsStrExt;
            let name = std::ffi::OsStr::from_bytes(b"\xff\xfe.json");
            std::fs::write(land.path("pending").join(name), event("n")).unwrap();
        }),
        Case::new("uncommitted output", |land| {
            land.event("_temporary/0/part-0.json", "n");
            land.event("_SUCCESS", "n");
            land.event(".hidden.json", "n");
        }),
        Case::new("a link to a file", |land| land.link("/etc/hostname", "pending/link.json")),
        Case::new("a link to the root folder", |land| land.link("/", "pending/link")),
        Case::new("a link to itself", |land| land.link("loop", "pending/loop")),
        Case::new("a FIFO", |land| land.fifo("pending/fifo.json")),
        Case::new("a folder named like a file", |land| land.event("a.json/a.json", "n")).rows(["n"]),
    ]
}

/// Folders that cannot be read or written, and invalid markers.
fn places() -> Vec<Case> {
    vec![
        Case::new("a tree of 300 levels", |land| land.deep(300)),
        Case::new("a folder that may not be read", |land| {
            land.event("lost+found/n.json", "n");
            land.mode("pending/lost+found", 0);
        })
        .without_rights()
        .exit(1),
        Case::new("a file that may not be read", |land| {
            land.event("n.json", "n");
            land.mode("pending/n.json", 0);
        })
        .without_rights()
        .exit(1),
        Case::new("pending is a link", |land| {
            std::fs::rename(land.path("pending"), land.path("elsewhere")).unwrap();
            land.link("elsewhere", "pending");
        }),
        Case::new("processed is a file", |land| std::fs::write(land.path("processed"), "x").unwrap()).exit(1),
    ]
}
