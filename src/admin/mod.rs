//! Looking in: `/metrics`, `/healthz`, `/readyz` for everyone; the JSON API below `/api/` for who has the token.
//!
//! The Host header of every API call must be the listener's address, `localhost` or one of `admin.hosts`: a web page in an
//! administrator's browser must not reach the API under a name of its own (DNS rebinding).

mod client;
mod door;
mod queue;
mod scrape;

pub use client::{Client, ClientError};
pub use queue::{ActAnswer, ActRequest, MAX_PAGE, PageRequest};

use crate::mail::Secret;
use crate::message_trace::{Query, TraceEvent, Tracer};
use crate::metrics::Metrics;
use crate::spool::Spool;
use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::{Query as UrlQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use scrape::Scrape;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Who may call the API.
#[derive(Debug)]
pub struct Access {
    /// Names besides the address and localhost.
    pub hosts: Vec<String>,
    /// The token.
    pub token: Secret,
}

/// What the API works with.
pub struct Admin {
    /// Who may call; another after a reload.
    pub access: Arc<ArcSwap<Access>>,
    /// The queue.
    pub spool: Spool,
    /// The story of messages.
    pub tracer: Tracer,
    /// What is scraped.
    pub metrics: Metrics,
    /// Brings gauges up to date before a scrape.
    pub refresh: Box<dyn Fn() + Send + Sync>,
    /// Why the server is not ready, if it is not.
    pub unready: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Milliseconds since 1970.
    pub now: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// The admin server, bound.
#[derive(Debug)]
pub struct Bound {
    socket: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Binds the address.
    ///
    /// # Errors
    /// It cannot be bound.
    pub async fn bind(address: SocketAddr) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("admin: {address}: {error}");
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address })
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is told to end: last of all, for while the server drains, operators look.
    pub async fn serve(self, admin: Arc<Admin>, mut shutdown: watch::Receiver<bool>) {
        let router = router(admin, self.address);
        let door = door::Door::new(self.socket);
        let end = async move {
            let closed = shutdown.wait_for(|down| *down).await.is_err();
            if closed {
                std::future::pending::<()>().await;
            }
        };
        if let Err(error) = axum::serve(door, router).with_graceful_shutdown(end).await {
            tracing::error!(%error, "admin API ended");
        }
    }
}

#[derive(Clone)]
struct Guard {
    admin: Arc<Admin>,
    address: SocketAddr,
    work: Arc<Semaphore>,
}

fn router(admin: Arc<Admin>, address: SocketAddr) -> Router {
    // Each answer of the API reads from the disk and costs a core meanwhile: the others wait in line, mail does not.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let guard = Guard {
        admin: Arc::clone(&admin),
        address,
        work: Arc::new(Semaphore::new((cores / 2).max(1))),
    };
    let guarded = Router::new()
        .route("/api/queue", get(queue::list))
        .route("/api/queue/{what}", get(queue::show).post(queue::act))
        .route("/api/queue/{id}/header", get(queue::header))
        .route("/api/trace", get(trace))
        // Also who is not let in is not told which paths there are.
        .fallback(async || problem(StatusCode::NOT_FOUND, "no such path"))
        .layer(middleware::from_fn_with_state(guard, admit))
        .with_state(Arc::clone(&admin));
    Router::new()
        .route("/metrics", get(metrics))
        .layer(Extension(Arc::new(Scrape::default())))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(admin)
        .merge(guarded)
}

/// Host, then token.
async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let access = guard.admin.access.load_full();
    if !guard.host_is_ours(request.headers(), &access.hosts) {
        return problem(
            StatusCode::MISDIRECTED_REQUEST,
            "this Host is not one of the API's names (admin.hosts)",
        );
    }
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_at_checked(b"Bearer ".len()))
        // RFC 9110 §11.1: a scheme is compared without case.
        .is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case(b"Bearer ") && access.token.matches(token)
        });
    if !token {
        let mut refusal = problem(StatusCode::UNAUTHORIZED, "a bearer token is needed");
        refusal.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            header::HeaderValue::from_static("Bearer"),
        );
        return refusal;
    }
    // Nobody closes it.
    let _turn = guard.work.acquire().await;
    next.run(request).await
}

impl Guard {
    fn host_is_ours(&self, headers: &HeaderMap, own: &[String]) -> bool {
        host_is_ours(self.address, headers, own)
    }
}

/// Whether the one Host field names the listener at `address`, `localhost` or one of `own`.
fn host_is_ours(address: SocketAddr, headers: &HeaderMap, own: &[String]) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    if host.parse() == Ok(address) {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    // Who listens everywhere does so on loopback, where our own commands ask; no name of a web page's is an address.
    let here = |ip: IpAddr| address.ip().is_unspecified() && ip.is_loopback();
    bare.parse()
        .is_ok_and(|ip: IpAddr| ip == address.ip() || here(ip))
        || name.eq_ignore_ascii_case("localhost")
        || own
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name) || own.eq_ignore_ascii_case(host))
}

fn problem(status: StatusCode, text: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": text }))).into_response()
}

async fn metrics(
    State(admin): State<Arc<Admin>>,
    Extension(scrape): Extension<Arc<Scrape>>,
) -> Response {
    let made = scrape.text(|| {
        (admin.refresh)();
        admin.metrics.text().map(Bytes::from)
    });
    match made.await {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match (admin.unready)() {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Body::from(format!("{why}\n")),
        )
            .into_response(),
    }
}

/// What `gatepost trace` asks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TraceRequest {
    /// Queue id, Message-ID, network message id or address.
    #[serde(default)]
    pub text: Option<String>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub since: Option<u64>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub until: Option<u64>,
}

async fn trace(
    State(admin): State<Arc<Admin>>,
    UrlQuery(request): UrlQuery<TraceRequest>,
) -> Response {
    let query = Query {
        text: request.text,
        since: request.since,
        until: request.until,
    };
    match admin.tracer.find(query).await {
        Ok(events) => axum::Json::<Vec<TraceEvent>>(events).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_by_loopback_and_by_no_other() {
        let ours = |address: &str, host: &str| {
            let headers = [(header::HOST, host.parse().unwrap())]
                .into_iter()
                .collect();
            host_is_ours(address.parse().unwrap(), &headers, &[])
        };
        for everywhere in ["0.0.0.0:8025", "[::]:8025"] {
            for host in [
                "127.0.0.1:8025",
                "[::1]:8025",
                "127.0.0.1",
                "localhost:8025",
            ] {
                assert!(ours(everywhere, host), "{everywhere} {host}");
            }
            for host in ["evil.example:8025", "192.0.2.1:8025", "127.evil.example"] {
                assert!(!ours(everywhere, host), "{everywhere} {host}");
            }
        }
        assert!(!ours("192.0.2.7:8025", "127.0.0.1:8025"), "not listened on");
        assert!(ours("192.0.2.7:8025", "192.0.2.7"));
    }
}
