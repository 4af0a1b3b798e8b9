//! One connection of one queue: takes message after message until there is no more work, its time is over, or the queue
//! may not send.

use super::dial::Client;
use super::lane::{Doing, Lane, Place, lock};
use super::pump::Connection;
use super::report::{self, Attempt};
use super::settings::DeliverSettings;
use super::store::{Store, Work};
use crate::dialogue::{Answer, Outcome, Pace};
use crate::mail::TenantName;
use crate::message_trace::TraceEvent;
use crate::metrics::Metrics;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Exchange drops a connection at about 20 minutes; it is ended before (product.md 6).
const LONGEST_CONNECTION: Duration = Duration::from_secs(15 * 60);
/// How long a connection without work stays open for more.
const LINGER: Duration = Duration::from_secs(2);

/// Milliseconds since 1970.
pub(super) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
/// Where trace events go.
pub(super) type Trace = Arc<dyn Fn(TraceEvent) + Send + Sync>;

/// The settings, made ready: one client for each tenant's connector.
pub(super) struct Setup {
    pub(super) settings: DeliverSettings,
    pub(super) clients: HashMap<TenantName, Result<Arc<Client>, String>>,
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
            (Arc::clone(&connector.tenant), client.map(Arc::new))
        });
        let clients = clients.collect();
        Self {
            settings,
            clients,
            generation,
        }
    }
}

/// What all workers share.
pub(super) struct Shared<S> {
    pub(super) store: S,
    pub(super) clock: Clock,
    pub(super) trace: Trace,
    pub(super) metrics: Metrics,
    pub(super) setup: Mutex<Arc<Setup>>,
    /// Calls the scheduler to look again.
    pub(super) look: Notify,
    pub(super) stopping: watch::Sender<bool>,
}

impl<S> Shared<S> {
    pub(super) fn trace(&self, event: TraceEvent) {
        (self.trace)(event);
    }

    pub(super) fn setup(&self) -> Arc<Setup> {
        Arc::clone(&lock(&self.setup))
    }
}

/// See the module.
pub(super) struct Worker<S: Store> {
    shared: Arc<Shared<S>>,
    setup: Arc<Setup>,
    client: Result<Arc<Client>, String>,
    lane: Arc<Lane>,
    place: Place,
    open: Option<Open>,
}

struct Open {
    connection: Connection<TcpStream>,
    address: SocketAddr,
}

impl<S: Store> Worker<S> {
    pub(super) fn new(shared: &Arc<Shared<S>>, lane: &Arc<Lane>) -> Self {
        let setup = shared.setup();
        let client = setup.clients.get(&lane.destination.tenant).cloned();
        let client =
            client.unwrap_or_else(|| Err("the tenant has no inbound connector".to_owned()));
        Self {
            shared: Arc::clone(shared),
            setup,
            client,
            lane: Arc::clone(lane),
            place: Place::new(lane),
            open: None,
        }
    }

    /// Works until nothing is left to do.
    pub(super) async fn run(mut self) {
        while !self.is_over() {
            let now = (self.shared.clock)();
            let Some(probe) = self.lane.admit(&self.setup.settings.exchange_law, now) else {
                break;
            };
            self.retire_if_worn();
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
        let most = match &self.client {
            Ok(client) => client.connector().max_messages_per_connection.max(1),
            Err(_) => 1,
        };
        let worn = |open: &Open| {
            open.connection.messages() >= most || open.connection.age() >= LONGEST_CONNECTION
        };
        if let Some(open) = self.open.take_if(|open| worn(open)) {
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
        while !pending.is_empty() {
            if let Err(answer) = self.connect(&mut attempt).await {
                answers.extend(pending.drain(..).map(|at| (at, answer.clone())));
                break;
            }
            let Some(open) = self.open.as_mut() else {
                break;
            };
            attempt.reused = open.connection.messages() > 0;
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
                if met_closed || (progress && refused && answer.judge().outcome == again) {
                    pending.push(at);
                } else {
                    answers.push((at, answer));
                }
            }
        }
        attempt.took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let law = &self.setup.settings.exchange_law;
        report::settle(&self.shared, &self.lane, law, work, attempt, &answers);
    }

    /// Sees to it that there is a connection, and notes its facts.
    async fn connect(&mut self, attempt: &mut Attempt) -> Result<(), Answer> {
        let client = match &self.client {
            Ok(client) => Arc::clone(client),
            Err(why) => return Err(Answer::OwnCertificate(why.clone())),
        };
        attempt.host = client.connector().host.to_string();
        if let Some(fault) = client.own_fault((self.shared.clock)() / 1000) {
            self.open = None;
            return Err(fault);
        }
        if self.open.is_none() {
            let settings = &self.setup.settings;
            let (stream, address) = client.connect(&*settings.resolver).await?;
            attempt.address = Some(address.to_string());
            let connection = Connection::open(stream, settings.hostname.as_str(), &client).await?;
            self.open = Some(Open {
                connection,
                address,
            });
        }
        if let Some(open) = &self.open {
            attempt.address = Some(open.address.to_string());
            attempt.tls = open.connection.tls().cloned();
        }
        Ok(())
    }
}
