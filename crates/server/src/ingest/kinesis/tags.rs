//! Tags: on streams by their names, on streams and consumers by their ARNs.

use super::{
    Ask, Reply,
    error::KinesisError,
    fields::{ANY, Fields, TAG_KEY},
    names::Resource,
    stream::{Stream, Tags},
    streams::{Change, MAX_TAGS},
};
use crate::ingest::Doors;

const MAX_KEY_CHARS: usize = 128;
const MAX_VALUE_CHARS: usize = 256;

/// The tags of a request; where they are needed and absent, a fault.
pub(super) fn read(fields: &mut Fields<'_>, is_needed: bool) -> Result<Tags, KinesisError> {
    let Some(given) = fields.tags("Tags")? else {
        if is_needed {
            fields.faults.missing("tags");
        }
        return Ok(Tags::new());
    };
    fields.faults.check_length(
        "tags",
        || format!("'{{{} tags}}'", given.len()),
        given.len(),
        (usize::from(is_needed), MAX_TAGS),
    );
    for (key, value) in &given {
        let n_chars = key.chars().count();
        if !(1..=MAX_KEY_CHARS).contains(&n_chars) {
            fields.faults.add(
                &format!("'{{{key}={value}}}'"),
                "tags",
                format_args!(
                    "Map keys must satisfy constraint: [Member must have length less than or equal to \
                     {MAX_KEY_CHARS}, Member must have length greater than or equal to 1]"
                ),
            );
        }
        if value.chars().count() > MAX_VALUE_CHARS {
            fields.faults.add(
                &format!("'{{{key}={value}}}'"),
                "tags",
                format_args!(
                    "Map value must satisfy constraint: [Member must have length less than or equal to \
                     {MAX_VALUE_CHARS}, Member must have length greater than or equal to 0]"
                ),
            );
        }
    }
    Ok(given.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// Letters, digits and a few signs.
pub(super) fn check(tags: &Tags) -> Result<(), KinesisError> {
    let is_allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_./=+-@:".contains(c);
    if tags.iter().all(|(key, value)| key.chars().chain(value.chars()).all(is_allowed)) {
        return Ok(());
    }
    Err(KinesisError::invalid_argument(
        "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % \
         @.",
    ))
}

/// Keys to take away.
fn read_keys(fields: &mut Fields<'_>) -> Result<Vec<String>, KinesisError> {
    let Some(keys) = fields.texts("TagKeys")? else {
        fields.faults.missing("tagKeys");
        return Ok(Vec::new());
    };
    let shown = || format!("'[{}]'", keys.join(", "));
    fields.faults.check_length("tagKeys", shown, keys.len(), (1, MAX_TAGS));
    for key in &keys {
        fields.faults.check_text("tagKeys", key, &TAG_KEY);
    }
    Ok(keys.into_iter().map(str::to_owned).collect())
}

impl Doors {
    pub(super) async fn add_tags(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let tags = read(&mut fields, true)?;
        fields.done()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        check(&tags)?;
        self.changed(ask, &name, &stream, Change::Tag { consumer: None, tags }).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn remove_tags(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let keys = read_keys(&mut fields)?;
        fields.done()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        self.changed(ask, &name, &stream, Change::Untag { consumer: None, keys }).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn list_tags(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let name = ask.stream_name(&mut fields)?;
        let after = fields.text("ExclusiveStartTagKey", &TAG_KEY)?;
        let limit = fields.integer("Limit", 1, MAX_TAGS as i64)?.unwrap_or(MAX_TAGS as i64) as usize;
        fields.done()?;
        let stream = self.kinesis.stream(&ask.caller, &name).await?;
        let is_listed = |(key, _): &(&String, &String)| after.is_none_or(|after| key.as_str() > after);
        let tags: Vec<_> = stream.tags.iter().filter(is_listed).collect();
        Ok(ask.whole(|writer| {
            writer.maps("Tags", tags.iter().take(limit), |writer, (key, value)| {
                writer.text("Key", key);
                writer.text("Value", value);
            });
            writer.boolean("HasMoreTags", tags.len() > limit);
        }))
    }

    pub(super) async fn tag_resource(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let arn = fields.needed_text("ResourceARN", &ANY)?;
        let tags = read(&mut fields, true)?;
        fields.done()?;
        check(&tags)?;
        let (name, stream, consumer) = self.resource(ask, arn).await?;
        self.changed(ask, &name, &stream, Change::Tag { consumer, tags }).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn untag_resource(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let arn = fields.needed_text("ResourceARN", &ANY)?;
        let keys = read_keys(&mut fields)?;
        fields.done()?;
        let (name, stream, consumer) = self.resource(ask, arn).await?;
        self.changed(ask, &name, &stream, Change::Untag { consumer, keys }).await?;
        Ok(Reply::Empty)
    }

    pub(super) async fn list_tags_for_resource(&self, ask: &Ask) -> Result<Reply, KinesisError> {
        let mut fields = ask.fields();
        let arn = fields.needed_text("ResourceARN", &ANY)?;
        fields.done()?;
        let (_, stream, consumer) = self.resource(ask, arn).await?;
        let tags = match consumer.and_then(|consumer| stream.consumers.get(&consumer)) {
            Some(consumer) => &consumer.tags,
            None => &stream.tags,
        };
        Ok(ask.whole(|writer| {
            writer.maps("Tags", tags, |writer, (key, value)| {
                writer.text("Key", key);
                writer.text("Value", value);
            });
        }))
    }

    /// The stream that an ARN names, and the consumer of it if it names one.
    async fn resource(
        &self,
        ask: &Ask,
        arn: &str,
    ) -> Result<(String, std::sync::Arc<Stream>, Option<String>), KinesisError> {
        let resource = Resource::of_arn(arn);
        let resource =
            resource.ok_or_else(|| KinesisError::invalid_argument(format!("ResourceARN {arn} is not valid.")))?;
        match resource {
            Resource::Stream(name) => Ok((name.to_owned(), self.kinesis.stream(&ask.caller, name).await?, None)),
            Resource::Consumer(name, consumer, _) => {
                let stream = self.kinesis.stream(&ask.caller, name).await?;
                if !stream.consumers.contains_key(consumer) {
                    return Err(KinesisError::not_found(format!("Consumer {arn} not found.")));
                }
                Ok((name.to_owned(), stream, Some(consumer.to_owned())))
            }
        }
    }
}
