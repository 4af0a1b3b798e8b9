//! Which sockets do the listeners of one configuration share an address with, and with nobody else?
//!
//! `0.0.0.0:25` and `10.0.0.5:25` may stand in one configuration: the more specific socket gets its connections. Linux lets
//! two listening sockets overlap so only with SO_REUSEPORT on both; the price of that option is that a second process of
//! the same user could bind there, too, and silently take a part of the connections. So it is set only where the
//! configuration itself overlaps, and there each address is first bound without it: who else listens is still an error.

use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Binds all addresses, in their order.
///
/// # Errors
/// The position of the address that could not be bound, and why.
pub(super) fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, (usize, io::Error)> {
    let numbered = || addresses.iter().copied().enumerate();
    let shared = |own: usize, address: SocketAddr| {
        numbered().any(|(other, there)| other != own && overlap(address, there))
    };
    // All of them before the first of ours stands in the way of the others.
    for (position, address) in numbered().filter(|(own, address)| shared(*own, *address)) {
        drop(listen(address, false).map_err(|error| (position, error))?);
    }
    numbered()
        .map(|(position, address)| {
            listen(address, shared(position, address)).map_err(|error| (position, error))
        })
        .collect()
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart need not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether one of two different addresses holds the other: `0.0.0.0` every IPv4 address, `::` (which Linux gives both
/// families) every address.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let holds = |outer: SocketAddr, inner: SocketAddr| match outer.ip() {
        IpAddr::V4(outer) => outer.is_unspecified() && inner.ip().to_canonical().is_ipv4(),
        IpAddr::V6(outer) => outer.is_unspecified(),
    };
    one.port() == other.port()
        && one.port() != 0
        && one != other
        && (holds(one, other) || holds(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;

    /// Below the ports that the system gives away by itself, which another test could get before this one binds it.
    fn free_port() -> u16 {
        let start = u16::try_from(std::process::id() % 8_000).unwrap();
        let mut ports = (12_000 + start..32_000).chain(12_000..12_000 + start);
        let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
        ports.find(free).unwrap()
    }

    #[test]
    fn an_unspecified_address_overlaps_those_of_its_port() {
        let overlap =
            |one: &str, other: &str| overlap(one.parse().unwrap(), other.parse().unwrap());
        assert!(overlap("0.0.0.0:25", "10.0.0.5:25") && overlap("10.0.0.5:25", "0.0.0.0:25"));
        assert!(overlap("[::]:25", "10.0.0.5:25") && overlap("[::]:25", "[2001:db8::1]:25"));
        assert!(overlap("[::]:25", "0.0.0.0:25"));
        assert!(!overlap("0.0.0.0:25", "[2001:db8::1]:25"));
        assert!(!overlap("0.0.0.0:25", "10.0.0.5:587"));
        assert!(!overlap("10.0.0.5:25", "10.0.0.6:25"));
        assert!(!overlap("0.0.0.0:0", "10.0.0.5:0"));
    }

    #[tokio::test]
    async fn the_more_specific_socket_gets_its_connections() {
        let port = free_port();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], port));
        let specific = SocketAddr::from(([127, 0, 0, 5], port));
        for order in [[everywhere, specific], [specific, everywhere]] {
            let sockets = bind(&order).unwrap();
            // More than one: with SO_REUSEPORT a wrong choice would be made by chance.
            for (to, is) in [([127, 0, 0, 5], specific), ([127, 0, 0, 1], everywhere)].repeat(8) {
                let at = order.iter().position(|address| *address == is).unwrap();
                let mut client = TcpStream::connect((IpAddr::from(to), port)).await.unwrap();
                drop(sockets[at].accept().await.unwrap());
                assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            }
        }
    }

    #[tokio::test]
    async fn a_second_server_on_the_same_addresses_is_an_error() {
        let port = free_port();
        let addresses = [
            SocketAddr::from(([0, 0, 0, 0], port)),
            SocketAddr::from(([127, 0, 0, 5], port)),
        ];
        let _first = bind(&addresses).unwrap();
        for again in [&addresses[..], &addresses[..1], &addresses[1..]] {
            let (position, error) = bind(again).unwrap_err();
            assert_eq!(position, 0);
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        let (_, error) = bind(&[
            SocketAddr::from(([127, 0, 0, 6], port)),
            SocketAddr::from(([127, 0, 0, 5], port)),
        ])
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
