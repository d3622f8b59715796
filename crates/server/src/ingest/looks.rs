//! Requests that only look at a door, before anything of them is done: browsers bring them for pages of
//! other sites without an `Origin`, so they are told by other signs (`api::check_look`).
//!
//! What brings records has an `Origin` when a page sends it, and passes here without a detour.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::future::Either;
use http::StatusCode;
use model::config::Config;
use tower::{Layer, Service};

use crate::{Services, api::check_look, error::KafkaError, gateway, metrics::Metrics};

/// The same routes, closed to pages of other sites.
pub(super) fn from_own_pages(router: Router, services: &Services) -> Router {
    router.route_layer(OwnPages {
        config: services.config.clone(),
        metrics: services.metrics.clone(),
        needs_key: !services.auth.is_off(),
    })
}

#[derive(Clone)]
struct OwnPages {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    needs_key: bool,
}

impl<S> Layer<S> for OwnPages {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, own_pages: self.clone() }
    }
}

#[derive(Clone)]
struct Watched<S> {
    inner: S,
    own_pages: OwnPages,
}

impl<S> Service<Request> for Watched<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.own_pages.refuse(&request) {
            None => Either::Left(self.inner.call(request)),
            Some(refusal) => Either::Right(ready(Ok(refusal))),
        }
    }
}

impl OwnPages {
    fn refuse(&self, request: &Request) -> Option<Response> {
        let (uri, headers, config) = (request.uri(), request.headers(), &self.config.server);
        let text = check_look(request.method(), uri, headers, self.needs_key, config).err()?.into_text();
        self.metrics.refused("foreign_page");
        if gateway::is_asked(uri, request.extensions()) {
            return Some(gateway::message(StatusCode::FORBIDDEN, "ForbiddenException", &text));
        }
        Some(KafkaError::foreign(text).into_response())
    }
}
