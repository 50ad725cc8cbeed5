//! The tables `[[columns]]`: columns of their own for values inside `data`.

use std::collections::BTreeMap;

use super::check::Checker;
use super::tree::Raw;
use crate::event::{ColumnRule, Columns, TimeRule};

const PREFIX: &str = "columns.";
const KEYS: [&str; 4] = ["name", "pointer", "type", "events"];
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
        let mut rules = Vec::new();
        let mut indices = Vec::new();
        for (index, mut column) in columns {
            let mut take = |key: &str| column.remove(key).map(|raw| raw.text);
            let (name, pointer, column_type) = (take("name"), take("pointer"), take("type"));
            let events = take("events").unwrap_or_else(|| ALL_EVENTS.to_owned());
            let (Some(name), Some(pointer), Some(column_type)) = (name, pointer, column_type) else {
                self.errors.push(format!("{PREFIX}{index}: a column needs name, pointer and type"));
                continue;
            };
            rules.push(ColumnRule { name, pointer, column_type, events });
            indices.push(index);
        }
        if let Err((at, key, message)) = Columns::new(&rules, TimeRule::utc()) {
            let index = indices.get(at).copied().unwrap_or_default();
            self.errors.push(format!("{PREFIX}{index}.{key}: {message}"));
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
        let mut again = ConfigTree::default();
        let printed = tree.print();
        again.add_file("printed", &printed);
        assert_eq!(again.check()?.columns, tree.check()?.columns, "what is printed can be read");
        Ok(())
    }

    #[test]
    fn what_is_wrong_with_a_column_is_told_with_its_number_and_key() {
        for (from, to, part) in [
            ("/amount", "amount", "columns.0.pointer: 'amount' is not a JSON pointer"),
            ("\"country\"", "\"data\"", "columns.1.name: 'data' is a column of every table"),
            ("type = \"string\"", "kind = \"string\"", "columns.1.kind (x.toml): a column has no such setting"),
            ("type = \"string\"", "", "columns.1: a column needs name, pointer and type"),
            ("decimal(18,2)", "money", "columns.0.type: 'money' is not one of"),
        ] {
            let mut tree = ConfigTree::default();
            tree.add_file("x.toml", &TWO.replace(from, to));
            let errors = tree.check().err().map(|errors| errors.to_string()).unwrap_or_default();
            assert!(errors.contains(part), "{errors}");
        }
    }
}
