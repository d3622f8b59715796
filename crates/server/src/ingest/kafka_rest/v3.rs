//! Version 3 of the door: the log as one cluster with its topics, settings and groups, and records
//! in a stream. Every object says what it is and where it and its relations are found.
//!
//! Errors are those of version 2, as plain JSON; `{"error_code":404}` for what has no code there.

mod batch;
mod entry;
mod groups;
mod stream;
mod topics;

mod brokers;

use std::sync::Arc;

use axum::{
    Router,
    response::Response,
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::LogDescription;
use serde_json::{Value, json};

use super::{
    consumers::{base_url, percent_encoded},
    json_response,
    metadata::BROKER,
    refusal,
};
use crate::{error::KafkaError, ingest::Doors};

const PLAIN_JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn routes() -> Router<Arc<Doors>> {
    let cluster = "/v3/clusters/{cluster}";
    let at = |rest: &str| format!("{cluster}{rest}");
    Router::new()
        .route("/v3/clusters", get(topics::clusters))
        .route(cluster, get(topics::cluster))
        .route(&at("/acls"), get(brokers::acls))
        .route(&at("/broker-configs"), get(brokers::configs))
        .route(&at("/brokers"), get(brokers::list))
        .route(&at("/brokers/{broker}"), get(brokers::one))
        .route(&at("/topics"), get(topics::list).post(topics::create))
        .route(&at("/topics/{topic}"), get(topics::one).patch(topics::grow).delete(topics::delete))
        .route(&at("/topics/{topic}/configs"), get(topics::configs))
        .route(&at("/topics/{topic}/configs:alter"), post(topics::alter))
        .route(&at("/topics/{topic}/configs/{name}"), get(topics::config))
        .route(&at("/topics/{topic}/partitions"), get(topics::partitions))
        .route(&at("/topics/{topic}/partitions/{partition}"), get(topics::partition))
        .route(&at("/topics/{topic}/partitions/-/reassignment"), get(brokers::reassignments))
        .route(&at("/topics/{topic}/partitions/{partition}/reassignment"), get(brokers::reassignment))
        .route(&at("/topics/{topic}/partitions/{partition}/replicas"), get(brokers::replicas))
        .route(&at("/topics/{topic}/partitions/{partition}/replicas/{broker}"), get(brokers::replica))
        .route(&at("/topics/{topic}/records"), post(stream::produce))
        .route(&at("/topics/{topic}/records:batch"), post(batch::produce))
        .route(&at("/consumer-groups"), get(groups::list))
        .route(&at("/consumer-groups/{group}"), get(groups::one))
        .route(&at("/consumer-groups/{group}/consumers"), get(groups::consumers))
        .route(&at("/consumer-groups/{group}/consumers/{consumer}"), get(groups::consumer))
        .route(&at("/consumer-groups/{group}/consumers/{consumer}/assignments"), get(groups::assignments))
        .route(
            &at("/consumer-groups/{group}/consumers/{consumer}/assignments/{topic}/partitions/{partition}"),
            get(groups::assignment),
        )
        .route(&at("/consumer-groups/{group}/lag-summary"), get(groups::lag_summary))
        .route(&at("/consumer-groups/{group}/lags"), get(groups::lags))
        .route(&at("/consumer-groups/{group}/lags/{topic}/partitions/{partition}"), get(groups::lag))
}

/// The cluster as the client found it.
struct Cluster {
    id: String,
    /// What all of its links begin with.
    base: String,
    description: LogDescription,
}

impl Cluster {
    /// A link to what lies at these segments below the cluster.
    fn link(&self, segments: &[&str]) -> String {
        segments.iter().fold(self.base.clone(), |link, segment| link + "/" + &percent_encoded(segment))
    }

    fn related(&self, segments: &[&str]) -> Value {
        json!({ "related": self.link(segments) })
    }

    /// A link to the one broker.
    fn broker_related(&self) -> Value {
        self.related(&["brokers", &BROKER.to_string()])
    }

    /// One object: what it is, where it is, and what it has.
    fn object(&self, kind: &str, segments: &[&str], names: &str, fields: Value) -> Value {
        let mut object = json!({
            "kind": kind,
            "metadata": { "self": self.link(segments), "resource_name": format!("crn:///kafka={}{names}", self.id) },
            "cluster_id": self.id,
        });
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
        }
        object
    }

    fn list(&self, kind: &str, segments: &[&str], data: Vec<Value>) -> Value {
        json!({ "kind": kind, "metadata": { "self": self.link(segments), "next": null }, "data": data })
    }
}

impl Doors {
    /// Refuses a path to another cluster than the log.
    async fn check_cluster(&self, id: &str) -> Result<(), KafkaError> {
        let own = async || Ok::<_, KafkaError>(self.groups.describe().await?.id.id.to_string());
        if id == self.cluster.get_or_try_init(own).await? {
            return Ok(());
        }
        let id = crate::ingest::json::shortened(id);
        Err(KafkaError::nothing_called(format!("Cluster {id}")))
    }

    async fn cluster(&self, id: &str, headers: &HeaderMap) -> Result<Cluster, KafkaError> {
        self.check_cluster(id).await?;
        let description = self.groups.describe().await?;
        let base = format!("{}/v3/clusters/{id}", base_url(headers));
        Ok(Cluster { id: id.to_owned(), base, description })
    }
}

fn said(answer: Result<Value, KafkaError>) -> Response {
    said_with(StatusCode::OK, answer)
}

fn said_with(status: StatusCode, answer: Result<Value, KafkaError>) -> Response {
    match answer {
        Ok(value) => {
            let mut response = json_response(PLAIN_JSON, value.to_string());
            *response.status_mut() = status;
            response
        }
        Err(error) => refusal(PLAIN_JSON, error),
    }
}

/// Bodies of version 3 are plain JSON.
fn check_media_type(headers: &HeaderMap) -> Result<(), KafkaError> {
    let given = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let media_type = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is_json = media_type.eq_ignore_ascii_case(b"application/json");
    if is_json { Ok(()) } else { Err(KafkaError::unsupported_media_type()) }
}
