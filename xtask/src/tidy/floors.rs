//! Which crate may name which: the picture in ARCHITECTURE.md, checked in manifests and, since
//! a re-export would pass there, in the paths of the sources.

use std::collections::BTreeSet;

use super::{
    Finding, Tree,
    lexer::split,
    sources::{is_test_file, line_of, without_tests},
};

/// Every crate of the workspace with those it stands on.
const FLOORS: [(&str, &[&str]); 6] = [
    ("model", &[]),
    ("event-log", &["model"]),
    ("engine", &["model"]),
    ("server", &["model"]),
    ("corkboard", &["model", "event-log", "engine", "server"]),
    ("xtask", &[]),
];

/// What the tests of a crate may name beyond that: a log to read from.
const TESTS_MAY_NAME: [(&str, &str); 2] = [("engine", "event-log"), ("server", "event-log")];

/// Libraries, and all whose names begin so, that one crate alone may name.
const OWNED: [(&str, &str); 11] = [
    ("arrow", "engine"),
    ("ballista", "engine"),
    ("datafusion", "engine"),
    ("deltalake", "engine"),
    ("delta_kernel", "engine"),
    ("object_store", "engine"),
    ("parquet", "engine"),
    ("axum", "server"),
    ("crc32c", "event-log"),
    ("kafka-protocol", "event-log"),
    ("rdkafka", "event-log"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension("toml") {
        if let Some(name) = crate_of_manifest(path) {
            check_manifest(name, path, text, &mut findings);
        }
    }
    for (path, text) in tree.with_extension("rs") {
        if let Some(name) = crate_of_source(path) {
            check_source(name, path, text, &mut findings);
        }
    }
    findings
}

fn crate_of_manifest(path: &str) -> Option<&str> {
    let folder = path.strip_suffix("/Cargo.toml")?;
    Some(folder.strip_prefix("crates/").unwrap_or(folder)).filter(|name| !name.contains('/'))
}

fn crate_of_source(path: &str) -> Option<&str> {
    Some(path.strip_prefix("crates/").unwrap_or(path).split_once('/')?.0)
}

/// Why `name` must not be named by a crate; none if it may.
fn objection(from: &str, name: &str, in_tests: bool) -> Option<String> {
    let name = name.replace('_', "-");
    if name == from {
        return None;
    }
    if let Some((_, owner)) = OWNED.iter().find(|(library, _)| begins_with(&name, &library.replace('_', "-"))) {
        return (*owner != from).then(|| format!("only {owner} names {name}"));
    }
    FLOORS.iter().find(|(known, _)| *known == name)?;
    let (_, below) = FLOORS.iter().find(|(known, _)| *known == from)?;
    let allowed = below.contains(&name.as_str()) || in_tests && TESTS_MAY_NAME.contains(&(from, name.as_str()));
    (!allowed).then(|| format!("{from} must not name {name}: the floors in ARCHITECTURE.md"))
}

fn begins_with(name: &str, library: &str) -> bool {
    name.strip_prefix(library).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn check_manifest(name: &str, path: &str, text: &str, findings: &mut Vec<Finding>) {
    if !FLOORS.iter().any(|(known, _)| *known == name) {
        findings.push(Finding::new(path, 1, format!("{name} is not in the picture of floors: add it there and here")));
    }
    if !text.contains("[lints]\nworkspace = true") {
        findings.push(Finding::new(path, 1, "the workspace's lints are not switched on: [lints] workspace = true"));
    }
    let mut section = "";
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
        }
        let Some(dependency) = Dependency::of(section, line) else { continue };
        if let Some(problem) = objection(name, dependency.package, dependency.in_tests) {
            findings.push(Finding::new(path, at + 1, problem));
        } else if !dependency.from_workspace {
            let problem = format!("{}: versions and features stand in [workspace.dependencies]", dependency.package);
            findings.push(Finding::new(path, at + 1, problem));
        }
    }
}

/// A dependency that a line of a manifest states.
struct Dependency<'a> {
    package: &'a str,
    in_tests: bool,
    from_workspace: bool,
}

impl<'a> Dependency<'a> {
    fn of(section: &'a str, line: &'a str) -> Option<Self> {
        const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
        let kind_and_name = |section: &'a str| {
            // `[target.'cfg(…)'.dependencies]` is a kind after a condition.
            let kind = KINDS.iter().find(|kind| section == **kind || section.ends_with(&format!(".{kind}")));
            let table = section.rsplit_once('.').filter(|(head, _)| KINDS.iter().any(|kind| head.ends_with(kind)));
            (kind.copied(), table)
        };
        let (kind, table) = kind_and_name(section);
        if let Some((head, package)) = table.filter(|_| kind.is_none()) {
            // `[dependencies.name]`: its lines say the rest, the header says enough.
            let is_header = line.starts_with('[');
            return is_header.then(|| Self { package, in_tests: head.ends_with(KINDS[1]), from_workspace: true });
        }
        let kind = kind?;
        let (key, value) = line.split_once('=').filter(|_| !line.starts_with(['#', '[']))?;
        let key = key.trim();
        let renamed = value.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
        let named = key.split('.').next().unwrap_or(key).trim_matches('"');
        Some(Self {
            package: renamed.unwrap_or(named),
            in_tests: kind == KINDS[1],
            from_workspace: key.ends_with(".workspace") || value.replace(' ', "").contains("workspace=true"),
        })
    }
}

fn check_source(name: &str, path: &str, text: &str, findings: &mut Vec<Finding>) {
    let code = split(text).code;
    let product = without_tests(&code);
    for root in path_roots(&code) {
        let in_tests = is_test_file(path) || product[root.at..].starts_with(' ');
        if let Some(problem) = objection(name, root.name, in_tests) {
            findings.push(Finding::new(path, line_of(text, root.at), problem_with_path(root.name, problem)));
        }
    }
}

fn problem_with_path(root: &str, problem: String) -> String {
    format!("`{root}::`: {problem}")
}

/// A name that a path begins with, and where.
struct Root<'a> {
    name: &'a str,
    at: usize,
}

/// First names of paths: `a` in `a::b`, and in `use a::{b::c, d}`; `b` and `d` in
/// `use {b::c, ::d::e}`. Names that the file itself brings in, as modules or by `use`, are no
/// crates and left out.
fn path_roots(code: &str) -> Vec<Root<'_>> {
    let tokens = tokens(code);
    let text = |at: usize| tokens.get(at).map_or("", |(_, token)| *token);
    let (mut used, mut spoken) = (Vec::new(), Vec::new());
    let (mut modules, mut imported) = (BTreeSet::new(), BTreeSet::new());
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            "use" => {
                let length = tokens[at..].iter().take_while(|(_, token)| *token != ";").count();
                read_use(&tokens[at + 1..at + length], &mut used, &mut imported);
                at += length;
            }
            "mod" => {
                modules.insert(text(at + 1));
            }
            // A path goes on after `a` and `>`; anywhere else `::` begins one.
            "::" if at == 0 || !is_name(text(at - 1)) && text(at - 1) != ">" => {
                spoken.extend(tokens.get(at + 1).map(|(at, name)| Root { name, at: *at }));
            }
            name if is_name(name) && text(at + 1) == "::" && (at == 0 || text(at - 1) != "::") => {
                spoken.push(Root { name, at: tokens[at].0 });
            }
            _ => {}
        }
        at += 1;
    }
    spoken.retain(|root| !imported.contains(root.name));
    used.extend(spoken);
    used.retain(|root| is_name(root.name) && !modules.contains(root.name));
    used
}

/// The tokens between `use` and `;`: first names of its paths, and all further names.
fn read_use<'a>(tree: &[(usize, &'a str)], roots: &mut Vec<Root<'a>>, imported: &mut BTreeSet<&'a str>) {
    let mut depth = 0_usize;
    let mut begins = true;
    for (at, token) in tree {
        match *token {
            // Only the outermost group of `use {a::b, c::d}` holds first names.
            "{" if begins => {}
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            "," => begins = depth == 0,
            "::" => {}
            name if begins => {
                roots.push(Root { name, at: *at });
                begins = false;
            }
            name => {
                imported.insert(name);
            }
        }
    }
}

/// Names, `::` and single other characters, with their positions.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = code[at..].chars().next() {
        let rest = &code[at..];
        let length = if c.is_alphanumeric() || c == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        if !c.is_whitespace() {
            tokens.push((at, &rest[..length]));
        }
        at += length;
    }
    tokens
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::path_roots;

    #[test]
    fn paths_begin_with_their_first_name() {
        for (code, expected) in [
            ("use a::b;", vec!["a"]),
            ("use a::{b::c, d};", vec!["a"]),
            ("use {a::{b, c}, ::d::e};", vec!["a", "d"]),
            ("pub(crate) use crate::a::b;", vec!["crate"]),
            ("fn f() -> a::B { ::c::d(<E as f::G>::h) }", vec!["a", "c", "f"]),
            ("mod a; use b::{b, c, d as e}; fn f() { a::x(); c::x(); e::x(); g::x() }", vec!["b", "g"]),
            ("x.y::<Z>(self::a::b)", vec!["y", "self"]),
        ] {
            let found: Vec<&str> = path_roots(code).iter().map(|root| root.name).collect();
            assert_eq!(found, expected, "{code}");
        }
    }
}
