//! From the command line's layers to a checked configuration.

use anyhow::{Context, anyhow};
use common::config::{Config, ConfigTree};

use crate::Failure;
use crate::args::CommonArgs;

/// Gathers file, environment, `--set` and the given flags, in rising precedence.
pub fn tree(common: &CommonArgs, flags: &[(&str, &str, Option<&String>)]) -> Result<ConfigTree, Failure> {
    let mut tree = ConfigTree::default();
    if let Some(path) = &common.config {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))
            .map_err(Failure::usage)?;
        tree.add_file(&path.display().to_string(), &text);
    }
    // A variable that is not Unicode cannot be one of ours.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    tree.add_environment(variables);
    for pair in &common.set {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| Failure::usage(anyhow!("--set {pair}: expected KEY=VALUE")))?;
        tree.set(key, value, "--set");
    }
    for (flag, path, value) in flags {
        if let Some(value) = value {
            tree.set(path, value, flag);
        }
    }
    Ok(tree)
}

/// Checks the whole configuration.
pub fn config(common: &CommonArgs, flags: &[(&str, &str, Option<&String>)]) -> Result<Config, Failure> {
    tree(common, flags)?.check().map_err(Failure::usage)
}

#[allow(clippy::print_stdout, reason = "the command's result")]
pub fn print(common: &CommonArgs) -> Result<(), Failure> {
    let tree = tree(common, &[])?;
    print!("{}", tree.print());
    tree.check().map(|_| ()).map_err(Failure::usage)
}
