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

/// The fields of an event, or the reason why it is not one.
fn fields(text: &str, format: &EventFormat) -> Result<[String; 5], String> {
    let event = parse_event(text.as_bytes(), format).map_err(|problem| format!("{}: {problem}", problem.code()))?;
    let Event { event_id, timestamp_us, domain, event_type, data } = event;
    Ok([
        event_id.into_owned(),
        timestamp_us.to_string(),
        domain.into_owned(),
        event_type.into_owned(),
        data.into_owned(),
    ])
}

#[test]
fn data_keeps_its_bytes() {
    for data in [
        r#"{"n": 12345678901234567890123456789.000100e-5 , "b":[1,  2]}"#,
        "null",
        r#""\ud83d\ude00 \\ud800""#,
        "[ ]",
        "-0.0",
        "true",
    ] {
        let text = format!(
            r#"{{"data":{data},"event_id":"a","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t"}}"#
        );
        assert_eq!(parse(&text).map(|event| event.data.into_owned()), Ok(data.to_owned()));
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
        (
            format!("{{{base}}}"),
            "missing_field",
            "the event has no field 'event_id'; format.preset and format.event_id say where to look",
        ),
        (
            format!(r#"{{"event_id":null,{base}}}"#),
            "missing_field",
            "the event has no field 'event_id'; format.preset and format.event_id say where to look",
        ),
        (format!(r#"{{"event_id":7,{base}}}"#), "not_a_string", "field 'event_id' is not a string"),
        (format!(r#"{{"event_id":"",{base}}}"#), "empty_field", "field 'event_id' is empty"),
        (
            format!(r#"{{"event_id":"{}",{base}}}"#, "x".repeat(MAX_ID_BYTES + 1)),
            "id_too_long",
            "field 'event_id' has more than 16384 bytes",
        ),
        (
            format!(r#"{{"event_id":"a","event_id":"b",{base}}}"#),
            "duplicate_field",
            "field 'event_id' is in the event twice",
        ),
        (
            r#"{"event_id":"a","timestamp":"yesterday","domain":"d","event_type":"t","data":1}"#.to_owned(),
            "bad_timestamp",
            "field 'timestamp' is not a time such as 2021-01-14T10:15:30Z; format.timestamp_format can name another form",
        ),
        (
            r#"{"event_id":"a","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t"}"#.to_owned(),
            "missing_field",
            "the event has no field 'data'; format.preset and format.data say where to look",
        ),
        (format!(r#"{{"event_id":"a",{base}"#), "truncated", "the event is cut off before its end"),
        (
            format!(r#"{{"event_id":"a" {base}}}"#),
            "not_json",
            "the event is not JSON: neither ',' nor '}' after a member at byte 16",
        ),
        (
            format!(r#"{{"event_id":"\ud800",{base}}}"#),
            "lone_surrogate",
            "field 'event_id' holds half of a surrogate pair, which is no text",
        ),
        (
            format!(r#"{{"event_id":"a",{base}}} {{}}"#),
            "not_json",
            "the event is not JSON: more than one value, at byte 90",
        ),
        (
            r#"["a","2021-01-14T10:15:30","d","t",1]"#.to_owned(),
            "not_an_object",
            "the value is not a JSON object, as every event is",
        ),
        ("17".to_owned(), "not_an_object", "the value is not a JSON object, as every event is"),
        (deep(128), "too_deep", "the event nests more than 128 arrays and objects (format.max_depth)"),
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
        (
            r#","n":1.50"#,
            "",
            "missing_field: the event has no field '/meta/n'; format.preset and format.event_id say where to look",
        ),
        (
            "1.50",
            "null",
            "missing_field: the event has no field '/meta/n'; format.preset and format.event_id say where to look",
        ),
        ("1.50", "\"\"", "empty_field: field '/meta/n' is empty"),
        ("1.50", "[1]", "not_a_string: field '/meta/n' is not a string, a number, true or false"),
        (r#"["x","y"]"#, r#"["x",5]"#, "not_a_string: field '/meta/types/1' is not a string"),
        (
            r#"["x","y"]"#,
            r#"["x"]"#,
            "missing_field: the event has no field '/meta/types/1'; format.preset and format.event_type say where to look",
        ),
        (
            "10:15:30",
            "late",
            "bad_timestamp: field 'timestamp' is not a time such as 2021-01-14T10:15:30Z; format.timestamp_format can name another form",
        ),
        (r#""ok":true"#, r#""ok":true,"ok":false"#, "duplicate_field: field '/ok' is in the event twice"),
        (r#""ok":true"#, r#""ok":true,"meta":1"#, "duplicate_field: field '/meta/source' is in the event twice"),
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
        (
            "1e3",
            Err(
                "bad_timestamp: field 'timestamp' is not a number of milliseconds since 1970, as format.timestamp_format says",
            ),
        ),
        (
            "\"2021-01-14T10:15:30Z\"",
            Err(
                "bad_timestamp: field 'timestamp' is not a number of milliseconds since 1970, as format.timestamp_format says",
            ),
        ),
        ("9223372036854775807", Err("bad_timestamp: field 'timestamp' is too far from 1970")),
        (
            "null",
            Err(
                "missing_field: the event has no field 'timestamp'; format.preset and format.timestamp say where to look",
            ),
        ),
        ("{}", Err("not_a_string: field 'timestamp' is not a number or a string of digits")),
    ] {
        assert_eq!(read(value, &milliseconds), expected.map(str::to_owned).map_err(str::to_owned), "{value}");
    }
    assert_eq!(read("1610619330.25", &with(TimestampFormat::EpochS)), Ok("1610619330250000".to_owned()));
    assert_eq!(
        read("1610619330", &with(TimestampFormat::Rfc3339)),
        Err("not_a_string: field 'timestamp' is a number; format.timestamp_format must say its unit (epoch_s, epoch_ms, epoch_us, \
             epoch_ns) or pattern"
            .to_owned())
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
fn old_files_of_gh_archive_are_read_by_its_preset() {
    let format = EventFormat::new(&Preset::named("gharchive").unwrap().rules(), TimeRule::utc(), None).unwrap();
    let text = r#"{"id":"1","type":"PushEvent","created_at":"2012/03/10 22:36:55 -0800"}"#;
    assert_eq!(fields(text, &format).map(|fields| fields[1].clone()), Ok("1331447815000000".to_owned()));
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
        r#"{"event_id":"template:{/source}#{/id}","timestamp":"/time","domain":"/source","event_type":"/type","data":"","timestamp_format":"rfc3339","lone_surrogates":"replace","max_depth":128}"#
    );
    assert_eq!(serde_json::from_str::<EventRules>(&text).unwrap(), rules);
    for format in ["rfc3339", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns", "%Y/%m/%d %H:%M:%S %z"] {
        let rules = text.replace("rfc3339", format);
        let read = serde_json::from_str::<EventRules>(&rules).unwrap();
        assert_eq!(read.timestamp_format.to_string(), format);
        assert_eq!(serde_json::to_string(&read).unwrap(), rules);
    }
    assert!(serde_json::from_str::<EventRules>(&text.replace("rfc3339", "%H:%M")).is_err(), "a pattern without a day");
}

#[test]
fn times_are_read_by_a_pattern_in_strings_and_numbers() {
    let with = |pattern: &str| format(|rules| rules.timestamp_format = TimestampFormat::parse(pattern).unwrap());
    let read = |value: &str, format: &EventFormat| {
        let text = format!(r#"{{"event_id":"a","timestamp":{value},"domain":"d","event_type":"t","data":1}}"#);
        fields(&text, format).map(|fields| fields[1].clone())
    };
    let slashes = with("%Y/%m/%d %H:%M:%S %z");
    assert_eq!(read(r#""2021\/01\/14 02:15:30 -0800""#, &slashes), Ok("1610619330000000".to_owned()));
    assert_eq!(
        read(r#""2021-01-14T10:15:30Z""#, &slashes),
        Err(r#"bad_timestamp: field 'timestamp' does not fit format.timestamp_format = "%Y/%m/%d %H:%M:%S %z""#
            .to_owned())
    );
    assert_eq!(read("20210114101530", &with("%Y%m%d%H%M%S")), Ok("1610619330000000".to_owned()));
    assert_eq!(read("[]", &slashes), Err("not_a_string: field 'timestamp' is not a string or a number".to_owned()));
    let berlin = EventFormat::new(with("%d.%m.%Y").rules(), TimeRule::named("Europe/Berlin").unwrap(), None).unwrap();
    assert_eq!(read(r#""14.01.2021""#, &berlin), Ok("1610578800000000".to_owned()), "midnight in the configured zone");
}

#[test]
fn lone_surrogates_in_data_are_replaced_refused_or_kept() {
    let with = |choice| format(|rules| rules.lone_surrogates = choice);
    let text = |data: &str| {
        format!(
            r#"{{"event_id":"a","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":{data},"more":"\ude00"}}"#
        )
    };
    let data = |data: &str, format: &EventFormat| fields(&text(data), format).map(|fields| fields[4].clone());
    let lone = r#"{"\ud83d":["\uDE00 \ud83d\ude00"],"n":1.50}"#;
    let [replace, reject, keep] = LoneSurrogates::CHOICES.map(|(_, choice)| with(choice));
    assert_eq!(data(lone, &replace), Ok(r#"{"\ufffd":["\ufffd \ud83d\ude00"],"n":1.50}"#.to_owned()));
    assert_eq!(data(lone, &keep), Ok(lone.to_owned()));
    let refused = "lone_surrogate: field 'data' holds half of a surrogate pair, which query engines refuse; \
                   format.lone_surrogates = \"replace\" would keep the event";
    assert_eq!(data(lone, &reject), Err(refused.to_owned()));
    let sound = r#"{"a":"\ud83d\ude00 \\ud83d"}"#;
    for format in [&replace, &reject, &keep] {
        assert_eq!(data(sound, format), Ok(sound.to_owned()), "text outside data does not matter");
    }
    let replaced = |data: &str| parse_event(text(data).as_bytes(), &replace).map(|event| event.has_replacements());
    assert_eq!((replaced(lone), replaced(sound)), (Ok(true), Ok(false)));
    let whole = format(|rules| rules.data = String::new());
    assert_eq!(fields(&text("1"), &whole).map(|fields| fields[4].clone()), Ok(text("1").replace("ude00", "ufffd")));
}
