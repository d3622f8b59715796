//! Reads the marks out of the log: a range forwards, or a partition's tail backwards, piece by
//! piece, until enough was read.

use model::{EventLog, LogError, Offset, TopicPartition};

use super::mark::Mark;

const FETCH_BYTES: usize = 1 << 20;
/// The piece that is read first, and how much larger the next one is.
const FIRST_PIECE: u64 = 64;
const GROWTH: u64 = 8;

/// A marked record.
pub(super) struct Found {
    pub(super) mark: Mark<String>,
    pub(super) partition: u32,
    pub(super) offset: Offset,
}

/// Hands on what lies in `[from, end)`; gives the bytes that were read. What is trimmed or corrupt is
/// passed over: there is nothing there that could be stored twice.
pub(super) async fn read(
    log: &dyn EventLog,
    partition: &TopicPartition,
    mut from: Offset,
    end: Offset,
    take: &mut (dyn FnMut(Vec<Found>) + Send),
) -> Result<u64, LogError> {
    let mut n_bytes = 0;
    while from < end {
        let records = match log.fetch(partition, from, FETCH_BYTES).await {
            Ok(records) => records,
            Err(LogError::OutOfRange { bounds, .. }) if from < bounds.start => {
                from = bounds.start;
                continue;
            }
            Err(LogError::OutOfRange { .. }) => break,
            Err(LogError::Corrupt { range, .. }) if range.end > from => {
                from = range.end;
                continue;
            }
            Err(e) => return Err(e),
        };
        let Some(last) = records.last() else { break };
        from = last.offset.plus(1);
        let mut found = Vec::new();
        for stored in records.iter().take_while(|stored| stored.offset < end) {
            n_bytes += stored.record.size_bytes() as u64;
            if let Some(mark) = Mark::of(&stored.record) {
                found.push(Found { mark, partition: partition.partition, offset: stored.offset });
            }
        }
        if !found.is_empty() {
            take(found);
        }
    }
    Ok(n_bytes)
}

/// Hands on what lies in the last `max_bytes` or so; `take` says whether it is old enough.
pub(super) async fn read_back(
    log: &dyn EventLog,
    partition: &TopicPartition,
    max_bytes: u64,
    take: &mut (dyn FnMut(Vec<Found>) -> bool + Send),
) -> Result<(), LogError> {
    let bounds = log.bounds(partition).await?;
    let (mut end, mut n_records, mut n_bytes) = (bounds.end, FIRST_PIECE, 0);
    while end > bounds.start && n_bytes < max_bytes {
        let from = Offset(end.0.saturating_sub(n_records).max(bounds.start.0));
        let mut is_old = false;
        n_bytes += read(log, partition, from, end, &mut |found| is_old |= take(found)).await?;
        if is_old {
            return Ok(());
        }
        end = from;
        let n_read = bounds.end.0 - end.0;
        let left = max_bytes.saturating_sub(n_bytes);
        // About as many as there is still room for, if the rest is like what was read.
        let n_left = (u128::from(left) * u128::from(n_read) / u128::from(n_bytes.max(n_read))) as u64;
        n_records = (n_records * GROWTH).min(n_left).max(FIRST_PIECE);
    }
    Ok(())
}
