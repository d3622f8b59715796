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

use crate::{process, scratch::Scratch, workspace};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);
const ANNOUNCEMENT: &str = "listening on ";

pub(crate) struct Server {
    child: Child,
    /// Its data.
    pub(crate) folder: PathBuf,
    /// The same where it goes with this.
    scratch: Option<Scratch>,
    /// `host:port`.
    pub(crate) address: String,
    is_secure: bool,
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
    /// With an empty data folder that goes with it. `settings` are variables of its environment.
    pub(crate) fn start(binary: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let scratch = Scratch::new("data")?;
        let mut server = Self::start_in(&scratch, binary, settings)?;
        server.scratch = Some(scratch);
        Ok(server)
    }

    /// The same with nothing but the doors and the log: what is posted stays there.
    pub(crate) fn start_doors(binary: &Path) -> Result<Self> {
        let scratch = Scratch::new("data")?;
        let mut server = Self::start_doors_in(&scratch, binary, &[])?;
        server.scratch = Some(scratch);
        Ok(server)
    }

    /// With a data folder that stays.
    pub(crate) fn start_in(folder: &Path, binary: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(&["up"], folder, binary, settings)
    }

    pub(crate) fn start_doors_in(folder: &Path, binary: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(&["serve", "--roles", "ingest"], folder, binary, settings)
    }

    fn start_as(what: &[&str], folder: &Path, binary: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let mut command = Command::new(binary);
        command.envs(settings.iter().copied()).args(what).arg("--data").arg(folder).args(["--listen", "127.0.0.1:0"]);
        Self::spawn(command, folder)
    }

    /// Any program that says where it listens as Corkboard does.
    pub(crate) fn spawn(mut command: Command, folder: &Path) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
        let (found, announced) = mpsc::channel();
        let stdout = child.stdout.take().expect("it was asked to be piped");
        let stderr = child.stderr.take().expect("it was asked to be piped");
        thread::spawn({
            let found = found.clone();
            move || watch(stdout, &found)
        });
        thread::spawn(move || watch(stderr, &found));
        let mut server =
            Self { child, folder: folder.to_owned(), scratch: None, address: String::new(), is_secure: false };
        let announced = announced.recv_timeout(START);
        (server.is_secure, server.address) = announced.context("the server did not say where it listens")?;
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.is_secure { "https" } else { "http" }, self.address)
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
/// listens. Who asks for log lines gets to see them.
fn watch(output: impl Read, found: &Sender<(bool, String)>) {
    let is_shown = std::env::var_os("CORKBOARD_LOG").is_some();
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if is_shown {
            eprintln!("server: {line}");
        }
        if let Some((is_secure, address)) = announced_in(&line) {
            // Whoever waited may have given up by now.
            let _ = found.send((is_secure, address.to_owned()));
        }
    }
}

/// Whether by TLS, and where.
fn announced_in(line: &str) -> Option<(bool, &str)> {
    let (_, rest) = line.split_once(ANNOUNCEMENT)?;
    let (scheme, rest) = rest.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))?;
    let end = rest.find(|c: char| c.is_whitespace() || c == '/' || c == '"' || c == '\u{1b}').unwrap_or(rest.len());
    Some((scheme == "https", &rest[..end])).filter(|(_, address)| !address.is_empty())
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever needs its data has stopped it in good order.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.scratch.take();
    }
}

#[cfg(test)]
mod tests {
    use super::announced_in;

    #[test]
    fn the_address_is_read_from_a_line() {
        for (line, expected) in [
            ("listening on http://127.0.0.1:4100", Some((false, "127.0.0.1:4100"))),
            ("INFO listening on https://127.0.0.1:4100/ data=x", Some((true, "127.0.0.1:4100"))),
            ("listening on http://[::1]:80 now", Some((false, "[::1]:80"))),
            ("listening soon", None),
            ("listening on gopher://127.0.0.1:70", None),
            ("listening on http:// ", None),
        ] {
            assert_eq!(announced_in(line), expected, "{line}");
        }
    }
}
