//! Honest mail that flows while something happens to the server: over the connector and by applications, with TLS, over
//! sessions that stay open. At the end: which sessions broke, what was refused, and that nothing is lost or doubled.

use crate::harness::{HOSTNAME, LETTER, PASSWORD, Surroundings, until};
use gatepost::lab::{
    ApplicationClient, Client, ClientError, Dialect, ExchangeIn, ExchangeOut, Mail, Organization,
    Outbound, OutboundConnection, Security, Transaction,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{JoinHandle, JoinSet};

/// Messages of one session before its sender says QUIT and comes again, so that there are always old and new ones.
const SESSION: usize = 40;
/// How long any message may go on being tried, and what is on its way may take at the end, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// From the first try to Exchange, at the worst: less than a look-up that is waited out (15 to 20 s, `dns.rs`), the end of a
/// server that waits for a peer (15 s), or a minute of a parked queue; six times what is seen.
const WORST: Duration = Duration::from_secs(12);
/// The same for most: less than the second that `retry` of the usual configuration puts off whatever did not go at once. Seen
/// are a tenth of it and less, also beside all other tests on two cores.
const MOST: Duration = Duration::from_secs(1);

/// A sender and its way of opening a session.
#[derive(Clone)]
enum Peer {
    Exchange(ExchangeOut, Organization),
    Application(ApplicationClient, &'static str),
}

enum Session {
    Exchange(Box<OutboundConnection>),
    Application(Box<Client>),
}

impl Peer {
    async fn open(&self) -> Result<Session, ClientError> {
        match self {
            Self::Exchange(out, _) => Ok(Session::Exchange(Box::new(out.connect().await?))),
            Self::Application(client, _) => {
                let mut session = client.connect().await?;
                match client.log_in(&mut session).await? {
                    Some(refusal) if refusal.class() != 2 => Err(ClientError::Unwilling(refusal)),
                    _ => Ok(Session::Application(Box::new(session))),
                }
            }
        }
    }

    /// One message of some kibibytes, now and then of many.
    async fn send(&self, session: &mut Session, id: &str) -> Result<Transaction, ClientError> {
        let number = id.rsplit('-').next().unwrap().parse::<usize>().unwrap();
        let body = "body of a message, line after line\r\n".repeat(1 + number % 50 * 4);
        match (self, session) {
            (Self::Exchange(_, organization), Session::Exchange(session)) => {
                let letter = String::from_utf8(LETTER.to_vec()).unwrap();
                let content = format!("X-Load: {id}\r\n{letter}{body}").into_bytes();
                let mail = Mail::new("ada@contoso.com", "bob@contoso.com", content);
                let network_id = "0d6f9b1c-0000-4000-8000-000000000001";
                let outbound = Outbound::stamped(organization, mail, network_id).unwrap();
                session.send(&outbound).await
            }
            (Self::Application(_, sender), Session::Application(session)) => {
                let content = format!(
                    "From: {sender}\r\nTo: bob@contoso.com\r\nX-Load: {id}\r\nSubject: x\r\n\r\n{body}"
                );
                let mail = Mail::new(sender, "bob@contoso.com", content.into_bytes());
                session.transaction(&mail).await
            }
            _ => unreachable!("a session of another peer"),
        }
    }
}

impl Session {
    /// The 421 of a session that broke, where there was one: perhaps it lies there unread, behind a write that failed, or was
    /// followed by nothing where a pipelined command still expected its reply.
    async fn farewell(&mut self) -> Option<String> {
        let client = match self {
            Self::Exchange(session) => session.client(),
            Self::Application(session) => session,
        };
        while client.reply().await.is_ok() {}
        let lines = client.dialogue().lines();
        let mut said = lines
            .iter()
            .rev()
            .filter_map(|line| line.strip_prefix("S: "));
        said.find(|line| line.starts_with("421 "))
            .map(str::to_owned)
    }

    async fn quit(self) {
        match self {
            Self::Exchange(session) => session.quit().await,
            Self::Application(session) => session.quit().await,
        }
    }
}

/// What one sender saw.
#[derive(Default)]
struct Seen {
    taken: Vec<(String, Instant)>,
    told: Vec<String>,
    cut: Vec<String>,
    unopened: Vec<Unopened>,
    refused: Vec<String>,
    opened: usize,
}

/// A session that could not be opened: when that was tried, when it had failed, and why.
#[derive(Debug)]
pub struct Unopened {
    begun: Instant,
    failed: Instant,
    why: String,
}

/// Mail that flows.
pub struct Flow {
    over: Arc<AtomicBool>,
    number: Arc<AtomicU64>,
    senders: JoinSet<Seen>,
    arrived: Arc<Mutex<HashMap<String, Vec<Instant>>>>,
    watching: JoinHandle<()>,
}

/// How it went.
#[derive(Debug)]
pub struct Flowed {
    pub taken: usize,
    /// Sessions that were opened.
    pub opened: usize,
    /// Sessions that the server ended: the 421 of each.
    pub told: Vec<String>,
    /// Sessions that broke, and no 421 said so.
    pub cut: Vec<String>,
    /// Sessions that could not be opened.
    pub unopened: Vec<Unopened>,
    /// Messages that were refused for now; each was tried again until it was taken.
    pub refused: Vec<String>,
    /// From the first try until it was with Exchange.
    pub median: Duration,
    pub worst: Duration,
}

impl Flow {
    /// Two sessions of Exchange, two of an application with a login, one of a scanner in clear text: at
    /// `listeners` exchange, apps, printers.
    pub fn start(around: &Surroundings, listeners: [SocketAddr; 3]) -> Self {
        let [exchange, apps, printers] = listeners;
        let roots = around.authority.roots().unwrap();
        let client = |to| ApplicationClient::new(to, HOSTNAME, &roots).unwrap();
        let erp = client(apps).login("erp", PASSWORD, Dialect::Plain);
        let scanner = client(printers)
            .security(Security::Clear)
            .from_address("127.0.7.7".parse().unwrap());
        let peers = [
            Peer::Exchange(around.exchange_out(exchange), around.contoso.clone()),
            Peer::Exchange(around.exchange_out(exchange), around.contoso.clone()),
            Peer::Application(erp.clone(), "erp@contoso.com"),
            Peer::Application(erp, "erp@contoso.com"),
            Peer::Application(scanner, "scanner@contoso.com"),
        ];
        let arrived: Arc<Mutex<HashMap<String, Vec<Instant>>>> = Arc::default();
        let watching = watch(&around.exchange, Arc::clone(&arrived));
        let (over, number) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut senders = JoinSet::new();
        for peer in peers {
            senders.spawn(send(peer, Arc::clone(&over), Arc::clone(&number)));
        }
        Self {
            over,
            number,
            senders,
            arrived,
            watching,
        }
    }

    /// Waits until so many more messages were begun.
    pub async fn go_on(&self, messages: u64) {
        let until_then = self.number.load(Ordering::Relaxed) + messages;
        until("mail flows", async || {
            (self.number.load(Ordering::Relaxed) >= until_then).then_some(())
        })
        .await;
    }

    /// Ends it: every message that was begun has been taken, and has arrived once.
    pub async fn end(mut self) -> Flowed {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        let ended = async {
            while let Some(seen) = self.senders.join_next().await {
                let seen = seen.unwrap();
                all.taken.extend(seen.taken);
                all.told.extend(seen.told);
                all.cut.extend(seen.cut);
                all.unopened.extend(seen.unopened);
                all.refused.extend(seen.refused);
                all.opened += seen.opened;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended)
            .await
            .expect("a sender hangs");
        let missing = || {
            let arrived = self.arrived.lock().unwrap();
            let missing = all.taken.iter().filter(|(id, _)| !arrived.contains_key(id));
            missing.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        let deadline = Instant::now() + PATIENCE;
        while !missing().is_empty() {
            let lost = missing();
            assert!(Instant::now() < deadline, "taken and not arrived: {lost:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let arrived = self.arrived.lock().unwrap();
        let doubled: Vec<_> = arrived.iter().filter(|(_, at)| at.len() != 1).collect();
        assert!(doubled.is_empty(), "arrived more than once: {doubled:?}");
        assert_eq!(arrived.len(), all.taken.len(), "nothing else arrived");
        let took = all
            .taken
            .iter()
            .map(|(id, begun)| arrived[id][0].duration_since(*begun));
        let mut took: Vec<Duration> = took.collect();
        took.sort();
        assert!(took.len() > 20, "mail flowed: {}", took.len());
        let flowed = Flowed {
            taken: all.taken.len(),
            opened: all.opened,
            told: all.told,
            cut: all.cut,
            unopened: all.unopened,
            refused: all.refused,
            median: took[took.len() / 2],
            worst: took[took.len() - 1],
        };
        println!(
            "{} messages in {} sessions; {} ended by 421, {} cut, {} not opened; {} refused for now; median {:?}, worst {:?}",
            flowed.taken,
            flowed.opened,
            flowed.told.len(),
            flowed.cut.len(),
            flowed.unopened.len(),
            flowed.refused.len(),
            flowed.median,
            flowed.worst
        );
        flowed
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Flowed {
    /// Nobody noticed anything.
    pub fn undisturbed(&self) {
        assert_eq!(self.told, [""; 0], "no session was ended");
        assert!(self.unopened.is_empty(), "{:?}", self.unopened);
        self.quick();
    }

    /// The server was started anew so often, each time from the first to the second instant: who had a session open was told
    /// 421 4.3.2, whatever it was doing; who came while nobody listened came again.
    pub fn restarted(&self, gaps: &[(Instant, Instant)]) {
        assert!(self.told.len() >= gaps.len(), "the restarts were noticed");
        for said in &self.told {
            assert!(said.starts_with("421 4.3.2 "), "{said}");
        }
        for Unopened { begun, failed, why } in &self.unopened {
            let mut gaps = gaps.iter();
            let nobody_listened = gaps.any(|(from, to)| begun <= to && failed >= from);
            assert!(nobody_listened, "not opened, and no restart: {why}");
        }
        self.quick();
    }

    /// No session was cut, no message refused, and none waited long.
    fn quick(&self) {
        assert_eq!(self.cut, [""; 0], "no session ends without 421");
        assert_eq!(self.refused, [""; 0], "no message was refused");
        assert!(self.median < MOST, "{:?} for most", self.median);
        assert!(self.worst < WORST, "{:?} at worst", self.worst);
    }
}

/// Notes when each message arrived, also if it comes twice.
fn watch(
    exchange: &ExchangeIn,
    arrived: Arc<Mutex<HashMap<String, Vec<Instant>>>>,
) -> JoinHandle<()> {
    let mut watched = exchange.watch();
    tokio::spawn(async move {
        loop {
            match watched.recv().await {
                Ok(received) => {
                    if let Some(id) = received.header("X-Load") {
                        let mut arrived = arrived.lock().unwrap();
                        arrived.entry(id).or_default().push(Instant::now());
                    }
                }
                Err(RecvError::Lagged(missed)) => panic!("the test missed {missed} messages"),
                Err(RecvError::Closed) => return,
            }
        }
    })
}

/// Sends one message after another and comes again where it was turned away, until it is over.
async fn send(peer: Peer, over: Arc<AtomicBool>, number: Arc<AtomicU64>) -> Seen {
    let mut seen = Seen::default();
    let mut session: Option<(Session, usize)> = None;
    while !over.load(Ordering::Relaxed) {
        let id = format!("load-{}", number.fetch_add(1, Ordering::Relaxed));
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "{id} was not taken in time");
            let (mut open, sent) = match session.take() {
                Some(open) => open,
                None => {
                    let begun = Instant::now();
                    match peer.open().await {
                        Ok(open) => {
                            seen.opened += 1;
                            (open, 0)
                        }
                        Err(error) => {
                            seen.unopened.push(Unopened {
                                begun,
                                failed: Instant::now(),
                                why: error.to_string(),
                            });
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    }
                }
            };
            match peer.send(&mut open, &id).await {
                Ok(answer) if answer.accepted() => {
                    seen.taken.push((id, begun));
                    if sent + 1 < SESSION {
                        session = Some((open, sent + 1));
                    } else {
                        open.quit().await;
                    }
                    break;
                }
                Ok(answer) if answer.deciding().code == 421 => {
                    seen.told.push(answer.deciding().to_string());
                }
                Ok(answer) => {
                    seen.refused.push(answer.deciding().to_string());
                    session = Some((open, sent));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => match open.farewell().await {
                    Some(reply) => seen.told.push(reply),
                    None => seen.cut.push(format!("{id}: {error}")),
                },
            }
        }
        // A pace, not a wait: other tests run beside this one.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Some((open, _)) = session {
        open.quit().await;
    }
    seen
}
