//! The tables `[[columns]]`: additional columns for values inside `data`.

use std::collections::BTreeMap;

use super::check::Checker;
use super::tree::Raw;
use crate::event::{ColumnRule, Columns};

const PREFIX: &str = "columns.";
const KEYS: [&str; 4] = ["name", "pointer", "type", "events"];
const REQUIRED: [&str; 3] = ["name", "pointer", "type"];
const ALL_EVENTS: &str = "*";

impl Checker<'_> {
    pub(super) fn columns(&mut self) -> Vec<ColumnRule> {
        let mut columns: BTreeMap<u32, BTreeMap<String, Raw>> = BTreeMap::new();
        for (path, raw) in self.tree.section(PREFIX) {
            match path.split_once('.') {
                Some((index, key)) if KEYS.contains(&key) && index.parse::<u32>().is_ok() => {
                    columns.entry(index.parse().unwrap_or_default()).or_default().insert(key.to_owned(), raw);
                }
                _ => {
                    let known = KEYS.join(", ");
                    self.errors
                        .push(format!("{PREFIX}{path} ({}): a column has no such setting, but: {known}", raw.origin));
                }
            }
        }
        let (mut rules, mut places) = (Vec::new(), Vec::new());
        for (index, column) in columns {
            let text = |key: &str| column.get(key).map(|raw| raw.text.clone());
            let missing: Vec<_> = REQUIRED.into_iter().filter(|key| !column.contains_key(*key)).collect();
            let origin = column.values().next().map_or_else(String::new, |raw| raw.origin.clone());
            let named = column.get("name").map_or_else(String::new, |raw| format!(", column '{}'", raw.text));
            if !missing.is_empty() {
                self.errors.push(format!(
                    "{PREFIX}{index} ({origin}{named}): a column needs {}; {} missing",
                    REQUIRED.join(", "),
                    missing.join(" and ") + if missing.len() == 1 { " is" } else { " are" }
                ));
            }
            // A missing key is reported; a placeholder lets the other keys be checked.
            let or_sound = |key: &str, sound: &str| text(key).unwrap_or_else(|| sound.to_owned());
            rules.push(ColumnRule {
                name: or_sound("name", &format!("unnamed_{index}")),
                pointer: or_sound("pointer", "/x"),
                column_type: or_sound("type", "string"),
                events: or_sound("events", ALL_EVENTS),
            });
            places.push((index, named, column));
        }
        for (at, key, message) in Columns::faults(&rules) {
            let Some((index, named, column)) = places.get(at) else { continue };
            let origin = column.get(key).map_or("default", |raw| raw.origin.as_str());
            self.errors.push(format!("{PREFIX}{index}.{key} ({origin}{named}): {message}"));
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigErrors, ConfigTree};

    const TWO: &str = "[[columns]]\nname = \"amount\"\npointer = \"/amount\"\ntype = \"decimal(18,2)\"\nevents = [\"orders-*\", \"refunds-*\"]\n\n\
                       [[columns]]\nname = \"country\"\npointer = \"/address/country\"\ntype = \"string\"\n";

    #[test]
    fn columns_are_tables_in_a_row_and_can_be_overridden_one_by_one() -> Result<(), ConfigErrors> {
        let mut tree = ConfigTree::default();
        assert!(tree.check()?.columns.is_empty());
        tree.add_file("x.toml", TWO);
        let columns = tree.check()?.columns;
        let shown = |index: usize| {
            columns.get(index).map(|rule| (rule.name.clone(), rule.column_type.clone(), rule.events.clone()))
        };
        assert_eq!(shown(0), Some(("amount".into(), "decimal(18,2)".into(), "orders-*,refunds-*".into())));
        assert_eq!(shown(1), Some(("country".into(), "string".into(), "*".into())));
        tree.set("columns.1.type", "int", "--set");
        assert_eq!(tree.check()?.columns.get(1).map(|rule| rule.column_type.clone()).as_deref(), Some("int"));
        let mut reread = ConfigTree::default();
        let printed = tree.print();
        reread.add_file("printed", &printed);
        assert_eq!(reread.check()?.columns, tree.check()?.columns, "the output can be read");
        Ok(())
    }

    #[test]
    fn an_invalid_column_is_reported_with_its_number_and_key() {
        for (from, to, part) in [
            ("/amount", "amount", "columns.0.pointer (x.toml, column 'amount'): 'amount' is not a JSON pointer"),
            ("\"country\"", "\"data\"", "columns.1.name (x.toml, column 'data'): 'data' is a column of every table"),
            ("type = \"string\"", "kind = \"string\"", "columns.1.kind (x.toml): a column has no such setting"),
            (
                "type = \"string\"",
                "",
                "columns.1 (x.toml, column 'country'): a column needs name, pointer, type; type is missing",
            ),
            ("decimal(18,2)", "money", "columns.0.type (x.toml, column 'amount'): 'money' is not one of"),
        ] {
            let mut tree = ConfigTree::default();
            tree.add_file("x.toml", &TWO.replace(from, to));
            let errors = tree.check().err().map(|errors| errors.to_string()).unwrap_or_default();
            assert!(errors.contains(part), "{errors}");
        }
    }

    #[test]
    fn all_wrong_columns_are_reported_at_once_each_with_its_number_and_name() {
        let mut tree = ConfigTree::default();
        let wrong =
            TWO.replace("/amount", "amount").replace("decimal(18,2)", "money").replace("country\"\n", "amount\"\n");
        tree.add_file(
            "x.toml",
            &format!("{wrong}\n[[columns]]\nname = \"third\"\n\n[[columns]]\nevents = [\"a\", \"\"]\n"),
        );
        tree.set("columns.1.type", "text", "--set");
        let errors = tree.check().err().map(|errors| errors.0).unwrap_or_default();
        for part in [
            "columns.0.pointer (x.toml, column 'amount')",
            "columns.0.type (x.toml, column 'amount'): 'money'",
            "columns.1.name (x.toml, column 'amount'): 'amount' is there twice: columns.0 has it too",
            "columns.1.type (--set, column 'amount'): 'text' is not one of",
            "columns.2 (x.toml, column 'third'): a column needs name, pointer, type; pointer and type are missing",
            "columns.3 (x.toml): a column needs name, pointer, type; name and pointer and type are missing",
            "columns.3.events (x.toml): must be patterns",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part:?} is missing in {errors:#?}");
        }
        assert_eq!(errors.len(), 7, "{errors:#?}");
    }
}
