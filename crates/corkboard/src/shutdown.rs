//! Ctrl-C and SIGTERM: the first asks for an orderly stop, the second for one at once.

use std::io::Write;

use anyhow::Context;
use model::Stop;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Two wishes to end: `orderly` is cancelled by the first signal, `at_once` by the second.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    pub orderly: Stop,
    pub at_once: Stop,
}

/// Listens for the signals from now on.
pub fn on_signals() -> anyhow::Result<Shutdown> {
    let shutdown = Shutdown::default();
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminations = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let signalled = shutdown.clone();
    tokio::spawn(async move {
        either(&mut interrupts, &mut terminations).await;
        signalled.orderly.cancel();
        tell("stopping: what was accepted is being finished (once more to stop at once)");
        either(&mut interrupts, &mut terminations).await;
        signalled.at_once.cancel();
        tell("stopping at once");
    });
    Ok(shutdown)
}

/// Also where nobody reads it any more: `eprintln!` would panic.
fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
    }
}
