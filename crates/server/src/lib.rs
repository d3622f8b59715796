//! HTTP: the doors that records come in through, the answers that go out, the dashboard, and
//! the driver that starts tasks. It knows the log and the views by their traits only.
//!
//! The order of the modules is the order of floors.

pub mod metrics;

mod pace;

pub mod error;

pub mod auth;

pub mod replicated;

pub mod orchestrator;

pub mod api;

mod gateway;

mod cors;

pub mod ingest;

pub mod dashboard;

pub mod guard;

pub mod router;

pub mod listener;

use std::sync::Arc;

use model::{EventLog, Layers, Query, StreamDef, config::Config};
use tokio_util::task::TaskTracker;

/// Everything that the routes need, built once by the binary and passed by value.
#[derive(Clone)]
pub struct Services {
    pub log: Arc<dyn EventLog>,
    /// Those that take a topic before it is deleted; None where none runs in this process.
    pub layers: Option<Arc<dyn Layers>>,
    /// None where this process does not serve views.
    pub query: Option<Arc<dyn Query>>,
    /// Whether this process takes records in.
    pub ingest: bool,
    pub auth: Arc<auth::Auth>,
    pub tasks: orchestrator::Handle,
    pub streams: Arc<[StreamDef]>,
    pub metrics: Arc<metrics::Metrics>,
    /// What is done to its end though the client that asked for it has gone.
    pub unattended: TaskTracker,
    pub config: Arc<Config>,
}
