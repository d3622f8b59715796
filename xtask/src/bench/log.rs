//! The log alone: durable appends by several appenders, and how long it takes to open when it is
//! large and nothing of it is in memory.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Arguments,
    append_rate::{AppendRate, Rate},
    figures::{Figures, GOAL, goal, goals},
    files,
    scratch::Scratch,
    spread::median,
};

const REPEATS: usize = 3;
const LOG_BYTES: u64 = 5_000_000_000;
const APPENDS: [&str; 4] = ["appenders=8", "records=100", "bytes=500", "seconds=5"];
const MAX_MIB: f64 = 64.0;

pub(super) fn run(arguments: &Arguments) -> Result<Figures> {
    let append_rate = AppendRate::build()?;
    let scratch = Scratch::new("log")?;
    let n_repeats = arguments.repeats(REPEATS);

    let appends = APPENDS.map(str::to_owned);
    let mut rates = Vec::new();
    while rates.len() < n_repeats || files::n_bytes_below(&scratch)? < arguments.scaled(LOG_BYTES) {
        rates.push(append_rate.run(&scratch, &appends)?);
    }
    let n_bytes = files::n_bytes_below(&scratch)?;
    let mut opens = Vec::new();
    for _ in 0..n_repeats {
        files::forget(&scratch)?;
        opens.push(append_rate.run(&scratch, &["seconds=0".to_owned()])?);
    }

    let middle = |name: &str| median(&rates.iter().map(|rate| rate.figure(name)).collect::<Vec<_>>());
    let most = |of: &[Rate]| of.iter().map(|rate| rate.figure("peak_mib")).fold(0.0, f64::max);
    let mut figures =
        Figures::new(&["what", "log_gb", "n_runs", "records_per_second", "ms", "p99_ms", "peak_mib", GOAL]);
    let (rate, peak_mib) = (middle("records_per_second"), most(&rates));
    let met = goals([goal("≥ 300,000 records/s", rate >= 300_000.0), goal("≤ 64 MiB", peak_mib <= MAX_MIB)]);
    let (log_gb, p50_ms, p99_ms) = (n_bytes as f64 / 1e9, middle("p50_ms"), middle("p99_ms"));
    figures.push([
        json!("8 × 100 × 500 B, durable"),
        json!(log_gb),
        json!(rates.len()),
        json!(rate),
        json!(p50_ms),
        json!(p99_ms),
        json!(peak_mib),
        met,
    ]);
    let open_ms = median(&opens.iter().map(|open| open.figure("open_ms")).collect::<Vec<_>>());
    let peak_mib = most(&opens);
    let met = goals([goal("< 1 s", open_ms < 1000.0), goal("≤ 64 MiB", peak_mib <= MAX_MIB)]);
    figures.push([
        json!("cold open"),
        json!(log_gb),
        json!(opens.len()),
        Value::Null,
        json!(open_ms),
        Value::Null,
        json!(peak_mib),
        met,
    ]);
    Ok(figures)
}
