//! Checks that the documents are true.

mod repository;

use std::collections::{BTreeMap, BTreeSet};

use common::config::{SETTINGS, limits};

use crate::harness::{Ed, files};
use repository::{Names, Page, has_path, pages, root};

const BEGIN: &str = "<!-- settings: written by `ED_WRITE_DOCS=1 cargo test -p tests the_configuration_page` -->\n\n";
const END: &str = "\n\n<!-- end of settings -->";
/// Names in the landing zone, the trusted zone and other places that are not files of the repository.
const ELSEWHERE: [&str; 19] = [
    "pending",
    "processed",
    "events",
    "rejected",
    "trusted",
    "_",
    ".",
    "log",
    "keys",
    "checkpoints",
    "segments",
    "staged",
    "abandoned",
    "clock",
    "target",
    "landing",
    "elsewhere",
    "log.redb",
    "lost+found",
];
/// Objects of the trusted zone and well-known files of users.
const OBJECTS: [&str; 3] = ["root.json", "landing.toml", "config.toml"];

fn table_of_settings() -> String {
    let limits = limits();
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let rows = SETTINGS.iter().map(|setting| {
        let limits = limits.get(setting.path).map_or("", String::as_str);
        format!("\n| `{}` | {} | {limits} | {} |", setting.path, code(setting.default), setting.help)
    });
    ["| Setting | Default | Allowed | Meaning |\n|---|---|---|---|".to_owned()].into_iter().chain(rows).collect()
}

#[test]
fn the_configuration_page_lists_every_setting_with_its_default_and_meaning() {
    let path = root().join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the marker before the table");
    let (table, after) = rest.split_once(END).expect("the marker after the table");
    let wanted = table_of_settings();
    if std::env::var_os("ED_WRITE_DOCS").is_some() {
        std::fs::write(&path, [before, BEGIN, &wanted, END, after].concat()).unwrap();
    } else {
        assert_eq!(table, wanted, "run ED_WRITE_DOCS=1 cargo test -p tests the_configuration_page");
    }
}

/// Fails with all errors at once.
fn hold(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

fn in_every_page(fault: impl Fn(&Page) -> Vec<String>) {
    let wrong: Vec<String> = pages()
        .iter()
        .flat_map(|page| fault(page).into_iter().map(|fault| format!("{}: {fault}", page.path)).collect::<Vec<_>>())
        .collect();
    hold(&wrong);
}

/// The anchor that common renderers make from a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    in_every_page(|page| {
        let links = page.text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        let broken = links.filter(|link| !link.contains("://")).filter(|link| {
            let (path, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(&page.path) } else { page.folder().join(path) };
            if place.is_empty() {
                return !target.exists();
            }
            let text = std::fs::read_to_string(&target).unwrap_or_default();
            !text
                .lines()
                .filter_map(|line| line.strip_prefix('#'))
                .any(|line| anchor(line.trim_start_matches('#')) == place)
        });
        broken.map(|link| format!("link to {link}")).collect()
    });
}

#[test]
fn the_documents_name_no_file_that_does_not_exist() {
    let extensions = [".rs", ".md", ".toml", ".json", ".yaml", ".yml", ".py", ".sh"];
    in_every_page(|page| {
        let is_path = |code: &str| {
            let plain = code.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-/".contains(letter));
            plain
                && !code.starts_with('/')
                && code.chars().any(char::is_alphabetic)
                && (extensions.iter().any(|extension| code.ends_with(extension))
                    || code.trim_end_matches('/').contains('/')
                    || code.ends_with('/'))
        };
        let ours = |code: &str| {
            let first = code.split('/').next().unwrap_or_default();
            !ELSEWHERE.contains(&first) && !first.starts_with(['_', '.']) && !OBJECTS.contains(&code)
        };
        let code = page.code();
        let missing = code
            .iter()
            .filter(|code| is_path(code) && ours(code) && !has_path(code) && !page.folder().join(code).exists());
        missing.map(|path| format!("path `{path}`")).collect()
    });
}

#[test]
fn the_documents_name_no_setting_that_does_not_exist() {
    let known: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.path).collect();
    let sections: BTreeSet<&str> =
        known.iter().filter_map(|path| path.split_once('.')).map(|(section, _)| section).collect();
    in_every_page(|page| {
        let code = page.code();
        let names = code.iter().filter_map(|code| code.split([' ', '=']).next());
        let unknown = names.filter(|name| {
            let is_setting = |section: &str, rest: &str| {
                sections.contains(section)
                    && rest.chars().all(|letter| letter.is_ascii_lowercase() || "_.*".contains(letter))
            };
            name.split_once('.').is_some_and(|(section, rest)| is_setting(section, rest))
                && !OBJECTS.contains(name)
                && !name.ends_with(".rs")
                && !known.contains(name)
                && !name.starts_with("kafka.client")
                && !name.ends_with(".*")
        });
        unknown.map(|name| format!("setting `{name}`")).collect()
    });
}

#[test]
fn the_documents_name_no_metric_that_does_not_exist() {
    let names = Names::read();
    in_every_page(|page| {
        let code = page.code();
        let words =
            code.iter().flat_map(|code| code.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_')));
        let metrics = words.filter(|word| word.starts_with("ed_ingest_") || word.starts_with("ed_distribute_"));
        let unknown = metrics.filter(|metric| !metric.ends_with('_') && !names.metrics.contains(*metric));
        unknown.map(|metric| format!("metric `{metric}`")).collect()
    });
}

#[test]
fn the_documents_name_no_test_that_does_not_exist() {
    let names = Names::read();
    in_every_page(|page| {
        let words = page.text.split('*').filter(|word| {
            word.matches('_').count() > 2
                && word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        });
        words.filter(|word| !names.functions.contains(*word)).map(|test| format!("test {test}")).collect()
    });
}

/// The subcommand's help, run once for each.
fn help(cache: &mut BTreeMap<String, Option<String>>, words: &[&str]) -> Option<String> {
    let entry = cache.entry(words.join(" ")).or_insert_with(|| {
        let output = Ed::new(words).args(&["--help"]).output();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    entry.clone()
}

#[test]
fn the_documents_name_no_command_and_no_flag_that_does_not_exist() {
    let mut cache = BTreeMap::new();
    let mut wrong = Vec::new();
    for page in pages() {
        for line in page.commands() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(place) = words.iter().position(|word| word.ends_with("event-distributor") || *word == "--") else {
                continue;
            };
            let call = &words[place + 1..];
            let is_word = |word: &&&str| {
                word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') && !word.starts_with('-')
            };
            let command: Vec<&str> = match call.first() {
                Some(&first @ ("dlq" | "config")) => vec![first, call.get(1).copied().unwrap_or_default()],
                Some(first) if is_word(&first) => vec![first],
                _ => continue,
            };
            let Some(help) = help(&mut cache, &command) else {
                wrong.push(format!("{}: no command `{}` in: {line}", page.path, command.join(" ")));
                continue;
            };
            let flags = call.iter().take_while(|word| **word != "#").filter(|word| word.starts_with("--"));
            for flag in flags.map(|flag| flag.split('=').next().unwrap_or_default()) {
                if flag.len() > 2 && !help.contains(flag) {
                    wrong.push(format!("{}: no flag {flag} in: {line}", page.path));
                }
            }
        }
    }
    hold(&wrong);
}

#[test]
fn the_readme_can_be_read_in_one_go() {
    let readme = std::fs::metadata(root().join("README.md")).unwrap().len();
    assert!(readme <= 10_000, "README.md has {readme} bytes: move details to docs/");
}

/// A fault of a command that a person calls must not be able to concern the roles.
#[test]
fn the_hot_path_imports_nothing_of_maintenance() {
    const MAINTENANCE: [&str; 8] =
        ["abandon", "audit", "compact", "replace", "replay", "rewrite", "standing", "target"];
    const OTHERS: [&str; 4] = ["lib", "simulation", "testing", "tests"];
    let source = root().join("distributor/src");
    let mut wrong = Vec::new();
    for path in files(&source, ".rs") {
        let place = path.strip_prefix(&source).unwrap().with_extension("");
        let parts: Vec<&str> = place.iter().map(|part| part.to_str().unwrap()).collect();
        let is_hot = !parts.iter().any(|part| OTHERS.contains(part)) && !MAINTENANCE.contains(&parts[0]);
        let text = std::fs::read_to_string(&path).unwrap();
        let imports = text.split("crate::").skip(1).filter(|rest| {
            MAINTENANCE.iter().any(|module| rest.strip_prefix(module).is_some_and(|rest| rest.starts_with("::")))
        });
        if is_hot && imports.count() > 0 {
            wrong.push(place.display().to_string());
        }
    }
    hold(&wrong);
}
