//! `table rebuild`: makes the Delta tables anew from the commit logs.

use std::collections::BTreeMap;

use anyhow::anyhow;
use common::printable::push_line;
use distributor::Rebuilt;

use crate::args::{Output, TableRebuildArgs};
use crate::replay::counted;
use crate::trusted::{self, Trusted};
use crate::wiring::tables;
use crate::{Failure, print};

pub async fn rebuild(args: &TableRebuildArgs) -> Result<(), Failure> {
    let trusted = trusted::open_tables(&args.log, &args.common).await?;
    trusted.refuse_other_place(&[]).await?;
    let Trusted { config, store, .. } = trusted;
    let none = || Failure::usage(anyhow!("table.format is 'none': there are to be no tables"));
    let tables = tables(&config, &store).ok_or_else(none)?;
    let rebuilt = tables.rebuild().await.map_err(|error| Failure::Runtime(error.into()))?;
    match args.common.output {
        Output::Json => print::json(&serde_json::json!({ "tables": rebuilt }))?,
        Output::Text => print::text(&text(&rebuilt))?,
    }
    Ok(())
}

fn text(rebuilt: &BTreeMap<&'static str, Rebuilt>) -> String {
    let mut text = String::new();
    for (root, Rebuilt { version, added, removed }) in rebuilt {
        let (added, removed) = (counted(*added, "file"), counted(*removed, "file"));
        push_line(
            &mut text,
            format_args!("{root}: version {version} is what the commit logs say; {added} added, {removed} removed"),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_says_what_it_changed() {
        let rebuilt = [("events/", Rebuilt { version: 7, added: 1, removed: 1_200 })].into();
        assert_eq!(
            text(&rebuilt),
            "events/: version 7 is what the commit logs say; 1 file added, 1,200 files removed\n"
        );
    }
}
