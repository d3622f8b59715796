//! TLS: who gets a connection, that a changed certificate is used without dropping anyone, and that
//! nobody can hold a place by not agreeing on keys.
//!
//! `certs/` holds two certificates for `localhost` that are worth nothing anywhere else.

use std::{fs, path::Path, sync::Arc};

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::Server;

const FIRST: [&str; 2] = [include_str!("certs/first.pem"), include_str!("certs/first.key")];
const SECOND: [&str; 2] = [include_str!("certs/second.pem"), include_str!("certs/second.key")];
const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct Files(TempDir);

impl Files {
    fn with(texts: [&str; 2]) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(texts);
        files
    }

    fn write(&self, [cert, key]: [&str; 2]) {
        fs::write(self.path("cert.pem"), cert).unwrap();
        fs::write(self.path("key.pem"), key).unwrap();
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.0.path()).join(name).to_str().unwrap().to_owned()
    }

    async fn server(&self) -> Server {
        Server::with(|config| {
            config.server.tls_cert_file = self.path("cert.pem");
            config.server.tls_key_file = self.path("key.pem");
            config.server.tls_handshake_timeout_ms = 300;
        })
        .await
    }
}

fn certificate([cert, _]: [&str; 2]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()
}

async fn connect_as(server: &Server, alpn: &[&str], name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for texts in [FIRST, SECOND] {
        roots.add(certificate(texts)).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(server.addr).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await
}

async fn connect(server: &Server) -> TlsStream<TcpStream> {
    connect_as(server, &[], "localhost").await.unwrap()
}

/// The answer's first bytes.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(ASK).await.unwrap();
    let mut buffer = [0; 4096];
    let n = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

fn shows(stream: &TlsStream<TcpStream>, texts: [&str; 2]) -> bool {
    stream.get_ref().1.peer_certificates().unwrap()[0] == certificate(texts)
}

#[tokio::test]
async fn requests_are_answered_over_tls_and_only_over_tls() {
    let files = Files::with(FIRST);
    let server = files.server().await;
    for alpn in [&[][..], &["http/1.1"]] {
        let mut stream = connect_as(&server, alpn, "localhost").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), alpn.first().map(|name| name.as_bytes()));
        for _ in 0..3 {
            assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 "));
        }
    }
    let mut plain = server.connect().await;
    plain.send(ASK).await;
    assert!(!plain.rest_bytes().await.starts_with(b"HTTP"));
    assert!(connect_as(&server, &[], "example.org").await.is_err(), "a client looks at the name");
    assert!(connect_as(&server, &["imap"], "localhost").await.is_err(), "nobody speaks that here");
    assert!(ask(&mut connect(&server).await).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn who_names_http2_gets_it_and_who_begins_with_it_too() {
    let files = Files::with(FIRST);
    let server = files.server().await;
    for (alpn, agreed) in [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["h2"], Some(b"h2")), (&[], None)] {
        let stream = connect_as(&server, alpn, "localhost").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..3 {
            let request = http::Request::get("https://localhost/healthz").body(axum::body::Body::empty()).unwrap();
            assert_eq!(sender.send_request(request).await.unwrap().status(), 200, "{alpn:?}");
        }
    }
}

#[tokio::test]
async fn a_changed_certificate_is_used_and_open_connections_stay() {
    let files = Files::with(FIRST);
    let server = files.server().await;
    let mut old = connect(&server).await;
    assert!(shows(&old, FIRST) && ask(&mut old).await.contains("200 OK"));
    files.write(SECOND);
    let mut new = connect(&server).await;
    while shows(&new, FIRST) {
        new = connect(&server).await;
    }
    assert!(shows(&new, SECOND) && ask(&mut new).await.contains("200 OK"));
    assert!(ask(&mut old).await.contains("200 OK"));
    // What cannot be used is not used.
    files.write([FIRST[0], SECOND[1]]);
    let began = std::time::Instant::now();
    while began.elapsed().as_millis() < 1200 {
        assert!(shows(&connect(&server).await, SECOND));
    }
}

#[tokio::test]
async fn who_does_not_agree_on_keys_is_closed() {
    let files = Files::with(FIRST);
    let server = files.server().await;
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00", b"\x16\x03\x01\xff\xff\x01", &[0; 4096]] {
        let mut client = server.connect().await;
        client.send(sent).await;
        client.rest_bytes().await;
    }
    assert!(ask(&mut connect(&server).await).await.contains("200 OK"));
}

#[tokio::test]
async fn who_only_begins_to_agree_keeps_nobody_out() {
    let files = Files::with(FIRST);
    let server = Server::with(|config| {
        config.server.tls_cert_file = files.path("cert.pem");
        config.server.tls_key_file = files.path("key.pem");
        config.server.tls_handshake_timeout_ms = 3_600_000;
        config.server.max_connections = 4;
    })
    .await;
    let mut half_open = Vec::new();
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01"].into_iter().cycle().take(20) {
        let mut client = server.connect().await;
        client.send(sent).await;
        half_open.push(client);
    }
    assert!(ask(&mut connect(&server).await).await.contains("200 OK"));
}

#[tokio::test]
async fn files_that_do_not_go_together_are_named() {
    for (texts, words) in [
        ([FIRST[0], SECOND[1]], "do not go together"),
        ([FIRST[1], FIRST[1]], "server.tls_cert_file) holds no certificate"),
        ([FIRST[0], FIRST[0]], "server.tls_key_file"),
        (["", ""], "server.tls_cert_file"),
    ] {
        let files = Files::with(texts);
        let mut config = model::config::Config::defaults();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        (config.server.tls_cert_file, config.server.tls_key_file) = (files.path("cert.pem"), files.path("key.pem"));
        let error = format!("{:#}", server::listener::bind(&config).await.unwrap_err());
        assert!(error.contains(words) && !error.contains("BEGIN"), "{error}");
    }
}
