//! The server as its clients see it: over sockets, by bytes.
#![allow(clippy::unwrap_used)]

mod fakes;
mod harness;
mod kinesis_client;
mod meddled;
mod node;

mod api;
pub(crate) mod auth;
mod bench_requests;
mod canary;
mod consumers;
mod deletion;
mod every_door;
mod floods;
mod fuzz;
mod gateway;
mod hostile;
mod idempotency;
mod kafka_rest;
mod kinesis;
mod kinesis_reads;
mod kinesis_shards;
mod kinesis_wire;
mod listener;
mod listener_streams;
mod metrics;
mod openapi;
mod orchestrator;
mod overload;
mod permissions;
mod pin;
mod refusals;
mod tls;
mod v3;
