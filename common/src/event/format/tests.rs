use super::*;
use crate::event::Preset;

fn parse(text: &str) -> Result<Event<'_>, EventProblem> {
    parse_event(text.as_bytes(), &EventFormat::default())
}

fn format(change: impl FnOnce(&mut EventRules)) -> EventFormat {
    let mut rules = PRESETS[0].rules();
    change(&mut rules);
    EventFormat::new(&rules, TimeRule::utc(), None).unwrap()
}

/// The fields of an event, or what is wrong with it.
fn fields(text: &str, format: &EventFormat) -> Result<[String; 5], String> {
    let event = parse_event(text.as_bytes(), format).map_err(|problem| format!("{}: {problem}", problem.code()))?;
    let Event { event_id, timestamp_us, domain, event_type, data } = event;
    Ok([event_id.into_owned(), timestamp_us.to_string(), domain.into_owned(), event_type.into_owned(), data.to_owned()])
}

#[test]
fn data_keeps_its_very_bytes() {
    for data in [
        r#"{"n": 12345678901234567890123456789.000100e-5 , "b":[1,  2]}"#,
        "null",
        r#""\ud800""#,
        "[ ]",
        "-0.0",
        "true",
    ] {
        let text = format!(
            r#"{{"data":{data},"event_id":"a","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t"}}"#
        );
        assert_eq!(parse(&text).map(|event| event.data.to_owned()), Ok(data.to_owned()));
    }
}

#[test]
fn escapes_in_fields_are_resolved_and_plain_text_is_borrowed() {
    let text = r#"{"event_id":"a\u0062\n","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":1,"more":{}}"#;
    let event = parse(text).unwrap();
    assert_eq!(event.event_id, "ab\n");
    assert!(matches!((event.domain, event.event_type), (Cow::Borrowed("d"), Cow::Borrowed("t"))));
}

#[test]
fn each_defect_has_its_own_reason() {
    let base = r#""timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":1"#;
    let deep = |depth: usize| format!(r#"{{"event_id":"a","more":{}{},{base}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&deep(127)).is_ok());
    let cases = [
        (format!("{{{base}}}"), "missing_field", "has no field 'event_id'"),
        (format!(r#"{{"event_id":null,{base}}}"#), "missing_field", "has no field 'event_id'"),
        (format!(r#"{{"event_id":7,{base}}}"#), "not_a_string", "field 'event_id' is not a string"),
        (format!(r#"{{"event_id":"",{base}}}"#), "empty_field", "field 'event_id' is empty"),
        (
            format!(r#"{{"event_id":"{}",{base}}}"#, "x".repeat(MAX_ID_BYTES + 1)),
            "id_too_long",
            "field 'event_id' has more than 16384 bytes",
        ),
        (format!(r#"{{"event_id":"a","event_id":"b",{base}}}"#), "duplicate_field", "has the field 'event_id' twice"),
        (
            r#"{"event_id":"a","timestamp":"yesterday","domain":"d","event_type":"t","data":1}"#.to_owned(),
            "bad_timestamp",
            "field 'timestamp' is not an RFC 3339 time such as 2021-01-14T10:15:30Z",
        ),
        (
            r#"{"event_id":"a","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t"}"#.to_owned(),
            "missing_field",
            "has no field 'data'",
        ),
        (format!(r#"{{"event_id":"a",{base}"#), "truncated", "the file ends inside it"),
        (
            format!(r#"{{"event_id":"a" {base}}}"#),
            "not_json",
            "is not JSON: neither ',' nor '}' after a member at byte 16",
        ),
        (
            format!(r#"{{"event_id":"\ud800",{base}}}"#),
            "not_json",
            "is not JSON: field 'event_id' holds half of a surrogate pair",
        ),
        (format!(r#"{{"event_id":"a",{base}}} {{}}"#), "not_json", "is not JSON: more than one value, at byte 90"),
        (r#"["a","2021-01-14T10:15:30","d","t",1]"#.to_owned(), "not_an_object", "is not a JSON object"),
        ("17".to_owned(), "not_an_object", "is not a JSON object"),
        (deep(128), "too_deep", "has more than 128 arrays and objects within each other"),
    ];
    for (text, code, message) in cases {
        let problem = parse(&text).map_err(|problem| (problem.code(), problem.to_string()));
        assert_eq!(problem.err(), Some((code, message.to_owned())), "{text}");
    }
    let not_utf8 = [b"{\"event_id\":\"\xff\",".as_slice(), base.as_bytes(), b"}"].concat();
    assert_eq!(parse_event(&not_utf8, &EventFormat::default()).err(), Some(EventProblem::NotUtf8));
}

#[test]
fn fields_come_from_where_the_rules_say() {
    let format = format(|rules| {
        rules.event_id = "template:{/meta/source}#{/meta/n}/{/ok}".to_owned();
        rules.timestamp = "template:{/date}T{/time}Z".to_owned();
        rules.domain = "const:shop".to_owned();
        rules.event_type = "/meta/types/1".to_owned();
        rules.data = String::new();
    });
    let text =
        r#"{"meta":{"source":"a\tb","n":1.50,"types":["x","y"]},"ok":true,"date":"2021-01-14","time":"10:15:30"}"#;
    let expected = ["a\tb#1.50/true", "1610619330000000", "shop", "y", text].map(str::to_owned);
    assert_eq!(fields(&format!("  {text}\n"), &format), Ok(expected));
    for (from, to, problem) in [
        (r#","n":1.50"#, "", "missing_field: has no field '/meta/n'"),
        ("1.50", "null", "missing_field: has no field '/meta/n'"),
        ("1.50", "\"\"", "empty_field: field '/meta/n' is empty"),
        ("1.50", "[1]", "not_a_string: field '/meta/n' is not a string, a number, true or false"),
        (r#"["x","y"]"#, r#"["x",5]"#, "not_a_string: field '/meta/types/1' is not a string"),
        (r#"["x","y"]"#, r#"["x"]"#, "missing_field: has no field '/meta/types/1'"),
        ("10:15:30", "late", "bad_timestamp: field 'timestamp' is not an RFC 3339 time such as 2021-01-14T10:15:30Z"),
        (r#""ok":true"#, r#""ok":true,"ok":false"#, "duplicate_field: has the field '/ok' twice"),
        (r#""ok":true"#, r#""ok":true,"meta":1"#, "duplicate_field: has the field '/meta/source' twice"),
    ] {
        assert_eq!(fields(&text.replace(from, to), &format), Err(problem.to_owned()), "{from} -> {to}");
    }
}

#[test]
fn times_are_read_in_the_configured_form() {
    let with = |timestamp_format| format(|rules| rules.timestamp_format = timestamp_format);
    let read = |value: &str, format: &EventFormat| {
        let text = format!(r#"{{"event_id":"a","timestamp":{value},"domain":"d","event_type":"t","data":1}}"#);
        fields(&text, format).map(|fields| fields[1].clone())
    };
    let milliseconds = with(TimestampFormat::EpochMs);
    for (value, expected) in [
        ("1610619330123", Ok("1610619330123000")),
        ("\"1610619330123\"", Ok("1610619330123000")),
        ("-1", Ok("-1000")),
        ("1e3", Err("bad_timestamp: field 'timestamp' is not a number of milliseconds since 1970 written in digits")),
        (
            "\"2021-01-14T10:15:30Z\"",
            Err("bad_timestamp: field 'timestamp' is not a number of milliseconds since 1970 written in digits"),
        ),
        ("9223372036854775807", Err("bad_timestamp: field 'timestamp' is names a day or time that does not exist")),
        ("null", Err("missing_field: has no field 'timestamp'")),
        ("{}", Err("not_a_string: field 'timestamp' is not a number or a string of digits")),
    ] {
        assert_eq!(read(value, &milliseconds), expected.map(str::to_owned).map_err(str::to_owned), "{value}");
    }
    assert_eq!(read("1610619330.25", &with(TimestampFormat::EpochS)), Ok("1610619330250000".to_owned()));
    assert_eq!(
        read("1610619330", &with(TimestampFormat::Rfc3339)),
        Err("not_a_string: field 'timestamp' is not a string".to_owned())
    );
    assert_eq!(read("1610619330000000001", &with(TimestampFormat::EpochNs)), Ok("1610619330000000".to_owned()));
}

#[test]
fn every_preset_is_valid_and_has_its_name() {
    for preset in &PRESETS {
        let records = preset.records.map(|text| Pointer::parse(text).unwrap());
        let format = EventFormat::new(&preset.rules(), TimeRule::utc(), records.as_ref()).unwrap();
        assert_eq!((format.rules(), format.records()), (&preset.rules(), records.as_ref()));
        assert_eq!(Preset::named(preset.name), Some(preset));
    }
    assert_eq!(Preset::named("other"), None);
}

#[test]
fn rules_that_cannot_be_followed_are_refused_by_name() {
    let refused = |change: fn(&mut EventRules), records: Option<&str>| {
        let mut rules = PRESETS[0].rules();
        change(&mut rules);
        let records = records.map(|text| Pointer::parse(text).unwrap());
        EventFormat::new(&rules, TimeRule::utc(), records.as_ref()).map_err(|error| error.key).err()
    };
    assert_eq!(refused(|_| {}, None), None);
    assert_eq!(refused(|rules| rules.max_depth = 0, None), Some("max_depth"));
    assert_eq!(refused(|rules| rules.max_depth = 1025, None), Some("max_depth"));
    assert_eq!(refused(|rules| rules.domain = "x".to_owned(), None), Some("domain"));
    assert_eq!(refused(|_| {}, Some("")), Some("records"));
    let many = |rules: &mut EventRules| {
        rules.event_type = format!("template:{}", (0..20).map(|index| format!("{{/{index}}}")).collect::<String>());
    };
    assert_eq!(refused(many, None), Some("event_type"));
}

#[test]
fn rules_are_written_and_read_as_text() {
    let rules = Preset::named("cloudevents").unwrap().rules();
    let text = serde_json::to_string(&rules).unwrap();
    assert_eq!(
        text,
        r#"{"event_id":"template:{/source}#{/id}","timestamp":"/time","domain":"/source","event_type":"/type","data":"","timestamp_format":"rfc3339","max_depth":128}"#
    );
    assert_eq!(serde_json::from_str::<EventRules>(&text).unwrap(), rules);
    let names: Vec<_> =
        TimestampFormat::CHOICES.iter().map(|(_, format)| serde_json::to_value(format).unwrap()).collect();
    assert_eq!(names, TimestampFormat::CHOICES.map(|(name, _)| serde_json::Value::from(name)));
}
