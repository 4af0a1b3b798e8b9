//! Who hears of mail that is given up, or that went on to a host which reports nothing?
//!
//! The order is the promise: a report is durable before the journal says "failed" or "delivered", so that a crash between the
//! two repeats the attempt and at worst the report, but loses neither (product.md 9). Where the store cannot take a failure
//! report, the recipients stay open and are tried again. Where it cannot take a report of what was handed on, they are
//! delivered all the same: the mail is there, and a second copy would be worse than a missing notice.

use super::own::{Reader, count, send, status_of};
use super::settings::DeliverSettings;
use super::store::{Store, Work};
use super::worker::Shared;
use crate::dsn::{self, Fate, Kind, Source};
use crate::mail::Recipient;
use crate::spool::SpoolError;

/// A recipient that is given up.
#[derive(Debug)]
pub(super) struct Failure {
    /// Position in the envelope.
    pub(super) at: usize,
    /// The reply or reason, escaped and cut.
    pub(super) reply: String,
    /// Its time is over, rather than that a reply ended it.
    pub(super) expired: bool,
    /// The next hop said so; else it is a reason of our own.
    pub(super) said: bool,
}

/// A recipient that the next hop took.
#[derive(Debug)]
pub(super) struct HandedOn {
    /// Position in the envelope.
    pub(super) at: usize,
    /// Its reply, escaped and cut.
    pub(super) reply: String,
}

/// Tells the sender of `work` of these failures, if there is anyone to tell.
///
/// # Errors
/// The store did not take the report: nothing may be recorded as failed.
pub(super) async fn tell<S: Store>(
    shared: &Shared<S>,
    settings: &DeliverSettings,
    work: &S::Work,
    host: &str,
    failures: &[Failure],
) -> Result<(), SpoolError> {
    let message = work.message();
    let (envelope, kind) = (&message.envelope, Kind::Failed);
    let fates: Vec<Fate<'_>> = failures
        .iter()
        .filter_map(|failure| {
            let recipient = envelope.recipients.get(failure.at)?;
            dsn::is_wanted(kind, recipient.notify).then(|| fate(recipient, failure, host))
        })
        .collect();
    let to = dsn::addressee(kind, envelope, message.bounces_to.as_ref());
    let (Some(to), Some(tenant)) = (to, settings.tenants.named(&message.tenant)) else {
        count(shared, &message.tenant, "untold", failures.len());
        let why = match to {
            None => "its sender is null",
            Some(_) => "its tenant is not configured any more",
        };
        tracing::warn!(tenant = &*message.tenant, id = %message.id, why, "given up, and nobody is told");
        return Ok(());
    };
    if !fates.is_empty() {
        let reader = Reader { tenant, to };
        send(shared, settings, kind, work, reader, &fates).await?;
    }
    let untold = failures.len() - fates.len();
    count(shared, &message.tenant, "untold", untold);
    Ok(())
}

fn fate<'a>(recipient: &'a Recipient, failure: &'a Failure, host: &'a str) -> Fate<'a> {
    Fate {
        recipient,
        status: status_of(&failure.reply).unwrap_or((5, 0, 0)),
        reply: &failure.reply,
        source: if failure.said {
            Source::NextHop(Some(host))
        } else {
            Source::Ours
        },
        expired: failure.expired,
        retry_until: None,
    }
}

/// Tells the sender of `work` which recipients `host` took without promising to report on them, where NOTIFY=SUCCESS asks
/// for it (RFC 3461 §5.2.2). What cannot be kept is counted and let go.
pub(super) async fn tell_relayed<S: Store>(
    shared: &Shared<S>,
    settings: &DeliverSettings,
    work: &S::Work,
    host: &str,
    handed_on: &[HandedOn],
) {
    let message = work.message();
    let (envelope, kind) = (&message.envelope, Kind::Relayed);
    let to = dsn::addressee(kind, envelope, message.bounces_to.as_ref());
    let (Some(to), Some(tenant)) = (to, settings.tenants.named(&message.tenant)) else {
        return;
    };
    let fates: Vec<Fate<'_>> = handed_on
        .iter()
        .filter_map(|one| {
            let recipient = envelope.recipients.get(one.at)?;
            dsn::is_wanted(kind, recipient.notify).then(|| Fate {
                recipient,
                status: status_of(&one.reply).unwrap_or((2, 0, 0)),
                reply: &one.reply,
                source: Source::NextHop(Some(host)),
                expired: false,
                retry_until: None,
            })
        })
        .collect();
    if fates.is_empty() {
        return;
    }
    let reader = Reader { tenant, to };
    if let Err(error) = send(shared, settings, kind, work, reader, &fates).await {
        count(shared, &message.tenant, "untold", fates.len());
        tracing::warn!(id = %message.id, %error, "handed on, and the report of it cannot be kept");
    }
}
