//! What people post: one record of a topic partition, as Kafka knows it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::position::Offset;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock now; 0 if the clock stands before 1970.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub key: String,
    pub value: Option<Bytes>,
}

/// A record to append. A `value` of `None` is a tombstone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
    pub timestamp: Timestamp,
}

impl Record {
    /// A record without key and headers, stamped with the wall clock.
    pub fn of_value(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), timestamp: Timestamp::now(), ..Self::default() }
    }

    /// Bytes of key, value and headers: what limits are counted in.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|h| h.key.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers
    }
}

/// A record as a partition holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    pub offset: Offset,
    pub record: Record,
}
