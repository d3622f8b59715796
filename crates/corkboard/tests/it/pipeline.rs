//! Settings and definitions as a user writes them: files that differ from the defaults in what
//! a test is about.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    http::Client,
    posts::STREAMS,
    process::{self, Server},
};

/// Everything happens soon and in small pieces.
pub(crate) const SMALL: &str = "
[landing]
flush_size = 40
idle_flush_ms = 100

[speed]
linger_ms = 50

[driver]
min_pause_ms = 10
backoff_min_ms = 10
";

/// Nothing happens unless a test asks for it, and then it happens at once.
pub(crate) const BY_HAND: &str = "
[landing]
flush_size = 1

[speed]
linger_ms = 0

[tasks]
landing = { every_ms = 86400000, on_append = false }
speed = { every_ms = 86400000, on_append = false }

[driver]
min_pause_ms = 1
";

/// Writes a file of settings, for `--config`.
pub(crate) fn settings(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("settings.toml");
    fs::write(&path, text).unwrap();
    path
}

/// Writes the default pipeline with another deduplication and further settings; gives the file
/// for `--config`.
pub(crate) fn definitions(folder: &Path, dedup: &str, more_settings: &str) -> PathBuf {
    process::run(&format!("init {}", folder.display()), &[]).succeeded();
    for stream in STREAMS {
        edit(&folder.join(format!("streams/{stream}.toml")), "dedup = \"key\"", &format!("dedup = \"{dedup}\""));
    }
    let settings = folder.join("corkboard.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text + more_settings).unwrap();
    settings
}

/// Replaces text that must be there.
pub(crate) fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

/// A running pipeline in which only asked-for tasks run.
pub(crate) struct ByHand {
    pub(crate) scratch: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) client: Client,
}

impl ByHand {
    pub(crate) fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let config = settings(scratch.path(), BY_HAND);
        let server = Server::start("up", &[("--data", &scratch.path().join("data")), ("--config", &config)]);
        let client = server.client();
        Self { scratch, server, client }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    pub(crate) fn rows(&mut self, view: &str) -> Value {
        self.client.json(&format!("/api/views/{view}"))["rows"].clone()
    }
}
