//! Reads ahead of TLS while a client sends much.
//!
//! rustls asks for 4 KiB at a time: five calls for each record of 16 KiB. Whoever fills such a read has more to say, and gets
//! one buffer for many; it is gone as soon as nothing is left to read, so that a thousand quiet sessions have none.

use bytes::{Buf as _, BytesMut};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Octets that are read at once.
const AHEAD: usize = 32 * 1024;
/// A read that is filled with at least so many octets is taken for the beginning of much.
const MUCH: usize = 4 * 1024;

/// A stream that is read in large pieces while there is much to read.
#[derive(Debug)]
pub(super) struct ReadAhead<S> {
    stream: S,
    ahead: BytesMut,
    much: bool,
}

impl<S> ReadAhead<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: BytesMut::new(),
            much: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        if own.ahead.is_empty() && !own.much {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut own.stream).poll_read(context, buffer))?;
            own.much = buffer.remaining() == 0 && buffer.filled().len() - before >= MUCH;
            return Poll::Ready(Ok(()));
        }
        if own.ahead.is_empty() {
            own.ahead.reserve(AHEAD);
            let polled = pin!(own.stream.read_buf(&mut own.ahead)).poll(context);
            if !matches!(polled, Poll::Ready(Ok(1..))) {
                own.ahead = BytesMut::new();
                own.much = false;
            }
            ready!(polled)?;
        }
        let length = own.ahead.len().min(buffer.remaining());
        buffer.put_slice(own.ahead.get(..length).unwrap_or_default());
        own.ahead.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// Reads as rustls does; the pieces, and the memory that is kept between reads.
    async fn read_by_four_kib(from: &[u8], room: usize) -> (Vec<u8>, usize) {
        let (mut theirs, ours) = tokio::io::duplex(room);
        let octets = from.to_vec();
        let writing = tokio::spawn(async move {
            theirs.write_all(&octets).await.unwrap();
        });
        let mut stream = ReadAhead::new(ours);
        let mut all = Vec::new();
        let mut most = 0;
        let mut piece = vec![0; MUCH];
        loop {
            let length = stream.read(&mut piece).await.unwrap();
            if length == 0 {
                break;
            }
            all.extend_from_slice(&piece[..length]);
            most = most.max(stream.ahead.capacity());
        }
        assert_eq!(stream.ahead.capacity(), 0, "given back at the end");
        writing.await.unwrap();
        (all, most)
    }

    #[tokio::test]
    async fn all_octets_come_in_order_however_they_arrive() {
        let octets: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
        for (room, ahead) in [
            (1, false),
            (MUCH - 1, false),
            (2 * MUCH, true),
            (AHEAD, true),
            (4 * AHEAD, true),
        ] {
            let (all, most) = read_by_four_kib(&octets, room).await;
            assert!(all == octets, "in pieces of {room}");
            assert_eq!(most > 0, ahead, "in pieces of {room}: {most}");
            assert!(most <= AHEAD, "{most}");
        }
    }

    #[tokio::test]
    async fn who_is_quiet_has_no_buffer() {
        let (mut theirs, ours) = tokio::io::duplex(4 * AHEAD);
        let mut stream = ReadAhead::new(ours);
        let mut piece = vec![0; MUCH];
        theirs.write_all(&vec![1; 3 * MUCH]).await.unwrap();
        for _ in 0..3 {
            assert_eq!(stream.read(&mut piece).await.unwrap(), MUCH);
        }
        let mut waiting = poll_once(&mut stream, &mut piece);
        assert!(waiting.is_none(), "nothing came");
        assert_eq!(stream.ahead.capacity(), 0);
        theirs.write_all(b"QUIT\r\n").await.unwrap();
        waiting = poll_once(&mut stream, &mut piece);
        assert_eq!(waiting, Some(6));
        assert_eq!(stream.ahead.capacity(), 0);
    }

    /// One poll of a read: how much came, or nothing while it waits.
    fn poll_once<S: AsyncRead + Unpin>(
        stream: &mut ReadAhead<S>,
        piece: &mut [u8],
    ) -> Option<usize> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut buffer = ReadBuf::new(piece);
        match Pin::new(stream).poll_read(&mut context, &mut buffer) {
            Poll::Ready(read) => {
                read.unwrap();
                Some(buffer.filled().len())
            }
            Poll::Pending => None,
        }
    }
}
