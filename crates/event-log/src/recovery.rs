//! Opening a partition: what lies below the durable mark is taken as it is, what lies above is
//! read and checked, and a torn tail is cut off.
//!
//! Above the mark a place that is no batch is a torn tail unless something proves that it was
//! synced once. The proof is a later group commit behind it: a group is written only after the
//! one before it was synced. Then the place is quarantined, and what follows it is kept.

use std::{io, path::Path, sync::Arc};

use model::{Offset, TopicPartition, config::LogConfig};
use tokio::sync::watch;

use crate::{
    files::Files,
    mark::{self, Mark, MarkFile},
    partition::Partition,
    quarantine::{self, Quarantine},
    segment::{self, INDEX_EXTENSION, IndexBuilder, LOG_EXTENSION, Segment, WALK_WINDOW_BYTES},
    walk::{Found, Walk},
    writer::{Active, Writer},
};

/// Opens the partition in `dir`, whose offsets begin with `begin`, for reading and writing. The
/// caller holds the log's lock.
pub(crate) fn open(
    id: TopicPartition,
    dir: &Path,
    begin: Offset,
    files: &Arc<Files>,
    config: &Arc<LogConfig>,
    moved: watch::Sender<u64>,
) -> io::Result<(Arc<Partition>, Writer)> {
    let listed = quarantine::read(&*files.fs, dir).unwrap_or_else(|e| {
        tracing::warn!(partition = %id, "cannot read the list of quarantined ranges: {e}");
        Vec::new()
    });
    let quarantine = Quarantine::new(dir, Some(Arc::clone(&files.fs)), listed);
    let partition = Partition::new(id, dir.to_owned(), Arc::clone(files), config.index_interval_bytes, quarantine);

    let mut segments = list_segments(files, dir, config.index_interval_bytes)?;
    let (sequence, mark) = match mark::read(&*files.fs, dir)? {
        Some(found) => found,
        None => (0, mark_without_file(&partition, &segments, begin)),
    };
    let mut marks = MarkFile::new(dir, Arc::clone(files), sequence);
    if mark.start > begin {
        // The process before may have died between writing the mark and syncing it: what is
        // shown and deleted on its word must not come back after a power cut.
        marks.write_synced(&mark)?;
    }
    delete_leftovers(files, &mut segments, mark.start)?;
    if !segments.is_empty() {
        // Likewise the name of a segment that it had just begun.
        files.fs.sync_dir(dir)?;
    }
    for segment in &segments {
        partition.add_segment(Arc::clone(segment));
    }
    let (end, active) = match segments.last() {
        None => (end_without_segment(&partition, &mark), None),
        Some(last) => recover_last(&partition, last, &mark, config)?,
    };
    partition.publish_start(mark.start);
    partition.publish_end(end);

    let at_end = match &active {
        Some(a) => Mark { start: mark.start, segment: a.segment.base, position: a.written, end, group: a.group },
        None => Mark { start: mark.start, segment: end, position: 0, end, group: 0 },
    };
    if active.is_some() && at_end != mark {
        marks.write_synced(&at_end)?;
    }
    let partition = Arc::new(partition);
    Ok((Arc::clone(&partition), Writer::new(partition, Arc::clone(config), moved, marks, at_end, active)))
}

/// The segments in the folder, oldest first.
pub(crate) fn list_segments(files: &Files, dir: &Path, index_interval_bytes: u64) -> io::Result<Vec<Arc<Segment>>> {
    let mut segments = Vec::new();
    for entry in files.fs.list(dir)? {
        if let Some(base) = segment::base_of(&entry.name, LOG_EXTENSION) {
            segments.push(Arc::new(Segment::new(dir, base, entry.size_bytes, index_interval_bytes)));
        }
    }
    segments.sort_by_key(|s| s.base);
    Ok(segments)
}

/// Segments before the last one were synced before the next was begun.
pub(crate) fn mark_without_file(partition: &Partition, segments: &[Arc<Segment>], begin: Offset) -> Mark {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Mark::at(begin) };
    if last.readable_bytes() > 0 {
        tracing::warn!(
            partition = %partition.id,
            "no durable mark in {}: its last segment is read whole, from {}", partition.dir.display(), last.base
        );
    }
    Mark { start: first.base, segment: last.base, position: 0, end: last.base, group: 0 }
}

/// A trim that was interrupted left segments below the log start offset.
fn delete_leftovers(files: &Files, segments: &mut Vec<Arc<Segment>>, start: Offset) -> io::Result<()> {
    while segments.get(1).is_some_and(|second| second.base <= start) {
        let leftover = segments.remove(0);
        files.fs.unlink(&leftover.path)?;
        let _ = files.fs.unlink(&leftover.path.with_extension(INDEX_EXTENSION));
    }
    Ok(())
}

fn end_without_segment(partition: &Partition, mark: &Mark) -> Offset {
    if mark.start < mark.end {
        partition.corrupt(mark.start, mark.end, "the segments are missing");
    }
    mark.end
}

/// The log end offset, and the last segment if it can be written on.
fn recover_last(
    partition: &Partition,
    last: &Arc<Segment>,
    mark: &Mark,
    config: &LogConfig,
) -> io::Result<(Offset, Option<Active>)> {
    let size = last.readable_bytes();
    if last.base < mark.segment {
        // Nothing stood in the mark's segment if its position is 0: it was about to begin.
        if mark.position > 0 {
            partition.corrupt(mark.segment, mark.end, "the segment is missing");
        }
        return Ok((mark.end, None));
    }
    if last.base == mark.segment && size < mark.position {
        let whole = walk_whole(partition, last)?;
        partition.corrupt(whole, mark.end, &format!("{} is cut off at {size} bytes", last.path.display()));
        return Ok((mark.end, None));
    }
    let from = if last.base == mark.segment {
        *mark
    } else {
        Mark { segment: last.base, position: 0, end: last.base, group: 0, ..*mark }
    };
    let file = partition.files.get(&last.path)?;
    if from.position < size {
        // After a sync that failed, memory may show what the device never took.
        file.forget_cache()?;
    }
    let scanned = scan(partition, last, &from, size)?;
    if scanned.position < size {
        file.truncate(scanned.position)?;
    }
    if scanned.position < size || scanned.position > from.position {
        // What the process before wrote may be in memory only.
        file.sync_data()?;
    }
    last.publish(scanned.position);
    let active = continue_segment(partition, last, &scanned, config)?;
    Ok((scanned.end, Some(active)))
}

fn continue_segment(
    partition: &Partition,
    segment: &Arc<Segment>,
    scanned: &Mark,
    config: &LogConfig,
) -> io::Result<Active> {
    let index = segment.read_or_build_index(&partition.files)?;
    let n_index_entries = index.len();
    if let Err(e) = segment.write_index(&partition.files, &index) {
        tracing::warn!(partition = %partition.id, "cannot write {}: {e}", segment.index_path().display());
    }
    segment.set_index(index);
    Ok(Active {
        segment: Arc::clone(segment),
        written: scanned.position,
        allocated: scanned.position,
        zeroed: scanned.position,
        group: scanned.group,
        index: IndexBuilder::new(segment.base, config.index_interval_bytes),
        n_index_entries,
    })
}

/// The offset up to which the segment is whole.
fn walk_whole(partition: &Partition, segment: &Segment) -> io::Result<Offset> {
    let file = partition.files.get(&segment.path)?;
    let mut walk = Walk::new(&*file, 0, segment.base, segment.readable_bytes(), WALK_WINDOW_BYTES);
    while let Found::Batch(_) = walk.next()? {}
    Ok(walk.expected())
}

/// Reads on from a mark, and says where the records end.
pub(crate) fn scan(partition: &Partition, segment: &Segment, from: &Mark, size: u64) -> io::Result<Mark> {
    let file = partition.files.get(&segment.path)?;
    let mut walk = Walk::new(&*file, from.position, from.end, size, WALK_WINDOW_BYTES);
    let mut to = *from;
    loop {
        let damage = match walk.next()? {
            Found::Batch(batch) => {
                to = Mark { position: walk.position(), end: walk.expected(), group: batch.header.group, ..to };
                continue;
            }
            Found::End => return Ok(to),
            Found::Damaged(damage) => damage,
        };
        let claimed_group = walk.claimed_group()?;
        let more = walk.skip_damage()?;
        if !more || !was_synced(walk.clone(), claimed_group)? {
            if claimed_group != 0 {
                tracing::warn!(
                    partition = %partition.id, end = to.end.0,
                    "{} ends within a write that was never acknowledged; it is cut back to offset {}: {}",
                    segment.path.display(), to.end, damage.0
                );
            }
            return Ok(to);
        }
        partition.corrupt(to.end, walk.expected(), &damage.0);
    }
}

/// Whether what stands before this walk's next batch was synced, judging by the group commits
/// from that batch on and by the group that the damaged place claims.
fn was_synced(mut walk: Walk<'_>, claimed_group: u32) -> io::Result<bool> {
    let mut following = None;
    loop {
        match walk.next()? {
            Found::Batch(batch) => {
                let group = batch.header.group;
                if *following.get_or_insert(group) != group {
                    return Ok(true);
                }
            }
            Found::Damaged(_) if walk.skip_damage()? => {}
            Found::Damaged(_) | Found::End => break,
        }
    }
    // Of a write that was cut short any block may be missing, and then reads as zeros.
    let written = following.unwrap_or_default().to_be_bytes();
    let is_part_of_it = claimed_group.to_be_bytes().iter().zip(written).all(|(c, w)| *c == 0 || *c == w);
    Ok(!is_part_of_it)
}
