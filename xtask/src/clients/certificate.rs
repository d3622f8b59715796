//! A certificate for this machine by an authority that nobody else knows, as people make them with
//! OpenSSL, for one run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{process, toolchain::Toolchain};

const OPENSSL: Toolchain = Toolchain { programs: &["openssl"], packages: &["openssl"], otherwise: "OpenSSL 3" };
const CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, IP:127.0.0.1
";
/// Java wants one; nothing in its store is secret.
const STORE_PASSWORD: &str = "changeit";

pub(super) struct Certificate {
    pub(super) authority: PathBuf,
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    pub(super) fn make(folder: &Path) -> Result<Self> {
        OPENSSL.ensure()?;
        let config = folder.join("openssl.cnf");
        fs::write(&config, CONFIG).with_context(|| format!("write {}", config.display()))?;
        process::run(&mut request(folder, "authority", "/CN=Authority of one test"))?;
        let mut of_server = request(folder, "server", "/CN=localhost");
        process::run(of_server.args(["-CA", "authority.pem", "-CAkey", "authority.key"]))?;
        let [authority, chain, key] = ["authority.pem", "server.pem", "server.key"].map(|name| folder.join(name));
        Ok(Self { authority, chain, key })
    }
}

/// `<section>.pem` and `<section>.key`, signed by itself unless told otherwise.
fn request(folder: &Path, section: &str, name: &str) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder).args(["req", "-x509", "-config", "openssl.cnf", "-extensions", section]);
    openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]);
    openssl.args(["-subj", name, "-keyout", &format!("{section}.key"), "-out", &format!("{section}.pem")]);
    openssl
}

/// What makes Java trust this authority, and nobody else.
pub(super) fn trusted_by_java(authority: &Path) -> Result<[String; 2]> {
    let store = authority.with_extension("p12");
    if !store.exists() {
        let mut keytool = Command::new("keytool");
        keytool.args(["-importcert", "-noprompt", "-alias", "authority", "-storepass", STORE_PASSWORD]);
        process::run(keytool.arg("-file").arg(authority).arg("-keystore").arg(&store))?;
    }
    let store = format!("-Djavax.net.ssl.trustStore={}", store.display());
    Ok([store, format!("-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}")])
}
