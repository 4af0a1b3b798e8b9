//! The server's side of whole connections, against a real store.
//!
//! ```text
//!  octet 0      who connects, and to which listener: see `Scene::of`
//!  octet 1      what the surroundings answer, a bit each: see `Surroundings`
//!  octet 2      how the input is cut the second time; one in four times not at all
//!  the rest     what the client sends; 0xff begins an event: N a new segment, D the deadline, S the stop, T time passes,
//!               X and a number many octets of the same kind, for what a limit ends
//! ```
//!
//! Held to: replies are well-formed lines of at most 512 octets; there is a "queued as" for each message that was stored
//! and for no other; what is stored is, octet by octet and secrets aside, what a client meant that reads the same
//! replies ([`Client`]), and so is its envelope; mail of a connector carries two items of its tenant; what leaves by each
//! path is what arrived without exactly the fields that must leave; and cutting the input otherwise changes nothing of all this, nor of the trace.

use super::client::{Client, Meant};
use super::kept;
use super::naive;
use super::world::{HOSTNAME, desk, world};
use gatepost::credentials::Accounts;
use gatepost::mail::{QueueId, QueueIds, ReversePath};
use gatepost::message_trace::TlsFacts;
use gatepost::session::{
    BareNewlines, ByAddress, Conditions, Credentials, Input, Now, Output, Policy, Service, Session,
    TlsMode,
};
use gatepost::spool::{Destination, Disposition, Draft, Message, SpoolError};
use gatepost::trust::certificate::{ClientCertificate, WhyAbsent};
use gatepost::trust::{Application, DkimFacts, Gate, HalfProven, SignatureFact, Tenant, Tenants};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const START: u64 = 1_795_593_600_000;

/// Bits of the second octet.
#[derive(Clone, Copy)]
struct Surroundings(u8);

impl Surroundings {
    fn store_fails(self) -> bool {
        self.0 & 1 != 0
    }
    fn append_fails(self) -> bool {
        self.0 & 2 != 0
    }
    fn not_ready(self) -> bool {
        self.0 & 4 != 0
    }
    fn connector_fault(self) -> bool {
        self.0 & 8 != 0
    }
    fn over_rate(self) -> bool {
        self.0 & 16 != 0
    }
    fn signature(self) -> SignatureFact {
        match self.0 >> 5 & 3 {
            0 => SignatureFact::Verified,
            1 => SignatureFact::Failed("failed".to_owned()),
            _ => SignatureFact::Unavailable("no resolver".to_owned()),
        }
    }
    fn busy(self) -> bool {
        self.0 & 128 != 0
    }
}

struct Scene {
    service: Service,
    tls: TlsMode,
    address: &'static str,
    network: bool,
    certificate: bool,
    repair: bool,
    small: bool,
    /// `half_proven = "refuse"`.
    refuses_half: bool,
    /// CHUNKING is not offered.
    by_data: bool,
    /// Contoso's gate only reports.
    reports: bool,
}

impl Scene {
    fn of(octet: u8) -> Self {
        let exchange = Self {
            service: Service::Connector,
            tls: TlsMode::Implicit,
            address: "127.0.40.25",
            network: true,
            certificate: true,
            repair: false,
            small: octet & 0x80 != 0,
            refuses_half: octet & 8 != 0,
            by_data: octet & 16 != 0,
            reports: octet & 32 != 0,
        };
        let application = Self {
            service: Service::Submission,
            address: "127.0.0.1",
            network: false,
            certificate: false,
            ..exchange
        };
        match octet & 7 {
            0 => exchange,
            1 => Self {
                tls: TlsMode::StartTls,
                ..exchange
            },
            2 => Self {
                certificate: false,
                ..exchange
            },
            3 => Self {
                address: "127.0.99.1",
                network: false,
                tls: TlsMode::StartTls,
                ..exchange
            },
            4 => application,
            5 => Self {
                tls: TlsMode::StartTls,
                ..application
            },
            6 => Self {
                tls: TlsMode::Optional,
                address: "127.0.7.7",
                ..application
            },
            _ => Self {
                tls: TlsMode::None,
                address: "127.0.7.7",
                repair: true,
                ..application
            },
        }
    }
}

struct Asked {
    ids: QueueIds,
    accounts: Accounts,
    surroundings: Surroundings,
}

impl Conditions for Asked {
    fn next_id(&self, now: Now) -> QueueId {
        self.ids.next(now.unix_millis)
    }
    fn store_ready(&self) -> bool {
        !self.surroundings.not_ready()
    }
    fn connector_fault(&self, _: &str, _: Now) -> Option<String> {
        self.surroundings
            .connector_fault()
            .then(|| "550 5.7.64 TenantAttribution".to_owned())
    }
    fn by_address(&self, address: IpAddr, sender: &ReversePath) -> ByAddress {
        self.accounts.by_address(address, sender)
    }
    fn renewed(&self, application: &Arc<Application>) -> Option<Arc<Application>> {
        Some(Arc::clone(application))
    }
    fn within_rate(&self, _: &str, _: Now) -> bool {
        !self.surroundings.over_rate()
    }
    fn within_validation_rate(&self, _: &str, _: Now) -> bool {
        !self.surroundings.over_rate()
    }
}

/// What was seen of one connection.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    replies: Vec<u8>,
    /// With its content, as it is kept.
    stored: Vec<(Message, Vec<u8>)>,
    traces: Vec<String>,
    closed: bool,
}

struct Player {
    session: Session,
    surroundings: Surroundings,
    certificate: bool,
    now: Now,
    /// As the pump has it: an append that failed fails what follows it.
    draft: Option<Result<Draft, SpoolError>>,
    content: Vec<u8>,
    /// The rest of this segment is gone: it stood behind STARTTLS.
    secured: bool,
    seen: Seen,
}

/// How the input is cut.
enum Cut {
    /// As a client sees it who waits for each reply; what he meant is noted for each message that is stored.
    AsMeant(Vec<Meant>),
    Seed(u64),
}

/// See the module.
pub fn session(octets: &[u8]) {
    let [who, answers, seed, script @ ..] = octets else {
        return;
    };
    let (scene, surroundings) = (Scene::of(*who), Surroundings(*answers));
    let mut meant = Cut::AsMeant(Vec::new());
    let whole = play(&scene, surroundings, script, &mut meant);
    let seed = if seed & 3 == 0 {
        0
    } else {
        u64::from(*seed) + 1
    };
    let cut = play(&scene, surroundings, script, &mut Cut::Seed(seed));
    if surroundings.append_fails() {
        // When the disk fails depends on when it is asked: before or after another fault.
        assert!(whole.stored.is_empty() && cut.stored.is_empty());
        assert_replies(&cut.replies);
    } else {
        let text = |seen: &Seen| seen.replies.escape_ascii().to_string();
        assert_eq!(text(&whole), text(&cut), "cut otherwise");
        assert_eq!(whole, cut, "cut otherwise");
    }
    let replies = assert_replies(&whole.replies);
    let queued = replies
        .iter()
        .filter(|line| line.starts_with("250 ") && line.contains("queued as"));
    assert_eq!(
        queued.count(),
        whole.stored.len(),
        "250 to the end of data only for what is stored"
    );
    let Cut::AsMeant(meant) = meant else {
        unreachable!("as it was")
    };
    assert_eq!(meant.len(), whole.stored.len());
    let rules = kept::Rules {
        connector: scene.service == Service::Connector,
        repair: scene.repair,
        reports: scene.reports,
        signed: matches!(surroundings.signature(), SignatureFact::Verified),
    };
    for ((message, content), meant) in whole.stored.iter().zip(&meant) {
        assert!(
            !rules.connector || (scene.network && scene.certificate),
            "who proves nothing gets nothing stored"
        );
        kept::assert_as_meant(&rules, message, content, meant);
        kept::assert_message(&rules, message, content, meant);
    }
}

fn play(scene: &Scene, surroundings: Surroundings, script: &[u8], cut: &mut Cut) -> Seen {
    let settings = &world().settings;
    let tenants = if scene.reports {
        reporting(&settings.tenants)
    } else {
        settings.tenants.clone()
    };
    let policy = Policy {
        hostname: HOSTNAME.parse().expect("a domain"),
        listener: "listener".into(),
        service: scene.service,
        tls: scene.tls,
        max_message_size: if scene.small { 600 } else { 600_000 },
        ehlo_discard: scene
            .by_data
            .then(|| "CHUNKING".to_owned())
            .into_iter()
            .collect(),
        bare_newlines: if scene.repair {
            BareNewlines::Repair
        } else {
            BareNewlines::Refuse
        },
        auth_without_tls: scene.tls == TlsMode::Optional,
        half_proven: match scene.refuses_half {
            true => HalfProven::Refuse,
            false => HalfProven::Defer,
        },
        tenants,
        routes: settings.routes.clone(),
    };
    let conditions = Asked {
        ids: QueueIds::starting_at(0),
        accounts: Accounts::new(settings.accounts.clone(), [0; 32]),
        surroundings,
    };
    let now = Now {
        unix_millis: START,
        ticks: 1000,
    };
    let address = SocketAddr::new(scene.address.parse().expect("an address"), 4000);
    let mut player = Player {
        session: Session::new(
            Arc::new(policy),
            Arc::new(conditions),
            address,
            scene.network,
            now,
        ),
        surroundings,
        certificate: scene.certificate,
        now,
        draft: None,
        content: Vec::new(),
        secured: false,
        seen: Seen::default(),
    };
    player.settle();
    let mut client = Client::default();
    for (segment, event) in naive::segments(script, b"NDST") {
        player.secured = false;
        match cut {
            Cut::AsMeant(meant) => player.hear(&segment, &mut client, meant),
            Cut::Seed(seed) => {
                for piece in naive::pieces(&segment, *seed) {
                    if player.secured || player.seen.closed {
                        break;
                    }
                    player.tell(Input::Bytes(piece));
                }
            }
        }
        match event {
            Some(b'D') if player.session.deadline().is_some() => player.tell(Input::Deadline),
            Some(b'S') => player.tell(Input::Shutdown),
            Some(b'T') => {
                player.now.ticks += 40_000;
                player.now.unix_millis += 40_000;
            }
            _ => {}
        }
    }
    player.seen
}

/// The same tenants, of which contoso lets in what is not proven.
fn reporting(tenants: &Tenants) -> Tenants {
    let all = tenants.iter().map(|tenant| match &*tenant.name {
        "contoso" => Arc::new(Tenant {
            gate: Gate::Report { until: u64::MAX },
            ..Tenant::clone(tenant)
        }),
        _ => Arc::clone(tenant),
    });
    Tenants::new(all.collect())
}

impl Player {
    fn tell(&mut self, input: Input<'_>) {
        self.session.handle(self.now, input);
        self.settle();
    }

    /// Sends a segment as the client's own reading of the replies parts it.
    fn hear(&mut self, segment: &[u8], client: &mut Client, meant: &mut Vec<Meant>) {
        let mut rest = segment;
        while !rest.is_empty() && !self.secured && !self.seen.closed {
            let (stretch, after) = rest.split_at(client.stretch(rest));
            rest = after;
            let (answered, stored) = (self.seen.replies.len(), self.seen.stored.len());
            self.tell(Input::Bytes(stretch));
            let replies = &self.seen.replies[answered..];
            let ended = client.sent(stretch, replies);
            let replies = String::from_utf8_lossy(replies);
            match &self.seen.stored[stored..] {
                [] => {
                    let refused = replies.starts_with(['4', '5']) || self.seen.closed;
                    assert!(ended.is_none() || refused, "{replies}");
                }
                [(message, _)] => {
                    let id = message.id.to_string();
                    assert!(replies.contains(&format!(" queued as {id}")), "{replies}");
                    meant.push(ended.expect("what is stored has ended"));
                }
                _ => panic!("two messages by one end"),
            }
            if self.secured {
                client.secured();
            }
        }
    }

    fn settle(&mut self) {
        let now = self.now;
        while let Some(output) = self.session.next_output() {
            assert!(!self.seen.closed, "after the close: {output:?}");
            match output {
                Output::Send(bytes) => self.seen.replies.extend_from_slice(&bytes),
                Output::StartTls => {
                    self.secured = true;
                    let facts = TlsFacts {
                        version: "TLS1.3".to_owned(),
                        cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
                        peer_name: None,
                        resumed: false,
                    };
                    let certificate = if self.certificate {
                        ClientCertificate::Verified {
                            name: "mail.protection.outlook.com".into(),
                        }
                    } else {
                        ClientCertificate::Absent(WhyAbsent::NotPresented)
                    };
                    self.session.handle(now, Input::Secured(facts, certificate));
                }
                Output::Trace(event) => self.seen.traces.push(format!("{event:?}")),
                Output::CheckCredentials(login) => {
                    let accounts = &world().settings.accounts;
                    let own = accounts
                        .iter()
                        .find(|own| own.application.username.as_deref() == Some(&login.username));
                    let answer = match own {
                        _ if self.surroundings.busy() => Credentials::Busy,
                        Some(own) if login.password.expose() == b"pw" => {
                            Credentials::Accepted(Arc::clone(&own.application))
                        }
                        Some(_) => Credentials::Rejected,
                        None => Credentials::Throttled,
                    };
                    self.session.handle(now, Input::Credentials(answer));
                }
                Output::Append(bytes) => {
                    let result = if self.surroundings.append_fails() {
                        self.draft = Some(Err(SpoolError::Full));
                        Err(SpoolError::Full)
                    } else {
                        self.content.extend_from_slice(&bytes);
                        let desk = desk();
                        let draft = self.draft.get_or_insert_with(|| Ok(desk.spool.draft()));
                        let draft = draft.as_mut().expect("none has failed");
                        desk.runtime.block_on(draft.append(bytes.into()))
                    };
                    self.session.handle(now, Input::Appended(result));
                }
                Output::CheckSignatures(check) => {
                    let facts = match &self.draft {
                        Some(Err(error)) => Err(error.clone()),
                        Some(Ok(_)) | None => {
                            let fact = self.surroundings.signature();
                            Ok(DkimFacts(vec![fact; check.signatures.len()]))
                        }
                    };
                    self.session.handle(now, Input::Signatures(facts));
                }
                Output::Abandon => {
                    self.draft = None;
                    self.content.clear();
                }
                Output::Store(message, event) => {
                    self.seen.traces.push(format!("{event:?}"));
                    self.store(*message);
                }
                Output::Close => self.seen.closed = true,
            }
        }
    }

    fn store(&mut self, message: Message) {
        let desk = desk();
        let draft = self.draft.take().unwrap_or_else(|| Ok(desk.spool.draft()));
        let content = std::mem::take(&mut self.content);
        let Ok(draft) = draft else {
            self.session
                .handle(self.now, Input::Stored(Err(SpoolError::Full)));
            return;
        };
        if self.surroundings.store_fails() {
            self.session
                .handle(self.now, Input::Stored(Err(SpoolError::Full)));
            return;
        }
        let stored = desk
            .runtime
            .block_on(desk.spool.accept(draft, message.clone()))
            .expect("the store takes it");
        self.session.handle(self.now, Input::Stored(Ok(stored)));
        deliver(&message, &content);
        self.seen.stored.push((message, content));
    }
}

/// What the store gives to delivery is the rendition of what arrived, for every recipient once.
fn deliver(message: &Message, content: &[u8]) {
    let desk = desk();
    let mut open: Vec<usize> = message
        .legs
        .iter()
        .flat_map(|leg| leg.recipients.clone())
        .collect();
    let now = START + 1_000_000_000;
    for (queue, _) in desk.spool.due(now) {
        let queue: Destination = queue;
        while let Some(due) = desk.spool.next_due(&queue, now) {
            assert_eq!(due.message(), message);
            let mut bytes = Vec::new();
            loop {
                let read = desk.spool.read(&due, bytes.len() as u64);
                let piece = desk.runtime.block_on(read).expect("it reads back");
                if piece.is_empty() {
                    break;
                }
                bytes.extend_from_slice(&piece);
            }
            assert_eq!(bytes, due.leg().rendition.apply(content));
            let recipients = due.recipients().to_vec();
            open.retain(|position| !recipients.contains(position));
            let results = recipients
                .into_iter()
                .map(|position| (position, Disposition::Delivered));
            desk.spool.settle(due, results.collect(), true);
        }
    }
    assert!(open.is_empty(), "nobody was forgotten: {open:?}");
}

/// Whole lines, each a reply line of its own or of several of the same code.
fn assert_replies(wire: &[u8]) -> Vec<String> {
    assert!(wire.is_empty() || wire.ends_with(b"\r\n"));
    let text = std::str::from_utf8(wire).expect("replies are text");
    let mut going_on: Option<&str> = None;
    let mut lines = Vec::new();
    for line in text.split_terminator("\r\n") {
        assert!(line.len() + 2 <= 512, "{} octets: {line}", line.len());
        assert!(
            line.bytes().all(|octet| (32..127).contains(&octet)),
            "{line:?}"
        );
        let code = line.get(..3).expect("a code");
        assert!(code.bytes().all(|octet| octet.is_ascii_digit()), "{line}");
        assert!(going_on.is_none_or(|own| own == code), "{text}");
        going_on = match line.as_bytes().get(3) {
            Some(b'-') => Some(code),
            Some(b' ') => None,
            _ => panic!("{line}"),
        };
        lines.push(line.to_owned());
    }
    assert!(going_on.is_none(), "{text}");
    lines
}
