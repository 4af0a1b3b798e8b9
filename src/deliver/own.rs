//! How does what we write ourselves become mail?
//!
//! A report is written, given its way back to whoever reads it, and stored as any message; trace and metrics tell of it only
//! once it is durable. Who hears of what is decided in [`super::bounce`] and [`super::notice`].

use super::settings::DeliverSettings;
use super::store::{Store, Work};
use super::worker::Shared;
use crate::dsn::{Fate, Kind, Report, Returned};
use crate::header::{self, Progress, ReceivedFacts, Splitter};
use crate::mail::{Envelope, Mailbox, Notify, QueueId, Recipient, Ret, ReversePath, shown};
use crate::message_trace::{Event, LegSummary, TraceEvent};
use crate::route::{From, Path, Via};
use crate::smtp::data::Scanner;
use crate::smtp::reply::{self, Enhanced};
use crate::spool::{Leg, Message, SpoolError};
use crate::trust::{self, Evidence, Tenant};
use std::sync::Arc;

/// With `RET=FULL`, a message up to this size is returned whole; of a larger one the header (RFC 3461 §4.3 leaves it to us).
const MOST_RETURNED: u64 = 1 << 20;
/// Octets of a message that are read for its header section, which is never longer than 256 KiB.
const HEADER_ROOM: usize = 512 * 1024;

/// Who is told, and as whose mail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    /// Whose mail it is.
    pub(super) tenant: &'a Arc<Tenant>,
    /// Who reads it.
    pub(super) to: &'a Mailbox,
}

/// A report that is written and not stored yet.
pub(super) struct Written {
    own: Message,
    octets: Vec<u8>,
    events: [TraceEvent; 2],
    kind: Kind,
    recipients: usize,
}

impl Written {
    /// Stores it; durable once this returns.
    ///
    /// # Errors
    /// The store did not take it.
    pub(super) async fn keep<S: Store>(self, shared: &Shared<S>) -> Result<(), SpoolError> {
        let tenant = Arc::clone(&self.own.tenant);
        shared.store.accept(self.own, self.octets.into()).await?;
        count(shared, &tenant, self.kind.label(), self.recipients);
        self.events
            .into_iter()
            .for_each(|event| shared.trace(event));
        Ok(())
    }
}

/// Writes the report on `work` and stores it; durable once this returns.
///
/// # Errors
/// As of [`write`] and [`Written::keep`].
pub(super) async fn send<S: Store>(
    shared: &Shared<S>,
    settings: &DeliverSettings,
    kind: Kind,
    work: &S::Work,
    reader: Reader<'_>,
    fates: &[Fate<'_>],
) -> Result<(), SpoolError> {
    let report = write(shared, settings, kind, work, reader, fates).await?;
    report.keep(shared).await
}

/// Writes the report on `work`.
///
/// # Errors
/// The system has no random octets, or what was written is no message by our own reading.
pub(super) async fn write<S: Store>(
    shared: &Shared<S>,
    settings: &DeliverSettings,
    kind: Kind,
    work: &S::Work,
    reader: Reader<'_>,
    fates: &[Fate<'_>],
) -> Result<Written, SpoolError> {
    let message = work.message();
    let returned = shown_of(shared, settings, kind, work).await;
    let now = (shared.clock)();
    let report = Report {
        kind,
        hostname: settings.hostname.as_str(),
        from: &postmaster(settings, reader.tenant),
        to: reader.to,
        id: shared.ids.next(now),
        original: message.id,
        message_id: message.message_id.as_deref(),
        envid: message.envelope.envid.as_deref(),
        arrived: message.arrived / 1000,
        now: now / 1000,
        boundary: &boundary()?,
        fates,
        returned,
    };
    let octets = report.write();
    let own = own_mail(
        settings,
        reader.tenant,
        &report,
        &octets,
        &work.leg().via,
        now,
    )?;
    let addresses = fates.iter().map(|fate| &fate.recipient.mailbox);
    let recipients = addresses.map(|address| shown(address.as_str().as_bytes()));
    let events = [
        TraceEvent {
            at: now,
            id: message.id.to_string(),
            event: Event::Report {
                class: kind.label().to_owned(),
                report: report.id.to_string(),
                to: shown(reader.to.as_str().as_bytes()),
                recipients: recipients.collect(),
            },
        },
        received(&own, report.id, now),
    ];
    Ok(Written {
        own,
        octets,
        events,
        kind,
        recipients: fates.len(),
    })
}

/// Counts recipients in `bounces_total`.
pub(super) fn count<S>(shared: &Shared<S>, tenant: &str, class: &str, recipients: usize) {
    let family = shared.metrics.bounces.with_label_values(&[tenant, class]);
    family.inc_by(recipients as u64);
}

/// The code of a reply or reason as it is shown, where it has one.
pub(super) fn status_of(shown: &str) -> Option<Enhanced> {
    let line = format!("{shown}\r\n");
    let (reply, _) = reply::parse(line.as_bytes()).ok()??;
    let class = u8::try_from(reply.class()).ok()?;
    Some(reply.enhanced.unwrap_or((class, 0, 0)))
}

/// Who writes: postmaster of the tenant's first domain, so that Exchange knows the sender as one of its own.
fn postmaster(settings: &DeliverSettings, tenant: &Tenant) -> Mailbox {
    let domain = tenant.accepted_domains.iter().next();
    let domain = domain.map_or(&settings.hostname, |pattern| pattern.domain());
    Mailbox::postmaster(domain)
}

/// What may be shown of the original: never protected, loop or secret fields (product.md 7).
async fn shown_of<S: Store>(
    shared: &Shared<S>,
    settings: &DeliverSettings,
    kind: Kind,
    work: &S::Work,
) -> Returned {
    let message = work.message();
    let rendition = &work.leg().rendition;
    let top = rendition.prepend.len();
    // RFC 3461 §4.3: RET speaks of failures only.
    let whole = kind == Kind::Failed
        && message.envelope.ret == Some(Ret::Full)
        && rendition.size(message.facts.size) <= MOST_RETURNED
        && !message.facts.needs_bdat();
    let mut octets = Vec::new();
    loop {
        match shared.store.read(work, octets.len() as u64).await {
            Ok(piece) if piece.is_empty() => break,
            Ok(piece) => octets.extend_from_slice(&piece),
            Err(error) => {
                tracing::warn!(id = %message.id, %error, "the report shows nothing of it");
                return Returned::Nothing;
            }
        }
        if !whole && octets.len() >= top + HEADER_ROOM {
            break;
        }
    }
    let (top, rest) = octets.split_at(top.min(octets.len()));
    let mut splitter = Splitter::default();
    let length = match splitter.push(rest) {
        Ok(Progress::Complete { length }) => Ok(length),
        Ok(Progress::More) => splitter.finish(),
        Err(fault) => Err(fault),
    };
    let fields = length.and_then(|length| {
        let (section, body) = rest.split_at(length.min(rest.len()));
        let fields = header::returned(top, section, message.from, &settings.tenants)?;
        Ok((fields, body))
    });
    match fields {
        Ok((mut fields, body)) if whole => {
            fields.extend_from_slice(b"\r\n");
            fields.extend_from_slice(body);
            Returned::Whole(fields)
        }
        Ok((fields, _)) => Returned::Header(fields),
        Err(fault) => {
            tracing::warn!(id = %message.id, %fault, "the report shows nothing of it");
            Returned::Nothing
        }
    }
}

/// Stands in no part: nobody who wrote the original can have guessed it.
fn boundary() -> Result<String, SpoolError> {
    let mut octets = [0; 16];
    getrandom::fill(&mut octets)
        .map_err(|error| SpoolError::Failing(format!("no random numbers: {error}")))?;
    let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    Ok(format!("=_{digits}"))
}

/// The report as Gatepost's own mail: from nobody, so that nothing answers it, back into Exchange by the tenant's
/// connector, stamped internal where the reader is the tenant's (product.md 7). A tenant without connector hears of it by
/// the way of the message itself.
fn own_mail(
    settings: &DeliverSettings,
    tenant: &Arc<Tenant>,
    report: &Report<'_>,
    octets: &[u8],
    way: &Via,
    now: u64,
) -> Result<Message, SpoolError> {
    let verdict = trust::own(tenant);
    let connected = settings
        .connectors
        .iter()
        .any(|connector| connector.tenant == tenant.name);
    let via = if connected {
        Via::Exchange
    } else {
        way.clone()
    };
    let path = Path {
        stamped: via.is_internal()
            && tenant.accepted_domains.contains(report.to.domain())
            && verdict.stamps_internal(),
        via,
        recipients: vec![0],
    };
    let mut splitter = Splitter::default();
    let unreadable = |fault| SpoolError::Failing(format!("a report of our own: {fault}"));
    let length = match splitter.push(octets).map_err(unreadable)? {
        Progress::Complete { length } => length,
        Progress::More => octets.len(),
    };
    let section = octets.get(..length).unwrap_or_default();
    let examined = header::examine(section).map_err(unreadable)?;
    let hostname = settings.hostname.as_str();
    let received = ReceivedFacts {
        by: hostname,
        helo: hostname,
        from_address: None,
        application: None,
        with: "local",
        tls: None,
        id: report.id,
        unix_seconds: report.now,
    };
    let rendition = header::rendition(&examined, &verdict, &settings.tenants, &path, &received);
    let mut scanner = Scanner::default();
    scanner.push(octets);
    let xoorg = path.stamped.then(|| verdict.stamp_org().cloned()).flatten();
    Ok(Message {
        id: report.id,
        arrived: now,
        tenant: Arc::clone(&tenant.name),
        from: From::Submission,
        application: None,
        stream: None,
        bounces_to: None,
        envelope: Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient {
                mailbox: report.to.clone(),
                // RFC 3461 §6.2: nobody reports on a report.
                notify: Some(Notify::Never),
                orcpt: None,
            }],
            body: None,
            smtputf8: report.needs_smtputf8(),
            ret: None,
            envid: None,
            xoorg: None,
        },
        facts: scanner.facts(),
        legs: vec![Leg {
            via: path.via,
            rendition,
            xoorg,
            recipients: path.recipients,
        }],
        message_id: examined.message_id(),
        network_message_id: None,
    })
}

/// The report's own story begins like any other's.
fn received(own: &Message, id: QueueId, now: u64) -> TraceEvent {
    let addresses: Vec<String> = own
        .envelope
        .recipients
        .iter()
        .map(|recipient| shown(recipient.mailbox.as_str().as_bytes()))
        .collect();
    let legs = own.legs.iter().map(|leg| LegSummary {
        via: leg.via.to_string(),
        stamped: leg.xoorg.is_some(),
        recipients: addresses.clone(),
    });
    TraceEvent {
        at: now,
        id: id.to_string(),
        event: Event::Received {
            listener: String::new(),
            peer: String::new(),
            application: None,
            tenant: own.tenant.to_string(),
            sender: String::new(),
            message_id: own.message_id.clone(),
            network_message_id: None,
            size: own.facts.size,
            transfer: String::new(),
            tls: None,
            verdict: "own".to_owned(),
            reason: None,
            evidence: Evidence::default(),
            removed: Vec::new(),
            legs: legs.collect(),
            recipients: addresses,
        },
    }
}
