//! The repository's files, as the documents name them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Pages for users. Records of the past (`docs/adr`, `bench/runs`, the changelog) describe earlier states.
const PAGES: &[&str] = &["README.md", "SECURITY.md", "CONTRIBUTING.md", "k8s/README.md", "bench/README.md"];
/// Folders that the tables of docs/architecture.md and comments omit.
const SHORT_FOR: &[&str] = &[
    "",
    "k8s/overlays/example",
    "common/src",
    "ingestor/src",
    "distributor/src",
    "distributor/src/audit",
    "cli/src",
    "tests",
    "k8s",
    "docs",
];

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub struct Page {
    /// Relative to the root.
    pub path: String,
    pub text: String,
}

impl Page {
    fn read(path: String) -> Self {
        let text = std::fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path, text }
    }

    pub fn folder(&self) -> PathBuf {
        root().join(&self.path).parent().unwrap().to_owned()
    }

    /// Inline code in sentences, without line breaks.
    pub fn code(&self) -> Vec<String> {
        let prose: String = self.text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
        prose.split('`').skip(1).step_by(2).map(|code| code.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// Lines of fenced blocks, with continued lines joined.
    pub fn commands(&self) -> Vec<String> {
        let blocks: String = self.text.split("```").skip(1).step_by(2).collect::<Vec<_>>().join("\n");
        blocks.replace("\\\n", " ").lines().map(str::to_owned).collect()
    }
}

pub fn pages() -> Vec<Page> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().flatten();
    let docs = docs.map(|entry| format!("docs/{}", entry.file_name().to_string_lossy()));
    let pages = PAGES.iter().map(|page| (*page).to_owned()).chain(docs.filter(|path| path.ends_with(".md")));
    pages.map(Page::read).collect()
}

/// Whether a path names a file or folder of the repository, in full or as its crate's pages shorten it.
pub fn has_path(path: &str) -> bool {
    SHORT_FOR.iter().any(|folder| root().join(folder).join(path).exists())
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                walk(&path, visit);
            }
        } else {
            visit(&path);
        }
    }
}

/// Names in the sources: functions after `fn `, and quoted texts that begin with `ed_`.
pub struct Names {
    pub functions: BTreeSet<String>,
    pub metrics: BTreeSet<String>,
}

impl Names {
    pub fn read() -> Self {
        let mut names = Self { functions: BTreeSet::new(), metrics: BTreeSet::new() };
        for folder in [
            "common",
            "commitlog",
            "commitlog-storage",
            "deltalog",
            "parquet-guard",
            "ingestor",
            "distributor",
            "cli",
            "tests",
        ] {
            walk(&root().join(folder), &mut |path| {
                if path.extension().is_some_and(|extension| extension == "rs") {
                    names.take(&std::fs::read_to_string(path).unwrap());
                }
            });
        }
        names
    }

    fn take(&mut self, source: &str) {
        let word = |text: &str| {
            text.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect::<String>()
        };
        self.functions.extend(source.split("fn ").skip(1).map(word));
        self.metrics.extend(source.split("\"ed_").skip(1).map(|rest| format!("ed_{}", word(rest))));
    }
}
