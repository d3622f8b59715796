//! Against pages of other sites in a visitor's browser. Such a page can make the browser
//! send requests to a loopback address, and after re-binding its own name to that address
//! also read the answers. Browsers tell, though, by which name they came (`Host`) and whose
//! page asked (`Origin`, `Sec-Fetch-Site`); other programs have no reason to be tricked.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};

use axum::extract::FromRequestParts;
use http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts, uri::Authority};
use model::config::ServerConfig;

use super::Problem;
use crate::{Services, auth::Caller};

/// The request came by a name of this server: loopback, the listen address, or one of
/// `server.allowed_hosts`; 421 otherwise.
pub struct KnownHost;

/// The request came by a name of this server, and from no page of another site; 403 otherwise.
pub struct SameOrigin;

impl FromRequestParts<Services> for KnownHost {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, services: &Services) -> Result<Self, Problem> {
        known_host(&parts.uri, &parts.headers, &services.config.server).map(|_| Self)
    }
}

impl FromRequestParts<Services> for SameOrigin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, services: &Services) -> Result<Self, Problem> {
        let host = known_host(&parts.uri, &parts.headers, &services.config.server)?;
        check_site(&parts.headers)?;
        if !single(&parts.headers, "origin")?.is_none_or(|origin| is_origin_of(origin, &host)) {
            return Err(foreign("origin"));
        }
        Ok(Self)
    }
}

impl FromRequestParts<Services> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, services: &Services) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions, &services.auth))
    }
}

/// The same for a request to a door that brings no `Origin`, as browsers leave it out where a page of
/// one site looks at that same site. A page that re-bound its name has another `Host` then; one that
/// names a door as its picture reads nothing, but moves a consumer on. Programs may leave `Host` out,
/// and with keys (`needs_key`) use any: a page has none.
pub fn check_look(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    needs_key: bool,
    config: &ServerConfig,
) -> Result<(), Problem> {
    let only_looks = method == Method::GET || method == Method::HEAD;
    if !only_looks || headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    check_site(headers)?;
    if !needs_key && (uri.authority().is_some() || headers.contains_key(header::HOST)) {
        known_host(uri, headers, config)?;
    }
    Ok(())
}

fn check_site(headers: &HeaderMap) -> Result<(), Problem> {
    let is_own_site = |site| site == "same-origin" || site == "none";
    match single(headers, "sec-fetch-site")? {
        Some(site) if !is_own_site(site) => Err(foreign("sec-fetch-site")),
        _ => Ok(()),
    }
}

fn foreign(field: &'static str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "pages of other sites may not ask for this").at(field)
}

fn known_host(uri: &Uri, headers: &HeaderMap, config: &ServerConfig) -> Result<Authority, Problem> {
    // An absolute request target goes before the header (RFC 9112, 3.2.2).
    let asked = match uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => single(headers, "host")?.and_then(|h| h.parse().ok()),
    };
    let bad = || Problem::new(StatusCode::BAD_REQUEST, "the request names no host").at("host");
    let asked = asked.ok_or_else(bad)?;
    if is_own_name(asked.host(), config) {
        return Ok(asked);
    }
    let error = format!("this server is not called {:?}; server.allowed_hosts lists its names", asked.host());
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, error).at("host"))
}

/// Ports are not compared: a forwarded port has another number, and a page cannot choose
/// what its browser writes here.
fn is_own_name(host: &str, config: &ServerConfig) -> bool {
    let is_allowed = |name: &String| name.eq_ignore_ascii_case(host);
    if host.eq_ignore_ascii_case("localhost") || config.allowed_hosts.iter().any(is_allowed) {
        return true;
    }
    let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    address.is_some_and(|a| a.is_loopback() || is_listened_on(a, config.listen))
}

/// Whoever listens on every address is asked by any of them; an address, unlike a name,
/// cannot be re-bound.
fn is_listened_on(address: IpAddr, listen: SocketAddr) -> bool {
    listen.ip() == address || listen.ip().is_unspecified()
}

/// `http://name:port`, as browsers write it: without the port that the scheme implies. A
/// proxy that ends TLS passes the same name and port on as `Host`.
fn is_origin_of(origin: &str, host: &Authority) -> bool {
    let after_scheme = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    after_scheme.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
}

/// The value of a header that may come once.
fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|v| v.to_str());
    match (first, values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, format!("the header {name} cannot be read")).at(name)),
    }
}
