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

pub use self::{admission::Permit, body::Bodies};
use crate::Services;

/// The doors' own state: how bodies are read, and which topics there are.
struct Doors {
    services: Services,
    bodies: Bodies,
    topics: topics::Topics,
}

pub fn routes(services: &Services) -> Router {
    let doors = Arc::new(Doors {
        bodies: Bodies::new(&services.config, &services.metrics),
        topics: topics::Topics::new(services.log.clone(), services.config.ingest.clone()),
        services: services.clone(),
    });
    kafka_rest::routes().with_state(doors)
}
