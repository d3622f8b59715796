//! The pages that people look at: a few files compiled into the binary, which ask `/api` for
//! everything they show, and `/openapi.json` for what there is to ask. There is no build step and no other host: what the browser runs is
//! what stands in `assets/`, and the content security policy allows nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{Services, api::KnownHost};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of `assets/`.
struct Asset {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($name:literal, $media_type:expr) => {
        Asset {
            path: concat!("/assets/", $name),
            media_type: $media_type,
            text: include_str!(concat!("assets/", $name)),
        }
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

static INDEX: Asset = asset!("index.html", HTML);

static DOCS: Asset = asset!("docs.html", HTML);
/// What the server answers, as OpenAPI 3.1; a test compares it with the routes.
static OPEN_API: Asset = asset!("openapi.json", "application/json");

static ASSETS: [Asset; 11] = [
    asset!("style.css", STYLE),
    asset!("docs.css", STYLE),
    asset!("docs.js", SCRIPT),
    asset!("app.js", SCRIPT),
    asset!("chart.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("format.js", SCRIPT),
    asset!("partitions.js", SCRIPT),
    asset!("pipeline.js", SCRIPT),
    asset!("tasks.js", SCRIPT),
    asset!("views.js", SCRIPT),
];

/// The pages under `/dashboard` and `/docs`, and the files they are made of.
pub fn routes() -> Router<Services> {
    let pages = Router::new()
        .route("/dashboard", get(|_: KnownHost| async { index() }))
        .route("/docs", get(|_: KnownHost, headers: HeaderMap| async move { serve(&DOCS, &headers) }))
        .route("/openapi.json", get(|_: KnownHost, headers: HeaderMap| async move { serve(&OPEN_API, &headers) }));
    ASSETS.iter().fold(pages, |router, asset| {
        router.route(asset.path, get(move |_: KnownHost, headers: HeaderMap| async move { serve(asset, &headers) }))
    })
}

/// The page itself; whether `GET /` shows it, the router decides by `Accept`.
pub fn index() -> Response {
    serve(&INDEX, &HeaderMap::new())
}

/// Browsers keep the files, and ask each time whether they are still those of this binary.
fn serve(asset: &'static Asset, asked: &HeaderMap) -> Response {
    let tag = entity_tag(asset.text);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
        (header::ETAG, tag.clone()),
    ];
    if asked.get(header::IF_NONE_MATCH) == Some(&tag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, asset.text).into_response()
}

fn entity_tag(text: &str) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish())).expect("quotes and hex digits may stand in a header")
}
