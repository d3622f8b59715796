//! Every connection is an open file, and many systems allow a process 1,024 of them unless it asks
//! for more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Open files beside the connections: the log's segments, tables, spilled sorts.
const OTHER_FILES: u64 = 1024;

/// Raises the process's own limit as far as it may; says so if that is too little.
pub(super) fn allow(max_connections: usize) {
    let wanted = OTHER_FILES.saturating_add(max_connections as u64);
    let limits = getrlimit(Resource::Nofile);
    // None stands for no limit.
    let [current, maximum] = [limits.current, limits.maximum].map(|limit| limit.unwrap_or(u64::MAX));
    if current >= wanted {
        return;
    }
    let raised = wanted.min(maximum);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limits.maximum }) {
        debug!("the limit of open files could not be raised: {e}");
    }
    if getrlimit(Resource::Nofile).current.is_some_and(|now| now < wanted) {
        warn!(
            wanted,
            allowed = raised,
            "this process may not open enough files for server.max_connections = {max_connections}: \
             lower that, or raise the limit (ulimit -n, LimitNOFILE= of systemd)"
        );
    }
}
