//! From the command line's layers to a checked configuration.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use common::config::{Config, ConfigErrors, ConfigTree};
use common::printable::lines;

use crate::args::CommonArgs;
use crate::{Failure, print};

/// A flag, the setting that it stands for, and its value.
type Flag<'a> = (&'a str, &'a str, Option<&'a String>);

/// Gathers file, environment, `--set` and the given flags, in rising precedence.
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
            tree.set(path, value, flag);
        }
    }
    Ok(tree)
}

/// Files of settings are small; what is larger is another file.
const MAX_FILE_BYTES: u64 = 1 << 20;

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    ensure!(read as u64 <= MAX_FILE_BYTES, "it has more than {MAX_FILE_BYTES} bytes");
    Ok(text)
}

/// All variables that can be read; one of ours has to be.
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

/// What follows the key is not shown, for it may be a secret.
fn no_pair(pair: &str) -> anyhow::Error {
    let is_key = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    let key: String = pair.chars().take_while(|char| is_key(*char)).collect();
    anyhow!("--set {key}: expected KEY=VALUE, such as --set flush.max_age=10s")
}

/// Checks the whole configuration, and that its places do not lie inside each other.
pub fn config(common: &CommonArgs, flags: &[Flag<'_>]) -> Result<Config, Failure> {
    check(&tree(common, flags)?).map_err(Failure::usage)
}

/// As [`config`], of settings that were gathered before.
pub fn check(tree: &ConfigTree) -> Result<Config, ConfigErrors> {
    let config = tree.check()?;
    let overlaps = config.overlaps();
    if overlaps.is_empty() { Ok(config) } else { Err(ConfigErrors(overlaps)) }
}

pub fn print(common: &CommonArgs) -> Result<(), Failure> {
    let tree = tree(common, &[])?;
    print::text(&lines(&tree.print()))?;
    check(&tree).map(|_| ()).map_err(Failure::usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_without_a_value_is_not_repeated_behind_its_key() {
        let told = no_pair("kafka.client.sasl.password:hush").to_string();
        assert!(
            told.contains("--set kafka.client.sasl.password: expected KEY=VALUE") && !told.contains("hush"),
            "{told}"
        );
    }

    #[test]
    fn a_file_that_is_no_configuration_is_not_read_to_its_end() {
        let told = read(Path::new("/dev/zero")).err().map(|error| error.to_string());
        assert_eq!(told.as_deref(), Some("it has more than 1048576 bytes"));
    }
}
