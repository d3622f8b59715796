//! Shard iterators and list tokens: where a reader stands, sealed so that nobody makes up their own,
//! and good for five minutes.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::DateTime;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::error::KinesisError;

const VALID_MS: i64 = 300_000;
/// Half of what SHA-256 gives is more than anyone guesses in five minutes.
const MAC_BYTES: usize = 16;

/// The key, made of what the log keeps secret and of which log it is.
pub(super) struct Seal {
    mac: Hmac<Sha256>,
}

/// What a token is for, so that none is taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Iterator = 1,
    Shards = 2,
    Streams = 3,
    Consumers = 4,
}

/// A place in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardIterator {
    pub(super) stream: String,
    pub(super) stream_id: Uuid,
    pub(super) shard: u32,
    /// The offset of the next record.
    pub(super) position: u64,
}

impl Seal {
    pub(super) fn new(secret: &[u8], log_id: &[u8]) -> Self {
        let mac = Hmac::new_from_slice(secret).expect("a key may have any length").chain_update(log_id);
        Self { mac }
    }

    fn close(&self, kind: Kind, created_ms: i64, content: &[u8]) -> String {
        let mut token = vec![kind as u8];
        token.extend(created_ms.to_be_bytes());
        token.extend_from_slice(content);
        let mac = self.mac.clone().chain_update(&token).finalize().into_bytes();
        token.extend_from_slice(&mac[..MAC_BYTES]);
        BASE64_STANDARD.encode(token)
    }

    /// When it was made, and its content; None where it is none of ours.
    fn open(&self, kind: Kind, token: &str) -> Option<(i64, Vec<u8>)> {
        let mut token = BASE64_STANDARD.decode(token).ok()?;
        let end = token.len().checked_sub(MAC_BYTES).filter(|end| *end >= 9)?;
        self.mac.clone().chain_update(&token[..end]).verify_truncated_left(&token[end..]).ok()?;
        if token[0] != kind as u8 {
            return None;
        }
        let created_ms = i64::from_be_bytes(token[1..9].try_into().expect("eight bytes"));
        token.truncate(end);
        token.drain(..9);
        Some((created_ms, token))
    }

    pub(super) fn iterator(&self, iterator: &ShardIterator, now_ms: i64) -> String {
        let mut content = Vec::with_capacity(28 + iterator.stream.len());
        content.extend(iterator.stream_id.as_bytes());
        content.extend(iterator.shard.to_be_bytes());
        content.extend(iterator.position.to_be_bytes());
        content.extend_from_slice(iterator.stream.as_bytes());
        self.close(Kind::Iterator, now_ms, &content)
    }

    pub(super) fn read_iterator(&self, token: &str, now_ms: i64) -> Result<ShardIterator, KinesisError> {
        let invalid = || KinesisError::invalid_argument("Invalid ShardIterator.");
        let (created_ms, content) = self.open(Kind::Iterator, token).ok_or_else(invalid)?;
        if now_ms.saturating_sub(created_ms) > VALID_MS {
            return Err(KinesisError::expired_iterator(format!(
                "Iterator expired. The iterator was created at time {} while right now it is {} which is further in \
                 the future than the tolerated delay of {VALID_MS} milliseconds.",
                shown(created_ms),
                shown(now_ms)
            )));
        }
        let (head, name) = content.split_at_checked(28).ok_or_else(invalid)?;
        Ok(ShardIterator {
            stream: String::from_utf8(name.to_vec()).map_err(|_| invalid())?,
            stream_id: Uuid::from_slice(&head[..16]).map_err(|_| invalid())?,
            shard: u32::from_be_bytes(head[16..20].try_into().expect("four bytes")),
            position: u64::from_be_bytes(head[20..].try_into().expect("eight bytes")),
        })
    }

    /// Where a list of shards goes on: the stream, and the last shard that was told.
    pub(super) fn shards_token(&self, stream: &str, filter: &str, last: u32, now_ms: i64) -> String {
        self.close(Kind::Shards, now_ms, format!("{stream}\n{filter}\n{last}").as_bytes())
    }

    pub(super) fn read_shards_token(&self, token: &str, now_ms: i64) -> Result<(String, String, u32), KinesisError> {
        let content = self.text(Kind::Shards, token, now_ms)?;
        let mut parts = content.splitn(3, '\n');
        let [stream, filter, last] = [(); 3].map(|()| parts.next().unwrap_or_default().to_owned());
        let last = last.parse().map_err(|_| invalid_token())?;
        Ok((stream, filter, last))
    }

    /// Where a list of streams goes on: the last name that was told.
    pub(super) fn streams_token(&self, last: &str, now_ms: i64) -> String {
        self.close(Kind::Streams, now_ms, last.as_bytes())
    }

    pub(super) fn read_streams_token(&self, token: &str, now_ms: i64) -> Result<String, KinesisError> {
        self.text(Kind::Streams, token, now_ms)
    }

    /// The same for the consumers of a stream.
    pub(super) fn consumers_token(&self, last: &str, now_ms: i64) -> String {
        self.close(Kind::Consumers, now_ms, last.as_bytes())
    }

    pub(super) fn read_consumers_token(&self, token: &str, now_ms: i64) -> Result<String, KinesisError> {
        self.text(Kind::Consumers, token, now_ms)
    }

    fn text(&self, kind: Kind, token: &str, now_ms: i64) -> Result<String, KinesisError> {
        let (created_ms, content) = self.open(kind, token).ok_or_else(invalid_token)?;
        if now_ms.saturating_sub(created_ms) > VALID_MS {
            return Err(KinesisError::expired_next_token("The pagination token passed to the operation is expired."));
        }
        String::from_utf8(content).map_err(|_| invalid_token())
    }
}

fn invalid_token() -> KinesisError {
    KinesisError::invalid_argument("NextToken is invalid.")
}

/// `Thu Jan 22 01:22:02 UTC 2015`.
fn shown(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.format("%a %b %d %H:%M:%S UTC %Y").to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const NOW: i64 = 1_421_889_722_000;

    fn iterator() -> ShardIterator {
        let stream = "s".repeat(128);
        ShardIterator { stream, stream_id: Uuid::from_u128(7), shard: 3, position: 1 << 40 }
    }

    #[test]
    fn an_iterator_reads_back_with_the_same_key_alone() {
        let seal = Seal::new(b"secret", b"log");
        let token = seal.iterator(&iterator(), NOW);
        assert!(token.len() <= 512, "{}", token.len());
        let again = Seal::new(b"secret", b"log");
        assert_eq!(again.read_iterator(&token, NOW + VALID_MS), Ok(iterator()));
        for other in [Seal::new(b"secret", b"another log"), Seal::new(b"guess", b"log")] {
            assert_eq!(other.read_iterator(&token, NOW).unwrap_err().message, "Invalid ShardIterator.");
        }
        for garbage in ["", "AAAA", "not base64", &token[4..], &token.replace('A', "B"), &seal.streams_token("a", NOW)]
        {
            assert_eq!(seal.read_iterator(garbage, NOW).unwrap_err().name, "InvalidArgumentException", "{garbage}");
        }
    }

    #[test]
    fn tokens_expire_after_five_minutes() {
        let seal = Seal::new(b"secret", b"log");
        let error = seal.read_iterator(&seal.iterator(&iterator(), NOW), NOW + VALID_MS + 1000).unwrap_err();
        assert_eq!(
            (error.name, &*error.message),
            (
                "ExpiredIteratorException",
                "Iterator expired. The iterator was created at time Thu Jan 22 01:22:02 UTC 2015 while right now it is \
                 Thu Jan 22 01:27:03 UTC 2015 which is further in the future than the tolerated delay of 300000 \
                 milliseconds."
            )
        );
        let token = seal.shards_token("a", "", 99, NOW);
        assert_eq!(seal.read_shards_token(&token, NOW), Ok(("a".to_owned(), String::new(), 99)));
        assert_eq!(seal.read_shards_token(&token, NOW + VALID_MS + 1).unwrap_err().name, "ExpiredNextTokenException");
        assert_eq!(seal.read_shards_token("x", NOW).unwrap_err().name, "InvalidArgumentException");
    }
}
