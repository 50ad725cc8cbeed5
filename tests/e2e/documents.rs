//! What the documents say is so.

use std::path::Path;

use common::config::SETTINGS;

const BEGIN: &str = "<!-- settings: written by `ED_WRITE_DOCS=1 cargo test -p tests the_configuration_page` -->\n\n";
const END: &str = "\n\n<!-- end of settings -->";

fn table_of_settings() -> String {
    let rows = SETTINGS.iter().map(|setting| {
        let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        format!("\n| `{}` | {default} | {} |", setting.path, setting.help)
    });
    ["| Setting | Default | Meaning |\n|---|---|---|".to_owned()].into_iter().chain(rows).collect()
}

#[test]
fn the_configuration_page_lists_every_setting_with_its_default_and_meaning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
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
