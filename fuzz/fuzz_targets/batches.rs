//! Any bytes in the place of a segment, with or without checksums that fit: opening and reading give
//! records or name an error, never panic, and never the same offset twice.
//!
//! The first byte says where the damage goes and whether checksums and lengths are made right, because
//! a fuzzer does not guess them.

#![no_main]

use std::{path::Path, sync::Arc};

use event_log::EmbeddedLog;
use libfuzzer_sys::fuzz_target;
use model::{EventLog, LogError, Record, TopicChange, TopicPartition, config::Config};

#[path = "../../crates/event-log/tests/it/sim.rs"]
#[allow(dead_code)]
mod sim;

const HEADER_BYTES: usize = 61;
const MAX_RECORD_BYTES: usize = 4096;
const N_RECORDS: u64 = 3;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    runtime.block_on(read_damaged(*choice, bytes.to_vec()));
});

async fn read_damaged(choice: u8, mut bytes: Vec<u8>) {
    let config = Config::defaults().log;
    let disk = sim::Sim::new();
    let dir = Path::new("/log");
    let open = |disk: Arc<sim::Sim>| EmbeddedLog::open_on(disk, dir, &config, MAX_RECORD_BYTES);
    let partition: TopicPartition = "t-0".parse().expect("a partition");
    {
        let log = open(disk.clone()).expect("an empty disk opens");
        let create = TopicChange::Create { n_partitions: 1 };
        log.change_topic(&partition.topic, create).await.expect("there is room");
        for n in 0..N_RECORDS {
            let record = Record::of_value(n.to_string().into_bytes());
            log.append(&partition, vec![record]).await.expect("there is room");
        }
        if choice & 1 == 0 {
            log.close().await.expect("it is open");
        }
    }
    if choice & 2 == 0 {
        make_right(&mut bytes);
    }
    let segment = dir.join("t-0").join("00000000000000000000.log");
    disk.edit(&segment, |content| {
        // A log that was closed has nothing behind its last record.
        let at = (usize::from(choice >> 2) * 4).min(content.len());
        let end = (at + bytes.len()).min(content.len());
        content[at..end].copy_from_slice(&bytes[..end - at]);
    });
    // What was not closed is opened as after a kill.
    let disk = disk.after_kill();
    let Ok(log) = open(disk) else { return };
    let bounds = log.bounds(&partition).await.expect("the partition is there");
    let mut next = bounds.start;
    while next < bounds.end {
        match log.fetch(&partition, next, 1 << 20).await {
            Ok(records) => {
                assert!(!records.is_empty(), "nothing at {next} below the end {}", bounds.end);
                for record in records {
                    assert_eq!(record.offset, next);
                    next = next.plus(1);
                }
            }
            Err(LogError::Corrupt { range, .. }) => {
                assert!(range.start <= next && next < range.end, "{next} is not in {range:?}");
                next = range.end;
            }
            Err(e) => panic!("reading {next}: {e}"),
        }
    }
    let appended = log.append(&partition, vec![Record::of_value("new")]).await.expect("a log that opened goes on");
    let read = log.fetch(&partition, appended.start, 1 << 20).await.expect("what was appended is read");
    assert_eq!(read[0].record.value.as_deref(), Some(&b"new"[..]));
}

/// Gives one batch after the other the magic, a length that fits and its checksum.
fn make_right(bytes: &mut [u8]) {
    let mut rest = bytes;
    while rest.len() >= HEADER_BYTES {
        let claimed = u32::from_be_bytes(rest[8..12].try_into().expect("four bytes")) as usize;
        let size = (claimed % 512 + HEADER_BYTES).min(rest.len());
        let (batch, later) = rest.split_at_mut(size);
        batch[8..12].copy_from_slice(&(size as u32 - 12).to_be_bytes());
        batch[16] = 2;
        let checksum = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&checksum.to_be_bytes());
        rest = later;
    }
}
