//! How many records per second the embedded log takes durably: `append_rate [FOLDER]`, by
//! default 8 appenders with appends of 100 records of 500 bytes, for 5 seconds.

use std::{env, path::PathBuf, sync::Arc, time::Instant};

use event_log::EmbeddedLog;
use model::{EventLog, Record, TopicPartition, config::Config};

const N_APPENDERS: u32 = 8;
const N_PARTITIONS: u32 = 12;
const N_RECORDS: usize = 100;
const RECORD_BYTES: usize = 500;
const SECONDS: u64 = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = env::args().nth(1).map_or_else(|| env::temp_dir().join("append-rate"), PathBuf::from);
    let began = Instant::now();
    let log = Arc::new(EmbeddedLog::open(&folder, &Config::defaults().log, 1 << 20)?);
    println!("opened in {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    let topic = format!("rate{}", log.describe().await?.topics.len()).parse()?;
    log.create_topic(&topic, N_PARTITIONS).await?;
    let began = Instant::now();
    let appenders = (0..N_APPENDERS).map(|appender| {
        let (log, partition) = (Arc::clone(&log), TopicPartition::new(topic.clone(), appender % N_PARTITIONS));
        tokio::spawn(async move {
            let records = vec![Record::of_value(vec![b'x'; RECORD_BYTES]); N_RECORDS];
            let mut latencies_us = Vec::new();
            while began.elapsed().as_secs() < SECONDS {
                let sent = Instant::now();
                log.append(&partition, records.clone()).await?;
                latencies_us.push(sent.elapsed().as_micros());
            }
            Ok::<_, model::LogError>(latencies_us)
        })
    });
    let mut latencies_us = Vec::new();
    for appender in appenders.collect::<Vec<_>>() {
        latencies_us.extend(appender.await??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    latencies_us.sort_unstable();
    let quantile = |q: usize| latencies_us[(latencies_us.len() - 1) * q / 100] as f64 / 1000.0;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    println!("{:.0} records/s", (latencies_us.len() * N_RECORDS) as f64 / elapsed);
    println!("append p50 {:.2} ms, p99 {:.2} ms; {peak}", quantile(50), quantile(99));
    log.close().await?;
    Ok(())
}
