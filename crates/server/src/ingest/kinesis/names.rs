//! How things are called beyond this process: shard ids, and ARNs with the caller's region and
//! account in them.

use super::error::KinesisError;
use crate::auth::{self, Action};

/// Who asks for what, and how names and texts repeat it.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) who: auth::Caller,
    /// What the request needs to be allowed.
    pub(super) action: Action,
}

impl Caller {
    /// As one who says nothing of account and region.
    pub(super) fn new(who: auth::Caller, action: Action) -> Self {
        Self { account: "000000000000".to_owned(), region: "us-east-1".to_owned(), who, action }
    }

    pub(super) fn may(&self, stream: &str) -> bool {
        self.who.may(self.action, stream)
    }

    /// Asked before it is looked whether there is such a stream.
    pub(super) fn check(&self, stream: &str) -> Result<(), KinesisError> {
        if self.may(stream) {
            return Ok(());
        }
        let message = format!("Not authorized: this key lacks {} on {stream:?}", self.action);
        Err(KinesisError::access_denied(message))
    }

    pub(super) fn stream_arn(&self, stream: &str) -> String {
        format!("arn:aws:kinesis:{}:{}:stream/{stream}", self.region, self.account)
    }

    /// A consumer's name can be taken again; the second in which it was registered tells them apart.
    pub(super) fn consumer_arn(&self, stream: &str, consumer: &str, created_ms: i64) -> String {
        format!("{}/consumer/{consumer}:{}", self.stream_arn(stream), created_ms / 1000)
    }
}

/// What an ARN of the service names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    Stream(&'a str),
    /// The stream, the consumer, and the second in which it was registered.
    Consumer(&'a str, &'a str, i64),
}

impl<'a> Resource<'a> {
    pub(super) fn of_arn(arn: &'a str) -> Option<Self> {
        let (_, resource) = arn.split_once(":stream/")?;
        let Some((stream, consumer)) = resource.split_once("/consumer/") else { return Some(Self::Stream(resource)) };
        let (name, created) = consumer.rsplit_once(':')?;
        Some(Self::Consumer(stream, name, created.parse().ok()?))
    }
}

/// A shard as its number; it is also that of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShardId(pub(super) u32);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

impl ShardId {
    /// The service takes the number alone, too, and without its zeros.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.split_once('-').map_or(text, |(_, digits)| digits);
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let number = is_number.then(|| digits.parse::<u32>().ok())??;
        (number <= i32::MAX as u32).then_some(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_ids_have_twelve_digits_and_are_read_with_fewer() {
        assert_eq!(ShardId(7).to_string(), "shardId-000000000007");
        for (text, number) in
            [("shardId-000000000007", Some(7)), ("7", Some(7)), ("shardId-2147483647", Some(2_147_483_647))]
        {
            assert_eq!(ShardId::parse(text).map(|id| id.0), number, "{text}");
        }
        for text in ["", "shardId-", "shardId-x", "shardId-2147483648", "shardId--1", "a"] {
            assert_eq!(ShardId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn arns_lead_back_to_their_resource() {
        let caller = Caller::new(auth::Caller::nobody(), Action::Describe);
        assert_eq!(caller.stream_arn("a.b"), "arn:aws:kinesis:us-east-1:000000000000:stream/a.b");
        assert_eq!(Resource::of_arn(&caller.stream_arn("a.b")), Some(Resource::Stream("a.b")));
        let consumer = caller.consumer_arn("a.b", "c", 1_700_000_000_999);
        assert_eq!(Resource::of_arn(&consumer), Some(Resource::Consumer("a.b", "c", 1_700_000_000)));
        assert_eq!(Resource::of_arn("arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/c"), None);
        assert_eq!(Resource::of_arn("a"), None);
    }
}
