//! How figures that were taken more than once are summed up.

use std::time::Duration;

/// The middle one of several figures, the lower one of two middles.
pub(super) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The smallest latency that a fraction `q` of all do not exceed, in milliseconds; not a number
/// where there is none.
pub(super) fn quantile_ms(latencies: &mut [Duration], q: f64) -> f64 {
    latencies.sort_unstable();
    let rank = (latencies.len() as f64 * q).ceil().max(1.0) as usize;
    latencies.get(rank - 1).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}

/// The exponent `k` of `y = a·xᵏ` that fits best: least squares on logarithms.
pub(super) fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let mean_x = logs.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = logs.iter().map(|(_, y)| y).sum::<f64>() / n;
    let covariance: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    covariance / logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_figures() {
        for (figures, expected) in [(&[3.0, 1.0, 2.0][..], 2.0), (&[4.0, 1.0, 2.0, 3.0], 2.0), (&[7.0], 7.0)] {
            assert_eq!(median(figures), expected);
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_quantile_is_one_of_the_latencies() {
        let mut latencies: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        for (q, expected) in [(0.0, 1.0), (0.5, 100.0), (0.99, 198.0), (1.0, 200.0)] {
            assert_eq!(quantile_ms(&mut latencies, q), expected, "{q}");
        }
        assert!(quantile_ms(&mut [], 0.5).is_nan());
    }

    #[test]
    fn the_exponent_is_that_of_a_power_law() {
        let points = [0.1, 1.0, 10.0].map(|x: f64| (x, 3.0 * x.powf(1.25)));
        assert!((exponent(&points) - 1.25).abs() < 1e-9);
    }
}
