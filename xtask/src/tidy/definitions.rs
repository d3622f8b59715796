//! Views and streams: every file says what it claims, a stream has both of its halves, and a
//! view is one statement whose head the dashboard can show.

use super::{Finding, Tree};

const CHARTS: [&str; 3] = ["bar", "line", "table"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension("sql") {
        if path.starts_with("views/") {
            check_view(path, text, &mut findings);
        } else if !text.starts_with("--") {
            findings.push(Finding::new(path, 1, "the head comment with its claim is missing"));
        }
        if path.starts_with("streams/") {
            check_pair(tree, path, ".sql", ".toml", &mut findings);
        }
    }
    for (path, text) in tree.with_extension("toml").filter(|(path, _)| path.starts_with("streams/")) {
        if !text.starts_with('#') {
            findings.push(Finding::new(path, 1, "the head comment is missing"));
        }
        check_pair(tree, path, ".toml", ".sql", &mut findings);
    }
    findings
}

fn check_pair(tree: &Tree, path: &str, is: &str, wants: &str, findings: &mut Vec<Finding>) {
    let other = format!("{}{wants}", path.strip_suffix(is).unwrap_or(path));
    if !tree.files.contains_key(&other) {
        findings.push(Finding::new(path, 1, format!("a stream is two files, and {other} is missing")));
    }
}

fn check_view(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let head = || text.lines().take_while(|line| line.starts_with("--")).enumerate();
    let field = |name: &str| {
        head().find_map(|(at, line)| Some((at + 1, line.strip_prefix("-- ")?.strip_prefix(name)?.strip_prefix(": ")?)))
    };
    for name in ["title", "question"] {
        if field(name).is_none_or(|(_, value)| value.trim().is_empty()) {
            findings.push(Finding::new(path, 1, format!("the head comment has no line `-- {name}: …`")));
        }
    }
    if let Some((line, chart)) = field("chart") {
        let words: Vec<&str> = chart.split_whitespace().collect();
        let is_known = words.first().is_some_and(|kind| CHARTS.contains(kind));
        if !is_known || (words.len() != 3 && words != ["table"]) {
            findings.push(Finding::new(
                path,
                line,
                "a chart is `bar <label> <value>`, `line <label> <value>` or `table`",
            ));
        }
    }
    let statements = text.lines().map(|line| line.split("--").next().unwrap_or(line));
    if let Some(at) = statements.clone().position(|line| line.contains(';')) {
        findings.push(Finding::new(path, at + 1, "a view is one SELECT, without a semicolon"));
    }
}
