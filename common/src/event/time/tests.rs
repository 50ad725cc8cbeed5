use proptest::prelude::*;

use super::*;

fn utc(text: &str) -> Result<i64, TimestampError> {
    TimeRule::utc().parse(text)
}

#[test]
fn every_accepted_form_of_one_instant_is_the_same_microsecond() {
    let expected = Ok(1_610_619_330_123_456);
    for text in [
        "2021-01-14T10:15:30.123456Z",
        "2021-01-14t10:15:30.123456z",
        "2021-01-14 10:15:30.123456",
        "2021-01-14T10:15:30.123456999",
        "2021-01-14T12:15:30.123456+02:00",
        "2021-01-14T12:15:30.123456+0200",
        "2021-01-14T04:45:30.1234567-05:30",
        // PostgreSQL, also with the odd offsets of the past.
        "2021-01-14 10:15:30.123456+00",
        "2021-01-14 12:15:30.123456+02",
        "2021-01-14 10:34:30.123456+00:19:00",
        // BigQuery, Ruby, SQL Server, Snowflake, Go.
        "2021-01-14 10:15:30.123456 UTC",
        "2021-01-14 10:15:30.123456 +0000",
        "2021-01-14 12:15:30.123456 +02:00",
        "2021-01-14 02:15:30.123456 -0800",
        "2021-01-14 10:15:30.123456 +0000 UTC",
        // Java, with the zone.
        "2021-01-14T11:15:30.123456+01:00[Europe/Berlin]",
        "2021-01-14T10:15:30.123456Z[UTC]",
        "2021-01-14T11:15:30.123456[Europe/Berlin]",
        "2021-01-14T11:15:30.123456+01:00[!Europe/Berlin]",
        // Slashes, a comma, the basic format, a real minus sign.
        "2021/01/14 02:15:30.123456 -0800",
        "2021-01-14T10:15:30,123456Z",
        "2021-01-14 10:15:30,123456",
        "20210114T101530.123456Z",
        "20210114T121530.123456+0200",
        "2021-01-14T101530,123456 gmt",
        "2021-01-14T02:15:30.123456\u{2212}08:00",
        "2021-01-14 10:15:30.123456 z",
        "2021-01-14T10:15:30.12345699999999999999999999999999999999999999Z",
    ] {
        assert_eq!(utc(text), expected, "{text}");
    }
}

#[test]
fn seconds_may_be_left_out_and_a_day_may_end_at_24() {
    for (text, same) in [
        ("2021-01-14T10:15Z", "2021-01-14T10:15:00Z"),
        ("2021-01-14 10:15", "2021-01-14T10:15:00Z"),
        ("2021-01-14T10:15+02:00", "2021-01-14T08:15:00Z"),
        ("20210114T1015Z", "2021-01-14T10:15:00Z"),
        ("20210114T1015-0800", "2021-01-14T18:15:00Z"),
        ("2021-01-14T24:00:00Z", "2021-01-15T00:00:00Z"),
        ("2021-12-31T24:00:00.000Z", "2022-01-01T00:00:00Z"),
        ("2021-02-28 24:00+01", "2021-02-28T23:00:00Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        ("20161231T235960Z", "2016-12-31T23:59:59Z"),
        ("2012/03/10 22:36:55 -0800", "2012-03-11T06:36:55Z"),
    ] {
        assert_eq!(utc(text), utc(same), "{text}");
        assert!(utc(text).is_ok(), "{text}");
    }
}

#[test]
fn text_that_is_no_time_is_refused_with_what_is_wrong() {
    use TimestampError::{
        Form, NoSuchDay, NoSuchOffset, NoSuchTime, NoTime, Number, UnknownZone, ZoneConflict, ZoneName,
    };
    for (text, error) in [
        ("", Form),
        ("yesterday", Form),
        ("14.01.2021 10:15", Form),
        ("01/14/2021 10:15", Form),
        ("2021-1-14T10:15:30", Form),
        ("2021-01/14T10:15:30", Form),
        ("2021.01.14 10:15:30", Form),
        ("2021-W02-4T10:15:30", Form),
        ("2021-014T10:15:30", Form),
        ("2021-01-14_10:15:30", Form),
        ("2021-01-14T10", Form),
        ("2021-01-14T10:1", Form),
        ("2021-01-14T10:15.5", Form),
        ("2021-01-14T10:15:3", Form),
        ("2021-01-14T10:15:30.", Form),
        ("2021-01-14T10:15:30 ", Form),
        ("2021-01-14T10:15:30+2", Form),
        ("2021-01-14T10:15:30+02:0", Form),
        ("2021-01-14T10:15:30  Z", Form),
        ("2021-01-14T10:15:30Zjunk", Form),
        ("2021-01-14T10:15:30 UTC+1", Form),
        ("2021-01-14T10:15:30+0100 UTC", Form),
        ("2021-01-14T10:15:30]", Form),
        (" 2021-01-14T10:15:30Z", Form),
        ("２021-01-14T10:15:30", Form),
        ("2021-01-14", NoTime),
        ("2021/01/14", NoTime),
        ("20210114", NoTime),
        ("1610619330", Number),
        ("1610619330.25", Number),
        ("-1", Number),
        ("20210114101530", Number),
        ("2021-02-29T00:00:00", NoSuchDay),
        ("2021-13-01T00:00:00", NoSuchDay),
        ("2021-00-01T00:00:00", NoSuchDay),
        ("20210230T000000Z", NoSuchDay),
        ("2021-01-14T24:00:01", NoSuchTime),
        ("2021-01-14T24:00:00.001Z", NoSuchTime),
        ("2021-01-14T25:00", NoSuchTime),
        ("2021-01-14T10:60", NoSuchTime),
        ("2021-01-14T10:15:61Z", NoSuchTime),
        ("2021-01-14T10:15:30+24:00", NoSuchOffset),
        ("2021-01-14T10:15:30+01:60", NoSuchOffset),
        ("2021-01-14 10:15:30 CET", ZoneName),
        ("2021-01-14T10:15:30EST", ZoneName),
        ("2021-01-14T10:15:30[Mars/Olympus]", UnknownZone),
        ("2021-01-14T10:15:30[u-ca=hebrew]", UnknownZone),
        ("2021-01-14T10:15:30+02:00[Europe/Berlin]", ZoneConflict),
        ("2021-07-14T10:15:30Z[Europe/Berlin]", ZoneConflict),
    ] {
        assert_eq!(utc(text), Err(error), "{text:?}");
    }
}

#[test]
fn a_naive_time_is_read_in_the_configured_zone() -> Result<(), String> {
    let berlin = TimeRule::named("Europe/Berlin")?;
    assert_eq!(berlin.parse("2021-07-14T12:00:00"), utc("2021-07-14T10:00:00Z"));
    assert_eq!(berlin.parse("2021-01-14T12:00:00"), utc("2021-01-14T11:00:00Z"));
    assert_eq!(berlin.parse("2021-07-14T12:00:00Z"), utc("2021-07-14T12:00:00Z"));
    // Skipped and repeated hours have one defined reading.
    assert_eq!(berlin.parse("2021-03-28T02:30:00"), utc("2021-03-28T01:30:00Z"));
    assert_eq!(berlin.parse("2021-10-31T02:30:00"), utc("2021-10-31T00:30:00Z"));
    assert_eq!(berlin.parse("2021-07-14 24:00"), utc("2021-07-14T22:00:00Z"));
    assert_eq!(berlin.parse("2021/07/14 12:00 +00"), utc("2021-07-14T12:00:00Z"));
    assert_eq!(berlin.parse("9999-12-31T24:00:00"), Err(TimestampError::Range));
    assert!(TimeRule::named("Mars/Olympus").is_err());
    Ok(())
}

proptest! {
    #[test]
    fn dates_agree_with_an_independent_calendar(micros in -62_000_000_000_000_000_i64..253_000_000_000_000_000) {
        let stamp = jiff::Timestamp::from_microsecond(micros).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let civil = stamp.to_zoned(TimeZone::UTC).date();
        let ours = civil_from_micros(micros);
        prop_assert_eq!((ours.year, i64::from(ours.month), i64::from(ours.day)), (i64::from(civil.year()), i64::from(civil.month()), i64::from(civil.day())));
        if civil.year() >= 1 {
            prop_assert_eq!(utc(&format!("{stamp:.6}")), Ok(micros));
        }
    }

    /// Every form of one instant in the table of `variants`.
    #[test]
    fn an_instant_is_read_however_it_is_written(
        micros in -62_000_000_000_000_000_i64..253_000_000_000_000_000,
        offset_minutes in -23 * 60 - 59..=23 * 60 + 59_i64,
        form in (0_usize..3, 0_usize..3, any::<bool>(), any::<bool>(), 0_usize..7, any::<bool>(), 0_usize..12),
    ) {
        let (date, separator, is_basic, has_comma, zone, has_space, digits) = form;
        // Only a time in UTC can be labelled UTC.
        let offset_minutes = if zone >= 4 { 0 } else { offset_minutes };
        let local = jiff::Timestamp::from_microsecond(micros + offset_minutes * 60_000_000).unwrap();
        let local = local.to_zoned(TimeZone::UTC).datetime();
        prop_assume!((0..=9999).contains(&local.year()));
        let date = local.strftime(["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d"][date]).to_string();
        let time = local.strftime(if is_basic { "%H%M%S" } else { "%H:%M:%S" }).to_string();
        let fraction = format!("{:06}{}", local.subsec_nanosecond() / 1000, "7".repeat(digits));
        let sign = if offset_minutes < 0 { ["-", "-", "-", "\u{2212}"][zone.min(3)] } else { "+" };
        let (hours, minutes) = (offset_minutes.abs() / 60, offset_minutes.abs() % 60);
        let zone = match zone {
            0 => format!("{sign}{hours:02}{minutes:02}"),
            1 => format!("{sign}{hours:02}:{minutes:02}:00"),
            2 if minutes == 0 => format!("{sign}{hours:02}"),
            2 | 3 => format!("{sign}{hours:02}:{minutes:02}"),
            4 => "Z".to_owned(),
            5 => "UTC".to_owned(),
            _ => "+0000 UTC".to_owned(),
        };
        let (separator, mark) = (["T", " ", "t"][separator], if has_comma { "," } else { "." });
        let text = format!("{date}{separator}{time}{mark}{fraction}{}{zone}", if has_space { " " } else { "" });
        prop_assert_eq!(utc(&text), Ok(micros), "{}", text);
    }

    /// jiff reads Temporal's grammar, which accepts other variants. Wherever both accept a text, they must agree.
    #[test]
    fn no_text_is_read_as_another_instant_than_jiff_reads(
        text in "2[01][0-9]{2}(-?[01][0-9]-?[0-3][0-9]|/[01][0-9]/[0-3][0-9])[T ][012][0-9]:?[0-5][0-9](:?[0-5][0-9]([.,][0-9]{1,9})?)?( ?(Z|[-+][01][0-9](:?[0-5][0-9](:?[0-5][0-9])?)?))?",
    ) {
        let ours = utc(&text);
        if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
            let theirs = timestamp.as_nanosecond().div_euclid(1_000);
            prop_assert_eq!(ours.map(i128::from), Ok(theirs), "{}", text);
        } else if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
            let theirs = civil.to_zoned(TimeZone::UTC).unwrap().timestamp().as_nanosecond().div_euclid(1_000);
            prop_assert!(ours.is_err() || ours.map(i128::from) == Ok(theirs), "{}", text);
        }
    }

    #[test]
    fn the_fast_parser_and_the_thorough_one_agree(
        text in "2[01][0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][012][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,12})?([Zz]|[-+][0-2][0-9]:?[0-6][0-9])?",
    ) {
        let fast = rfc3339::read(text.as_bytes());
        let thorough = variants::read(&text).ok().filter(|(moment, _)| moment.second_of_day < SECONDS_PER_DAY);
        prop_assert_eq!(fast.map(|moment| (moment, None)), thorough, "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}", like_a_time in "[-+0-9:/ TZ.,\\[\\]ü\u{2212}]{0,40}") {
        let _ = (utc(&text), utc(&like_a_time));
    }
}
