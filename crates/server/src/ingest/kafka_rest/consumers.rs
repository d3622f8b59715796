//! `/consumers`: groups of consumers, as Confluent's proxy has them, and as it does not: an instance
//! does not end with the process (`ingest::consumers`).
//!
//! Where the proxy waits out the whole timeout before it answers, this answers when there is
//! something; a commit is durable when it is answered. What it takes for an error is one here.

mod embedded;
mod reading;
mod requests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, request::Parts};
use model::{TopicName, TopicPartition};
use serde_json::{Value, json};
use uuid::Uuid;

pub(super) use self::requests::parse;
use self::{
    reading::Question,
    requests::{CreateRequest, OffsetsRequest, PartitionsRequest, SubscribeRequest, check_name, parse_needed},
};
use super::{
    json_response,
    links::{Base, percent_encoded},
    media::{self, Wanted},
    refusal,
};
use crate::{
    auth::{Action, Caller},
    error::KafkaError,
    ingest::{
        Doors, Paid,
        consumers::{Act, Format, Instance, Interest, Name},
        time::offset_at,
    },
};

pub(super) fn routes() -> Router<Arc<Doors>> {
    use Call::*;
    let instance = "/consumers/{group}/instances/{instance}";
    let at = |rest: &str| format!("{instance}{rest}");
    Router::new()
        .route("/consumers/{group}", post(create))
        .route(instance, delete(on(Delete)))
        .route(&at("/"), delete(on(Delete)))
        .route(&at("/subscription"), post(on(Subscribe)).get(on(Subscription)).delete(on(Unsubscribe)))
        .route(&at("/assignments"), post(on(Assign)).get(on(Assignments)))
        .route(&at("/positions"), post(on(Seek)))
        .route(&at("/positions/beginning"), post(on(SeekToBeginning)))
        .route(&at("/positions/end"), post(on(SeekToEnd)))
        .route(&at("/records"), get(on(Records)))
        .route(&at("/offsets"), post(on(Commit)).get(on(CommittedOffsets)))
}

/// What is asked of an instance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Delete,
    Subscribe,
    Subscription,
    Unsubscribe,
    Assign,
    Assignments,
    Seek,
    SeekToBeginning,
    SeekToEnd,
    Records,
    Commit,
    CommittedOffsets,
}

type InstancePath = Result<Path<(String, String)>, PathRejection>;

fn on(
    call: Call,
) -> impl Fn(State<Arc<Doors>>, InstancePath, Request) -> futures::future::BoxFuture<'static, Response> + Clone + Send + Sync
{
    move |State(doors), path, request| Box::pin(async move { doors.call(call, path, request).await })
}

async fn create(
    State(doors): State<Arc<Doors>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let answer_type = media::answer_type(request.headers());
    match doors.create_instance(path, request).await {
        Ok(answer) => json_response(answer_type, answer),
        Err(error) => doors.refuse_consumer(answer_type, error),
    }
}

impl Doors {
    async fn create_instance(
        &self,
        path: Result<Path<String>, PathRejection>,
        request: Request,
    ) -> Result<String, KafkaError> {
        let Path(group) = path.map_err(|_| KafkaError::not_found())?;
        check_name("name of the group", &group)?;
        let (head, body) = self.consumer_body(request).await?;
        let asked: CreateRequest = if body.is_empty() { CreateRequest::default() } else { parse(&body)? };
        let (name, settings) = asked.read(&self.services.config.consumers)?;
        let instance = name.unwrap_or_else(|| format!("rest-consumer-{}", Uuid::new_v4()));
        let name = Name { group, instance };
        self.groups.create(&name, settings).await?;
        let base_uri = format!(
            "{}/consumers/{}/instances/{}",
            Base::of(&head, &self.services.config.server).0,
            percent_encoded(&name.group),
            percent_encoded(&name.instance)
        );
        let (instance, base_uri) = (Value::from(name.instance), Value::from(base_uri));
        Ok(format!(r#"{{"instance_id":{instance},"base_uri":{base_uri}}}"#))
    }

    async fn call(&self, call: Call, path: InstancePath, request: Request) -> Response {
        let answer_type = media::answer_type(request.headers());
        let answer = match path {
            Ok(Path((group, instance))) => self.try_call(call, &Name { group, instance }, request).await,
            Err(_) => Err(KafkaError::not_found()),
        };
        match answer {
            Ok(None) => StatusCode::NO_CONTENT.into_response(),
            Ok(Some((media_type, body))) => json_response(media_type.unwrap_or(answer_type), body),
            Err(error) => self.refuse_consumer(answer_type, error),
        }
    }

    fn refuse_consumer(&self, answer_type: HeaderValue, error: KafkaError) -> Response {
        self.services.metrics.refused(error.reason);
        refusal(answer_type, error)
    }

    /// What there is to say; in a media type of its own if it is records.
    async fn try_call(
        &self,
        call: Call,
        name: &Name,
        request: Request,
    ) -> Result<Option<(Option<HeaderValue>, Body)>, KafkaError> {
        let query = Query::<BTreeMap<String, String>>::try_from_uri(request.uri());
        let caller = &Caller::of(request.extensions(), &self.services.auth);
        let (head, body) = self.consumer_body(request).await?;
        let config = &self.services.config.consumers;
        let said = |json: String| Ok(Some((None, Body::from(json))));
        // Before the body is looked at: an instance that is not there makes everything else moot.
        self.groups.keep(name).await?;
        self.check_reader(caller, name).await?;
        match call {
            Call::Records => {
                // It says nothing, and this may wait for long.
                drop(body);
                let Query(query) = query.map_err(|e| KafkaError::bad_request(e.to_string()))?;
                return self.records(name, &head.headers, &query).await.map(Some);
            }
            Call::Subscription => return said(self.subscription(name).await?),
            Call::Assignments => return said(self.assignments(name).await?),
            Call::CommittedOffsets => return said(self.committed(caller, name, &body).await?),
            Call::Commit => {
                let asked: Option<OffsetsRequest> = if body.is_empty() { None } else { Some(parse(&body)?) };
                let offsets = asked.map(|asked| asked.to_commit(config)).transpose()?;
                check_topics(caller, offsets.iter().flat_map(BTreeMap::keys).map(|partition| &partition.topic))?;
                self.act_now(name, Act::Commit { offsets }).await?;
                return said("[]".to_owned());
            }
            Call::Delete => self.act_now(name, Act::Delete).await?,
            Call::Unsubscribe => self.act_now(name, Act::Unsubscribe).await?,
            Call::Subscribe => match parse_needed::<SubscribeRequest>(&body)?.read(config)? {
                Interest::Nothing => self.act_now(name, Act::Unsubscribe).await?,
                interest => self.follow(caller, name, interest).await?,
            },
            Call::Assign => {
                let chosen = parse_needed::<PartitionsRequest>(&body)?.read(config)?;
                let nothing = chosen.is_empty();
                match Interest::Partitions(chosen) {
                    _ if nothing => self.act_now(name, Act::Unsubscribe).await?,
                    interest => self.follow(caller, name, interest).await?,
                }
            }
            Call::Seek => {
                let asked: OffsetsRequest = parse_needed(&body)?;
                let mut positions: BTreeMap<_, _> =
                    asked.offsets(config)?.into_iter().map(|(partition, c)| (partition, c.offset)).collect();
                for (partition, time) in asked.times(config)? {
                    self.check_assigned(name, &partition).await?;
                    let offset = offset_at(&*self.services.log, &partition, time).await;
                    let offset = offset.map_err(|e| KafkaError::of_log(&e))?;
                    positions.insert(partition, offset);
                }
                self.act_now(name, Act::Seek { positions }).await?;
            }
            Call::SeekToBeginning | Call::SeekToEnd => {
                let mut partitions = parse_needed::<PartitionsRequest>(&body)?.read(config)?;
                if partitions.is_empty() {
                    // As with Kafka's consumer: all that it has.
                    partitions.extend(self.groups.look(name, |group, _| group.assignment(&name.instance)).await?);
                }
                let mut positions = BTreeMap::new();
                for partition in partitions {
                    self.check_assigned(name, &partition).await?;
                    let bounds = self.services.log.bounds(&partition).await.map_err(|e| KafkaError::of_log(&e))?;
                    let offset = if call == Call::SeekToEnd { bounds.end } else { bounds.start };
                    positions.insert(partition, offset);
                }
                self.act_now(name, Act::Seek { positions }).await?;
            }
        }
        Ok(None)
    }

    /// Head and body of a consumer's call: a body needs a type, and its page must be ours.
    pub(super) async fn consumer_body(&self, request: Request) -> Result<(Parts, Paid), KafkaError> {
        let (mut head, body) = request.into_parts();
        self.check_origin(&mut head).await?;
        let body = self.bodies.read(&head.headers, body).await?;
        if !body.is_empty() && !media::is_for_consumers(&head.headers, self.services.config.ingest.strict) {
            return Err(KafkaError::unsupported_media_type());
        }
        Ok((head, body))
    }

    async fn act_now(&self, name: &Name, act: Act) -> Result<(), KafkaError> {
        let epoch = self.groups.describe().await?.id.epoch;
        self.groups.act(name, epoch, act).await
    }

    async fn follow(&self, caller: &Caller, name: &Name, interest: Interest) -> Result<(), KafkaError> {
        let description = self.groups.describe().await?;
        let topics = self.groups.topics(&interest, &description)?;
        check_topics(caller, topics.keys().chain(named(&interest)))?;
        self.groups.act(name, description.id.epoch, Act::Follow { interest, topics }).await
    }

    async fn subscription(&self, name: &Name) -> Result<String, KafkaError> {
        let topics = self.groups.look(name, |_, instance| match &instance.interest {
            Interest::Topics(names) => Value::from_iter(names.iter().map(ToString::to_string)),
            Interest::Pattern(_) => Value::from_iter(instance.topics.keys().map(ToString::to_string)),
            Interest::Nothing | Interest::Partitions(_) => json!([]),
        });
        Ok(json!({ "topics": topics.await? }).to_string())
    }

    async fn assignments(&self, name: &Name) -> Result<String, KafkaError> {
        let assigned = self.groups.look(name, |group, _| group.assignment(&name.instance)).await?;
        let named = |p: TopicPartition| format!(r#"{{"topic":"{}","partition":{}}}"#, p.topic, p.partition);
        let partitions: Vec<String> = assigned.into_iter().map(named).collect();
        Ok(format!(r#"{{"partitions":[{}]}}"#, partitions.join(",")))
    }

    /// Only what is committed is listed. A request without a body asks for nothing that there is.
    async fn committed(&self, caller: &Caller, name: &Name, body: &[u8]) -> Result<String, KafkaError> {
        if body.is_empty() {
            return Err(KafkaError::partition_not_found());
        }
        let asked = parse::<PartitionsRequest>(body)?.read(&self.services.config.consumers)?;
        check_topics(caller, asked.iter().map(|partition| &partition.topic))?;
        let offset = |(partition, committed): (&TopicPartition, &crate::ingest::consumers::Committed)| {
            let TopicPartition { topic, partition } = partition;
            let metadata = Value::from(committed.metadata.as_str());
            let offset = committed.offset;
            format!(r#"{{"topic":"{topic}","partition":{partition},"offset":{offset},"metadata":{metadata}}}"#)
        };
        let offsets = self.groups.look(name, |group, _| {
            let asked = asked.iter().filter_map(|partition| group.committed.get_key_value(partition));
            asked.map(offset).collect::<Vec<_>>().join(",")
        });
        Ok(format!(r#"{{"offsets":[{}]}}"#, offsets.await?))
    }

    async fn records(
        &self,
        name: &Name,
        headers: &HeaderMap,
        query: &BTreeMap<String, String>,
    ) -> Result<(Option<HeaderValue>, Body), KafkaError> {
        let wanted = media::wanted(headers, self.services.config.ingest.strict);
        if wanted.is_empty() {
            return Err(KafkaError::not_acceptable());
        }
        let settings = self.groups.look(name, |_, instance| instance.settings.clone()).await?;
        let own = match settings.format {
            Format::Binary => media::Format::Binary,
            Format::Json => media::Format::Json,
        };
        let answer_type = |wanted: Wanted| match wanted {
            Wanted::Format(format) if format == own => Some(media::records_type(own)),
            Wanted::Unnamed if own == media::Format::Binary => Some(crate::error::KAFKA_JSON),
            Wanted::Any => Some(media::records_type(own)),
            Wanted::PlainJson => Some(HeaderValue::from_static("application/json")),
            Wanted::Format(_) | Wanted::Unnamed => None,
        };
        let media_type = wanted.into_iter().find_map(answer_type).ok_or_else(KafkaError::format_mismatch)?;
        // As with the proxy: what is not positive means what is usual.
        let asked = |field: &'static str| match query.get(field).map(|text| (text, text.parse::<i64>())) {
            None => Ok(None),
            Some((_, Ok(n))) => Ok(u64::try_from(n).ok().filter(|n| *n > 0)),
            Some((text, Err(_))) => {
                let text = crate::ingest::json::shortened(text);
                Err(KafkaError::bad_request(format!("{field} is not a whole number (was {text})")))
            }
        };
        let timeout_ms = asked("timeout")?.map_or(settings.timeout_ms, |ms| ms.min(settings.timeout_ms));
        let limit = self.services.config.consumers.max_fetch_bytes;
        let max_bytes = asked("max_bytes")?.map_or(limit, |n| usize::try_from(n).unwrap_or(limit).min(limit));
        let question = Question { name: name.clone(), timeout: Duration::from_millis(timeout_ms), max_bytes };
        Ok((Some(media_type), self.read_records(&question).await?))
    }

    /// All that the instance reads is for the caller to read, whoever made it.
    async fn check_reader(&self, caller: &Caller, name: &Name) -> Result<(), KafkaError> {
        if caller.may_every(Action::Consume) {
            return Ok(());
        }
        let look = |instance: &Instance| check_topics(caller, instance.topics.keys().chain(named(&instance.interest)));
        self.groups.look(name, |_, instance| look(instance)).await?
    }

    async fn check_assigned(&self, name: &Name, partition: &TopicPartition) -> Result<(), KafkaError> {
        if self.groups.look(name, |group, _| group.may_read(&name.instance, partition)).await? {
            return Ok(());
        }
        Err(KafkaError::illegal_state(format!("No current assignment for partition {partition}")))
    }
}

/// The topics that are meant by name, there or not.
fn named(interest: &Interest) -> Box<dyn Iterator<Item = &TopicName> + '_> {
    match interest {
        Interest::Nothing | Interest::Pattern(_) => Box::new(std::iter::empty()),
        Interest::Topics(names) => Box::new(names.iter()),
        Interest::Partitions(partitions) => Box::new(partitions.iter().map(|partition| &partition.topic)),
    }
}

fn check_topics<'t>(caller: &Caller, mut topics: impl Iterator<Item = &'t TopicName>) -> Result<(), KafkaError> {
    match topics.find(|topic| !caller.may(Action::Consume, topic.as_str())) {
        Some(topic) => Err(KafkaError::forbidden(Action::Consume, topic.as_str())),
        None => Ok(()),
    }
}
