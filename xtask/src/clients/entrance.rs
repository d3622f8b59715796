//! Servers that clients ask, and how they come in: by an address, and with what stands in their
//! environment. That is where most of them look for credentials and certificates anyway, under names that
//! their makers chose; names that begin with `CORKBOARD_` are ours.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::certificate::{self, Certificate};
use crate::{process, scratch::Scratch, server::Server};

pub(super) const WITH_KEYS: (&str, &str) = ("CORKBOARD__AUTH__MODE", "keys");
pub(super) const EVERYTHING: &str = "admin,produce,consume,describe,views,tasks:*";

/// Where clients, or the libraries below them, look for whom they may trust.
const TRUSTED: [&str; 5] =
    ["AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"];

/// Nothing of the person who runs this: no settings, no credentials.
const NOBODYS: [(&str, &str); 3] = [
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) url: String,
    keys: Vec<(&'static str, String)>,
    /// Who signed the server's certificate, where it has one.
    authority: Option<PathBuf>,
}

impl Entrance {
    /// By which AWS's SDKs come that know more than one. With TLS the choice is theirs: both are the same
    /// to the server from there on.
    pub(super) fn protocols(&self) -> &'static [&'static str] {
        if self.authority.is_some() { &["default"] } else { &["default", "http1"] }
    }

    /// Gives a client its keys, and whom to trust.
    pub(super) fn let_in<'c>(&self, client: &'c mut Command) -> &'c mut Command {
        client.envs(NOBODYS).env_remove("AWS_PROFILE").env_remove("AWS_SESSION_TOKEN");
        client.envs(self.keys.iter().map(|(name, value)| (name, value)));
        if let Some(authority) = &self.authority {
            client.envs(TRUSTED.map(|name| (name, authority)));
        }
        client
    }

    /// The same for one in Java, which reads no variable: before the name of the program.
    pub(super) fn let_in_java<'c>(&self, client: &'c mut Command) -> Result<&'c mut Command> {
        if let Some(authority) = &self.authority {
            client.args(certificate::trusted_by_java(authority)?);
        }
        Ok(self.let_in(client))
    }

    /// With the same keys by another way.
    pub(super) fn by_way_of(&self, url: String) -> Self {
        Self { url, ..self.clone() }
    }
}

/// A server with nothing but the doors and the log.
pub(super) struct Doors {
    pub(super) entrance: Entrance,
    server: Server,
    /// Goes after the server.
    _folder: Scratch,
}

impl Doors {
    pub(super) fn without_keys(binary: &Path) -> Result<Self> {
        let folder = Scratch::new("doors")?;
        let server = Server::start_doors_in(&folder, binary, &[])?;
        // A signature must be there, and may be anyone's.
        let keys = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let keys = keys.map(|(name, value)| (name, value.to_owned())).to_vec();
        let entrance = Entrance { url: server.url(), keys, authority: None };
        Ok(Self { entrance, server, _folder: folder })
    }

    pub(super) fn with_keys_and_tls(binary: &Path) -> Result<Self> {
        let folder = Scratch::new("doors-tls")?;
        let Certificate { authority, chain, key } = Certificate::make(&folder)?;
        let [chain, key] = [chain, key].map(|path| path.display().to_string());
        let tls = [("CORKBOARD__SERVER__TLS_CERT_FILE", &*chain), ("CORKBOARD__SERVER__TLS_KEY_FILE", &key)];
        let mut doors = Self::with_keys_in(folder, binary, &tls)?;
        doors.entrance.authority = Some(authority);
        Ok(doors)
    }

    /// As behind a proxy on the same machine.
    pub(super) fn with_keys(binary: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        Self::with_keys_in(Scratch::new("doors-keys")?, binary, settings)
    }

    fn with_keys_in(folder: Scratch, binary: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let own = Key::add(binary, &folder, "everything", EVERYTHING)?;
        let other = Key::add(binary, &folder, "only looks", "describe:*")?;
        let server = Server::start_doors_in(&folder, binary, &[&[WITH_KEYS], settings].concat())?;
        let keys = vec![
            ("AWS_ACCESS_KEY_ID", own.id),
            ("AWS_SECRET_ACCESS_KEY", own.secret),
            ("CORKBOARD_KEY", own.text),
            ("CORKBOARD_OTHER_KEY", other.text),
            ("CORKBOARD_OTHER_ID", other.id),
            ("CORKBOARD_OTHER_SECRET", other.secret),
        ];
        let entrance = Entrance { url: server.url(), keys, authority: None };
        Ok(Self { entrance, server, _folder: folder })
    }

    /// In good order.
    pub(super) fn stop(mut self) -> Result<()> {
        self.server.stop()
    }
}

/// What `corkboard keys add` shows.
pub(super) struct Key {
    id: String,
    pub(super) text: String,
    secret: String,
}

impl Key {
    pub(super) fn add(binary: &Path, folder: &Path, name: &str, allow: &str) -> Result<Self> {
        let mut add = Command::new(binary);
        let said = process::output(add.args(["keys", "add", name, "--allow", allow, "--data"]).arg(folder))?;
        let shown = |what: &str| {
            let found = said.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
            found.map(|text| text.trim().to_owned()).with_context(|| format!("`keys add` showed no {what}"))
        };
        Ok(Self { id: shown("id")?, text: shown("key")?, secret: shown("secret")? })
    }
}
