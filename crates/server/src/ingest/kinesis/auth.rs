//! Who asks. Nothing is verified here: the scope that a client signs for says under which account
//! and in which region it believes to be, and names and texts repeat that.

use bytes::Bytes;
use http::{header, request::Parts};

use super::{error::KinesisError, names::Caller};
use crate::ingest::Doors;

impl Doors {
    /// The one place where a request's caller is asked for: after its body was read, before anything
    /// in it is looked at. `head.extensions` has the target as it was asked for, as `AskedUri`.
    #[expect(clippy::unused_async, reason = "whoever verifies may have to look something up")]
    pub(super) async fn caller(&self, head: &Parts, _body: &Bytes) -> Result<Caller, KinesisError> {
        let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Ok(authorization.and_then(scope).unwrap_or_default())
    }
}

/// `Credential=<key>/<date>/<region>/<service>/aws4_request`; a key of twelve digits is an account.
fn scope(authorization: &str) -> Option<Caller> {
    let (_, credential) = authorization.split_once("Credential=")?;
    let credential = credential.split([',', ' ']).next()?;
    let mut parts = credential.rsplitn(5, '/');
    let [_, _, region, _, key] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let is_account = key.len() == 12 && key.bytes().all(|b| b.is_ascii_digit());
    let is_region = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let usual = Caller::default();
    Some(Caller {
        account: if is_account { key.to_owned() } else { usual.account },
        region: if is_region { region.to_owned() } else { usual.region },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_and_account_come_from_the_scope() {
        let of = |credential: &str| {
            scope(&format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"))
                .map(|caller| (caller.account, caller.region))
        };
        let caller = |account: &str, region: &str| Some((account.to_owned(), region.to_owned()));
        assert_eq!(of("123456789012/20261121/eu-west-3/kinesis/aws4_request"), caller("123456789012", "eu-west-3"));
        assert_eq!(of("AKID/20261121/us-east-1/kinesis/aws4_request"), caller("000000000000", "us-east-1"));
        assert_eq!(of("AKID/20261121/a\"b/kinesis/aws4_request"), caller("000000000000", "us-east-1"));
        assert_eq!(of("AKID"), None);
    }
}
