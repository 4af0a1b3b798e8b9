//! Where the authority fetches tokens (http-01, RFC 8555 §8.3): a listener that knows a few paths, while an order runs.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinHandle};

/// Authorities look from a handful of places at once, and are answered within milliseconds; where so many are there, the one
/// who has been there longest goes. So who holds connections keeps no authority waiting.
const CONNECTIONS: usize = 32;
/// A request and its answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// The head of a request.
const LONGEST_HEAD: u64 = 4096;
const FOLDER: &str = "/.well-known/acme-challenge/";

/// The key authorization of each token that is shown.
pub type Tokens = Mutex<HashMap<String, String>>;

/// The listener; ends when dropped.
pub(super) struct Responder {
    tokens: Arc<Tokens>,
    accepting: JoinHandle<()>,
}

impl Responder {
    /// Starts listening.
    pub(super) async fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let tokens = Arc::new(Tokens::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&tokens)));
        Ok(Self { tokens, accepting })
    }

    /// Shows the answer to a token.
    pub(super) fn show(&self, token: &str, key_authorization: &str) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.to_owned(), key_authorization.to_owned());
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, tokens: Arc<Tokens>) {
    let mut guests: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: soon there is one again.
                tracing::debug!(%error, "acme.challenge_address");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        guests.retain(|guest| !guest.is_finished());
        if guests.len() >= CONNECTIONS
            && let Some(oldest) = guests.pop_front()
        {
            oldest.abort();
        }
        let tokens = Arc::clone(&tokens);
        let guest = tokio::spawn(async move {
            let served = tokio::time::timeout(DEADLINE, serve(stream, &tokens)).await;
            if !matches!(served, Ok(Ok(()))) {
                tracing::debug!("a request for a token came to nothing");
            }
        });
        guests.push_back(guest.abort_handle());
    }
}

/// Reads the head of one request, whose end lies within 4 KiB, and answers it. Whoever calls bounds the time.
///
/// # Errors
/// There is no such head, or the connection fails; nothing was answered then.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    tokens: &Tokens,
) -> io::Result<()> {
    let mut head = Vec::new();
    let mut bounded = (&mut stream).take(LONGEST_HEAD);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if bounded.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let answer = answer(&head, tokens);
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn answer(head: &[u8], tokens: &Tokens) -> String {
    let end = head.windows(2).position(|two| two == b"\r\n");
    let line = head.get(..end.unwrap_or_default());
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let path = line.and_then(|line| {
        let (path, version) = line.strip_prefix("GET ")?.split_once(' ')?;
        matches!(version, "HTTP/1.1" | "HTTP/1.0").then_some(path)
    });
    let token = path.and_then(|path| path.strip_prefix(FOLDER));
    let tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = match token.and_then(|token| tokens.get(token)) {
        Some(body) => ("200 OK", body.as_str()),
        None => ("404 Not Found", ""),
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[test]
    fn only_a_token_of_this_order_is_answered() {
        let tokens = Tokens::default();
        tokens
            .lock()
            .unwrap()
            .insert("abc".to_owned(), "abc.thumb".to_owned());
        let said = |head: &str| answer(head.as_bytes(), &tokens);
        let good = said("GET /.well-known/acme-challenge/abc HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("\r\n\r\nabc.thumb"));
        for head in [
            "GET /.well-known/acme-challenge/ab HTTP/1.1\r\n\r\n",
            "GET /.well-known/acme-challenge/../abc HTTP/1.1\r\n\r\n",
            "POST /.well-known/acme-challenge/abc HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET /.well-known/acme-challenge/abc\r\n\r\n",
            "GET /.well-known/acme-challenge/abc HTTP/2.0\r\n\r\n",
            "GET /.well-known/acme-challenge/abc\rX HTTP/1.1\r\n\r\n",
            "GET /.well-known/acme-challenge/abc  HTTP/1.1\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert!(said(head).starts_with("HTTP/1.1 404 "), "{head}");
        }
    }

    #[tokio::test]
    async fn a_head_of_four_kibibytes_is_answered_and_a_longer_one_is_not() {
        for (length, answered) in [(4096, true), (4097, false)] {
            let line = "GET / HTTP/1.1\r\nX: ";
            let head = format!("{line}{}\r\n\r\nmore", "x".repeat(length - line.len() - 4));
            let mut out = Vec::new();
            let stream = tokio::io::join(head.as_bytes(), &mut out);
            let served = serve(stream, &Tokens::default()).await;
            assert_eq!((served.is_ok(), !out.is_empty()), (answered, answered));
        }
    }

    #[tokio::test]
    async fn who_holds_connections_keeps_no_authority_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tokens = Arc::new(Tokens::default());
        tokens
            .lock()
            .unwrap()
            .insert("abc".to_owned(), "abc.thumb".to_owned());
        let accepting = tokio::spawn(accept(listener, tokens));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let ask = async |client: &mut TcpStream| {
            let request = format!("GET {FOLDER}abc HTTP/1.1\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut said = String::new();
            let asked = tokio::time::timeout(DEADLINE / 2, client.read_to_string(&mut said));
            asked.await.expect("is answered at once").unwrap();
            said
        };
        let mut authority = TcpStream::connect(address).await.unwrap();
        let said = ask(&mut authority).await;
        assert!(said.ends_with("abc.thumb"), "{said}");
        // The oldest had to go, and nobody else.
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
        for one in &mut silent[1..] {
            let said = ask(one).await;
            assert!(said.ends_with("abc.thumb"), "{said}");
        }
        accepting.abort();
    }
}
