//! The binary as a child process: started, listened to, killed, asked to stop. No child
//! outlives its test.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Instant,
};

use crate::http::{Client, PATIENCE};

/// What a process that ended has left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    /// None when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Standard output of a process that must have succeeded.
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// What a process said when it failed in an orderly way, which it must have.
    pub(crate) fn failed(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        let error = self.stderr.split_once("error: ").unwrap_or_else(|| panic!("{self:?}")).1;
        error.to_owned()
    }
}

/// Options that name paths, as `("--data", &path)`.
pub(crate) type Paths<'a> = [(&'a str, &'a Path)];

/// Runs a command to its end. `words` are separated by blanks.
pub(crate) fn run(words: &str, paths: &Paths<'_>) -> Finished {
    Process::spawn(command(words, paths)).finish()
}

/// The same with variables of the environment.
pub(crate) fn run_with(words: &str, environment: &[(&str, &OsStr)]) -> Finished {
    let mut command = command(words, &[]);
    command.envs(environment.iter().copied());
    Process::spawn(command).finish()
}

fn command(words: &str, paths: &Paths<'_>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corkboard"));
    command.args(words.split_whitespace());
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    // What the caller's shell says to a Corkboard of theirs is not for these.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CORKBOARD_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child with what it has written so far.
struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: String,
    errors: Option<thread::JoinHandle<String>>,
}

impl Process {
    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, lines, seen: String::new(), errors: Some(errors) }
    }

    /// The next line of standard output; None when there will be none.
    fn next_line(&mut self, deadline: Instant) -> Option<String> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.seen += &line;
                self.seen.push('\n');
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the process neither wrote nor ended; it wrote:\n{}", self.seen),
        }
    }

    fn finish(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        while self.next_line(deadline).is_some() {}
        let code = self.child.wait().unwrap().code();
        let stderr = self.errors.take().map(|errors| errors.join().unwrap()).unwrap_or_default();
        Finished { code, stdout: std::mem::take(&mut self.seen), stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let errors = self.errors.take().and_then(|errors| errors.join().ok());
        if let (true, Some(errors)) = (thread::panicking(), errors) {
            eprintln!("standard error of the process that the failed test had started:\n{errors}");
        }
    }
}

/// A process that listens on a port of its own.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts `up`, `serve …` or `demo …`, and returns when it accepts.
    pub(crate) fn start(words: &str, paths: &Paths<'_>) -> Self {
        Self::accepting(command(&format!("{words} --listen 127.0.0.1:0"), paths))
    }

    /// The same, with the system's temporary folder elsewhere.
    pub(crate) fn start_in_temporary_folder(words: &str, folder: &Path) -> Self {
        let mut command = command(&format!("{words} --listen 127.0.0.1:0"), &[]);
        command.env("TMPDIR", folder);
        Self::accepting(command)
    }

    fn accepting(command: Command) -> Self {
        let mut process = Process::spawn(command);
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = process.next_line(deadline) {
            if let Some(address) = line.strip_prefix("listening on http://") {
                let address = address.trim().parse().unwrap();
                return Self { process, address };
            }
        }
        panic!("the server did not start: {:?}", process.finish());
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.child.kill().unwrap();
        assert_eq!(self.process.finish().code, None);
    }

    /// SIGTERM, as a service manager sends it.
    pub(crate) fn terminate(self) -> Finished {
        self.signal("-TERM")
    }

    /// SIGINT, as Ctrl-C sends it.
    pub(crate) fn interrupt(self) -> Finished {
        self.signal("-INT")
    }

    /// std sends no signal but SIGKILL.
    fn signal(self, signal: &str) -> Finished {
        let pid = self.process.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.wait()
    }

    /// Waits for an end that comes by itself.
    pub(crate) fn wait(self) -> Finished {
        self.process.finish()
    }
}
