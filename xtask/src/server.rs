//! A Corkboard of one's own for one bench or proof: the release binary on a free port, with an empty
//! data folder on the disk that the build lies on (a folder in memory would sync for nothing).

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{process, workspace};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);
const ANNOUNCEMENT: &str = "listening on http://";

pub(crate) struct Server {
    child: Child,
    /// Its data.
    pub(crate) folder: PathBuf,
    /// Whether the data goes with this.
    owns_folder: bool,
    /// `host:port`.
    pub(crate) address: String,
}

/// The product's binary, built unless one is given.
pub(crate) fn binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(binary) = given {
        return Ok(binary.to_owned());
    }
    process::run(workspace::cargo().args(["build", "--release", "--package", "corkboard"]))?;
    Ok(workspace::target_folder()?.join("release").join("corkboard"))
}

impl Server {
    /// `settings` are variables of its environment.
    pub(crate) fn start(binary: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let folder = workspace::target_folder()?.join(format!("data-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let mut server = Self::start_in(folder, binary, settings)?;
        server.owns_folder = true;
        Ok(server)
    }

    /// In a folder that stays.
    pub(crate) fn start_in(folder: PathBuf, binary: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.envs(settings.iter().copied()).arg("up").arg("--data").arg(&folder).args(["--listen", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let (found, announced) = mpsc::channel();
        let stdout = child.stdout.take().expect("it was asked to be piped");
        let stderr = child.stderr.take().expect("it was asked to be piped");
        thread::spawn({
            let found = found.clone();
            move || watch(stdout, &found)
        });
        thread::spawn(move || watch(stderr, &found));
        let mut server = Self { child, folder, owns_folder: false, address: String::new() };
        server.address = announced.recv_timeout(START).context("the server did not say where it listens")?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// In good order, so that its data is as a start will find it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        process::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let status = self.child.wait().context("wait for the server's end")?;
        ensure!(status.success(), "the server did not stop in good order: {status}");
        Ok(())
    }
}

/// Reads all that the server says, so that it never waits for a reader, and passes on where it
/// listens.
fn watch(output: impl Read, found: &Sender<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Some(address) = address_in(&line) {
            // Whoever waited may have given up by now.
            let _ = found.send(address.to_owned());
        }
    }
}

fn address_in(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(ANNOUNCEMENT)?;
    let end = rest.find(|c: char| c.is_whitespace() || c == '/' || c == '"' || c == '\u{1b}').unwrap_or(rest.len());
    Some(&rest[..end]).filter(|address| !address.is_empty())
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody needs it any more, so that it need not stop in good order. It may have already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.owns_folder {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn the_address_is_read_from_a_line() {
        for (line, expected) in [
            ("listening on http://127.0.0.1:4100", Some("127.0.0.1:4100")),
            ("INFO listening on http://127.0.0.1:4100/ data=x", Some("127.0.0.1:4100")),
            ("listening on http://[::1]:80 now", Some("[::1]:80")),
            ("listening soon", None),
            ("listening on http:// ", None),
        ] {
            assert_eq!(address_in(line), expected, "{line}");
        }
    }
}
