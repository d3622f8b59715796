//! Starts tasks by period, cron, signal and `after`; keeps their status and history.

/// Asks a running driver: what the tasks are doing, and to run one now.
#[derive(Clone)]
pub struct Handle {}
