//! Any name and any content of an object in the landing folder, in pieces of any size: foreign, torn
//! at the right line, or its lines.

#![no_main]

use std::sync::Arc;

use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use model::{Checkpoint, LogId, Offset, TopicPartition};
use object_store::{ObjectStoreExt, PutPayload, chunked::ChunkedStore, memory::InMemory, path::Path};

#[path = "../../crates/engine/src/landing/objects.rs"]
#[allow(dead_code)]
mod objects;

fuzz_target!(|data: &[u8]| {
    let [piece_bytes, n_name, rest @ ..] = data else { return };
    let (name, content) = rest.split_at(usize::from(*n_name).min(rest.len()));
    block_on(async {
        read_content(usize::from(*piece_bytes) + 1, content).await;
        list_name(&String::from_utf8_lossy(name)).await;
    });
});

async fn read_content(piece_bytes: usize, content: &[u8]) {
    let memory = Arc::new(InMemory::new());
    let partition: TopicPartition = "a.pin-3".parse().expect("a partition");
    let key = objects::key_of(&partition, Offset(10));
    memory.put(&key, PutPayload::from(content.to_vec())).await.expect("memory takes it");
    let store = ChunkedStore::new(memory, piece_bytes);
    let listing = objects::list(&store, None, &Checkpoint::start_of(LogId::NONE)).await.expect("memory lists");
    assert_eq!((listing.objects.len(), listing.n_foreign), (1, 0));
    let mut lines = objects::lines(&store, &listing.objects[0]).await.expect("memory reads");
    let mut read = Vec::new();
    let torn = loop {
        match lines.next_block().await {
            Ok(Some(block)) => {
                for (offset, line) in block.lines() {
                    assert_eq!(offset.0, 10 + read.len() as u64);
                    read.push(line.to_vec());
                }
            }
            Ok(None) => break None,
            Err(objects::ReadError::Torn(torn)) => break Some(torn),
            Err(e) => panic!("memory reads: {e}"),
        }
    };
    let mut whole: Vec<&[u8]> = content.split(|b| *b == b'\n').collect();
    let after_last = whole.pop().expect("split gives a part");
    let n_good = whole.iter().take_while(|line| std::str::from_utf8(line).is_ok()).count();
    let is_whole = n_good == whole.len() && after_last.is_empty() && !content.is_empty();
    assert!(read.len() <= n_good && read.iter().zip(&whole).all(|(read, line)| read == line));
    match torn {
        None => assert!(is_whole && read.len() == whole.len()),
        Some(torn) => assert!(!is_whole && torn.line == n_good as u64 + 1, "{torn} but {n_good} lines are whole"),
    }
}

async fn list_name(name: &str) {
    let Ok(key) = Path::parse(format!("topics/{name}")) else { return };
    let memory = InMemory::new();
    memory.put(&key, PutPayload::from_static(b"1\n")).await.expect("memory takes it");
    let listing = objects::list(&memory, None, &Checkpoint::start_of(LogId::NONE)).await.expect("memory lists");
    assert_eq!(listing.objects.len() + listing.n_foreign, 1, "{key}");
    for object in listing.objects {
        // Widths of offsets differ; nothing else may.
        let canonical = objects::key_of(&object.partition, object.start);
        assert_eq!(canonical.as_ref().replace('0', ""), key.as_ref().replace('0', ""));
    }
}
