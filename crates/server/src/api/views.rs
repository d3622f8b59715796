//! `GET /api/views` and `GET /api/views/{name}?scope=merged|batch|realtime&format=json|csv|arrow`.
//!
//! JSON carries the boundary of the answer beside its rows; CSV and Arrow carry it in headers.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Instant};

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::{
    Answer, Offset, Scope, TopicPartition, ViewDef,
    query::{Ask, Boundary, RowFormat},
};
use serde::Serialize;

use super::{DATA_HEADERS, KnownHost, Problem};
use crate::{
    Services,
    auth::{Action, Caller},
};

/// A header line of offsets longer than this is left out; JSON has them all.
const MAX_OFFSETS_HEADER_BYTES: usize = 4096;

#[derive(Serialize)]
struct Views {
    views: Vec<View>,
}

#[derive(Serialize)]
struct View {
    name: String,
    title: String,
    question: String,
    chart: String,
    links: Links,
}

#[derive(Serialize)]
struct Links {
    json: String,
    csv: String,
    arrow: String,
}

/// Those that the caller may ask.
pub(super) async fn list(_: KnownHost, caller: Caller, State(services): State<Services>) -> Result<Response, Problem> {
    let views = queries(&services)?.views().into_iter().filter(|view| caller.may(Action::Views, &view.name));
    let views = views.map(View::from).collect();
    Ok((DATA_HEADERS, Json(Views { views })).into_response())
}

pub(super) async fn answer(
    _: KnownHost,
    State(services): State<Services>,
    Path(view): Path<String>,
    Query(parameters): Query<BTreeMap<String, String>>,
) -> Result<Response, Problem> {
    let query = queries(&services)?;
    let (scope, format) = parse(&parameters)?;
    let ask = Ask { view, scope, format };
    let started = Instant::now();
    let answer = query.query(&ask).await?;
    services.metrics.view_answered(&ask.view, scope, started.elapsed());
    Ok(match format {
        RowFormat::Json => json(&ask.view, &answer),
        RowFormat::Csv => file(&ask, answer, "csv", "text/csv; charset=utf-8; header=present"),
        RowFormat::Arrow => file(&ask, answer, "arrow", "application/vnd.apache.arrow.stream"),
    })
}

fn queries(services: &Services) -> Result<&Arc<dyn model::Query>, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "this process does not serve views");
    services.query.as_ref().ok_or_else(missing)
}

impl From<ViewDef> for View {
    fn from(view: ViewDef) -> Self {
        let link = |format: &str| format!("/api/views/{}?format={format}", view.name);
        let links = Links { json: link("json"), csv: link("csv"), arrow: link("arrow") };
        Self { links, name: view.name, title: view.title, question: view.question, chart: view.chart }
    }
}

fn parse(parameters: &BTreeMap<String, String>) -> Result<(Scope, RowFormat), Problem> {
    let bad = |error: String| Problem::new(StatusCode::BAD_REQUEST, error);
    let (mut scope, mut format) = (Scope::default(), RowFormat::Json);
    for (name, value) in parameters {
        match name.as_str() {
            "scope" => scope = value.parse().map_err(|e| bad(e).at("scope"))?,
            "format" => format = parse_format(value).map_err(|e| bad(e).at("format"))?,
            _ => return Err(bad(format!("there is no parameter {name:?}; there are: scope, format"))),
        }
    }
    Ok((scope, format))
}

fn parse_format(text: &str) -> Result<RowFormat, String> {
    match text {
        "json" => Ok(RowFormat::Json),
        "csv" => Ok(RowFormat::Csv),
        "arrow" => Ok(RowFormat::Arrow),
        other => Err(format!("format {other:?} is unknown: use json, csv or arrow")),
    }
}

/// `{"view": …, "n_rows": …, "rows": […], …the boundary's fields}`. The rows come encoded and
/// may be many: they are copied, not parsed.
fn json(view: &str, answer: &Answer) -> Response {
    let view = serde_json::to_string(view).expect("a string is JSON");
    let boundary = serde_json::to_string(&answer.boundary).expect("a boundary's keys are strings");
    let head = format!("{{\"view\":{view},\"n_rows\":{},\"rows\":", answer.n_rows);
    let tail = boundary.replacen('{', ",", 1);
    let body = Bytes::from([head.as_bytes(), &answer.body, tail.as_bytes()].concat());
    (DATA_HEADERS, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn file(ask: &Ask, answer: Answer, extension: &str, media_type: &'static str) -> Response {
    let mut headers = boundary_headers(&answer);
    // The name is that of a definition: a-z, 0-9 and _.
    let disposition = format!("attachment; filename=\"{}.{}.{extension}\"", ask.view, ask.scope);
    if let Ok(disposition) = HeaderValue::try_from(disposition) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    (DATA_HEADERS, headers, answer.body).into_response()
}

fn boundary_headers(answer: &Answer) -> HeaderMap {
    let Boundary { scope, batch_through, realtime_through, tail_through, complete, .. } = &answer.boundary;
    let Boundary { batch_age_ms, realtime_age_ms, tail_age_ms, .. } = &answer.boundary;
    let values = [
        ("corkboard-scope", Some(scope.to_string())),
        ("corkboard-complete", Some(complete.to_string())),
        ("corkboard-rows", Some(answer.n_rows.to_string())),
        ("corkboard-batch-age-ms", batch_age_ms.map(|n| n.to_string())),
        ("corkboard-realtime-age-ms", realtime_age_ms.map(|n| n.to_string())),
        ("corkboard-tail-age-ms", tail_age_ms.map(|n| n.to_string())),
        ("corkboard-batch-through", offsets(batch_through)),
        ("corkboard-realtime-through", offsets(realtime_through)),
        ("corkboard-tail-through", offsets(tail_through)),
    ];
    let with_value = values.into_iter().filter_map(|(name, value)| {
        let value = HeaderValue::try_from(value?).ok()?;
        Some((HeaderName::from_static(name), value))
    });
    with_value.collect()
}

/// `geo-0=12, pin-0=15`; None when there is nothing to say, or too much for a header.
fn offsets(through: &BTreeMap<TopicPartition, Offset>) -> Option<String> {
    let mut line = String::new();
    for (partition, offset) in through {
        let separator = if line.is_empty() { "" } else { ", " };
        write!(line, "{separator}{partition}={offset}").expect("writing to a string cannot fail");
        if line.len() > MAX_OFFSETS_HEADER_BYTES {
            return None;
        }
    }
    (!line.is_empty()).then_some(line)
}
