//! What is kept of a message beside its bytes, and what can become of it.

use crate::header::Rendition;
use crate::mail::{Domain, Envelope, Mailbox, QueueId, TenantName};
use crate::route::{From, Via};
use crate::smtp::data::ContentFacts;
use std::fmt;
use std::sync::Arc;

/// A queue: messages that leave by the same way for the same tenant; by `mx` also to the same domain, so that one that
/// does not answer keeps nobody else's mail waiting.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// How.
    pub via: Via,
    /// Whose.
    pub tenant: TenantName,
    /// The recipients' domain, for [`Via::Mx`] alone.
    pub domain: Option<Domain>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.domain {
            Some(domain) => write!(f, "{} to {domain}", self.via),
            None => write!(f, "{}", self.via),
        }
    }
}

/// One path of a message with the form it takes there. By `mx` its recipients may wait in several queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// How it leaves.
    pub via: Via,
    /// The form.
    pub rendition: Rendition,
    /// `XOORG=` on MAIL FROM, where the next hop offers it.
    pub xoorg: Option<Domain>,
    /// Positions in `Envelope::recipients`.
    pub recipients: Vec<usize>,
}

/// Everything that is kept of a message beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Queue id.
    pub id: QueueId,
    /// Milliseconds since 1970 at the end of data.
    pub arrived: u64,
    /// Whose.
    pub tenant: TenantName,
    /// From which side.
    pub from: From,
    /// The submitting application.
    pub application: Option<Arc<str>>,
    /// Its stream.
    pub stream: Option<Arc<str>>,
    /// Where its failure reports go instead of the sender.
    pub bounces_to: Option<Mailbox>,
    /// As received.
    pub envelope: Envelope,
    /// What the content holds, for choosing BDAT or DATA, and its size as stored.
    pub facts: ContentFacts,
    /// At least one.
    pub legs: Vec<Leg>,
    /// Message-ID, escaped, for the trace.
    pub message_id: Option<String>,
    /// X-MS-Exchange-CrossTenant-Network-Message-Id or -Organization-Network-Message-Id, for the trace.
    pub network_message_id: Option<String>,
}

impl Message {
    /// Whether Gatepost wrote it: a report. From nobody, and by no application.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.from == From::Submission
            && self.application.is_none()
            && self.envelope.reverse_path.mailbox().is_none()
    }
}

/// What the spool could not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolError {
    /// No space left (or the reserve for outcomes is all there is).
    Full,
    /// The disk fails: writing, syncing or reading.
    Failing(String),
    /// A record or body cannot be read back.
    Corrupt {
        /// Which.
        id: QueueId,
    },
    /// Another process has the data directory.
    Locked,
    /// Being shut down.
    Closed,
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no space left"),
            Self::Failing(why) => write!(f, "the disk fails: {why}"),
            Self::Corrupt { id } => write!(f, "message {id} cannot be read back"),
            Self::Locked => f.write_str("another process has the data directory"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl std::error::Error for SpoolError {}

/// What became of one recipient in an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The next hop has it.
    Delivered,
    /// Given up; `reply` is shown.
    Failed {
        /// The reply or reason, escaped and cut.
        reply: String,
    },
    /// To be tried again.
    Deferred {
        /// Milliseconds since 1970.
        next_try: u64,
        /// The reply or reason, escaped and cut.
        reply: String,
    },
    /// Kept back because of a connector or recipient fault; tried (as a probe or on its own) at `next_try`.
    Held {
        /// Milliseconds since 1970.
        next_try: u64,
        /// Milliseconds since 1970 when the first hold began: carried from attempt to attempt.
        since: u64,
        /// The reply or reason, escaped and cut.
        reply: String,
    },
}

/// What of a queue is held since its recipients were tried, for who takes the queue up again after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBefore {
    /// The queue.
    pub destination: Destination,
    /// When the first hold began (milliseconds since 1970).
    pub since: u64,
    /// The reply that the oldest message was held for.
    pub reply: String,
    /// The messages, the oldest first; bounded.
    pub ids: Vec<QueueId>,
}

/// A line of `queue list`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// Queue id.
    pub id: String,
    /// Tenant name.
    pub tenant: String,
    /// `exchange`, `mx`, `relay:NAME`.
    pub via: String,
    /// `ready`, `active`, `deferred` or `held`.
    pub state: String,
    /// Envelope sender; empty for null.
    pub sender: String,
    /// Not yet settled.
    pub recipients: Vec<String>,
    /// Milliseconds since 1970; `null` while an operator holds all of it.
    pub next_try: Option<u64>,
    /// Milliseconds since 1970.
    pub arrived: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// The last reply, if any.
    pub last_reply: Option<String>,
}

/// The header section of a queued message as it leaves by one of its ways, without values that are nobody's business.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Told {
    /// Tenant name.
    pub tenant: String,
    /// `exchange`, `mx`, `relay:NAME`.
    pub via: String,
    /// The fields, with CRLF line ends; octets that are no UTF-8 replaced.
    pub header: String,
}

/// What an operator does to a queued message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueAction {
    /// Try now, but for what an operator holds.
    Retry,
    /// Keep until released.
    Hold,
    /// Undo a hold and try now.
    Release,
    /// Remove without a report.
    Delete,
}

/// How many messages an operator's action met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acted {
    /// Those that it did something to.
    pub messages: usize,
    /// Those that a hold of an operator kept from [`QueueAction::Retry`].
    pub held: usize,
}
