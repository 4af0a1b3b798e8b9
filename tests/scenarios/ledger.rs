//! What senders sent over restarts and kills, and what Exchange took: nothing that was answered 250 is lost, nothing is made up
//! or changed, and what comes again had come shortly before a server ended (docs/durability.md, "The promise").

use crate::harness::{http, until};
use gatepost::lab::{ExchangeIn, ExchangeOut, Mail, Outbound, Transfer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

/// Results are on disk 200 ms after they are known. To the instant at which the simulated Exchange has noted a message comes
/// the way of its 250, and to the 200 ms a write and a sync, on a disk and cores that others want as well.
pub const WINDOW: Duration = Duration::from_secs(2);
/// What a server sent as it ended is taken later.
const ON_THE_WIRE: Duration = Duration::from_millis(500);
/// How long everything may take to arrive once nothing ends any more.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct Known {
    octets: usize,
    acknowledged: bool,
    arrived: Vec<Instant>,
}

/// A server's end.
#[derive(Clone, Copy, Debug)]
struct End {
    at: Instant,
    /// What had arrived so long before may not have been on disk.
    window: Duration,
}

#[derive(Default)]
struct Book {
    messages: BTreeMap<String, Known>,
    ends: Vec<End>,
    /// Copies that no end explains, and what else should not have come.
    wrong: Vec<String>,
    seen: u64,
}

/// What is known on both sides of the server.
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    watching: JoinHandle<()>,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    pub acknowledged: usize,
    /// Arrived once more.
    pub again: usize,
    /// Arrived, and the answer was no 250, or did not come.
    pub in_doubt: usize,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Ledger {
    pub fn new(exchange: &ExchangeIn) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let (mut watched, noted) = (exchange.watch(), Arc::clone(&book));
        let watching = tokio::spawn(async move {
            loop {
                let received = match watched.recv().await {
                    Ok(received) => received,
                    Err(RecvError::Closed) => return,
                    Err(RecvError::Lagged(missed)) => {
                        let mut book = noted.lock().unwrap();
                        book.wrong
                            .push(format!("the test missed {missed} messages"));
                        continue;
                    }
                };
                let id = received.header("X-Load");
                let mut book = noted.lock().unwrap();
                book.seen += 1;
                book.note(id.as_deref().unwrap_or("").trim(), &received.content);
            }
        });
        Self { book, watching }
    }

    /// So many senders that send until they are told to stop.
    pub fn load(
        &self,
        out: &ExchangeOut,
        round: usize,
        senders: usize,
        stop: &Arc<AtomicBool>,
    ) -> Vec<JoinHandle<()>> {
        let senders = (0..senders).map(|sender| {
            let (out, stop) = (out.clone(), Arc::clone(stop));
            let (name, book) = (format!("{round}-{sender}"), Arc::clone(&self.book));
            tokio::spawn(load(out, name, stop, book))
        });
        senders.collect()
    }

    /// A server has just ended; what had arrived within `window` before may arrive again.
    pub fn ended(&self, window: Duration) {
        let at = Instant::now();
        self.book.lock().unwrap().ends.push(End { at, window });
    }

    /// Messages that were answered 250, so far.
    pub fn acknowledged(&self) -> usize {
        let book = self.book.lock().unwrap();
        book.messages
            .values()
            .filter(|known| known.acknowledged)
            .count()
    }

    fn missing(&self) -> Vec<String> {
        let book = self.book.lock().unwrap();
        let some = book.wrong.iter().take(5).collect::<Vec<_>>();
        assert!(some.is_empty(), "{} times: {some:?}", book.wrong.len());
        let lost = book.messages.iter();
        let lost = lost.filter(|(_, known)| known.acknowledged && known.arrived.is_empty());
        lost.map(|(id, _)| id.clone()).take(5).collect()
    }

    /// Waits until everything that was answered 250 has arrived, and nothing is left in the queue of which a copy could come.
    pub async fn settled(&self, exchange: &ExchangeIn, admin: SocketAddr) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let missing = self.missing();
            if missing.is_empty() && is_empty(admin).await {
                break;
            }
            if Instant::now() > deadline {
                panic!("lost: {missing:?}; the queue: {:?}", queued(admin).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        until("every arrival is noted", async || {
            (self.book.lock().unwrap().seen == exchange.taken()).then_some(())
        })
        .await;
        assert!(self.missing().is_empty(), "lost: {:?}", self.missing());
    }

    pub fn account(&self) -> Account {
        let book = self.book.lock().unwrap();
        let count = |what: &dyn Fn(&Known) -> usize| book.messages.values().map(what).sum();
        Account {
            acknowledged: count(&|known| usize::from(known.acknowledged)),
            again: count(&|known| known.arrived.len().saturating_sub(1)),
            in_doubt: count(&|known| usize::from(!known.acknowledged && !known.arrived.is_empty())),
        }
    }
}

/// What the server says of its queue and its store, without what is 0.
async fn queued(admin: SocketAddr) -> Option<Vec<String>> {
    let Ok((200, text)) = http(admin, "GET", "/metrics", &[], "").await else {
        return None;
    };
    let of_interest = |line: &&str| {
        let names = ["gatepost_queue_messages{", "gatepost_store_failures_total{"];
        names.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0")
    };
    Some(
        text.lines()
            .filter(of_interest)
            .map(str::to_owned)
            .collect(),
    )
}

async fn is_empty(admin: SocketAddr) -> bool {
    let lines = queued(admin).await;
    lines.is_some_and(|lines| lines.iter().all(|line| !line.contains("queue_messages{")))
}

impl Book {
    fn note(&mut self, id: &str, octets: &[u8]) {
        let now = Instant::now();
        let Some(known) = self.messages.get_mut(id) else {
            self.wrong.push(format!("nobody sent {id:?}"));
            return;
        };
        let sent = content(id, known.octets);
        let (_, sent) = sent.split_once("\r\n\r\n").unwrap();
        if !octets.ends_with(sent.as_bytes()) {
            self.wrong.push(format!("{id} came with other octets"));
        }
        if let Some(before) = known.arrived.last() {
            let explains =
                |end: &&End| end.at + ON_THE_WIRE > *before && end.at <= *before + end.window;
            if !self.ends.iter().any(|end| explains(&end)) {
                let next = self.ends.iter().find(|end| end.at > *before);
                let age = next.map(|end| end.at.duration_since(*before));
                self.wrong.push(format!(
                    "{id} came again; it had come {age:?} before an end"
                ));
            }
        }
        known.arrived.push(now);
    }
}

fn content(id: &str, octets: usize) -> String {
    let body: String = format!("{id} ").chars().cycle().take(octets).collect();
    format!(
        "From: ada@contoso.com\r\nX-Load: {id}\r\nX-OriginatorOrg: contoso.com\r\n\
         X-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555\r\n\r\n{}\r\n",
        wrapped(&body)
    )
}

fn wrapped(body: &str) -> String {
    let lines = body.as_bytes().chunks(76);
    let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line)).collect();
    lines.join("\r\n")
}

async fn load(out: ExchangeOut, name: String, stop: Arc<AtomicBool>, book: Arc<Mutex<Book>>) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut connection) = out.connect().await else {
            return;
        };
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let id = format!("{name}-{number}");
            let octets = match number % 12 {
                // A body in a file of its own.
                2 => 1_100_000,
                0 => 60_000,
                _ => 40 * number % 3_000,
            };
            let known = Known {
                octets,
                ..Known::default()
            };
            book.lock().unwrap().messages.insert(id.clone(), known);
            let mail = Mail::new("ada@contoso.com", "bob@contoso.com", content(&id, octets))
                .by(Transfer::Best);
            match connection.send(&Outbound::bare(mail)).await {
                Ok(answer) if answer.accepted() => {
                    let mut book = book.lock().unwrap();
                    book.messages.get_mut(&id).unwrap().acknowledged = true;
                }
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(_) => break,
            }
        }
    }
}

/// Waits for senders that were told to stop.
pub async fn ended(senders: Vec<JoinHandle<()>>) {
    for sender in senders {
        let ended = tokio::time::timeout(Duration::from_secs(90), sender).await;
        ended.expect("a sender hangs").unwrap();
    }
}
