//! Apache Kafka reads what the embedded log wrote: `DumpLogSegments` (`kafka-dump-log`) finds every
//! batch valid, every offset in its place, the records that `corkboard inspect` shows, and an
//! index that points at batches. The tool reports damage in words and exits with 0 all the same,
//! so that every line of it is read here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::inspect;
use crate::{maven, process, server};

const TOOLS: &str = "tests/reference/kafka/pom.xml";
const N_POSTS: u64 = 40_000;
/// Small segments, so that there are several and most do not begin at offset 0.
const SETTINGS: [(&str, &str); 2] =
    [("CORKBOARD__LOG__SEGMENT_BYTES", "2097152"), ("CORKBOARD__LOG__INDEX_INTERVAL_BYTES", "4096")];

pub(super) fn prove(binary: Option<&Path>) -> Result<()> {
    let tools = Tools(maven::jars("kafka", TOOLS)?);
    let binary = server::binary(binary)?;
    let mut server = server::Server::start(&binary, &SETTINGS)?;
    let arguments = ["emulate", "--user-id", "proof", "--connections", "4", "--batch", "50", "--count"];
    process::run(Command::new(&binary).args(arguments).arg(N_POSTS.to_string()).args(["--url", &server.url()]))?;
    server.stop()?;

    let mut figures = Figures::default();
    let partitions = partitions(&server.folder.join("log"))?;
    ensure!(partitions.len() == 3, "a post is a record in each of three topics, not in {}", partitions.len());
    for folder in &partitions {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let shown = inspect::records(&binary, &server.folder, &name)?;
        let read = |record| Record::shown(record).with_context(|| format!("Corkboard shows {record}"));
        let expected = shown.iter().map(read).collect::<Result<Vec<_>>>()?;
        ensure!(expected.len() as u64 == N_POSTS, "{name} holds {} records, not {N_POSTS}", expected.len());
        check(&tools, folder, &expected, &mut figures).with_context(|| format!("in partition {name}"))?;
    }
    let Figures { n_segments, n_batches, n_records, n_index_entries } = figures;
    println!(
        "kafka-format: {} partitions, {n_segments} segments, {n_batches} batches, {n_records} records and \
         {n_index_entries} index entries are to Kafka's own tools what they are to Corkboard",
        partitions.len()
    );
    Ok(())
}

#[derive(Default)]
struct Figures {
    n_segments: usize,
    n_batches: usize,
    n_records: usize,
    n_index_entries: usize,
}

fn check(tools: &Tools, folder: &Path, expected: &[Record], figures: &mut Figures) -> Result<()> {
    let logs = files(folder, "log")?;
    let indexes = files(folder, "index")?;
    let stems = |paths: &[PathBuf]| paths.iter().map(|path| path.with_extension("")).collect::<Vec<_>>();
    ensure!(stems(&logs) == stems(&indexes), "each segment has an index, and each index a segment");
    ensure!(logs.len() > 1, "the settings ask for small segments, and there is one of {N_POSTS} records");

    let mut next = 0;
    // Where each batch begins in its file, by its last offset: what an index speaks of.
    let mut positions = BTreeMap::new();
    let dumps = tools.dump(&logs, &["--print-data-log", "--deep-iteration"])?;
    for (log, dump) in logs.iter().zip(&dumps) {
        let segment = Segment::read(dump, next)?;
        let size_bytes = fs::metadata(log)?.len();
        ensure!(segment.size_bytes == size_bytes, "{} of {size_bytes} bytes are batches", segment.size_bytes);
        let base: u64 = log.file_stem().unwrap_or_default().to_string_lossy().parse()?;
        ensure!(base == next, "the segment named {base} begins at offset {next}");
        let end = next as usize + segment.records.len();
        let ours = expected.get(next as usize..end).context("Kafka reads more records than Corkboard")?;
        for (ours, theirs) in ours.iter().zip(&segment.records) {
            ensure!(ours == theirs, "Corkboard reads {ours:?}, Kafka {theirs:?}");
        }
        next = end as u64;
        figures.n_batches += segment.batches.len();
        figures.n_records += segment.records.len();
        positions.insert(log.with_extension("index"), segment.batches);
    }
    ensure!(next as usize == expected.len(), "Kafka reads {next} records, Corkboard {}", expected.len());

    for dump in tools.dump(&indexes, &["--index-sanity-check"])? {
        let said: Vec<&str> = dump.iter().map(String::as_str).collect();
        ensure!(matches!(said[..], [line] if line.ends_with(" passed sanity check.")), "an index: {said:?}");
    }
    for dump in tools.dump(&indexes, &["--verify-index-only"])? {
        ensure!(dump.is_empty(), "an index does not fit its segment: {dump:?}");
    }
    for (index, dump) in indexes.iter().zip(tools.dump(&indexes, &[])?) {
        let entries = index_entries(&dump)?;
        ensure!(!entries.is_empty() && entries.is_sorted(), "{} is empty or out of order", index.display());
        for (last_offset, position) in &entries {
            let found = positions[index].get(last_offset);
            ensure!(found == Some(position), "a batch ends at {last_offset} and begins at {position}: {found:?}");
        }
        figures.n_index_entries += entries.len();
    }
    figures.n_segments += logs.len();
    Ok(())
}

/// A record as both sides show it.
#[derive(Debug, PartialEq)]
struct Record {
    offset: u64,
    timestamp_ms: i64,
    value: String,
}

impl Record {
    fn shown(record: &Value) -> Result<Self> {
        let is_value_only = record["key"].is_null() && record["headers"].as_array().is_some_and(Vec::is_empty);
        ensure!(is_value_only, "the emulator posts neither keys nor headers");
        Ok(Self {
            offset: record["offset"].as_u64().context("it has no offset")?,
            timestamp_ms: record["timestamp_ms"].as_i64().context("it has no time")?,
            value: record["value"].as_str().context("it has no value")?.to_owned(),
        })
    }
}

/// What the tool says about one `.log` file.
#[derive(Debug, Default, PartialEq)]
struct Segment {
    begin: u64,
    /// After the last batch so far.
    next: u64,
    size_bytes: u64,
    /// Position by last offset.
    batches: BTreeMap<u64, u64>,
    records: Vec<Record>,
}

impl Segment {
    fn read(dump: &[String], begin: u64) -> Result<Self> {
        let mut segment = Self { begin, next: begin, ..Self::default() };
        for line in dump {
            if let Some(record) = line.strip_prefix("| ") {
                segment.add_record(record).with_context(|| format!("a record: {line:?}"))?;
            } else if line.starts_with("baseOffset: ") {
                segment.add_batch(line).with_context(|| format!("a batch: {line:?}"))?;
            } else {
                ensure!(line.starts_with("Log starting offset: "), "Kafka's tool complains: {line:?}");
            }
        }
        segment.ensure_batches_are_whole()?;
        Ok(segment)
    }

    fn ensure_batches_are_whole(&self) -> Result<()> {
        let (n_records, expected) = (self.records.len() as u64, self.next - self.begin);
        ensure!(n_records == expected, "{n_records} records are in batches of {expected}");
        Ok(())
    }

    fn add_batch(&mut self, line: &str) -> Result<()> {
        self.ensure_batches_are_whole()?;
        let (base, last, count) = (number(line, "baseOffset")?, number(line, "lastOffset")?, number(line, "count")?);
        ensure!(base == self.next && last + 1 == base + count, "it does not end {count} records after {}", self.next);
        ensure!(number(line, "position")? == self.size_bytes, "it does not begin at byte {}", self.size_bytes);
        for (name, expected) in [("magic", "2"), ("compresscodec", "none"), ("isvalid", "true")] {
            ensure!(field(line, name)? == expected, "{name} is not {expected}");
        }
        self.batches.insert(last, self.size_bytes);
        self.size_bytes += number(line, "size")?;
        self.next = last + 1;
        Ok(())
    }

    fn add_record(&mut self, line: &str) -> Result<()> {
        let (head, value) = line.split_once(" payload: ").context("it has no value")?;
        let record = Record {
            offset: number(head, "offset")?,
            timestamp_ms: field(head, "CreateTime")?.parse()?,
            value: value.to_owned(),
        };
        let expected = self.begin + self.records.len() as u64;
        ensure!(record.offset == expected, "it is not at offset {expected}");
        ensure!(number(head, "valueSize")? == value.len() as u64, "its value is {} bytes long", value.len());
        self.records.push(record);
        Ok(())
    }
}

/// Last offset of a batch, and the batch's position.
fn index_entries(dump: &[String]) -> Result<Vec<(u64, u64)>> {
    let entry = |line: &str| -> Result<_> { Ok((number(line, "offset")?, number(line, "position")?)) };
    dump.iter().map(|line| entry(line).with_context(|| format!("an index entry: {line:?}"))).collect()
}

/// The word after `name: `.
fn field<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    let mut words = line.split(' ');
    words.find(|word| word.strip_suffix(':') == Some(name)).with_context(|| format!("{name} is missing"))?;
    words.next().with_context(|| format!("{name} has no value"))
}

fn number(line: &str, name: &str) -> Result<u64> {
    field(line, name)?.parse().with_context(|| format!("{name} is no number"))
}

fn partitions(log: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = list(log)?;
    folders.retain(|path| path.is_dir());
    Ok(folders)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut paths = list(folder)?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(paths)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The folder of Kafka's jars.
struct Tools(PathBuf);

impl Tools {
    /// What the tool says about each of the files, without the line that names the file.
    fn dump(&self, paths: &[PathBuf], options: &[&str]) -> Result<Vec<Vec<String>>> {
        let names: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-cp"]).arg(self.0.join("*")).arg("org.apache.kafka.tools.DumpLogSegments");
        let output = java.arg("--files").arg(names.join(",")).args(options).output();
        let output = output.context("start java: install Java 17 or later")?;
        let complaints = complaints(&String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success() && complaints.is_empty(), "{}: {complaints}", output.status);
        let dumps = by_file(&String::from_utf8(output.stdout).context("a dump is UTF-8")?)?;
        let (dumped, dumps): (Vec<_>, Vec<_>) = dumps.into_iter().unzip();
        ensure!(dumped == names, "DumpLogSegments was asked for {names:?} and dumped {dumped:?}");
        Ok(dumps)
    }
}

/// What the tool found wrong, of all that it writes to standard error.
fn complaints(stderr: &str) -> String {
    // No logger is no complaint; nor is that the first record of a segment does not follow
    // offset -1, which the tool says of Kafka's own segments too.
    const NONE: [&str; 3] = ["SLF4J: ", "Non-consecutive offsets in ", "  -1 is followed by "];
    let is_one = |line: &&str| !NONE.iter().any(|none| line.starts_with(none));
    stderr.lines().filter(is_one).collect::<Vec<_>>().join("\n")
}

fn by_file(output: &str) -> Result<Vec<(String, Vec<String>)>> {
    let mut dumps: Vec<(String, Vec<String>)> = Vec::new();
    for line in output.lines() {
        match (line.strip_prefix("Dumping "), dumps.last_mut()) {
            (Some(path), _) => dumps.push((path.to_owned(), Vec::new())),
            (None, Some((_, lines))) => lines.push(line.to_owned()),
            (None, None) => bail!("DumpLogSegments begins with {line:?}"),
        }
    }
    Ok(dumps)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\
Dumping a-0/00000000000000000007.log
Log starting offset: 7
baseOffset: 7 lastOffset: 8 count: 2 baseSequence: -1 position: 0 CreateTime: 12 size: 80 magic: 2 compresscodec: none crc: 1 isvalid: true
| offset: 7 CreateTime: 11 keySize: -1 valueSize: 2 sequence: -1 headerKeys: [] payload: {}
| offset: 8 CreateTime: 12 keySize: -1 valueSize: 14 sequence: -1 headerKeys: [] payload: { payload: 1 }
baseOffset: 9 lastOffset: 9 count: 1 baseSequence: -1 position: 80 CreateTime: 13 size: 70 magic: 2 compresscodec: none crc: 2 isvalid: true
| offset: 9 CreateTime: 13 keySize: -1 valueSize: 1 sequence: -1 headerKeys: [] payload: 1
";

    fn read(dump: &str) -> Result<Segment> {
        let dumps = by_file(dump)?;
        assert_eq!(dumps.len(), 1);
        Segment::read(&dumps[0].1, 7)
    }

    #[test]
    fn what_kafka_says_of_a_segment_is_read() {
        let record = |offset, timestamp_ms, value: &str| Record { offset, timestamp_ms, value: value.to_owned() };
        let expected = Segment {
            begin: 7,
            next: 10,
            size_bytes: 150,
            batches: [(8, 0), (9, 80)].into(),
            records: vec![record(7, 11, "{}"), record(8, 12, "{ payload: 1 }"), record(9, 13, "1")],
        };
        assert_eq!(read(DUMP).expect("it is sound"), expected);
    }

    #[test]
    fn kafkas_complaints_are_told_from_its_habits() {
        let habits = "SLF4J: no logger\nNon-consecutive offsets in 7.log\n  -1 is followed by 7\n";
        assert_eq!(complaints(habits), "");
        for wrong in ["  8 is followed by 10", "Mismatches in :7.index\n  Index offset: 1, log offset: 2"] {
            assert_eq!(complaints(&format!("{habits}{wrong}\n")), wrong);
        }
    }

    #[test]
    fn whatever_kafka_finds_wrong_is_an_error() {
        for (sound, wrong) in [
            ("isvalid: true", "isvalid: false"),
            ("compresscodec: none", "compresscodec: gzip"),
            ("baseOffset: 9 lastOffset: 9", "baseOffset: 10 lastOffset: 10"),
            ("count: 1", "count: 2"),
            ("position: 80", "position: 81"),
            ("| offset: 8", "| offset: 9"),
            ("valueSize: 14", "valueSize: 13"),
            ("| offset: 9 CreateTime: 13 keySize: -1 valueSize: 1 sequence: -1 headerKeys: [] payload: 1\n", ""),
            ("payload: 1\n", "payload: 1\nFound 12 invalid bytes at the end of 00000000000000000007.log\n"),
        ] {
            assert!(DUMP.contains(sound), "{sound:?}");
            assert!(read(&DUMP.replace(sound, wrong)).is_err(), "{wrong:?}");
        }
    }
}
