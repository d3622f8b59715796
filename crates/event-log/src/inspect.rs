//! Log folders described for people: what stands where, how far it is durable, what is corrupt.
//! It takes no lock and writes nothing, so it may be used while the owner runs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use model::{Bounds, Ended, Offset, Timestamp, TopicPartition};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    format::{self, Damage},
    fs::{Disk, FileSystem},
    mark::{self, Mark},
    meta::Meta,
    partition::Partition,
    quarantine::{self, Quarantined},
    read_only,
    segment::{Segment, WALK_WINDOW_BYTES},
    walk::{Found, Walk},
};

/// So often a partition is looked at whose files go meanwhile.
const MAX_LOOKS: usize = 10;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names, sizes and the two ends of each segment.
    Quick,
    /// Every byte: each batch is checked, and damage is reported with its range.
    Verify,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogReport {
    pub dir: PathBuf,
    pub format_version: u32,
    pub id: Uuid,
    pub epoch: u32,
    /// Whether the last owner closed it; false while one is running.
    pub closed: bool,
    pub partitions: Vec<PartitionReport>,
    /// Of topics that were deleted, perhaps to be created again: per partition, where its offsets
    /// ended.
    pub ended: Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    pub partition: TopicPartition,
    pub bounds: Bounds,
    pub size_bytes: u64,
    pub mark: Option<Mark>,
    pub segments: Vec<SegmentReport>,
    /// What was found corrupt so far.
    pub quarantined: Vec<Quarantined>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentReport {
    pub path: PathBuf,
    pub base: Offset,
    /// The offset after its last record.
    pub end: Offset,
    /// Bytes that hold records.
    pub size_bytes: u64,
    pub n_records: u64,
    pub first_timestamp_ms: Option<i64>,
    pub last_timestamp_ms: Option<i64>,
    /// With `Depth::Verify`: what cannot be read.
    pub damaged: Vec<Quarantined>,
}

/// A record as it stands in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DumpedRecord {
    pub offset: Offset,
    /// Of the batch that holds it.
    pub position: u64,
    /// The number of its group commit within the segment.
    pub group: u32,
    pub timestamp_ms: i64,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<(String, Option<String>)>,
}

/// Describes the log in `dir`.
pub fn describe(dir: &Path, depth: Depth) -> Result<LogReport> {
    let fs: Arc<dyn FileSystem> = Arc::new(Disk);
    let meta = meta(&*fs, dir)?;
    let ids = meta.topics.iter().flat_map(|(t, n)| (0..*n).map(|p| TopicPartition::new(t.clone(), p)));
    let describe = |id| again_where_files_go(|| describe_partition(&fs, dir, &id, meta.begin(&id), depth));
    let partitions = ids.map(describe).collect::<Result<_>>()?;
    Ok(LogReport {
        dir: dir.to_owned(),
        format_version: meta.format_version,
        id: meta.id,
        epoch: meta.epoch,
        closed: meta.closed,
        partitions,
        ended: meta.ended,
    })
}

/// The owner may delete segments between the look at their names and the one at them.
fn again_where_files_go<T>(describe: impl Fn() -> Result<T>) -> Result<T> {
    let is_gone = |e: &anyhow::Error| {
        e.chain().any(|e| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound))
    };
    for _ in 1..MAX_LOOKS {
        match describe() {
            Err(e) if is_gone(&e) => {}
            described => return described,
        }
    }
    describe()
}

fn describe_partition(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    id: &TopicPartition,
    begin: Offset,
    depth: Depth,
) -> Result<PartitionReport> {
    let partition = load(fs, dir, id, begin)?;
    let segments = partition.segments();
    let ends = segments.iter().skip(1).map(|s| s.base).chain([partition.end()]);
    let described = segments.iter().zip(ends).map(|(segment, end)| match depth {
        Depth::Quick => describe_segment(&partition, segment, end),
        Depth::Verify => verify_segment(&partition, segment, end),
    });
    let described = described.collect::<Result<Vec<_>>>()?;
    Ok(PartitionReport {
        partition: id.clone(),
        bounds: partition.bounds(),
        size_bytes: described.iter().map(|s| s.size_bytes).sum(),
        mark: mark::read(&**fs, &partition.dir)?.map(|(_, mark)| mark),
        segments: described,
        quarantined: quarantine::read(&**fs, &partition.dir)?,
    })
}

fn meta(fs: &dyn FileSystem, dir: &Path) -> Result<Meta> {
    Meta::read(fs, dir)?.with_context(|| format!("there is no log in {}", dir.display()))
}

fn load(fs: &Arc<dyn FileSystem>, dir: &Path, id: &TopicPartition, begin: Offset) -> Result<Partition> {
    read_only::load(fs, dir, id, begin).with_context(|| format!("cannot read partition {id} in {}", dir.display()))
}

fn report(segment: &Segment, end: Offset) -> SegmentReport {
    SegmentReport {
        path: segment.path.clone(),
        base: segment.base,
        end,
        size_bytes: segment.readable_bytes(),
        n_records: end.0.saturating_sub(segment.base.0),
        first_timestamp_ms: None,
        last_timestamp_ms: None,
        damaged: Vec::new(),
    }
}

fn describe_segment(partition: &Partition, segment: &Segment, end: Offset) -> Result<SegmentReport> {
    let mut report = report(segment, end);
    let file = partition.files.get(&segment.path)?;
    let mut first = Walk::new(&*file, 0, segment.base, segment.readable_bytes(), partition.index_interval_bytes);
    if let Found::Batch(batch) = first.next()? {
        report.first_timestamp_ms = Some(batch.header.first_timestamp.0);
    }
    let before_end = Offset(end.0.saturating_sub(1)).max(segment.base);
    let mut last = segment.walk_to(&partition.files, &*file, before_end, partition.index_interval_bytes)?;
    while let Found::Batch(batch) = last.next()? {
        report.last_timestamp_ms = Some(batch.header.max_timestamp.0);
    }
    Ok(report)
}

fn verify_segment(partition: &Partition, segment: &Segment, end: Offset) -> Result<SegmentReport> {
    let mut report = SegmentReport { n_records: 0, ..report(segment, end) };
    let file = partition.files.get(&segment.path)?;
    let mut walk = Walk::new(&*file, 0, segment.base, segment.readable_bytes(), WALK_WINDOW_BYTES);
    let mut last: Option<Timestamp> = None;
    loop {
        let start = walk.expected();
        let (reason, goes_on) = match walk.next()? {
            Found::Batch(batch) => match format::decode(&batch.header, &batch.bytes) {
                Ok(records) => {
                    report.n_records += records.len() as u64;
                    report.first_timestamp_ms.get_or_insert(batch.header.first_timestamp.0);
                    last = last.max(Some(batch.header.max_timestamp));
                    continue;
                }
                Err(Damage(reason)) => (reason, true),
            },
            Found::End if start >= end => break,
            Found::End => ("the segment ends too early".to_owned(), false),
            Found::Damaged(Damage(reason)) => (reason, walk.skip_damage()?),
        };
        report.damaged.push(Quarantined { start, end: if goes_on { walk.expected() } else { end }, reason });
        if !goes_on {
            break;
        }
    }
    report.last_timestamp_ms = last.map(|t| t.0);
    Ok(report)
}

/// At most `max_records` records from `from` on, out of the segment that holds it; text that is
/// not UTF-8 is shown with replacement characters.
pub fn dump(dir: &Path, id: &TopicPartition, from: Offset, max_records: usize) -> Result<Vec<DumpedRecord>> {
    let fs: Arc<dyn FileSystem> = Arc::new(Disk);
    let partition = load(&fs, dir, id, meta(&*fs, dir)?.begin(id))?;
    let segments = partition.segments();
    let Some(segment) = segments.iter().rfind(|s| s.base <= from) else { return Ok(Vec::new()) };
    let file = partition.files.get(&segment.path)?;
    let mut walk = segment.walk_to(&partition.files, &*file, from, WALK_WINDOW_BYTES)?;
    let mut dumped = Vec::new();
    while dumped.len() < max_records {
        let batch = match walk.next()? {
            Found::Batch(batch) if batch.header.next() <= from => continue,
            Found::Batch(batch) => batch,
            Found::End => break,
            Found::Damaged(_) if walk.skip_damage()? => continue,
            Found::Damaged(_) => break,
        };
        let Ok(records) = format::decode(&batch.header, &batch.bytes) else { continue };
        let wanted = records.into_iter().filter(|d| d.stored.offset >= from);
        for format::Decoded { stored, .. } in wanted.take(max_records - dumped.len()) {
            let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
            let headers = stored.record.headers.iter().map(|h| (h.key.clone(), h.value.as_ref().map(text)));
            dumped.push(DumpedRecord {
                offset: stored.offset,
                position: batch.position,
                group: batch.header.group,
                timestamp_ms: stored.record.timestamp.0,
                key: stored.record.key.as_ref().map(text),
                value: stored.record.value.as_ref().map(text),
                headers: headers.collect(),
            });
        }
    }
    Ok(dumped)
}
