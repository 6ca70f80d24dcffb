//! Accepts connections to one address and keeps each within its bounds: how many, how long, how slow.
//!
//! What is said on a connection is the protocols' business.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Protocol;
use super::front::{Front, InFlight, MAX_HEADER_BYTES};
use super::stats::{add, sub};
use super::tls::ServerTls;

/// For the first request's headers to arrive, and for TLS to be agreed on.
const HEADERS: Duration = Duration::from_secs(10);
/// A connection without a request is closed after this.
const IDLE: Duration = Duration::from_mins(1);
/// After this a connection is asked to close, so that senders spread over what has come up since.
const MAX_AGE: Duration = Duration::from_mins(30);
/// Requests in flight have this long to end once their connection was asked to close.
const GRACE: Duration = Duration::from_secs(35);
/// HTTP/2 pings; no answer within the same time ends the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Pause after the system refused to accept: out of file descriptors, it would refuse again at once.
const BACKOFF: Duration = Duration::from_millis(100);
const MAX_HEADERS: usize = 100;
const MAX_STREAMS: u32 = 128;
/// A request of 1,000 points has about 380 KB; with the protocol's own 64 KiB it would wait for the
/// sender's round trip six times.
const WINDOW_BYTES: u32 = 1 << 20;
/// Read at a time from HTTP/1.1, which bounds the headers as well.
const BUFFER_BYTES: usize = 64 << 10;

/// One address that is listened on.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) protocol: Protocol,
    pub(super) front: Arc<Front>,
}

/// What its connections share.
struct Room {
    tls: Option<Arc<ServerTls>>,
    protocol: Protocol,
    front: Arc<Front>,
    from: Mutex<HashMap<IpAddr, usize>>,
    open: AtomicUsize,
}

/// A connection's place in the room, given back when it is dropped.
struct Place {
    room: Arc<Room>,
    peer: IpAddr,
}

/// Serves until told to stop, and then until the last connection has closed.
pub(super) async fn serve(door: Door, mut stopping: watch::Receiver<bool>) {
    let Door { listener, tls, protocol, front } = door;
    let room = Arc::new(Room { tls, protocol, front, from: Mutex::default(), open: AtomicUsize::new(0) });
    let mut connections = JoinSet::new();
    let told = stopping.clone();
    loop {
        tokio::select! {
            () = told_to_stop(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((socket, peer)) = accepted {
                    match Room::enter(&room, peer.ip()) {
                        Some(place) => {
                            connections.spawn(connection(socket, place, told.clone()));
                        }
                        None => add(&room.front.stats.turned_away, 1),
                    }
                } else {
                    add(&room.front.stats.accept_errors, 1);
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

impl Room {
    fn enter(room: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let limits = &room.front.limits;
        // What one machine has of IPv6 is a /64: addresses within it are one sender.
        let peer = match peer.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut from = room.from.lock().unwrap_or_else(PoisonError::into_inner);
        let count = from.get(&peer).copied().unwrap_or(0);
        if room.open.load(Ordering::Relaxed) >= limits.max_connections
            || count >= limits.max_connections_per_ip
        {
            return None;
        }
        from.insert(peer, count + 1);
        room.open.fetch_add(1, Ordering::Relaxed);
        add(&room.front.stats.accepted, 1);
        add(&room.front.stats.connections, 1);
        Some(Place { room: Arc::clone(room), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut from = self.room.from.lock().unwrap_or_else(PoisonError::into_inner);
        match from.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                from.remove(&self.peer);
            }
        }
        self.room.open.fetch_sub(1, Ordering::Relaxed);
        sub(&self.room.front.stats.connections, 1);
    }
}

async fn connection(socket: TcpStream, place: Place, stopping: watch::Receiver<bool>) {
    // Answers are small and complete: there is nothing to wait for.
    let _ = socket.set_nodelay(true);
    match place.room.tls.as_ref().map(|tls| tls.acceptor()) {
        None => converse(TokioIo::new(socket), place, stopping).await,
        Some(tls) => match timeout(HEADERS, tls.accept(socket)).await {
            Ok(Ok(socket)) => converse(TokioIo::new(socket), place, stopping).await,
            _ => add(&place.room.front.stats.tls_errors, 1),
        },
    }
}

/// When something last happened on a connection.
struct Activity {
    since: Instant,
    begun: AtomicU64,
    running: AtomicUsize,
    /// Milliseconds from `since` to when the last request ended.
    ended_ms: AtomicU64,
}

/// A request that is being answered.
struct Busy(Arc<Activity>);

impl Activity {
    fn new() -> Arc<Self> {
        let (begun, ended_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { since: Instant::now(), begun, running: AtomicUsize::new(0), ended_ms })
    }

    fn begin(self: &Arc<Self>) -> Busy {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// When the connection is to be closed if nothing more happens on it.
    fn deadline(&self) -> Instant {
        let ended = self.since + Duration::from_millis(self.ended_ms.load(Ordering::Relaxed));
        let patience = match (self.begun.load(Ordering::Relaxed), self.running.load(Ordering::Relaxed)) {
            (0, _) => self.since + HEADERS,
            (_, 0) => ended + IDLE,
            _ => Instant::now() + IDLE,
        };
        patience.min(self.since + MAX_AGE)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.ended_ms.store(self.0.since.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn converse<I>(io: I, place: Place, mut stopping: watch::Receiver<bool>)
where
    I: Read + Write + Unpin + Send + 'static,
{
    let activity = Activity::new();
    let service = service_fn(|request| {
        let (busy, room) = (activity.begin(), Arc::clone(&place.room));
        async move {
            let in_flight = InFlight::begin(&room.front);
            let (outcome, response) = room.protocol.answer(&room.front, request).await;
            in_flight.end(outcome);
            drop(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let builder = builder();
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let mut last = activity.deadline();
    let mut is_closing = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = told_to_stop(&mut stopping), if !is_closing => {}
            () = sleep_until(last) => {
                // Something may have happened since the deadline was set.
                let now = activity.deadline();
                if !is_closing && now > Instant::now() {
                    last = now;
                    continue;
                }
                if is_closing || activity.begun.load(Ordering::Relaxed) == 0 {
                    return;
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        is_closing = true;
        last = Instant::now() + GRACE;
    }
}

fn builder() -> Builder<TokioExecutor> {
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
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    builder
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use relight_core::Timestamp;
    use relight_core::source::Limits;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::super::events::Events;
    use super::super::front::Way;
    use super::*;
    use crate::live::{Budget, Hub, Reads};

    /// Runs with a time that passes only while nothing else happens.
    fn in_paused_time(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(test);
    }

    /// A connection to a listener, without sockets.
    fn connect() -> DuplexStream {
        let (hub, _) = Hub::new(BTreeMap::new());
        let way = Way::Straight(hub.open("test", Reads::Push, &Budget::new(1)));
        let clock = Arc::new(|| Timestamp::MIN);
        let front = Arc::new(Front::new(way, Limits::default(), Vec::new(), clock));
        let protocol = Protocol::Http(Events::default());
        let (from, open) = (Mutex::default(), AtomicUsize::new(0));
        let room = Arc::new(Room { tls: None, protocol, front, from, open });
        let place = Room::enter(&room, IpAddr::from([127, 0, 0, 1])).expect("there is room");
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(async {
            // As long as nobody tells it, it does not stop.
            let (_stop, told) = watch::channel(false);
            converse(TokioIo::new(theirs), place, told).await;
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

    /// Scenario: a connection says nothing, then has a request, is idle, and grows old.
    /// Guarantee: each has its own patience, and none outlives the age.
    #[test]
    fn patience_depends_on_what_happened() {
        in_paused_time(async {
            let activity = Activity::new();
            let start = activity.since;
            assert_eq!(activity.deadline(), start + HEADERS);
            sleep(Duration::from_secs(3)).await;
            let busy = activity.begin();
            assert_eq!(activity.deadline(), start + Duration::from_secs(3) + IDLE);
            sleep(Duration::from_secs(4)).await;
            drop(busy);
            sleep(Duration::from_secs(5)).await;
            assert_eq!(activity.deadline(), start + Duration::from_secs(7) + IDLE);
            let _busy = activity.begin();
            sleep(MAX_AGE).await;
            assert_eq!(activity.deadline(), start + MAX_AGE);
        });
    }
}
