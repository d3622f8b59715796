//! Lets requests in where keys are asked for: finds the caller, counts against the usage plan, and
//! compares the route's demand with what the caller may. Doors find the [`Caller`] in the request's
//! extensions, for what stands in bodies and not in the path.

pub mod policy;
mod words;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use axum::{
    Router,
    extract::{MatchedPath, RawPathParams, Request, State, rejection::RawPathParamsRejection},
    middleware::{self, Next},
    response::Response,
};
use http::Method;
use tracing::{info, warn};

use crate::{
    Services,
    auth::{Action, Auth, Caller, Peer, Refused},
    metrics::Metrics,
};
use policy::{Demand, On};
use words::Words;

/// Refused callers are logged together, once in so many seconds.
const SAY_EVERY_SECONDS: u64 = 10;

struct Guard {
    auth: Arc<Auth>,
    metrics: Arc<Metrics>,
    began: Instant,
    /// Seconds after `began` when refusals may be logged next, and how many were not.
    say_at: AtomicU64,
    n_unsaid: AtomicU64,
}

/// The same routes, guarded where `auth.mode` asks for it.
pub fn guarded(router: Router, services: &Services) -> Router {
    if services.auth.is_off() {
        return router;
    }
    let guard = Guard {
        auth: services.auth.clone(),
        metrics: services.metrics.clone(),
        began: Instant::now(),
        say_at: AtomicU64::new(0),
        n_unsaid: AtomicU64::new(0),
    };
    router.layer(middleware::from_fn_with_state(Arc::new(guard), check))
}

type Parameters = Result<RawPathParams, RawPathParamsRejection>;

async fn check(
    State(guard): State<Arc<Guard>>,
    route: Option<MatchedPath>,
    parameters: Parameters,
    mut request: Request,
    next: Next,
) -> Response {
    let words = Words::of(request.uri(), request.extensions());
    let (demand, name) = match route.as_ref().map(|route| policy::demand(request.method().as_str(), route.as_str())) {
        Some(Some((demand, place))) => (demand, name(parameters, place)),
        // A method that the route does not take, or a route that is not in the table.
        Some(None) => (Demand::May(Action::Admin, On::Every), None),
        None => (Demand::Key, None),
    };
    if matches!(demand, Demand::Nothing | Demand::Signature) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let caller = guard.auth.caller(request.headers(), peer);
    let caller = caller.and_then(|caller| guard.auth.admit(&caller).map(|()| caller).map_err(Refused::Exceeded));
    let caller = match caller {
        Ok(caller) if is_met(demand, &caller, name.as_deref()) => caller,
        Ok(caller) => {
            guard.note(Refused::Forbidden, caller.key_id());
            return words.say(Refused::Forbidden, &wish(demand, name.as_deref()));
        }
        Err(refused) => {
            guard.note(refused, None);
            return words.say(refused, "");
        }
    };
    let audited = Audited::of(demand, request.method(), &caller, route.as_ref(), name);
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    if let Some(audited) = audited {
        audited.say(&response);
    }
    response
}

fn name(parameters: Parameters, place: Option<usize>) -> Option<String> {
    let parameters = parameters.ok()?;
    let (_, value) = parameters.iter().nth(place?)?;
    Some(value.to_owned())
}

fn is_met(demand: Demand, caller: &Caller, name: Option<&str>) -> bool {
    match demand {
        Demand::Nothing | Demand::Key | Demand::Signature => true,
        Demand::May(action, On::Name) => name.is_some_and(|name| caller.may(action, name)),
        Demand::May(action, On::Fixed(name)) => caller.may(action, name),
        Demand::May(action, On::Some) => caller.may_some(action),
        Demand::May(action, On::Every) => caller.may_every(action),
    }
}

/// The permission that would be needed, as people read it.
fn wish(demand: Demand, name: Option<&str>) -> String {
    let Demand::May(action, on) = demand else { return "a permission".to_owned() };
    match (on, name) {
        (On::Name, Some(name)) => format!("{action} on {:?}", name.chars().take(250).collect::<String>()),
        (On::Fixed(name), _) => format!("{action} on {name:?}"),
        (On::Every, _) => format!("{action} on all names"),
        (On::Some | On::Name, _) => format!("{action} on any name"),
    }
}

impl Guard {
    fn note(&self, refused: Refused, key_id: Option<&str>) {
        self.metrics.refused(refused.reason());
        let now = self.began.elapsed().as_secs();
        let due = self.say_at.load(Relaxed);
        let may_say =
            now >= due && self.say_at.compare_exchange(due, now + SAY_EVERY_SECONDS, Relaxed, Relaxed).is_ok();
        if !may_say {
            self.n_unsaid.fetch_add(1, Relaxed);
            return;
        }
        let n_more = self.n_unsaid.swap(0, Relaxed);
        let (reason, key) = (refused.reason(), key_id.unwrap_or("none"));
        warn!(reason, key, n_more, "a request was refused ({reason}), and {n_more} others since the last such line");
    }
}

/// A request that changes how things are run, and who wished it.
struct Audited {
    key: String,
    method: Method,
    route: String,
    name: String,
}

impl Audited {
    fn of(
        demand: Demand,
        method: &Method,
        caller: &Caller,
        route: Option<&MatchedPath>,
        name: Option<String>,
    ) -> Option<Self> {
        let changes = method != Method::GET && method != Method::HEAD;
        let is_of_running = matches!(demand, Demand::May(Action::Admin | Action::Tasks, _));
        (changes && is_of_running).then(|| Self {
            key: caller.key_id().unwrap_or_default().to_owned(),
            method: method.clone(),
            route: route.map(|route| route.as_str().to_owned()).unwrap_or_default(),
            name: name.unwrap_or_default(),
        })
    }

    fn say(self, response: &Response) {
        let Self { key, method, route, name } = self;
        let status = response.status().as_u16();
        info!(target: "audit", key, %method, route, name = ?name, status, "{key} asked {method} {route} ({name:?}): {status}");
    }
}
