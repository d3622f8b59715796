//! The server as its clients see it: over sockets, by bytes.
#![allow(clippy::unwrap_used)]

mod fakes;
mod harness;
mod node;

mod api;
mod consumers;
mod hostile;
mod kafka_rest;
mod listener;
mod metrics;
mod orchestrator;
mod overload;
mod pin;
mod v3;
