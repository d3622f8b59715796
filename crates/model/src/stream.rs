//! A stream: topics that hold the same kind of record, and how such a record is cleaned.
//! One stream is two files, `streams/<name>.toml` (this) and `streams/<name>.sql`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::position::INTERNAL_PREFIX;

/// Which rows of one key count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dedup {
    /// Every row.
    Off,
    /// One of each set of rows that are equal in all columns.
    Exact,
    /// The first row of each key, by topic, partition, offset and place in the record.
    #[default]
    Key,
}

impl std::str::FromStr for Dedup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "exact" => Ok(Self::Exact),
            "key" => Ok(Self::Key),
            other => Err(format!("dedup {other:?} is unknown: use off, exact or key")),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamDef {
    /// The table's name in views.
    pub name: String,
    /// Patterns of topic names; `*` stands for any run of characters.
    pub topics: Vec<String>,
    /// Columns of the clean row that name a post; the first row per key counts.
    pub key: Vec<String>,
    #[serde(default)]
    pub dedup: Dedup,
    /// Clean columns that must have a value; a row without one is a reject.
    pub required: Vec<String>,
    /// The fields read from a record, in source order. Others are kept in the log and the
    /// landing objects, and not read.
    #[serde(rename = "column")]
    pub columns: Vec<RawColumn>,
    /// The cleaning `SELECT … FROM raw`, from the `.sql` file.
    #[serde(skip)]
    pub sql: String,
}

/// A field of the raw record. It reaches the cleaning as text: a JSON string's content, or
/// the text of a number, boolean or nested value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawColumn {
    pub name: String,
    /// Texts that mean "nothing". They become NULL, as blank text does everywhere.
    #[serde(default)]
    pub placeholders: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("stream {stream}: {problem}")]
pub struct InvalidStream {
    pub stream: String,
    pub problem: String,
}

impl StreamDef {
    /// Reads the two files of the stream `name`.
    pub fn parse(name: &str, toml: &str, sql: &str) -> Result<Self, InvalidStream> {
        let invalid = |problem: String| InvalidStream { stream: name.to_owned(), problem };
        let mut stream: Self = toml::from_str(toml).map_err(|e| invalid(e.to_string()))?;
        stream.sql = sql.to_owned();
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if stream.name != name {
            return Err(invalid(format!("`name` is {:?}, the file says {name:?}", stream.name)));
        }
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) {
            return Err(invalid("a stream's name is made of a-z, 0-9 and _".to_owned()));
        }
        for (field, list) in [("topics", &stream.topics), ("key", &stream.key), ("required", &stream.required)] {
            if list.is_empty() {
                return Err(invalid(format!("`{field}` is empty")));
            }
        }
        let mut names = BTreeSet::new();
        for column in &stream.columns {
            if !names.insert(&column.name) {
                return Err(invalid(format!("column {:?} is there twice", column.name)));
            }
        }
        if names.is_empty() {
            return Err(invalid("there is no [[column]]".to_owned()));
        }
        Ok(stream)
    }

    /// Whether a topic belongs to this stream; an internal one belongs to none.
    pub fn takes(&self, topic: &str) -> bool {
        !topic.starts_with(INTERNAL_PREFIX) && self.topics.iter().any(|pattern| matches(pattern, topic))
    }

    /// The table of records that could not be cleaned.
    pub fn rejected(&self) -> String {
        format!("{}_rejected", self.name)
    }
}

/// `*` stands for any run of characters, everything else for itself.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let parts: Vec<&str> = rest.split('*').collect();
    let (last, middle) = parts.split_last().expect("split yields at least one part");
    for part in middle {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stream_takes_an_internal_topic() {
        let stream = StreamDef {
            name: "all".to_owned(),
            topics: vec!["*".to_owned(), "__state".to_owned()],
            key: Vec::new(),
            dedup: Dedup::Off,
            required: Vec::new(),
            columns: Vec::new(),
            sql: String::new(),
        };
        assert!(stream.takes("_pin") && !stream.takes("__state"));
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, topic, expected) in [
            ("pin", "pin", true),
            ("pin", "pins", false),
            ("*.pin", "0a3.pin", true),
            ("*.pin", "pin", false),
            ("*.pin", ".pin", true),
            ("streaming-*-pin", "streaming-0a3-pin", true),
            ("streaming-*-pin", "streaming-pin", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("*", "anything", true),
            ("aa*aa", "aaa", false),
        ] {
            assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
        }
    }
}
