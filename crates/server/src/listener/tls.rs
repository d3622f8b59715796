//! TLS under HTTP: version 1.2 or later, by rustls. The certificate is read again when its files
//! change; connections that are open keep the one that they began with.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use model::config::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{error, info};

use crate::auth::Stamp;

/// What is spoken on a connection, best first; which of them it is, its first bytes say, so that those
/// who name none of them are served as well.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Tls {
    files: Files,
    handshake: Duration,
    current: Mutex<Current>,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

struct Current {
    acceptor: TlsAcceptor,
    stamps: [Stamp; 2],
    looked: Instant,
}

impl Tls {
    /// None where the settings name no certificate.
    pub(super) fn of(config: &ServerConfig) -> Result<Option<Self>> {
        if config.tls_cert_file.is_empty() {
            return Ok(None);
        }
        let files = Files { cert: config.tls_cert_file.clone().into(), key: config.tls_key_file.clone().into() };
        let stamps = files.stamps();
        let current = Current { acceptor: files.acceptor()?, stamps, looked: Instant::now() };
        let handshake = Duration::from_millis(config.tls_handshake_timeout_ms);
        Ok(Some(Self { files, handshake, current: Mutex::new(current) }))
    }

    /// Agrees on keys with the peer, within the time for that.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let handshake = self.acceptor().accept(stream);
        match timeout(self.handshake, handshake).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream?))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")),
        }
    }

    /// Looks at the files at most once in a second. They are small: not worth a thread.
    fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            let stamps = self.files.stamps();
            if stamps != current.stamps {
                current.stamps = stamps;
                match self.files.acceptor() {
                    Ok(acceptor) => {
                        info!("new connections get the changed certificate");
                        current.acceptor = acceptor;
                    }
                    Err(e) => {
                        error!("the certificate stays as it was, because the changed files cannot be used: {e:#}")
                    }
                }
            }
        }
        current.acceptor.clone()
    }
}

impl Files {
    fn stamps(&self) -> [Stamp; 2] {
        [Stamp::of(&self.cert), Stamp::of(&self.key)]
    }

    fn acceptor(&self) -> Result<TlsAcceptor> {
        let cert = || format!("{} (server.tls_cert_file)", self.cert.display());
        let key = || format!("{} (server.tls_key_file)", self.key.display());
        let chain = CertificateDer::pem_file_iter(&self.cert).with_context(cert)?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().with_context(cert)?;
        ensure!(!chain.is_empty(), "{} holds no certificate", cert());
        let private_key = PrivateKeyDer::from_pem_file(&self.key).with_context(key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS 1.2 and 1.3")?
            .with_no_client_auth();
        let fit = || format!("{} and {} do not go together", cert(), key());
        let mut config = config.with_single_cert(chain, private_key).with_context(fit)?;
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// What HTTP is spoken over.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each {
    ($stream:expr, $inner:ident => $do:expr) => {
        match $stream {
            Stream::Plain($inner) => $do,
            Stream::Tls($inner) => $do,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(&mut *self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut *self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, inner => inner.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
