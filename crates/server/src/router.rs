//! One router of all routes, and what every request gets: an id, a place in the metrics, and
//! an answer even when its handler panics.

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{MatchedPath, Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use model::Stop;
use serde_json::json;
use tower::{Layer, Service, util::MapRequest};
use tracing::{error, warn};

use crate::{
    Services,
    api::{self, KnownHost, Problem},
    cors, dashboard,
    error::{KAFKA_JSON, KafkaError},
    gateway, guard, ingest,
    metrics::Metrics,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client's own request id is kept when it is no longer than this.
const MAX_REQUEST_ID_BYTES: usize = 64;
/// The route that requests without a route are counted under.
const NO_ROUTE: &str = "none";

/// Everything that this process serves; `/readyz` says no once `stop` is cancelled.
pub fn router(services: Services, stop: Stop) -> Router {
    let router = routes(&services, stop);
    let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
    let router = cors::across(guard::guarded(router, &services), &services.config.server);
    let router = observed(router, services.metrics);
    // Before it is decided which route a request takes.
    Router::new().fallback_service(MapRequest::new(router, |request| {
        gateway::without_stage(ingest::kinesis::addressed(request))
    }))
}

/// The routes alone: unguarded, uncounted.
pub fn routes(services: &Services, stop: Stop) -> Router {
    let ready = stop.clone();
    let mut router = Router::new()
        .route("/", get(root))
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(move |State(services): State<Services>| ready_to_serve(services, ready.clone())))
        .merge(api::routes())
        .merge(dashboard::routes())
        .with_state(services.clone());
    if services.ingest {
        router = router.merge(ingest::routes(services, stop));
    }
    router
}

/// The same routes, their requests counted, timed, given an id, and answered even after a panic.
pub fn observed(routes: Router, metrics: Arc<Metrics>) -> Router {
    routes.layer(Observe { metrics })
}

/// People get the dashboard; programs get what Kafka REST clients ask to see if it is there.
async fn root(known_host: Result<KnownHost, Problem>, headers: HeaderMap) -> Response {
    let accepts = headers.get_all(header::ACCEPT);
    if accepts.iter().any(|accepted| accepted.to_str().is_ok_and(|types| types.contains("text/html"))) {
        return known_host.map(|_| dashboard::index()).into_response();
    }
    ([(header::CONTENT_TYPE, KAFKA_JSON)], "{}").into_response()
}

async fn ready_to_serve(services: Services, stop: Stop) -> Response {
    let unavailable = |message: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    if stop.is_cancelled() {
        return unavailable("the server is stopping".to_owned());
    }
    match services.log.describe().await {
        Ok(_) => Json(json!({ "status": "ready" })).into_response(),
        Err(e) => unavailable(e.to_string()),
    }
}

/// What no route takes: in the words of the API below `/api` and where the page's files are, of the gateway below a stage, of
/// Kafka REST elsewhere.
async fn not_found(uri: Uri) -> Response {
    if is_api(&uri) || uri.path().starts_with("/assets/") {
        return Problem::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path())).into_response();
    }
    if gateway::answers_for(&uri) {
        return gateway::not_found();
    }
    KafkaError::not_found().into_response()
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    if is_api(&uri) {
        let message = format!("{} does not take {method}", uri.path());
        return Problem::new(StatusCode::METHOD_NOT_ALLOWED, message).into_response();
    }
    if gateway::answers_for(&uri) {
        return gateway::not_found();
    }
    KafkaError::method_not_allowed().into_response()
}

fn is_api(uri: &Uri) -> bool {
    uri.path() == "/api" || uri.path().starts_with("/api/")
}

#[derive(Clone)]
struct Observe {
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, metrics: self.metrics.clone() }
    }
}

#[derive(Clone)]
struct Observed<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Service<Request> for Observed<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Observing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let about = About {
            metrics: self.metrics.clone(),
            began: Instant::now(),
            id: request_id(request.headers()),
            method: request.method().clone(),
            route: request.extensions().get().cloned(),
        };
        Observing { answering: self.inner.call(request), about }
    }
}

/// A request under way.
struct Observing<F> {
    answering: F,
    about: About,
}

struct About {
    metrics: Arc<Metrics>,
    began: Instant,
    id: HeaderValue,
    method: Method,
    route: Option<MatchedPath>,
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for Observing<F> {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // After a panic the future is not polled again, so nothing sees what it left behind.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.answering).poll(cx)));
        let mut response = match polled {
            Ok(polled) => match ready!(polled) {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(_) => {
                error!(request_id = ?self.about.id, "{} {} panicked", self.about.method, self.about.route());
                KafkaError::internal().into_response()
            }
        };
        self.about.finish(&mut response);
        Poll::Ready(Ok(response))
    }
}

impl About {
    fn route(&self) -> &str {
        self.route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str)
    }

    fn finish(&mut self, response: &mut Response) {
        let status = response.status();
        self.metrics.request(self.route(), &self.method, status, self.began.elapsed());
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            warn!(request_id = ?self.id, "{} {} was answered with {status}", self.method, self.route());
        }
        response.headers_mut().insert(REQUEST_ID, self.id.clone());
    }
}

/// The client's own, or one that no other request to this process has.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    static N_REQUESTS: AtomicU64 = AtomicU64::new(0);
    static PROCESS: OnceLock<u64> = OnceLock::new();
    if let Some(id) = headers.get(REQUEST_ID)
        && (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
    {
        return id.clone();
    }
    let process = PROCESS.get_or_init(|| {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since_epoch.as_micros() as u64
    });
    let id = format!("{process:x}-{:x}", N_REQUESTS.fetch_add(1, Relaxed));
    HeaderValue::try_from(id).expect("hexadecimal digits may stand in a header")
}
