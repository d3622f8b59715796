//! How a source file must be: named, headed, short, and without what was left for later.

use super::{
    Finding, Tree,
    lexer::{Split, keep_or_blank, split},
};

const VAGUE_NAMES: [&str; 8] = ["common", "helper", "helpers", "manager", "misc", "util", "utils", "utilities"];
const LATER: [&str; 2] = ["TODO", "FIXME"];
const MAX_LINES: usize = 800;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension("rs") {
        check_rust(path, text, &mut findings);
    }
    for (path, text) in tree.with_extension("py") {
        if !text.lines().find(|line| !line.starts_with("#!")).is_some_and(|line| line.starts_with("\"\"\"")) {
            findings.push(Finding::new(path, 1, "the file does not begin with a docstring"));
        }
    }
    for extension in ["css", "js", "py", "sql", "toml"] {
        for (path, text) in tree.with_extension(extension) {
            find_words(path, text, &LATER, "is a note to oneself: do it or write it down", &mut findings);
        }
    }
    for extension in ["css", "js", "py", "rs", "sql"] {
        for (path, text) in tree.with_extension(extension) {
            let n_lines = text.lines().count();
            if n_lines > MAX_LINES {
                findings.push(Finding::new(path, 1, format!("{n_lines} lines: split the file by meaning")));
            }
        }
    }
    findings
}

fn check_rust(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let Split { code, comments } = split(text);
    let product = without_tests(&code);
    if let Some(problem) = problem_with_path(path) {
        findings.push(Finding::new(path, 1, problem));
    }
    if !text.lines().find(|line| !line.starts_with("#!")).is_some_and(|line| line.starts_with("//!")) {
        findings.push(Finding::new(path, 1, "the file does not explain itself: begin with `//!`"));
    }
    for name in VAGUE_NAMES {
        for at in positions(&code, &format!("mod {name}")) {
            findings.push(Finding::new(
                path,
                line_of(text, at),
                format!("`mod {name}` says nothing: name its subject"),
            ));
        }
    }
    find_words(path, &comments, &LATER, "is a note to oneself: do it or write it down", findings);
    find_words(path, &code, &["dbg!"], "is for the desk", findings);
    if !is_test_file(path) {
        for at in positions(&product, ".unwrap()") {
            let problem = "`.unwrap()` outside tests: return an error, or `expect` why it cannot fail";
            findings.push(Finding::new(path, line_of(text, at), problem));
        }
    }
}

fn problem_with_path(path: &str) -> Option<String> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    if stem.ends_with("/mod") {
        return Some("no mod.rs: a folder `x/` lies beside `x.rs`".to_owned());
    }
    if let Some(part) = stem.split('/').find(|part| VAGUE_NAMES.contains(part)) {
        return Some(format!("`{part}` says nothing: name its subject"));
    }
    let (_, in_tests) = stem.split_once("/tests/").filter(|_| stem.starts_with("crates/"))?;
    (!in_tests.starts_with("it/"))
        .then(|| "integration tests are modules of the one binary `tests/it/main.rs`".to_owned())
}

fn find_words(path: &str, text: &str, words: &[&str], problem: &str, findings: &mut Vec<Finding>) {
    for word in words {
        for at in positions(text, word) {
            findings.push(Finding::new(path, line_of(text, at), format!("{word} {problem}")));
        }
    }
}

/// Where a text stands, not as a part of a longer word.
fn positions(text: &str, wanted: &str) -> Vec<usize> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let is_whole = |at: usize| {
        let (before, after) = (&text[..at], &text[at + wanted.len()..]);
        let begins = !wanted.starts_with(in_word) || !before.ends_with(in_word);
        begins && (!wanted.ends_with(in_word) || !after.starts_with(in_word))
    };
    text.match_indices(wanted).map(|(at, _)| at).filter(|at| is_whole(*at)).collect()
}

pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Files that only tests are built from.
pub(super) fn is_test_file(path: &str) -> bool {
    let folders = ["/tests/", "/benches/", "/examples/"];
    folders.iter().any(|folder| path.contains(folder)) || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// Code with every item under `#[cfg(test)]` blanked, at the same positions.
pub(super) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut product = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let (before, item) = rest.split_at(at);
        product.push_str(before);
        let (item, after) = item.split_at(item_length(item));
        for c in item.chars() {
            keep_or_blank(&mut product, c, false);
        }
        rest = after;
    }
    product.push_str(rest);
    product
}

/// Up to the brace that closes an item's body, or its semicolon.
fn item_length(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}
