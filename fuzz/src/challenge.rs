//! What anybody may say to port 80 while an order runs.

use super::naive;
use super::world::runtime;
use gatepost::acme::challenge::{self, Tokens};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// Tokens and their key authorizations; one begins another.
const SHOWN: [(&str, &str); 3] = [
    ("abc", "abc.thumbprint-one"),
    ("abcd", "abcd.thumbprint-two"),
    ("A-_9", "A-_9.thumbprint-three"),
];

/// The most that a head may be long.
const LONGEST: usize = 4096;

/// A client's octets, piece by piece, and then its end.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The first octet cuts, the rest is what the client says. A head that ends within 4 KiB has exactly one answer, octet by octet
/// what a literal comparison of the request line with the few that there are says: the key authorization of this token, else
/// 404 without a body; nothing of the request is in it. Anything else has none. Any cut.
///
/// Not held: how many come at a time and for how long, which is the listener's.
pub fn challenge(octets: &[u8]) {
    let Some((&seed, said)) = octets.split_first() else {
        return;
    };
    let end = said.windows(4).position(|four| four == b"\r\n\r\n");
    let expected = match end.filter(|end| end + 4 <= LONGEST) {
        Some(end) => expected(&said[..end + 2]),
        None => Vec::new(),
    };
    for seed in [0, u64::from(seed) + 1] {
        let answered = answered(said, seed);
        assert_eq!(
            String::from_utf8_lossy(&answered),
            String::from_utf8_lossy(&expected)
        );
    }
    assert_well_formed(&expected);
}

fn answered(said: &[u8], seed: u64) -> Vec<u8> {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let shown = SHOWN.map(|(token, text)| (token.to_owned(), text.to_owned()));
    let tokens = Tokens::new(shown.into());
    let pieces = naive::pieces(said, seed).into_iter().map(<[u8]>::to_vec);
    let mut out = Vec::new();
    let stream = tokio::io::join(Pieces(pieces.collect()), &mut out);
    let served = RUNTIME
        .get_or_init(runtime)
        .block_on(challenge::serve(stream, &tokens));
    assert_eq!(served.is_ok(), !out.is_empty());
    out
}

/// There are six lines that are answered.
fn expected(head: &[u8]) -> Vec<u8> {
    for (token, text) in SHOWN {
        for version in ["1.0", "1.1"] {
            let line = format!("GET /.well-known/acme-challenge/{token} HTTP/{version}\r\n");
            if head.starts_with(line.as_bytes()) {
                return response("200 OK", text);
            }
        }
    }
    response("404 Not Found", "")
}

fn response(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

/// One response (RFC 9112): a status line, fields, an empty line, and as much as it says.
fn assert_well_formed(response: &[u8]) {
    if response.is_empty() {
        return;
    }
    let text = std::str::from_utf8(response).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 ") || head.starts_with("HTTP/1.1 404 "));
    let fields = head.split("\r\n").skip(1);
    let fields = fields.map(|field| field.split_once(": ").expect("a field"));
    let mut lengths = fields.filter(|(name, _)| *name == "Content-Length");
    let length = lengths.next().map(|(_, length)| length.parse());
    assert_eq!(length, Some(Ok(body.len())));
    assert_eq!(lengths.next(), None);
}
