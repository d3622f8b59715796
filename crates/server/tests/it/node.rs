//! One process of several on one log, asked without sockets.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Request, header};
use model::{EventLog, Layers, Record, Stop, TopicChange, TopicPartition, config::Config};
use server::{Services, router};
use tower::ServiceExt;

use crate::harness::services;

pub(crate) const KAFKA_V2: &str = "application/vnd.kafka.v2+json";

#[derive(Clone)]
pub(crate) struct Node {
    router: Router,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) media_type: String,
    pub(crate) location: String,
    pub(crate) body: String,
}

impl Node {
    pub(crate) fn on(log: &Arc<impl EventLog + 'static>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::defaults();
        change(&mut config);
        Self { router: router::router(services(log.clone(), config), Stop::new()) }
    }

    /// One that deletes a topic when these have taken it.
    pub(crate) fn with_layers(log: &Arc<impl EventLog + 'static>, layers: Arc<dyn Layers>) -> Self {
        let services = Services { layers: Some(layers), ..services(log.clone(), Config::defaults()) };
        Self { router: router::router(services, Stop::new()) }
    }

    pub(crate) fn stopped_by(log: &Arc<impl EventLog + 'static>, stop: &Stop) -> Self {
        Self { router: router::router(services(log.clone(), Config::defaults()), stop.clone()) }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Said {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost:8082");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = |name| head.headers.get(name).map_or(String::new(), |v| v.to_str().unwrap().to_owned());
        Said {
            status: head.status.as_u16(),
            media_type: text(header::CONTENT_TYPE),
            location: text(header::LOCATION),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// With these headers and no other, the host's included; status and text.
    pub(crate) async fn as_asked(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// The status of an answer whose body may be no text.
    pub(crate) async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> u16 {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost:8082");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap().status().as_u16()
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Said {
        self.ask("POST", path, &[("content-type", KAFKA_V2)], body.to_owned()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Said {
        self.ask("GET", path, &[], Body::empty()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Said {
        self.ask("DELETE", path, &[], Body::empty()).await
    }
}

impl Said {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

pub(crate) fn partition(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic.parse().unwrap(), partition)
}

pub(crate) async fn append(log: &dyn EventLog, topic: &str, p: u32, values: &[&str]) {
    let records = values.iter().map(|value| Record::of_value((*value).to_owned())).collect();
    log.append(&partition(topic, p), records).await.unwrap();
}

pub(crate) async fn create(log: &dyn EventLog, topic: &str, n_partitions: u32) {
    log.change_topic(&topic.parse().unwrap(), TopicChange::Create { n_partitions }).await.unwrap();
}
