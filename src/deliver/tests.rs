mod fake;
mod history;
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

#[tokio::test]
async fn a_message_arrives_byte_for_byte_with_the_tenants_certificate() {
    let stage = Stage::new().await;
    stage.simple(1);
    let received = stage.exchange.received().await.unwrap();
    assert_eq!(received.content, whole(MAIL));
    assert_eq!(
        received.identity,
        ClientIdentity::Trusted {
            names: vec!["contoso.com".to_owned()]
        }
    );
    assert_eq!(received.tenant(), "contoso");
    assert!(
        received.transfer != Transfer::Data,
        "{:?}",
        received.transfer
    );
    stage.delivered(1).await;
    let trace = stage.trace.lock().unwrap();
    let Event::Attempt {
        results,
        tls,
        address,
        ..
    } = &trace[0].event
    else {
        panic!()
    };
    assert_eq!(results[0].outcome, "delivered");
    assert!(
        results[0].reply.starts_with("250 2.6.0"),
        "{}",
        results[0].reply
    );
    assert!(address.is_some());
    assert_eq!(
        tls.as_ref().unwrap().peer_name.as_deref(),
        Some("mail.protection.outlook.com")
    );
    let text = String::from_utf8(stage.metrics.text().unwrap()).unwrap();
    assert!(text.contains("gatepost_deliveries_total{outcome=\"delivered\",stream=\"\",tenant=\"contoso\",via=\"exchange\"} 1"), "{text}");
}

#[tokio::test]
async fn one_connection_carries_one_message_after_the_other() {
    let stage = Stage::new().await;
    for id in 1..=4 {
        stage.simple(id);
        stage.delivered(usize::try_from(id).unwrap()).await;
    }
    assert_eq!(stage.exchange.connections(), 1);
    assert_eq!(stage.reused(), [false, true, true, true]);
}

#[tokio::test]
async fn a_connection_ends_after_its_number_of_messages() {
    let change = |mut settings: DeliverSettings| {
        let mut own = (*settings.connectors[0]).clone();
        (own.max_messages_per_connection, own.max_connections) = (2, 1);
        settings.connectors[0] = Arc::new(own);
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    (1..=5).for_each(|id| stage.simple(id));
    stage.delivered(5).await;
    assert_eq!(stage.exchange.connections(), 3);
}

/// Exchange drops a connection at about 20 minutes (product.md 6): busy or not, it carries nothing after 15.
#[tokio::test(start_paused = true)]
async fn a_connection_ends_after_a_quarter_of_an_hour() {
    let change = |mut settings: DeliverSettings| {
        let mut own = (*settings.connectors[0]).clone();
        own.max_connections = 1;
        settings.connectors[0] = Arc::new(own);
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    // Eight minutes each, so that the connection is never without work.
    let slow = Action::Stall(Duration::from_secs(8 * 60));
    stage
        .exchange
        .script(Step::new(Phase::EndOfData, slow).times(2));
    (1..=4).for_each(|id| stage.simple(id));
    let patience = Duration::from_secs(3600);
    for _ in 0..4 {
        stage
            .exchange
            .received_within(patience, |_| true)
            .await
            .unwrap();
    }
    stage.delivered(4).await;
    assert_eq!(stage.reused(), [false, true, false, true]);
    assert_eq!(stage.exchange.connections(), 2);
}

#[tokio::test]
async fn a_closed_reused_connection_is_no_attempt() {
    for action in [
        Action::Drop,
        Action::ReplyAndClose("421 4.4.2 too long".to_owned()),
    ] {
        let stage = Stage::new().await;
        stage.simple(1);
        stage.delivered(1).await;
        stage.exchange.script(Step::new(Phase::Mail, action));
        stage.simple(2);
        stage.delivered(2).await;
        assert_eq!(stage.fake.log().len(), 2, "nothing was deferred");
        assert_eq!(stage.exchange.connections(), 2);
    }
}

#[tokio::test]
async fn a_new_connection_that_is_closed_is_an_attempt() {
    let stage = Stage::new().await;
    stage.exchange.script(Step::new(Phase::Mail, Action::Drop));
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Deferred { next_try, .. } if *next_try == START + MINUTE),
        "{log:?}"
    );
    assert_eq!(stage.fake.state(1), Some((1, false)));
    stage.advance(MINUTE);
    stage.delivered(1).await;
}

#[tokio::test]
async fn two_tenants_never_share_a_connection() {
    let stage = Stage::new().await;
    for id in 0..20 {
        let name = ["contoso", "fabrikam-ag"][id % 2];
        stage.put(id as u64, name, &[&format!("bob@{name}.com")], MAIL);
    }
    stage.delivered(20).await;
    let mut owner = std::collections::HashMap::new();
    for received in stage.exchange.waiting() {
        let name = received.tenant().to_owned();
        let ClientIdentity::Trusted { names } = &received.identity else {
            panic!()
        };
        assert_eq!(names, &[format!("{name}.com")]);
        let first = owner
            .entry(received.connection)
            .or_insert_with(|| name.clone());
        assert_eq!(first, &name);
        assert!(received.sender.ends_with(&format!("@{name}.com")));
    }
    assert!(owner.len() >= 2);
}

#[tokio::test]
async fn too_many_recipients_are_split_without_delay() {
    let stage = Stage::new().await;
    stage.exchange.script(
        Step::reply(Phase::Rcpt, "452 4.5.3 Too many recipients")
            .after(2)
            .times(2),
    );
    let recipients: Vec<String> = (0..4).map(|n| format!("r{n}@contoso.com")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    stage.put(1, "contoso", &recipients, MAIL);
    let log = stage.settled(4).await;
    assert!(
        log.iter()
            .all(|(_, _, what)| *what == Disposition::Delivered),
        "{log:?}"
    );
    assert_eq!(stage.exchange.taken(), 2);
    assert_eq!(stage.reused().len(), 1, "one attempt");
}

#[tokio::test]
async fn the_transactions_of_a_split_message_count_as_messages_of_the_connection() {
    let change = |mut settings: DeliverSettings| {
        let mut own = (*settings.connectors[0]).clone();
        (own.max_messages_per_connection, own.max_connections) = (2, 1);
        settings.connectors[0] = Arc::new(own);
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    // One recipient a transaction: the first RCPT of each is taken, the others are too many.
    for rest in (1..5).rev() {
        let step = Step::reply(Phase::Rcpt, "452 4.5.3 Too many recipients");
        stage.exchange.script(step.after(5 - rest).times(rest));
    }
    let recipients: Vec<String> = (0..5).map(|n| format!("r{n}@contoso.com")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    stage.put(1, "contoso", &recipients, MAIL);
    stage.delivered(5).await;
    assert_eq!(stage.exchange.taken(), 5);
    assert_eq!(stage.exchange.connections(), 3, "two, two, one");
}

#[tokio::test]
async fn each_recipient_has_its_own_result() {
    let stage = Stage::new().await;
    for (who, reply) in [
        ("b", "550 5.1.10 RecipientNotFound"),
        ("c", "432 4.3.2 STOREDRV.Deliver; thread limit"),
        ("d", "550 5.7.133 SenderNotAuthenticatedForGroup"),
    ] {
        stage.exchange.script(
            Step::reply(Phase::Rcpt, reply)
                .for_recipient(&format!("{who}@contoso.com"))
                .always(),
        );
    }
    stage.put(
        1,
        "contoso",
        &[
            "a@contoso.com",
            "b@contoso.com",
            "c@contoso.com",
            "d@contoso.com",
        ],
        MAIL,
    );
    let mut log = stage.settled(4).await;
    log.sort_by_key(|(_, at, _)| *at);
    let kinds: Vec<_> = log.into_iter().map(|(_, _, what)| what).collect();
    assert_eq!(kinds[0], Disposition::Delivered);
    assert!(matches!(&kinds[1], Disposition::Failed { reply } if reply.contains("5.1.10")));
    assert!(matches!(&kinds[2], Disposition::Deferred { .. }));
    assert!(matches!(&kinds[3], Disposition::Held { since: START, .. }));
    assert_eq!(stage.queue_states().len(), 0, "no fault of the connector");
}

#[tokio::test]
async fn a_recipient_fault_fails_after_an_hour() {
    let stage = Stage::new().await;
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, "550 5.7.133 SenderNotAuthenticatedForGroup").always());
    stage.simple(1);
    stage.settled(1).await;
    stage.advance(59 * MINUTE);
    stage.settled(2).await;
    stage.advance(MINUTE);
    let log = stage.settled(3).await;
    assert!(
        matches!(&log[1].2, Disposition::Held { next_try, .. } if *next_try == START + 60 * MINUTE),
        "{log:?}"
    );
    assert!(matches!(&log[2].2, Disposition::Failed { .. }), "{log:?}");
}

#[tokio::test]
async fn an_expired_message_fails_with_the_last_reply() {
    let stage = Stage::new().await;
    stage
        .exchange
        .script(Step::reply(Phase::EndOfData, "451 4.7.0 Temporary server error. PRX4").always());
    let old = message(
        1,
        "contoso",
        &["bob@contoso.com"],
        MAIL,
        START - 48 * 60 * MINUTE,
    );
    stage.fake.put(old, MAIL);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Failed { reply } if reply.contains("PRX4")),
        "{log:?}"
    );
}

#[tokio::test]
async fn a_wrong_server_certificate_parks_the_queue_and_the_right_one_releases_it() {
    let stage = Stage::new().await;
    let stranger = Authority::new("Stranger")
        .unwrap()
        .issue(&Leaf::exchange())
        .unwrap();
    stage.exchange.show_certificate(&stranger).unwrap();
    for id in 1..=3 {
        stage.simple(id);
        stage.settled(usize::try_from(id).unwrap()).await;
    }
    let log = stage.fake.log();
    assert!(
        log.iter().all(
            |(_, _, what)| matches!(what, Disposition::Held { reply, .. } if reply.contains("TLS"))
        ),
        "{log:?}"
    );
    assert_eq!(stage.queue_states(), ["parked"]);
    let connections = stage.exchange.connections();
    stage.simple(4);
    // The next message waits: nothing but the probe goes out.
    stage.advance(16 * MINUTE);
    stage.settled(4).await;
    assert_eq!(stage.exchange.connections(), connections + 1);
    assert_eq!(stage.queue_states(), ["parked", "probe_failed"]);
    let holds = stage.dispatcher.holds();
    let now = stage.clock.load(Ordering::SeqCst);
    let fault = holds
        .fault_older_than("contoso", now, Duration::from_secs(900))
        .unwrap();
    assert!(fault.contains("UnknownIssuer"), "{fault}");
    assert_eq!(
        holds.fault_older_than("fabrikam-ag", now, Duration::from_secs(900)),
        None
    );

    let right = stage.authority.issue(&Leaf::exchange()).unwrap();
    stage.exchange.show_certificate(&right).unwrap();
    stage.advance(5 * MINUTE);
    stage.delivered(4).await;
    assert_eq!(
        stage.queue_states().last().map(String::as_str),
        Some("released")
    );
    assert_eq!(
        holds.fault_older_than("contoso", u64::MAX, Duration::ZERO),
        None
    );
    assert_eq!(stage.exchange.taken(), 4);
}

#[tokio::test]
async fn a_server_with_another_name_is_not_trusted() {
    let stage = Stage::new().await;
    let other = stage
        .authority
        .issue(&Leaf::named("mail.evil.example"))
        .unwrap();
    stage.exchange.show_certificate(&other).unwrap();
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Held { reply, .. } if reply.contains("NotValidForName")),
        "{log:?}"
    );
    let expired = stage.authority.issue(&Leaf::exchange().expired()).unwrap();
    stage.exchange.show_certificate(&expired).unwrap();
    stage.advance(MINUTE);
    let log = stage.settled(2).await;
    assert!(
        matches!(&log[1].2, Disposition::Held { reply, .. } if reply.contains("Expired")),
        "{log:?}"
    );
    let host = stage
        .authority
        .issue(&Leaf::named("x.example").and("127.0.0.1"))
        .unwrap();
    stage.exchange.show_certificate(&host).unwrap();
    stage.advance(MINUTE);
    stage.delivered(1).await;
}

#[tokio::test]
async fn a_lapsed_own_certificate_is_never_shown_and_a_reload_mends_it() {
    let stage = Stage::with(|options| options, |settings| settings, Leaf::expired).await;
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Held { reply, .. } if reply.contains("certificate test has expired")),
        "{log:?}"
    );
    assert_eq!(stage.exchange.connections(), 0);
    assert_eq!(stage.queue_states(), ["parked"]);
    let port = stage.exchange.address().port();
    stage
        .dispatcher
        .reload(settings(&stage.authority, port, |leaf| leaf));
    stage.delivered(1).await;
}

#[tokio::test]
async fn a_certificate_in_a_foreign_name_is_never_shown() {
    let change = |mut settings: DeliverSettings| {
        settings.tenants = Tenants::new(vec![tenant("contoso-other")]);
        let mut own = (*tenant("contoso")).clone();
        own.accepted_domains = DomainSet::new(vec!["other.example".parse().unwrap()]);
        settings.tenants = Tenants::new(vec![Arc::new(own)]);
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Held { reply, .. } if reply.contains("accepted domains")),
        "{log:?}"
    );
    assert_eq!(stage.exchange.connections(), 0);
}

#[tokio::test]
async fn a_busy_next_hop_pauses_the_queue() {
    let stage = Stage::new().await;
    stage
        .exchange
        .script(Step::reply(Phase::Mail, "451 4.7.500 Server busy").times(1));
    stage.simple(1);
    stage.settled(1).await;
    stage.simple(2);
    assert_eq!(stage.queue_states(), ["backed_off"]);
    stage.advance(MINUTE);
    stage.delivered(2).await;
    assert_eq!(stage.queue_states(), ["backed_off"]);
}

#[tokio::test]
async fn data_gets_its_final_newline_and_cannot_carry_bare_ones() {
    let stage = Stage::with(
        |options| options.hide("CHUNKING").hide("PIPELINING"),
        |settings| settings,
        |leaf| leaf,
    )
    .await;
    stage.simple(1);
    let received = stage.exchange.received().await.unwrap();
    assert_eq!(received.content, whole(&[MAIL, b"\r\n"].concat()));
    assert_eq!(received.transfer, Transfer::Data);
    stage.put(
        2,
        "contoso",
        &["bob@contoso.com"],
        b"From: a@contoso.com\r\n\r\nbare\nnewline\r\n",
    );
    let log = stage.settled(2).await;
    assert!(
        matches!(&log[1].2, Disposition::Failed { reply } if reply.contains("5.6.11")),
        "{log:?}"
    );
}

#[tokio::test]
async fn large_content_arrives_whole_by_both_transfers() {
    let mut content = b"From: a@contoso.com\r\n\r\n".to_vec();
    for line in 0..60_000 {
        content.extend_from_slice(
            format!(
                "{}line {line} with some more text to fill it\r\n",
                ".".repeat(line % 3)
            )
            .as_bytes(),
        );
    }
    for hidden in ["XNOTHING", "CHUNKING"] {
        let stage = Stage::with(
            |options| options.hide(hidden),
            |settings| settings,
            |leaf| leaf,
        )
        .await;
        stage.put(1, "contoso", &["bob@contoso.com"], &content);
        let received = stage.exchange.received().await.unwrap();
        assert!(
            received.content == whole(&content),
            "{} octets",
            received.content.len()
        );
        stage.delivered(1).await;
    }
}

#[tokio::test]
async fn garbage_and_endless_replies_defer_the_message() {
    let endless = format!("{}250 end", "250-more\r\n".repeat(10_000));
    for reply in ["hello?", &endless] {
        let stage = Stage::new().await;
        stage.exchange.script(Step::reply(Phase::Mail, reply));
        stage.simple(1);
        let log = stage.settled(1).await;
        assert!(
            matches!(&log[0].2, Disposition::Deferred { reply, .. } if reply.contains("reply")),
            "{log:?}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_host_defers_each_message() {
    let change = |mut settings: DeliverSettings| {
        let mut own = (*settings.connectors[0]).clone();
        own.host = "host.invalid".into();
        settings.connectors[0] = Arc::new(own);
        settings.resolver = Arc::new(crate::dns::Zone::new());
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Deferred { reply, .. } if reply.contains("no such name")),
        "{log:?}"
    );
}

#[tokio::test]
async fn what_the_settings_have_no_way_for_is_deferred() {
    let stage = Stage::new().await;
    let mut other = message(1, "contoso", &["x@example.org"], MAIL, START);
    other.legs[0].via = Via::Relay("gone".into());
    stage.fake.put(other, MAIL);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Deferred { reply, .. } if reply == "there is no relay gone"),
        "{log:?}"
    );
}

#[tokio::test]
async fn stopping_gives_back_what_is_not_done() {
    let stage = Stage::new().await;
    stage.exchange.script(Step::new(
        Phase::EndOfData,
        Action::Stall(Duration::from_secs(30)),
    ));
    stage.simple(1);
    stage.fake.leased().await;
    let fake = stage.fake.clone();
    stage.dispatcher.stop(Duration::from_millis(50)).await;
    assert_eq!(
        fake.state(1),
        Some((0, false)),
        "the lease is given back, no attempt counted"
    );
}

/// DNS that never answers.
#[derive(Debug)]
struct Silent(Arc<tokio::sync::Notify>);

impl crate::dns::Resolve for Silent {
    fn addresses<'a>(&'a self, _: &'a str) -> crate::dns::Answer<'a, Vec<std::net::IpAddr>> {
        self.0.notify_one();
        Box::pin(std::future::pending())
    }

    fn mail_exchangers<'a>(
        &'a self,
        _: &'a str,
    ) -> crate::dns::Answer<'a, Vec<crate::dns::MxRecord>> {
        self.0.notify_one();
        Box::pin(std::future::pending())
    }

    fn host_records<'a>(&'a self, _: &'a str) -> crate::dns::Answer<'a, Vec<std::net::IpAddr>> {
        Box::pin(std::future::pending())
    }

    fn texts<'a>(&'a self, _: &'a str) -> crate::dns::Answer<'a, Vec<Vec<u8>>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn stopping_waits_for_no_look_up() {
    for via in [Via::Exchange, Via::Mx] {
        let asked = Arc::new(tokio::sync::Notify::new());
        let resolver = Arc::new(Silent(Arc::clone(&asked)));
        let change = |mut settings: DeliverSettings| {
            settings.resolver = resolver;
            settings
        };
        let stage = Stage::with(|options| options, change, |leaf| leaf).await;
        let mut message = message(1, "contoso", &["bob@contoso.com"], MAIL, START);
        message.legs[0].via = via.clone();
        stage.fake.put(message, MAIL);
        asked.notified().await;
        let fake = stage.fake.clone();
        let begun = tokio::time::Instant::now();
        stage.dispatcher.stop(Duration::from_secs(20)).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{via}");
        assert_eq!(
            fake.state(1),
            Some((0, false)),
            "{via}: as if nobody had tried"
        );
        assert!(fake.log().is_empty(), "{via}");
        assert!(stage.trace.lock().unwrap().is_empty(), "{via}");
    }
}

#[tokio::test]
async fn stopping_finishes_the_message_in_hand() {
    let stage = Stage::new().await;
    // On a connection that is there already: one that is still being made is given up.
    stage.simple(1);
    stage.delivered(1).await;
    stage.fake.leased().await;
    stage.exchange.script(Step::new(
        Phase::EndOfData,
        Action::Stall(Duration::from_millis(200)),
    ));
    stage.simple(2);
    stage.fake.leased().await;
    let fake = stage.fake.clone();
    stage.dispatcher.stop(Duration::from_secs(20)).await;
    assert_eq!(fake.log().len(), 2);
    assert_eq!(fake.log()[1].2, Disposition::Delivered);
}

/// What a peer in memory does once it has accepted the recipient.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Stall,
    Take,
}

/// A peer in memory with STARTTLS, PIPELINING and CHUNKING, for one message to one recipient.
async fn peer<T>(transport: T, config: rustls::ServerConfig, then: Then)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut plain = BufReader::new(transport);
    let mut line = String::new();
    plain.write_all(b"220 ready\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"250-x\r\n250 STARTTLS\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"220 go\r\n").await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    // A handshake that this side refuses ends with its alert.
    let Ok(secure) = acceptor.accept(plain.into_inner()).await else {
        return;
    };
    let mut secure = BufReader::new(secure);
    let mut say = async |line: &mut String, lines: usize, reply: &[u8]| {
        for _ in 0..lines {
            line.clear();
            secure.read_line(line).await.unwrap();
        }
        if let Some(size) = line.strip_prefix("BDAT ") {
            let size: usize = size.split(' ').next().unwrap().parse().unwrap();
            secure.read_exact(&mut vec![0; size]).await.unwrap();
        }
        secure.write_all(reply).await.unwrap();
        secure.flush().await.unwrap();
    };
    say(&mut line, 1, b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n").await;
    say(&mut line, 2, b"250 ok\r\n250 ok\r\n").await;
    if then == Then::Take {
        say(&mut line, 1, b"250 2.6.0 Queued\r\n").await;
    }
    std::future::pending::<()>().await;
}

fn server(authority: &Authority, clients: Option<&Authority>) -> rustls::ServerConfig {
    let issued = authority.issue(&Leaf::exchange()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        Some(clients) => {
            let roots = Arc::new(clients.roots().unwrap());
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => config.with_no_client_auth(),
    };
    config.with_single_cert(issued.chain, issued.key).unwrap()
}

fn client(authority: &Authority) -> Client {
    let settings = settings(authority, 25, |leaf| leaf);
    Client::new(
        &settings.connectors[0],
        &DomainSet::default(),
        &settings.server_trust,
    )
    .unwrap()
}

fn in_hand(content: &[u8]) -> (Fake, FakeWork) {
    let fake = Fake::default();
    fake.put(
        message(1, "contoso", &["bob@contoso.com"], content, START),
        content,
    );
    let destination = Destination {
        via: Via::Exchange,
        tenant: "contoso".into(),
        domain: None,
    };
    let work = fake.next_due(&destination, START).unwrap();
    (fake, work)
}

#[tokio::test(start_paused = true)]
async fn a_stall_hits_the_deadline() {
    let authority = Authority::new("Lab").unwrap();
    let client = client(&authority);
    let (ours, _theirs) = tokio::io::duplex(64);
    let Err(answer) = Connection::open(ours, Dialogue::new("h"), client.encryption()).await else {
        panic!()
    };
    assert_eq!(
        answer,
        Answer::Broken {
            phase: At::Greeting,
            why: Broken::Deadline
        }
    );

    for (content, phase) in [
        (vec![b'x'; 2_000_000], At::Content),
        (b"small\r\n".to_vec(), At::End),
    ] {
        let (fake, work) = in_hand(&content);
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let peer = tokio::spawn(peer(theirs, server(&authority, None), Then::Stall));
        let mut connection = Connection::open(ours, Dialogue::new("h"), client.encryption())
            .await
            .unwrap();
        let before = tokio::time::Instant::now();
        let answers = connection.transact(&fake, &work, &[0]).await;
        assert_eq!(
            answers,
            [(
                0,
                Answer::Broken {
                    phase,
                    why: Broken::Deadline
                }
            )]
        );
        let waited = before.elapsed().as_secs();
        let expected = if phase == At::Content { 180 } else { 600 };
        assert!((expected..=expected + 1).contains(&waited), "{waited} s");
        assert!(!connection.is_usable());
        peer.abort();
    }
}

/// Says these lines, one each `pause`, then takes the content a piece each `pause`, a little more than the sender must be
/// heard of within each wait; counts what it took.
async fn sip<T>(
    transport: T,
    config: rustls::ServerConfig,
    replies: usize,
    pause: Duration,
    took: Arc<AtomicU64>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut plain = BufReader::new(transport);
    let mut line = String::new();
    plain.write_all(b"220 ready\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"250-x\r\n250 STARTTLS\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"220 go\r\n").await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut secure = acceptor.accept(plain.into_inner()).await.unwrap();
    let hello = b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    secure.write_all(hello).await.unwrap();
    secure.flush().await.unwrap();
    for _ in 0..replies {
        tokio::time::sleep(pause).await;
        if secure.write_all(b"250 ok\r\n").await.is_err() || secure.flush().await.is_err() {
            return;
        }
    }
    let mut piece = vec![0; 64 * 1024];
    loop {
        match secure.read(&mut piece).await {
            Ok(length) if length > 0 => took.fetch_add(length as u64, Ordering::SeqCst),
            _ => return,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Recipients of one message, each answered at the last moment.
#[tokio::test(start_paused = true)]
async fn a_next_hop_that_answers_each_recipient_at_the_last_moment_is_left_after_twenty_minutes() {
    let authority = Authority::new("Lab").unwrap();
    let client = client(&authority);
    let fake = Fake::default();
    let names: Vec<String> = (0..100).map(|n| format!("r{n}@contoso.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    fake.put(message(1, "contoso", &names, MAIL, START), MAIL);
    let destination = Destination {
        via: Via::Exchange,
        tenant: "contoso".into(),
        domain: None,
    };
    let work = fake.next_due(&destination, START).unwrap();
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let pause = Duration::from_secs(290);
    let took = Arc::new(AtomicU64::new(0));
    let peer = tokio::spawn(sip(theirs, server(&authority, None), 101, pause, took));
    let mut connection = Connection::open(ours, Dialogue::new("h"), client.encryption())
        .await
        .unwrap();
    let before = tokio::time::Instant::now();
    let all: Vec<usize> = (0..100).collect();
    let answers = connection.transact(&fake, &work, &all).await;
    assert_eq!(answers.len(), 100);
    let late = Answer::Broken {
        phase: At::Recipient,
        why: Broken::Deadline,
    };
    assert!(
        answers.iter().all(|(_, answer)| *answer == late),
        "{answers:?}"
    );
    assert_eq!(before.elapsed().as_secs(), 20 * 60);
    assert!(!connection.is_usable());
    peer.abort();
}

#[tokio::test(start_paused = true)]
async fn a_next_hop_that_takes_content_by_drops_is_left_when_the_time_for_the_whole_is_over() {
    let authority = Authority::new("Lab").unwrap();
    let client = client(&authority);
    // A TLS record each 25 s: quick enough for every piece of 64 KiB, and too slow for 4 MiB.
    let content = vec![b'x'; 4 << 20];
    let (fake, work) = in_hand(&content);
    let size = 4 << 20;
    for (pause, done) in [(25, false), (1, true)] {
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let took = Arc::new(AtomicU64::new(0));
        let pause = Duration::from_secs(pause);
        let sipping = sip(
            theirs,
            server(&authority, None),
            2,
            pause,
            Arc::clone(&took),
        );
        let peer = tokio::spawn(sipping);
        let mut connection = Connection::open(ours, Dialogue::new("h"), client.encryption())
            .await
            .unwrap();
        let before = tokio::time::Instant::now();
        let answers = connection.transact(&fake, &work, &[0]).await;
        // Whoever is quick enough is waited for at the end, ten minutes.
        let phase = if done { At::End } else { At::Content };
        let why = Broken::Deadline;
        assert_eq!(answers, [(0, Answer::Broken { phase, why })]);
        let allowed = Dialogue::patience_for_all(size).as_secs();
        let waited = before.elapsed().as_secs();
        let took = took.load(Ordering::SeqCst);
        if done {
            assert!(took > size, "{took}");
        } else {
            assert!(
                (allowed..=allowed + 2).contains(&waited),
                "{waited} of {allowed}"
            );
            assert!(took < size, "{took}");
        }
        peer.abort();
    }
}

#[tokio::test]
async fn a_refused_client_certificate_is_a_fault_of_the_connector() {
    let authority = Authority::new("Lab").unwrap();
    let stranger = Authority::new("Stranger").unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(peer(
        theirs,
        server(&authority, Some(&stranger)),
        Then::Take,
    ));
    // Under TLS 1.3 the alert comes only after our side of the handshake is done.
    let Err(answer) =
        Connection::open(ours, Dialogue::new("h"), client(&authority).encryption()).await
    else {
        panic!()
    };
    assert!(
        matches!(&answer, Answer::NoTls(why) if why.contains("UnknownCA")),
        "{answer:?}"
    );
}

/// Counts the writes that reach the transport.
struct Counting<T>(T, Arc<AtomicU64>);

impl<T: AsyncRead + Unpin> AsyncRead for Counting<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counting<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test]
async fn a_small_message_takes_two_writes() {
    let authority = Authority::new("Lab").unwrap();
    let (fake, work) = in_hand(&[b'x'; 2048]);
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(peer(theirs, server(&authority, None), Then::Take));
    let writes = Arc::new(AtomicU64::new(0));
    let ours = Counting(ours, Arc::clone(&writes));
    let mut connection =
        Connection::open(ours, Dialogue::new("h"), client(&authority).encryption())
            .await
            .unwrap();
    let before = writes.load(Ordering::SeqCst);
    let answers = connection.transact(&fake, &work, &[0]).await;
    assert!(matches!(&answers[0].1, Answer::Taken(_)), "{answers:?}");
    assert_eq!(
        writes.load(Ordering::SeqCst) - before,
        2,
        "MAIL and RCPT; BDAT and content"
    );
}

/// Reads up to the first `end`; with what came before it.
async fn up_to(stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(stream.read_u8().await.unwrap());
    }
    read
}

/// What a next hop has not yet read when it answers is still owed to it, before anything else is said.
#[tokio::test]
async fn an_answer_before_the_end_of_the_content_mixes_nothing_into_it() {
    let authority = Authority::new("Lab").unwrap();
    let content: Vec<u8> = (0..120_000u32).map(|number| number as u8).collect();
    let (fake, work) = in_hand(&content);
    let whole = [&work.message().legs[0].rendition.prepend, &content[..]].concat();
    let (ours, mut theirs) = tokio::io::duplex(4 * 1024);
    let owed = whole.clone();
    let peer = tokio::spawn(async move {
        theirs.write_all(b"220 ready\r\n").await.unwrap();
        up_to(&mut theirs, b"\r\n").await;
        theirs
            .write_all(b"250-x\r\n250-8BITMIME\r\n250 CHUNKING\r\n")
            .await
            .unwrap();
        for _ in 0..2 {
            let mail = up_to(&mut theirs, b"\r\n").await;
            assert!(mail.starts_with(b"MAIL FROM:"), "{mail:?}");
            theirs.write_all(b"250 ok\r\n").await.unwrap();
            up_to(&mut theirs, b"\r\n").await;
            theirs.write_all(b"250 ok\r\n").await.unwrap();
            let chunk = up_to(&mut theirs, b"\r\n").await;
            let expected = format!("BDAT {} LAST\r\n", owed.len());
            assert_eq!(String::from_utf8(chunk).unwrap(), expected);
            let mut read = vec![0; owed.len() - 10_000];
            theirs.read_exact(&mut read).await.unwrap();
            theirs.write_all(b"250 already\r\n").await.unwrap();
            let mut rest = vec![0; 10_000];
            theirs.read_exact(&mut rest).await.unwrap();
            read.append(&mut rest);
            assert!(read == owed, "the content arrives as it is");
        }
    });
    let manners = Manners {
        tls: Tls::WhereOffered,
        ..Manners::default()
    };
    let mut connection = Connection::open(
        ours,
        Dialogue::with("h", manners),
        client(&authority).encryption(),
    )
    .await
    .unwrap();
    for _ in 0..2 {
        let answers = connection.transact(&fake, &work, &[0]).await;
        assert!(matches!(&answers[0].1, Answer::Taken(_)), "{answers:?}");
    }
    connection.quit().await;
    peer.await.unwrap();
}

#[tokio::test]
async fn the_real_spool_is_emptied_and_the_trace_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new().unwrap();
    let spool = crate::spool::Spool::open(&folder.path().join("spool"), &metrics).unwrap();
    let tracer = crate::message_trace::Tracer::open(
        &folder.path().join("trace"),
        Duration::from_secs(86_400),
        &metrics,
    )
    .unwrap();
    let authority = Authority::new("Lab").unwrap();
    let exchange = ExchangeOptions::new(&authority, vec![organization("contoso")]).unwrap();
    let exchange = ExchangeIn::start(exchange).await.unwrap();
    exchange.script(
        Step::reply(Phase::Rcpt, "550 5.1.10 RecipientNotFound").for_recipient("b@contoso.com"),
    );
    let settings = settings(&authority, exchange.address().port(), |leaf| leaf);
    let dispatcher = Dispatcher::start(
        spool.clone(),
        settings,
        Arc::new(QueueIds::starting_at(7)),
        tracer,
        metrics.clone(),
        crate::clock::Clock::start(),
    );
    for id in 1..=20 {
        let mut draft = spool.draft();
        draft.append(bytes::Bytes::from_static(MAIL)).await.unwrap();
        let recipients = ["a@contoso.com", "b@contoso.com"];
        spool
            .accept(draft, message(id, "contoso", &recipients, MAIL, START))
            .await
            .unwrap();
    }
    // The one refusal is told to the sender, by mail of our own.
    let mut reports = 0;
    for _ in 1..=21 {
        let received = exchange.received().await.unwrap();
        if received.sender.is_empty() {
            reports += 1;
        } else {
            assert_eq!(received.content, whole(MAIL));
        }
    }
    assert_eq!(reports, 1);
    dispatcher.stop(Duration::from_secs(5)).await;
    assert!(spool.scan(10, u64::MAX).is_empty());
    assert!(
        exchange.connections() <= 4,
        "{} connections",
        exchange.connections()
    );
    let failed = metrics
        .deliveries
        .with_label_values(&["exchange", "contoso", "", "failed"]);
    assert_eq!(failed.get(), 1);
    spool.close().await;
}

#[tokio::test]
async fn after_its_hold_a_message_is_retried_until_it_expires() {
    let change = |mut settings: DeliverSettings| {
        settings.exchange_law = Law {
            retry: vec![Duration::from_secs(60)],
            expire: Duration::from_secs(300),
            hold_on_connector_fault: Duration::from_secs(120),
            delay_notice: None,
        };
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    let fault = "550 5.7.64 TenantAttribution; Relay Access Denied";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).always());
    stage.simple(1);
    let mut kinds = Vec::new();
    for attempt in 1..=6 {
        let log = stage.settled(attempt).await;
        kinds.push(match &log[attempt - 1].2 {
            Disposition::Delivered => "delivered",
            Disposition::Failed { reply } if reply.contains("5.7.64") => "failed",
            Disposition::Failed { .. } => "failed without the reply",
            Disposition::Deferred { .. } => "deferred",
            Disposition::Held { since: START, .. } => "held",
            Disposition::Held { .. } => "held anew",
        });
        stage.advance(MINUTE);
    }
    assert_eq!(
        kinds,
        ["held", "held", "deferred", "deferred", "deferred", "failed"]
    );
}

#[tokio::test]
async fn a_parked_queue_is_released_to_normal_retry_when_the_hold_is_over() {
    let stage = Stage::new().await;
    let fault = "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).always());
    for id in 1..=3 {
        stage.simple(id);
        stage.settled(usize::try_from(id).unwrap()).await;
    }
    stage.simple(4);
    stage.advance(24 * 60 * MINUTE);
    let log = stage.settled(7).await;
    assert!(
        log[3..]
            .iter()
            .all(|(_, _, what)| matches!(what, Disposition::Deferred { .. })),
        "{log:?}"
    );
    assert_eq!(stage.queue_states(), ["parked", "released"]);
    let holds = stage.dispatcher.holds();
    assert_eq!(
        holds.fault_older_than("contoso", u64::MAX, Duration::ZERO),
        None
    );
}

#[tokio::test]
async fn the_probe_of_a_parked_queue_is_its_oldest_message_due_or_not() {
    let stage = Stage::new().await;
    let fault = "550 5.7.64 TenantAttribution; Relay Access Denied";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).always());
    // The first meets the fault three times, so that its own next attempt is five minutes away.
    stage.simple(1);
    for attempt in 1..=3 {
        stage.settled(attempt).await;
        if attempt < 3 {
            stage.advance(MINUTE);
        }
    }
    for id in 2..=3 {
        stage.simple(id);
        stage.settled(usize::try_from(id).unwrap() + 2).await;
    }
    assert_eq!(stage.queue_states(), ["parked"]);
    stage.advance(MINUTE);
    let log = stage.settled(6).await;
    assert_eq!(log[5].0, QueueId::from_u64(1), "{log:?}");
    // A queue whose messages all wait is probed all the same.
    let alone = Stage::new().await;
    alone
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).always());
    for id in 1..=3 {
        alone.simple(id);
        alone.settled(usize::try_from(id).unwrap()).await;
    }
    alone.fake.put_off(10 * MINUTE);
    alone.advance(MINUTE);
    let log = alone.settled(4).await;
    assert_eq!(log[3].0, QueueId::from_u64(1), "{log:?}");
    assert_eq!(alone.queue_states(), ["parked", "probe_failed"]);
}

/// One message whose only recipient is refused, after `change`; then what was told.
async fn refused(
    change: impl FnOnce(&mut crate::spool::Message),
) -> (Stage, Vec<(crate::spool::Message, String)>) {
    let stage = Stage::new().await;
    let refusal = "550 5.1.10 RESOLVER.ADR.RecipientNotFound";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, refusal).always());
    let mut sent = message(1, "contoso", &["bob@contoso.com"], MAIL, START);
    change(&mut sent);
    stage.fake.put(sent, MAIL);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Failed { reply } if reply.contains("5.1.10")),
        "{log:?}"
    );
    let accepted = stage.fake.accepted();
    (stage, accepted)
}

#[tokio::test]
async fn the_sender_of_refused_mail_is_told_by_mail_of_our_own() {
    let (stage, accepted) = refused(|_| {}).await;
    let [(report, text)] = accepted.as_slice() else {
        panic!("{accepted:?}");
    };
    assert_eq!(report.envelope.reverse_path, ReversePath::Null);
    let [reader] = report.envelope.recipients.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(reader.mailbox.as_str(), "printer@contoso.com");
    assert_eq!(reader.notify, Some(Notify::Never));
    assert_eq!(report.legs[0].via, Via::Exchange);
    for part in [
        "X-MS-Exchange-CrossPremises-AuthAs: Internal\r\n",
        "X-OriginatorOrg: contoso.com\r\n",
        "From: Mail Delivery System <postmaster@contoso.com>\r\n",
        "Final-Recipient: rfc822; bob@contoso.com\r\n",
        "Remote-MTA: dns; [127.0.0.1]\r\n",
        "Diagnostic-Code: smtp; 550 5.1.10 RESOLVER.ADR.RecipientNotFound\r\n",
        "Content-Type: text/rfc822-headers\r\n",
        "Subject: scan\r\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.contains(".dot"), "without RET no body is returned");
    let told = stage.trace.lock().unwrap();
    let named = told.iter().any(|event| {
        matches!(&event.event, Event::Report { report: id, to, .. }
            if *id == report.id.to_string() && to == "printer@contoso.com")
            && event.id == QueueId::from_u64(1).to_string()
    });
    assert!(named, "{told:?}");
    let bounces = &stage.metrics.bounces;
    let failures = bounces.with_label_values(&["contoso", "failure"]);
    assert_eq!(failures.get(), 1);
    let before = stage.fake.recorded_before();
    assert_eq!(before, [0], "durable before the failure is recorded");
}

#[tokio::test]
async fn a_null_sender_and_notify_never_are_told_nothing() {
    let changes: [fn(&mut crate::spool::Message); 3] = [
        |message| message.envelope.reverse_path = ReversePath::Null,
        |message| message.envelope.recipients[0].notify = Some(Notify::Never),
        |message| {
            message.envelope.recipients[0].notify = Some(Notify::On {
                success: true,
                failure: false,
                delay: true,
            });
        },
    ];
    for change in changes {
        let (stage, accepted) = refused(change).await;
        assert!(accepted.is_empty(), "{accepted:?}");
        let untold = stage
            .metrics
            .bounces
            .with_label_values(&["contoso", "untold"]);
        assert_eq!(untold.get(), 1);
    }
}

#[tokio::test]
async fn an_application_may_have_its_reports_sent_elsewhere() {
    let (_stage, accepted) =
        refused(|message| message.bounces_to = Some("owner@elsewhere.example".parse().unwrap()))
            .await;
    let (report, text) = &accepted[0];
    assert_eq!(
        report.envelope.recipients[0].mailbox.as_str(),
        "owner@elsewhere.example"
    );
    assert!(
        !text.contains("X-MS-Exchange-CrossPremises-AuthAs"),
        "who is not the tenant's gets no stamp"
    );
}

#[tokio::test]
async fn with_ret_full_the_message_comes_back_whole() {
    let (_stage, accepted) = refused(|message| {
        message.envelope.ret = Some(crate::mail::Ret::Full);
        message.envelope.envid = Some("QQ314".into());
    })
    .await;
    let (_, text) = &accepted[0];
    assert!(
        text.contains("Content-Type: message/rfc822\r\n")
            && text.contains("\r\n\r\n.dot\r\nlast line without end\r\n--=_")
            && text.contains("Original-Envelope-Id: QQ314\r\n"),
        "{text}"
    );
}

#[tokio::test]
async fn nothing_is_given_up_while_its_report_cannot_be_kept() {
    let stage = Stage::new().await;
    let refusal = "550 5.1.1 no";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, refusal).always());
    stage.fake.full(true);
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Deferred { reply, .. } if reply.contains("5.1.1")),
        "{log:?}"
    );
    stage.fake.full(false);
    stage.advance(5 * MINUTE);
    let log = stage.settled(2).await;
    assert!(matches!(&log[1].2, Disposition::Failed { .. }), "{log:?}");
    assert_eq!(stage.fake.accepted().len(), 1);
}

#[tokio::test]
async fn a_report_tells_what_the_next_hop_said_from_our_own_reasons_and_names_nobody_who_asked_not_to()
 {
    let stage = Stage::with(
        |options| options.hide("CHUNKING"),
        |settings| settings,
        |leaf| leaf,
    )
    .await;
    let bare = b"Subject: x\r\n\r\nbare\nnewline\r\n";
    let mut sent = message(
        1,
        "contoso",
        &["bob@contoso.com", "eve@contoso.com"],
        bare,
        START,
    );
    sent.envelope.recipients[1].notify = Some(Notify::Never);
    stage.fake.put(sent, bare);
    let log = stage.settled(2).await;
    assert!(
        log.iter().all(
            |(_, _, what)| matches!(what, Disposition::Failed { reply } if reply.contains("5.6.11"))
        ),
        "{log:?}"
    );
    let (_, text) = &stage.fake.accepted()[0];
    assert!(
        text.contains("Status: 5.6.11\r\nDiagnostic-Code: X-Gatepost; ")
            && !text.contains("Remote-MTA"),
        "{text}"
    );
    assert!(!text.contains("eve@contoso.com"), "{text}");
    let bounces = &stage.metrics.bounces;
    for class in ["failure", "untold"] {
        assert_eq!(
            bounces.with_label_values(&["contoso", class]).get(),
            1,
            "{class}"
        );
    }
}
