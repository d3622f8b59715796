//! Accepts connections and speaks HTTP/1.1 or HTTP/2 on them, as their first bytes say: how many,
//! how long each may take over a head, how long it may idle, how slowly it may take an answer, and
//! how they end.
//!
//! Bodies have their own clock, where they are read (`ingest::body`), because a slow body is
//! answered with 408 and a slow head is not answered at all.

mod activity;
mod crowd;
mod descriptors;
mod tls;

mod socket;
mod streams;
mod unread;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use axum::{Router, body::Body, response::Response};
use http::{HeaderValue, Request, Version, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{
    Stop,
    config::{AuthMode, Config, ServerConfig},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tower::Service;
use tracing::{debug, info, warn};

use activity::{Activity, Limits};
use crowd::Crowd;
use socket::Socket;
use streams::{Begin, OpenStream, Streams, WatchedAnswer};
use tls::{Stream, Tls};
use unread::WatchedBody;

use crate::{auth::Peer, pace::Pace};

/// The smallest buffer that hyper takes.
const MIN_BUFFER_BYTES: usize = 8192;

/// Of one connection at a time; further requests wait with the client.
const MAX_STREAMS: u32 = 128;
/// What a peer may send ahead of what is read of it: for one stream, and for all of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// What is buffered of one stream's answer when the peer does not take it.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Streams that a peer begins and gives up again before they are looked at; more end the connection.
const MAX_RESET_STREAMS: usize = 20;
const MAX_LOCAL_RESETS: usize = 256;

/// Connections that wait to be accepted: enough for all the clients of a site that come back at once. Who
/// finds the queue full is not told, and tries again a second later. The system may allow fewer
/// (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// When no connection can be accepted (no file descriptor is left, say), wait this long for
/// others to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// While every connection is being answered and another waits for a place, look again this often.
const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// Whether others could reach the port and do what they like, and whether the certificate can be used.
pub fn check(config: &Config) -> anyhow::Result<()> {
    check_exposure(config.server.listen, config)?;
    Tls::of(&config.server).map(drop)
}

/// Opens the port, once all is checked that is not the port's own.
pub async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let addr = config.server.listen;
    check(config)?;
    match listen(addr) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => bail!(
            "another process listens on {addr} already; stop it, or choose another port: \
             --listen 127.0.0.1:0 picks a free one"
        ),
        listener => listener.with_context(|| format!("cannot listen on {addr}")),
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // So that the port can be opened again while connections of the last process fade away.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn check_exposure(addr: SocketAddr, config: &Config) -> anyhow::Result<()> {
    let has_tls = !config.server.tls_cert_file.is_empty();
    let has_auth = config.auth.mode == AuthMode::Keys;
    if addr.ip().is_loopback() || has_tls && has_auth {
        return Ok(());
    }
    let missing = match (has_auth, has_tls) {
        (false, false) => "there is no authentication and no TLS",
        (false, true) => "there is no authentication",
        (true, _) => "there is no TLS, so that keys could be read on their way",
    };
    bail!(
        "{addr} can be reached from other machines, and {missing}: set auth.mode = \"keys\" (`corkboard keys add` \
         makes keys) and server.tls_cert_file and server.tls_key_file; or listen on a loopback address, such as \
         --listen 127.0.0.1:{}",
        addr.port()
    )
}

/// Serves until `stop` is cancelled, then takes no further connection, lets the requests under
/// way finish within `drain_timeout_ms`, and cuts off what is left.
pub async fn serve(listener: TcpListener, router: Router, config: &ServerConfig, stop: Stop) -> anyhow::Result<()> {
    descriptors::allow(config.max_connections);
    let server = Connection {
        router,
        http1: Arc::new(http1(config)),
        max_header_bytes: u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX),
        limits: Limits {
            header: Duration::from_millis(config.header_timeout_ms),
            idle: Duration::from_millis(config.idle_timeout_ms),
            pace: Pace::of(config),
        },
        tls: Tls::of(config)?.map(Arc::new),
        stop: stop.clone(),
    };
    let mut crowd = Crowd::new(config.max_connections);
    // Accepted when all places were taken; until it has one, further ones wait in the system's queue.
    let mut newcomer: Option<(TcpStream, SocketAddr)> = None;
    loop {
        if let Some((stream, from)) = newcomer.take_if(|_| !crowd.is_full()) {
            server.clone().begin(stream, from.ip(), &mut crowd);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = crowd.ended() => report(ended),
            () = sleep(ROOM_PAUSE), if newcomer.is_some() => crowd.make_room(),
            accepted = listener.accept(), if newcomer.is_none() => match accepted {
                Ok(accepted) => {
                    newcomer = Some(accepted);
                    if crowd.is_full() {
                        crowd.make_room();
                    }
                }
                Err(e) if concerns_one_connection(&e) => debug!("a connection was gone before it was accepted: {e}"),
                Err(e) => {
                    warn!("no connection can be accepted, trying again in {ACCEPT_PAUSE:?}: {e}");
                    crowd.make_room();
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drain(crowd, Duration::from_millis(config.drain_timeout_ms)).await;
    Ok(())
}

fn http1(config: &ServerConfig) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        // Hyper's own clock runs through the idle time too; `Activity` tells the two apart.
        .header_read_timeout(None)
        .max_header_size(config.max_header_bytes)
        .max_buf_size(config.max_header_bytes.max(MIN_BUFFER_BYTES))
        .max_headers(config.max_headers);
    http
}

fn http2(max_header_bytes: u32, begin: Begin) -> http2::Builder<Begin> {
    let mut http = http2::Builder::new(begin);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .max_header_list_size(max_header_bytes);
    http
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(e) = ended
        && e.is_panic()
    {
        warn!("a connection ended with a panic: {e}");
    }
}

async fn drain(mut connections: Crowd, within: Duration) {
    if connections.len() == 0 {
        return;
    }
    info!(n_connections = connections.len(), "finishing the requests under way");
    let all_ended = async { while connections.ended().await.is_some() {} };
    if timeout(within, all_ended).await.is_err() {
        let n_connections = connections.len();
        warn!(n_connections, "requests did not finish within {within:?} and are cut off (server.drain_timeout_ms)");
        connections.shutdown().await;
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Connection {
    router: Router,
    http1: Arc<http1::Builder>,
    max_header_bytes: u32,
    limits: Limits,
    tls: Option<Arc<Tls>>,
    stop: Stop,
}

impl Connection {
    fn begin(self, stream: TcpStream, from: IpAddr, crowd: &mut Crowd) {
        let activity = Arc::new(Activity::new(self.limits));
        crowd.admit(activity.clone(), self.serve(stream, peer(from), activity));
    }

    /// The stream under HTTP; None when the peer cannot agree on keys, or takes too long over it.
    async fn secured(&self, stream: TcpStream, activity: &Activity) -> Option<Stream> {
        let Some(tls) = &self.tls else { return Some(Stream::Plain(stream)) };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = activity.asked_to_give_way() => None,
            accepted = tls.accept(stream) => match accepted {
                Ok(stream) => Some(stream),
                Err(e) => {
                    debug!("a connection came to no TLS: {e}");
                    None
                }
            },
        }
    }

    async fn serve(self, stream: TcpStream, peer: Option<Peer>, activity: Arc<Activity>) {
        // Answers are written whole; waiting for more to send would only delay them.
        if let Err(e) = stream.set_nodelay(true) {
            debug!("TCP_NODELAY could not be set: {e}");
        }
        let Some(stream) = self.secured(stream, &activity).await else { return };
        let mut socket = Socket::new(stream, activity.clone());
        let speaks = {
            let mut asking = pin!(socket.begins_with_preface());
            // Who has sent nothing yet loses nothing when the server stops.
            self.watch(&activity, asking.as_mut(), None, |_| !activity.is_fresh()).await
        };
        let Some(Ok(is_http2)) = speaks else { return };
        let socket = TokioIo::new(socket);
        let service = service_fn(|request| answer(self.router.clone(), request, peer, activity.clone()));
        let ended = if is_http2 {
            activity.speaks_streams();
            let (begin, mut streams) = Streams::new();
            let mut connection = pin!(http2(self.max_header_bytes, begin).serve_connection(socket, service));
            let stop = |connection: Pin<&mut http2::Connection<_, _, _>>| {
                connection.graceful_shutdown();
                true
            };
            self.watch(&activity, connection.as_mut(), Some(&mut streams), stop).await
        } else {
            let mut connection = pin!(self.http1.serve_connection(socket, service));
            let stop = |connection: Pin<&mut http1::Connection<_, _>>| {
                connection.graceful_shutdown();
                true
            };
            self.watch(&activity, connection.as_mut(), None, stop).await
        };
        if let Some(Err(e)) = ended {
            debug!("a connection ended early: {e}");
        }
    }

    /// Runs what is done on a connection, for as long as the limits allow; None when it was cut off.
    /// `stop` is called once when the server stops, and says whether to go on to the end.
    async fn watch<C: Future>(
        &self,
        activity: &Activity,
        mut running: Pin<&mut C>,
        mut streams: Option<&mut Streams>,
        stop: impl FnOnce(Pin<&mut C>) -> bool,
    ) -> Option<C::Output> {
        let mut stopped = pin!(self.stop.cancelled());
        let mut stop = Some(stop);
        let mut alarm = pin!(sleep(self.limits.shortest()));
        loop {
            let streams = async {
                match &mut streams {
                    Some(streams) => streams.run().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = running.as_mut() => return Some(ended),
                () = streams => {}
                () = stopped.as_mut(), if stop.is_some() => {
                    activity.server_stops();
                    if stop.take().is_some_and(|stop| !stop(running.as_mut())) {
                        return None;
                    }
                }
                () = activity.asked_to_give_way() => if activity.expendable_since().is_some() {
                    debug!("a connection without a request gave way to a new one");
                    return None;
                },
                () = activity.is_flooded() => {
                    debug!("a connection that gives its requests up as soon as it sends them is closed");
                    return None;
                }
                () = alarm.as_mut() => match self.limits.alarm(activity.deadline()) {
                    Some(at) => alarm.as_mut().reset(at),
                    None => {
                        debug!("a connection took too long and is closed");
                        return None;
                    }
                },
            }
        }
    }
}

/// Who is at the other end, if it is not this machine itself.
fn peer(address: IpAddr) -> Option<Peer> {
    let address = address.to_canonical();
    (!address.is_loopback()).then_some(Peer(address))
}

fn answer(
    mut router: Router,
    request: Request<Incoming>,
    peer: Option<Peer>,
    activity: Arc<Activity>,
) -> impl Future<Output = Result<Response, Infallible>> {
    let stream = (request.version() == Version::HTTP_2).then(|| OpenStream::new(activity.clone()));
    let waits_for_word = request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let body = WatchedBody::new(body, stream.is_none().then(|| activity.clone()));
    let rest = body.rest();
    let mut request = Request::from_parts(head, Body::new(body));
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    if stream.is_none() {
        activity.request_begins();
    }
    let response = router.call(request);
    async move {
        let Ok(mut response) = response.await;
        let is_gone = rest.is_gone(waits_for_word, &activity).await;
        if let Some(stream) = stream {
            return Ok(response.map(|body| Body::new(WatchedAnswer::new(body, stream))));
        }
        if !is_gone {
            // Only HTTP/1 has to end a connection for a body that nobody reads.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        activity.request_ends();
        Ok(response)
    }
}
