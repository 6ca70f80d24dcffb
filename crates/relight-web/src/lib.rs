//! What relight shows of itself over HTTP: `/metrics`, `/healthz` and `/readyz`.
//!
//! Reads the [`Board`] and nothing else: no request reaches the engine, so none can slow it. Nothing can
//! be changed from here.
#![warn(missing_docs)]

mod connections;
mod exposition;
mod health;
mod host;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use relight_core::telemetry::Board;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use connections::{Client, Connections};
use health::Health;
use host::{Hosts, Refusal};

/// The time that a client has for the head of its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The time that a connection may last, idle or not.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);
/// Wait after an accept that failed: out of file descriptors, usually.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Web {
    /// Binds and serves, under the names of loopback, under its address and under `hosts`. To be called within a tokio
    /// runtime.
    pub async fn start(listen: SocketAddr, hosts: Vec<String>, board: Board) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let pages = Pages { health: Health::new(board.clone()), board, hosts: Hosts::new(address, hosts) };
        Ok(Self { address, task: tokio::spawn(serve(listener, Arc::new(pages))) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is shown, and to whom.
struct Pages {
    board: Board,
    health: Health,
    hosts: Hosts,
}

async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let (mut connections, mut tasks) = (Connections::default(), JoinSet::new());
    for number in 0.. {
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(ended) = tasks.join_next() => {
                    // One that was made to end is off the list already.
                    if let Ok(number) = ended {
                        connections.remove(number);
                    }
                }
            }
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        connections.make_room();
        let asked = Arc::new(AtomicBool::default());
        let (pages, has_asked) = (Arc::clone(&pages), Arc::clone(&asked));
        let task = tasks.spawn(async move {
            // A client that is too slow, or gone, is no news.
            let served = connection(stream, &pages, &has_asked);
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, served).await;
            number
        });
        connections.add(number, Client { peer: peer.ip(), asked, task });
    }
}

async fn connection(stream: TcpStream, pages: &Pages, has_asked: &AtomicBool) -> hyper::Result<()> {
    let service = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        std::future::ready(Ok::<_, Infallible>(answer(&request, pages)))
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_headers(100);
    server.serve_connection(TokioIo::new(stream), service).await
}

fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    let Pages { board, health, hosts } = pages;
    match hosts.check(request.version(), request.headers(), request.uri()) {
        Ok(()) => {}
        Err(Refusal::Malformed) => {
            return text(StatusCode::BAD_REQUEST, "a request has one Host header\n".to_owned());
        }
        Err(Refusal::Unknown(name)) => {
            let name = name.escape_default();
            let why = format!("`{name}` is not a name of this relight: add it to `admin_hosts`\n");
            return text(StatusCode::FORBIDDEN, why);
        }
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            let mut page = text(StatusCode::OK, exposition::render(&board.read().samples));
            page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
            page
        }
        "/healthz" => match health.check() {
            Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/readyz" => readiness(board),
        "/" => text(StatusCode::OK, "relight: /metrics /healthz /readyz\n".to_owned()),
        _ => text(StatusCode::NOT_FOUND, "no such page: /metrics, /healthz, /readyz\n".to_owned()),
    }
}

fn readiness(board: &Board) -> Response<Full<Bytes>> {
    let posted = board.read();
    let ready = posted.unready.is_empty();
    let notice = |(at, what)| serde_json::json!({"at": at, "what": what});
    let notices: Vec<_> = posted.notices.into_iter().map(notice).collect();
    let body = serde_json::json!({
        "ready": ready, "because": posted.unready, "held": posted.held, "late": posted.late,
        "refused": posted.refused, "notices": notices,
    });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut page = text(status, format!("{body:#}\n"));
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    page
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut page = Response::new(Full::from(body));
    *page.status_mut() = status;
    let headers = page.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

#[cfg(test)]
mod tests {
    use relight_core::Timestamp;
    use relight_core::telemetry::{POINTS, Posted, REFUSED, Sample};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut page = String::new();
        stream.read_to_string(&mut page).await.expect("it answers");
        page
    }

    /// Scenario: asked before the engine has posted anything, and after.
    /// Guarantee: not ready before, with the reason; afterwards ready, with what was noticed and when, and the values are exposed.
    #[tokio::test]
    async fn what_hangs_on_the_board_is_shown() {
        let board = Board::default();
        let web =
            Web::start(([127, 0, 0, 1], 0).into(), Vec::new(), board.clone()).await.expect("a free port");
        let page = get(web.address(), "/readyz").await;
        assert!(page.starts_with("HTTP/1.1 503") && page.contains("starting"), "{page}");
        let samples = vec![Sample::plain(POINTS, 3.0), Sample::labelled(REFUSED, ["late"], 1.0)];
        let notices = vec![(Timestamp::from_secs(0), "odd".to_owned())];
        board.post(Posted { samples, notices, ..Posted::default() });
        let page = get(web.address(), "/readyz").await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        let (_, body) = page.split_once("\r\n\r\n").expect("a body");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let told = serde_json::json!([{"at": "1970-01-01T00:00:00Z", "what": "odd"}]);
        assert_eq!(body["notices"], told);
        let page = get(web.address(), "/metrics").await;
        assert!(page.contains("\nrelight_points_total 3\n"), "{page}");
        assert!(page.contains("\nrelight_refused_total{reason=\"late\"} 1\n"), "{page}");
        assert!(get(web.address(), "/nothing").await.starts_with("HTTP/1.1 404"));
        assert!(get(web.address(), "/healthz").await.starts_with("HTTP/1.1 200"));
    }

    /// Scenario: connections that say nothing, more than there may be, then one that asks.
    /// Guarantee: it is answered: nobody waits for those that say nothing.
    #[tokio::test]
    async fn silent_connections_give_way() {
        let web = Web::start(([127, 0, 0, 1], 0).into(), Vec::new(), Board::default()).await;
        let web = web.expect("a free port");
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(TcpStream::connect(web.address()).await.expect("it listens"));
        }
        for _ in 0..5 {
            assert!(get(web.address(), "/healthz").await.starts_with("HTTP/1.1 200"));
        }
    }

    /// Scenario: a page of another site asks under its own name, which it has made to point here.
    /// Guarantee: it reads nothing; under a configured name it does.
    #[tokio::test]
    async fn h01_foreign_names_are_refused() {
        let hosts = vec!["relight.example".to_owned()];
        let web = Web::start(([127, 0, 0, 1], 0).into(), hosts, Board::default()).await.expect("a free port");
        for (host, status) in [
            ("Host: evil.example\r\n", 403),
            ("Host: relight.example\r\n", 200),
            ("", 400),
            ("Host: localhost\r\nHost: evil.example\r\n", 400),
        ] {
            let mut stream = TcpStream::connect(web.address()).await.expect("it listens");
            let request = format!("GET /healthz HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("it reads");
            let mut page = String::new();
            stream.read_to_string(&mut page).await.expect("it answers");
            assert!(page.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {page}");
        }
    }
}
