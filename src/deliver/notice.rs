//! Who hears that mail still waits? (`delay_notice`, RFC 3461 §4.1, RFC 5321 §4.5.4.1)
//!
//! A notice depends on the age of a message, not on an attempt: mail in a parked queue is not tried, and its sender should
//! know all the same. Some at a time, one after the other, so that mail that comes in has the disk first; each is durable
//! before the journal says "told", so that a crash between the two brings a second notice, never none. A notice that mail is
//! still being tried is not stored behind the report that it failed, nor where the attempt that may end it is due.

use super::lane::Holds;
use super::own::{Reader, status_of, write};
use super::store::{Store, Work};
use super::worker::{Setup, Shared};
use crate::dsn::{self, Fate, Kind, Source};
use crate::mail::Recipient;
use crate::route::Via;
use crate::schedule::retry::millis;
use crate::spool::{Late, Message, SpoolError, Waiting};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Messages whose senders are told before others have their turn.
const BATCH: usize = 32;
/// How long nobody is told after the store did not take a notice.
const REST: u64 = 300_000;

/// Tells the senders of some of the messages that have waited long.
pub(super) async fn tell_some<S: Store>(shared: Arc<Shared<S>>, setup: Arc<Setup>, holds: Holds) {
    let now = (shared.clock)();
    let mut late = shared.store.late(setup.patience(), now, BATCH).await;
    late.reverse();
    while let Some(one) = late.pop() {
        if *shared.stopping.borrow() {
            return;
        }
        let told = Box::pin(tell(&shared, &setup, &holds, &one)).await;
        if let Err(error) = told {
            let id = one.work().message().id;
            tracing::error!(%id, %error, "a notice of delay cannot be kept yet");
            let then = (shared.clock)().saturating_add(REST);
            shared.no_notice_before.store(then, Ordering::Relaxed);
            late.push(one);
            late.iter().for_each(|one| shared.store.put_back(one));
            return;
        }
    }
}

async fn tell<S: Store>(
    shared: &Shared<S>,
    setup: &Setup,
    holds: &Holds,
    late: &Late<S::Work>,
) -> Result<(), SpoolError> {
    let (settings, message) = (&setup.settings, late.work().message());
    let (envelope, kind) = (&message.envelope, Kind::Delayed);
    let to = dsn::addressee(kind, envelope, message.bounces_to.as_ref());
    let (Some(to), Some(tenant)) = (to, settings.tenants.named(&message.tenant)) else {
        return Ok(());
    };
    let wanted = late.waiting().iter().filter_map(|waiting| {
        let recipient = envelope.recipients.get(waiting.at)?;
        dsn::is_wanted(kind, recipient.notify).then_some((waiting, recipient))
    });
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let now = (shared.clock)();
    let reasons = wanted
        .iter()
        .map(|(waiting, _)| reason(waiting, message, holds));
    let reasons: Vec<String> = reasons.collect();
    let fates: Vec<Fate<'_>> = wanted
        .iter()
        .zip(&reasons)
        .map(|((waiting, recipient), reason)| {
            fate(setup, late.work(), waiting, recipient, reason, now / 1000)
        })
        .collect();
    let reader = Reader { tenant, to };
    let notice = write(shared, settings, kind, late.work(), reader, &fates).await?;
    // Others were told before, and it took its time to read the message.
    if shared.store.still_waits(late) {
        notice.keep(shared).await?;
        shared.store.told(late);
    }
    Ok(())
}

/// What stands in the way.
fn reason(waiting: &Waiting, message: &Message, holds: &Holds) -> String {
    if waiting.operator_hold {
        return "an operator holds it".to_owned();
    }
    if let Some(reply) = &waiting.reply {
        return reply.to_string();
    }
    let fault = waiting
        .via
        .is_internal()
        .then(|| holds.fault(&message.tenant))
        .flatten();
    // Not tried: what the others met stands in its way too.
    fault.unwrap_or_else(|| "its queue waits for the next mail server".to_owned())
}

fn fate<'a>(
    setup: &'a Setup,
    work: &impl Work,
    waiting: &'a Waiting,
    recipient: &'a Recipient,
    reason: &'a str,
    now: u64,
) -> Fate<'a> {
    let status = status_of(reason);
    let message = work.message();
    let end = work
        .arrived()
        .saturating_add(millis(setup.law(&waiting.via).expire));
    // What an operator holds is tried when he says so; what is past its end, when its queue is released.
    let until = Some(end / 1000).filter(|end| *end > now && !waiting.operator_hold);
    Fate {
        recipient,
        status: status.unwrap_or((4, 4, 0)),
        reply: reason,
        source: if status.is_some() && !is_ours(&waiting.via, reason) {
            Source::NextHop(host(setup, message, &waiting.via))
        } else {
            Source::Ours
        },
        expired: false,
        retry_until: until,
    }
}

/// The one reason of our own that has a code, and does not end a message: DNS did not answer.
fn is_ours(via: &Via, reason: &str) -> bool {
    !via.is_internal() && reason.starts_with("451 4.4.3 ")
}

/// The next hop, where there is one for all mail on this way.
fn host<'a>(setup: &'a Setup, message: &Message, via: &Via) -> Option<&'a str> {
    let settings = &setup.settings;
    match via {
        Via::Exchange => {
            let mut connectors = settings.connectors.iter();
            let own = connectors.find(|connector| connector.tenant == message.tenant);
            own.map(|connector| &*connector.host)
        }
        Via::Relay(name) => {
            let relay = settings.relays.iter().find(|relay| relay.name == *name);
            relay.map(|relay| &*relay.host)
        }
        Via::Mx => None,
    }
}
