//! The tolerant reader: one line of the log's canonical form becomes raw rows or rejects.
//!
//! A producer may wrap its row in `{"value": …}`, in an array, in a JSON string or in base64
//! of one of these; all are unwrapped here, in the same way for both layers. The raw columns
//! are text. Placeholders and blank text become NULL. What the fields mean is the business of
//! `cleaning`, which runs on the batches made here.

use std::{borrow::Cow, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use datafusion::arrow::{
    array::{ArrayRef, Int32Builder, Int64Builder, RecordBatch, StringViewBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use memchr::memchr;
use model::{Offset, StreamDef, TopicPartition};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Where a row came from, on every clean row and every reject.
pub const POSITION: [(&str, DataType); 4] = [
    ("_topic", DataType::Utf8View),
    ("_partition", DataType::Int32),
    ("_offset", DataType::Int64),
    ("_nth", DataType::Int32),
];

/// Wrappings within wrappings that are followed.
const MAX_WRAPPINGS: usize = 4;

/// Rows that one record may hold: a small body must not become a large batch.
const MAX_ROWS_PER_RECORD: usize = 10_000;
/// Of the text of a record with more, so much is kept with the reject.
const SHOWN_BYTES: usize = 1000;

/// A record, or a row in it, that cannot be cleaned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub partition: TopicPartition,
    pub offset: Offset,
    /// The row's place within its record.
    pub nth: i32,
    pub reason: String,
    /// The text as it came.
    pub raw: String,
}

/// Raw rows with their positions, and what could not become one.
pub struct Decoded {
    /// The stream's raw columns, then the position columns.
    pub raw: RecordBatch,
    /// The text of each raw row, for rejects found later.
    pub texts: Vec<Text>,
    pub rejects: Vec<Reject>,
}

/// A part of a line, without copying it.
#[derive(Clone)]
pub struct Text {
    line: Bytes,
    start: usize,
    end: usize,
}

impl Text {
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.line[self.start..self.end]).into_owned()
    }
}

/// Collects the lines of one stream into batches.
pub struct Decoder {
    fields: Arc<[RawField]>,
    schema: SchemaRef,
    columns: Vec<StringViewBuilder>,
    topics: StringViewBuilder,
    partitions: Int32Builder,
    offsets: Int64Builder,
    nths: Int32Builder,
    texts: Vec<Text>,
    rejects: Vec<Reject>,
    size_bytes: usize,
}

struct RawField {
    name: String,
    placeholders: Vec<String>,
}

impl Decoder {
    pub fn new(stream: &StreamDef) -> Self {
        let fields: Arc<[RawField]> = stream
            .columns
            .iter()
            .map(|c| RawField { name: c.name.clone(), placeholders: c.placeholders.clone() })
            .collect();
        Self {
            columns: fields.iter().map(|_| StringViewBuilder::new()).collect(),
            schema: raw_schema(stream),
            fields,
            topics: StringViewBuilder::new().with_deduplicate_strings(),
            partitions: Int32Builder::new(),
            offsets: Int64Builder::new(),
            nths: Int32Builder::new(),
            texts: Vec::new(),
            rejects: Vec::new(),
            size_bytes: 0,
        }
    }

    pub fn n_rows(&self) -> usize {
        self.texts.len()
    }

    /// Rejects held so far.
    pub fn n_rejects(&self) -> usize {
        self.rejects.len()
    }

    /// Bytes of the lines held.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Takes one record in its canonical form (`landing::line`).
    pub fn push(&mut self, partition: &TopicPartition, offset: Offset, line: &Bytes) {
        self.size_bytes += line.len();
        let at = Position { partition, offset };
        if let Err(reject) = self.unwrap(&at, &mut 0, line, MAX_WRAPPINGS) {
            self.rejects.push(reject);
        }
    }

    /// Hands over what was collected and begins anew.
    pub fn finish(&mut self) -> Decoded {
        self.size_bytes = 0;
        let mut columns: Vec<ArrayRef> = self.columns.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef).collect();
        columns.push(Arc::new(self.topics.finish()));
        columns.push(Arc::new(self.partitions.finish()));
        columns.push(Arc::new(self.offsets.finish()));
        columns.push(Arc::new(self.nths.finish()));
        // `finish` of a deduplicating builder forgets the set, not the mode.
        let raw = RecordBatch::try_new(self.schema.clone(), columns).expect("columns are built in the schema's order");
        Decoded { raw, texts: std::mem::take(&mut self.texts), rejects: std::mem::take(&mut self.rejects) }
    }

    fn unwrap(&mut self, at: &Position<'_>, nth: &mut i32, text: &Bytes, wrappings: usize) -> Result<(), Reject> {
        let whole = Text { line: text.clone(), start: 0, end: text.len() };
        let reject = |nth: i32, reason: String| at.reject(nth, reason, whole.to_text());
        let Ok(utf8) = std::str::from_utf8(text) else {
            return Err(reject(*nth, "not UTF-8".to_owned()));
        };
        match first_byte(utf8) {
            Some(b'{') => self.unwrap_object(at, nth, text, utf8, wrappings),
            Some(b'[') => self.unwrap_array(at, nth, text, utf8, wrappings),
            Some(b'"') => {
                let content: String = serde_json::from_str(utf8).map_err(|e| reject(*nth, not_json(&e)))?;
                let inner = unwrap_string(content);
                match inner {
                    Ok(_) if wrappings == 0 => Err(reject(*nth, "wrapped too deeply".to_owned())),
                    Ok(inner) => self.unwrap(at, nth, &inner, wrappings - 1),
                    Err((reason, shown)) => Err(at.reject(*nth, reason, shown)),
                }
            }
            _ => {
                let reason = match serde_json::from_str::<IgnoredAny>(utf8) {
                    Ok(_) => format!("wrong shape: expected an object, found {}", kind_of(utf8)),
                    Err(e) => not_json(&e),
                };
                Err(reject(*nth, reason))
            }
        }
    }

    fn unwrap_array(
        &mut self,
        at: &Position<'_>,
        nth: &mut i32,
        text: &Bytes,
        utf8: &str,
        wrappings: usize,
    ) -> Result<(), Reject> {
        let elements: Vec<&RawValue> =
            serde_json::from_str(utf8).map_err(|e| at.reject(*nth, not_json(&e), utf8.to_owned()))?;
        if elements.is_empty() {
            return Err(at.reject(*nth, "wrong shape: an empty array".to_owned(), utf8.to_owned()));
        }
        if wrappings == 0 {
            return Err(at.reject(*nth, "wrapped too deeply".to_owned(), utf8.to_owned()));
        }
        if elements.len() + *nth as usize > MAX_ROWS_PER_RECORD {
            let shown = utf8.chars().take(SHOWN_BYTES).collect();
            return Err(at.reject(*nth, format!("more than {MAX_ROWS_PER_RECORD} rows in one record"), shown));
        }
        for element in elements {
            let element = text.slice_ref(element.get().as_bytes());
            let n_before = *nth;
            if let Err(reject) = self.unwrap(at, nth, &element, wrappings - 1) {
                self.rejects.push(reject);
            }
            // A rejected element keeps its place.
            *nth = (*nth).max(n_before + 1);
        }
        Ok(())
    }

    fn unwrap_object(
        &mut self,
        at: &Position<'_>,
        nth: &mut i32,
        text: &Bytes,
        utf8: &str,
        wrappings: usize,
    ) -> Result<(), Reject> {
        let reject = |reason: String| at.reject(*nth, reason, utf8.to_owned());
        let fields = self.fields.clone();
        let mut values = vec![None; fields.len()];
        let mut deserializer = serde_json::Deserializer::from_str(utf8);
        let seed = ObjectSeed { fields: &fields, values: &mut values };
        let wrapped = seed
            .deserialize(&mut deserializer)
            .and_then(|wrapped| deserializer.end().map(|()| wrapped))
            .map_err(|e| reject(not_json(&e)))?;
        if let (Some(inner), true) = (wrapped, values.iter().all(Option::is_none)) {
            if wrappings == 0 {
                return Err(reject("wrapped too deeply".to_owned()));
            }
            return self.unwrap(at, nth, &text.slice_ref(inner.get().as_bytes()), wrappings - 1);
        }
        let mut cells = Vec::with_capacity(fields.len());
        for (field, value) in fields.iter().zip(&values) {
            let cell = value
                .map_or(Ok(None), |v: &RawValue| text_of(v))
                .map_err(|problem| reject(format!("column {}: {problem}", field.name)))?;
            let means_nothing =
                |t: &str| t.chars().all(char::is_whitespace) || field.placeholders.iter().any(|p| p == t);
            cells.push(cell.filter(|t| !means_nothing(t)));
        }
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.append_option(cell);
        }
        self.topics.append_value(at.partition.topic.as_str());
        self.partitions.append_value(at.partition.partition as i32);
        self.offsets.append_value(at.offset.0 as i64);
        self.nths.append_value(*nth);
        self.texts.push(Text { line: text.clone(), start: 0, end: text.len() });
        *nth += 1;
        Ok(())
    }
}

/// The stream's raw columns as nullable text, then the position columns.
pub fn raw_schema(stream: &StreamDef) -> SchemaRef {
    let raw = stream.columns.iter().map(|c| Field::new(&c.name, DataType::Utf8View, true));
    Arc::new(Schema::new(raw.chain(position_fields()).collect::<Vec<_>>()))
}

pub fn position_fields() -> impl Iterator<Item = Field> {
    POSITION.into_iter().map(|(name, kind)| Field::new(name, kind, false))
}

struct Position<'a> {
    partition: &'a TopicPartition,
    offset: Offset,
}

impl Position<'_> {
    fn reject(&self, nth: i32, reason: String, raw: String) -> Reject {
        Reject { partition: self.partition.clone(), offset: self.offset, nth, reason, raw }
    }
}

/// Reads an object's known fields as raw values, the last of a name winning, and gives the
/// field `value` if it is there and not a column of the stream.
struct ObjectSeed<'s, 'de> {
    fields: &'s [RawField],
    values: &'s mut [Option<&'de RawValue>],
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, 'de> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_, 'de> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut wrapped = None;
        // Fields mostly come in the stream's order, so the next one is tried first.
        let mut expected = 0;
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let key = key.0.as_ref();
            let found = if self.fields.get(expected).is_some_and(|f| f.name == key) {
                Some(expected)
            } else {
                self.fields.iter().position(|f| f.name == key)
            };
            if let Some(i) = found {
                self.values[i] = Some(map.next_value()?);
                expected = i + 1;
            } else if key == "value" {
                wrapped = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(wrapped)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(A::Error::custom("expected an object"))
    }
}

/// An object's key, borrowed where it holds no escape.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A value's text: a string's content, nothing for null, the JSON text of anything else.
fn text_of(value: &RawValue) -> Result<Option<Cow<'_, str>>, String> {
    let text = value.get();
    match text.as_bytes()[0] {
        b'n' => Ok(None),
        b'"' if memchr(b'\\', text.as_bytes()).is_none() => Ok(Some(Cow::Borrowed(&text[1..text.len() - 1]))),
        b'"' => serde_json::from_str::<String>(text).map(|t| Some(Cow::Owned(t))).map_err(|e| not_json(&e)),
        _ => Ok(Some(Cow::Borrowed(text))),
    }
}

/// What a JSON string wraps: JSON text, or base64 of it. The error says why not, and shows
/// the text that a person would want to see.
fn unwrap_string(content: String) -> Result<Bytes, (String, String)> {
    if is_json_container(&content) {
        return Ok(Bytes::from(content));
    }
    match STANDARD.decode(content.trim()) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) if is_json_container(&text) || first_byte(&text) == Some(b'"') => Ok(Bytes::from(text)),
            Ok(text) => Err(("not JSON".to_owned(), text)),
            Err(_) => Err(("neither JSON nor UTF-8".to_owned(), content)),
        },
        Err(_) => Err(("wrong shape: expected an object, found a string".to_owned(), content)),
    }
}

fn is_json_container(text: &str) -> bool {
    matches!(first_byte(text), Some(b'{' | b'[')) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn first_byte(text: &str) -> Option<u8> {
    text.bytes().find(|b| !b.is_ascii_whitespace())
}

fn kind_of(json: &str) -> &'static str {
    match first_byte(json) {
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    }
}

fn not_json(error: &serde_json::Error) -> String {
    format!("not JSON: {error}")
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Array, AsArray};
    use model::stream::RawColumn;

    use super::*;

    fn stream() -> StreamDef {
        let column = |name: &str, placeholders: &[&str]| RawColumn {
            name: name.to_owned(),
            placeholders: placeholders.iter().map(|p| (*p).to_owned()).collect(),
        };
        StreamDef {
            name: "s".to_owned(),
            topics: vec!["s".to_owned()],
            key: vec!["a".to_owned()],
            dedup: Default::default(),
            required: vec!["a".to_owned()],
            columns: vec![column("a", &[]), column("b", &["Nothing"])],
            sql: String::new(),
        }
    }

    /// Place and cells; place, reason and text.
    type Row = (i32, Option<String>, Option<String>);
    type Told = (i32, String, String);

    fn decode(line: &[u8]) -> (Vec<Row>, Vec<Told>) {
        let mut decoder = Decoder::new(&stream());
        decoder.push(&"s-3".parse().expect("valid"), Offset(7), &Bytes::copy_from_slice(line));
        let decoded = decoder.finish();
        let text = |column: usize, row: usize| {
            let column = decoded.raw.column(column).as_string_view();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let nths = decoded.raw.column_by_name("_nth").expect("is there");
        let nths = nths.as_primitive::<datafusion::arrow::datatypes::Int32Type>();
        let rows = (0..decoded.raw.num_rows()).map(|i| (nths.value(i), text(0, i), text(1, i))).collect();
        (rows, decoded.rejects.into_iter().map(|r| (r.nth, r.reason, r.raw)).collect())
    }

    #[test]
    fn every_wrapping_gives_the_same_row() {
        let row = r#"{"a":1,"b":"x\u00e9\n"}"#;
        let quoted = serde_json::to_string(row).expect("a string");
        let base64 = format!("\"{}\"", STANDARD.encode(row));
        let twice = format!("\"{}\"", STANDARD.encode(&base64));
        for line in [
            row.to_owned(),
            format!(" {row} "),
            format!(r#"{{"value":{row}}}"#),
            format!("[{row}]"),
            format!(r#"[{{"value":{row}}}]"#),
            quoted.clone(),
            format!(r#"{{"value":{quoted}}}"#),
            base64,
            twice,
        ] {
            let expected = vec![(0, Some("1".to_owned()), Some("xé\n".to_owned()))];
            assert_eq!(decode(line.as_bytes()), (expected, vec![]), "{line}");
        }
    }

    #[test]
    fn placeholders_and_blanks_are_nothing_and_values_are_their_text() {
        for (line, a, b) in [
            (r#"{"a":"","b":"Nothing"}"#, None, None),
            (r#"{"a":" \t","b":"nothing"}"#, None, Some("nothing")),
            (r#"{"b":null}"#, None, None),
            (r#"{"a":1.50,"b":true}"#, Some("1.50"), Some("true")),
            (r#"{"a":{"x": [1]},"b":"1","c":2}"#, Some(r#"{"x": [1]}"#), Some("1")),
            (r#"{"a":1,"a":2,"value":{"a":3}}"#, Some("2"), None),
        ] {
            let expected = vec![(0, a.map(str::to_owned), b.map(str::to_owned))];
            assert_eq!(decode(line.as_bytes()), (expected, vec![]), "{line}");
        }
    }

    #[test]
    fn what_is_no_row_is_a_reject_that_says_why() {
        for (line, reason, raw) in [
            ("{\"a\":1", "not JSON", "{\"a\":1"),
            ("{\"a\":1}}", "not JSON", "{\"a\":1}}"),
            ("null", "found null", "null"),
            ("12", "found a number", "12"),
            ("[]", "empty array", "[]"),
            ("\"hello\"", "found a string", "hello"),
            ("\"aGVsbG8gd29ybGQ=\"", "not JSON", "hello world"),
            ("[[[[[{\"a\":1}]]]]]", "too deeply", "[{\"a\":1}]"),
            (r#"{"a":"\ud800"}"#, "column a", r#"{"a":"\ud800"}"#),
        ] {
            let (rows, rejects) = decode(line.as_bytes());
            assert_eq!(rows, vec![], "{line}");
            assert_eq!(rejects.len(), 1, "{line}");
            assert!(rejects[0].1.contains(reason), "{line}: {:?}", rejects[0]);
            assert_eq!(rejects[0].2, raw, "{line}");
        }
        assert_eq!(decode(b"\xff{}").1[0].1, "not UTF-8");
    }

    #[test]
    fn a_bad_element_keeps_its_place_and_spares_the_others() {
        let (rows, rejects) = decode(br#"[{"a":1},5,{"a":2}]"#);
        assert_eq!(rows.iter().map(|r| r.0).collect::<Vec<_>>(), vec![0, 2]);
        assert_eq!(rejects.iter().map(|r| (r.0, r.2.as_str())).collect::<Vec<_>>(), vec![(1, "5")]);
    }
}
