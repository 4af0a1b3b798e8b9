//! Who is let in: so many connections at once, and none that stands idle.
//!
//! Whoever comes is let in at once: where all seats are taken, the one who has sat there longest goes. So those who hold
//! connections and say nothing, or read nothing, keep neither a scraper nor a probe of `/readyz` waiting: those are answered within
//! milliseconds, and long before so many others have come.

use axum::serve::Listener;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// Connections at once.
const SEATS: usize = 256;
/// How long a connection may neither bring nor take an octet: longer than an answer takes, and than a scraper's round.
const IDLE: Duration = Duration::from_secs(120);

/// The listening socket, with its seats.
pub(super) struct Door {
    socket: TcpListener,
    /// Who came when, the oldest first: dropped, he has to go. Who went by himself is closed.
    seated: VecDeque<oneshot::Sender<Never>>,
    seats: usize,
    idle: Duration,
}

/// What nobody is ever told: that the one who might is gone says enough.
enum Never {}

impl Door {
    pub(super) fn new(socket: TcpListener) -> Self {
        Self {
            socket,
            seated: VecDeque::new(),
            seats: SEATS,
            idle: IDLE,
        }
    }

    fn seat(&mut self) -> oneshot::Receiver<Never> {
        if self.seated.len() >= self.seats {
            self.seated.retain(|guest| !guest.is_closed());
        }
        while self.seated.len() >= self.seats {
            self.seated.pop_front();
        }
        let (seat, go) = oneshot::channel();
        self.seated.push_back(seat);
        go
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.socket).await;
        let guest = Guest {
            stream,
            limit: self.idle,
            idle: Box::pin(tokio::time::sleep(self.idle)),
            go: self.seat(),
        };
        (guest, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A connection with its seat.
pub(super) struct Guest {
    stream: TcpStream,
    limit: Duration,
    idle: Pin<Box<Sleep>>,
    go: oneshot::Receiver<Never>,
}

impl Guest {
    /// What the stream said; or, where it has nothing to say for too long, or the seat is another's, that it is over.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if Pin::new(&mut self.go).poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if poll.is_ready() {
            self.idle.as_mut().reset(Instant::now() + self.limit);
            return poll;
        }
        match self.idle.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.in_time(context, poll)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, octets);
        self.in_time(context, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn door(seats: usize, idle: u64) -> Door {
        let mut door = Door::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        (door.seats, door.idle) = (seats, Duration::from_millis(idle));
        door
    }

    #[tokio::test]
    async fn who_is_idle_goes() {
        let mut door = door(1, 50).await;
        let address = door.local_addr().unwrap();
        let _silent = TcpStream::connect(address).await.unwrap();
        let (mut guest, _) = door.accept().await;
        let error = guest.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_has_sat_there_longest_goes_where_all_seats_are_taken() {
        let mut door = door(2, 20_000).await;
        let address = door.local_addr().unwrap();
        let mut clients = Vec::new();
        let mut guests = Vec::new();
        for _ in 0..2 {
            clients.push(TcpStream::connect(address).await.unwrap());
            guests.push(door.accept().await.0);
        }
        // The second went by himself: his seat is free, nobody has to go.
        drop(guests.pop());
        clients.push(TcpStream::connect(address).await.unwrap());
        guests.push(door.accept().await.0);
        clients[0].write_all(b"x").await.unwrap();
        assert_eq!(guests[0].read_u8().await.unwrap(), b'x');
        // Another comes: the oldest, who is waited for, goes; the others stay.
        let mut oldest = guests.remove(0);
        let waiting = tokio::spawn(async move { oldest.read_u8().await });
        clients.push(TcpStream::connect(address).await.unwrap());
        guests.push(door.accept().await.0);
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        for (client, guest) in clients[2..].iter_mut().zip(&mut guests) {
            client.write_all(b"y").await.unwrap();
            assert_eq!(guest.read_u8().await.unwrap(), b'y');
        }
    }
}
