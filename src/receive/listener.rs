//! Accepts connections within limits.

use super::bind;
use super::proxy::{self, Proxied, ProxyFault};
use super::pump::{self, shut_down};
use super::{Desk, ListenerSettings, Passwords, Strangers, server_config};
use crate::clock::Clock;
use crate::credentials::{Rate, Rates};
use crate::mailauth::Verifier;
use crate::message_trace::{Event, TraceEvent, Tracer};
use crate::metrics::Metrics;
use crate::session::{Conditions as _, Policy, Rejection, Service, TlsMode};
use crate::smtp::reply::Reply;
use crate::spool::Spool;
use crate::trust::ExchangeOnline;
use crate::trust::certificate::LastJudged;
use crate::trust::network::Networks;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Connections from addresses outside the networks, on a connector listener (product.md 3).
const MAX_STRANGERS: usize = 50;

/// One address may have so many connections of a submission listener, however small its half of them is.
const LEAST_OF_ONE_ADDRESS: usize = 50;

/// How many of a submission listener's `max_connections` one address may have: half of them, so that no single one fills
/// it, and an office behind one address, or a balancer that speaks no PROXY protocol, has room. A small number is not
/// split: who configures ten means ten, also for the one host that sends all the mail.
fn share_of_one_address(max_connections: usize) -> usize {
    max_connections
        .div_ceil(2)
        .max(LEAST_OF_ONE_ADDRESS)
        .min(max_connections)
}

/// What the receiving side works with.
#[derive(Debug)]
pub struct Services {
    /// Where mail is kept.
    pub spool: Spool,
    /// The message trace.
    pub tracer: Tracer,
    /// Counters.
    pub metrics: Metrics,
    /// Checks logins.
    pub passwords: Passwords,
    /// Verifies DKIM signatures.
    pub verifier: Arc<Verifier>,
    /// Answers sessions.
    pub desk: Arc<Desk>,
    /// The clock.
    pub clock: Clock,
    /// When half-proven peers were last warned of, in ticks.
    pub warned: AtomicU64,
    /// What strangers have written into the trace of late.
    pub strangers: Strangers,
}

/// What of an event stands in the log.
fn log(event: &TraceEvent) {
    match &event.event {
        Event::Refused {
            listener,
            reason,
            reply,
            peer,
            ..
        } => tracing::info!(id = %event.id, %listener, %peer, %reason, %reply, "refused"),
        Event::Received {
            listener,
            tenant,
            sender,
            ..
        } => tracing::debug!(id = %event.id, %listener, %tenant, %sender, "received"),
        Event::HandshakeFailed {
            listener,
            peer,
            error,
            offered,
        } => {
            let offered = offered.as_ref().map(ToString::to_string);
            let offered = offered.as_deref().unwrap_or("nothing that could be read");
            tracing::info!(id = %event.id, %listener, %peer, %error, %offered, "TLS handshake failed");
        }
        Event::Attempt { .. }
        | Event::Report { .. }
        | Event::Queue { .. }
        | Event::Operator { .. } => {}
    }
}

impl Services {
    /// Records an event in trace, metrics and log.
    pub(super) fn note(&self, event: TraceEvent) {
        self.count(&event);
        log(&event);
        self.tracer.record(&event);
    }

    /// The same of a stranger at `address`; false where too much of strangers was written of late, and the event is in the
    /// metrics alone.
    pub(super) fn note_of_stranger(&self, event: TraceEvent, address: IpAddr) -> bool {
        let ticks = self.clock.now().ticks;
        if self.strangers.may_write(&event, address, ticks) {
            self.note(event);
            return true;
        }
        self.count(&event);
        false
    }

    fn count(&self, event: &TraceEvent) {
        let metrics = &self.metrics;
        match &event.event {
            Event::Refused {
                listener,
                reason,
                tenant,
                ..
            } => {
                metrics
                    .messages_refused
                    .with_label_values(&[listener, reason])
                    .inc();
                if let Some(verdict) = self.trust_reason(reason) {
                    let tenant = tenant.as_deref().unwrap_or("none");
                    metrics
                        .trust_verdicts
                        .with_label_values(&[tenant, verdict, reason])
                        .inc();
                }
                self.warn_of_half_proven(event);
            }
            Event::Received {
                listener,
                tenant,
                verdict,
                reason,
                removed,
                ..
            } => {
                metrics
                    .messages_received
                    .with_label_values(&[listener, tenant])
                    .inc();
                let reason = reason.as_deref().unwrap_or("");
                metrics
                    .trust_verdicts
                    .with_label_values(&[tenant.as_str(), verdict, reason])
                    .inc();
                if !removed.is_empty() {
                    metrics
                        .fields_removed
                        .with_label_values(&[listener, tenant])
                        .inc();
                }
            }
            Event::HandshakeFailed { .. }
            | Event::Attempt { .. }
            | Event::Report { .. }
            | Event::Queue { .. }
            | Event::Operator { .. } => {}
        }
    }

    /// Whether a refusal was the trust gates' and not, say, a syntax error.
    fn trust_reason(&self, reason: &str) -> Option<&'static str> {
        let parsed: Result<crate::trust::Reason, _> =
            serde_json::from_value(serde_json::Value::from(reason));
        parsed.is_ok().then_some("refused")
    }

    /// Half a proof is plausibly Microsoft after a change that we have not followed: counted, and said once a minute.
    fn warn_of_half_proven(&self, event: &TraceEvent) {
        let Event::Refused {
            listener,
            reason,
            evidence,
            peer,
            ..
        } = &event.event
        else {
            return;
        };
        if !reason.starts_with("half_proven") {
            return;
        }
        let network = evidence.0.iter().any(|item| {
            item.kind == crate::trust::EvidenceKind::Network
                && item.state == crate::trust::EvidenceState::Matches
        });
        let holds = if network { "network" } else { "certificate" };
        self.metrics
            .half_proven
            .with_label_values(&[listener.as_str(), holds])
            .inc();
        let ticks = self.clock.now().ticks;
        let last = self.warned.load(Ordering::Relaxed);
        if last == 0 || ticks >= last + 60_000 {
            self.warned.store(ticks.max(1), Ordering::Relaxed);
            tracing::warn!(%listener, %peer, %holds, "only one of network and certificate holds: has Microsoft changed its addresses or its certificate?");
        }
    }
}

/// What a listener works by until the next reload.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) policy: Arc<Policy>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) exchange_online: Arc<ExchangeOnline>,
    /// Of `exchange_online`'s roots and names.
    pub(super) last_judged: LastJudged,
    balancers: Networks,
    max_connections: usize,
}

impl Current {
    fn new(
        settings: &ListenerSettings,
        policy: Policy,
        exchange_online: Arc<ExchangeOnline>,
    ) -> Result<Self, String> {
        let ask = settings.service == Service::Connector;
        let tls = match (&settings.identity, settings.tls) {
            (_, TlsMode::None) => None,
            (Some(identity), TlsMode::StartTls | TlsMode::Implicit | TlsMode::Optional) => Some(
                server_config(identity, ask)
                    .map_err(|error| format!("listener {}: certificate: {error}", settings.name))?,
            ),
            (None, TlsMode::StartTls | TlsMode::Implicit | TlsMode::Optional) => {
                return Err(format!("listener {}: no certificate", settings.name));
            }
        };
        Ok(Self {
            policy: Arc::new(policy),
            tls,
            exchange_online,
            last_judged: LastJudged::default(),
            balancers: Networks::new(settings.proxy_protocol_from.clone()),
            max_connections: settings.max_connections,
        })
    }

    /// The network gate (product.md 3): what a balancer says of nobody passes none.
    pub(super) fn is_network(&self, origin: Origin) -> bool {
        origin.proven && self.exchange_online.networks.contains(origin.address.ip())
    }
}

/// A bound listener that does not accept yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    current: Arc<ArcSwap<Current>>,
}

impl Listener {
    /// Binds the addresses of all listeners; those of one configuration may overlap, as `0.0.0.0:25` and `10.0.0.5:25` do.
    ///
    /// # Errors
    /// An address cannot be bound, or a certificate cannot be used.
    pub fn bind(
        settings: &[ListenerSettings],
        policy: impl Fn(&ListenerSettings) -> Policy,
        exchange_online: &Arc<ExchangeOnline>,
    ) -> Result<Vec<Self>, String> {
        let prepared: Result<Vec<Current>, String> = settings
            .iter()
            .map(|own| Current::new(own, policy(own), Arc::clone(exchange_online)))
            .collect();
        let addresses: Vec<SocketAddr> = settings.iter().map(|own| own.address).collect();
        let prepared = prepared?;
        let sockets = bind::bind(&addresses).map_err(|(position, error)| {
            settings.get(position).map_or_else(String::new, |own| {
                format!("listener {}: {}: {error}", own.name, own.address)
            })
        })?;
        let listeners = prepared.into_iter().zip(sockets);
        Ok(listeners
            .map(|(current, socket)| Self {
                socket,
                current: Arc::new(ArcSwap::from_pointee(current)),
            })
            .collect())
    }

    /// Accepts from now on.
    ///
    /// # Errors
    /// The bound address cannot be read.
    pub fn start(
        self,
        services: Arc<Services>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Listening, String> {
        let address = self
            .socket
            .local_addr()
            .map_err(|error| error.to_string())?;
        let current = Arc::clone(&self.current);
        let task = tokio::spawn(accept(self.socket, self.current, services, shutdown));
        Ok(Listening {
            address,
            current,
            task,
        })
    }
}

/// A listener that accepts.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    current: Arc<ArcSwap<Current>>,
    task: JoinHandle<()>,
}

impl Listening {
    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.current.load().policy.listener)
    }

    /// Works by new settings: new connections at once, open ones from their next transaction.
    ///
    /// # Errors
    /// The certificate cannot be used; nothing has changed.
    pub fn reload(
        &self,
        settings: &ListenerSettings,
        policy: Policy,
        exchange_online: Arc<ExchangeOnline>,
    ) -> Result<(), String> {
        self.current
            .store(Arc::new(Current::new(settings, policy, exchange_online)?));
        Ok(())
    }

    /// Waits until the last session has ended, at most until `end`.
    pub async fn finished(self, end: tokio::time::Instant) {
        let mut task = self.task;
        if tokio::time::timeout_at(end, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// How many of those that are turned away are told so, and stand in the trace.
const TOLD_RATE: Rate = Rate {
    messages: 100,
    per: Duration::from_secs(10),
};

/// How many connections of each kind are open.
#[derive(Debug, Default)]
struct Open {
    known: Arc<AtomicUsize>,
    strangers: Arc<AtomicUsize>,
    /// Balancers' connections of which nobody knows yet whose they are.
    unnamed: Arc<AtomicUsize>,
    by_address: Arc<ByAddress>,
    /// Who was turned away and told so.
    told: Rates,
}

/// Connections of each address that has some, on a submission listener.
#[derive(Debug, Default)]
struct ByAddress(Mutex<HashMap<IpAddr, usize>>);

impl ByAddress {
    fn take(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let address = network_of(address);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(address).or_default();
        if *own >= most {
            return None;
        }
        *own += 1;
        Some(Place {
            all: Arc::clone(self),
            address,
        })
    }
}

/// One client has at least a /64 of IPv6.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        four @ IpAddr::V4(_) => four,
    }
}

/// Counts a connection of an address while it lives.
struct Place {
    all: Arc<ByAddress>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut own) = all.entry(self.address) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

/// Counts a connection while it lives.
struct Seat {
    taken: Arc<AtomicUsize>,
    gauge: Option<prometheus::IntGauge>,
    /// Half of the seats were taken already.
    in_a_crowd: bool,
    place: Option<Place>,
}

impl Seat {
    fn take(
        taken: &Arc<AtomicUsize>,
        most: usize,
        gauge: Option<prometheus::IntGauge>,
    ) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        if before >= most {
            taken.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if let Some(gauge) = &gauge {
            gauge.inc();
        }
        Some(Self {
            taken: Arc::clone(taken),
            gauge,
            in_a_crowd: before >= most.div_ceil(2),
            place: None,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
        drop(self.place.take());
    }
}

async fn accept(
    socket: TcpListener,
    current: Arc<ArcSwap<Current>>,
    services: Arc<Services>,
    mut shutdown: watch::Receiver<bool>,
) {
    let door = Door {
        current,
        services,
        open: Arc::default(),
        shutdown: shutdown.clone(),
    };
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => door.knock(stream, peer, &mut sessions),
                Err(error) => {
                    // Out of file descriptors, mostly: the pause keeps the loop from spinning.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = sessions.join_next() => {}
            () = shut_down(&mut shutdown) => break,
        }
    }
    drop(socket);
    while sessions.join_next().await.is_some() {}
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The client, or the balancer where it names none.
    pub(super) address: SocketAddr,
    /// Whether the address is the client's.
    pub(super) proven: bool,
}

/// What decides who comes in, and whom he meets inside.
#[derive(Clone)]
struct Door {
    current: Arc<ArcSwap<Current>>,
    services: Arc<Services>,
    open: Arc<Open>,
    shutdown: watch::Receiver<bool>,
}

impl Door {
    /// A connection was accepted. What is turned away costs no task.
    fn knock(&self, stream: TcpStream, peer: SocketAddr, sessions: &mut JoinSet<()>) {
        let current = self.current.load_full();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY");
        }
        if current.balancers.contains(peer.ip()) {
            match Seat::take(&self.open.unnamed, current.max_connections, None) {
                Some(seat) => drop(sessions.spawn(self.clone().ask_balancer(stream, peer, seat))),
                None => {
                    let balancer = Origin {
                        address: peer,
                        proven: false,
                    };
                    self.turn_away(&stream, balancer, &current);
                }
            }
            return;
        }
        let origin = Origin {
            address: peer,
            proven: true,
        };
        match self.seat(origin, &current) {
            Some(seat) => drop(sessions.spawn(self.clone().serve(stream, origin, seat))),
            None => self.turn_away(&stream, origin, &current),
        }
    }

    /// A balancer's connection: who it is counted as is known once the PROXY header has come.
    async fn ask_balancer(mut self, mut stream: TcpStream, balancer: SocketAddr, unnamed: Seat) {
        let proxied = tokio::select! {
            proxied = proxy::read(&mut stream) => proxied,
            () = shut_down(&mut self.shutdown) => return,
        };
        let current = self.current.load_full();
        let origin = match proxied {
            Ok(Proxied::Client(address)) => Origin {
                address,
                proven: true,
            },
            Ok(Proxied::Nobody) => Origin {
                address: balancer,
                proven: false,
            },
            Err(fault) => return self.refuse_balancer(&stream, balancer, fault, &current),
        };
        drop(unnamed);
        match self.seat(origin, &current) {
            Some(seat) => self.serve(stream, origin, seat).await,
            None => self.turn_away(&stream, origin, &current),
        }
    }

    async fn serve(self, stream: TcpStream, origin: Origin, seat: Seat) {
        let crowded = seat.in_a_crowd;
        pump::serve(
            stream,
            origin,
            crowded,
            self.current,
            self.services,
            self.shutdown,
        )
        .await;
        drop(seat);
    }

    fn seat(&self, origin: Origin, current: &Current) -> Option<Seat> {
        let connector = current.policy.service == Service::Connector;
        let (counter, most) = if connector && !current.is_network(origin) {
            (&self.open.strangers, MAX_STRANGERS)
        } else {
            (&self.open.known, current.max_connections)
        };
        let metrics = &self.services.metrics;
        let listener = &*current.policy.listener;
        let gauge = metrics.connections_open.with_label_values(&[listener]);
        let place = if connector {
            None
        } else {
            let most = share_of_one_address(current.max_connections);
            Some(self.open.by_address.take(origin.address.ip(), most)?)
        };
        let mut seat = Seat::take(counter, most, Some(gauge))?;
        seat.place = place;
        metrics
            .connections
            .with_label_values(&[listener, "accepted"])
            .inc();
        Some(seat)
    }

    /// 421 4.3.2 where the client can read it and a flood of such would not fill the trace; else the connection just closes.
    fn turn_away(&self, stream: &TcpStream, origin: Origin, current: &Current) {
        self.count(current, "turned_away");
        let now = self.services.clock.now();
        // A flood of strangers takes no word from those who are known.
        let whose = match current.is_network(origin) {
            true => "known",
            false => "strangers",
        };
        if speaks_first(current) && self.open.told.take(whose, TOLD_RATE, now.ticks) {
            let rejection = Rejection::TooManyConnections;
            self.refuse(stream, origin.address, rejection, None, current);
        }
    }

    fn refuse_balancer(
        &self,
        stream: &TcpStream,
        balancer: SocketAddr,
        fault: ProxyFault,
        current: &Current,
    ) {
        self.count(current, "no_proxy_header");
        self.refuse(
            stream,
            balancer,
            Rejection::ProxyRequired,
            Some(fault),
            current,
        );
    }

    /// Says it and has the trace know it, for the reply has its id.
    fn refuse(
        &self,
        stream: &TcpStream,
        peer: SocketAddr,
        rejection: Rejection,
        fault: Option<ProxyFault>,
        current: &Current,
    ) {
        let now = self.services.clock.now();
        let id = self.services.desk.next_id(now);
        let reply = rejection.reply(&current.policy.hostname, id);
        let summary = reply.summary();
        self.services.note(TraceEvent {
            at: now.unix_millis,
            id: id.to_string(),
            event: Event::Refused {
                listener: current.policy.listener.to_string(),
                peer: peer.to_string(),
                application: None,
                tenant: None,
                sender: None,
                recipients: Vec::new(),
                message_id: None,
                reply: match fault {
                    Some(fault) => format!("{summary} ({fault})"),
                    None => summary,
                },
                reason: rejection.label().to_owned(),
                evidence: crate::trust::Evidence::default(),
            },
        });
        say(stream, current, &reply);
    }

    fn count(&self, current: &Current, result: &str) {
        self.services
            .metrics
            .connections
            .with_label_values(&[&*current.policy.listener, result])
            .inc();
    }
}

/// Whether a client can read what is said before anything else.
fn speaks_first(current: &Current) -> bool {
    current.policy.tls != TlsMode::Implicit
}

/// In one write that does not wait; where it does not fit, or the client speaks TLS from the first octet, the connection
/// just closes.
fn say(stream: &TcpStream, current: &Current, reply: &Reply) {
    if !speaks_first(current) {
        return;
    }
    let mut bytes = Vec::new();
    reply.write_to(&mut bytes);
    if let Err(error) = stream.try_write(&bytes) {
        tracing::debug!(%error, "turned away without a word");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_half_of_a_large_listener_and_all_of_a_small_one() {
        for (max_connections, share) in [
            (1, 1),
            (4, 4),
            (50, 50),
            (51, 50),
            (100, 50),
            (101, 51),
            (1000, 500),
        ] {
            assert_eq!(share_of_one_address(max_connections), share);
        }
    }

    #[test]
    fn one_address_has_its_share_and_gives_it_back() {
        let all: Arc<ByAddress> = Arc::default();
        let take = |address: &str| all.take(address.parse().unwrap(), 2);
        let first = take("192.0.2.1").unwrap();
        let second = take("::ffff:192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none(), "the same address");
        assert!(take("192.0.2.2").is_some(), "another");
        drop(first);
        let third = take("192.0.2.1").unwrap();
        // A client has a network of IPv6, and may be each address of it.
        let six = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert!(take("2001:db8::3").is_none());
        assert!(take("2001:db8:0:1::3").is_some());
        drop((second, third, six));
        assert!(all.0.lock().unwrap().is_empty(), "nothing is remembered");
    }
}
