//! The doors that records come in through. All of them admit bodies by their bytes, look
//! topics up, and answer only when the log has what it was given.
//!
//! A door is a module that says how its protocol names things; the rest is here once.

mod admission;
mod append;
mod body;
mod consumers;
mod idempotency;
mod json;
mod kafka_rest;
pub mod kinesis;
mod looks;
mod once;
mod paid_body;
mod pin;
mod streams;
mod time;
mod topics;

use std::sync::Arc;

use axum::{Router, extract::FromRequestParts};
use http::{header, request::Parts};
use model::{EventLog, LogError, Stop};
use tokio::sync::OnceCell;

pub use self::{
    admission::Permit,
    body::{Bodies, Paid},
    pin::TOPIC as PIN_TOPIC,
};
use self::{
    append::{Addressed, Appended},
    idempotency::Once,
};
use crate::{Services, api::SameOrigin, cors, error::KafkaError, metrics::Metrics};

/// The doors' own state: how bodies are read, and which topics there are.
struct Doors {
    services: Services,
    bodies: Bodies,
    topics: Arc<topics::Topics>,
    store: Arc<Store>,
    groups: Arc<consumers::Groups>,
    kinesis: Arc<kinesis::Kinesis>,
    /// What version 3 of Kafka REST calls the log, once somebody asked.
    cluster: OnceCell<String>,
    /// Answers that would go on for long end when the server stops.
    stop: Stop,
}

/// Where the doors bring records to.
struct Store {
    log: Arc<dyn EventLog>,
    metrics: Arc<Metrics>,
    topics: Arc<topics::Topics>,
}

pub fn routes(services: &Services, stop: Stop) -> Router {
    let topics = Arc::new(topics::Topics::new(services));
    let doors = Arc::new(Doors {
        bodies: Bodies::new(&services.config, &services.metrics),
        groups: Arc::new(consumers::Groups::new(services)),
        kinesis: Arc::new(kinesis::Kinesis::new(services, topics.clone())),
        store: Arc::new(Store { log: services.log.clone(), metrics: services.metrics.clone(), topics: topics.clone() }),
        topics,
        services: services.clone(),
        cluster: OnceCell::new(),
        stop,
    });
    let routes = kafka_rest::routes().merge(pin::routes()).merge(kinesis::routes()).merge(streams::routes());
    looks::from_own_pages(routes.with_state(doors), services)
}

impl Doors {
    /// Refuses pages of other sites; only browsers say whose page it is that asks.
    async fn check_origin(&self, head: &mut Parts) -> Result<(), KafkaError> {
        if head.headers.contains_key(header::ORIGIN) && !cors::allows(&head.headers, &self.services.config.server) {
            let same_origin = SameOrigin::from_request_parts(head, &self.services).await;
            same_origin.map_err(|_| KafkaError::foreign_page())?;
        }
        Ok(())
    }

    /// Brings records to a topic that may have to be made first, and has the partition `highest`, once
    /// if the client says so; some records are stored at least, or this is an error.
    async fn store(
        &self,
        topic: &str,
        highest: Option<u32>,
        records: Vec<Addressed>,
        once: Option<&Once>,
    ) -> Result<Appended, KafkaError> {
        let topic = self.topics.find_or_create(topic, highest).await?;
        let appended = match once {
            None => self.store.store_in(&topic, records).await,
            Some(once) => self.store_once(once.request(&records), &topic, records, &[], ()).await?,
        };
        if appended.appends().iter().any(|append| append.outcome.is_ok()) {
            return Ok(appended);
        }
        let errors = appended.appends().iter().filter_map(|a| a.outcome.as_ref().err());
        // If a part of the request may have been stored, the producer must learn it.
        let worst = errors.max_by_key(|e| matches!(e, LogError::Unavailable { outcome_unknown: true, .. }));
        Err(KafkaError::of_log(worst.expect("a request has at least one append, and none succeeded")))
    }
}

impl Store {
    /// Appends records and counts what is stored; what is not is for the caller to tell.
    async fn store_in(&self, topic: &topics::Topic, records: Vec<Addressed>) -> Appended {
        let appended = append::append(&*self.log, &self.topics, topic, records).await;
        for append in appended.appends() {
            match &append.outcome {
                Ok(_) => self.metrics.appended(&topic.name, append.n_records as u64, append.size_bytes as u64),
                Err(e) => self.topics.missed(&topic.name, e),
            }
        }
        appended
    }
}
