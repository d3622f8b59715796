//! Settings: how this process runs. `config/default.toml` is the list of all of them; then
//! comes the file of `--config`, then `CORKBOARD__SECTION__KEY`. Read once, passed by value.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// The text of `config/default.toml`, as `corkboard default-config` prints it.
pub const DEFAULT: &str = include_str!("../../../config/default.toml");

/// DataFusion reserves memory for each open Parquet column and sorted run: with less than this,
/// spilling does not help.
const LEAST_QUERY_MEMORY: usize = 32 << 20;

/// What the names of environment variables begin with that are settings.
pub const ENVIRONMENT_PREFIX: &str = "CORKBOARD__";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub definitions: DefinitionsConfig,
    pub server: ServerConfig,
    pub auth: AuthConfig,
    pub ingest: IngestConfig,
    pub consumers: ConsumersConfig,
    pub kinesis: KinesisConfig,
    pub log: LogConfig,
    pub landing: LandingConfig,
    pub speed: SpeedConfig,
    pub batch: BatchConfig,
    pub serving: ServingConfig,
    pub maintain: MaintainConfig,
    pub tasks: TasksConfig,
    pub driver: DriverConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionsConfig {
    pub folder: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub allowed_hosts: Vec<String>,
    pub cors_origins: Vec<String>,
    pub tls_cert_file: String,
    pub tls_key_file: String,
    pub tls_handshake_timeout_ms: u64,
    pub max_connections: usize,
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub min_bytes_per_second: u64,
    pub min_rate_grace_ms: u64,
    pub idle_timeout_ms: u64,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub drain_timeout_ms: u64,
}

/// Who may ask for what. It names files; no secret stands in the settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    pub mode: AuthMode,
    pub keys_file: String,
    pub secret_file: String,
    pub presigned: bool,
    pub refuse_replays: bool,
    pub max_replay_signatures: usize,
    pub max_failures_per_minute: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Whoever reaches the port may do anything.
    Off,
    /// A request brings a key of `keys_file`, or is signed with one.
    Keys,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestConfig {
    pub max_body_bytes: usize,
    pub max_records_per_request: usize,
    pub max_batch_entries: usize,
    pub max_stream_ms: u64,
    pub max_record_bytes: usize,
    pub max_json_depth: usize,
    pub max_inflight_bytes: usize,
    pub auto_create_topics: bool,
    pub default_partitions: u32,
    pub max_topics: usize,
    pub max_partitions_per_topic: u32,
    pub delete_timeout_ms: u64,
    pub strict: bool,
    pub idempotency_window_ms: u64,
    pub idempotency_memory_bytes: usize,
    pub idempotency_read_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumersConfig {
    pub lease_ms: u64,
    pub instance_retention_ms: u64,
    pub offset_retention_ms: u64,
    pub max_groups: usize,
    pub max_instances_per_group: usize,
    pub max_topics_per_subscription: usize,
    pub max_partitions_per_group: usize,
    pub request_timeout_ms: u64,
    pub max_request_timeout_ms: u64,
    pub max_fetch_bytes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KinesisConfig {
    pub limits: KinesisLimits,
}

/// Whether shards are held to the throughput that AWS allows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KinesisLimits {
    Off,
    Aws,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    pub segment_bytes: u64,
    pub index_interval_bytes: u64,
    pub mark_interval_bytes: u64,
    pub max_group_bytes: usize,
    pub max_queue_bytes: usize,
    pub max_open_files: usize,
    pub retention_ms: u64,
    pub retention_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandingConfig {
    pub flush_size: usize,
    pub rotate_interval_ms: u64,
    pub idle_flush_ms: u64,
    pub max_object_bytes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeedConfig {
    pub linger_ms: u64,
    pub max_rows: usize,
    pub max_bytes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    pub memory_bytes: usize,
    pub chunk_rows: usize,
    pub row_group_rows: usize,
    pub target_file_bytes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServingConfig {
    pub memory_bytes: usize,
    pub max_recent_bytes: usize,
    pub max_tail_bytes: usize,
    pub query_timeout_ms: u64,
    pub max_concurrent_queries: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintainConfig {
    pub compact_min_files: usize,
    pub compact_target_bytes: u64,
    pub checkpoint_commits: u64,
    pub vacuum_retention_ms: u64,
    pub commit_retention_ms: u64,
}

/// When each of the tasks runs; there are no others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TasksConfig {
    pub landing: ScheduleConfig,
    pub speed: ScheduleConfig,
    pub batch: ScheduleConfig,
    pub compact: ScheduleConfig,
    pub vacuum: ScheduleConfig,
    pub trim: ScheduleConfig,
}

impl TasksConfig {
    /// With their names.
    pub fn each(&self) -> [(&'static str, &ScheduleConfig); 6] {
        let Self { landing, speed, batch, compact, vacuum, trim } = self;
        [
            ("landing", landing),
            ("speed", speed),
            ("batch", batch),
            ("compact", compact),
            ("vacuum", vacuum),
            ("trim", trim),
        ]
    }
}

/// When a task runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    pub every_ms: Option<u64>,
    pub cron: Option<String>,
    pub on_append: bool,
    pub after: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriverConfig {
    pub backoff_min_ms: u64,
    pub backoff_max_ms: u64,
    pub min_pause_ms: u64,
    pub history_runs: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("{source_name}: {problem}\n`corkboard default-config` prints every setting with its meaning")]
pub struct InvalidConfig {
    pub source_name: String,
    pub problem: String,
}

impl Config {
    /// The defaults alone.
    pub fn defaults() -> Self {
        Self::load(None, std::iter::empty()).expect("config/default.toml is whole, as a test shows")
    }

    /// Defaults, then `file` (its name and text), then those of `environment` whose names
    /// begin with `CORKBOARD__`.
    pub fn load(
        file: Option<(&str, &str)>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, InvalidConfig> {
        let parse = |source_name: &str, text: &str| {
            let invalid = |e: toml::de::Error| InvalidConfig {
                source_name: source_name.to_owned(),
                problem: e.to_string().trim_end().to_owned(),
            };
            text.parse::<Table>().map_err(invalid)
        };
        let mut settings = parse("config/default.toml", DEFAULT)?;
        // Read after each layer, so that an error names the layer that brought it. What settings
        // have to do with each other is looked at in the end: their order must not matter.
        let mut source_name = "config/default.toml".to_owned();
        let mut config = read(&source_name, &settings)?;
        if let Some((name, text)) = file {
            merge(&mut settings, parse(name, text)?);
            source_name = name.to_owned();
            config = read(name, &settings)?;
        }
        for (name, value) in environment {
            let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
            merge(&mut settings, nested(&keys, typed(&value)));
            config = read(&name, &settings)?;
            source_name = name;
        }
        config.check(&source_name)?;
        Ok(config)
    }

    /// Looks at what settings have to do with each other and with what works at all; an error
    /// names `source_name` as the layer that brought it.
    pub fn check(&self, source_name: &str) -> Result<(), InvalidConfig> {
        let invalid = |problem: String| InvalidConfig { source_name: source_name.to_owned(), problem };
        for (name, value) in [
            ("server.max_connections", self.server.max_connections),
            ("auth.max_replay_signatures", self.auth.max_replay_signatures),
            ("auth.max_failures_per_minute", self.auth.max_failures_per_minute as usize),
            ("ingest.max_body_bytes", self.ingest.max_body_bytes),
            ("ingest.max_records_per_request", self.ingest.max_records_per_request),
            ("ingest.max_batch_entries", self.ingest.max_batch_entries),
            ("ingest.max_record_bytes", self.ingest.max_record_bytes),
            ("ingest.max_json_depth", self.ingest.max_json_depth),
            ("ingest.default_partitions", self.ingest.default_partitions as usize),
            ("consumers.lease_ms", usize::try_from(self.consumers.lease_ms).unwrap_or(usize::MAX)),
            ("consumers.max_groups", self.consumers.max_groups),
            ("consumers.max_instances_per_group", self.consumers.max_instances_per_group),
            ("consumers.max_topics_per_subscription", self.consumers.max_topics_per_subscription),
            ("consumers.max_partitions_per_group", self.consumers.max_partitions_per_group),
            ("consumers.max_fetch_bytes", self.consumers.max_fetch_bytes),
            ("log.max_group_bytes", self.log.max_group_bytes),
            ("landing.flush_size", self.landing.flush_size),
            ("landing.max_object_bytes", self.landing.max_object_bytes),
            ("speed.max_rows", self.speed.max_rows),
            ("speed.max_bytes", self.speed.max_bytes),
            ("batch.chunk_rows", self.batch.chunk_rows),
            ("batch.row_group_rows", self.batch.row_group_rows),
            ("serving.max_concurrent_queries", self.serving.max_concurrent_queries),
            ("driver.history_runs", self.driver.history_runs),
        ] {
            if value == 0 {
                return Err(invalid(format!("{name} is 0; it must be at least 1")));
            }
        }
        for (name, value) in
            [("batch.memory_bytes", self.batch.memory_bytes), ("serving.memory_bytes", self.serving.memory_bytes)]
        {
            if value < LEAST_QUERY_MEMORY {
                let least = LEAST_QUERY_MEMORY >> 20;
                return Err(invalid(format!("{name} is {value}; sorts spill to disk, but need at least {least} MiB")));
            }
        }
        if self.server.tls_cert_file.is_empty() != self.server.tls_key_file.is_empty() {
            return Err(invalid(
                "server.tls_cert_file and server.tls_key_file are set together or not at all".to_owned(),
            ));
        }
        for origin in &self.server.cors_origins {
            if !is_origin(origin) {
                return Err(invalid(format!(
                    "server.cors_origins: {origin:?} is not an origin such as https://example.org, nor *"
                )));
            }
        }
        for (task, schedule) in self.tasks.each() {
            let is_known = |after: &&String| self.tasks.each().iter().any(|(known, _)| known == after);
            if let Some(unknown) = schedule.after.iter().find(|after| !is_known(after)) {
                return Err(invalid(format!("tasks.{task}.after names {unknown:?}, and there is no such task")));
            }
        }
        if self.ingest.max_inflight_bytes < self.ingest.max_body_bytes {
            return Err(invalid("ingest.max_inflight_bytes is smaller than ingest.max_body_bytes".to_owned()));
        }
        if self.log.segment_bytes < 2 * self.ingest.max_record_bytes as u64 {
            return Err(invalid("log.segment_bytes is smaller than two records of ingest.max_record_bytes".to_owned()));
        }
        Ok(())
    }
}

/// `*`, or a scheme and an authority as browsers write them: nothing after it, nothing to escape.
fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    text == "*" || authority.is_some_and(|a| !a.is_empty() && a.bytes().all(allowed))
}

fn read(source_name: &str, settings: &Table) -> Result<Config, InvalidConfig> {
    let invalid = |e: toml::de::Error| InvalidConfig {
        source_name: source_name.to_owned(),
        problem: e.to_string().trim_end().to_owned(),
    };
    Config::deserialize(Value::Table(settings.clone())).map_err(invalid)
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn nested(keys: &[String], value: Value) -> Table {
    let (last, sections) = keys.split_last().expect("split yields at least one part");
    let innermost = Table::from_iter([(last.clone(), value)]);
    sections.iter().rev().fold(innermost, |inner, key| Table::from_iter([(key.clone(), Value::Table(inner))]))
}

/// `8080`, `true` and `["a"]` mean what they mean in TOML; anything else is a string.
fn typed(text: &str) -> Value {
    let as_toml = format!("value = {text}").parse::<Table>().ok();
    as_toml.and_then(|mut t| t.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, InvalidConfig> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(Some(("my.toml", file)), environment)
    }

    #[test]
    fn later_layers_win() {
        let file = "[server]\nlisten = \"127.0.0.1:9000\"\n[landing]\nflush_size = 7\n";
        let config = load(file, &[("CORKBOARD__LANDING__FLUSH_SIZE", "8"), ("OTHER", "x")]).expect("valid");
        assert_eq!(config.server.listen.port(), 9000);
        assert_eq!(config.landing.flush_size, 8);
        assert_eq!(config.landing.idle_flush_ms, Config::defaults().landing.idle_flush_ms);
    }

    #[test]
    fn settings_that_depend_on_each_other_may_come_in_any_order() {
        let small = [("CORKBOARD__LOG__SEGMENT_BYTES", "1048576"), ("CORKBOARD__INGEST__MAX_RECORD_BYTES", "65536")];
        for environment in [[small[0], small[1]], [small[1], small[0]]] {
            assert_eq!(load("", &environment).expect("valid").log.segment_bytes, 1_048_576);
        }
    }

    #[test]
    fn errors_name_the_layer_and_the_key() {
        for (file, environment, words) in [
            ("[server]\nlissten = 1\n", None, ["my.toml", "lissten"]),
            ("[server]\nlisten = 1\n", None, ["my.toml", "listen"]),
            ("[landing]\nflush_size = 0\n", None, ["my.toml", "landing.flush_size"]),
            ("[server]\ntls_cert_file = \"a.pem\"\n", None, ["my.toml", "server.tls_key_file"]),
            ("[server]\ncors_origins = [\"https://a.org/\"]\n", None, ["my.toml", "server.cors_origins"]),
            ("[auth]\nmode = \"on\"\n", None, ["my.toml", "mode"]),
            ("[tasks.bacth]\nevery_ms = 1\n", None, ["my.toml", "bacth"]),
            ("[tasks.trim]\nafter = [\"bacth\"]\n", None, ["my.toml", "tasks.trim.after"]),
            ("", Some(("CORKBOARD__TASKS__BACTH__CRON", "@daily")), ["CORKBOARD__TASKS__BACTH__CRON", "bacth"]),
            ("[batch]\nmemory_bytes = 1024\n", None, ["batch.memory_bytes", "32 MiB"]),
            ("", Some(("CORKBOARD__SERVER__PORT", "1")), ["CORKBOARD__SERVER__PORT", "port"]),
            ("", Some(("CORKBOARD__LOG__SEGMENT_BYTES", "1000")), ["SEGMENT_BYTES", "log.segment_bytes"]),
        ] {
            let environment: Vec<_> = environment.into_iter().collect();
            let error = load(file, &environment).expect_err(file).to_string();
            assert!(words.iter().all(|w| error.contains(w)), "{error}");
        }
    }
}
