//! `cargo xtask tidy`: the rules of STYLE.md and ARCHITECTURE.md that neither the compiler nor
//! clippy checks. It reads text and builds nothing, so that it answers at once.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::workspace;

mod lexer;

mod floors;

mod sources;

mod definitions;

pub(crate) fn run() -> Result<()> {
    let tree = Tree::read(&workspace::root())?;
    let findings = check(&tree);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} things are not tidy", findings.len());
    }
    println!("{} files are tidy", tree.files.len());
    Ok(())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = floors::check(tree);
    findings.extend(sources::check(tree));
    findings.extend(definitions::check(tree));
    findings.sort();
    findings
}

/// What is wrong, and where: a path from the workspace's folder and a line from 1.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    problem: String,
}

impl Finding {
    fn new(path: &str, line: usize, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, problem: problem.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.problem)
    }
}

/// The text files that people write, by their path from the workspace's folder.
#[derive(Default)]
struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    const FOLDERS: [&str; 7] = ["config", "crates", "experiments", "streams", "tests", "views", "xtask"];
    const EXTENSIONS: [&str; 6] = ["css", "js", "py", "rs", "sql", "toml"];

    fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let mut folders: Vec<PathBuf> = Self::FOLDERS.iter().map(|name| root.join(name)).collect();
        folders.retain(|folder| folder.is_dir());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if path.is_dir() {
                    if name != "target" && !name.starts_with('.') {
                        folders.push(path);
                    }
                } else if path.extension().is_some_and(|e| Self::EXTENSIONS.iter().any(|known| e == *known)) {
                    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                    let path = path.strip_prefix(root).expect("the walk began at the root").to_string_lossy();
                    tree.files.insert(path.into_owned(), text);
                }
            }
        }
        Ok(tree)
    }

    fn with_extension(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(move |(path, _)| path.rsplit_once('.').is_some_and(|(_, found)| found == extension))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of one crate and one view that breaks no rule.
    fn clean_tree() -> Tree {
        let manifest = "[package]\nname = \"server\"\n\n[lints]\nworkspace = true\n\n[dependencies]\naxum.workspace = true\nmodel.workspace = true\n\n[dev-dependencies]\nevent-log.workspace = true\n";
        let view = "-- title: Posts\n-- question: How many?\n-- chart: bar category n\nSELECT 1\n";
        let files = [
            ("crates/server/Cargo.toml", manifest),
            ("crates/server/src/lib.rs", "//! The server.\n\nuse axum::Router;\nuse model::Record;\n"),
            ("crates/server/tests/it/main.rs", "//! Tests.\n\nuse event_log::memory;\n\nfn f() { g().unwrap() }\n"),
            ("views/posts.sql", view),
            ("streams/pin.toml", "# Pins.\nname = \"pin\"\n"),
            ("streams/pin.sql", "-- A pin stays a pin.\nSELECT 1 FROM raw\n"),
        ];
        Tree { files: files.map(|(path, text)| (path.to_owned(), text.to_owned())).into() }
    }

    #[test]
    fn a_tree_that_breaks_no_rule_has_no_findings() {
        assert_eq!(check(&clean_tree()), []);
    }

    #[test]
    fn every_planted_fault_is_found() {
        let lib = "crates/server/src/lib.rs";
        let long = format!("//! Long.\n{}", "//\n".repeat(800));
        for (path, text, line, problem) in [
            // floors
            (
                "crates/server/Cargo.toml",
                "[lints]\nworkspace = true\n[dependencies]\nengine.workspace = true\n",
                4,
                "engine",
            ),
            (
                "crates/server/Cargo.toml",
                "[lints]\nworkspace = true\n[dependencies]\nevent-log.workspace = true\n",
                4,
                "event-log",
            ),
            (
                "crates/server/Cargo.toml",
                "[lints]\nworkspace = true\n[dev-dependencies]\nengine.workspace = true\n",
                4,
                "engine",
            ),
            (
                "crates/server/Cargo.toml",
                "[lints]\nworkspace = true\n[dependencies.datafusion]\nworkspace = true\n",
                3,
                "datafusion",
            ),
            (
                "crates/engine/Cargo.toml",
                "[lints]\nworkspace = true\n[dependencies]\naxum-extra = { workspace = true }\n",
                4,
                "axum-extra",
            ),
            (
                "crates/model/Cargo.toml",
                "[lints]\nworkspace = true\n[target.'cfg(unix)'.dependencies]\nserver.workspace = true\n",
                4,
                "server",
            ),
            (
                "crates/engine/Cargo.toml",
                "[lints]\nworkspace = true\n[dependencies]\nf = { package = \"rdkafka\", workspace = true }\n",
                4,
                "rdkafka",
            ),
            (
                "crates/engine/Cargo.toml",
                "[lints]\nworkspace = true\n[dependencies]\nurl = \"2\"\n",
                4,
                "workspace.dependencies",
            ),
            ("crates/engine/Cargo.toml", "[dependencies]\nurl.workspace = true\n", 1, "[lints]"),
            ("crates/other/Cargo.toml", "[lints]\nworkspace = true\n", 1, "picture"),
            (lib, "//! Head.\nuse engine::Session;\n", 2, "engine"),
            (lib, "//! Head.\nuse event_log::memory;\n", 2, "event_log"),
            (lib, "//! Head.\nfn f() { datafusion::prelude::col(\"a\"); }\n", 2, "datafusion"),
            (lib, "//! Head.\nuse {model::Record, ::engine::Session};\n", 2, "engine"),
            ("crates/server/tests/it/other.rs", "//! Head.\nuse engine::Session;\n", 2, "engine"),
            // sources
            ("crates/server/src/api/mod.rs", "//! Head.\n", 1, "mod.rs"),
            ("crates/server/src/utils.rs", "//! Head.\n", 1, "utils"),
            ("crates/server/src/manager/pin.rs", "//! Head.\n", 1, "manager"),
            (lib, "//! Head.\nmod helpers { }\n", 2, "helpers"),
            (lib, "use axum::Router;\n", 1, "//!"),
            (lib, &long, 1, "801 lines"),
            (lib, "//! Head.\n// TODO: later\n", 2, "TODO"),
            (lib, "//! Head.\nfn f() {} /* FIXME */\n", 2, "FIXME"),
            (lib, "//! Head.\nfn f() { dbg!(1); }\n", 2, "dbg!"),
            (lib, "//! Head.\nfn f() { g()\n    .unwrap(); }\n", 3, "unwrap"),
            (
                lib,
                "//! Head.\n#[cfg(test)]\nmod tests { fn f() { g().unwrap() } }\nfn f() { g().unwrap() }\n",
                4,
                "unwrap",
            ),
            ("crates/server/tests/ingest.rs", "//! Head.\n", 1, "it"),
            ("tests/reference/x.py", "import json\n", 1, "docstring"),
            ("tests/reference/x.py", "\"\"\"Head.\"\"\"\n# TODO\n", 2, "TODO"),
            // definitions
            ("views/posts.sql", "-- question: How many?\nSELECT 1\n", 1, "title"),
            ("views/posts.sql", "-- title: Posts\n-- question: How many?\n-- chart: pie a b\nSELECT 1\n", 3, "chart"),
            ("views/posts.sql", "-- title: P\n-- question: Q\n\nSELECT 1;\n\nSELECT 2\n", 4, "one SELECT"),
            ("streams/pin.sql", "SELECT 1 FROM raw\n", 1, "head comment"),
            ("streams/geo.toml", "# Places.\nname = \"geo\"\n", 1, "geo.sql"),
            ("streams/user.sql", "-- Users.\nSELECT 1 FROM raw\n", 1, "user.toml"),
        ] {
            let mut tree = clean_tree();
            tree.files.insert(path.to_owned(), text.to_owned());
            let findings = check(&tree);
            assert!(
                findings.iter().any(|f| f.path == path && f.line == line && f.problem.contains(problem)),
                "{path} line {line} {problem:?} is not among {findings:?}"
            );
            assert_eq!(findings.len(), 1, "one fault is one finding: {findings:?}");
        }
    }

    #[test]
    fn what_only_looks_like_a_fault_is_none() {
        for text in [
            "//! Head.\nuse base64::{engine::general_purpose::STANDARD, Engine as _};\nuse crate::engine::Fake;\n",
            "//! Head.\nconst WORD: &str = \"TODO datafusion::x .unwrap() dbg!(1)\";\n",
            "//! Head.\n// `datafusion::x` and .unwrap() may be spoken of.\nfn f<'a>(c: &'a char) -> bool { *c == '\"' }\n",
            "//! Head.\nfn f() { g().unwrap_or_default(); h(r#\"a \" .unwrap() \"#); }\n",
            "//! Head.\n#[cfg(test)]\nmod tests {\n    use event_log::memory;\n    fn f() { g().unwrap(); }\n}\n",
            "//! Head.\nfn f() { let engine = 1; engine.max(2); self::engine::start(); }\n",
        ] {
            let mut tree = clean_tree();
            tree.files.insert("crates/server/src/lib.rs".to_owned(), text.to_owned());
            assert_eq!(check(&tree), [], "{text}");
        }
    }

    #[test]
    fn a_tree_is_read_without_what_tools_have_made() {
        let root = std::env::temp_dir().join(format!("corkboard-tidy-{}", std::process::id()));
        for path in
            ["crates/a/src/lib.rs", "crates/a/target/x.rs", "crates/a/src/x.png", "crates/.git/y.rs", "other/z.rs"]
        {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("it was joined")).expect("the temporary folder takes files");
            fs::write(path, "//! Head.\n").expect("the temporary folder takes files");
        }
        let tree = Tree::read(&root).expect("all of it was just written");
        fs::remove_dir_all(&root).expect("it was just written");
        assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["crates/a/src/lib.rs"]);
    }
}
