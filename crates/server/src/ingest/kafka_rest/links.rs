//! Links in answers: they lead back the way that the client came.

use std::{convert::Infallible, sync::Arc};

use axum::extract::FromRequestParts;
use http::{HeaderMap, Uri, header, request::Parts};
use model::config::ServerConfig;

use crate::ingest::Doors;

/// `https://name:port`: what every link begins with.
pub(super) struct Base(pub(super) String);

impl Base {
    pub(super) fn of(head: &Parts, config: &ServerConfig) -> Self {
        Self::new(&head.uri, &head.headers, !config.tls_cert_file.is_empty())
    }

    fn new(target: &Uri, headers: &HeaderMap, has_tls: bool) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // A proxy may have ended TLS.
        let is_secure = has_tls || text("x-forwarded-proto") == Some("https");
        // HTTP/2 names the host in the target.
        let host = target.authority().map(|authority| authority.as_str()).or_else(|| text(header::HOST.as_str()));
        Self(format!("{}://{}", if is_secure { "https" } else { "http" }, host.unwrap_or("localhost")))
    }
}

impl FromRequestParts<Arc<Doors>> for Base {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, doors: &Arc<Doors>) -> Result<Self, Infallible> {
        Ok(Self::of(head, &doors.services.config.server))
    }
}

/// For a segment of a path.
pub(super) fn percent_encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded = text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_back_the_way_that_the_client_came() {
        for (target, headers, has_tls, base) in [
            ("/topics", &[][..], false, "http://localhost"),
            ("/topics", &[("host", "a:1")], false, "http://a:1"),
            ("/topics", &[("host", "a:1")], true, "https://a:1"),
            ("https://b:2/topics", &[], true, "https://b:2"),
            ("http://b:2/topics", &[("host", "a:1")], false, "http://b:2"),
            ("/topics", &[("host", "a"), ("x-forwarded-proto", "https")], false, "https://a"),
            ("/topics", &[("host", "a"), ("x-forwarded-proto", "http")], true, "https://a"),
        ] {
            let headers = headers.iter().map(|(name, value)| {
                let name: header::HeaderName = name.parse().expect("a name");
                (name, value.parse().expect("a value"))
            });
            let target: Uri = target.parse().expect("a target");
            assert_eq!(Base::new(&target, &headers.collect(), has_tls).0, base, "{target}");
        }
    }
}
