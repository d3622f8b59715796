//! Which requests with an `Idempotency-Key` were taken, and where their records lie: so that a
//! request that is sent again is stored once.
//!
//! The truth is in the log. Every record of such a request carries a header (`mark`) in the same
//! append: the key, which record of how many it is, and what the request was. What is kept in
//! memory (`window`) is derived from that, and read back from the log's tail (`tail`) before the
//! first key of a topic is looked up after a start. So there is nothing that could be durable
//! without its records, or the other way round; and of a request that a crash cut in two, what is
//! missing is known record by record. It relies on this process being the log's only writer.

mod mark;
mod tail;
mod window;

use http::HeaderMap;
use model::{Header, Timestamp};

use self::mark::{Mark, Prints};
pub(super) use self::{
    mark::{Door, NAME},
    window::Window,
};
use super::append::Addressed;
use crate::error::KafkaError;

/// The request header, as draft-ietf-httpapi-idempotency-key-header has it.
const KEY: &str = "idempotency-key";
const MAX_KEY_BYTES: usize = 255;
/// What a mark weighs beside its key, at most about.
const MARK_BYTES: usize = 160;

/// What a client says with its key, before its records are known.
pub(super) struct Once {
    key: String,
    door: Door,
    /// The time of the request: records without a time of their own have it, and keep it when they
    /// are stored by a later try.
    now: Timestamp,
}

/// A request with a key, and what it asks for.
pub(super) struct Request {
    key: String,
    prints: Prints,
    n_records: u32,
    now: Timestamp,
}

impl Once {
    /// None without the header.
    pub(super) fn of(headers: &HeaderMap, door: Door, now: Timestamp) -> Result<Option<Self>, KafkaError> {
        let mut given = headers.get_all(KEY).iter();
        let Some(first) = given.next() else { return Ok(None) };
        let wrong = |what: &str| KafkaError::bad_request(format!("Idempotency-Key {what}"));
        if given.next().is_some() {
            return Err(wrong("is given more than once"));
        }
        let text = first.to_str().unwrap_or_default().trim();
        // The draft has a quoted string; many clients leave the quotes out.
        let key = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) || key.contains('"') {
            return Err(wrong(&format!(
                "must have 1 to {MAX_KEY_BYTES} visible ASCII characters, with or without quotes"
            )));
        }
        Ok(Some(Self { key: key.to_owned(), door, now }))
    }

    /// What the marks of so many records weigh.
    pub(super) fn overhead_bytes(&self, n_records: usize) -> usize {
        n_records * (MARK_BYTES + self.key.len())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// The request whose records these are, all of them, as they came.
    pub(super) fn request(&self, records: &[Addressed]) -> Request {
        let n_records = u32::try_from(records.len()).unwrap_or(u32::MAX);
        Request { key: self.key.clone(), prints: Prints::of(self.door, records), n_records, now: self.now }
    }
}

impl Request {
    /// The header of one of its records.
    pub(super) fn mark(&self, place: u32, at: Timestamp) -> Header {
        let Self { key, prints, n_records, .. } = self;
        Mark { prints: *prints, place, n_records: *n_records, at, key: key.as_str() }.header()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::HeaderValue;

    use super::*;

    #[test]
    fn keys_are_read_with_and_without_quotes() {
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        for (given, key) in [
            ("\"a b\"", Some("a b")),
            ("producer-7/42", Some("producer-7/42")),
            (" k ", Some("k")),
            ("", None),
            ("\"\"", None),
            ("a\"b", None),
            (&long, None),
        ] {
            let headers =
                HeaderMap::from_iter([(http::HeaderName::from_static(KEY), HeaderValue::from_str(given).unwrap())]);
            let once = Once::of(&headers, Door::Kafka, Timestamp(0));
            assert_eq!(once.ok().flatten().map(|once| once.key).as_deref(), key, "{given}");
        }
        assert!(Once::of(&HeaderMap::new(), Door::Kafka, Timestamp(0)).unwrap().is_none());
    }
}
