//! What `/metrics` shows, in Prometheus text.

pub struct Metrics {}
