//! Builds the rooms from the checked configuration, starts them, reloads, drains. Sees everything, decides nothing.

use crate::admin::{Access, Admin, Bound};
use crate::clock::{Clock, Steps};
use crate::config::Settings;
use crate::credentials::Accounts;
use crate::deliver::{DeliverSettings, Dispatcher, InboundConnector};
use crate::dns::{Dns, Known, Remembering, Resolve};
use crate::journal::disk::{RealDisk, make_directory};
use crate::mail::{DomainSet, QueueIds, Secret};
use crate::mailauth::Verifier;
use crate::message_trace::Tracer;
use crate::metrics::{Foreseen, Metrics};
use crate::receive::{
    ConnectorFault, Desk, Listener, ListenerSettings, Listening, Passwords, Services, Strangers,
};
use crate::route::Via;
use crate::session::{Policy, Service};
use crate::spool::{Spool, SpoolError};
use crate::trust::certificate::{Identity, Role};
use crate::trust::endpoints::Published;
use crate::trust::renewal::{self, Loss};
use arc_swap::ArcSwap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a stop waits for sessions and deliveries that are under way; the whole stop stays within 30 s.
const DRAIN: Duration = Duration::from_secs(20);
/// A hold older than this answers the tenant's connector mail with 451 4.4.0 (product.md 6).
const BACK_PRESSURE: Duration = Duration::from_secs(15 * 60);
/// How often gauges are brought up to date between scrapes.
const REFRESH: Duration = Duration::from_secs(10);

/// How long the clock must have been left alone before its date says which days of the trace are too old.
const DATE_SETTLED: Duration = Duration::from_secs(3600);

/// A running smart host.
#[derive(Debug)]
pub struct Server {
    listening: Vec<Listening>,
    admin_address: SocketAddr,
    spool: Spool,
    tracer: Tracer,
    metrics: Metrics,
    dispatcher: Dispatcher,
    verifier: Arc<Verifier>,
    hosts: Known,
    accounts: Arc<ArcSwap<Accounts>>,
    settings: Arc<ArcSwap<Settings>>,
    access: Arc<ArcSwap<Access>>,
    clock: Clock,
    ready: Arc<AtomicBool>,
    shutdown: watch::Sender<bool>,
    /// Nothing is in hand any more: nobody has to look in either.
    over: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts everything; returns once all listeners accept.
    ///
    /// # Errors
    /// A sentence that names what could not be started.
    pub async fn start(settings: Settings) -> Result<Self, String> {
        Self::start_at(settings, Clock::start()).await
    }

    /// [`Self::start`] with a clock that somebody else may set.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_at(settings: Settings, clock: Clock) -> Result<Self, String> {
        let metrics = Metrics::new().map_err(|error| format!("metrics: {error}"))?;
        let directory = settings.data_directory.clone();
        make_directory(&RealDisk, &directory).map_err(|error| error.to_string())?;
        let at = |what: &str, error: &dyn std::fmt::Display| {
            format!("{}: {what}: {error}", directory.display())
        };
        let spool = {
            let (path, metrics) = (directory.join("spool"), metrics.clone());
            let opened = tokio::task::spawn_blocking(move || Spool::open(&path, &metrics)).await;
            opened
                .map_err(|error| at("spool", &error))?
                .map_err(|error| at("spool", &error))?
        };
        let tracer = Tracer::open(&directory.join("trace"), settings.trace_keep, &metrics)
            .map_err(|error| at("trace", &error))?;
        metrics.foresee(&foreseen(&settings));
        let access = Arc::new(ArcSwap::from_pointee(access(&settings)?));
        let random = random_octets()?;
        let accounts = Arc::new(ArcSwap::from_pointee(Accounts::new(
            settings.accounts.clone(),
            random,
        )));
        tracer.today(clock.unix_millis());
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let hosts = Known::default();
        let deliver = deliver_settings(&settings, &hosts)?;
        let verifier = Arc::new(Verifier::new(Arc::clone(&deliver.resolver), cores)?);
        let start = u32::from_be_bytes([random[0], random[1], random[2], random[3]]);
        let ids = Arc::new(QueueIds::starting_at(start));
        let exchange_online = Arc::new(settings.exchange_online.clone());
        // Addresses first: a server that cannot have them ends here, and no delivery has begun that would be torn off.
        let bound = Listener::bind(
            &settings.listeners,
            |listener| policy(&settings, listener),
            &exchange_online,
        )?;
        let admin = Bound::bind(settings.admin.address).await?;
        let admin_address = admin.address();
        let dispatcher = Dispatcher::start(
            spool.clone(),
            deliver,
            Arc::clone(&ids),
            tracer.clone(),
            metrics.clone(),
            clock.clone(),
        );
        let services = Arc::new(Services {
            desk: Arc::new(Desk::new(
                ids,
                spool.clone(),
                connector_fault(&dispatcher),
                Arc::clone(&accounts),
            )),
            spool: spool.clone(),
            tracer: tracer.clone(),
            metrics: metrics.clone(),
            passwords: Passwords::new(Arc::clone(&accounts), cores, clock.clone()),
            verifier: Arc::clone(&verifier),
            clock: clock.clone(),
            warned: AtomicU64::new(0),
            strangers: Strangers::default(),
        });
        let (shutdown, down) = watch::channel(false);
        let mut listening = Vec::new();
        for listener in bound {
            listening.push(listener.start(Arc::clone(&services), down.clone())?);
        }
        let ready = Arc::new(AtomicBool::new(true));
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let refresh = refresher(&spool, &tracer, &metrics, &settings, clock.clone());
        let now = clock.clone();
        let api = Admin {
            access: Arc::clone(&access),
            spool: spool.clone(),
            tracer: tracer.clone(),
            metrics: metrics.clone(),
            refresh: Box::new(refresh.clone()),
            unready: unready(&spool, &ready),
            now: Box::new(move || now.unix_millis()),
        };
        let (over, end) = watch::channel(false);
        let tasks = vec![
            tokio::spawn(admin.serve(Arc::new(api), end)),
            tokio::spawn(keep_fresh(refresh, down)),
        ];
        Ok(Self {
            listening,
            admin_address,
            spool,
            tracer,
            metrics,
            dispatcher,
            verifier,
            hosts,
            accounts,
            settings,
            access,
            clock,
            ready,
            shutdown,
            over,
            tasks,
        })
    }

    /// Name and bound address of each listener.
    pub fn listeners(&self) -> impl Iterator<Item = (Arc<str>, SocketAddr)> {
        self.listening
            .iter()
            .map(|listening| (listening.name(), listening.address()))
    }

    /// The bound address of a listener.
    #[must_use]
    pub fn listener_address(&self, name: &str) -> Option<SocketAddr> {
        self.listeners()
            .find(|(own, _)| **own == *name)
            .map(|(_, address)| address)
    }

    /// The bound address of the admin API.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The message trace.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// The queue.
    #[must_use]
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Sets the server's clock forward, as an hour or a lapsed certificate in a rehearsal wants it; who waits for a time
    /// looks again at once.
    pub fn set_clock_forward(&self, by: Duration) {
        self.clock.set_forward(by);
        self.dispatcher.look_again();
    }

    /// As if somebody had set the machine's clock by so many milliseconds, forward or back, for a rehearsal of that: no time
    /// has passed.
    pub fn step_clock(&self, by: i64) {
        self.clock.step(by);
        self.dispatcher.look_again();
    }

    /// Works by new settings without dropping a session. Listeners keep their addresses: a listener that was added,
    /// removed or moved needs a restart, and says so.
    ///
    /// # Errors
    /// A sentence that names why; everything stays as it was.
    pub fn reload(&self, settings: Settings) -> Result<(), String> {
        if settings.endpoints_rejected {
            self.metrics.endpoints_rejected.inc();
        }
        let result = self.try_reload(settings);
        let label = if result.is_ok() { "ok" } else { "failed" };
        self.metrics.reloads.with_label_values(&[label]).inc();
        result
    }

    /// Counts a reload that did not come as far as [`Self::reload`].
    pub fn reload_refused(&self) {
        self.metrics.reloads.with_label_values(&["failed"]).inc();
    }

    /// The endpoint data in force: what [`crate::config::reload`] compares newer data with.
    #[must_use]
    pub fn endpoints_in_force(&self) -> Published {
        self.settings.load().endpoints.clone()
    }

    fn try_reload(&self, settings: Settings) -> Result<(), String> {
        let current = self.settings.load_full();
        let same_listeners = settings.listeners.len() == current.listeners.len()
            && settings
                .listeners
                .iter()
                .zip(&current.listeners)
                .all(|(new, old)| {
                    new.name == old.name && new.address == old.address && new.service == old.service
                });
        if !same_listeners {
            return Err("a listener was added, removed or moved: that needs a restart".to_owned());
        }
        if settings.data_directory != current.data_directory
            || settings.admin.address != current.admin.address
        {
            return Err("data_directory or admin.address changed: that needs a restart".to_owned());
        }
        let losses = losses(&current, &settings, self.clock.unix_millis() / 1000);
        if !losses.is_empty() {
            return Err(losses.join("; "));
        }
        let moved = moved(&current, &settings);
        let random = random_octets()?;
        let exchange_online = Arc::new(settings.exchange_online.clone());
        let deliver = deliver_settings(&settings, &self.hosts)?;
        let access = access(&settings)?;
        // Everything that can fail comes first, so that a bad configuration changes nothing.
        for listener in &settings.listeners {
            if let Some(identity) = &listener.identity {
                crate::receive::check_identity(identity)
                    .map_err(|error| format!("listener {}: certificate: {error}", listener.name))?;
            }
        }
        for connector in &settings.inbound_connectors {
            crate::receive::check_identity(&connector.identity).map_err(|error| {
                let name = &connector.identity.name;
                format!("certificate {name} of an inbound connector: {error}")
            })?;
        }
        for (listening, listener) in self.listening.iter().zip(&settings.listeners) {
            listening.reload(
                listener,
                policy(&settings, listener),
                Arc::clone(&exchange_online),
            )?;
        }
        self.accounts
            .store(Arc::new(Accounts::new(settings.accounts.clone(), random)));
        self.verifier.reload(Arc::clone(&deliver.resolver));
        self.dispatcher.reload(deliver);
        self.access.store(Arc::new(access));
        self.tracer.keep(settings.trace_keep);
        // A certificate that is not configured any more expires unseen.
        self.metrics.certificate_expiry.reset();
        self.metrics.foresee(&foreseen(&settings));
        self.settings.store(Arc::new(settings));
        for told in moved {
            tracing::warn!("{told}");
        }
        Ok(())
    }

    /// Stops accepting, finishes what is in hand, closes the store; within 30 s.
    pub async fn stop(self) {
        self.ready.store(false, Ordering::Relaxed);
        self.shutdown.send_replace(true);
        // One end for all listeners: each with patience of its own would make the stop as long as their sum.
        let end = tokio::time::Instant::now() + DRAIN;
        let sessions = async {
            for listening in self.listening {
                listening.finished(end).await;
            }
        };
        tokio::join!(sessions, self.dispatcher.stop(DRAIN));
        self.over.send_replace(true);
        for mut task in self.tasks {
            let ended = tokio::time::timeout(Duration::from_secs(2), &mut task).await;
            if ended.is_err() {
                tracing::debug!("a background task was still busy at the end");
                task.abort();
            }
        }
        self.spool.close().await;
        self.tracer.flush().await;
    }
}

/// What works by the certificates in force and would not by the new ones, each in a sentence that names the key, the file, the
/// tenant or listener, and why. A reload with one of them is refused.
#[must_use]
pub fn losses(current: &Settings, new: &Settings, unix_seconds: u64) -> Vec<String> {
    let mut losses = Vec::new();
    let loss = |old: &Identity, identity: &Identity, role| {
        renewal::soundness(old, identity, role, &new.known_roots, unix_seconds)
    };
    for identity in &new.identities {
        let mut others = current.identities.iter();
        let Some(old) = others.find(|old| old.name == identity.name) else {
            continue;
        };
        let clients = connectors_of(new, &identity.name);
        let servers = listeners_of(new, &identity.name);
        let as_server = loss(old, identity, Role::Server).filter(|_| !servers.is_empty());
        // What nothing depends on is judged as the less demanding of the two.
        let is_client = !clients.is_empty() || servers.is_empty();
        let as_client = loss(old, identity, Role::Client).filter(|_| is_client);
        if as_client == as_server || clients.is_empty() || servers.is_empty() {
            // All that it is used for: nothing is to be named.
            let any = as_client.or(as_server);
            losses.extend(any.map(|loss| told(identity, "", &loss)));
        } else {
            losses.extend(as_client.map(|loss| told(identity, &clients, &loss)));
            losses.extend(as_server.map(|loss| told(identity, &servers, &loss)));
        }
    }
    // Whoever points a connector or a listener to another entry decides about the name, and not for what nobody trusts.
    for (old, identity, role, whose) in replaced(current, new) {
        losses.extend(loss(old, identity, role).map(|loss| told(identity, &whose, &loss)));
    }
    for connector in &new.inbound_connectors {
        let loss = with_both(current, new, connector, |before, after| {
            // Another [[certificate]] for the connector is another decision; another file behind the same name is a renewal.
            let is_renewal = before.0.name == after.0.name;
            is_renewal.then(|| renewal::attribution(before, after))?
        });
        let whose = format!(" tenant {}:", connector.tenant);
        losses.extend(loss.map(|loss| told(&connector.identity, &whose, &loss)));
    }
    let mut unfound: Vec<(&Identity, Loss, Vec<String>)> = Vec::new();
    for listener in &new.listeners {
        let mut others = current.listeners.iter();
        let old = others.find(|old| old.name == listener.name);
        let (Some(before), Some(after)) = (
            old.and_then(|old| old.identity.as_ref()),
            &listener.identity,
        ) else {
            continue;
        };
        let is_connector = listener.service == Service::Connector;
        let (was, is) = ((&**before, &current.hostname), (&**after, &new.hostname));
        let loss = renewal::hostname(was, is, is_connector);
        let Some(loss) = loss.filter(|_| before.name == after.name) else {
            continue;
        };
        let place = format!(" listener {}", listener.name);
        let same = |one: &&mut (&Identity, Loss, _)| one.0.name == after.name && one.1 == loss;
        match unfound.iter_mut().find(same) {
            Some((.., places)) => places.push(place),
            None => unfound.push((after, loss, vec![place])),
        }
    }
    let unfound = unfound.into_iter();
    losses.extend(unfound.map(|(own, loss, places)| told(own, &told_places(places), &loss)));
    losses
}

/// The tenants whose connector a certificate is presented to, as they are told; empty where there is none.
fn connectors_of(settings: &Settings, name: &str) -> String {
    let connectors = settings.inbound_connectors.iter();
    let own = connectors.filter(|own| &*own.identity.name == name);
    told_places(own.map(|own| format!(" tenant {}", own.tenant)).collect())
}

/// The listeners that show a certificate, as they are told; empty where there is none.
fn listeners_of(settings: &Settings, name: &str) -> String {
    let listeners = settings.listeners.iter();
    let is_its = |identity: &Arc<Identity>| &*identity.name == name;
    let own = listeners.filter(|own| own.identity.as_ref().is_some_and(is_its));
    told_places(own.map(|own| format!(" listener {}", own.name)).collect())
}

/// The first few; empty where there is none.
fn told_places(mut places: Vec<String>) -> String {
    const MOST: usize = 5;
    if places.is_empty() {
        return String::new();
    }
    let further = places.len().saturating_sub(MOST);
    places.truncate(MOST);
    if further > 0 {
        places.push(format!(" and {further} more"));
    }
    places.join(",") + ":"
}

/// Certificates that take the place of one of another entry: that one, the new one, how it is shown, and for whom.
fn replaced<'a>(
    current: &'a Settings,
    new: &'a Settings,
) -> impl Iterator<Item = (&'a Identity, &'a Identity, Role, String)> {
    let connectors = new.inbound_connectors.iter().filter_map(|connector| {
        let mut others = current.inbound_connectors.iter();
        let old = others.find(|old| old.tenant == connector.tenant)?;
        let whose = format!(" tenant {}:", connector.tenant);
        Some((&*old.identity, &*connector.identity, Role::Client, whose))
    });
    let listeners = new.listeners.iter().filter_map(|listener| {
        let mut others = current.listeners.iter();
        let old = others.find(|old| old.name == listener.name)?;
        let whose = format!(" listener {}:", listener.name);
        Some((
            old.identity.as_deref()?,
            listener.identity.as_deref()?,
            Role::Server,
            whose,
        ))
    });
    let both = connectors.chain(listeners);
    both.filter(|(old, new, ..)| old.name != new.name)
}

fn told(identity: &Identity, whose: &str, loss: &Loss) -> String {
    let (name, origin) = (&identity.name, identity.origin.as_ref());
    let file = origin.map_or_else(String::new, |files| format!(" {}:", files.chain.display()));
    format!("certificate.{name}.chain:{file}{whose} {loss}")
}

/// By which other names than before connectors are watched over from now on, each in a sentence.
fn moved(current: &Settings, new: &Settings) -> Vec<String> {
    let moved = new.inbound_connectors.iter().filter_map(|connector| {
        let (was, is) = with_both(current, new, connector, renewal::moved)?;
        Some(format!(
            "tenant {}: a reload watches over TlsSenderCertificateName {is} from now on, before it was {was}: if the inbound connector says {was}, set it by `gatepost connector render` and Repair-GatepostConnector.ps1, for this certificate or the next may not have that name",
            connector.tenant
        ))
    });
    moved.collect()
}

/// Asks about the certificate of a connector, before and after, each with the accepted domains of its time.
fn with_both<T>(
    current: &Settings,
    new: &Settings,
    connector: &InboundConnector,
    ask: impl Fn((&Identity, &DomainSet), (&Identity, &DomainSet)) -> Option<T>,
) -> Option<T> {
    let mut others = current.inbound_connectors.iter();
    let old = others.find(|old| old.tenant == connector.tenant)?;
    let accepted = |settings: &Settings| {
        let mut tenants = settings.tenants.iter();
        let own = tenants.find(|own| own.name == connector.tenant)?;
        Some(own.accepted_domains.clone())
    };
    let (was, is) = (accepted(current)?, accepted(new)?);
    ask((&old.identity, &was), (&connector.identity, &is))
}

/// The names that series will have.
fn foreseen(settings: &Settings) -> Foreseen {
    let tenants = || {
        settings
            .tenants
            .iter()
            .map(|tenant| tenant.name.to_string())
    };
    let is_connector = |listener: &&ListenerSettings| listener.service == Service::Connector;
    let listeners = settings.listeners.iter();
    let mut foreseen = Foreseen {
        listeners: listeners.clone().map(|own| own.name.to_string()).collect(),
        connectors: listeners
            .filter(is_connector)
            .map(|own| own.name.to_string())
            .collect(),
        tenants: tenants().collect(),
        streams: tenants().map(|tenant| (tenant, String::new())).collect(),
        ways: Vec::new(),
        renewed: settings.renewed.iter().map(ToString::to_string).collect(),
    };
    // Reports go by the tenant's connector, whatever the routes say.
    let connectors = settings.inbound_connectors.iter();
    let own = connectors.map(|own| (Via::Exchange.to_string(), own.tenant.to_string()));
    foreseen.ways.extend(own);
    for route in settings.routes.iter() {
        let served = tenants().filter(|name| {
            route
                .tenant
                .as_deref()
                .is_none_or(|own| own == name.as_str())
        });
        let ways = served.map(|name| (route.via.to_string(), name));
        foreseen.ways.extend(ways);
    }
    foreseen.ways.sort();
    foreseen.ways.dedup();
    let applications = settings.accounts.iter().map(|account| &account.application);
    let streams = applications.filter_map(|application| {
        let stream = application.stream.as_ref()?.to_string();
        Some((application.tenant.name.to_string(), stream))
    });
    foreseen.streams.extend(streams);
    foreseen
}

fn policy(settings: &Settings, listener: &ListenerSettings) -> Policy {
    Policy {
        hostname: settings.hostname.clone(),
        listener: Arc::clone(&listener.name),
        service: listener.service,
        tls: listener.tls,
        max_message_size: listener.max_message_size,
        ehlo_discard: listener.ehlo_discard.clone(),
        bare_newlines: listener.bare_newlines,
        auth_without_tls: listener.auth_without_tls,
        half_proven: settings.exchange_online.half_proven,
        tenants: settings.tenants.clone(),
        routes: settings.routes.clone(),
    }
}

fn deliver_settings(settings: &Settings, hosts: &Known) -> Result<DeliverSettings, String> {
    let (resolver, mx_port): (Arc<dyn Resolve>, u16) = match &settings.outside {
        Some(outside) => (Arc::clone(&outside.resolver), outside.mx_port),
        None => {
            let dns = Dns::new(settings.dns_servers.as_deref());
            (Arc::new(dns.map_err(|error| format!("dns: {error}"))?), 25)
        }
    };
    Ok(DeliverSettings {
        tenants: settings.tenants.clone(),
        resolver: Arc::new(Remembering::new(resolver, hosts.clone())),
        mx_port,
        hostname: settings.hostname.clone(),
        connectors: settings.inbound_connectors.clone(),
        server_trust: settings.server_trust.clone(),
        exchange_law: settings.exchange_law.clone(),
        mx_law: settings.mx_law.clone(),
        relays: settings.relays.clone(),
        source_addresses: settings.mx_source_addresses.clone(),
    })
}

fn connector_fault(dispatcher: &Dispatcher) -> ConnectorFault {
    let holds = dispatcher.holds();
    Arc::new(move |tenant, now| holds.fault_older_than(tenant, now, BACK_PRESSURE))
}

fn unready(
    spool: &Spool,
    ready: &Arc<AtomicBool>,
) -> Box<dyn Fn() -> Option<String> + Send + Sync> {
    let (spool, ready) = (spool.clone(), Arc::clone(ready));
    Box::new(move || why_unready(ready.load(Ordering::Relaxed), spool.ready()))
}

/// Why new mail should go elsewhere. A queue that is parked, or a next hop that is away, is no reason: mail is kept.
fn why_unready(up: bool, store: Result<(), SpoolError>) -> Option<String> {
    match (up, store) {
        (false, _) => Some("shutting down".to_owned()),
        (true, Err(fault)) => Some(format!("the store takes no mail: {fault}")),
        (true, Ok(())) => None,
    }
}

fn refresher(
    spool: &Spool,
    tracer: &Tracer,
    metrics: &Metrics,
    settings: &Arc<ArcSwap<Settings>>,
    clock: Clock,
) -> impl Fn() + Clone + Send + Sync + use<> {
    let (spool, tracer, metrics) = (spool.clone(), tracer.clone(), metrics.clone());
    let settings = Arc::clone(settings);
    let steps = Arc::new(Mutex::new(Steps::of(&clock)));
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds since 1970 fit a double"
    )]
    move || {
        let now = clock.now();
        let seconds = now.unix_seconds() as f64;
        let settings = settings.load();
        spool.refresh_metrics(now.unix_millis);
        // A date that may be wrong deletes nothing.
        let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.is_settled(DATE_SETTLED) {
            tracer.today(now.unix_millis);
        }
        drop(steps);
        for identity in &settings.identities {
            let left = identity.not_after as f64 - seconds;
            metrics
                .certificate_expiry
                .with_label_values(&[&*identity.name])
                .set(left);
        }
        if let Some(made) = settings.endpoints_made {
            metrics.endpoints_age.set(seconds - made as f64);
        }
    }
}

async fn keep_fresh(refresh: impl Fn(), mut down: watch::Receiver<bool>) {
    loop {
        refresh();
        let stopped = tokio::time::timeout(REFRESH, stopping(&mut down)).await;
        if stopped.is_ok() {
            return;
        }
    }
}

/// Completes when the server stops.
async fn stopping(down: &mut watch::Receiver<bool>) {
    if down.wait_for(|down| *down).await.is_err() {
        tracing::debug!("the server is gone");
    }
}

fn access(settings: &Settings) -> Result<Access, String> {
    Ok(Access {
        hosts: settings.admin.hosts.clone(),
        token: admin_token(settings)?,
    })
}

/// The configured token, or the one in `admin.token`, made at random where the file is missing.
fn admin_token(settings: &Settings) -> Result<Secret, String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(token) = &settings.admin.token {
        return Ok(token.clone());
    }
    let path = settings.data_directory.join("admin.token");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => return Ok(Secret::new(token.trim())),
        Ok(_) => std::fs::remove_file(&path).map_err(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let token: String = random_octets()?
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    writeln!(file, "{token}").map_err(failed)?;
    Ok(Secret::new(token))
}

fn random_octets() -> Result<[u8; 32], String> {
    let mut octets = [0; 32];
    getrandom::fill(&mut octets).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_takes_no_mail_or_a_stop_makes_unready() {
        assert_eq!(why_unready(true, Ok(())), None);
        let stopping = why_unready(false, Err(SpoolError::Full)).unwrap();
        assert_eq!(stopping, "shutting down");
        for fault in [SpoolError::Full, SpoolError::Failing("EIO".to_owned())] {
            let why = why_unready(true, Err(fault)).unwrap();
            assert!(why.starts_with("the store takes no mail: "), "{why}");
        }
    }
}
