use proptest::prelude::*;

use super::*;

fn rule(name: &str, pointer: &str, column_type: &str) -> ColumnRule {
    ColumnRule { name: name.into(), pointer: pointer.into(), column_type: column_type.into(), events: "*".into() }
}

fn read(column_type: &str, value: &str) -> Found<'static> {
    let columns = Columns::new(&[rule("c", "/v", column_type)], TimeRule::utc()).unwrap();
    let data = format!("{{\"v\":{value}}}");
    let mut all = Vec::new();
    columns.read(&data, &[true], |_, found| {
        all.push(match found {
            Found::Value(ColumnValue::String(text)) => Found::Value(ColumnValue::String(Cow::Owned(text.into_owned()))),
            Found::Value(ColumnValue::Int(value)) => Found::Value(ColumnValue::Int(value)),
            Found::Value(ColumnValue::Double(value)) => Found::Value(ColumnValue::Double(value)),
            Found::Value(ColumnValue::Decimal(value)) => Found::Value(ColumnValue::Decimal(value)),
            Found::Value(ColumnValue::Boolean(value)) => Found::Value(ColumnValue::Boolean(value)),
            Found::Value(ColumnValue::Timestamp(value)) => Found::Value(ColumnValue::Timestamp(value)),
            Found::Nothing => Found::Nothing,
            Found::Unfit => Found::Unfit,
        });
    });
    all.pop().unwrap()
}

#[test]
fn values_that_fit_are_exact_and_nothing_is_rounded() {
    use ColumnValue::{Boolean, Decimal, Double, Int, String, Timestamp};
    let text = |text: &str| String(Cow::Owned(text.to_owned()));
    for (column_type, value, expected) in [
        ("int", "7", Some(Int(7))),
        ("int", "-0", Some(Int(0))),
        ("int", "1e3", Some(Int(1_000))),
        ("int", "1.50e1", Some(Int(15))),
        ("int", "\"42\"", Some(Int(42))),
        ("int", "9223372036854775807", Some(Int(i64::MAX))),
        ("int", "-9223372036854775808", Some(Int(i64::MIN))),
        ("int", "9223372036854775808", None),
        ("int", "1.5", None),
        ("int", "true", None),
        ("int", "\"4 2\"", None),
        ("int", "\"+4\"", None),
        ("int", "\" 4\"", None),
        ("int", "\"\"", None),
        ("int", "[7]", None),
        ("double", "1.25", Some(Double(1.25))),
        ("double", "\"-1e-3\"", Some(Double(-0.001))),
        ("double", "1e999", None),
        ("double", "\"NaN\"", None),
        ("decimal(5,2)", "123.45", Some(Decimal(12_345))),
        ("decimal(5,2)", "123.450", Some(Decimal(12_345))),
        ("decimal(5,2)", "-1e2", Some(Decimal(-10_000))),
        ("decimal(5,2)", "\"0.01\"", Some(Decimal(1))),
        ("decimal(5,2)", "0.001", None),
        ("decimal(5,2)", "1000", None),
        ("decimal(38)", "99999999999999999999999999999999999999", Some(Decimal(10_i128.pow(38) - 1))),
        ("decimal(38)", "100000000000000000000000000000000000000", None),
        ("decimal(38)", "1e99999999999", None),
        ("decimal(38)", "0e99999999999", Some(Decimal(0))),
        ("boolean", "true", Some(Boolean(true))),
        ("boolean", "false", Some(Boolean(false))),
        ("boolean", "\"true\"", None),
        ("boolean", "1", None),
        ("string", "\"a\"", Some(text("a"))),
        ("string", "\"\"", Some(text(""))),
        ("string", "\"\\u00fc\\n\"", Some(text("ü\n"))),
        ("string", "\"\\ud800\"", None),
        ("string", "1.50", Some(text("1.50"))),
        ("string", "{\"a\": [1]}", Some(text("{\"a\": [1]}"))),
        ("timestamp", "\"2021-01-14T10:15:30.5Z\"", Some(Timestamp(1_610_619_330_500_000))),
        ("timestamp", "\"2021-01-14T10:15:30\"", Some(Timestamp(1_610_619_330_000_000))),
        ("timestamp", "\"yesterday\"", None),
        ("timestamp", "1610619330", None),
    ] {
        let found = read(column_type, value);
        assert_eq!(found, expected.map_or(Found::Unfit, Found::Value), "{value} as {column_type}");
    }
    for column_type in ["int", "double", "decimal(9,2)", "boolean", "string", "timestamp"] {
        assert_eq!(read(column_type, "null"), Found::Nothing, "{column_type}");
    }
}

#[test]
fn many_columns_take_several_passes_and_each_finds_its_own() {
    let rules: Vec<_> = (0..MAX_COLUMNS).map(|n| rule(&format!("c{n}"), &format!("/a/k{n}"), "int")).collect();
    let columns = Columns::new(&rules, TimeRule::utc()).unwrap();
    assert!(columns.passes.len() > 1);
    let members: Vec<_> = (0..MAX_COLUMNS).map(|n| format!("\"k{n}\":{n}")).collect();
    let data = format!("{{\"a\":{{{}}}}}", members.join(","));
    let mut seen = 0;
    columns.read(&data, &[true; MAX_COLUMNS], |index, found| {
        assert_eq!(found, Found::Value(ColumnValue::Int(i64::try_from(index).unwrap())));
        seen += 1;
    });
    assert_eq!(seen, MAX_COLUMNS);
}

#[test]
fn absent_unwanted_and_ambiguous_values_are_distinguished() {
    let columns = Columns::new(&[rule("a", "/a", "int"), rule("b", "/b/0", "int")], TimeRule::utc()).unwrap();
    let read = |data: &'static str, wanted: &[bool]| {
        let mut all = Vec::new();
        columns.read(data, wanted, |_, found| all.push(found));
        all
    };
    let one = Found::Value(ColumnValue::Int(1));
    assert_eq!(read("{\"b\":[1]}", &[true, true]), [Found::Nothing, one.clone()]);
    assert_eq!(read("{\"a\":1,\"b\":[1]}", &[true, false]), [one, Found::Nothing]);
    assert_eq!(read("[]", &[true, true]), [Found::Nothing, Found::Nothing]);
    assert_eq!(read("{\"a\":1,\"a\":2}", &[true, true]), [Found::Unfit, Found::Unfit]);
    assert_eq!(read("{\"a\":1,\"a\":2}", &[false, false]), [Found::Nothing, Found::Nothing]);
}

#[test]
fn columns_are_of_the_types_whose_names_fit() {
    let rule = ColumnRule { events: "orders-*, *-failed".into(), ..rule("a", "/a", "int") };
    let columns = Columns::new(&[rule], TimeRule::utc()).unwrap();
    assert_eq!(columns.of_type("orders-placed"), [true]);
    assert_eq!(columns.of_type("login-failed"), [true]);
    assert_eq!(columns.of_type("login-done"), [false]);
}

#[test]
fn an_invalid_rule_is_reported_with_its_key() {
    let wrong = |rule: ColumnRule| Columns::new(&[rule], TimeRule::utc()).err().unwrap();
    for (rule, key, part) in [
        (rule("", "/a", "int"), "name", "not up to 100"),
        (rule("A", "/a", "int"), "name", "not up to 100"),
        (rule("_offset", "/a", "int"), "name", "names that begin with _ are reserved"),
        (rule("data", "/a", "int"), "name", "column of every table"),
        (rule("year", "/a", "int"), "name", "column of every table"),
        (rule("a", "a", "int"), "pointer", "is not a JSON pointer"),
        (rule("a", "/a", "integer"), "type", "is not one of: int"),
        (rule("a", "/a", "decimal(39,2)"), "type", "decimal(p,s)"),
        (rule("a", "/a", "decimal(5,6)"), "type", "decimal(p,s)"),
        (ColumnRule { events: "a,,b".into(), ..rule("a", "/a", "int") }, "events", "patterns of"),
    ] {
        let (index, found_key, message) = wrong(rule);
        assert_eq!((index, found_key), (0, key), "{message}");
        assert!(message.contains(part), "{message}");
    }
    let twice = Columns::new(&[rule("a", "/a", "int"), rule("a", "/b", "int")], TimeRule::utc()).err().unwrap();
    assert_eq!((twice.0, twice.1), (1, "name"));
}

#[test]
fn every_error_of_every_rule_is_reported() {
    let rules = [rule("a", "a", "integer"), rule("b", "/b", "int"), rule("B", "/c", "int"), rule("b", "", "money")];
    let found: Vec<(usize, &str)> = Columns::faults(&rules).into_iter().map(|(index, key, _)| (index, key)).collect();
    assert_eq!(found, [(0, "pointer"), (0, "type"), (2, "name"), (3, "name"), (3, "type")]);
    let many: Vec<ColumnRule> = (0..=MAX_COLUMNS).map(|index| rule(&format!("c{index}"), "/a", "int")).collect();
    assert_eq!(Columns::faults(&many).len(), 1);
    assert_eq!(Columns::faults(&many[1..]), []);
}

proptest! {
    #[test]
    fn a_decimal_is_exactly_what_was_written(value in -1_000_000_000_i64..1_000_000_000, scale in 0_usize..9) {
        let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if value < 0 { "-" } else { "" };
        let text = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
        let found = read(&format!("decimal(20,{scale})"), &text);
        prop_assert_eq!(found, Found::Value(ColumnValue::Decimal(i128::from(value))));
    }
}
