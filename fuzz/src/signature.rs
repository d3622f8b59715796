//! Requests that are signed as AWS signs them, with credentials in a header and in the query. An input is
//! a letter, a byte that says what is altered, the request's target, headers, an empty line, the body.
//!
//! `h` and `q`: the request is signed here, in the header or the query, by a signer that shares nothing
//! with the server; it is taken as it is, and refused with anything altered in it. `r`: whatever stands
//! there is refused, since a fuzzer does not know the secret (`<key>`, `<date>` and `<time>` stand for
//! what is right).

use std::{fmt::Write, sync::LazyLock};

use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue, Method, Request, Uri, request::Parts};
use model::config::{AuthMode, Config};
use server::auth::{
    Action, Auth, Permission, ServerSecret,
    keys::{KeyEntry, KeysFile},
};
use sha2::{Digest, Sha256};

const REGION: &str = "eu-west-3";
const SERVICE: &str = "kinesis";
const MAX_HEADERS: usize = 16;
/// Their values mean something for the signature itself, or are made here.
const RESERVED: [&str; 5] = ["authorization", "host", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];

struct Keyed {
    auth: Auth,
    id: String,
    secret: String,
}

/// One key, made anew in every process: nothing in a corpus is worth keeping secret.
static KEYED: LazyLock<Keyed> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, secret) = (folder.path().join("keys.toml"), folder.path().join("keys.secret"));
    let all = Permission { actions: Action::ALL.to_vec(), names: vec!["*".to_owned()] };
    let (entry, _) = KeyEntry::generate("fuzz", vec![all], None, None).expect("a key");
    let mut file = KeysFile::default();
    file.add(entry.clone());
    file.write(&keys).expect("it is written");
    let signing = ServerSecret::read_or_create(&secret).expect("it is made");
    let mut config = Config::defaults().auth;
    config.mode = AuthMode::Keys;
    config.presigned = true;
    (config.keys_file, config.secret_file) = (keys.display().to_string(), secret.display().to_string());
    let auth = Auth::open(&config).expect("both are there");
    // A keys file that is gone later leaves the keys as they are.
    Keyed { auth, secret: signing.signing_secret(&entry).expect("it has a salt"), id: entry.id }
});

pub fn check(data: &[u8]) {
    let [kind, alteration, rest @ ..] = data else { return };
    let Some(given) = Given::read(rest) else { return };
    match kind {
        b'h' | b'q' => given.check_signed(*kind == b'q', *alteration),
        b'r' => {
            let taken = KEYED.auth.signed(&given.head, given.body, true);
            assert!(taken.is_err(), "a signature was guessed: {:?}", given.head);
        }
        _ => {}
    }
}

struct Given<'d> {
    head: Parts,
    body: &'d [u8],
}

impl<'d> Given<'d> {
    /// None where hyper would not have read it.
    fn read(text: &'d [u8]) -> Option<Self> {
        let end = text.windows(2).position(|w| w == b"\n\n").unwrap_or(text.len());
        let body = text.get(end + 2..).unwrap_or_default();
        let now = Utc::now();
        let lines = std::str::from_utf8(&text[..end]).ok()?.replace("<key>", &KEYED.id);
        let lines = lines.replace("<date>", &now.format("%Y%m%d").to_string());
        let lines = lines.replace("<time>", &now.format("%Y%m%dT%H%M%SZ").to_string());
        let mut lines = lines.split('\n');
        let mut request = Request::post(lines.next()?.parse::<Uri>().ok()?);
        for line in lines.take(MAX_HEADERS) {
            let (name, value) = line.split_once(':')?;
            request = request.header(name, value.trim_matches([' ', '\t']));
        }
        let (head, ()) = request.body(()).ok()?.into_parts();
        Some(Self { head, body })
    }

    fn check_signed(mut self, is_presigned: bool, alteration: u8) {
        if !self.is_plain() {
            return;
        }
        RESERVED.iter().for_each(|name| drop(self.head.headers.remove(*name)));
        self.head.headers.insert("host", HeaderValue::from_static("localhost:8082"));
        self.sign(is_presigned);
        let taken = KEYED.auth.signed(&self.head, self.body, true);
        assert!(taken.is_ok(), "{taken:?}: {:?}", self.head);
        let body = self.alter(is_presigned, alteration);
        let taken = KEYED.auth.signed(&self.head, &body, true);
        assert!(taken.is_err(), "altered by {alteration}, and taken: {:?}", self.head);
    }

    /// Nothing that can be read in two ways, which the server refuses whoever signed it.
    fn is_plain(&self) -> bool {
        let uri = &self.head.uri;
        let segments: Vec<&str> = uri.path().split('/').skip(1).collect();
        let is_last = |i: usize| i + 1 == segments.len();
        let is_plain_path = uri.path().starts_with('/')
            && uri.path().is_ascii()
            && segments.iter().enumerate().all(|(i, s)| (!s.is_empty() || is_last(i)) && *s != "." && *s != "..");
        let query = uri.query().unwrap_or_default();
        let is_plain_query = query.is_ascii()
            && !query.contains('+')
            && !query.to_ascii_lowercase().contains("x-amz-")
            // A name in escapes could be one of these, too.
            && pairs(query).is_some_and(|pairs| pairs.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("x-amz-")));
        let headers = &self.head.headers;
        let is_plain_header = |name: &HeaderName, value: &HeaderValue| {
            let is_text = std::str::from_utf8(value.as_bytes()).is_ok_and(|text| !text.contains('\t'));
            let is_plain_name = name.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            is_text && is_plain_name && headers.get_all(name).iter().count() == 1
        };
        uri.authority().is_none()
            && is_plain_path
            && is_plain_query
            && headers.iter().all(|(name, value)| is_plain_header(name, value))
    }

    fn sign(&mut self, is_presigned: bool) {
        let time = Utc::now().format("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/{REGION}/{SERVICE}/aws4_request", &time[..8]);
        let mut names: Vec<String> = self.head.headers.keys().map(|name| name.as_str().to_owned()).collect();
        if is_presigned {
            names.sort();
            let credential = escaped(format!("{}/{scope}", KEYED.id).as_bytes());
            let query = format!(
                "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={time}&X-Amz-Expires=60&\
                 X-Amz-SignedHeaders={}",
                escaped(names.join(";").as_bytes())
            );
            self.add_to_query(&query);
        } else {
            self.head.headers.insert("x-amz-date", HeaderValue::try_from(&time).expect("digits"));
            names.push("x-amz-date".to_owned());
            names.sort();
        }
        let signature = signature(&self.canonical(&names), &time, &scope);
        if is_presigned {
            self.add_to_query(&format!("X-Amz-Signature={signature}"));
        } else {
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
                KEYED.id,
                names.join(";")
            );
            self.head.headers.insert("authorization", HeaderValue::try_from(authorization).expect("plain text"));
        }
    }

    fn add_to_query(&mut self, more: &str) {
        let uri = &self.head.uri;
        let query = uri.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&"));
        let target = format!("{}?{}{more}", uri.path(), query.unwrap_or_default());
        self.head.uri = target.parse().expect("a target with more of it");
    }

    /// The canonical request, as the documentation of AWS has it.
    fn canonical(&self, names: &[String]) -> String {
        let segments: Vec<String> = self.head.uri.path().split('/').map(|s| escaped(s.as_bytes())).collect();
        let mut pairs = pairs(self.head.uri.query().unwrap_or_default()).expect("it is plain");
        pairs.sort();
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut text = format!("{}\n{}\n{}\n", self.head.method, segments.join("/"), pairs.join("&"));
        for name in names {
            let value = self.head.headers[name.as_str()].as_bytes();
            let value = std::str::from_utf8(value).expect("it is plain");
            let words: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
            writeln!(text, "{name}:{}", words.join(" ")).expect("a string takes it");
        }
        write!(text, "\n{}\n{}", names.join(";"), hex(&Sha256::digest(self.body))).expect("a string takes it");
        text
    }

    /// One thing that the signature covers, or that must be covered; the body as it is then.
    fn alter(&mut self, is_presigned: bool, alteration: u8) -> Vec<u8> {
        let (head, mut body) = (&mut self.head, self.body.to_vec());
        let mut set = |name: &'static str, value: &str| {
            head.headers.insert(name, HeaderValue::try_from(value).expect("plain text"));
        };
        match alteration % 9 {
            0 => body.push(b'x'),
            1 => head.method = Method::PUT,
            2 => set("host", "localhost:8083"),
            3 => set("x-amz-target", "Kinesis_20131202.DeleteStream-"),
            4 if !is_presigned => set("content-type", "text/x-other"),
            5 => self.add_to_query("z=1"),
            6 => {
                let uri = &head.uri;
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                head.uri = format!("{}x{query}", uri.path()).parse().expect("a longer path");
            }
            7 if body.pop().is_some() => {}
            // Everything that was said of the signature itself.
            n => {
                let flip = |text: &str| {
                    let at = text.len() - 1 - usize::from(alteration / 9) % 64;
                    let (before, rest) = text.split_at(at);
                    let other = if rest.starts_with('0') { '1' } else { '0' };
                    format!("{before}{other}{}", &rest[1..])
                };
                if is_presigned {
                    self.head.uri = flip(&head.uri.to_string()).parse().expect("digits for digits");
                } else {
                    let value = head.headers["authorization"].to_str().expect("plain text").to_owned();
                    head.headers.insert("authorization", HeaderValue::try_from(flip(&value)).expect("plain text"));
                }
                assert!(n < 9);
            }
        }
        body
    }
}

fn signature(canonical: &str, time: &str, scope: &str) -> String {
    let hash = hex(&Sha256::digest(canonical.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
    let mut key = format!("AWS4{}", KEYED.secret).into_bytes();
    for part in scope.split('/').chain([text.as_str()]) {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length will do");
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    hex(&key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn escaped(bytes: &[u8]) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escape = |byte: &u8| if is_plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    bytes.iter().map(escape).collect()
}

/// Names and values, escaped again; None where an escape is none, or a pair is empty.
fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    fn again(text: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let mut parts = text.split('%');
        bytes.extend(parts.next()?.as_bytes());
        for part in parts {
            let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            bytes.extend(&part.as_bytes()[2..]);
        }
        Some(escaped(&bytes))
    }
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!pair.is_empty()).then_some(())?;
        Some((again(name)?, again(value)?))
    };
    if query.is_empty() { Some(Vec::new()) } else { query.split('&').map(pair).collect() }
}
