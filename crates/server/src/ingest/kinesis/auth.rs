//! Who asks: the signature says it (`crate::auth`), and the scope that a client signs for says under
//! which account and in which region it believes to be, which names and texts repeat.

use bytes::Bytes;
use http::{StatusCode, header, request::Parts};
use tracing::info;

use super::{MAX_TREE_BYTES, Reply, error::KinesisError, names::Caller, value::Value, writer::Format};
use crate::{
    auth::Action,
    ingest::{Doors, json::shortened},
};

/// Where requests name what they change, in this order.
const NAMES: [&str; 4] = ["StreamName", "StreamARN", "ResourceARN", "ConsumerARN"];

impl Doors {
    /// The one place where a request's caller is asked for: after its body was read, before anything
    /// in it is looked at.
    pub(super) fn caller(&self, head: &Parts, action: &str, body: &Bytes) -> Result<Caller, KinesisError> {
        let needed = Action::of_kinesis(action);
        let auth = &self.services.auth;
        let who = auth.signed(head, body, needed.changes()).map_err(|e| KinesisError::of_signature(&e))?;
        auth.admit(&who).map_err(KinesisError::exceeded)?;
        if !who.may_some(needed) {
            return Err(KinesisError::access_denied(format!("Not authorized: this key lacks {needed} on any name")));
        }
        let mut caller = Caller::new(who, needed);
        let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some((account, region)) = authorization.and_then(scope) {
            caller.account = account.unwrap_or(caller.account);
            caller.region = region.unwrap_or(caller.region);
        }
        Ok(caller)
    }
}

/// A request that changes how streams are, and who wished it.
pub(super) struct Audited {
    key: String,
    action: String,
    name: String,
}

impl Audited {
    /// None where nothing would change, and where nobody has a key.
    pub(super) fn of(caller: &Caller, action: &str, format: Format, body: &[u8]) -> Option<Self> {
        let key = caller.who.key_id().filter(|_| caller.action == Action::Admin)?;
        let name = named(format, body).unwrap_or_default();
        Some(Self { key: key.to_owned(), action: shortened(action).into_owned(), name: shortened(&name).into_owned() })
    }

    pub(super) fn say(self, reply: &Result<Reply, KinesisError>) {
        let Self { key, action, name } = self;
        let status = reply.as_ref().map_or_else(|error| error.status, |_| StatusCode::OK).as_u16();
        let error = reply.as_ref().err().map_or("none", |error| error.name);
        // What a key may not do is counted, and fills no log.
        if error != KinesisError::ACCESS_DENIED {
            info!(target: "audit", key, action = ?action, name = ?name, status, error, "{key} asked {action:?} ({name:?}): {status}");
        }
    }
}

fn named(format: Format, body: &[u8]) -> Option<String> {
    let body = Some(body).filter(|body| body.len() <= MAX_TREE_BYTES)?;
    let Value::Map(members) = Value::parse(format, body)? else { return None };
    let text = |wanted: &&str| match members.iter().find(|(name, _)| name == wanted) {
        Some((_, Value::Text(text))) => Some(text.clone()),
        _ => None,
    };
    NAMES.iter().find_map(text)
}

/// `Credential=<key>/<date>/<region>/<service>/aws4_request`: account, if the key is one of twelve
/// digits, and region.
fn scope(authorization: &str) -> Option<(Option<String>, Option<String>)> {
    let (_, credential) = authorization.split_once("Credential=")?;
    let credential = credential.split([',', ' ']).next()?;
    let mut parts = credential.rsplitn(5, '/');
    let [_, _, region, _, key] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let is_account = key.len() == 12 && key.bytes().all(|b| b.is_ascii_digit());
    let is_region = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    Some((is_account.then(|| key.to_owned()), is_region.then(|| region.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_and_account_come_from_the_scope() {
        let of = |credential: &str| {
            scope(&format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"))
        };
        let found =
            |account: Option<&str>, region: Option<&str>| Some((account.map(str::to_owned), region.map(str::to_owned)));
        assert_eq!(
            of("123456789012/20261121/eu-west-3/kinesis/aws4_request"),
            found(Some("123456789012"), Some("eu-west-3"))
        );
        assert_eq!(of("AKID/20261121/us-east-1/kinesis/aws4_request"), found(None, Some("us-east-1")));
        assert_eq!(of("AKID/20261121/a\"b/kinesis/aws4_request"), found(None, None));
        assert_eq!(of("AKID"), None);
    }
}
