//! Whose connection does a load balancer hand on? The PROXY protocol's header, versions 1 and 2, before anything else.
//!
//! From the blocks of `proxy_protocol_from` it is mandatory, first (also before implicit TLS), and here within
//! [`DEADLINE`]. No octet behind the header is read: what follows belongs to TLS or to the session. `ppp` parses what has
//! been framed and bounded here.

use ppp::{v1, v2};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// How long a balancer may take to say who comes (contract).
const DEADLINE: Duration = Duration::from_secs(5);
/// The longest header of version 1, with its CRLF.
const MAX_V1: usize = 107;
/// The longest of version 2 that is read: 16 octets, the addresses and what of TLVs a balancer may add (the format allows
/// 64 KiB, real ones are below 600 octets).
const MAX_V2: usize = 4096;
/// Signature, version and command, family, length.
const FIXED_V2: usize = 16;
/// Version 2, command LOCAL.
const LOCAL: u8 = 0x20;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// The client's address.
    Client(SocketAddr),
    /// LOCAL (the balancer's own check), UNKNOWN, or a family without IP addresses: nobody that an address would prove.
    Nobody,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFault {
    /// Something else came.
    Missing,
    /// It does not parse.
    Malformed,
    /// Not within [`DEADLINE`].
    TooLate,
    /// The connection ended.
    Closed,
}

impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no PROXY header came",
            Self::Malformed => "the PROXY header is malformed",
            Self::TooLate => "no PROXY header came in time",
            Self::Closed => "the connection ended before the PROXY header was whole",
        })
    }
}

/// Reads the header and nothing behind it.
///
/// # Errors
/// There is none, or it is none.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Proxied, ProxyFault> {
    match timeout(DEADLINE, header(stream)).await {
        Ok(result) => result,
        Err(_) => Err(ProxyFault::TooLate),
    }
}

async fn header<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Proxied, ProxyFault> {
    let mut seen = Vec::with_capacity(MAX_V1);
    // Octet by octet: a header is short, and what stands behind it is not ours to take.
    loop {
        let octet = stream.read_u8().await.map_err(|_| ProxyFault::Closed)?;
        seen.push(octet);
        let common = |prefix: &[u8]| {
            let length = prefix.len().min(seen.len());
            prefix.get(..length) == seen.get(..length)
        };
        if common(v1::PROTOCOL_PREFIX.as_bytes()) {
            if seen.ends_with(b"\r\n") {
                return text(&seen);
            }
            if seen.len() >= MAX_V1 {
                return Err(ProxyFault::Malformed);
            }
        } else if common(v2::PROTOCOL_PREFIX) {
            if seen.len() >= v2::PROTOCOL_PREFIX.len() {
                return binary(stream, seen).await;
            }
        } else {
            return Err(ProxyFault::Missing);
        }
    }
}

fn text(header: &[u8]) -> Result<Proxied, ProxyFault> {
    let header = v1::Header::try_from(header).map_err(|_| ProxyFault::Malformed)?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(own) => Proxied::Client((own.source_address, own.source_port).into()),
        v1::Addresses::Tcp6(own) => Proxied::Client((own.source_address, own.source_port).into()),
        v1::Addresses::Unknown => Proxied::Nobody,
    })
}

async fn binary<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut seen: Vec<u8>,
) -> Result<Proxied, ProxyFault> {
    let mut fixed = [0; FIXED_V2 - v2::PROTOCOL_PREFIX.len()];
    fill(stream, &mut fixed).await?;
    seen.extend_from_slice(&fixed);
    let [command, _, high, low] = fixed;
    let start = seen.len();
    let whole = start + usize::from(u16::from_be_bytes([high, low]));
    if whole > MAX_V2 {
        return Err(ProxyFault::Malformed);
    }
    seen.resize(whole, 0);
    fill(stream, seen.get_mut(start..).unwrap_or_default()).await?;
    if command == LOCAL {
        // Whatever family and addresses it carries are to be ignored.
        return Ok(Proxied::Nobody);
    }
    let header = v2::Header::try_from(seen.as_slice()).map_err(|_| ProxyFault::Malformed)?;
    let is_stream = header.protocol == v2::Protocol::Stream;
    Ok(match header.addresses {
        v2::Addresses::IPv4(own) if is_stream => {
            Proxied::Client((own.source_address, own.source_port).into())
        }
        v2::Addresses::IPv6(own) if is_stream => {
            Proxied::Client((own.source_address, own.source_port).into())
        }
        v2::Addresses::IPv4(_)
        | v2::Addresses::IPv6(_)
        | v2::Addresses::Unix(_)
        | v2::Addresses::Unspecified => Proxied::Nobody,
    })
}

async fn fill<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut [u8]) -> Result<(), ProxyFault> {
    let read = stream.read_exact(buffer).await;
    read.map(|_| ()).map_err(|_| ProxyFault::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// Version 2 with these bytes behind the signature.
    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        header.extend_from_slice(payload);
        header
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x10, 0x00, 0, 25];

    fn six() -> Vec<u8> {
        let mut payload = Vec::new();
        for address in ["2001:db8::1", "2001:db8::2"] {
            let address: std::net::Ipv6Addr = address.parse().unwrap();
            payload.extend(address.octets());
        }
        payload.extend([0x10, 0x00, 0, 25]);
        payload
    }

    /// In pieces, and with what a client says behind it.
    async fn told(header: &[u8], piece: usize) -> (Result<Proxied, ProxyFault>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let sent = [header, b"EHLO x\r\n"].concat();
        let sending = tokio::spawn(async move {
            for part in sent.chunks(piece) {
                theirs.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let result = read(&mut ours).await;
        sending.await.unwrap();
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        (result, rest)
    }

    #[tokio::test]
    async fn both_versions_name_the_client_however_they_are_cut() {
        let client = |text: &str| Ok(Proxied::Client(text.parse().unwrap()));
        let tlv = [&FOUR[..], &[0x04, 0x00, 0x03, 1, 2, 3], &[0xea, 0, 1, 9]].concat();
        let unix = [&[0; 216][..], &[0x04, 0, 1, 0]].concat();
        let table = [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 4096 25\r\n".to_vec(),
                client("192.0.2.1:4096"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 4096 25\r\n".to_vec(),
                client("[2001:db8::1]:4096"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Ok(Proxied::Nobody)),
            (
                b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
                Ok(Proxied::Nobody),
            ),
            (v2(0x21, 0x11, &FOUR), client("192.0.2.1:4096")),
            (v2(0x21, 0x21, &six()), client("[2001:db8::1]:4096")),
            (v2(0x21, 0x11, &tlv), client("192.0.2.1:4096")),
            (v2(0x20, 0x00, &[]), Ok(Proxied::Nobody)),
            (v2(0x20, 0x11, &FOUR), Ok(Proxied::Nobody)),
            (v2(0x20, 0xff, &FOUR), Ok(Proxied::Nobody)),
            (v2(0x21, 0x00, &[]), Ok(Proxied::Nobody)),
            (v2(0x21, 0x12, &FOUR), Ok(Proxied::Nobody)),
            (v2(0x21, 0x31, &unix), Ok(Proxied::Nobody)),
        ];
        for (header, expected) in table {
            for piece in [1, 2, 7, 4096] {
                let (got, rest) = told(&header, piece).await;
                let shown = header.escape_ascii();
                assert_eq!(got, expected, "{shown}");
                assert_eq!(rest, b"EHLO x\r\n", "what follows is not ours: {shown}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_told_from_a_bad_one() {
        let mut long = b"PROXY UNKNOWN ".to_vec();
        long.resize(200, b'x');
        let huge = v2(0x21, 0x11, &[0; 5000]);
        let table: [(&[u8], ProxyFault); 10] = [
            (b"EHLO balancer\r\n", ProxyFault::Missing),
            (b"\x16\x03\x01\x00\xa5", ProxyFault::Missing),
            (b"PROXIE TCP4", ProxyFault::Missing),
            (b"PROXY TCP4 192.0.2.1\r\n", ProxyFault::Malformed),
            (
                b"PROXY TCP4 192.0.2.256 10.0.0.1 1 25\r\n",
                ProxyFault::Malformed,
            ),
            (
                b"PROXY UDP4 192.0.2.1 10.0.0.1 1 25\r\n",
                ProxyFault::Malformed,
            ),
            (&long, ProxyFault::Malformed),
            (&huge, ProxyFault::Malformed),
            (&v2(0x31, 0x11, &FOUR), ProxyFault::Malformed),
            (&v2(0x21, 0x11, &FOUR[..8]), ProxyFault::Malformed),
        ];
        for (header, expected) in table {
            let (got, _) = told(header, 3).await;
            assert_eq!(got, Err(expected), "{}", header.escape_ascii());
        }
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(b"PROXY TCP4 192.").await.unwrap();
        drop(theirs);
        assert_eq!(read(&mut ours).await, Err(ProxyFault::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_balancer_has_five_seconds_however_it_spends_them() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let begun = tokio::time::Instant::now();
        assert_eq!(read(&mut ours).await, Err(ProxyFault::TooLate));
        assert_eq!(begun.elapsed(), DEADLINE);
        drop(theirs);
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let begun = tokio::time::Instant::now();
        let dripping = tokio::spawn(async move {
            for octet in b"PROXY TCP4 192.0.2.1 10.0.0.1 4096 25\r\n" {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if theirs.write_all(&[*octet]).await.is_err() {
                    return;
                }
            }
        });
        assert_eq!(read(&mut ours).await, Err(ProxyFault::TooLate));
        assert_eq!(begun.elapsed(), DEADLINE);
        drop(ours);
        dripping.await.unwrap();
    }
}
