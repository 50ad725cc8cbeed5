//! What the documents say is so.

use common::config::SETTINGS;

const README: &str = include_str!("../../README.md");

#[test]
fn the_readme_lists_every_setting_with_its_default_and_meaning() {
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        let row = format!("| `{}` | {default} | {} |", setting.path, setting.help);
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            README.lines().any(|line| squeezed(line) == squeezed(&row)),
            "this row is missing in README.md:\n{row}"
        );
    }
}
