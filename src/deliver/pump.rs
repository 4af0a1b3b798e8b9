//! One connection: carries bytes between a [`Dialogue`] and a socket, and streams content from the store.
//!
//! What is written is gathered first: for a small message MAIL and RCPTs are one write, BDAT and the content another. Large
//! pieces of a chunk are not gathered but written from where they lie, behind what was.
//! Reading never stops while writing, so that a peer that answers early, or blocks on its own replies, is heard.

use super::store::{Store, Work};
use super::tls::Encryption;
use crate::dialogue::{Answer, Broken, Dialogue, Input, Output, Phase, Request, Transfer};
use crate::message_trace::TlsFacts;
use crate::smtp::data::{DotStuffer, HeaderOctets};
use crate::spool::SpoolError;
use bytes::{Buf as _, Bytes};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;

/// Content is written in pieces of about this size.
const PIECE: usize = 64 * 1024;
/// A piece of a chunk that is at least so long is not copied to be written with others: one TLS record.
const LONG: usize = 16 * 1024;
const READ: usize = 8 * 1024;

enum Wire<T> {
    Plain(T),
    Tls(Box<TlsStream<T>>),
    Gone,
}

/// A connection on which a transaction may begin.
pub(super) struct Connection<T> {
    wire: Wire<T>,
    dialogue: Dialogue,
    out: Vec<u8>,
    written: usize,
    /// What is to be written behind `out`.
    behind: Bytes,
    input: Box<[u8]>,
    /// When the peer must have answered, and how many replies there were when that was set.
    wait: Option<(u64, Instant)>,
    /// When the transaction's envelope and content must be with the peer.
    all_by: Instant,
    tls: Option<TlsFacts>,
    messages: usize,
    opened: Instant,
}

/// What a dialogue came to.
enum Step {
    Ready,
    Content(Transfer),
    Finished(Vec<(usize, Answer)>),
    Failed(Answer),
    Closed,
}

/// What the socket did.
enum Event {
    Written,
    Read(usize),
    Closed,
    TlsFailed(String),
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection<T> {
    /// Greeting, EHLO, STARTTLS, EHLO, and the login where there is one.
    pub(super) async fn open(
        transport: T,
        dialogue: Dialogue,
        encryption: &Encryption,
    ) -> Result<Self, Answer> {
        let mut connection = Self {
            wire: Wire::Plain(transport),
            dialogue,
            out: Vec::new(),
            written: 0,
            behind: Bytes::new(),
            input: vec![0; READ].into_boxed_slice(),
            wait: None,
            all_by: Instant::now(),
            tls: None,
            messages: 0,
            opened: Instant::now(),
        };
        match connection.drive(Some(encryption)).await {
            Step::Ready => Ok(connection),
            Step::Failed(answer) => Err(answer),
            Step::Content(_) | Step::Finished(_) | Step::Closed => Err(Answer::Broken {
                phase: Phase::Hello,
                why: Broken::Closed,
            }),
        }
    }

    /// TLS as it was agreed.
    pub(super) fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// Transactions so far.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// How long it has been open.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Whether the peer reports delivery where it is asked to (RFC 3461).
    pub(super) fn offers_dsn(&self) -> bool {
        self.dialogue.offered().dsn
    }

    /// Whether another transaction may follow.
    pub(super) fn is_usable(&self) -> bool {
        self.dialogue.is_ready()
    }

    /// One transaction: every one of `recipients` is answered.
    pub(super) async fn transact<S: Store>(
        &mut self,
        store: &S,
        work: &S::Work,
        recipients: &[usize],
    ) -> Vec<(usize, Answer)> {
        let (message, leg) = (work.message(), work.leg());
        let size = leg.rendition.size(message.facts.size);
        let utf8_header = match self.utf8_header(store, work).await {
            Ok(utf8_header) => utf8_header,
            Err(why) => {
                let answer = Answer::Unreadable(why);
                return recipients.iter().map(|at| (*at, answer.clone())).collect();
            }
        };
        self.dialogue.begin(&Request {
            envelope: &message.envelope,
            recipients,
            facts: &message.facts,
            size,
            utf8_header,
            // Never said outside (product.md 4): there it is nobody's business.
            xoorg: leg.xoorg.as_ref().filter(|_| leg.via.is_internal()),
        });
        self.messages += 1;
        self.wait = None;
        self.all_by = Instant::now() + Dialogue::patience_for_all(size);
        let all = |answer: Answer| recipients.iter().map(|at| (*at, answer.clone())).collect();
        loop {
            match self.drive(None).await {
                Step::Finished(results) => return results,
                Step::Content(transfer) => {
                    if let Err(why) = self.stream(store, work, transfer, size).await {
                        // What was announced cannot be completed: only the end of the connection says so safely.
                        self.dialogue.handle(Input::Closed);
                        self.wire = Wire::Gone;
                        while self.dialogue.next_output().is_some() {}
                        return all(Answer::Unreadable(why));
                    }
                }
                Step::Ready => {}
                Step::Failed(answer) => return all(answer),
                Step::Closed => {
                    return all(Answer::Broken {
                        phase: Phase::Mail,
                        why: Broken::Closed,
                    });
                }
            }
        }
    }

    /// Whether the header section that would be sent needs an SMTPUTF8 that the peer does not offer. It is read only where
    /// that is in question: the client has given SMTPUTF8, and there are octets for which it may have.
    async fn utf8_header<S: Store>(&self, store: &S, work: &S::Work) -> Result<bool, String> {
        let (message, leg) = (work.message(), work.leg());
        let ascii = !message.facts.eight_bit && leg.rendition.prepend.is_ascii();
        if !message.envelope.smtputf8 || self.dialogue.offered().smtputf8 || ascii {
            return Ok(false);
        }
        let (mut octets, mut offset) = (HeaderOctets::default(), 0);
        while !octets.is_known() {
            let piece = store.read(work, offset).await.map_err(unreadable)?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            octets.push(&piece);
        }
        Ok(octets.eight_bit())
    }

    /// Waits for more work: `true` where `wake` calls, `false` where the peer ends the connection or the time is over.
    pub(super) async fn linger(&mut self, wake: &Notify, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = wake.notified() => self.dialogue.is_ready(),
            event = poll_fn(|context| self.poll(context, false)) => {
                // Nothing was asked, so whatever comes ends it: usually 421, or the end of the connection.
                self.take_in(event);
                false
            }
            () = tokio::time::sleep(time) => false,
        }
    }

    /// Says QUIT and closes, within a few seconds.
    pub(super) async fn quit(mut self) {
        let goodbye = async {
            self.dialogue.quit();
            self.drive(None).await;
            poll_fn(|context| self.wire.poll_shutdown(context)).await
        };
        // A courtesy: whether the peer hears it changes nothing.
        drop(timeout(Duration::from_secs(5), goodbye).await);
    }

    /// Runs the dialogue until it wants something that only the caller can do.
    async fn drive(&mut self, encryption: Option<&Encryption>) -> Step {
        loop {
            while let Some(output) = self.dialogue.next_output() {
                match output {
                    Output::Send(bytes) => self.gather().extend_from_slice(&bytes),
                    Output::StartTls => self.start_tls(encryption).await,
                    Output::Ready => return Step::Ready,
                    Output::Content(transfer) => return Step::Content(transfer),
                    Output::Finished(results) => return Step::Finished(results),
                    Output::Failed(answer) => return Step::Failed(answer),
                    Output::Close => return Step::Closed,
                }
            }
            self.step(false).await;
        }
    }

    async fn start_tls(&mut self, encryption: Option<&Encryption>) {
        let (Some(encryption), Wire::Plain(transport)) =
            (encryption, std::mem::replace(&mut self.wire, Wire::Gone))
        else {
            self.dialogue
                .handle(Input::TlsFailed("TLS was already started"));
            return;
        };
        self.wait = None;
        let patience = self.dialogue.patience();
        match timeout(patience, encryption.handshake(transport)).await {
            Ok(Ok((stream, facts))) => {
                self.wire = Wire::Tls(Box::new(stream));
                self.tls = Some(facts);
                self.dialogue.handle(Input::TlsDone);
            }
            Ok(Err(why)) => self.dialogue.handle(Input::TlsFailed(&why)),
            Err(_) => self.dialogue.handle(Input::Deadline),
        }
    }

    /// Streams content behind what was already gathered. The last piece stays gathered: it leaves with the wait for the
    /// reply.
    async fn stream<S: Store>(
        &mut self,
        store: &S,
        work: &S::Work,
        transfer: Transfer,
        size: u64,
    ) -> Result<(), String> {
        let mut offset = 0;
        let mut stuffer = DotStuffer::default();
        loop {
            let piece = store.read(work, offset).await.map_err(unreadable)?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            match transfer {
                Transfer::Chunk if piece.len() >= LONG => {
                    self.gather();
                    self.behind = piece;
                }
                Transfer::Chunk => self.gather().extend_from_slice(&piece),
                Transfer::Dots => stuffer.push(&piece, self.gather()),
            }
            let much = self.out.len() >= PIECE || !self.behind.is_empty();
            if much && offset < size {
                // Each piece has the deadline of its own: what counts is that the peer makes progress.
                self.wait = None;
                while self.has_unwritten() {
                    self.step(true).await;
                    if !self.dialogue.is_sending() {
                        return Ok(());
                    }
                }
            }
        }
        if offset != size {
            return Err(format!("the content has {offset} octets instead of {size}"));
        }
        if transfer == Transfer::Dots {
            stuffer.finish(self.gather());
        }
        self.wait = None;
        self.dialogue.handle(Input::ContentSent);
        Ok(())
    }

    /// Where what is to be written next is gathered, behind all that was to be written before.
    fn gather(&mut self) -> &mut Vec<u8> {
        if !self.behind.is_empty() {
            self.out
                .extend_from_slice(&std::mem::take(&mut self.behind));
        }
        &mut self.out
    }

    fn has_unwritten(&self) -> bool {
        self.written < self.out.len() || !self.behind.is_empty()
    }

    /// Writes some of what is to be written.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let rest = self.out.get(self.written..).unwrap_or_default();
        let polled = match (rest.is_empty(), self.behind.is_empty()) {
            (_, true) => self.wire.poll_write(context, rest),
            (true, false) => self.wire.poll_write(context, &self.behind),
            (false, false) => {
                let slices = [IoSlice::new(rest), IoSlice::new(&self.behind)];
                self.wire.poll_write_vectored(context, &slices)
            }
        };
        if let Poll::Ready(Ok(length)) = polled {
            let first = length.min(rest.len());
            self.written += first;
            self.behind.advance(length - first);
            if self.behind.is_empty() {
                // Nothing of the message is kept longer than it must.
                self.behind = Bytes::new();
            }
        }
        polled
    }

    /// Writes and reads until something was read, or (`until_written`) everything is written; tells the dialogue.
    async fn step(&mut self, until_written: bool) {
        let replies = self.dialogue.replies();
        let deadline = match self.wait {
            Some((then, deadline)) if then == replies => deadline,
            _ => Instant::now() + self.dialogue.patience(),
        };
        self.wait = Some((replies, deadline));
        let deadline = if self.dialogue.is_on_the_clock() {
            deadline.min(self.all_by)
        } else {
            deadline
        };
        let event = timeout_at(
            deadline,
            poll_fn(|context| self.poll(context, until_written)),
        )
        .await;
        match event {
            Ok(event) => self.take_in(event),
            Err(_) => self.dialogue.handle(Input::Deadline),
        }
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Written => {}
            Event::Read(length) => {
                let bytes = self.input.get(..length).unwrap_or_default();
                self.dialogue.handle(Input::Bytes(bytes));
            }
            Event::Closed => self.dialogue.handle(Input::Closed),
            Event::TlsFailed(why) => self.dialogue.handle(Input::TlsFailed(&why)),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, until_written: bool) -> Poll<Event> {
        let mut broken = None;
        while self.has_unwritten() {
            match self.poll_write(context) {
                Poll::Ready(Ok(0)) => {
                    broken = Some(io::ErrorKind::WriteZero.into());
                    break;
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    broken = Some(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        let mut flushed = false;
        if broken.is_none() && !self.has_unwritten() {
            match self.wire.poll_flush(context) {
                Poll::Ready(Ok(())) => {
                    flushed = true;
                    self.out.clear();
                    self.written = 0;
                }
                Poll::Ready(Err(error)) => broken = Some(error),
                Poll::Pending => {}
            }
        }
        // A peer that refuses and closes is heard although writing to it fails.
        let mut buffer = ReadBuf::new(&mut self.input);
        match self.wire.poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Event::Closed),
            Poll::Ready(Ok(())) => Poll::Ready(Event::Read(buffer.filled().len())),
            Poll::Ready(Err(error)) => Poll::Ready(lost(&error)),
            Poll::Pending => match broken {
                Some(error) => Poll::Ready(lost(&error)),
                None if until_written && flushed => Poll::Ready(Event::Written),
                None => Poll::Pending,
            },
        }
    }
}

fn unreadable(error: SpoolError) -> String {
    format!("the content cannot be read: {error:?}")
}

/// tokio-rustls hands on what TLS itself has to say as `InvalidData`; the rest is the network.
fn lost(error: &io::Error) -> Event {
    match error.kind() {
        io::ErrorKind::InvalidData => Event::TlsFailed(error.to_string()),
        _ => Event::Closed,
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}
