//! ferrokinesis, another maker's Kinesis in memory: installed once into the user's cache, and
//! started anew for each setting, since it keeps all that it was given.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{cache, process, workspace};

/// Names the crate and its version in one line.
const LIST: &str = "tests/reference/kinesis/peer.txt";
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

pub(super) struct Peer {
    child: Child,
    /// `host:port`.
    pub(super) address: String,
}

/// The program, built for minutes if it is not there yet.
pub(super) fn binary() -> Result<PathBuf> {
    let text = fs::read_to_string(workspace::root().join(LIST)).with_context(|| format!("read {LIST}"))?;
    let (name, _) = listed(&text).with_context(|| format!("{LIST} names no crate and its version"))?;
    Ok(cache::prepared(name, LIST, install)?.join("bin").join(name))
}

fn install(folder: &Path, list: &Path) -> Result<()> {
    let text = fs::read_to_string(list)?;
    let (name, version) = listed(&text).context("the list names no crate and its version")?;
    process::run(workspace::cargo().args(["install", name, "--version", version, "--locked", "--root"]).arg(folder))
}

fn listed(text: &str) -> Option<(&str, &str)> {
    text.lines().find(|line| !line.starts_with('#') && !line.is_empty())?.split_once(' ')
}

impl Peer {
    pub(super) fn start(binary: &Path) -> Result<Self> {
        // Whoever takes the port in between makes the start fail, nothing worse.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(binary);
        command.args(["--port", &address.port().to_string(), "--shard-limit", "50"]);
        command.args(["--create-stream-ms", "50", "--delete-stream-ms", "50", "--update-stream-ms", "50"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let mut peer = Self { child, address: address.to_string() };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(peer.child.try_wait()?.is_none(), "{} ended at once", binary.display());
            ensure!(begin.elapsed() < START, "{} does not listen", binary.display());
            thread::sleep(POLL);
        }
        Ok(peer)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_a_crate_and_its_version() {
        assert_eq!(listed("# a\n\nx-y 1.2.3\n"), Some(("x-y", "1.2.3")));
        assert_eq!(listed("# a\n"), None);
        let text = fs::read_to_string(workspace::root().join(LIST)).expect("it is part of the project");
        assert!(listed(&text).is_some());
    }
}
