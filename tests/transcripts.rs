//! Plays `tests/transcripts/*.smtp` to a bare [`Session`], whole and cut into octets, and to a listening server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::or_fun_call,
    clippy::large_futures,
    reason = "test code"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "test code; the harness is shared by two test programs"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests read the clock to bound their waits"
)]

#[path = "scenarios/harness.rs"]
mod harness;

use gatepost::lab::Client;
use gatepost::mail::{QueueId, QueueIds, ReversePath};
use gatepost::message_trace::TlsFacts;
use gatepost::session::{
    BareNewlines, ByAddress, Conditions, Credentials, Input, Now, Output, Policy, Service, Session,
    TlsMode,
};
use gatepost::smtp::reply::{self, Reply};
use gatepost::spool::Spool;
use gatepost::trust::certificate::{ClientCertificate, WhyAbsent};
use gatepost::trust::{Application, DkimFacts};
use harness::{HOSTNAME, World};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// One line of a transcript.
enum Line {
    Client(Vec<u8>),
    Server(String),
}

struct Transcript {
    name: String,
    peer: String,
    lines: Vec<(usize, Line)>,
}

fn transcripts() -> Vec<Transcript> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "smtp")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 8, "the transcripts were not found");
    files.iter().map(|path| read(path)).collect()
}

fn read(path: &std::path::Path) -> Transcript {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let (mut peer, mut lines) = (String::new(), Vec::new());
    for (number, line) in std::fs::read_to_string(path).unwrap().lines().enumerate() {
        let number = number + 1;
        if let Some(text) = line.strip_prefix("peer: ") {
            peer = text.to_owned();
        } else if let Some(text) = line.strip_prefix("C!") {
            lines.push((
                number,
                Line::Client(unescape(text.strip_prefix(' ').unwrap_or(text))),
            ));
        } else if let Some(text) = line.strip_prefix("C:") {
            let text = text.strip_prefix(' ').unwrap_or(text);
            lines.push((number, Line::Client(format!("{text}\r\n").into_bytes())));
        } else if let Some(text) = line.strip_prefix("S: ") {
            lines.push((number, Line::Server(text.to_owned())));
        } else {
            assert!(
                line.is_empty() || line.starts_with('#'),
                "{name}:{number}: {line}"
            );
        }
    }
    assert!(!peer.is_empty() && !lines.is_empty(), "{name}");
    Transcript { name, peer, lines }
}

fn unescape(text: &str) -> Vec<u8> {
    let text = text
        .replace("\\r", "\r")
        .replace("\\n", "\n")
        .replace("\\0", "\0");
    text.replace("\\\\", "\\").into_bytes()
}

fn check(at: &str, expected: &str, got: &Reply) {
    let mut wire = Vec::new();
    got.write_to(&mut wire);
    let wire = String::from_utf8(wire).unwrap();
    match expected.strip_prefix("...") {
        Some(needle) => assert!(
            wire.contains(needle),
            "{at}: expected {needle:?} in {wire:?}"
        ),
        None => {
            let first = wire.lines().next().unwrap();
            let first = format!("{} {}", &first[..3], &first[4..]);
            assert!(
                first.starts_with(expected),
                "{at}: expected {expected:?}, got {wire:?}"
            );
        }
    }
}

struct Desk(QueueIds, Arc<gatepost::credentials::Accounts>);

impl Conditions for Desk {
    fn next_id(&self, now: Now) -> QueueId {
        self.0.next(now.unix_millis)
    }
    fn store_ready(&self) -> bool {
        true
    }
    fn connector_fault(&self, _: &str, _: Now) -> Option<String> {
        None
    }
    fn by_address(&self, address: IpAddr, sender: &ReversePath) -> ByAddress {
        self.1.by_address(address, sender)
    }
    fn renewed(&self, application: &Arc<Application>) -> Option<Arc<Application>> {
        self.1.renewed(application)
    }
    fn within_rate(&self, _: &str, _: Now) -> bool {
        true
    }
    fn within_validation_rate(&self, _: &str, _: Now) -> bool {
        true
    }
}

/// A bare session with what plays the shell: the store is real, everything else is at hand at once.
struct Bare {
    session: Session,
    spool: Spool,
    draft: Option<gatepost::spool::Draft>,
    sent: Vec<u8>,
    closed: bool,
}

const NOW: Now = Now {
    unix_millis: 1_795_593_600_000,
    ticks: 1000,
};

impl Bare {
    async fn new(settings: &gatepost::config::Settings, peer: &str, spool: Spool) -> Self {
        let (service, tls, listener, address, network) = match peer {
            "exchange" | "network-only" => (
                Service::Connector,
                TlsMode::StartTls,
                "exchange",
                "127.0.40.25",
                true,
            ),
            "certificate-only" => (
                Service::Connector,
                TlsMode::StartTls,
                "exchange",
                "127.0.99.1",
                false,
            ),
            "apps" => (
                Service::Submission,
                TlsMode::StartTls,
                "apps",
                "127.0.0.1",
                false,
            ),
            "scanner" => (
                Service::Submission,
                TlsMode::Optional,
                "printers",
                "127.0.7.7",
                false,
            ),
            other => panic!("no such peer: {other}"),
        };
        let policy = Policy {
            hostname: HOSTNAME.parse().unwrap(),
            listener: listener.into(),
            service,
            tls,
            max_message_size: 157_286_400,
            ehlo_discard: Vec::new(),
            bare_newlines: BareNewlines::Refuse,
            auth_without_tls: false,
            half_proven: settings.exchange_online.half_proven,
            tenants: settings.tenants.clone(),
            routes: settings.routes.clone(),
        };
        let accounts = Arc::new(gatepost::credentials::Accounts::new(
            settings.accounts.clone(),
            [0; 32],
        ));
        let desk = Arc::new(Desk(QueueIds::starting_at(0), accounts));
        let address = SocketAddr::new(address.parse().unwrap(), 4000);
        let session = Session::new(Arc::new(policy), desk, address, network, NOW);
        let mut bare = Self {
            session,
            spool,
            draft: None,
            sent: Vec::new(),
            closed: false,
        };
        bare.settle().await;
        bare.reply(&format!("{peer}: greeting"));
        if peer != "scanner" {
            bare.feed(b"EHLO x\r\nSTARTTLS\r\n").await;
            bare.reply("EHLO");
            assert_eq!(bare.reply("STARTTLS").code, 220);
            let certificate = match peer {
                "exchange" | "certificate-only" => ClientCertificate::Verified {
                    name: "mail.protection.outlook.com".into(),
                },
                _ => ClientCertificate::Absent(WhyAbsent::NotPresented),
            };
            let facts = TlsFacts {
                version: "TLS1.3".to_owned(),
                cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
                peer_name: None,
                resumed: false,
            };
            bare.session.handle(NOW, Input::Secured(facts, certificate));
            bare.settle().await;
        }
        bare
    }

    async fn feed(&mut self, bytes: &[u8]) {
        self.session.handle(NOW, Input::Bytes(bytes));
        self.settle().await;
    }

    async fn settle(&mut self) {
        while let Some(output) = self.session.next_output() {
            match output {
                Output::Send(bytes) => self.sent.extend_from_slice(&bytes),
                Output::StartTls | Output::Trace(_) => {}
                Output::CheckCredentials(_) => self
                    .session
                    .handle(NOW, Input::Credentials(Credentials::Rejected)),
                Output::Append(bytes) => {
                    let mut draft = self.draft.take().unwrap_or_else(|| self.spool.draft());
                    let result = draft.append(bytes.into()).await;
                    self.draft = Some(draft);
                    self.session.handle(NOW, Input::Appended(result));
                }
                Output::CheckSignatures(check) => {
                    // No name server is asked in a transcript.
                    let facts = DkimFacts::unavailable("no resolver", &check.signatures);
                    self.session.handle(NOW, Input::Signatures(Ok(facts)));
                }
                Output::Abandon => self.draft = None,
                Output::Store(message, _) => {
                    let draft = self.draft.take().unwrap_or_else(|| self.spool.draft());
                    let result = self.spool.accept(draft, *message).await;
                    self.session.handle(NOW, Input::Stored(result));
                }
                Output::Close => self.closed = true,
            }
        }
    }

    fn reply(&mut self, at: &str) -> Reply {
        let parsed = reply::parse(&self.sent).unwrap_or_else(|fault| panic!("{at}: {fault}"));
        let (reply, taken) = parsed.unwrap_or_else(|| panic!("{at}: no reply"));
        self.sent.drain(..taken);
        reply
    }
}

async fn play_bare(
    transcript: &Transcript,
    settings: &gatepost::config::Settings,
    spool: &Spool,
    piece: usize,
) {
    let mut bare = Bare::new(settings, &transcript.peer, spool.clone()).await;
    for (number, line) in &transcript.lines {
        let at = format!("{}:{number} (pieces of {piece})", transcript.name);
        match line {
            Line::Client(bytes) => {
                for part in bytes.chunks(piece) {
                    bare.feed(part).await;
                }
            }
            Line::Server(expected) if expected == "closed" => {
                assert!(bare.closed, "{at}: not closed")
            }
            Line::Server(expected) => check(&at, expected, &bare.reply(&at)),
        }
    }
    assert!(
        bare.sent.is_empty(),
        "{}: more was said: {}",
        transcript.name,
        bare.sent.escape_ascii()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_session_says_what_the_transcripts_say_however_the_input_is_cut() {
    let around = harness::Surroundings::new().await;
    let settings = around.settings(&harness::Changes::default());
    let metrics = gatepost::metrics::Metrics::new().unwrap();
    let spool = Spool::open(&around.folder.path().join("bare"), &metrics).unwrap();
    for transcript in transcripts() {
        for piece in [usize::MAX, 1, 2, 7] {
            play_bare(&transcript, &settings, &spool, piece).await;
        }
    }
    spool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listening_server_says_what_the_transcripts_say() {
    let world = World::start().await;
    for transcript in transcripts() {
        let mut client = connect(&world, &transcript.peer).await;
        for (number, line) in &transcript.lines {
            let at = format!("{}:{number} (server)", transcript.name);
            match line {
                Line::Client(bytes) => client.raw(bytes).await.unwrap(),
                Line::Server(expected) if expected == "closed" => {
                    assert!(client.reply().await.is_err(), "{at}: not closed");
                }
                Line::Server(expected) => {
                    let reply = client
                        .reply()
                        .await
                        .unwrap_or_else(|error| panic!("{at}: {error}"));
                    check(&at, expected, &reply);
                }
            }
        }
    }
    world.host.stop().await;
}

/// The peer, under TLS where it has some, before EHLO.
async fn connect(world: &World, peer: &str) -> Client {
    let roots = world.around.authority.roots().unwrap();
    let listener = world.listener(if peer == "apps" { "apps" } else { "exchange" });
    let out =
        |identity| gatepost::lab::ExchangeOut::new(listener, HOSTNAME, &roots, identity).unwrap();
    let out = match peer {
        "scanner" => {
            let from = Some("127.0.7.7".parse().unwrap());
            let mut client = Client::connect(world.listener("printers"), from)
                .await
                .unwrap();
            assert_eq!(client.reply().await.unwrap().code, 220);
            return client;
        }
        "exchange" => out(Some(&world.around.exchange_identity)),
        "certificate-only" => {
            out(Some(&world.around.exchange_identity)).from_address("127.0.99.1".parse().unwrap())
        }
        _ => out(None),
    };
    let mut client = out.clear().await.unwrap();
    client.ehlo("x").await.unwrap();
    assert_eq!(client.command("STARTTLS").await.unwrap().code, 220);
    out.encrypt(client).await.unwrap()
}
