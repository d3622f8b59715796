//! What a run did, in figures and in one line.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;

use crate::emulate::live::Counters;

/// Latencies above this are counted as this.
const MAX_LATENCY_US: u64 = 3_600_000_000;

/// Latencies of acknowledged requests, to three digits.
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        // It grows with the largest latency seen.
        Self(Histogram::new(3).expect("three digits are fewer than the five allowed"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(MAX_LATENCY_US);
        self.0.record(us.clamp(1, MAX_LATENCY_US)).expect("the histogram grows");
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the histogram grows");
    }

    fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }
}

/// Quantiles of the time from when a request was due until its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyQuantiles {
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub p999: Duration,
    pub max: Duration,
}

impl From<&Latencies> for LatencyQuantiles {
    fn from(latencies: &Latencies) -> Self {
        Self {
            p50: latencies.at(0.5),
            p90: latencies.at(0.9),
            p99: latencies.at(0.99),
            p999: latencies.at(0.999),
            max: Duration::from_micros(latencies.0.max()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Posts whose every record was acknowledged.
    pub posts: u64,
    /// Records acknowledged.
    pub records: u64,
    /// Requests tried, retries among them.
    pub requests: u64,
    /// Records given up, by what went wrong.
    pub errors: BTreeMap<String, u64>,
    pub retries: u64,
    /// Bytes of the requests' bodies.
    pub sent_bytes: u64,
    pub seconds: f64,
    pub records_per_second: f64,
    pub latency: LatencyQuantiles,
}

impl Summary {
    pub(super) fn new(
        counters: Counters,
        errors: BTreeMap<String, u64>,
        elapsed: Duration,
        latencies: &Latencies,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let records_per_second = if seconds > 0.0 { counters.records as f64 / seconds } else { 0.0 };
        Self {
            posts: counters.posts,
            records: counters.records,
            requests: counters.requests,
            errors,
            retries: counters.retries,
            sent_bytes: counters.sent_bytes,
            seconds,
            records_per_second,
            latency: LatencyQuantiles::from(latencies),
        }
    }

    /// Records given up.
    pub fn n_errors(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LatencyQuantiles { p50, p90, p99, p999, max } = self.latency;
        let errors: Vec<String> = self.errors.iter().map(|(kind, n)| format!("{} × {kind}", grouped(*n))).collect();
        let errors = if errors.is_empty() { "none".to_owned() } else { errors.join(", ") };
        write!(
            f,
            "{} posts, {} records in {:.2} s: {} records/s, latency p50 {} p90 {} p99 {} p99.9 {} max {}, \
             retries {}, errors {errors}",
            grouped(self.posts),
            grouped(self.records),
            self.seconds,
            grouped(self.records_per_second.round() as u64),
            short(p50),
            short(p90),
            short(p99),
            short(p999),
            short(max),
            grouped(self.retries),
        )
    }
}

/// `1234567` as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits and a unit.
fn short(latency: Duration) -> String {
    let us = latency.as_micros();
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_one_line() {
        let mut latencies = Latencies::new();
        for ms in 1..=1_000 {
            latencies.record(Duration::from_millis(ms));
        }
        let counters = Counters { posts: 1_000, records: 3_000, requests: 3_002, retries: 2, ..Counters::default() };
        let errors = BTreeMap::from([("HTTP 422".to_owned(), 1)]);
        let summary = Summary::new(counters, errors, Duration::from_millis(1_500), &latencies);
        assert_eq!(
            summary.to_string(),
            "1,000 posts, 3,000 records in 1.50 s: 2,000 records/s, latency p50 500 ms p90 900 ms p99 990 ms \
             p99.9 999 ms max 1.00 s, retries 2, errors 1 × HTTP 422"
        );
    }
}
