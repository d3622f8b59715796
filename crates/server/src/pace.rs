//! How slowly bytes may move, in either direction: whoever sends or takes one byte a second holds
//! a connection and what belongs to it for as long as an honest client needs for thousands.

use std::time::Duration;

use model::config::ServerConfig;

/// So many bytes a second, and a time by which it may be fallen behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) bytes_per_second: u64,
    pub(crate) grace: Duration,
}

impl Pace {
    pub(crate) fn of(config: &ServerConfig) -> Self {
        Self { bytes_per_second: config.min_bytes_per_second, grace: Duration::from_millis(config.min_rate_grace_ms) }
    }

    /// How long it may take until more than `n_bytes` have moved; None for ever.
    pub(crate) fn allows(self, n_bytes: u64) -> Option<Duration> {
        let milliseconds = n_bytes.saturating_mul(1000).checked_div(self.bytes_per_second)?;
        Some(self.grace.saturating_add(Duration::from_millis(milliseconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_buys_time() {
        let allows = |bytes_per_second, n_bytes| {
            let pace = Pace { bytes_per_second, grace: Duration::from_secs(10) };
            pace.allows(n_bytes).map(|time| time.as_millis())
        };
        assert_eq!(allows(1000, 0), Some(10_000));
        assert_eq!(allows(1000, 2500), Some(12_500));
        assert_eq!(allows(0, 2500), None);
        assert!(allows(1, u64::MAX) > Some(1 << 50));
    }
}
