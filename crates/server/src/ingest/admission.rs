//! Bodies in memory are paid for in bytes before they are read. What does not fit is refused
//! at once: whoever waits here would hold a connection and gain nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use prometheus_client::metrics::gauge::Gauge;

#[derive(Clone)]
pub(super) struct Budget {
    limit_bytes: usize,
    taken_bytes: Arc<AtomicUsize>,
    gauge: Gauge,
}

impl Budget {
    pub(super) fn new(limit_bytes: usize, gauge: Gauge) -> Self {
        Self { limit_bytes, taken_bytes: Arc::default(), gauge }
    }

    /// Whether so much would find room at this moment.
    pub(super) fn has_room(&self, n_bytes: usize) -> bool {
        self.taken_bytes.load(Relaxed).checked_add(n_bytes).is_some_and(|sum| sum <= self.limit_bytes)
    }

    /// Room for `n_bytes`, given back when the permit is dropped; None when there is none.
    pub(super) fn take(&self, n_bytes: usize) -> Option<Permit> {
        let mut permit = Permit { budget: self.clone(), n_bytes: 0 };
        permit.grow(n_bytes).then_some(permit)
    }
}

/// Room in the budget, given back when this is dropped.
pub struct Permit {
    budget: Budget,
    n_bytes: usize,
}

impl Permit {
    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Takes room for `more_bytes`; false, and nothing taken, when there is none.
    pub(super) fn grow(&mut self, more_bytes: usize) -> bool {
        let limit = self.budget.limit_bytes;
        let fits = |taken: usize| taken.checked_add(more_bytes).filter(|sum| *sum <= limit);
        if self.budget.taken_bytes.fetch_update(Relaxed, Relaxed, fits).is_err() {
            return false;
        }
        self.n_bytes += more_bytes;
        self.budget.gauge.inc_by(gauge_bytes(more_bytes));
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.taken_bytes.fetch_sub(self.n_bytes, Relaxed);
        self.budget.gauge.dec_by(gauge_bytes(self.n_bytes));
    }
}

fn gauge_bytes(n_bytes: usize) -> i64 {
    i64::try_from(n_bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_never_exceed_the_limit_and_give_back_what_they_took() {
        let gauge = Gauge::default();
        let budget = Budget::new(10, gauge.clone());
        let mut first = budget.take(6).expect("fits");
        assert!(budget.take(5).is_none());
        assert!(budget.take(usize::MAX).is_none());
        assert!(first.grow(4));
        assert!(!first.grow(1));
        assert_eq!(gauge.get(), 10);
        drop(first);
        assert_eq!(gauge.get(), 0);
        assert!(budget.take(10).is_some());
    }
}
