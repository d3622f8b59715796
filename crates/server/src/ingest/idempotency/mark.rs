//! The header that a record of a request with a key carries in the log: text, so that Kafka's own
//! tools show it, and of one line:
//! `1 <door> <place> <n_records> <at> <print of all> <print of the values> <key>`.
//! No client may set it; it is neither landed nor shown by any door.

use std::{fmt::Write, str::FromStr};

use bytes::Bytes;
use model::{Header, Record, Timestamp};
use sha2::{Digest, Sha256};

use crate::ingest::append::Addressed;

/// The header's name.
pub(in crate::ingest) const NAME: &str = "corkboard-idempotency";
const VERSION: &str = "1";

/// Which door a request came in through: what is the same differs between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) enum Door {
    Kafka,
    Pin,
    Kinesis,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Pin => "pin",
            Self::Kinesis => "kinesis",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Kafka, Self::Pin, Self::Kinesis].into_iter().find(|door| door.name() == name)
    }
}

/// What a request was, as far as another can be told from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prints {
    door: Door,
    /// Of partitions as named, keys, values and headers.
    whole: u64,
    /// Of the values, without the space between JSON's tokens.
    values: u64,
}

impl Prints {
    pub(super) fn of(door: Door, records: &[Addressed]) -> Self {
        let (mut whole, mut values, mut scratch) = (Sha256::new(), Sha256::new(), Vec::new());
        for Addressed { partition, record } in records {
            // A shard is what a stream's shards make of the key, today.
            let partition = partition.filter(|_| door != Door::Kinesis);
            whole.update(partition.map_or(u64::MAX, u64::from).to_le_bytes());
            put(&mut whole, record.key.as_deref());
            put(&mut whole, record.value.as_deref());
            whole.update(record.headers.len().to_le_bytes());
            for header in &record.headers {
                put(&mut whole, Some(header.key.as_bytes()));
                put(&mut whole, header.value.as_deref());
            }
            put(&mut values, record.value.as_deref().map(|value| spaceless(value, &mut scratch)));
            // A tombstone says with its key what it is about.
            if record.value.is_none() {
                put(&mut values, record.key.as_deref());
            }
        }
        Self { door, whole: first_bytes(whole), values: first_bytes(values) }
    }

    /// Whether these are of one request. Between doors only the values can agree.
    pub(super) fn agree(self, other: Self) -> bool {
        if self.door == other.door { self.whole == other.whole } else { self.values == other.values }
    }
}

fn put(hash: &mut Sha256, bytes: Option<&[u8]>) {
    hash.update(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
    hash.update(bytes.unwrap_or_default());
}

fn first_bytes(hash: Sha256) -> u64 {
    let hash = hash.finalize();
    hash.iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn spaceless<'s>(value: &[u8], scratch: &'s mut Vec<u8>) -> &'s [u8] {
    scratch.clear();
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in value {
        if !in_string && byte.is_ascii_whitespace() {
            continue;
        }
        scratch.push(*byte);
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    scratch
}

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark<K> {
    pub(super) prints: Prints,
    pub(super) place: u32,
    pub(super) n_records: u32,
    /// When the request came first.
    pub(super) at: Timestamp,
    pub(super) key: K,
}

impl Mark<&str> {
    pub(super) fn header(&self) -> Header {
        let Self { prints: Prints { door, whole, values }, place, n_records, at, key } = self;
        let mut text = String::with_capacity(96 + key.len());
        write!(text, "{VERSION} {} {place} {n_records} {} {whole:016x} {values:016x} {key}", door.name(), at.0)
            .expect("writing to a string cannot fail");
        Header { key: NAME.to_owned(), value: Some(Bytes::from(text)) }
    }
}

impl Mark<String> {
    /// None for a record without such a header, or with one that cannot be read.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let header = record.headers.iter().rev().find(|header| header.key == NAME)?;
        std::str::from_utf8(header.value.as_deref()?).ok()?.parse().ok()
    }
}

impl FromStr for Mark<String> {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(8, ' ');
        let mut next = || parts.next().ok_or(());
        if next()? != VERSION {
            return Err(());
        }
        let door = Door::of(next()?).ok_or(())?;
        let place = next()?.parse().map_err(drop)?;
        let n_records = next()?.parse().map_err(drop)?;
        let at = Timestamp(next()?.parse().map_err(drop)?);
        let whole = u64::from_str_radix(next()?, 16).map_err(drop)?;
        let values = u64::from_str_radix(next()?, 16).map_err(drop)?;
        Ok(Self { prints: Prints { door, whole, values }, place, n_records, at, key: next()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn print(door: Door, key: Option<&'static str>, value: Option<&'static str>) -> Prints {
        let (key, value) = (key.map(Bytes::from), value.map(Bytes::from));
        let record = Record { key, value, ..Record::default() };
        Prints::of(door, &[Addressed { partition: None, record }])
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let prints = print(Door::Kinesis, Some("k"), Some("v"));
        let mark = Mark { prints, place: 7, n_records: 9, at: Timestamp(1_700_000_000_123), key: "a key of words" };
        let record = Record { headers: vec![mark.header()], ..Record::default() };
        let Mark { prints, place, n_records, at, key } = Mark::of(&record).unwrap();
        assert_eq!(Mark { prints, place, n_records, at, key: key.as_str() }, mark);
        for text in ["", "2 kafka 0 1 0 0 0 k", "1 kafka 0 1 0 0 0", "1 door 0 1 0 0 0 k", "1 kafka x 1 0 0 0 k"] {
            assert!(text.parse::<Mark<String>>().is_err(), "{text}");
        }
    }

    #[test]
    fn requests_agree_within_a_door_by_all_and_between_doors_by_their_values() {
        let json = || print(Door::Kafka, None, Some(r#"{"a":"b c"}"#));
        for (other, agrees) in [
            (json(), true),
            (print(Door::Kafka, Some("k"), Some(r#"{"a":"b c"}"#)), false),
            (print(Door::Kinesis, Some("k"), Some(r#"{"a": "b c"}"#)), true),
            (print(Door::Pin, None, Some("{\"a\":\t\"b c\"}")), true),
            (print(Door::Kinesis, Some("k"), Some(r#"{"a":"bc"}"#)), false),
            (print(Door::Kinesis, Some("k"), None), false),
        ] {
            assert_eq!(json().agree(other), agrees, "{other:?}");
        }
        assert!(!print(Door::Kafka, Some("a"), None).agree(print(Door::Pin, Some("b"), None)));
    }
}
