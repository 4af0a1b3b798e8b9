//! How does mail of our own get out while the tenant's queue is parked? (product.md 6)
//!
//! A report on mail that waits for a mended connector must not wait with it. So it goes once to the tenant's host as anyone's
//! mail goes to a domain of its own: over TLS with the host's certificate verified, and none of ours shown. Exchange then
//! takes it as external, so that the internal stamp would be a claim without proof, and is left out; the loop header stays,
//! since our mail must not come back to us by whatever way. What is not taken, for whatever reason, waits with its queue.
//!
//! This is no probe: nothing is concluded about the connector, in either direction. The connection is never shared with mail
//! that goes with the certificate.

use super::dial::Client;
use super::lane::Lane;
use super::pump::Connection;
use super::report::{self, Attempt};
use super::store::{Store, Work};
use super::worker::{LONGEST_CONNECTION, Setup, Shared};
use crate::dialogue::{Answer, Dialogue, NextHop, Outcome, Pace};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// After a host that is not reached, or asks for less, the rest of our mail is not tried for so long.
const REST: u64 = 300_000;

struct Open {
    connection: Connection<TcpStream>,
    address: SocketAddr,
}

/// One parked queue.
pub(super) struct Uncertified<S> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) setup: Arc<Setup>,
    pub(super) client: Arc<Client>,
    pub(super) lane: Arc<Lane>,
}

impl<S: Store> Uncertified<S> {
    /// Tries all mail of our own that was not tried so, each once.
    pub(super) async fn run(self) {
        let mut open = None;
        while self.goes_on() {
            let now = (self.shared.clock)();
            let next = self
                .shared
                .store
                .next_uncertified(&self.lane.destination, now);
            let Some(work) = next else { break };
            if !Box::pin(self.deliver(work, &mut open)).await {
                self.lane.rest_uncertified(now.saturating_add(REST));
                break;
            }
        }
        if let Some(Open { connection, .. }) = open {
            connection.quit().await;
        }
    }

    fn goes_on(&self) -> bool {
        let is_current = || self.shared.setup().generation == self.setup.generation;
        !*self.shared.stopping.borrow() && is_current() && self.lane.is_parked()
    }

    /// Whether the host was reached, and does not ask for less.
    async fn deliver(&self, work: S::Work, open: &mut Option<Open>) -> bool {
        let began = Instant::now();
        let host = self.client.connector().host.to_string();
        let mut attempt = Attempt {
            host,
            ..Attempt::default()
        };
        let pending = work.recipients();
        let (answers, reached) = loop {
            let connecting = self.connect(open, &mut attempt);
            let Some(connected) = self.shared.unless_stopped(connecting).await else {
                // Given back, as if nobody had tried.
                return false;
            };
            let Open { connection, .. } = match connected {
                Ok(open) => open,
                Err(answer) => {
                    let answers = pending.iter().map(|at| (*at, answer.clone()));
                    break (answers.collect(), false);
                }
            };
            attempt.reused = connection.messages() > 0;
            attempt.tls = connection.tls().cloned();
            let store = &self.shared.store;
            let answers = connection.transact(store, &work, pending).await;
            if !connection.is_usable() {
                *open = None;
            }
            // The host had closed the connection: at once on a new one.
            let closed = |(_, answer): &(usize, Answer)| answer.met_closed_connection();
            if !(attempt.reused && answers.iter().all(closed)) {
                break (answers, true);
            }
        };
        let less = Outcome::Deferred(Pace::BackOff);
        let busy = |(_, answer): &(usize, Answer)| answer.judge(NextHop::Exchange).outcome == less;
        let goes_on = reached && !answers.iter().any(busy);
        attempt.took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        report::settle_uncertified(&self.shared, &self.lane, work, attempt, &answers);
        goes_on
    }

    async fn connect<'a>(
        &self,
        open: &'a mut Option<Open>,
        attempt: &mut Attempt,
    ) -> Result<&'a mut Open, Answer> {
        let most = self.client.connector().max_messages_per_connection.max(1);
        let worn = |open: &mut Open| {
            open.connection.messages() >= most || open.connection.age() >= LONGEST_CONNECTION
        };
        if let Some(worn) = open.take_if(worn) {
            worn.connection.quit().await;
        }
        let settings = &self.setup.settings;
        let connected = match open.take() {
            Some(open) => open,
            None => {
                let (stream, address) = self.client.connect(&*settings.resolver).await?;
                attempt.address = Some(address.to_string());
                let dialogue = Dialogue::new(settings.hostname.as_str());
                let encryption = self.client.uncertified();
                Open {
                    connection: Connection::open(stream, dialogue, encryption).await?,
                    address,
                }
            }
        };
        attempt.address = Some(connected.address.to_string());
        Ok(open.insert(connected))
    }
}
