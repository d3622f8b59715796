//! The doors that records come in through. All of them admit bodies by their bytes, look
//! topics up, and answer only when the log has what it was given.
//!
//! A door is a module that says how its protocol names things; the rest is here once.

mod admission;
mod append;
mod body;
mod json;
mod kafka_rest;
mod topics;

use std::sync::Arc;

use axum::Router;

use crate::Services;

/// The doors' own state: what is in flight, and which topics there are.
struct Doors {
    services: Services,
    budget: admission::Budget,
    topics: topics::Topics,
}

pub fn routes(services: &Services) -> Router {
    let config = &services.config.ingest;
    let doors = Arc::new(Doors {
        budget: admission::Budget::new(config.max_inflight_bytes, services.metrics.inflight_bytes.clone()),
        topics: topics::Topics::new(services.log.clone(), config.clone()),
        services: services.clone(),
    });
    kafka_rest::routes().with_state(doors)
}
