//! `POST /pin/`: the door of the FastAPI program that takes one pin at a time and brings it to the
//! topic `Pinterest_data`.
//!
//! Bodies are checked and coerced as Pydantic 1 does with that program's model, faults are told in
//! FastAPI's words, and the record is the text that Python's `json.dumps` made of the model.

mod python;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use model::{Record, Timestamp};
use serde_json::{Value, json, value::RawValue};

use super::{
    Doors,
    append::Addressed,
    idempotency::{Door, Once},
};
use crate::error::KafkaError;
use python::Coerced;

/// The name that the program has; who may post a pin may produce to this.
pub const TOPIC: &str = "Pinterest_data";

/// The model's fields in its order, and which of them are whole numbers; the others are text.
const FIELDS: [(&str, bool); 12] = [
    ("category", false),
    ("index", true),
    ("unique_id", false),
    ("title", false),
    ("description", false),
    ("poster_name", false),
    ("follower_count", false),
    ("tag_list", false),
    ("is_image_or_video", false),
    ("image_src", false),
    ("downloaded", true),
    ("save_location", false),
];

pub(super) fn routes() -> Router<Arc<Doors>> {
    let wrong_method = || async {
        let mut response = detail(StatusCode::METHOD_NOT_ALLOWED, &json!("Method Not Allowed"));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        response
    };
    Router::new().route("/pin/", post(take).fallback(wrong_method)).route("/pin", any(to_slash))
}

/// As Starlette sends clients to a path that differs by its slash.
async fn to_slash(uri: Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::try_from(format!("/pin/{query}")).unwrap_or(HeaderValue::from_static("/pin/"));
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
}

async fn take(State(doors): State<Arc<Doors>>, request: Request) -> Response {
    match doors.take_pin(request).await {
        Ok(answer) => answer,
        Err(error) => {
            doors.services.metrics.refused(error.reason);
            let kafka = error.clone().into_response();
            let mut response = detail(error.status, &json!(error.message));
            if let Some(value) = kafka.headers().get(header::RETRY_AFTER) {
                response.headers_mut().insert(header::RETRY_AFTER, value.clone());
            }
            response
        }
    }
}

impl Doors {
    async fn take_pin(&self, request: Request) -> Result<Response, KafkaError> {
        let (mut head, body) = request.into_parts();
        self.check_origin(&mut head).await?;
        let body = self.bodies.read(&head.headers, body).await?;
        let now = Timestamp::now();
        let once = Once::of(&head.headers, Door::Pin, now)?;
        let pin = match read(&head.headers, &body) {
            Ok(pin) => pin,
            Err(faults) => {
                self.services.metrics.refused("invalid");
                return Ok(detail(StatusCode::UNPROCESSABLE_ENTITY, &Value::from(faults)));
            }
        };
        let value = python::object(&pin, python::Style::Dumps);
        let limit_bytes = self.services.config.ingest.max_record_bytes;
        if value.len() > limit_bytes {
            let message =
                format!("the pin has {} bytes, {limit_bytes} are allowed (ingest.max_record_bytes)", value.len());
            return Err(KafkaError::too_large(message));
        }
        let record = Record { key: None, value: Some(Bytes::from(value)), headers: Vec::new(), timestamp: now };
        self.store(TOPIC, None, vec![Addressed { partition: None, record }], once.as_ref()).await?;
        Ok(json_response(StatusCode::OK, python::object(&pin, python::Style::Compact)))
    }
}

type Pin<'a> = Vec<(&'static str, Coerced<'a>)>;

/// The model's fields, or what FastAPI says is wrong with each.
fn read<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Pin<'a>, Vec<Value>> {
    let whole = |message: &str, kind: &str| vec![json!({"loc": ["body"], "msg": message, "type": kind})];
    if body.is_empty() {
        return Err(whole("field required", "value_error.missing"));
    }
    if !is_json(headers) {
        return Err(whole("value is not a valid dict", "type_error.dict"));
    }
    let raw: &RawValue = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text).map_err(|e| vec![python::not_json(&e, text)])?,
        // FastAPI says no more than this to a body that is no text.
        Err(_) => return Err(whole("There was an error parsing the body", "value_error")),
    };
    let given = match raw.get() {
        "null" => return Err(whole("field required", "value_error.missing")),
        // An empty list makes an empty dict.
        json if json.starts_with('{') || is_empty_list(json) => python::fields(raw, FIELDS.map(|(name, _)| name)),
        _ => return Err(whole("value is not a valid dict", "type_error.dict")),
    };
    let (mut pin, mut faults) = (Vec::with_capacity(FIELDS.len()), Vec::new());
    for ((name, is_integer), raw) in FIELDS.into_iter().zip(given) {
        let coerced = match raw {
            None => Err(("field required", "value_error.missing")),
            Some(raw) if is_integer => python::integer(raw),
            Some(raw) => python::text(raw),
        };
        match coerced {
            Ok(value) => pin.push((name, value)),
            Err((message, kind)) => faults.push(json!({"loc": ["body", name], "msg": message, "type": kind})),
        }
    }
    if faults.is_empty() { Ok(pin) } else { Err(faults) }
}

/// Without a type FastAPI takes a body for JSON, too.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else { return true };
    let Ok(content_type) = content_type.to_str() else { return false };
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.strip_prefix("application/").is_some_and(|sub| sub == "json" || sub.ends_with("+json"))
}

fn is_empty_list(json: &str) -> bool {
    json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|inner| inner.trim().is_empty())
}

fn detail(status: StatusCode, detail: &Value) -> Response {
    json_response(status, json!({ "detail": detail }).to_string())
}

fn json_response(status: StatusCode, json: String) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
}
