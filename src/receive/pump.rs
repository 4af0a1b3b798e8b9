//! Carries bytes between a socket and a [`Session`], and does what the session asks.

use super::ahead::ReadAhead;
use super::handshake::{self, Overheard};
use super::listener::{Current, Origin, Services};
use crate::message_trace::{Event, TlsFacts, TraceEvent};
use crate::session::{
    Conditions, Credentials, Input, MAX_UNSENT, Output, Policies, Policy, Session,
};
use crate::spool::{Draft, SpoolError};
use crate::trust::DkimFacts;
use crate::trust::certificate::{ClientCertificate, WhyAbsent};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::server::TlsStream;

/// One TLS record; larger reads would cost memory for each of a thousand sessions.
const READ_BUFFER: usize = 16 * 1024;
/// A peer that does not read its replies.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// How a drive over one stream ended.
enum Exit {
    Closed,
    StartTls,
}

/// What a listener goes by at this moment.
struct InForce(Arc<arc_swap::ArcSwap<Current>>);

impl Policies for InForce {
    fn in_force(&self) -> Arc<Policy> {
        Arc::clone(&self.0.load().policy)
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(
    mut socket: TcpStream,
    origin: Origin,
    crowded: bool,
    listener: Arc<arc_swap::ArcSwap<Current>>,
    services: Arc<Services>,
    shutdown: watch::Receiver<bool>,
) {
    let current = listener.load_full();
    let network = current.is_network(origin);
    let conditions: Arc<dyn Conditions> = Arc::clone(&services.desk) as Arc<dyn Conditions>;
    let now = services.clock.now();
    let policy = Arc::clone(&current.policy);
    let policies = InForce(Arc::clone(&listener));
    let mut session = Session::new(policy, conditions, origin.address, network, now)
        .with_policies(Arc::new(policies));
    if !origin.proven {
        session = session.with_unproven_address();
    }
    if crowded {
        session = session.in_a_crowd();
    }
    let mut pump = Pump {
        session,
        origin,
        listener,
        services,
        shutdown,
        draft: None,
        out: Vec::new(),
    };
    match pump.drive(&mut socket).await {
        Ok(Exit::StartTls) => {}
        Ok(Exit::Closed) | Err(_) => return,
    }
    // What is in force now: the session may have waited in clear text over a reload.
    let current = pump.listener.load_full();
    let Some(config) = current.tls.clone() else {
        return;
    };
    let Some(mut stream) = pump.handshake(socket, config).await else {
        return;
    };
    let (facts, verdict) = pump.identify(stream.get_ref().1, &current);
    pump.session
        .handle(pump.services.clock.now(), Input::Secured(facts, verdict));
    if pump.drive(&mut stream).await.is_ok() {
        // A polite end; what the peer makes of it does not matter.
        drop(timeout(Duration::from_secs(5), stream.shutdown()).await);
    }
}

struct Pump {
    session: Session,
    origin: Origin,
    listener: Arc<arc_swap::ArcSwap<Current>>,
    services: Arc<Services>,
    shutdown: watch::Receiver<bool>,
    draft: Option<Result<Draft, SpoolError>>,
    out: Vec<u8>,
}

impl Pump {
    async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> std::io::Result<Exit> {
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            while let Some(output) = self.session.next_output() {
                if let Some(exit) = self.act(stream, output).await? {
                    return Ok(exit);
                }
            }
            self.flush(stream).await?;
            let clock = self.services.clock.clone();
            let deadline = clock.at(self.session.deadline().unwrap_or(u64::MAX / 4096));
            tokio::select! {
                read = timeout_at(deadline, stream.read(&mut buffer)) => match read {
                    Ok(Ok(0)) => return Ok(Exit::Closed),
                    Ok(Ok(length)) => {
                        let bytes = buffer.get(..length).unwrap_or_default();
                        self.session.handle(clock.now(), Input::Bytes(bytes));
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_) => self.session.handle(clock.now(), Input::Deadline),
                },
                () = shut_down(&mut self.shutdown), if !self.session.is_draining() => {
                    self.session.handle(clock.now(), Input::Shutdown);
                }
            }
        }
    }

    /// Does what the session asks; replies are gathered and sent when nothing else is left to do, but always before
    /// something that may take long.
    async fn act<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        output: Output,
    ) -> std::io::Result<Option<Exit>> {
        let services = Arc::clone(&self.services);
        match output {
            Output::Send(bytes) => {
                self.out.extend_from_slice(&bytes);
                // No more than this waits for a peer that asks much and reads little; others have their turn first.
                if self.out.len() >= MAX_UNSENT {
                    self.flush(stream).await?;
                    tokio::task::yield_now().await;
                }
            }
            Output::StartTls => {
                self.flush(stream).await?;
                return Ok(Some(Exit::StartTls));
            }
            Output::CheckCredentials(login) => {
                self.flush(stream).await?;
                let credentials = services
                    .passwords
                    .check(login, self.origin.address.ip(), self.origin.proven)
                    .await;
                let result = match credentials {
                    Credentials::Accepted(_) => "accepted",
                    Credentials::Rejected => "rejected",
                    Credentials::Busy => "busy",
                    Credentials::Throttled => "throttled",
                };
                let name = self.listener.load().policy.listener.to_string();
                services
                    .metrics
                    .authentications
                    .with_label_values(&[name.as_str(), result])
                    .inc();
                self.session
                    .handle(services.clock.now(), Input::Credentials(credentials));
            }
            Output::Append(bytes) => {
                let announced = self.session.announced_size();
                let draft = self
                    .draft
                    .get_or_insert_with(|| Ok(services.spool.draft().announced(announced)));
                let result = match draft {
                    Ok(draft) => draft.append(bytes.into()).await,
                    Err(error) => Err(error.clone()),
                };
                if let Err(error) = &result {
                    self.draft = Some(Err(error.clone()));
                }
                self.session
                    .handle(services.clock.now(), Input::Appended(result));
            }
            Output::CheckSignatures(check) => {
                self.flush(stream).await?;
                let facts = match &self.draft {
                    Some(Ok(draft)) => {
                        let arrived = as_it_arrived(draft, &check.section);
                        let verifier = &services.verifier;
                        verifier.check(&check.signatures, check.size, arrived).await
                    }
                    Some(Err(error)) => Err(error.clone()),
                    None => Ok(DkimFacts::absent("no content", &check.signatures)),
                };
                self.session
                    .handle(services.clock.now(), Input::Signatures(facts));
            }
            Output::Abandon => self.draft = None,
            Output::Store(message, event) => {
                let draft = self
                    .draft
                    .take()
                    .unwrap_or_else(|| Ok(services.spool.draft()));
                let result = match draft {
                    Ok(draft) => services.spool.accept(draft, *message).await,
                    Err(error) => Err(error),
                };
                if result.is_ok() {
                    services.note(*event);
                }
                self.session
                    .handle(services.clock.now(), Input::Stored(result));
            }
            Output::Trace(event) => {
                // Its reply would have an id that no trace finds: a flood is closed without one.
                if !self.note(*event) {
                    self.flush(stream).await?;
                    return Ok(Some(Exit::Closed));
                }
            }
            Output::Close => {
                self.flush(stream).await?;
                return Ok(Some(Exit::Closed));
            }
        }
        Ok(None)
    }

    async fn flush<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> std::io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        say(stream, &self.out).await?;
        self.out.clear();
        Ok(())
    }

    async fn handshake(
        &mut self,
        socket: TcpStream,
        config: Arc<ServerConfig>,
    ) -> Option<TlsStream<Overheard<ReadAhead<TcpStream>>>> {
        let services = Arc::clone(&self.services);
        let listener = self.listener.load().policy.listener.to_string();
        let count = |result| {
            services
                .metrics
                .tls_handshakes
                .with_label_values(&[listener.as_str(), result])
                .inc()
        };
        let accepted = tokio::select! {
            accepted = handshake::accept(ReadAhead::new(socket), config) => accepted,
            // Nothing can be said within a handshake.
            () = shut_down(&mut self.shutdown) => return None,
        };
        let failure = match accepted {
            Ok(stream) => {
                let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                count(if resumed { "resumed" } else { "full" });
                return Some(stream);
            }
            Err(failure) => failure,
        };
        count(failure.result);
        let event = Event::HandshakeFailed {
            listener: listener.clone(),
            peer: self.origin.address.to_string(),
            error: crate::mail::shown(failure.error.as_bytes()),
            offered: failure.offered,
        };
        let id = services.desk.id(&services.clock).to_string();
        let _told = self.note(TraceEvent {
            at: services.clock.now().unix_millis,
            id,
            event,
        });
        None
    }

    /// Records an event; false where it is one too many of somebody who has proven nothing.
    fn note(&self, event: TraceEvent) -> bool {
        if self.session.is_known() {
            self.services.note(event);
            return true;
        }
        self.services
            .note_of_stranger(event, self.origin.address.ip())
    }

    /// What TLS agreed, and the client certificate, judged anew on every connection: a resumed session brings back an
    /// older identity.
    fn identify(
        &self,
        connection: &ServerConnection,
        current: &Current,
    ) -> (TlsFacts, ClientCertificate) {
        let now = self.services.clock.now();
        let verdict = match connection.peer_certificates() {
            Some(chain) => current.last_judged.judge(
                chain,
                &current.exchange_online.client_certificate_roots,
                &current.exchange_online.client_certificate_names,
                now.unix_seconds(),
            ),
            None => ClientCertificate::Absent(WhyAbsent::NotPresented),
        };
        let facts = TlsFacts {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLS1.3".to_owned(),
                Some(ProtocolVersion::TLSv1_2) => "TLS1.2".to_owned(),
                other => format!("{other:?}"),
            },
            cipher: connection
                .negotiated_cipher_suite()
                .map_or_else(String::new, |suite| {
                    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
                }),
            peer_name: match &verdict {
                ClientCertificate::Verified { name } => Some(name.to_string()),
                ClientCertificate::Absent(_) => None,
            },
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        (facts, verdict)
    }
}

/// Sends all of it within [`WRITE_DEADLINE`].
async fn say<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> std::io::Result<()> {
    let send = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(WRITE_DEADLINE, send).await?
}

/// The message as it came: the draft, with the header section in which nothing is blanked.
async fn as_it_arrived(draft: &Draft, section: &[u8]) -> Result<Vec<u8>, SpoolError> {
    let mut octets = draft.read_back().await?;
    if let Some(blanked) = octets.get_mut(..section.len()) {
        blanked.copy_from_slice(section);
    }
    Ok(octets)
}

/// Completes when the server shuts down.
pub(super) async fn shut_down(shutdown: &mut watch::Receiver<bool>) {
    let gone = shutdown.wait_for(|down| *down).await.is_err();
    if gone {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_its_replies_has_a_minute() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let begun = tokio::time::Instant::now();
        let error = say(&mut ours, &[b'x'; MAX_UNSENT]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), WRITE_DEADLINE);
        drop(theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_an_octet_a_second_has_no_longer() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let reading = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if theirs.read_u8().await.is_err() {
                    return;
                }
            }
        });
        let begun = tokio::time::Instant::now();
        let error = say(&mut ours, &[b'x'; MAX_UNSENT]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), WRITE_DEADLINE);
        drop(ours);
        reading.await.unwrap();
    }
}
