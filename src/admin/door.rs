//! Who is let in: so many connections at once, and none that stands idle.

use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at once; who comes then waits in the system's queue.
const SEATS: usize = 64;
/// How long a connection may neither bring nor take an octet: longer than an answer takes, and than a scraper's round.
const IDLE: Duration = Duration::from_secs(120);

/// The listening socket, with its seats.
pub(super) struct Door {
    socket: TcpListener,
    seats: Arc<Semaphore>,
    idle: Duration,
}

impl Door {
    pub(super) fn new(socket: TcpListener) -> Self {
        Self {
            socket,
            seats: Arc::new(Semaphore::new(SEATS)),
            idle: IDLE,
        }
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        let seat = match Arc::clone(&self.seats).acquire_owned().await {
            Ok(seat) => seat,
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        };
        let (stream, peer) = Listener::accept(&mut self.socket).await;
        let guest = Guest {
            stream,
            limit: self.idle,
            idle: Box::pin(tokio::time::sleep(self.idle)),
            _seat: seat,
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
    _seat: OwnedSemaphorePermit,
}

impl Guest {
    /// What the stream said; or, where it has nothing to say for too long, that it is over.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
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

    #[tokio::test]
    async fn who_is_idle_goes_and_gives_the_seat_to_who_waits() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut door = Door {
            socket,
            seats: Arc::new(Semaphore::new(1)),
            idle: Duration::from_millis(50),
        };
        let address = door.local_addr().unwrap();
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let (mut guest, _) = door.accept().await;
        let full = tokio::time::timeout(Duration::from_millis(5), door.accept()).await;
        assert!(full.is_err(), "one seat");
        let error = guest.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(guest);
        let (mut guest, _) = door.accept().await;
        second.write_all(b"x").await.unwrap();
        assert_eq!(guest.read_u8().await.unwrap(), b'x');
    }
}
