//! Every implementation against the contract of `EventLog`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use event_log::{EmbeddedLog, MemoryLog, conformance};
use model::EventLog;

use crate::support::{MAX_RECORD_BYTES, default_config, small};

#[tokio::test(flavor = "multi_thread")]
async fn the_log_in_memory_conforms() {
    let fresh = || async { Arc::new(MemoryLog::with_max_record_bytes(5000)) as Arc<dyn EventLog> };
    conformance::run(5000, fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_log_conforms_with_any_settings() {
    let dir = tempfile::tempdir().unwrap();
    let n_logs = AtomicUsize::new(0);
    for (config, max_record_bytes) in [(small(), MAX_RECORD_BYTES), (default_config(), 1 << 20)] {
        let fresh = || async {
            let dir = dir.path().join(n_logs.fetch_add(1, Ordering::Relaxed).to_string());
            Arc::new(EmbeddedLog::open(&dir, &config, max_record_bytes).unwrap()) as Arc<dyn EventLog>
        };
        conformance::run(max_record_bytes, fresh).await;
    }
}
