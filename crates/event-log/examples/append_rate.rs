//! How many records per second the embedded log takes durably:
//! `append_rate FOLDER [NAME=VALUE …]`, by default 8 appenders with appends of 100 records of 500
//! bytes to 12 partitions, for 5 seconds. Prints one JSON object; 0 seconds only open the log.

use std::{env, path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use event_log::EmbeddedLog;
use model::{EventLog, Record, TopicChange, TopicName, TopicPartition, config::Config};

struct Load {
    n_appenders: u32,
    n_partitions: u32,
    n_records: usize,
    record_bytes: usize,
    seconds: u64,
}

impl Load {
    fn set(&mut self, setting: &str) -> Result<()> {
        let (name, value) = setting.split_once('=').with_context(|| format!("{setting} is no NAME=VALUE"))?;
        let value: u32 = value.parse().with_context(|| format!("{setting} has no whole number"))?;
        match name {
            "appenders" => self.n_appenders = value,
            "partitions" => self.n_partitions = value,
            "records" => self.n_records = value as usize,
            "bytes" => self.record_bytes = value as usize,
            "seconds" => self.seconds = value.into(),
            _ => bail!("{name} is unknown: appenders, partitions, records, bytes and seconds are known"),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("name a folder on the disk in question")?);
    let mut load = Load { n_appenders: 8, n_partitions: 12, n_records: 100, record_bytes: 500, seconds: 5 };
    arguments.try_for_each(|setting| load.set(&setting))?;
    let began = Instant::now();
    let log = Arc::new(EmbeddedLog::open(&folder, &Config::defaults().log, 1 << 20)?);
    let mut figures = serde_json::json!({ "open_ms": began.elapsed().as_secs_f64() * 1e3 });
    if load.seconds > 0 {
        let topic: TopicName = format!("rate{}", log.describe().await?.topics.len()).parse()?;
        log.change_topic(&topic, TopicChange::Create { n_partitions: load.n_partitions }).await?;
        let (records_per_second, latencies_ms) = append(&log, &topic, &load).await?;
        figures["records_per_second"] = records_per_second.into();
        figures["p50_ms"] = latencies_ms[latencies_ms.len() / 2].into();
        figures["p99_ms"] = latencies_ms[latencies_ms.len() * 99 / 100].into();
    }
    figures["peak_mib"] = peak_mib()?.into();
    println!("{figures}");
    log.close().await?;
    Ok(())
}

/// Records per second over all appenders, and their latencies, sorted.
async fn append(log: &Arc<EmbeddedLog>, topic: &TopicName, load: &Load) -> Result<(f64, Vec<f64>)> {
    let (n_records, record_bytes, seconds) = (load.n_records, load.record_bytes, load.seconds);
    let began = Instant::now();
    let appenders = (0..load.n_appenders).map(|appender| {
        let (log, partition) = (Arc::clone(log), TopicPartition::new(topic.clone(), appender % load.n_partitions));
        tokio::spawn(async move {
            let records = vec![Record::of_value(vec![b'x'; record_bytes]); n_records];
            let mut latencies_ms = Vec::new();
            while began.elapsed().as_secs() < seconds {
                let sent = Instant::now();
                log.append(&partition, records.clone()).await?;
                latencies_ms.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, model::LogError>(latencies_ms)
        })
    });
    let mut latencies_ms = Vec::new();
    for appender in appenders.collect::<Vec<_>>() {
        latencies_ms.extend(appender.await??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    latencies_ms.sort_unstable_by(f64::total_cmp);
    Ok(((latencies_ms.len() * n_records) as f64 / elapsed, latencies_ms))
}

fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel tells no peak")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
