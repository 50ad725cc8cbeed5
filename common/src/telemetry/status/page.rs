//! The status page. It is self-contained: no script, no font and no external image.

use std::fmt::Write;

use serde_json::Value;

use super::{Part, Section, Snapshot, Table};
use crate::printable::escape;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2430;--dim:#667085;--paper:#f6f7f9;--card:#fff;--line:#e3e6eb;--good:#157f3c;\
--bad:#b42318;--bad-paper:#fef3f2}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--dim:#98a2b3;--paper:#12151b;--card:#1a1f28;--line:#2c333f;\
--good:#4ade80;--bad:#fda29b;--bad-paper:#2c1a1a}}\
*{box-sizing:border-box}\
body{margin:0;padding:1.5rem;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}\
main{max-width:76rem;margin:0 auto}\
header{display:flex;flex-wrap:wrap;gap:.4rem 1rem;align-items:baseline}\
h1{font-size:1.35rem;margin:0}\
h2{font-size:1.1rem;margin:2rem 0 .7rem;text-transform:capitalize}\
h3{font-size:.8rem;margin:0 0 .4rem;color:var(--dim);font-weight:600;text-transform:uppercase;letter-spacing:.05em}\
.dim,.zero{color:var(--dim)}\
.state{border-radius:1rem;padding:.05rem .7rem;border:1px solid;font-weight:600}\
.ready{color:var(--good)}.waiting{color:var(--bad)}\
.problems{margin:1rem 0 0;padding:.6rem .9rem;border-radius:.5rem;background:var(--bad-paper);color:var(--bad);\
overflow-wrap:anywhere}\
.problems p{margin:0}\
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:.9rem}\
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem;min-width:0}\
.wide{grid-column:1/-1;overflow-x:auto}\
dl{display:grid;grid-template-columns:auto 1fr;gap:.15rem 1rem;margin:0}\
dt{color:var(--dim)}\
dd{margin:0;text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}\
th{text-align:left;color:var(--dim);font-weight:500;white-space:nowrap}\
th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}\
tr:last-child td{border-bottom:0}\
td{overflow-wrap:anywhere;min-width:6rem;font-variant-numeric:tabular-nums}\
.number{text-align:right;white-space:nowrap}\
footer{margin:2rem 0 0;font-size:.85rem}a{color:inherit}";

const FOOTER: &str = "<footer class=dim>Asks again every 5 seconds. The same as JSON: <a href=/status>/status</a>. \
For machines: <a href=/metrics>/metrics</a>, <a href=/readyz>/readyz</a>, <a href=/livez>/livez</a>.</footer>";

pub(super) fn render(snapshot: &Snapshot) -> String {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content=5><title>{}Event Distributor</title><style>{STYLE}</style><main>",
        if snapshot.problems.is_empty() { "" } else { "Not ready – " }
    );
    header(&mut html, snapshot);
    for (name, section) in &snapshot.sections {
        push(&mut html, format_args!("<h2>{}</h2><div class=cards>", Escaped(&words(name))));
        section_cards(&mut html, section);
        html.push_str("</div>");
    }
    html.push_str(FOOTER);
    html.push_str("</main></html>\n");
    html
}

fn header(html: &mut String, snapshot: &Snapshot) {
    let (class, state) = if snapshot.problems.is_empty() { ("ready", "Ready") } else { ("waiting", "Not ready") };
    push(
        html,
        format_args!(
            "<header><h1>Event Distributor</h1><span class=\"state {class}\">{state}</span>\
             <span class=dim>version {}, up {}</span></header>",
            Escaped(snapshot.version),
            duration(seconds(snapshot.uptime_seconds))
        ),
    );
    if !snapshot.problems.is_empty() {
        html.push_str("<div class=problems>");
        for (component, reason) in &snapshot.problems {
            push(html, format_args!("<p><b>{}</b>: {}</p>", Escaped(component), Escaped(reason)));
        }
        html.push_str("</div>");
    }
}

fn section_cards(html: &mut String, section: &Section) {
    for (title, part) in &section.parts {
        match part {
            Part::Facts(facts) => facts_card(html, title, facts),
            Part::Table(table) if table.rows.is_empty() => {}
            Part::Table(table) => table_card(html, title, table),
        }
    }
}

fn facts_card(html: &mut String, title: &str, facts: &[(&'static str, Value)]) {
    push(html, format_args!("<section class=card><h3>{}</h3><dl>", Escaped(&words(title))));
    for (name, value) in facts {
        push(html, format_args!("<dt>{}</dt>", Escaped(&label(name))));
        cell(html, "dd", "", name, value);
    }
    html.push_str("</dl></section>");
}

fn table_card(html: &mut String, title: &str, table: &Table) {
    push(html, format_args!("<section class=\"card wide\"><h3>{}</h3><table><tr>", Escaped(&words(title))));
    let is_number = |column: usize| table.rows.iter().all(|row| row.get(column).is_some_and(Value::is_number));
    let class = |column: usize| if is_number(column) { "number" } else { "" };
    for (column, name) in table.columns.iter().enumerate() {
        push(html, format_args!("<th class=\"{}\">{}</th>", class(column), Escaped(&label(name))));
    }
    html.push_str("</tr>");
    for row in &table.rows {
        html.push_str("<tr>");
        for (column, (name, value)) in table.columns.iter().zip(row).enumerate() {
            cell(html, "td", class(column), name, value);
        }
        html.push_str("</tr>");
    }
    html.push_str("</table>");
    if table.left_out > 0 {
        push(html, format_args!("<p class=dim>… and {} more</p>", grouped(table.left_out)));
    }
    html.push_str("</section>");
}

fn cell(html: &mut String, tag: &str, class: &str, name: &str, value: &Value) {
    let zero = if is_nothing(value) { " zero" } else { "" };
    push(html, format_args!("<{tag} class=\"{class}{zero}\">{}</{tag}>", Escaped(&text(name, value))));
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::String(_) => false,
    }
}

/// A value as the page shows it, by the unit in its name.
fn text(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(whole) if !name.ends_with("_seconds") => whole_number(name, whole),
            _ => number.as_f64().map_or_else(|| number.to_string(), |number| fraction(name, number)),
        },
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => values.iter().map(|value| text(name, value)).collect::<Vec<_>>().join(", "),
        Value::Object(members) if members.is_empty() => "none".to_owned(),
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| format!("{key} {}", text(name, value));
            members.iter().map(member).collect::<Vec<_>>().join(", ")
        }
    }
}

fn whole_number(name: &str, number: u64) -> String {
    if name.ends_with("bytes_per_second") {
        format!("{}/s", bytes(number))
    } else if name.ends_with("_per_second") {
        format!("{}/s", grouped(number))
    } else if name.ends_with("bytes") {
        bytes(number)
    } else {
        grouped(number)
    }
}

fn fraction(name: &str, number: f64) -> String {
    if name.ends_with("_seconds") {
        return duration(number);
    }
    // A rate or a mean of this size needs no further digits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    if number >= 10.0 {
        return whole_number(name, number.round() as u64);
    }
    let unit = if name.ends_with("_per_second") { "/s" } else { "" };
    format!("{number:.1}{unit}")
}

/// A name without the unit that its value shows.
fn label(name: &str) -> String {
    let name = name.strip_suffix("_seconds").unwrap_or(name);
    words(name.strip_suffix("_per_second").unwrap_or(name))
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

#[allow(clippy::cast_precision_loss, reason = "shown to three digits")]
fn bytes(number: u64) -> String {
    let mut scaled = number as f64;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter();
    let mut unit = "B";
    while scaled >= 1024.0 {
        let Some(next) = units.next() else { break };
        scaled /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{number} B") } else { format!("{scaled:.1} {unit}") }
}

#[allow(clippy::cast_precision_loss, reason = "an uptime")]
fn seconds(number: u64) -> f64 {
    number as f64
}

/// The two largest units.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn duration(seconds: f64) -> String {
    if seconds <= 0.0 {
        return "0 s".to_owned();
    }
    if seconds < 1.0 {
        return format!("{:.0} ms", seconds * 1_000.0);
    }
    if seconds < 60.0 {
        return format!("{seconds:.0} s");
    }
    let whole = seconds as u64;
    let (large, small, names) = match whole {
        0..3_600 => (whole / 60, whole % 60, ("min", "s")),
        3_600..86_400 => (whole / 3_600, whole % 3_600 / 60, ("h", "min")),
        _ => (whole / 86_400, whole % 86_400 / 3_600, ("d", "h")),
    };
    format!("{large} {} {small} {}", names.0, names.1)
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text that is never markup, whatever its origin.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for char in escape(self.0).chars() {
            match char {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                char => formatter.write_char(char)?,
            }
        }
        Ok(())
    }
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = html.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page_of(section: Section, problem: Option<&str>) -> String {
        let problems = problem.into_iter().map(|problem| ("ingestor".to_owned(), problem.to_owned())).collect();
        render(&Snapshot { version: "1.2.3", uptime_seconds: 90_061, problems, sections: vec![("ingestor", section)] })
    }

    #[test]
    fn foreign_text_is_shown_and_never_markup() {
        let name = "<script>alert('x')</script>&\".json\u{1b}";
        let table = Table { columns: &["path"], rows: vec![vec![name.into()]], left_out: 1_234 };
        let by_reason = serde_json::json!({ "<b>": 1 });
        let section = Section::new().facts("letters", vec![("by_reason", by_reason)]).table("quarantined_files", table);
        let page = page_of(section, Some("<img src=x>"));
        for part in [
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;.json\\u{1b}</td>",
            "&lt;b&gt; 1",
            "&lt;img src=x&gt;",
            "… and 1,234 more",
            "quarantined files",
        ] {
            assert!(page.contains(part), "{part:?} is missing in\n{page}");
        }
        for part in ["<script", "<b>:", "<img", "http://", "https://"] {
            assert!(!page.contains(part), "{part:?} is in\n{page}");
        }
    }

    #[test]
    fn values_are_shown_with_the_unit_of_their_name() {
        let shown = |name, value: Value| text(name, &value);
        for (name, value, expected) in [
            ("events", 1_234_567.into(), "1,234,567"),
            ("pending_bytes", 1_610_612_736_u64.into(), "1.5 GiB"),
            ("read_bytes_per_second", 2_048.4.into(), "2.0 KiB/s"),
            ("events_per_second", 3.25.into(), "3.2/s"),
            ("events_per_second", 1_999.6.into(), "2,000/s"),
            ("mean_seconds", 0.0123.into(), "12 ms"),
            ("oldest_pending_seconds", 45.into(), "45 s"),
            ("oldest_pending_seconds", 3_725.0.into(), "1 h 2 min"),
            ("uptime_seconds", 200_000.into(), "2 d 7 h"),
            ("owned", serde_json::json!([0, 3]), "0, 3"),
            ("rejected", serde_json::json!({}), "none"),
            ("since", Value::Null, "–"),
        ] {
            assert_eq!(shown(name, value), expected, "{name}");
        }
        assert_eq!(label("oldest_pending_seconds"), "oldest pending");
    }

    #[test]
    fn the_state_is_at_the_top_and_empty_tables_are_left_out() {
        let empty = Section::new().table("quarantined_files", Table::default());
        let page = page_of(empty.clone(), None);
        assert!(page.contains("Ready</span>") && page.contains("up 1 d 1 h") && page.contains("http-equiv=refresh"));
        assert!(!page.contains("quarantined"));
        let page = page_of(empty, Some("waiting for ledger partitions"));
        assert!(page.contains("Not ready</span>") && page.contains("<b>ingestor</b>: waiting for ledger partitions"));
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_place(foreign in ".{0,60}") {
            let escaped = Escaped(&foreign).to_string();
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(!escaped.chars().any(char::is_control));
        }

        #[test]
        fn any_number_is_shown(number in any::<f64>(), whole in any::<u64>()) {
            for name in ["x", "x_seconds", "x_bytes", "x_per_second"] {
                let _ = (text(name, &number.into()), text(name, &whole.into()));
            }
        }
    }
}
