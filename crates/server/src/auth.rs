//! Who asks, and what they may: keys, their permissions and usage plans, and signed requests.
//!
//! What a request is told when it is refused is said elsewhere, in the words of its protocol
//! (`guard` for most doors). Nothing here writes a key or a secret anywhere but to its file.

mod failures;
mod hex;
mod permission;
mod usage;

pub mod keys;

mod replays;
mod secret;
pub mod sigv4;
mod store;

use std::{net::IpAddr, path::Path, sync::Arc};

use anyhow::{Context, Result};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chrono::Utc;
use http::{Extensions, HeaderMap, HeaderName, Uri, header, request::Parts};
use model::config::{AuthConfig, AuthMode};

pub(crate) use self::store::Stamp;
use self::{failures::Failures, keys::Hashed, replays::Replays, sigv4::Signed, store::Key, store::Store};
pub use self::{
    permission::{Action, Permission},
    secret::ServerSecret,
    sigv4::SignatureError,
    usage::{Exceeded, Period, Plan},
};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The service that signed requests name in their scope.
const SERVICE: &str = "kinesis";
/// No key is longer.
const MAX_KEY_BYTES: usize = 256;

/// Basic credentials come with and without padding.
const BASE64_ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whose request it is. In `auth.mode = "off"` it may be anyone's, and anyone may do anything.
#[derive(Clone, Debug)]
pub struct Caller(Who);

#[derive(Clone, Debug)]
enum Who {
    Anyone,
    Nobody,
    Holder(Arc<Key>),
}

impl Caller {
    /// The one whom [`Auth`] let in; who was not let in, may nothing.
    pub fn of(extensions: &Extensions, auth: &Auth) -> Self {
        match (extensions.get::<Self>(), &auth.0) {
            (Some(caller), _) => caller.clone(),
            (None, None) => Self(Who::Anyone),
            (None, Some(_)) => Self(Who::Nobody),
        }
    }

    /// One who may nothing.
    pub fn nobody() -> Self {
        Self(Who::Nobody)
    }

    /// None where keys are not asked for.
    pub fn key_id(&self) -> Option<&str> {
        match &self.0 {
            Who::Holder(key) => Some(&key.id),
            Who::Anyone | Who::Nobody => None,
        }
    }

    /// `name` is a topic's, a view's or a task's.
    pub fn may(&self, action: Action, name: &str) -> bool {
        self.is(|key| key.may(action, name))
    }

    /// Whether there is any name that they may do this to.
    pub fn may_some(&self, action: Action) -> bool {
        self.is(|key| key.may_some(action))
    }

    /// Whether they may do this to all names: one of their patterns is `*`.
    pub fn may_every(&self, action: Action) -> bool {
        self.is(|key| key.may_every(action))
    }

    fn is(&self, allowed: impl FnOnce(&Key) -> bool) -> bool {
        match &self.0 {
            Who::Anyone => true,
            Who::Nobody => false,
            Who::Holder(key) => allowed(key),
        }
    }
}

/// The address that a request came from, where the listener says it.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The target as the client asked for it, where a door was sent the request under another: this is
/// what was signed.
#[derive(Clone, Debug)]
pub struct AskedUri(pub Uri);

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It brings no key.
    NoKey,
    /// Its key is unknown, wrong, removed or expired, or there is more than one.
    BadKey,
    /// Its address has shown too many wrong keys.
    TooManyFailures,
    /// Its key may not do this.
    Forbidden,
    /// Its key's usage plan has no room.
    Exceeded(Exceeded),
}

impl Refused {
    /// What `/metrics` counts it under.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoKey | Self::BadKey => "unauthenticated",
            Self::TooManyFailures => "too_many_failures",
            Self::Forbidden => "forbidden",
            Self::Exceeded(Exceeded::Rate { .. }) => "rate",
            Self::Exceeded(Exceeded::Quota { .. }) => "quota",
        }
    }
}

/// Knows the keys; one per process. Where authentication is off, it knows nothing and lets all in.
pub struct Auth(Option<Keyed>);

struct Keyed {
    store: Store,
    secret: ServerSecret,
    failures: Failures,
    replays: Option<Replays>,
    takes_presigned: bool,
}

impl Auth {
    pub fn off() -> Self {
        Self(None)
    }

    pub fn open(config: &AuthConfig) -> Result<Self> {
        if config.mode == AuthMode::Off {
            return Ok(Self::off());
        }
        let secret = ServerSecret::read(Path::new(&config.secret_file))?;
        let store = Store::open(Path::new(&config.keys_file)).context("auth.mode is \"keys\"")?;
        Ok(Self(Some(Keyed {
            store,
            secret,
            failures: Failures::new(config.max_failures_per_minute),
            replays: config.refuse_replays.then(|| Replays::new(config.max_replay_signatures, sigv4::WINDOW)),
            takes_presigned: config.presigned,
        })))
    }

    pub fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Whose key the headers bring.
    pub fn caller(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Caller, Refused> {
        let Some(keyed) = &self.0 else { return Ok(Caller(Who::Anyone)) };
        let refused = match key_text(headers) {
            Ok(text) => match keyed.check(&text) {
                Some(key) => return Ok(Caller(Who::Holder(key))),
                None => Refused::BadKey,
            },
            // No guess was made.
            Err(Refused::NoKey) => return Err(Refused::NoKey),
            Err(refused) => refused,
        };
        Err(if keyed.failures.are_too_many(peer) { Refused::TooManyFailures } else { refused })
    }

    /// Who signed a request of the Kinesis protocol: the one way to check a signature. `body` is the
    /// whole of it; `changes` says whether the action changes anything. Where authentication is off,
    /// a signature must be there and may be anything.
    pub fn signed(&self, head: &Parts, body: &[u8], changes: bool) -> Result<Caller, SignatureError> {
        let Some(keyed) = &self.0 else {
            sigv4::check_presence(head)?;
            return Ok(Caller(Who::Anyone));
        };
        let signed = Signed::of(head)?;
        if signed.is_presigned && !keyed.takes_presigned {
            return Err(SignatureError::PresignedRefused);
        }
        let key = keyed.store.find(signed.key_id);
        let salt = key.as_ref().map_or(&Hashed::NOBODY.salt, |key| &key.hashed.salt);
        let secret = keyed.secret.derive(signed.key_id, salt);
        // Checked for an unknown key too, so that the time does not tell.
        let checked = signed.check(head, body, &secret, SERVICE, Utc::now());
        let peer = head.extensions.get::<Peer>().map(|peer| peer.0);
        let Some(key) = key else {
            keyed.failures.are_too_many(peer);
            return Err(SignatureError::Unrecognized);
        };
        let signature = checked?;
        match &keyed.replays {
            Some(replays) if changes && !replays.is_first(signature) => Err(SignatureError::Replayed),
            _ => Ok(Caller(Who::Holder(key))),
        }
    }

    /// Counts a request against its caller's usage plan.
    pub fn admit(&self, caller: &Caller) -> Result<(), Exceeded> {
        match &caller.0 {
            Who::Holder(key) => key.plan.as_ref().map_or(Ok(()), |plan| key.usage.count(plan, Utc::now())),
            Who::Anyone | Who::Nobody => Ok(()),
        }
    }
}

impl Keyed {
    fn check(&self, text: &str) -> Option<Arc<Key>> {
        let id = text.split_once('.').map_or("", |(id, _)| id);
        let key = self.store.find(id);
        let hashed = key.as_ref().map_or(&Hashed::NOBODY, |key| &key.hashed);
        let is_right = hashed.is_of(text);
        key.filter(|_| is_right)
    }
}

/// The key that a request brings: in `x-api-key`, as `Bearer`, or as `Basic` with the id as user and
/// as password the key or what follows the id in it.
fn key_text(headers: &HeaderMap) -> Result<String, Refused> {
    let mut api_keys = headers.get_all(API_KEY).iter();
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let (value, is_api_key) = match (api_keys.next(), authorizations.next()) {
        (None, None) => return Err(Refused::NoKey),
        (Some(value), None) => (value, true),
        (None, Some(value)) => (value, false),
        (Some(_), Some(_)) => return Err(Refused::BadKey),
    };
    if api_keys.next().is_some() || authorizations.next().is_some() || value.len() > 2 * MAX_KEY_BYTES {
        return Err(Refused::BadKey);
    }
    let value = value.to_str().map_err(|_| Refused::BadKey)?;
    if is_api_key {
        return Ok(value.to_owned());
    }
    let (scheme, rest) = value.split_once(' ').ok_or(Refused::BadKey)?;
    let rest = rest.trim_start_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Refused::BadKey);
    }
    let decoded = BASE64_ANY_PADDING.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.ok_or(Refused::BadKey)?;
    let (user, password) = decoded.split_once(':').ok_or(Refused::BadKey)?;
    let is_whole = password.strip_prefix(user).is_some_and(|rest| rest.starts_with('.'));
    Ok(if is_whole { password.to_owned() } else { format!("{user}.{password}") })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_key_comes_in_one_header_and_in_one_only() {
        let basic = |text: &str| format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(text));
        for (headers, found) in [
            (vec![], Err(Refused::NoKey)),
            (vec![("x-api-key", "A.b".to_owned())], Ok("A.b")),
            (vec![("authorization", "Bearer A.b".to_owned())], Ok("A.b")),
            (vec![("authorization", "bearer  A.b".to_owned())], Ok("A.b")),
            (vec![("authorization", basic("A:b"))], Ok("A.b")),
            (vec![("authorization", basic("A:A.b").trim_end_matches('=').to_owned())], Ok("A.b")),
            (vec![("authorization", basic("A"))], Err(Refused::BadKey)),
            (vec![("authorization", "Basic ???".to_owned())], Err(Refused::BadKey)),
            (vec![("authorization", "Digest A.b".to_owned())], Err(Refused::BadKey)),
            (vec![("authorization", "A.b".to_owned())], Err(Refused::BadKey)),
            (vec![("x-api-key", "A.b".to_owned()), ("x-api-key", "A.b".to_owned())], Err(Refused::BadKey)),
            (vec![("x-api-key", "A.b".to_owned()), ("authorization", "Bearer A.b".to_owned())], Err(Refused::BadKey)),
            (vec![("x-api-key", "x".repeat(10_000))], Err(Refused::BadKey)),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(*name, HeaderValue::from_str(value).expect("a header"));
            }
            assert_eq!(key_text(&map), found.map(str::to_owned), "{headers:?}");
        }
    }
}
