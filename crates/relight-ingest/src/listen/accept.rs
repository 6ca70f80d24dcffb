//! Accepts connections to one address and keeps each within its bounds: how many, how long, how slow.
//!
//! What is said on a connection is the protocols' business.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Protocol;
use super::connections::{ConnectionLimit, ConnectionPermit, HEADERS, IDLE};
use super::front::{Front, InFlight, ListenerShared, MAX_HEADER_BYTES};
use super::http::respond;
use super::linger::{Linger, MayLinger};
use super::reply::Payload;
use super::stats::{Outcome, add};
use super::tls::ServerTls;

/// Requests in flight have this long to end once their connection was asked to close.
const GRACE: Duration = Duration::from_secs(35);
/// HTTP/2 pings; no answer within the same time ends the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Pause after the system refused to accept: out of file descriptors, it would refuse again at once.
const BACKOFF: Duration = Duration::from_millis(100);
const MAX_HEADERS: usize = 100;
const MAX_STREAMS: u32 = 128;
/// Read at a time from HTTP/1.1, which bounds the headers as well.
const BUFFER_BYTES: usize = 64 << 10;

/// One address that is listened on.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) protocol: Arc<Protocol>,
    pub(super) shared: Arc<ListenerShared>,
}

/// One connection of a sender.
struct Connection {
    front: Arc<Front>,
    protocol: Arc<Protocol>,
    permit: ConnectionPermit,
    linger: MayLinger,
}

/// Serves until told to stop, and then until the last connection has closed.
pub(super) async fn serve(listener: Listener, mut stopping: watch::Receiver<bool>) {
    let Listener { socket: listener, tls, protocol, shared } = listener;
    let limits = &shared.limits;
    let stats = Arc::clone(&shared.stats);
    let limit = ConnectionLimit::new(limits.max_connections, limits.max_connections_per_ip, stats);
    let mut connections = JoinSet::new();
    let told = stopping.clone();
    loop {
        tokio::select! {
            () = told_to_stop(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((socket, peer)) = accepted {
                    let Some(permit) = limit.admit(peer.ip()) else {
                        add(&shared.stats.turned_away, 1);
                        continue;
                    };
                    let (front, protocol) = (Arc::new(shared.for_peer(peer.ip())), Arc::clone(&protocol));
                    let connection = Connection { front, protocol, permit, linger: MayLinger::default() };
                    connections.spawn(connection.run(socket, tls.clone(), told.clone()));
                } else {
                    add(&shared.stats.accept_errors, 1);
                    sleep(BACKOFF).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // Nobody is left to tell it: that is being told as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

impl Connection {
    async fn run(self, socket: TcpStream, tls: Option<Arc<ServerTls>>, stopping: watch::Receiver<bool>) {
        // Answers are small and complete: there is nothing to wait for.
        let _ = socket.set_nodelay(true);
        let socket = Linger::new(socket, self.linger.clone());
        let Some(tls) = tls else { return self.converse(TokioIo::new(socket), stopping).await };
        let accepted = tokio::select! {
            accepted = timeout(HEADERS, tls.acceptor().accept(socket)) => accepted,
            () = self.permit.activity.evicted() => return,
        };
        match accepted {
            Ok(Ok(socket)) => self.converse(TokioIo::new(socket), stopping).await,
            _ => add(&self.front.stats.tls_errors, 1),
        }
    }

    async fn converse<I>(&self, io: I, mut stopping: watch::Receiver<bool>)
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let activity = &self.permit.activity;
        // An answer to a head that cannot be read is hyper's own.
        self.linger.set(true);
        let service = service_fn(|request: Request<Incoming>| {
            // HTTP/2 refuses a stream and goes on; a connection that it ends has earned it.
            let is_plain = request.version() != Version::HTTP_2;
            self.linger.set(is_plain);
            let (busy, front) = (activity.begin(), Arc::clone(&self.front));
            let (protocol, linger) = (Arc::clone(&self.protocol), self.linger.clone());
            async move {
                let in_flight = InFlight::begin(&front);
                let (outcome, response) = answer(&protocol, &front, request).await;
                linger.set(is_plain && !matches!(outcome, Outcome::Taken | Outcome::Partial));
                in_flight.end(outcome);
                drop(busy);
                Ok::<_, Infallible>(response)
            }
        });
        let builder = builder(self.front.window_bytes());
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let mut last = activity.deadline();
        let mut is_closing = false;
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = told_to_stop(&mut stopping), if !is_closing => {}
                () = activity.evicted(), if !is_closing => {
                    if activity.is_silent() {
                        return;
                    }
                }
                () = sleep_until(last) => {
                    // Something may have happened since the deadline was set.
                    let now = activity.deadline();
                    if !is_closing && now > Instant::now() {
                        last = now;
                        continue;
                    }
                    if is_closing || activity.is_silent() {
                        return;
                    }
                }
            }
            connection.as_mut().graceful_shutdown();
            is_closing = true;
            last = Instant::now() + GRACE;
        }
    }
}

/// Answers a request whose framing is beyond doubt; refuses others, and closes their connection.
async fn answer(
    protocol: &Protocol,
    front: &Arc<Front>,
    request: Request<Incoming>,
) -> (Outcome, Response<Payload>) {
    let Err(why) = well_framed(request.version(), request.headers()) else {
        return protocol.answer(front, request).await;
    };
    let mut response = respond(StatusCode::BAD_REQUEST, "text/plain", format!("{why}\n"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    (Outcome::Malformed, response)
}

/// Whether every proxy on the way sees the same request in these bytes: HTTP/1.1 has one `Host` and at most one
/// `Transfer-Encoding`, which is `chunked`.
fn well_framed(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    if version != Version::HTTP_11 {
        return Ok(());
    }
    if headers.get_all(HOST).iter().count() != 1 {
        return Err("exactly one Host header is required");
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let first = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if first && codings.next().is_none() { Ok(()) } else { Err("Transfer-Encoding must be `chunked`, once") }
}

fn builder(window_bytes: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // It counts from the answer before, so it would close an idle connection. The first head is `Activity`'s to wait
        // for, and a later one comes within the time that a connection may be idle.
        .header_read_timeout(IDLE + HEADERS)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .initial_stream_window_size(window_bytes)
        .initial_connection_window_size(window_bytes);
    builder
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use relight_core::Timestamp;
    use relight_core::source::Limits;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::super::events::Events;
    use super::super::front::Way;
    use super::*;
    use crate::live::{Budget, Hub, Reads};
    use crate::memory::MemoryBudget;

    /// Runs with a time that passes only while nothing else happens.
    pub(crate) fn in_paused_time(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(test);
    }

    /// A connection to a listener, without sockets.
    fn connect() -> DuplexStream {
        let (hub, _) = Hub::new(BTreeMap::new());
        let way = Way::Straight(hub.open("test", Reads::Push, &Budget::new(1)));
        let clock = Arc::new(|| Timestamp::MIN);
        let shared = Arc::new(ListenerShared::new(
            way,
            Limits::default(),
            (Vec::new(), clock),
            MemoryBudget::default(),
        ));
        let protocol = Arc::new(Protocol::Http(Events::default()));
        let address = IpAddr::from([127, 0, 0, 1]);
        let limit = ConnectionLimit::new(1, 1, Arc::clone(&shared.stats));
        let permit = limit.admit(address).expect("there is room");
        let front = Arc::new(shared.for_peer(address));
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(async {
            // As long as nobody tells it, it does not stop.
            let (_stop, told) = watch::channel(false);
            let connection = Connection { front, protocol, permit, linger: MayLinger::default() };
            connection.converse(TokioIo::new(theirs), told).await;
        });
        ours
    }

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// Asks for something; whether it is answered.
    async fn ask(connection: &mut DuplexStream) -> bool {
        let mut answer = [0; 1_024];
        connection.write_all(ASK).await.is_ok()
            && connection.read(&mut answer).await.is_ok_and(|n| answer[..n].starts_with(b"HTTP/1.1 200"))
    }

    /// Scenario: a sender comes every 10 s, every 50 s, and then not for longer than a connection may be idle.
    /// Guarantee: its connection is kept between its requests, and closed when it was idle for too long.
    #[test]
    fn an_idle_connection_is_kept() {
        in_paused_time(async {
            let mut connection = connect();
            for pause in [0, 9, 10, 11, 50] {
                sleep(Duration::from_secs(pause)).await;
                assert!(ask(&mut connection).await, "after {pause} s");
            }
            let before = Instant::now();
            assert_eq!(connection.read(&mut [0; 1]).await.ok(), Some(0));
            assert!((59..=61).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
        });
    }

    /// Scenario: a head that comes a byte at a time, on a new connection and on one that had a request.
    /// Guarantee: the first has 10 s, a later one as long as the connection may be idle, however it goes on.
    #[test]
    fn a18_a_head_that_dribbles() {
        in_paused_time(async {
            for (is_new, most) in [(true, HEADERS), (false, IDLE)] {
                let mut connection = connect();
                assert!(is_new || ask(&mut connection).await);
                let before = Instant::now();
                while connection.write_all(b"G").await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                    assert!(before.elapsed() <= most + Duration::from_secs(2), "it is still open");
                }
                assert!(before.elapsed() >= most, "closed after {:?}", before.elapsed());
            }
        });
    }

    const POST: &[u8] = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
        content-length: 1000000\r\n\r\n";

    /// Scenario: bodies of which so many bytes come each second.
    /// Guarantee: one that trickles is told 408 within seconds, one that comes at a modem's pace is read on until the time
    /// for a whole body is over.
    #[test]
    fn a19_a_body_that_trickles() {
        in_paused_time(async {
            for (bytes_a_second, least, most) in [(1, 9, 12), (900, 9, 12), (2_000, 29, 32)] {
                let mut connection = connect();
                connection.write_all(POST).await.expect("it is read");
                let (began, mut answer) = (Instant::now(), [0; 1_024]);
                let read = loop {
                    connection.write_all(&vec![0; bytes_a_second]).await.expect("it is read");
                    if let Ok(read) = timeout(Duration::from_secs(1), connection.read(&mut answer)).await {
                        break read.expect("an answer");
                    }
                };
                let (said, took) = (String::from_utf8_lossy(&answer[..read]), began.elapsed().as_secs());
                assert!(said.starts_with("HTTP/1.1 408"), "{bytes_a_second}: {said}");
                assert!((least..=most).contains(&took), "{bytes_a_second}: {took} s");
            }
        });
    }
}
