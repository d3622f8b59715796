//! One planted bug: a patch below a head of three lines.
//!
//! ```text
//! # bug: what is broken, in one sentence
//! # crates: event-log
//! # caught-by: -p event-log --test it name_of_the_test
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// Crates that need a query engine are tested as the product is built: with other features its
/// hundreds of dependencies would be built a second time.
const HEAVY_CRATES: [&str; 2] = ["engine", "corkboard"];

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bug {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) patch: PathBuf,
    /// For `cargo test`.
    pub(super) test_arguments: Vec<String>,
}

impl Bug {
    /// All in the folder, by name.
    pub(super) fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let mut bugs = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "patch") {
                let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                bugs.push(Self::read(&path, &text).with_context(|| format!("{}", path.display()))?);
            }
        }
        bugs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(bugs)
    }

    fn read(path: &Path, text: &str) -> Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (head, diff) = text.split_at(text.find("--- ").context("there is no diff")?);
        ensure!(diff.contains("\n@@ "), "the diff changes nothing");
        let crates = field(head, "crates")?;
        let caught_by = field(head, "caught-by")?.split_whitespace().map(str::to_owned);
        let is_heavy = crates.split([' ', ',']).any(|name| HEAVY_CRATES.contains(&name));
        let profile: &[&str] = if is_heavy { &["--release", "--workspace"] } else { &[] };
        let test_arguments = profile.iter().map(|&argument| argument.to_owned()).chain(caught_by).collect();
        Ok(Self { name, about: field(head, "bug")?.to_owned(), patch: path.to_owned(), test_arguments })
    }
}

fn field<'a>(head: &'a str, name: &str) -> Result<&'a str> {
    let beginning = format!("# {name}: ");
    let value = head.lines().find_map(|line| line.strip_prefix(&beginning)).map(str::trim);
    value.filter(|value| !value.is_empty()).with_context(|| format!("the line `{beginning}…` is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "--- a/crates/model/src/lib.rs\n+++ b/crates/model/src/lib.rs\n@@ -1 +1 @@\n-a\n+b\n";

    #[test]
    fn the_head_says_what_is_broken_and_what_notices() {
        for (crates, caught_by, expected) in [
            ("event-log", "-p event-log --test it power", "-p event-log --test it power"),
            ("model, engine", "--test it cleaning", "--release --workspace --test it cleaning"),
        ] {
            let text = format!("# bug: It is broken.\n# crates: {crates}\n# caught-by: {caught_by}\n{DIFF}");
            let bug = Bug::read(Path::new("x/no-sync.patch"), &text).expect("it is whole");
            assert_eq!((bug.name.as_str(), bug.about.as_str()), ("no-sync", "It is broken."));
            assert_eq!(bug.test_arguments.join(" "), expected);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let head = "# bug: b\n# crates: model\n# caught-by: -p model\n";
        for (text, missing) in [
            (head.to_owned(), "there is no diff"),
            (format!("{head}--- a/x\n+++ b/x\n"), "changes nothing"),
            (format!("# bug: b\n# crates: model\n{DIFF}"), "caught-by"),
            (format!("# bug: \n# crates: model\n# caught-by: -p model\n{DIFF}"), "bug"),
        ] {
            let error = Bug::read(Path::new("x.patch"), &text).expect_err("something is missing");
            assert!(format!("{error:#}").contains(missing), "{error:#}");
        }
    }
}
