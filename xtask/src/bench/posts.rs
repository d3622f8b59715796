//! Any number of distinct posts, always the same ones: texts are those of the emulator's rows,
//! and each post has a number and an id of its own, as posts of a real site have. Which rows a
//! post takes follows from its number alone, so that a post can be written again at any time.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{process, server::Server};

pub(super) mod landing;

pub(super) mod produce;

/// The streams in the order in which they are posted.
pub(super) const STREAMS: [&str; 3] = ["pin", "geo", "user"];
/// The first part of the topics' names, unless a bench wants another. Behind `history` in the order
/// of topics, as the offsets of a topic are behind its history.
pub(super) const USER_ID: &str = "live";
/// Every so many records one is posted again.
const AGAIN_EVERY: u64 = 50;
/// The rows of the emulator: its tables have so many.
const N_ROWS: usize = 11_154;
/// How long landing may take until they are there.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Posts {
    rows: [Vec<Row>; 3],
}

/// A row as JSON text without its number and its id.
#[derive(Debug, PartialEq)]
struct Row {
    before: &'static str,
    between: &'static str,
    after: String,
}

pub(super) fn topic(user_id: &str, stream: usize) -> String {
    format!("{user_id}.{}", STREAMS[stream])
}

impl Posts {
    /// The emulator's rows, as they land when it posts each of them once.
    pub(super) fn from_emulator(binary: &Path) -> Result<Self> {
        let server = Server::start(binary, &[("CORKBOARD__LANDING__IDLE_FLUSH_MS", "100")])?;
        let mut emulate = Command::new(binary);
        emulate.args(["emulate", "--url", &server.url(), "--user-id", USER_ID, "--draws", "sequential"]);
        emulate.args(["--connections", "4", "--batch", "500", "--count", &N_ROWS.to_string()]);
        process::output(&mut emulate)?;
        let landed = |stream| landed_lines(&server.folder.join("landing/topics").join(topic(USER_ID, stream)));
        Self::from_lines([landed(0)?, landed(1)?, landed(2)?])
    }

    fn from_lines(lines: [String; 3]) -> Result<Self> {
        let mut rows = [const { Vec::new() }; 3];
        for ((rows, lines), stream) in rows.iter_mut().zip(&lines).zip(STREAMS) {
            for line in lines.lines() {
                let row = Row::from_line(line).with_context(|| format!("a {stream} of the emulator is {line}"))?;
                rows.push(row);
            }
            ensure!(!rows.is_empty(), "the emulator made no {stream}");
        }
        Ok(Self { rows })
    }

    /// The numbers of the posts whose rows are sent to a stream when post `n` is due: its own,
    /// and now and then an earlier one's once more.
    pub(super) fn due(stream: usize, n: u64) -> impl Iterator<Item = u64> {
        let draw = mixed(n * 3 + stream as u64);
        let again = (draw.is_multiple_of(AGAIN_EVERY) && n > 0).then(|| mixed(draw) % n);
        std::iter::once(n).chain(again)
    }

    /// Appends the JSON text of one post's row.
    pub(super) fn write(&self, stream: usize, n: u64, line: &mut Vec<u8>) {
        let rows = &self.rows[stream];
        let id = mixed(n);
        // Each stream draws by itself: people of every country post in every category.
        let row = &rows[(mixed(id ^ stream as u64) % rows.len() as u64) as usize];
        line.extend_from_slice(row.before.as_bytes());
        line.extend_from_slice(n.to_string().as_bytes());
        line.extend_from_slice(row.between.as_bytes());
        if stream == 0 {
            write_uuid(id, n, line);
        }
        line.extend_from_slice(row.after.as_bytes());
    }
}

impl Row {
    fn from_line(line: &str) -> Option<Self> {
        const PIN: (&str, &str) = ("{\"index\":", ",\"unique_id\":\"");
        const OTHER: &str = "{\"ind\":";
        let behind_number = |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
        if let Some(rest) = line.strip_prefix(OTHER) {
            return Some(Self { before: OTHER, between: "", after: behind_number(rest) });
        }
        let rest = behind_number(line.strip_prefix(PIN.0)?);
        let (_, after) = rest.strip_prefix(PIN.1)?.split_once('"')?;
        Some(Self { before: PIN.0, between: PIN.1, after: format!("\"{after}") })
    }
}

/// An id that no other number gets, in the form of a UUID.
fn write_uuid(id: u64, n: u64, line: &mut Vec<u8>) {
    let (high, low) = (id >> 32, id & 0xffff_ffff);
    let text = format!("{high:08x}-{:04x}-4{:03x}-8000-{n:012x}", low >> 16, low & 0xfff);
    line.extend_from_slice(text.as_bytes());
}

/// SplitMix64: a number's well-mixed image, a different one for each.
const fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// All lines of a topic once as many as the emulator has rows have landed.
fn landed_lines(topic: &Path) -> Result<String> {
    let begin = Instant::now();
    loop {
        let lines = lines_of_objects(&topic.join("partition=0"));
        if lines.lines().count() >= N_ROWS {
            return Ok(lines);
        }
        ensure!(begin.elapsed() < PATIENCE, "the emulator's rows do not land in {}", topic.display());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Nothing as long as there are no objects.
fn lines_of_objects(folder: &Path) -> String {
    let mut objects: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    objects.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    objects.sort();
    objects.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    pub(in crate::bench) fn posts() -> Posts {
        let lines = [
            "{\"index\":12,\"unique_id\":\"old\",\"title\":\"a \\\" b\"}\n{\"index\":3,\"unique_id\":\"o\",\"title\":\"c\"}\n",
            "{\"ind\":12,\"country\":\"Fiji\"}\n{\"ind\":3,\"country\":\"Peru\"}\n",
            "{\"ind\":0,\"age\":40}\n",
        ];
        Posts::from_lines(lines.map(str::to_owned)).expect("these are rows")
    }

    fn row(stream: usize, n: u64) -> Value {
        let mut line = Vec::new();
        posts().write(stream, n, &mut line);
        serde_json::from_slice(&line).expect("a row is JSON")
    }

    #[test]
    fn each_post_has_its_own_number_and_id() {
        let ids: BTreeSet<String> = (0..1000).map(|n| row(0, n)["unique_id"].to_string()).collect();
        assert_eq!(ids.len(), 1000);
        for n in [0, 7, 12_345_678] {
            assert_eq!(row(0, n)["index"], n);
            assert_eq!(row(0, n)["unique_id"].as_str().map(str::len), Some(36));
            assert_eq!((&row(1, n)["ind"], &row(2, n)["ind"]), (&n.into(), &n.into()));
        }
    }

    #[test]
    fn texts_are_drawn_from_all_rows() {
        let titles: BTreeSet<String> = (0..100).map(|n| row(0, n)["title"].to_string()).collect();
        assert_eq!(titles, BTreeSet::from(["\"a \\\" b\"".to_owned(), "\"c\"".to_owned()]));
        let countries: BTreeSet<String> = (0..100).map(|n| row(1, n)["country"].to_string()).collect();
        assert_eq!(countries.len(), 2);
    }

    #[test]
    fn one_record_in_fifty_is_an_earlier_one_again() {
        let mut n_again = 0;
        for n in 0..100_000 {
            let due: Vec<u64> = Posts::due(1, n).collect();
            assert_eq!(due[0], n);
            assert!(due[1..].iter().all(|earlier| *earlier < n), "{due:?}");
            n_again += due.len() - 1;
        }
        assert!((1_800..2_200).contains(&n_again), "{n_again}");
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for line in ["", "{}", "{\"index\":1,\"title\":\"t\"}", "[1]"] {
            assert_eq!(Row::from_line(line), None, "{line}");
        }
    }
}
