//! Builds a checked configuration from the command line's layers.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use common::config::{Config, ConfigErrors, ConfigTree, ShownSetting};
use common::printable::lines;

use crate::args::{CommonArgs, Output};
use crate::{Failure, print};

/// A flag, its setting, and its value.
type Flag<'a> = (&'a str, &'a str, Option<&'a String>);

/// Collects file, environment, `--set` and the given flags, in rising precedence.
pub fn tree(common: &CommonArgs, flags: &[Flag<'_>]) -> Result<ConfigTree, Failure> {
    let mut tree = ConfigTree::default();
    if let Some(path) = &common.config {
        let name = path.display().to_string();
        let text = read(path).with_context(|| format!("cannot read the configuration file {name}"));
        tree.add_file(&name, &text.map_err(Failure::usage)?);
    }
    tree.add_environment(environment().map_err(Failure::usage)?);
    for pair in &common.set {
        let (key, value) = pair.split_once('=').ok_or_else(|| Failure::usage(no_pair(pair)))?;
        tree.set(key, value, "--set");
    }
    for (flag, path, value) in flags {
        if let Some(value) = value {
            // An empty text in a file or a variable leaves a setting out. A flag that names nothing is an accident, such as
            // an unset variable of a script.
            if value.is_empty() {
                return Err(Failure::usage(anyhow!("{flag} is empty: name a place, or leave the flag out")));
            }
            tree.set(path, value, flag);
        }
    }
    Ok(tree)
}

/// Settings files are small; a larger file is not one.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A pipe that nobody writes to is waited for no longer than this.
const PIPE_PATIENCE: Duration = Duration::from_secs(10);

fn read(path: &Path) -> anyhow::Result<String> {
    if std::fs::metadata(path)?.is_file() {
        return read_now(path);
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let owned = path.to_owned();
    // It ends with the process, if nobody ever writes.
    std::thread::spawn(move || sender.send(read_now(&owned)));
    let none = || anyhow!("it is no file, and nothing was written to it within {} seconds", PIPE_PATIENCE.as_secs());
    receiver.recv_timeout(PIPE_PATIENCE).unwrap_or_else(|_| Err(none()))
}

fn read_now(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    ensure!(read as u64 <= MAX_FILE_BYTES, "it has more than {MAX_FILE_BYTES} bytes");
    Ok(text)
}

/// All readable variables; those with the program's prefix have to be readable.
fn environment() -> anyhow::Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with("ED__") => bail!("environment variable {name}: is not UTF-8"),
            Err(_) => {}
        }
    }
    Ok(variables)
}

/// The text after the key is not shown, because it may be a secret.
fn no_pair(pair: &str) -> anyhow::Error {
    let is_key = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    let key: String = pair.chars().take_while(|char| is_key(*char)).collect();
    anyhow!("--set {key}: expected KEY=VALUE, such as --set flush.max_age=10s")
}

/// Checks the whole configuration, and that its places do not overlap.
pub fn config(common: &CommonArgs, flags: &[Flag<'_>]) -> Result<Config, Failure> {
    check(&tree(common, flags)?).map_err(Failure::usage)
}

/// As [`config`], for settings that are already collected.
pub fn check(tree: &ConfigTree) -> Result<Config, ConfigErrors> {
    let config = tree.check()?;
    let overlaps = config.overlaps();
    if overlaps.is_empty() { Ok(config) } else { Err(ConfigErrors(overlaps)) }
}

pub fn print(common: &CommonArgs) -> Result<(), Failure> {
    let tree = tree(common, &[])?;
    match common.output {
        Output::Text => print::text(&lines(&tree.print()))?,
        Output::Json => {
            let setting =
                |shown: ShownSetting| (shown.path, serde_json::json!({ "value": shown.value, "origin": shown.origin }));
            let settings: serde_json::Map<_, _> = tree.settings().into_iter().map(setting).collect();
            print::json(&settings)?;
        }
    }
    check(&tree).map(|_| ()).map_err(Failure::usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_without_a_value_is_not_repeated_behind_its_key() {
        let message = no_pair("kafka.client.sasl.password:hush").to_string();
        assert!(
            message.contains("--set kafka.client.sasl.password: expected KEY=VALUE") && !message.contains("hush"),
            "{message}"
        );
    }

    #[test]
    fn a_large_file_is_not_read_to_its_end() {
        let message = read(Path::new("/dev/zero")).err().map(|error| error.to_string());
        assert_eq!(message.as_deref(), Some("it has more than 1048576 bytes"));
    }
}
