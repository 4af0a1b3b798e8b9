mod bounces;
mod exchange;
mod fake;
mod history;
mod holds;
mod outside;
mod peers;
mod stopping;
mod waiting;

use super::dial::Client;
use super::pump::Connection;
use super::store::Store;
use super::*;
use crate::dialogue::{Answer, Broken, Dialogue, Manners, Phase as At, Tls};
use crate::dns::Dns;
use crate::lab::certificates::{Authority, Issued, Leaf};
use crate::lab::{
    Action, ClientIdentity, ExchangeIn, ExchangeOptions, Organization, Phase, Step, Transfer,
};
use crate::mail::{DomainPattern, DomainSet, Notify, QueueId, QueueIds, ReversePath};
use crate::message_trace::{Event, TraceEvent};
use crate::metrics::Metrics;
use crate::route::Via;
use crate::schedule::Law;
use crate::spool::{Destination, Disposition};
use crate::trust::certificate::{Identity, Roots};
use crate::trust::{Forwarded, Gate, Tenant, Tenants};
use fake::{Fake, FakeWork, message};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf,
};

const START: u64 = 1_790_000_000_000;
const MINUTE: u64 = 60_000;

/// A dispatcher, its fake store, and the lab's Exchange behind it.
struct Stage {
    exchange: ExchangeIn,
    authority: Authority,
    fake: Fake,
    dispatcher: Dispatcher,
    clock: Arc<AtomicU64>,
    trace: Arc<Mutex<Vec<TraceEvent>>>,
    metrics: Metrics,
}

fn organization(name: &str) -> Organization {
    let digit = name.len() % 10;
    let id = format!("{digit}1111111-2222-3333-4444-555555555555")
        .parse()
        .unwrap();
    Organization::new(name, id, format!("{name}.com").parse().unwrap())
}

fn tenant(name: &str) -> Arc<Tenant> {
    let digit = name.len() % 10;
    let domain: DomainPattern = format!("{name}.com").parse().unwrap();
    Arc::new(Tenant {
        name: name.into(),
        id: format!("{digit}1111111-2222-3333-4444-555555555555")
            .parse()
            .unwrap(),
        accepted_domains: DomainSet::new(vec![domain.clone()]),
        originator_orgs: DomainSet::new(vec![domain]),
        gate: Gate::Enforce,
        proofs: 2,
        secret_header: None,
        forwarded_senders: Forwarded::Refuse,
        loop_header: None,
    })
}

fn identity(issued: &Issued) -> Arc<Identity> {
    Arc::new(Identity::new("test".into(), issued.chain.clone(), issued.key.clone_key()).unwrap())
}

fn connector(name: &str, port: u16, issued: &Issued) -> Arc<InboundConnector> {
    Arc::new(InboundConnector {
        tenant: name.into(),
        host: "127.0.0.1".into(),
        port,
        identity: identity(issued),
        cloud_services_mail_enabled: true,
        max_connections: 4,
        max_messages_per_connection: 199,
    })
}

fn law() -> Law {
    Law {
        retry: [1, 1, 5]
            .map(|minutes| Duration::from_secs(minutes * 60))
            .to_vec(),
        expire: Duration::from_secs(48 * 3600),
        hold_on_connector_fault: Duration::from_secs(24 * 3600),
        delay_notice: None,
    }
}

fn settings(authority: &Authority, port: u16, leaf: impl Fn(Leaf) -> Leaf) -> DeliverSettings {
    let root = authority.roots().unwrap().roots;
    let connectors = ["contoso", "fabrikam-ag"].map(|name| {
        let issued = authority
            .issue(&leaf(Leaf::named(&format!("{name}.com"))))
            .unwrap();
        connector(name, port, &issued)
    });
    DeliverSettings {
        hostname: "smarthost.contoso.com".parse().unwrap(),
        connectors: connectors.to_vec(),
        server_trust: ServerTrust {
            names: vec!["mail.protection.outlook.com".to_owned()],
            roots: Arc::new(Roots { anchors: root }),
        },
        exchange_law: law(),
        mx_law: law(),
        relays: Vec::new(),
        source_addresses: Vec::new(),
        mx_port: 25,
        tenants: Tenants::new(vec![tenant("contoso"), tenant("fabrikam-ag")]),
        resolver: Arc::new(Dns::new(None).unwrap()),
    }
}

impl Stage {
    async fn new() -> Self {
        Self::with(|options| options, |settings| settings, |leaf| leaf).await
    }

    async fn with(
        options: impl FnOnce(ExchangeOptions) -> ExchangeOptions,
        change: impl FnOnce(DeliverSettings) -> DeliverSettings,
        leaf: impl Fn(Leaf) -> Leaf,
    ) -> Self {
        let authority = Authority::new("Lab").unwrap();
        let tenants = vec![organization("contoso"), organization("fabrikam-ag")];
        let exchange = options(ExchangeOptions::new(&authority, tenants).unwrap());
        let exchange = ExchangeIn::start(exchange).await.unwrap();
        let settings = change(settings(&authority, exchange.address().port(), leaf));
        let fake = Fake::default();
        let clock = Arc::new(AtomicU64::new(START));
        let trace = Arc::new(Mutex::new(Vec::new()));
        let metrics = Metrics::new().unwrap();
        let (told, time) = (Arc::clone(&trace), Arc::clone(&clock));
        let dispatcher = Dispatcher::start_with(
            fake.clone(),
            settings,
            Arc::new(QueueIds::starting_at(7)),
            Arc::new(move |event| told.lock().unwrap().push(event)),
            metrics.clone(),
            (
                Arc::new(move || time.load(Ordering::SeqCst)),
                Box::new(|| None),
            ),
        );
        Self {
            exchange,
            authority,
            fake,
            dispatcher,
            clock,
            trace,
            metrics,
        }
    }

    fn put(&self, id: u64, tenant: &str, recipients: &[&str], content: &[u8]) {
        let arrived = self.clock.load(Ordering::SeqCst);
        self.fake
            .put(message(id, tenant, recipients, content, arrived), content);
    }

    fn simple(&self, id: u64) {
        self.put(id, "contoso", &["bob@contoso.com"], MAIL);
    }

    fn advance(&self, millis: u64) {
        self.clock.fetch_add(millis, Ordering::SeqCst);
        self.fake.poke();
    }

    async fn settled(&self, count: usize) -> Vec<(QueueId, usize, Disposition)> {
        self.fake.log_when(|log| log.len() >= count).await
    }

    async fn delivered(&self, count: usize) {
        let delivered = |log: &[(QueueId, usize, Disposition)]| {
            log.iter()
                .filter(|(_, _, what)| *what == Disposition::Delivered)
                .count()
                >= count
        };
        self.fake.log_when(delivered).await;
    }

    /// The states that the trace tells of the queue.
    fn queue_states(&self) -> Vec<String> {
        let states = self.trace.lock().unwrap();
        let states = states.iter().filter_map(|event| match &event.event {
            Event::Queue { state, .. } => Some(state.clone()),
            _ => None,
        });
        states.collect()
    }

    fn reused(&self) -> Vec<bool> {
        let events = self.trace.lock().unwrap();
        let reused = events.iter().filter_map(|event| match &event.event {
            Event::Attempt { reused, .. } => Some(*reused),
            _ => None,
        });
        reused.collect()
    }
}

const MAIL: &[u8] =
    b"From: printer@contoso.com\r\nSubject: scan\r\n\r\n.dot\r\nlast line without end";

fn whole(content: &[u8]) -> Vec<u8> {
    [b"Received: by test\r\n", content].concat()
}
