//! Raw settings by path, collected from the layers, each with its origin.

use std::collections::BTreeMap;

use super::secrets::shown;
use super::settings::{SETTINGS, find, nearest};
use super::{Config, ConfigErrors, check};
use crate::printable::escape;

/// The value of `format.data` that represents the empty JSON pointer.
pub(super) const WHOLE_RECORD: &str = "whole";

/// A value as written, and its origin for error messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    pub text: String,
    pub origin: String,
}

/// Settings before they are checked. Later layers take precedence.
#[derive(Debug, Clone, Default)]
pub struct ConfigTree {
    values: BTreeMap<String, Raw>,
    errors: Vec<String>,
}

/// A setting as it is shown: secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownSetting {
    pub path: String,
    /// None if it is not set and has no default.
    pub value: Option<String>,
    pub origin: Option<String>,
}

impl ConfigTree {
    /// Adds the settings of a TOML file.
    pub fn add_file(&mut self, name: &str, text: &str) {
        match text.parse::<toml::Table>() {
            Ok(table) => self.add_table(name, "", &table),
            // The parser's message quotes the offending line, which may hold a secret, so only its position is
            // reported.
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
                self.errors.push(format!("{name}, line {line}: {}", error.message()));
            }
        }
    }

    fn add_table(&mut self, name: &str, prefix: &str, table: &toml::Table) {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            let text = match value {
                toml::Value::Table(inner) => {
                    self.add_table(name, &path, inner);
                    continue;
                }
                // Elsewhere an empty text unsets a setting. Here it is also the empty JSON pointer.
                toml::Value::String(text) if text.is_empty() && path == "format.data" => WHOLE_RECORD.to_owned(),
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Float(number) => number.to_string(),
                // An array of tables, such as [[columns]], is numbered. An array of texts becomes one text with commas.
                toml::Value::Array(values) if values.iter().all(toml::Value::is_table) && !values.is_empty() => {
                    for (index, inner) in values.iter().filter_map(toml::Value::as_table).enumerate() {
                        self.add_table(name, &format!("{path}.{index}"), inner);
                    }
                    continue;
                }
                toml::Value::Array(values)
                    if path.starts_with("columns.") && values.iter().all(toml::Value::is_str) =>
                {
                    values.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(",")
                }
                toml::Value::Array(_) | toml::Value::Datetime(_) => {
                    self.errors.push(format!("{path} ({name}): must be a text, a number or true/false"));
                    continue;
                }
            };
            self.set(&path, &text, name);
        }
    }

    /// Adds `ED__SECTION__KEY` variables. In `kafka.client` a single `_` represents a dot.
    pub fn add_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix("ED__") else { continue };
            let lower = rest.to_lowercase().replace("__", ".");
            let path = match lower.strip_prefix("kafka.client.") {
                Some(key) => format!("kafka.client.{}", key.replace('_', ".")),
                None => lower,
            };
            self.set(&path, &value, &format!("environment variable {name}"));
        }
    }

    /// Sets one value, as a flag does.
    pub fn set(&mut self, path: &str, text: &str, origin: &str) {
        if find(path).is_none() {
            let hint = nearest(path).map_or(String::new(), |known| format!("; did you mean {known}?"));
            self.errors.push(format!("{path} ({origin}): no such setting{hint}"));
            return;
        }
        self.values.insert(path.to_owned(), Raw { text: text.to_owned(), origin: origin.to_owned() });
    }

    /// The value of `path`, if set; an empty text unsets it.
    pub(super) fn get(&self, path: &str) -> Option<Raw> {
        let default = || {
            let default = SETTINGS.iter().find(|setting| setting.path == path)?.default;
            Some(Raw { text: default.to_owned(), origin: "default".to_owned() })
        };
        self.values.get(path).cloned().or_else(default).filter(|raw| !raw.text.is_empty())
    }

    pub(super) fn section(&self, prefix: &str) -> BTreeMap<String, Raw> {
        let inside =
            self.values.iter().filter_map(|(path, raw)| Some((path.strip_prefix(prefix)?.to_owned(), raw.clone())));
        inside.filter(|(_, raw)| !raw.text.is_empty()).collect()
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// All errors, not only the first.
    pub fn check(&self) -> Result<Config, ConfigErrors> {
        check::check(self, self.errors.clone())
    }

    /// Every setting, with its effective value and the origin of it; secrets are masked.
    pub fn settings(&self) -> Vec<ShownSetting> {
        let mut settings = Vec::new();
        let mut show = |path: &str, raw: Option<Raw>| {
            let (value, origin) = match raw {
                Some(raw) => (Some(shown(path, &raw.text).into_owned()), Some(raw.origin)),
                None => (None, None),
            };
            settings.push(ShownSetting { path: path.to_owned(), value, origin });
        };
        for setting in SETTINGS {
            match setting.path.strip_suffix('*') {
                Some(prefix) => {
                    for (key, raw) in self.section(prefix) {
                        show(&format!("{prefix}{key}"), Some(raw));
                    }
                }
                None => show(setting.path, self.get(setting.path)),
            }
        }
        settings
    }

    /// [`ConfigTree::settings`] as TOML.
    pub fn print(&self) -> String {
        let mut lines = String::new();
        let mut section = "";
        for ShownSetting { path, value, origin } in self.settings() {
            let (head, key) = path.split_once('.').unwrap_or(("", &path));
            let head = if head == "kafka" && key.starts_with("client.") { "kafka.client" } else { head };
            let key = key.strip_prefix("client.").unwrap_or(key);
            if head != section {
                lines.push_str(&format!("\n[{head}]\n"));
                section = SETTINGS
                    .iter()
                    .map(|setting| setting.path.rsplit_once('.').map_or("", |(section, _)| section))
                    .find(|known| *known == head)
                    .unwrap_or_default();
            }
            let is_bare = key.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-'));
            let key = if is_bare { key.to_owned() } else { toml::Value::String(key.to_owned()).to_string() };
            match (value, origin) {
                (Some(value), Some(origin)) => {
                    let shown = toml::Value::String(value);
                    lines.push_str(&format!("{key} = {shown}  # {}\n", escape(&origin)));
                }
                _ => lines.push_str(&format!("# {key} is not set\n")),
            }
        }
        lines.trim_start().to_owned()
    }
}
