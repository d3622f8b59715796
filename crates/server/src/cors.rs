//! Pages of other sites that may use the doors: those of `server.cors_origins`, none by default.
//!
//! They use keys as any program does: cookies and passwords that a browser keeps are never asked of
//! it, so a page can spend no rights but those that it was given.

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::config::ServerConfig;

use crate::gateway;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Accept, Authorization, X-Api-Key, X-Amz-Date, X-Amz-Target, X-Amz-Security-Token, Shard-Iterator, \
     Idempotency-Key, X-Request-Id",
);
const EXPOSED: HeaderValue =
    HeaderValue::from_static("X-Request-Id, x-amzn-RequestId, x-amzn-ErrorType, Location, Retry-After");
/// For two days browsers need not ask again.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("172800");

/// Answers what browsers ask before the request itself, and says on answers who may read them.
pub fn across(router: Router, config: &ServerConfig) -> Router {
    if config.cors_origins.is_empty() {
        return router;
    }
    router.layer(middleware::from_fn_with_state(config.clone(), say))
}

/// Whether the page that asks may use the doors. False where no page asks.
pub fn allows(headers: &HeaderMap, config: &ServerConfig) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    config
        .cors_origins
        .iter()
        .any(|allowed| allowed == "*" || origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
}

async fn say(State(config): State<ServerConfig>, request: Request, next: Next) -> Response {
    let of_door = gateway::is_of_a_door(request.uri());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let (true, Some(origin)) = (of_door && allows(request.headers(), &config), origin) else {
        let mut response = next.run(request).await;
        if of_door {
            response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
        }
        return response;
    };
    let asks_first =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks_first { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if asks_first {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
    }
    response
}
