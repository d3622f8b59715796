//! AWS's Signature Version 4, checked: there is one function that does it, for credentials in the
//! header and in the query alike, and nothing passes around it.
//!
//! What is ambiguous is refused rather than guessed: two credentials, headers that came twice where
//! one is meant, bodies that the signature does not cover. The order of the checks and the texts are
//! those of AWS, which clients know.

mod canonical;

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use http::{HeaderMap, Uri, header, request::Parts};
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

use super::{AskedUri, hex};
use canonical::{AUTHORITY, CanonicalRequest};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";
/// How far the clocks of client and server may be apart.
const SKEW: TimeDelta = TimeDelta::minutes(5);
/// Presigned requests may be used as long as they say, and no longer than this.
const MAX_EXPIRES_SECONDS: i64 = 7 * 24 * 3600;
/// The longest that a signature with the time in its header can be good for.
pub(super) const WINDOW: Duration = Duration::from_secs(2 * 5 * 60);
const MAX_SIGNED_HEADERS: usize = 100;

/// Why a signature is not taken. `Display` is AWS's text for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("Missing Authentication Token")]
    Missing,
    #[error("Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.")]
    Both,
    #[error("{0}")]
    Incomplete(String),
    /// The key id is unknown, removed or expired, or a session token came with it.
    #[error("The security token included in the request is invalid.")]
    Unrecognized,
    /// The time or the scope does not fit.
    #[error("{0}")]
    Invalid(String),
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    #[error("Credentials in the query string are not taken here (auth.presigned).")]
    PresignedRefused,
    #[error("This signed request was already used (auth.refuse_replays).")]
    Replayed,
}

impl SignatureError {
    /// The name that the Kinesis protocol has for it (`__type`); its status is 400.
    pub fn kinesis_type(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::Unrecognized => "UnrecognizedClientException",
            Self::Both | Self::Invalid(_) | Self::Mismatch | Self::PresignedRefused | Self::Replayed => {
                "InvalidSignatureException"
            }
        }
    }

    fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }
}

/// What the client signed.
fn target(head: &Parts) -> &Uri {
    head.extensions.get::<AskedUri>().map_or(&head.uri, |asked| &asked.0)
}

/// That there are credentials at all, in one place.
pub(super) fn check_presence(head: &Parts) -> Result<(), SignatureError> {
    Place::of(head).map(|_| ())
}

enum Place {
    Header,
    Query,
}

impl Place {
    fn of(head: &Parts) -> Result<Self, SignatureError> {
        let mut authorizations = head.headers.get_all(header::AUTHORIZATION).iter();
        let has_header = authorizations.next().is_some();
        let query = target(head).query().unwrap_or_default();
        let has_query = canonical::has_parameter(query, "X-Amz-Algorithm");
        match (has_header, has_query) {
            (true, true) => Err(SignatureError::Both),
            (true, false) if authorizations.next().is_some() => {
                Err(SignatureError::Incomplete("Authorization header must come once.".to_owned()))
            }
            (true, false) => Ok(Self::Header),
            (false, true) => Ok(Self::Query),
            (false, false) => Err(SignatureError::Missing),
        }
    }
}

/// A request's signature, taken apart and not yet checked.
#[derive(Debug)]
pub(super) struct Signed<'r> {
    pub(super) key_id: &'r str,
    pub(super) is_presigned: bool,
    date: &'r str,
    region: &'r str,
    service: &'r str,
    signed_headers: Vec<String>,
    signature: [u8; 32],
    time: DateTime<Utc>,
    time_text: String,
    expires_seconds: Option<i64>,
}

/// What header and query both have to say.
#[derive(Default)]
struct Pieces<'r> {
    credential: Option<&'r str>,
    signed_headers: Option<&'r str>,
    signature: Option<&'r str>,
}

impl<'r> Signed<'r> {
    /// Takes apart what `credentials` (the header's value, or the decoded query) hold.
    pub(super) fn of(head: &'r Parts) -> Result<Self, SignatureError> {
        if head.headers.contains_key("x-amz-security-token") {
            return Err(SignatureError::Unrecognized);
        }
        match Place::of(head)? {
            Place::Header => Self::of_header(&head.headers),
            Place::Query => Self::of_query(target(head).query().unwrap_or_default()),
        }
    }

    fn of_header(headers: &'r HeaderMap) -> Result<Self, SignatureError> {
        let incomplete = |text: &str| SignatureError::Incomplete(text.to_owned());
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let value = value.ok_or_else(|| incomplete("Authorization header cannot be read."))?;
        let Some(parameters) = value.strip_prefix(ALGORITHM).filter(|rest| rest.starts_with([' ', ','])) else {
            return Err(incomplete("Unsupported AWS 'algorithm': it must be AWS4-HMAC-SHA256."));
        };
        let mut pieces = Pieces::default();
        for parameter in parameters.split(',').map(str::trim).filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter
                .split_once('=')
                .ok_or_else(|| incomplete("Authorization header has a part without a '='."))?;
            let piece = match name {
                "Credential" => &mut pieces.credential,
                "SignedHeaders" => &mut pieces.signed_headers,
                "Signature" => &mut pieces.signature,
                _ => return Err(incomplete("Authorization header has an unknown parameter.")),
            };
            if piece.replace(value).is_some() {
                return Err(incomplete("Authorization header has a parameter twice."));
            }
        }
        let mut missing = String::new();
        for (name, piece) in [
            ("Credential", pieces.credential),
            ("Signature", pieces.signature),
            ("SignedHeaders", pieces.signed_headers),
        ] {
            if piece.is_none_or(str::is_empty) {
                missing.push_str(&format!("Authorization header requires '{name}' parameter. "));
            }
        }
        let mut times = headers.get_all("x-amz-date").iter();
        let time = times.next();
        if time.is_none() {
            missing.push_str("Authorization header requires existence of an 'X-Amz-Date' header. ");
        }
        if !missing.is_empty() {
            return Err(SignatureError::Incomplete(missing.trim_end().to_owned()));
        }
        let time = time.filter(|_| times.next().is_none()).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self::of_pieces(&pieces, time, None)
    }

    fn of_query(query: &'r str) -> Result<Self, SignatureError> {
        let incomplete = |text: String| SignatureError::Incomplete(text);
        let [algorithm, credential, time, signed_headers, signature, expires] = [
            "X-Amz-Algorithm",
            "X-Amz-Credential",
            "X-Amz-Date",
            "X-Amz-SignedHeaders",
            "X-Amz-Signature",
            "X-Amz-Expires",
        ]
        .map(|name| canonical::single_parameter(query, name).map_err(|()| name));
        let needed = |parameter: Result<Option<&'r str>, &str>| match parameter {
            Ok(Some(value)) if !value.is_empty() => Ok(value),
            Ok(_) => Err(None),
            Err(name) => Err(Some(name.to_owned())),
        };
        let or_say = |name: &'static str| {
            move |twice: Option<String>| {
                let problem = if twice.is_some() { "comes twice" } else { "is missing" };
                incomplete(format!("AWS query-string parameter '{name}' {problem}."))
            }
        };
        if needed(algorithm).map_err(or_say("X-Amz-Algorithm"))? != ALGORITHM {
            return Err(SignatureError::Incomplete(
                "Unsupported AWS 'algorithm': it must be AWS4-HMAC-SHA256.".to_owned(),
            ));
        }
        if canonical::has_parameter(query, "X-Amz-Security-Token") {
            return Err(SignatureError::Unrecognized);
        }
        let pieces = Pieces {
            credential: Some(needed(credential).map_err(or_say("X-Amz-Credential"))?),
            signed_headers: Some(needed(signed_headers).map_err(or_say("X-Amz-SignedHeaders"))?),
            signature: Some(needed(signature).map_err(or_say("X-Amz-Signature"))?),
        };
        let time = needed(time).map_err(or_say("X-Amz-Date"))?;
        let expires = needed(expires).map_err(or_say("X-Amz-Expires"))?;
        let expires = expires.parse().ok().filter(|n| (1..=MAX_EXPIRES_SECONDS).contains(n));
        let expires = expires.ok_or_else(|| {
            SignatureError::Incomplete("X-Amz-Expires must be a number of seconds, at most a week.".to_owned())
        })?;
        Self::of_pieces(&pieces, time, Some(expires))
    }

    fn of_pieces(pieces: &Pieces<'r>, time: &str, expires_seconds: Option<i64>) -> Result<Self, SignatureError> {
        let credential = pieces.credential.unwrap_or_default();
        let unreadable = || {
            SignatureError::Incomplete(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."
                    .to_owned(),
            )
        };
        // In a query, slashes may be escaped.
        let parts = canonical::split_credential(credential).ok_or_else(unreadable)?;
        let [key_id, date, region, service, terminator] = parts;
        if [key_id, date, region, service].iter().any(|part| part.is_empty()) {
            return Err(unreadable());
        }
        if terminator != TERMINATOR {
            return Err(SignatureError::invalid(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}'."
            )));
        }
        let time_at = NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").ok().filter(|_| time.len() == 16);
        let time_at = time_at.ok_or_else(|| {
            SignatureError::Incomplete("Date must be in ISO-8601 'basic format'. Got something else.".to_owned())
        })?;
        let signed_headers = canonical::header_names(pieces.signed_headers.unwrap_or_default(), MAX_SIGNED_HEADERS)
            .ok_or_else(|| {
                SignatureError::invalid("'SignedHeaders' must be lower case, sorted, and each name once.")
            })?;
        Ok(Self {
            key_id,
            is_presigned: expires_seconds.is_some(),
            date,
            region,
            service,
            signed_headers,
            signature: hex::decode(pieces.signature.unwrap_or_default()).ok_or(SignatureError::Mismatch)?,
            time: time_at.and_utc(),
            time_text: time.to_owned(),
            expires_seconds,
        })
    }

    /// Returns the signature when it is the one that `secret` makes of this request and the request is
    /// of this time and for `service`.
    pub(super) fn check(
        &self,
        head: &Parts,
        body: &[u8],
        secret: &str,
        service: &str,
        now: DateTime<Utc>,
    ) -> Result<[u8; 32], SignatureError> {
        self.check_scope(service)?;
        self.check_time(now)?;
        self.check_headers(&head.headers)?;
        let body_hash = body_hash(&head.headers, body)?;
        let Self { signed_headers, is_presigned, .. } = self;
        let request = CanonicalRequest {
            head,
            target: target(head),
            signed_headers,
            body_hash: &body_hash,
            is_presigned: *is_presigned,
        };
        let request = request.text().ok_or(SignatureError::Mismatch)?;
        let expected = self.sign(secret, &request);
        if expected.ct_eq(&self.signature).into() { Ok(expected) } else { Err(SignatureError::Mismatch) }
    }

    fn check_scope(&self, service: &str) -> Result<(), SignatureError> {
        if self.service != service {
            return Err(SignatureError::invalid(format!(
                "Credential should be scoped to correct service: '{service}'."
            )));
        }
        if Some(self.date) != self.time_text.get(..8) {
            return Err(SignatureError::invalid("Date in Credential scope does not match YYYYMMDD from X-Amz-Date."));
        }
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if self.region.len() > 64 || !self.region.bytes().all(is_name) {
            return Err(SignatureError::invalid("Credential should be scoped to a valid region."));
        }
        Ok(())
    }

    fn check_time(&self, now: DateTime<Utc>) -> Result<(), SignatureError> {
        let text = |time: DateTime<Utc>| time.format("%Y%m%dT%H%M%SZ").to_string();
        let ends = self.time + self.expires_seconds.map_or(SKEW, TimeDelta::seconds);
        if ends < now {
            let (at, limit) = (&self.time_text, text(now - SKEW));
            let message = format!("Signature expired: {at} is now earlier than {limit} ({} - 5 min.)", text(now));
            return Err(SignatureError::invalid(message));
        }
        if now + SKEW < self.time {
            let (at, limit) = (&self.time_text, text(now + SKEW));
            let message =
                format!("Signature not yet current: {at} is still later than {limit} ({} + 5 min.)", text(now));
            return Err(SignatureError::invalid(message));
        }
        Ok(())
    }

    /// The headers that decide what is asked must be signed, and be there once.
    fn check_headers(&self, headers: &HeaderMap) -> Result<(), SignatureError> {
        let is_signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        if !is_signed("host") && !is_signed(AUTHORITY) {
            return Err(SignatureError::invalid("'Host' must be a 'SignedHeader' in the AWS Authorization."));
        }
        for name in headers.keys() {
            let name = name.as_str();
            let decides = name.starts_with("x-amz-") || name == "content-type" && !self.is_presigned;
            if decides && !is_signed(name) {
                let message = format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.");
                return Err(SignatureError::invalid(message));
            }
            let is_meant_once = decides || name == "host";
            if is_meant_once && headers.get_all(name).iter().count() > 1 {
                return Err(SignatureError::invalid(format!("The header '{name}' must come once.")));
            }
        }
        Ok(())
    }

    fn sign(&self, secret: &str, canonical_request: &str) -> [u8; 32] {
        let Self { time_text, date, region, service, .. } = self;
        let request_hash = hex::encode(digest::digest(&digest::SHA256, canonical_request.as_bytes()).as_ref());
        let scope = format!("{date}/{region}/{service}/{TERMINATOR}");
        let to_sign = format!("{ALGORITHM}\n{time_text}\n{scope}\n{request_hash}");
        let mut key = [b"AWS4", secret.as_bytes()].concat();
        for part in [*date, *region, *service, TERMINATOR] {
            key = mac(&key, part.as_bytes()).as_ref().to_vec();
        }
        mac(&key, to_sign.as_bytes()).as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }
}

fn mac(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

/// Of the body as it came: what a header says of it must agree.
fn body_hash(headers: &HeaderMap, body: &[u8]) -> Result<String, SignatureError> {
    let hash = hex::encode(digest::digest(&digest::SHA256, body).as_ref());
    let Some(said) = headers.get("x-amz-content-sha256") else { return Ok(hash) };
    let said = said.to_str().unwrap_or_default();
    if said == "UNSIGNED-PAYLOAD" || said.starts_with("STREAMING-") {
        return Err(SignatureError::invalid(format!(
            "x-amz-content-sha256: {said} is not taken: the signature must cover the whole body at once."
        )));
    }
    if said == hash { Ok(hash) } else { Err(SignatureError::Mismatch) }
}

#[cfg(test)]
mod tests;
