//! The batch job from raw JSON to thirteen answers, beside DuckDB doing the same in the same run
//! (`tests/reference/peer.py`), the two in turn; then a second run after a little more has come in.
//! The answers of both must be equal.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::{
    Arguments,
    figures::{Figures, GOAL, goal, goals},
    posts::{Posts, landing::Landed},
    scratch::Scratch,
    usage::{self, Usage},
};
use crate::{process, python, server, workspace};

const POSTS: u64 = 1_000_000;
const REPEATS: usize = 3;
/// From so many posts on, once is enough.
const LONG: u64 = 4_000_000;
/// A second run's part of the posts.
const MORE: f64 = 0.01;
const THREADS: &str = "2";

/// View by name, rows as JSON objects in order.
pub(super) type Answers = Map<String, Value>;

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    let binary = server::binary(arguments.binary.as_deref())?;
    let n_posts = arguments.posts(POSTS);
    let n_repeats = arguments.repeats(if n_posts < LONG { REPEATS } else { 1 });
    let posts = Posts::from_emulator(&binary)?;
    let scratch = Scratch::new("batch")?;
    let landing = scratch.join("landing");
    let mut landed = Landed::default();
    landed.land(&posts, 0..n_posts, &landing)?;

    let python = python::interpreter()?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    let tables = scratch.join("tables");
    for _ in 0..n_repeats {
        empty(&tables)?;
        ours.push(batch_run(&binary, &scratch)?);
        let (usage, peers_answers) = peer_run(&python, &landing, &scratch.join("peer"))?;
        peers.push(usage);
        ensure_equal(&answers(&binary, &tables)?, &peers_answers)?;
    }

    let mut figures = Figures::new(&["what", "records", "mb", "seconds", "cpu_seconds", "peak_mib", "ratio", GOAL]);
    let megabytes = landed.n_bytes as f64 / 1e6;
    let (ours, peers) = (usage::middle(&ours), usage::middle(&peers));
    let ratio = ours.seconds / peers.seconds;
    let most_mib = if n_posts <= POSTS { 768.0 } else { 1536.0 };
    let met =
        goals([goal("≤ 0.75 × DuckDB", ratio <= 0.75), goal(format!("≤ {most_mib} MiB"), ours.peak_mib <= most_mib)]);
    figures.push(row("corkboard batch run", landed.n_records(), megabytes, &ours, json!(ratio), met));
    figures.push(row("DuckDB", landed.n_records(), megabytes, &peers, json!(1.0), Value::Null));

    let before = landed;
    landed.land(&posts, n_posts..n_posts + (n_posts as f64 * MORE).ceil() as u64, &landing)?;
    let again = batch_run(&binary, &scratch)?;
    let ratio = again.seconds / ours.seconds;
    let (n_more, more_bytes) = (landed.n_records() - before.n_records(), landed.n_bytes - before.n_bytes);
    let met = goal("≤ 0.10 × the first", ratio <= 0.1);
    figures.push(row("again, 1 % more", n_more, more_bytes as f64 / 1e6, &again, json!(ratio), met));
    let (_, peers_answers) = peer_run(&python, &landing, &scratch.join("peer"))?;
    ensure_equal(&answers(&binary, &tables)?, &peers_answers).context("after the second run")?;
    Ok(figures)
}

fn row(what: &str, n_records: u64, megabytes: f64, usage: &Usage, ratio: Value, met: Value) -> [Value; 8] {
    let Usage { seconds, cpu_seconds, peak_mib } = *usage;
    [json!(what), json!(n_records), json!(megabytes), json!(seconds), json!(cpu_seconds), json!(peak_mib), ratio, met]
}

/// Over the landing objects of a data folder, into its tables.
pub(super) fn batch_run(binary: &Path, data: &Path) -> Result<Usage> {
    Ok(usage::of(Command::new(binary).args(["batch", "run", "--data"]).arg(data))?.0)
}

fn peer_run(python: &Path, landing: &Path, tables: &Path) -> Result<(Usage, Answers)> {
    empty(tables)?;
    let reference = workspace::root().join("tests/reference/peer.py");
    let mut run = Command::new(python);
    run.env("PYTHONDONTWRITEBYTECODE", "1").arg(reference).arg(landing).arg(tables);
    run.arg(workspace::root().join("views")).args(["--threads", THREADS]);
    let (usage, said) = usage::of(&mut run)?;
    let said: Value = serde_json::from_str(&said).context("the peer answers in JSON")?;
    // Python's start is not DuckDB's.
    let seconds = said["seconds"].as_f64().context("the peer says how long it took")?;
    let answers = said["answers"].as_object().context("the peer has answers")?;
    Ok((Usage { seconds, ..usage }, answers.clone()))
}

pub(super) fn answers(binary: &Path, tables: &Path) -> Result<Answers> {
    let mut answers = Answers::new();
    for view in views()? {
        let mut ask = Command::new(binary);
        ask.args(["view", &view, "--format", "json", "--tables"]).arg(tables);
        let rows = serde_json::from_str(&process::output(&mut ask)?).with_context(|| format!("read {view}"))?;
        answers.insert(view, rows);
    }
    Ok(answers)
}

/// The names of the views that are compiled in.
pub(super) fn views() -> Result<Vec<String>> {
    let folder = workspace::root().join("views");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let path = PathBuf::from(entry?.file_name());
        if path.extension().is_some_and(|extension| extension == "sql") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Row by row, numbers and order included.
pub(super) fn ensure_equal(ours: &Answers, others: &Answers) -> Result<()> {
    ensure!(ours.keys().eq(others.keys()), "other views were answered");
    for (view, rows) in ours {
        let (ours, others) = (rows.as_array(), others[view].as_array());
        let (Some(ours), Some(others)) = (ours, others) else { bail!("{view} is no list of rows") };
        let differs = ours.iter().zip(others).find(|(ours, others)| ours != others);
        if let Some((ours, others)) = differs {
            bail!("{view} has the row {ours} where the other side has {others}");
        }
        ensure!(ours.len() == others.len(), "{view} has {} rows, the other side {}", ours.len(), others.len());
        ensure!(!ours.is_empty(), "{view} has no rows, which proves nothing");
    }
    Ok(())
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(of: Value) -> Answers {
        of.as_object().expect("it is written as one").clone()
    }

    #[test]
    fn answers_are_equal_row_by_row() {
        let ours = answers(json!({ "v": [{ "n": 1 }, { "n": 2 }] }));
        assert!(ensure_equal(&ours, &ours).is_ok());
        for (others, sentence) in [
            (json!({ "w": [] }), "other views"),
            (json!({ "v": [{ "n": 1 }] }), "2 rows, the other side 1"),
            (json!({ "v": [{ "n": 2 }, { "n": 1 }] }), "{\"n\":1} where the other side has {\"n\":2}"),
        ] {
            let error = ensure_equal(&ours, &answers(others)).expect_err("they differ");
            assert!(error.to_string().contains(sentence), "{error}");
        }
        let nothing = answers(json!({ "v": [] }));
        assert!(ensure_equal(&nothing, &nothing).is_err());
    }

    #[test]
    fn there_are_thirteen_views() {
        assert_eq!(views().expect("the folder is part of the project").len(), 13);
    }
}
