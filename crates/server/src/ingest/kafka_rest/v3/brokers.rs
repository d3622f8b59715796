//! The one broker, with a replica of every partition; and what is empty where there is but one: lists
//! that clients find behind the links of other objects.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::HeaderMap;
use model::TopicName;
use serde_json::{Value, json};

use super::{
    BROKER, Cluster, said,
    topics::{Names, names},
};
use crate::{
    error::KafkaError,
    ingest::{Doors, json::shortened},
};

pub(super) async fn list(State(doors): State<Arc<Doors>>, path: Names<String>, headers: HeaderMap) -> Response {
    let list = async {
        let cluster = doors.cluster(&names(path)?, &headers).await?;
        let data = vec![cluster.broker(doors.services.config.server.listen)];
        Ok(cluster.list("KafkaBrokerList", &["brokers"], data))
    };
    said(list.await)
}

pub(super) async fn one(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let broker = async {
        let (cluster, broker) = names(path)?;
        let cluster = doors.cluster(&cluster, &headers).await?;
        check("Broker", &broker)?;
        Ok(cluster.broker(doors.services.config.server.listen))
    };
    said(broker.await)
}

pub(super) async fn configs(State(doors): State<Arc<Doors>>, path: Names<String>, headers: HeaderMap) -> Response {
    said(doors.none(path, &headers, "KafkaClusterConfigList", "broker-configs").await)
}

/// Who may do what is said by keys.
pub(super) async fn acls(State(doors): State<Arc<Doors>>, path: Names<String>, headers: HeaderMap) -> Response {
    said(doors.none(path, &headers, "KafkaAclList", "acls").await)
}

pub(super) async fn replicas(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String, u32)>,
    headers: HeaderMap,
) -> Response {
    let replicas = async {
        let (cluster, topic, partition) = doors.partition_of(path, &headers).await?;
        let place = ["topics", topic.as_str(), "partitions", &partition.to_string(), "replicas"];
        Ok(cluster.list("KafkaReplicaList", &place, vec![cluster.replica(&topic, partition)]))
    };
    said(replicas.await)
}

pub(super) async fn replica(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String, u32, String)>,
    headers: HeaderMap,
) -> Response {
    let replica = async {
        let (cluster, topic, partition, broker) = names(path)?;
        let (cluster, topic, partition) = doors.partition_of(Ok(Path((cluster, topic, partition))), &headers).await?;
        check("Replica", &broker)?;
        Ok(cluster.replica(&topic, partition))
    };
    said(replica.await)
}

/// Of one topic, or of all if it is called `-`: no partition is on its way to another broker.
pub(super) async fn reassignments(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let list = async {
        let (cluster, topic) = names(path)?;
        let cluster = match topic.as_str() {
            "-" => doors.cluster(&cluster, &headers).await?,
            _ => doors.topic_of(Ok(Path((cluster, topic.clone()))), &headers).await?.0,
        };
        let place = ["topics", &topic, "partitions", "-", "reassignment"];
        Ok(cluster.list("KafkaReassignmentList", &place, Vec::new()))
    };
    said(list.await)
}

pub(super) async fn reassignment(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String, u32)>,
    headers: HeaderMap,
) -> Response {
    let none = async {
        let (_, topic, partition) = doors.partition_of(path, &headers).await?;
        Err(KafkaError::nothing_called(format!("Reassignment of partition {partition} of topic {topic}")))
    };
    said(none.await)
}

/// Whether it is the broker that there is.
fn check(what: &str, broker: &str) -> Result<(), KafkaError> {
    if broker == BROKER.to_string() {
        return Ok(());
    }
    Err(KafkaError::nothing_called(format!("{what} {}", shortened(broker))))
}

impl Doors {
    async fn none(
        &self,
        path: Names<String>,
        headers: &HeaderMap,
        kind: &str,
        place: &str,
    ) -> Result<Value, KafkaError> {
        Ok(self.cluster(&names(path)?, headers).await?.list(kind, &[place], Vec::new()))
    }
}

impl Cluster {
    fn broker(&self, listen: SocketAddr) -> Value {
        let fields = json!({ "broker_id": BROKER, "host": listen.ip(), "port": listen.port(), "rack": null });
        self.object("KafkaBroker", &["brokers", &BROKER.to_string()], &format!("/broker={BROKER}"), fields)
    }

    fn replica(&self, topic: &TopicName, partition: u32) -> Value {
        let fields = json!({
            "topic_name": topic,
            "partition_id": partition,
            "broker_id": BROKER,
            "is_leader": true,
            "is_in_sync": true,
            "broker": self.broker_related(),
        });
        let (p, broker) = (partition.to_string(), BROKER.to_string());
        let place = ["topics", topic.as_str(), "partitions", &p, "replicas", &broker];
        let names = format!("/topic={topic}/partition={partition}/replica={BROKER}");
        self.object("KafkaReplica", &place, &names, fields)
    }
}
