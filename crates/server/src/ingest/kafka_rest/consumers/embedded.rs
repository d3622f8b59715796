//! A record as an answer has it: its key and value in the format of the instance.

use std::io::Write;

use base64::{display::Base64Display, prelude::BASE64_STANDARD};
use model::{StoredRecord, TopicPartition};
use serde_json::value::RawValue;

use crate::{error::KafkaError, ingest::consumers::Format};

/// Appends `{"topic":…}` to the answer, after a comma where one is needed.
pub(super) fn write(
    out: &mut Vec<u8>,
    format: Format,
    partition: &TopicPartition,
    stored: &StoredRecord,
    is_further: bool,
) -> Result<(), KafkaError> {
    let comma = if is_further { "," } else { "" };
    let not_readable = |field: &str| {
        KafkaError::not_serializable(format!(
            "Error deserializing key/value for partition {partition} at offset {}. If needed, please seek past the \
             record to continue consumption. The {field} is not JSON.",
            stored.offset
        ))
    };
    write!(out, r#"{comma}{{"topic":"{}","key":"#, partition.topic).expect("writing to memory cannot fail");
    value(out, format, stored.record.key.as_deref()).ok_or_else(|| not_readable("key"))?;
    out.extend_from_slice(br#","value":"#);
    value(out, format, stored.record.value.as_deref()).ok_or_else(|| not_readable("value"))?;
    write!(out, r#","partition":{},"offset":{}}}"#, partition.partition, stored.offset)
        .expect("writing to memory cannot fail");
    Ok(())
}

/// None where the bytes are not of this format.
fn value(out: &mut Vec<u8>, format: Format, bytes: Option<&[u8]>) -> Option<()> {
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return Some(());
    };
    match format {
        Format::Binary => write!(out, "\"{}\"", Base64Display::new(bytes, &BASE64_STANDARD)).ok(),
        // As it was stored: what a number or a text says may be more than a parser keeps of it.
        Format::Json => {
            let raw: &RawValue = serde_json::from_slice(bytes).ok()?;
            out.extend_from_slice(raw.get().as_bytes());
            Some(())
        }
    }
}
