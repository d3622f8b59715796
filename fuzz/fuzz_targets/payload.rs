//! Any value of a record, by way of its canonical line: the tolerant reader makes rows or rejects of
//! it, each with its text, and no more than it may.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use model::{Offset, Record, StreamDef, TopicPartition};

#[path = "../../crates/engine/src/decode.rs"]
#[allow(dead_code)]
mod decode;
#[path = "../../crates/engine/src/landing/line.rs"]
#[allow(dead_code)]
mod line;

/// The default pipeline's stream with the most columns; reading it each time would be most of the work.
static STREAM: LazyLock<StreamDef> = LazyLock::new(|| {
    let (toml, sql) = (include_str!("../../streams/pin.toml"), include_str!("../../streams/pin.sql"));
    StreamDef::parse("pin", toml, sql).expect("the default pipeline is whole")
});

fuzz_target!(|data: &[u8]| {
    let partition: TopicPartition = "a.pin-0".parse().expect("a partition");
    let canonical = line::canonical(&Record::of_value(data.to_vec()));
    assert!(!canonical.contains(&b'\n'));
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&canonical).is_ok());
    let once_more = line::canonical(&Record::of_value(canonical.clone()));
    assert_eq!(once_more, canonical, "a line is its own canonical form");

    // The line as it stands in an object, and bytes that never were a line.
    for line in [canonical, Bytes::copy_from_slice(data)] {
        let mut decoder = decode::Decoder::new(&STREAM);
        decoder.push(&partition, Offset(7), &line);
        let n_rows = decoder.n_rows();
        let decoded = decoder.finish();
        assert_eq!((decoded.raw.num_rows(), decoded.texts.len()), (n_rows, n_rows));
        assert!(n_rows + decoded.rejects.len() > 0, "a record vanished");
        assert!(n_rows <= 10_000);
        for text in &decoded.texts {
            text.to_text();
        }
        assert!(decoded.rejects.iter().all(|r| r.offset == Offset(7) && !r.reason.is_empty()));
    }
});
