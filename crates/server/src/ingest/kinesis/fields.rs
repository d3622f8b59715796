//! Reads the members of a request: their types at once, their limits all together, and what is
//! wrong in the words that the service has for it.

use super::{error::KinesisError, value::Value};

/// Further ones are not told.
const MAX_FAULTS: usize = 10;

/// What a text may be.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pattern: Option<Pattern>,
    /// In characters.
    length: (usize, usize),
}

/// As it is told, and as it is checked.
type Pattern = (&'static str, fn(&str) -> bool);

const fn named(max: usize) -> Rule {
    Rule { pattern: Some(("[a-zA-Z0-9_.-]+", is_name)), length: (1, max) }
}

const fn of_length(min: usize, max: usize) -> Rule {
    Rule { pattern: None, length: (min, max) }
}

pub(super) const STREAM_NAME: Rule = named(128);
pub(super) const SHARD_ID: Rule = named(128);
pub(super) const CONSUMER_NAME: Rule = named(128);
pub(super) const STREAM_ARN: Rule =
    Rule { pattern: Some((r"arn:aws.*:kinesis:.*:\d{12}:.*stream/\S+", is_stream_arn)), length: (1, 2048) };
pub(super) const PARTITION_KEY: Rule = of_length(1, 256);
pub(super) const HASH_KEY: Rule =
    Rule { pattern: Some((r"0|([1-9]\d{0,38})", |text| is_decimal(text, 39))), length: (1, usize::MAX) };
pub(super) const SEQUENCE_NUMBER: Rule =
    Rule { pattern: Some((r"0|([1-9]\d{0,128})", |text| is_decimal(text, 129))), length: (1, usize::MAX) };
pub(super) const SHARD_ITERATOR: Rule = of_length(1, 512);
pub(super) const NEXT_TOKEN: Rule = of_length(1, 1_048_576);
pub(super) const TAG_KEY: Rule = of_length(1, 128);
pub(super) const ANY: Rule = of_length(0, usize::MAX);

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_decimal(text: &str, max_digits: usize) -> bool {
    text == "0" || (text.len() <= max_digits && !text.starts_with('0') && is_digits(text))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `arn:<partition>:kinesis:<region>:<account>:<resource>`.
fn is_stream_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [arn, partition, service, _, account, resource] = parts[..] else { return false };
    arn == "arn"
        && partition.starts_with("aws")
        && service == "kinesis"
        && account.len() == 12
        && is_digits(account)
        && resource
            .split_once("stream/")
            .is_some_and(|(_, name)| !name.is_empty() && !name.contains(char::is_whitespace))
}

/// What is wrong with a request, up to a limit.
#[derive(Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    /// `value` is as the service would show it.
    pub(super) fn add(&mut self, value: &str, at: &str, constraint: impl std::fmt::Display) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(format!("Value {value} at '{at}' failed to satisfy constraint: {constraint}"));
        }
    }

    pub(super) fn missing(&mut self, at: &str) {
        self.add("null", at, "Member must not be null");
    }

    pub(super) fn check_text(&mut self, at: &str, text: &str, rule: &Rule) {
        let n_chars = if text.len() <= rule.length.0 { text.len() } else { text.chars().count() };
        let shown = || format!("'{text}'");
        if let Some((pattern, is_right)) = rule.pattern
            && !is_right(text)
        {
            self.add(&shown(), at, format_args!("Member must satisfy regular expression pattern: {pattern}"));
        }
        self.check_length(at, shown, n_chars, rule.length);
    }

    pub(super) fn check_length(&mut self, at: &str, shown: impl Fn() -> String, n: usize, (min, max): (usize, usize)) {
        if n < min {
            self.add(&shown(), at, format_args!("Member must have length greater than or equal to {min}"));
        }
        if n > max {
            self.add(&shown(), at, format_args!("Member must have length less than or equal to {max}"));
        }
    }

    pub(super) fn check_range(&mut self, at: &str, n: i64, min: i64, max: i64) {
        if n < min {
            self.add(&format!("'{n}'"), at, format_args!("Member must have value greater than or equal to {min}"));
        }
        if n > max {
            self.add(&format!("'{n}'"), at, format_args!("Member must have value less than or equal to {max}"));
        }
    }

    pub(super) fn check_one_of(&mut self, at: &str, text: &str, allowed: &[&str]) {
        if !allowed.contains(&text) {
            let allowed = allowed.join(", ");
            self.add(&format!("'{text}'"), at, format_args!("Member must satisfy enum value set: [{allowed}]"));
        }
    }

    pub(super) fn done(self) -> Result<(), KinesisError> {
        let (n, all) = (self.0.len(), self.0.join("; "));
        match n {
            0 => Ok(()),
            1 => Err(KinesisError::validation(format!("1 validation error detected: {all}"))),
            n => Err(KinesisError::validation(format!("{n} validation errors detected: {all}"))),
        }
    }
}

/// The members of one map of a request.
pub(super) struct Fields<'v> {
    members: &'v [(String, Value)],
    pub(super) faults: Faults,
}

impl<'v> Fields<'v> {
    pub(super) fn of(value: &'v Value) -> Self {
        let Value::Map(members) = value else { return Self { members: &[], faults: Faults::default() } };
        Self { members, faults: Faults::default() }
    }

    /// Reading is over: whatever was wrong is told together.
    pub(super) fn done(&mut self) -> Result<(), KinesisError> {
        std::mem::take(&mut self.faults).done()
    }

    fn get(&self, name: &str) -> Option<&'v Value> {
        // As parsers of JSON do it, the last one of a name counts.
        let (_, value) = self.members.iter().rev().find(|(member, _)| member == name)?;
        (*value != Value::Null).then_some(value)
    }

    pub(super) fn text(&mut self, name: &str, rule: &Rule) -> Result<Option<&'v str>, KinesisError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let Value::Text(text) = value else { return Err(wrong_type(value, "an String")) };
        self.faults.check_text(&lower_first(name), text, rule);
        Ok(Some(text))
    }

    /// The text, or an empty one and a fault.
    pub(super) fn needed_text(&mut self, name: &str, rule: &Rule) -> Result<&'v str, KinesisError> {
        let text = self.text(name, rule)?;
        Ok(text.unwrap_or_else(|| {
            self.faults.missing(&lower_first(name));
            ""
        }))
    }

    pub(super) fn one_of(&mut self, name: &str, allowed: &[&str]) -> Result<Option<&'v str>, KinesisError> {
        let text = self.text(name, &ANY)?;
        if let Some(text) = text {
            self.faults.check_one_of(&lower_first(name), text, allowed);
        }
        Ok(text)
    }

    pub(super) fn needed_one_of(&mut self, name: &str, allowed: &[&str]) -> Result<&'v str, KinesisError> {
        let text = self.one_of(name, allowed)?;
        Ok(text.unwrap_or_else(|| {
            self.faults.missing(&lower_first(name));
            ""
        }))
    }

    pub(super) fn integer(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, KinesisError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let n = match value {
            Value::Integer(n) => *n,
            Value::Float(n) => n.floor() as i64,
            value => return Err(wrong_type(value, "an Integer")),
        };
        self.faults.check_range(&lower_first(name), n, min, max);
        Ok(Some(n))
    }

    pub(super) fn needed_integer(&mut self, name: &str, min: i64, max: i64) -> Result<i64, KinesisError> {
        let n = self.integer(name, min, max)?;
        Ok(n.unwrap_or_else(|| {
            self.faults.missing(&lower_first(name));
            min
        }))
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, KinesisError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(value) => Err(wrong_type(value, "an Boolean")),
        }
    }

    /// Milliseconds since 1970: JSON has seconds, CBOR milliseconds.
    pub(super) fn time(&mut self, name: &str, is_json: bool) -> Result<Option<i64>, KinesisError> {
        let ms = match self.get(name) {
            None => return Ok(None),
            Some(Value::Integer(n)) if is_json => n.saturating_mul(1000),
            Some(Value::Float(n)) if is_json => (n * 1000.0).round() as i64,
            Some(Value::Integer(n)) => *n,
            Some(Value::Float(n)) => n.round() as i64,
            Some(value) => return Err(wrong_type(value, "milliseconds since epoch")),
        };
        Ok(Some(ms))
    }

    /// A map inside of this one; what is wrong there is told under `<name>.<member>`.
    pub(super) fn map(&mut self, name: &str) -> Result<Option<&'v Value>, KinesisError> {
        match self.get(name) {
            None => Ok(None),
            Some(map @ Value::Map(_)) => Ok(Some(map)),
            Some(_) => Err(KinesisError::serialization("Expected map or null")),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<&'v str>>, KinesisError> {
        let items = match self.get(name) {
            None => return Ok(None),
            Some(Value::List(items)) => items,
            Some(_) => return Err(KinesisError::serialization("Expected list or null")),
        };
        let text = |item: &'v Value| match item {
            Value::Text(text) => Ok(text.as_str()),
            value => Err(wrong_type(value, "an String")),
        };
        items.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A map of texts.
    pub(super) fn tags(&mut self, name: &str) -> Result<Option<Vec<(&'v str, &'v str)>>, KinesisError> {
        let Some(Value::Map(members)) = self.map(name)? else { return Ok(None) };
        let tag = |(key, value): &'v (String, Value)| match value {
            Value::Text(text) => Ok((key.as_str(), text.as_str())),
            value => Err(wrong_type(value, "an String")),
        };
        members.iter().map(tag).collect::<Result<_, _>>().map(Some)
    }
}

/// In the words of the service's own framework.
fn wrong_type(value: &Value, wanted: &str) -> KinesisError {
    let given = match value {
        Value::Bool(_) => "class java.lang.Boolean",
        Value::Integer(_) | Value::Float(_) => "class com.amazon.coral.value.json.numbers.TruncatingBigNumber",
        Value::List(_) => return KinesisError::serialization("Start of list found where not expected"),
        Value::Map(_) => return KinesisError::serialization("Start of structure or map found where not expected."),
        Value::Null | Value::Text(_) | Value::Blob(_) => "class java.lang.String",
    };
    KinesisError::serialization(format!("{given} can not be converted to {wanted}"))
}

/// Members are told as the service's own code calls them.
pub(super) fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ingest::kinesis::writer::Format;

    #[test]
    fn faults_are_told_together_in_the_words_of_the_service() {
        let value = Value::parse(Format::Json, br#"{"StreamName":"a b","Limit":0}"#).unwrap();
        let mut fields = Fields::of(&value);
        fields.text("StreamName", &STREAM_NAME).unwrap();
        fields.integer("Limit", 1, 10_000).unwrap();
        fields.needed_text("ShardId", &SHARD_ID).unwrap();
        let error = fields.done().unwrap_err();
        assert_eq!(
            error.message,
            "3 validation errors detected: Value 'a b' at 'streamName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value '0' at 'limit' failed to satisfy \
             constraint: Member must have value greater than or equal to 1; Value null at 'shardId' failed to \
             satisfy constraint: Member must not be null"
        );
        let mut faults = Faults::default();
        faults.check_text("streamName", "x y", &STREAM_NAME);
        assert_eq!(
            faults.done().unwrap_err().message,
            "1 validation error detected: Value 'x y' at 'streamName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
        );
    }

    #[test]
    fn texts_keep_their_rules() {
        for (rule, good, bad) in [
            (
                &HASH_KEY,
                vec!["0", "340282366920938463463374607431768211455"],
                vec!["", "00", "-1", "x", &"9".repeat(40)],
            ),
            (&SEQUENCE_NUMBER, vec!["0", "7"], vec!["01", "1e5"]),
            (&PARTITION_KEY, vec!["é", "x"], vec![""]),
            (
                &STREAM_ARN,
                vec!["arn:aws:kinesis:us-east-1:000000000000:stream/a", "arn:aws-cn:kinesis::123456789012:stream/a"],
                vec!["a", "arn:aws:kinesis:us-east-1:12:stream/a", "arn:aws:s3:us-east-1:000000000000:stream/a"],
            ),
        ] {
            let check = |text: &str| {
                let mut faults = Faults::default();
                faults.check_text("x", text, rule);
                faults.done().is_ok()
            };
            assert!(good.iter().all(|text| check(text)), "{good:?}");
            assert!(!bad.iter().any(|text| check(text)), "{bad:?}");
        }
        let mut faults = Faults::default();
        faults.check_text("k", &"é".repeat(256), &PARTITION_KEY);
        assert!(faults.done().is_ok());
    }

    #[test]
    fn other_types_are_no_texts() {
        for (json, message) in [
            (
                r#"{"S":1}"#,
                "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String",
            ),
            (r#"{"S":true}"#, "class java.lang.Boolean can not be converted to an String"),
            (r#"{"S":[]}"#, "Start of list found where not expected"),
            (r#"{"S":{}}"#, "Start of structure or map found where not expected."),
        ] {
            let value = Value::parse(Format::Json, json.as_bytes()).unwrap();
            let error = Fields::of(&value).text("S", &ANY).unwrap_err();
            assert_eq!((error.name, &*error.message), ("SerializationException", message));
        }
    }
}
