//! Finds a record by its time.

use model::{EventLog, LogError, Offset, Timestamp, TopicPartition};

/// One record is enough to know a time.
const FETCH_BYTES: usize = 1;

/// The first record that is not older, found by halves: so far as times grow with offsets.
pub(super) async fn offset_at(
    log: &dyn EventLog,
    partition: &TopicPartition,
    time: Timestamp,
) -> Result<Offset, LogError> {
    let bounds = log.bounds(partition).await?;
    let (mut low, mut high) = (bounds.start.0, bounds.end.0);
    while low < high {
        let middle = low + (high - low) / 2;
        match log.fetch(partition, Offset(middle), FETCH_BYTES).await {
            Ok(records) => match records.first() {
                Some(found) if found.record.timestamp < time => low = found.offset.0.max(middle) + 1,
                _ => high = middle,
            },
            // Trimmed meanwhile.
            Err(LogError::OutOfRange { bounds, .. }) => low = bounds.start.0.max(middle + 1),
            Err(e) => return Err(e),
        }
    }
    Ok(Offset(low))
}
