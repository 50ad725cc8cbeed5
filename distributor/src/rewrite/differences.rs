//! How the settings of two layouts or encodings differ, for people.

use std::collections::BTreeSet;

use common::config::Compression;
use serde_json::Value;

use crate::batch::Encoding;
use crate::layout::Layout;

/// What an encoding is to be.
pub(crate) fn encoding_words(encoding: Encoding) -> String {
    let filter = if encoding.bloom_filter { "a Bloom filter" } else { "no Bloom filter" };
    let compression = match encoding.compression {
        Compression::Zstd => "zstd",
        Compression::Snappy => "snappy",
    };
    format!("{compression} and {filter}")
}

/// Settings in which two layouts differ.
pub(crate) fn differences(before: &Layout, wanted: &Layout) -> Vec<String> {
    let mut found = Vec::new();
    match (serde_json::to_value(before), serde_json::to_value(wanted)) {
        (Ok(before), Ok(wanted)) => compare("", &before, &wanted, &mut found),
        // Never for a layout that was read or configured.
        _ => found.push("layout".to_owned()),
    }
    found
}

fn compare(path: &str, before: &Value, wanted: &Value, found: &mut Vec<String>) {
    if before == wanted {
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (before, wanted) else {
        let is_plain = |value: &Value| !value.is_array() && !value.is_object() && !value.is_null();
        found.push(if is_plain(before) && is_plain(wanted) {
            format!("{path}: {before} -> {wanted}")
        } else {
            path.to_owned()
        });
        return;
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        compare(&path, old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::testing::layout;

    #[test]
    fn settings_that_differ_are_named() {
        let wanted = Layout { timezone: "Europe/Berlin".into(), max_types: 7, ..layout() };
        assert_eq!(differences(&layout(), &wanted), ["max_types: 1000 -> 7", "timezone: \"UTC\" -> \"Europe/Berlin\""]);
        let mut other = layout();
        other.rules.max_depth += 1;
        assert_eq!(differences(&layout(), &other), ["rules.max_depth: 128 -> 129"]);
        assert!(differences(&layout(), &layout()).is_empty());
    }
}
