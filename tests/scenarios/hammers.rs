//! What the admin API is hammered with: more clients than it has seats, strangers without the token, the largest answers.

use crate::harness::http;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// More than the seats there are, which are 256.
const SITTING: usize = 400;
/// How many ask at a time with a wrong token, and for each of the large answers.
const AT_A_TIME: usize = 4;

pub struct Hammers {
    over: Arc<AtomicBool>,
    clients: JoinSet<()>,
    figures: Arc<Figures>,
}

#[derive(Default)]
struct Figures {
    /// Requests without the token that were refused.
    refused: AtomicU64,
    /// What was answered otherwise.
    let_in: AtomicU64,
}

impl Hammers {
    /// Those who have no token; until the end.
    pub fn strangers(admin: SocketAddr) -> Self {
        let mut hammers = Self {
            over: Arc::default(),
            clients: JoinSet::new(),
            figures: Arc::default(),
        };
        for number in 0..SITTING {
            let over = Arc::clone(&hammers.over);
            hammers.clients.spawn(sit(admin, number % 2 == 0, over));
        }
        for _ in 0..AT_A_TIME {
            let (over, figures) = (Arc::clone(&hammers.over), Arc::clone(&hammers.figures));
            hammers.clients.spawn(try_tokens(admin, over, figures));
        }
        hammers
    }

    /// Those, and others with the token, who want the largest answers there are.
    pub fn all(admin: SocketAddr, token: &str) -> Self {
        let mut hammers = Self::strangers(admin);
        for path in [
            "/api/trace?since=1",
            "/api/queue?limit=1000",
            "/api/trace?text=bob@contoso.com",
        ] {
            for _ in 0..AT_A_TIME {
                let token = format!("Bearer {token}");
                let over = Arc::clone(&hammers.over);
                hammers.clients.spawn(ask(admin, path, token, over));
            }
        }
        hammers
    }

    /// Ends it, and sees that nobody came in without the token; how many were refused for want of it.
    pub async fn end(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let ended = async {
            while let Some(ended) = self.clients.join_next().await {
                ended.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended)
            .await
            .expect("a client of the API hangs");
        let let_in = self.figures.let_in.load(Ordering::Relaxed);
        assert_eq!(let_in, 0, "nobody comes in without the token");
        self.figures.refused.load(Ordering::Relaxed)
    }
}

/// One who says a drop now and then, or asks and does not read.
async fn sit(admin: SocketAddr, drips: bool, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(admin).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let request: &[u8] = if drips {
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-"
        } else {
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        };
        let mut said = stream.write_all(request).await.is_ok();
        while said && !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let drop: &[u8] = if drips { b"y" } else { request };
            let one = tokio::time::timeout(Duration::from_millis(50), stream.write_all(drop));
            said = !matches!(one.await, Ok(Err(_)));
        }
    }
}

/// Wrong tokens and wrong hosts, as fast as they are answered.
async fn try_tokens(admin: SocketAddr, over: Arc<AtomicBool>, figures: Arc<Figures>) {
    while !over.load(Ordering::Relaxed) {
        for headers in [
            &[("Authorization", "Bearer wrong")][..],
            &[("Host", "evil.example"), ("Authorization", "Bearer wrong")],
            &[],
        ] {
            if let Ok((status, _)) = http(admin, "GET", "/api/queue", headers, "").await {
                // 421 is for another Host.
                let which = match status {
                    401 | 421 => &figures.refused,
                    _ => &figures.let_in,
                };
                which.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn ask(admin: SocketAddr, path: &str, token: String, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let headers = [("Authorization", token.as_str())];
        let _answer = http(admin, "GET", path, &headers, "").await;
    }
}
