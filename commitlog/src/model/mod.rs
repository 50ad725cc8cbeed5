//! Exhaustive exploration: actors of this crate in a world of one log partition and one store, in every interleaving of
//! their requests, with crashes after which a request lands at any later time or never, offset resets, deletions by an
//! operator, a log that lets go of its head, and collection of entries.
//!
//! Deduplication is left out: it is a function of the ranges. A row is an offset; a set of rows is a bit mask.

mod accidents;
mod actors;
mod choosing;
mod intern;
mod logs;
mod requests;
mod scenarios;
mod search;
mod shared;
mod world;

use std::io::Write;

use crate::rules::{Rule, without};
use scenarios::{mutants, scenarios};
use search::{Bounds, search};

/// So many states of each scenario in every run; with `ED_MODEL=full` all of them, in minutes and some gigabytes.
fn bounds() -> Bounds {
    let is_full = std::env::var("ED_MODEL").is_ok_and(|value| value == "full");
    Bounds { max_states: if is_full { 8_000_000 } else { 150_000 } }
}

#[test]
fn no_interleaving_shows_a_row_twice_or_loses_one() {
    let mut failures = Vec::new();
    for scenario in scenarios() {
        let begun = std::time::Instant::now();
        let outcome = search(&scenario, bounds());
        println!("{:78} {outcome} {:?}", scenario.name, begun.elapsed());
        if !outcome.faults.is_empty() {
            failures.push(format!("{}: {}", scenario.name, outcome.explain()));
        }
        if outcome.faults.is_empty() {
            assert!(outcome.rests > 0 || outcome.is_cut_short, "{}: nothing ever comes to rest", scenario.name);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A line that is seen of a passed test, too.
fn show(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").expect("standard output is open");
}

#[test]
fn every_rule_is_needed() {
    let mut survivors = Vec::new();
    let mut table = Vec::new();
    for rule in Rule::ALL {
        let scenarios = mutants(rule);
        assert!(!scenarios.is_empty(), "{rule:?} has no scenario");
        let caught = scenarios.into_iter().find_map(|scenario| {
            let outcome = without(Some(rule), || search(&scenario, Bounds { max_states: 1_000_000 }));
            let states = outcome.states;
            let (fault, path) = outcome.faults.into_iter().next()?;
            // The fault is the rule's, not the scenario's.
            let with_it = search(&scenario, Bounds { max_states: (2 * states).clamp(1_000, 200_000) });
            assert!(with_it.faults.is_empty(), "{rule:?}: {}", with_it.explain());
            let rule = format!("{rule:?}");
            Some(format!("{rule:24} {:>5} {states:>8}  {:38} {fault}", path.len(), scenario.name))
        });
        match caught {
            Some(line) => table.push(line),
            None => survivors.push(rule),
        }
    }
    show(&format!(
        "{:24} {:>5} {:>8}  {:38} {}",
        "rule dropped", "steps", "states", "scenario that shows it", "what is seen"
    ));
    table.iter().for_each(|line| show(line));
    assert!(survivors.is_empty(), "these rules can be dropped, or no scenario shows why not: {survivors:?}");
}

#[test]
fn what_is_asked_of_the_store_is_needed() {
    for (name, scenario) in scenarios::weak_stores() {
        let outcome = search(&scenario, Bounds { max_states: 3_000_000 });
        println!("a store {name:40} {outcome}");
        assert!(!outcome.faults.is_empty(), "{name}");
    }
}
