//! ListShards, and what changes shards: SplitShard, MergeShards, UpdateShardCount. Writes go on
//! meanwhile; the change is there when the answer is.

use model::Timestamp;

use super::{
    Ask, Reply,
    error::KinesisError,
    fields::{Fields, HASH_KEY, NEXT_TOKEN, SHARD_ID},
    hash::HashKey,
    names::ShardId,
    read::{could_not_find, write_range},
    stream::{Shard, Step, Stream},
    writer::{Format, Writer},
};
use crate::ingest::Doors;

const MAX_LISTED: i64 = 1000;
const FILTERS: [&str; 6] =
    ["AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP", "FROM_TIMESTAMP"];

/// Which shards a list tells.
enum Filter {
    All,
    After(u32),
    /// Open at this time.
    At(i64),
    /// Open at this time or later.
    From(i64),
    Open,
}

impl Filter {
    fn read(fields: &mut Fields<'_>, ask: &Ask, stream: &str) -> Result<Option<Self>, KinesisError> {
        let Some(filter) = fields.map("ShardFilter")? else { return Ok(None) };
        let mut inner = Fields::of(filter);
        let kind = inner.needed_one_of("Type", &FILTERS)?;
        let shard = inner.text("ShardId", &SHARD_ID)?;
        let timestamp = inner.time("Timestamp", ask.format == Format::Json)?;
        inner.done()?;
        let needed = |what: &str| {
            KinesisError::invalid_argument(format!("{what} must be provided when the ShardFilter type is {kind}."))
        };
        Ok(Some(match kind {
            "AFTER_SHARD_ID" => {
                let id = shard.ok_or_else(|| needed("ShardId"))?;
                Self::After(ask.shard_number(stream, id)?)
            }
            "AT_TIMESTAMP" => Self::At(timestamp.ok_or_else(|| needed("Timestamp"))?),
            "FROM_TIMESTAMP" => Self::From(timestamp.ok_or_else(|| needed("Timestamp"))?),
            "AT_TRIM_HORIZON" => Self::At(i64::MIN),
            "FROM_TRIM_HORIZON" => Self::From(i64::MIN),
            _ => Self::Open,
        }))
    }

    /// As a token keeps it.
    fn text(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::After(number) => format!("after {number}"),
            Self::At(ms) => format!("at {ms}"),
            Self::From(ms) => format!("from {ms}"),
            Self::Open => "open".to_owned(),
        }
    }

    fn of_text(text: &str) -> Self {
        let (kind, value) = text.split_once(' ').unwrap_or((text, ""));
        match kind {
            "after" => Self::After(value.parse().unwrap_or(0)),
            "at" => Self::At(value.parse().unwrap_or(i64::MIN)),
            "from" => Self::From(value.parse().unwrap_or(i64::MIN)),
            "open" => Self::Open,
            _ => Self::All,
        }
    }

    fn takes(&self, number: u32, shard: &Shard, stream: &Stream, now_ms: i64) -> bool {
        let closed_ms = shard.closed.map_or(i64::MAX, |closed| closed.at_ms);
        let created_ms = i64::try_from(shard.created).unwrap_or(i64::MAX).saturating_mul(1000);
        // A time before the horizon means the horizon, and one before the stream its beginning.
        let earliest = stream.horizon_ms(now_ms).max(stream.created_ms / 1000 * 1000);
        match self {
            Self::All => true,
            Self::After(after) => number > *after,
            Self::At(ms) => created_ms <= (*ms).max(earliest) && closed_ms > (*ms).max(earliest),
            Self::From(ms) => closed_ms >= (*ms).max(earliest),
            Self::Open => shard.is_open(),
        }
    }
}

impl Doors {
    pub(super) async fn list_shards(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.optional_stream_name(&mut fields)?;
        let token = fields.text("NextToken", &NEXT_TOKEN)?;
        let after = fields.text("ExclusiveStartShardId", &SHARD_ID)?;
        let limit = fields.integer("MaxResults", 1, 10_000)?.unwrap_or(MAX_LISTED).min(MAX_LISTED) as usize;
        let created = fields.time("StreamCreationTimestamp", ask.format == Format::Json)?;
        let filter = Filter::read(&mut fields, ask, name.as_deref().unwrap_or_default())?;
        fields.done()?;
        let (now, seal) = (Timestamp::now().0, self.kinesis.seal().await?);
        let (name, filter, after) = match (name, token) {
            (None, None) => {
                return Err(KinesisError::invalid_argument("Either NextToken or StreamName should be provided."));
            }
            (Some(_), Some(_)) => {
                return Err(KinesisError::invalid_argument("NextToken and StreamName cannot be provided together."));
            }
            (None, Some(_)) if after.is_some() || created.is_some() => {
                return Err(KinesisError::invalid_argument(
                    "NextToken cannot be provided together with ExclusiveStartShardId or StreamCreationTimestamp.",
                ));
            }
            (None, Some(token)) => {
                let (name, filter, last) = seal.read_shards_token(token, now)?;
                (name, Filter::of_text(&filter), Some(last))
            }
            (Some(name), None) => {
                let after = after.map(|id| ask.shard_number(&name, id)).transpose()?;
                (name, filter.unwrap_or(Filter::All), after)
            }
        };
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        let is_listed = |number: u32, shard: &Shard| {
            after.is_none_or(|after| number > after) && filter.takes(number, shard, &stream, now)
        };
        let mut shards: Vec<_> = stream.visible(now).filter(|(number, shard)| is_listed(*number, shard)).collect();
        let has_more = shards.len() > limit;
        shards.truncate(limit);
        Ok(ask.whole(|writer| {
            writer.maps("Shards", &shards, |writer, (number, shard)| write_shard(writer, *number, shard));
            if let (true, Some((last, _))) = (has_more, shards.last()) {
                writer.text("NextToken", &seal.shards_token(&name, &filter.text(), *last, now));
            }
        }))
    }

    pub(super) async fn split_shard(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let shard = fields.needed_text("ShardToSplit", &SHARD_ID)?.to_owned();
        let key = fields.needed_text("NewStartingHashKey", &HASH_KEY)?.to_owned();
        fields.done()?;
        let caller = ask.caller.clone();
        let plan = {
            let name = name.clone();
            move |stream: &Stream| {
                let number = ShardId::parse(&shard).map_or(u32::MAX, |id| id.0);
                let parent = stream.shard(number).ok_or_else(|| could_not_find(&caller, &name, &shard))?;
                check_open(parent, number, &name, &caller)?;
                // A key beyond the circle is beyond the shard, too.
                let at = key.parse::<HashKey>().ok();
                let is_inside = |at: &HashKey| at.0 > parent.start.0.saturating_add(1) && at.0 < parent.end.0;
                let at = at.filter(is_inside).ok_or_else(|| {
                    KinesisError::invalid_argument(format!(
                        "NewStartingHashKey {key} used in SplitShard() on shard {} in stream {name} under account {} \
                         is not both greater than one plus the shard's StartingHashKey {} and less than the shard's \
                         EndingHashKey {}.",
                        ShardId(number),
                        caller.account,
                        parent.start,
                        parent.end
                    ))
                })?;
                Ok(vec![Step::Split { shard: number, at }])
            }
        };
        self.kinesis.reshard(&ask.caller, &name, plan).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn merge_shards(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let given = ["ShardToMerge", "AdjacentShardToMerge"].map(|member| fields.needed_text(member, &SHARD_ID));
        let [first, second] = given;
        let given = [first?.to_owned(), second?.to_owned()];
        fields.done()?;
        let caller = ask.caller.clone();
        let plan = {
            let name = name.clone();
            move |stream: &Stream| {
                let mut numbers = [0; 2];
                for (number, id) in numbers.iter_mut().zip(&given) {
                    *number = ShardId::parse(id).map_or(u32::MAX, |id| id.0);
                    let shard = stream.shard(*number).ok_or_else(|| could_not_find(&caller, &name, id))?;
                    check_open(shard, *number, &name, &caller)?;
                }
                let [first, second] = numbers.map(|number| &stream.shards[number as usize]);
                if first.end.0.checked_add(1) != Some(second.start.0) {
                    return Err(KinesisError::invalid_argument(format!(
                        "Shards {} and {} in stream {name} under account {} are not an adjacent pair of shards \
                         eligible for merging",
                        ShardId(numbers[0]),
                        ShardId(numbers[1]),
                        caller.account
                    )));
                }
                Ok(vec![Step::Merge { first: numbers[0], second: numbers[1] }])
            }
        };
        self.kinesis.reshard(&ask.caller, &name, plan).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn update_shard_count(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let target = fields.needed_integer("TargetShardCount", 1, i64::from(u32::MAX))?;
        fields.needed_one_of("ScalingType", &["UNIFORM_SCALING"])?;
        fields.done()?;
        let before = self.kinesis.stream(&ask.caller, &name).await?.n_open();
        let plan = move |stream: &Stream| {
            let (target, n_open) = (target as usize, stream.n_open());
            let scale = if target > 2 * n_open {
                "up over double"
            } else if 2 * target < n_open {
                "down below half"
            } else {
                return Ok(stream.steps_to(target as u32));
            };
            Err(KinesisError::invalid_argument(format!(
                "UpdateShardCount cannot scale {scale} your current open shard count. Current open shard count: \
                 {n_open}. Target shard count: {target}."
            )))
        };
        self.kinesis.reshard(&ask.caller, &name, plan).await?;
        Ok(ask.whole(|writer| {
            writer.text("StreamName", &name);
            writer.count("CurrentShardCount", before);
            writer.integer("TargetShardCount", target);
            writer.text("StreamARN", &ask.caller.stream_arn(&name));
        }))
    }
}

fn check_open(shard: &Shard, number: u32, name: &str, caller: &super::names::Caller) -> Result<(), KinesisError> {
    if shard.is_open() {
        return Ok(());
    }
    Err(KinesisError::invalid_argument(format!(
        "Shard {} in stream {name} under account {} has already been merged or split, and thus is not eligible for \
         merging or splitting.",
        ShardId(number),
        caller.account
    )))
}

pub(super) fn write_shard(writer: &mut Writer, number: u32, shard: &Shard) {
    writer.shown("ShardId", ShardId(number));
    for (member, parent) in ["ParentShardId", "AdjacentParentShardId"].into_iter().zip(&shard.parents) {
        writer.shown(member, ShardId(*parent));
    }
    write_range(writer, shard);
    writer.map("SequenceNumberRange", |writer| {
        writer.shown("StartingSequenceNumber", shard.starting_number(number));
        if let Some(end) = shard.ending_number(number) {
            writer.shown("EndingSequenceNumber", end);
        }
    });
}
