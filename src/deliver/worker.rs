//! One connection of one queue: takes message after message until there is no more work, its time is over, or the queue
//! may not send.

use super::dial::Client;
use super::lane::{Doing, Lane, Place, lock};
use super::outside::{Outside, Reached};
use super::pump::Connection;
use super::report::{self, Attempt};
use super::settings::DeliverSettings;
use super::store::{Store, Work};
use crate::dialogue::{Answer, Dialogue, Outcome, Pace};
use crate::mail::{QueueIds, TenantName};
use crate::message_trace::TraceEvent;
use crate::metrics::Metrics;
use crate::route::Via;
use crate::schedule::Law;
use crate::schedule::retry::millis;
use crate::spool::{Destination, Patience};
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Exchange drops a connection at about 20 minutes; it is ended before (product.md 6).
pub(super) const LONGEST_CONNECTION: Duration = Duration::from_secs(15 * 60);
/// How long a connection without work stays open for more.
const LINGER: Duration = Duration::from_secs(2);

/// Milliseconds since 1970.
pub(super) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
/// Where trace events go.
pub(super) type Trace = Arc<dyn Fn(TraceEvent) + Send + Sync>;

/// How a queue's next hop is met.
#[derive(Clone)]
pub(super) enum Way {
    /// As the tenant, by its connector.
    Exchange(Arc<Client>),
    /// As anyone.
    Outside(Arc<Outside>),
}

impl Way {
    /// Connections of one queue.
    pub(super) fn most_connections(&self) -> usize {
        match self {
            Self::Exchange(client) => client.connector().max_connections.max(1),
            Self::Outside(outside) => outside.most_connections(),
        }
    }

    fn most_messages(&self) -> usize {
        match self {
            Self::Exchange(client) => client.connector().max_messages_per_connection.max(1),
            Self::Outside(outside) => outside.most_messages(),
        }
    }
}

/// The settings, made ready: one client for each tenant's connector, one for each relay, one for all mail exchangers.
pub(super) struct Setup {
    pub(super) settings: DeliverSettings,
    clients: HashMap<TenantName, Result<Way, String>>,
    relays: HashMap<Arc<str>, Result<Way, String>>,
    mx: Result<Way, String>,
    /// Moves on with each reload: a connection of an older one takes no further message.
    pub(super) generation: u64,
}

impl Setup {
    pub(super) fn new(settings: DeliverSettings, generation: u64) -> Self {
        let clients = settings.connectors.iter().map(|connector| {
            let tenant = settings.tenants.named(&connector.tenant);
            let domains = tenant.map(|tenant| tenant.accepted_domains.clone());
            let trust = &settings.server_trust;
            let client = Client::new(connector, &domains.unwrap_or_default(), trust);
            let way = client.map(|client| Way::Exchange(Arc::new(client)));
            (Arc::clone(&connector.tenant), way)
        });
        let outside = |made: Result<Outside, String>| made.map(|made| Way::Outside(Arc::new(made)));
        let relays = settings.relays.iter();
        let relays = relays.map(|relay| (Arc::clone(&relay.name), outside(Outside::relay(relay))));
        Self {
            clients: clients.collect(),
            relays: relays.collect(),
            mx: outside(Outside::mx()),
            settings,
            generation,
        }
    }

    /// The way to a next hop, or why it cannot be made ready; nothing where the settings have none.
    pub(super) fn way(&self, destination: &Destination) -> Option<&Result<Way, String>> {
        match &destination.via {
            Via::Exchange => self.clients.get(&destination.tenant),
            Via::Mx => destination.domain.as_ref().map(|_| &self.mx),
            Via::Relay(name) => self.relays.get(name),
        }
    }

    /// The law of a kind of way.
    pub(super) fn law(&self, via: &Via) -> &Law {
        match via {
            Via::Exchange => &self.settings.exchange_law,
            Via::Mx | Via::Relay(_) => &self.settings.mx_law,
        }
    }

    /// How long mail waits before its sender hears of it, and from when on he hears of its end instead.
    pub(super) fn patience(&self) -> Patience {
        let (exchange, outside) = (&self.settings.exchange_law, &self.settings.mx_law);
        Patience {
            exchange: exchange.delay_notice.map(millis),
            outside: outside.delay_notice.map(millis),
            exchange_end: Some(millis(exchange.expire)),
            outside_end: Some(millis(outside.expire)),
        }
    }

    /// Where mail of a stream leaves from; empty where the system may choose.
    fn sources(&self, via: &Via, stream: Option<&str>) -> &[IpAddr] {
        let streams = &self.settings.source_addresses;
        let own = streams.iter().find(|(name, _)| Some(&**name) == stream);
        match (via, own) {
            (Via::Mx, Some((_, addresses))) => addresses,
            (Via::Exchange | Via::Mx | Via::Relay(_), _) => &[],
        }
    }
}

/// What all workers share.
pub(super) struct Shared<S> {
    pub(super) store: S,
    pub(super) clock: Clock,
    /// Names for the mail that we write ourselves.
    pub(super) ids: Arc<QueueIds>,
    pub(super) trace: Trace,
    pub(super) metrics: Metrics,
    pub(super) setup: Mutex<Arc<Setup>>,
    /// Calls the scheduler to look again.
    pub(super) look: Notify,
    /// No notice of delay is tried before: the store did not take the last one.
    pub(super) no_notice_before: AtomicU64,
    pub(super) stopping: watch::Sender<bool>,
}

impl<S> Shared<S> {
    pub(super) fn trace(&self, event: TraceEvent) {
        (self.trace)(event);
    }

    pub(super) fn setup(&self) -> Arc<Setup> {
        Arc::clone(&lock(&self.setup))
    }

    /// What comes of `connecting`; nothing where the server stops before. Until there is a connection nobody outside knows
    /// of the message, so that nothing is lost or sent twice when the way there is given up, and a stop (an upgrade) waits
    /// neither for DNS nor for a host that does not answer.
    pub(super) async fn unless_stopped<T>(&self, connecting: impl Future<Output = T>) -> Option<T> {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            biased;
            connected = connecting => Some(connected),
            _ = stopping.wait_for(|stopping| *stopping) => None,
        }
    }
}

/// See the module.
pub(super) struct Worker<S: Store> {
    shared: Arc<Shared<S>>,
    setup: Arc<Setup>,
    way: Result<Way, String>,
    lane: Arc<Lane>,
    place: Place,
    open: Option<Open>,
}

struct Open {
    connection: Connection<TcpStream>,
    host: String,
    address: SocketAddr,
    /// What it was allowed to be sent from: another stream may have other addresses.
    sources: Box<[IpAddr]>,
}

impl<S: Store> Worker<S> {
    pub(super) fn new(shared: &Arc<Shared<S>>, lane: &Arc<Lane>) -> Self {
        let setup = shared.setup();
        let way = setup.way(&lane.destination).cloned();
        let way = way.unwrap_or_else(|| Err("there is no such way any more".to_owned()));
        Self {
            shared: Arc::clone(shared),
            setup,
            way,
            lane: Arc::clone(lane),
            place: Place::new(lane),
            open: None,
        }
    }

    /// Works until nothing is left to do.
    pub(super) async fn run(mut self) {
        while !self.is_over() {
            let now = (self.shared.clock)();
            let law = self.setup.law(&self.lane.destination.via);
            let Some(probe) = self.lane.admit(law, now) else {
                break;
            };
            if let Some(work) = self.next_work(now, probe) {
                self.place.now(Doing::Busy);
                Box::pin(self.deliver(work, probe)).await;
            } else if !self.linger().await {
                break;
            }
        }
        let open = self.open.take();
        // The place is free while the goodbye takes its time; the scheduler looks whether work came in between.
        drop(self.place);
        self.shared.look.notify_one();
        if let Some(open) = open {
            open.connection.quit().await;
        }
    }

    fn is_over(&self) -> bool {
        *self.shared.stopping.borrow()
            || lock(&self.shared.setup).generation != self.setup.generation
    }

    /// The next message. Where there is none, this connection counts as idle before the store is asked again: work that
    /// came in between was either seen by then, or the scheduler sees an idle connection and calls it.
    fn next_work(&mut self, now: u64, probe: bool) -> Option<S::Work> {
        let destination = &self.lane.destination;
        if probe {
            return self.shared.store.oldest(destination, now);
        }
        let work = self.shared.store.next_due(destination, now);
        if work.is_none() && self.open.is_some() {
            self.place.now(Doing::Idle);
            return self.shared.store.next_due(destination, now);
        }
        work
    }

    async fn linger(&mut self) -> bool {
        let Some(open) = self.open.as_mut() else {
            return false;
        };
        let called = open.connection.linger(&self.lane.wake, LINGER).await;
        self.place.now(Doing::Starting);
        called
    }

    /// Ends a connection that has carried enough or is old; the next message opens another.
    fn retire_if_worn(&mut self) {
        let most = self.way.as_ref().map_or(1, Way::most_messages);
        let worn = |open: &Open| {
            open.connection.messages() >= most || open.connection.age() >= LONGEST_CONNECTION
        };
        self.retire_if(worn);
    }

    fn retire_if(&mut self, over: impl Fn(&Open) -> bool) {
        if let Some(open) = self.open.take_if(|open| over(open)) {
            // Bounded by the deadline of QUIT.
            tokio::spawn(open.connection.quit());
        }
    }

    async fn deliver(&mut self, work: S::Work, probe: bool) {
        let began = Instant::now();
        let mut attempt = Attempt {
            probe,
            ..Attempt::default()
        };
        let mut answers: Vec<(usize, Answer)> = Vec::new();
        let mut pending = work.recipients().to_vec();
        let next_hop = report::next_hop(&self.lane.destination.via);
        while !pending.is_empty() {
            // A message that is split into many transactions wears a connection as many messages do.
            self.retire_if_worn();
            let shared = Arc::clone(&self.shared);
            let connecting = self.connect(&work, &mut attempt);
            let Some(connected) = shared.unless_stopped(connecting).await else {
                if answers.is_empty() {
                    // Given back, as if nobody had tried: the next process does.
                    return;
                }
                break;
            };
            if let Err(answer) = connected {
                answers.extend(pending.drain(..).map(|at| (at, answer.clone())));
                break;
            }
            let Some(open) = self.open.as_mut() else {
                break;
            };
            attempt.reused = open.connection.messages() > 0;
            let reports = open.connection.offers_dsn();
            let got = open
                .connection
                .transact(&self.shared.store, &work, &pending)
                .await;
            if !open.connection.is_usable() {
                self.open = None;
            }
            let progress = got
                .iter()
                .any(|(_, answer)| matches!(answer, Answer::Taken(_)));
            pending.clear();
            for (at, answer) in got {
                // The next hop had closed the reused connection: at once on a new one, and no attempt.
                let met_closed = attempt.reused && answer.met_closed_connection();
                // The rest of many recipients: at once, as long as each transaction takes some of them.
                let again = Outcome::Deferred(Pace::AtOnce);
                let refused = matches!(answer, Answer::Refused { .. });
                if matches!(answer, Answer::Taken(_)) && !reports {
                    attempt.relayed.push(at);
                }
                if met_closed || (progress && refused && answer.judge(next_hop).outcome == again) {
                    pending.push(at);
                } else {
                    answers.push((at, answer));
                }
            }
        }
        attempt.took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (shared, lane) = (&self.shared, &self.lane);
        report::settle(shared, lane, &self.setup, work, attempt, &answers).await;
    }

    /// Sees to it that there is a connection, and notes its facts.
    async fn connect(&mut self, work: &S::Work, attempt: &mut Attempt) -> Result<(), Answer> {
        match self.way.clone() {
            Ok(Way::Exchange(client)) => self.connect_to_exchange(&client, attempt).await?,
            Ok(Way::Outside(outside)) => self.connect_outside(&outside, work, attempt).await?,
            Err(why) if self.lane.destination.via.is_internal() => {
                return Err(Answer::OwnCertificate(why));
            }
            Err(why) => return Err(Answer::Unreachable(why)),
        }
        if let Some(open) = &self.open {
            attempt.host.clone_from(&open.host);
            attempt.address = Some(open.address.to_string());
            attempt.tls = open.connection.tls().cloned();
        }
        Ok(())
    }

    async fn connect_to_exchange(
        &mut self,
        client: &Client,
        attempt: &mut Attempt,
    ) -> Result<(), Answer> {
        attempt.host = client.connector().host.to_string();
        if let Some(fault) = client.own_fault((self.shared.clock)() / 1000) {
            self.open = None;
            return Err(fault);
        }
        if self.open.is_none() {
            let settings = &self.setup.settings;
            let (stream, address) = client.connect(&*settings.resolver).await?;
            attempt.address = Some(address.to_string());
            let dialogue = Dialogue::new(settings.hostname.as_str());
            self.open = Some(Open {
                connection: Connection::open(stream, dialogue, client.encryption()).await?,
                host: attempt.host.clone(),
                address,
                sources: Box::default(),
            });
        }
        Ok(())
    }

    async fn connect_outside(
        &mut self,
        outside: &Outside,
        work: &S::Work,
        attempt: &mut Attempt,
    ) -> Result<(), Answer> {
        let setup = Arc::clone(&self.setup);
        let lane = Arc::clone(&self.lane);
        let destination = &lane.destination;
        let sources = setup.sources(&destination.via, work.message().stream.as_deref());
        self.retire_if(|open| *open.sources != *sources);
        if self.open.is_none() {
            let reached =
                Box::pin(outside.reach(&setup.settings, destination, sources, attempt)).await?;
            let Reached {
                connection,
                host,
                address,
            } = reached;
            self.open = Some(Open {
                connection,
                host,
                address,
                sources: sources.into(),
            });
        }
        Ok(())
    }
}
