//! What a 250 promised, and what became of it: accept, due, settle, hold, scan.
//!
//! The journal is the truth; due work is in memory. [`Spool::accept`] is the only maker of [`Stored`], and the session
//! says 250 to the end of data only when it is handed one.

use crate::header::Rendition;
use crate::mail::{Domain, Envelope, Mailbox, QueueId, TenantName};
use crate::route::{From, Via};
use crate::smtp::data::ContentFacts;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// A queue: messages that leave by the same way for the same tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// How.
    pub via: Via,
    /// Whose.
    pub tenant: TenantName,
}

/// One path of a message with the form it takes there.
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

/// Content on its way in: memory while small, an unnamed or temporary file of its own once large; gone when dropped.
#[derive(Debug)]
pub struct Draft {}

impl Draft {
    /// Appends arrival bytes. Small ones stay in memory; a large body goes to its file on a blocking thread.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub async fn append(&mut self, _bytes: Bytes) -> Result<(), SpoolError> {
        unimplemented!()
    }
}

/// Proof that a message is on disk.
#[derive(Debug)]
pub struct Stored {
    id: QueueId,
}

impl Stored {
    /// Its queue id.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
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

/// Work that is due: a leg of a message and up to 100 of its recipients, leased to the holder until settled or dropped.
#[derive(Debug)]
pub struct Due {}

impl Due {
    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        unimplemented!()
    }

    /// The leg.
    #[must_use]
    pub fn leg(&self) -> &Leg {
        unimplemented!()
    }

    /// Recipients to try now (positions in the envelope), at most 100, in order.
    #[must_use]
    pub fn recipients(&self) -> &[usize] {
        unimplemented!()
    }

    /// Attempts so far that count.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        unimplemented!()
    }

    /// The queue it was taken from.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        unimplemented!()
    }
}

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

/// A line of `queue list`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Listed {
    /// Queue id.
    pub id: String,
    /// Tenant name.
    pub tenant: String,
    /// `exchange`, `mx`, `relay:NAME`.
    pub via: String,
    /// `ready`, `active`, `deferred` or `held`.
    pub state: &'static str,
    /// Envelope sender; empty for null.
    pub sender: String,
    /// Not yet settled.
    pub recipients: Vec<String>,
    /// Milliseconds since 1970.
    pub next_try: u64,
    /// Milliseconds since 1970.
    pub arrived: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// The last reply, if any.
    pub last_reply: Option<String>,
}

/// What an operator does to a queued message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueAction {
    /// Try now.
    Retry,
    /// Keep until released.
    Hold,
    /// Undo a hold and try now.
    Release,
    /// Remove without a report.
    Delete,
}

/// The store: cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool {}

impl Spool {
    /// Opens (and replays) the journal in `directory`, made 0700 where it is missing.
    ///
    /// # Errors
    /// Locked by another process, or the disk fails.
    pub fn open(_directory: &Path, _metrics: &crate::metrics::Metrics) -> Result<Self, SpoolError> {
        unimplemented!()
    }

    /// A new draft.
    #[must_use]
    pub fn draft(&self) -> Draft {
        unimplemented!()
    }

    /// Whether mail can be taken now: asked at MAIL.
    ///
    /// # Errors
    /// Full or failing.
    pub fn ready(&self) -> Result<(), SpoolError> {
        unimplemented!()
    }

    /// Keeps message and bytes durably; returns after the fdatasync that covered them.
    ///
    /// # Errors
    /// Nothing was kept.
    pub async fn accept(&self, _draft: Draft, _message: Message) -> Result<Stored, SpoolError> {
        unimplemented!()
    }

    /// Takes the next due work of a queue, oldest due first; the lease ends when the [`Due`] is settled or dropped.
    #[must_use]
    pub fn next_due(&self, _destination: &Destination, _now_millis: u64) -> Option<Due> {
        unimplemented!()
    }

    /// Queues with work that is due at `now_millis`, and how many messages wait in each.
    #[must_use]
    pub fn due(&self, _now_millis: u64) -> Vec<(Destination, usize)> {
        unimplemented!()
    }

    /// When the next work that is not due yet becomes due (milliseconds since 1970).
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Completes when work has become due since the last call: accepted, settled for now, retried or released.
    pub async fn changed(&self) {
        unimplemented!()
    }

    /// The next bytes of a rendition of `due`, from `offset` in the rendition; empty at its end.
    ///
    /// # Errors
    /// The body cannot be read back.
    pub async fn read(&self, _due: &Due, _offset: u64) -> Result<Bytes, SpoolError> {
        unimplemented!()
    }

    /// Records what became of recipients of `due`; those not named stay as they were. Written within a second;
    /// `counts` says whether it was an attempt.
    pub fn settle(&self, _due: Due, _results: Vec<(usize, Disposition)>, _counts: bool) {
        unimplemented!()
    }

    /// Makes every message of `destination` (or only `id`) do what an operator wants; how many did.
    #[must_use]
    pub fn act(
        &self,
        _id: Option<QueueId>,
        _tenant: Option<&str>,
        _action: QueueAction,
        _now_millis: u64,
    ) -> usize {
        unimplemented!()
    }

    /// What is queued, oldest first, at most `limit`.
    #[must_use]
    pub fn scan(&self, _limit: usize) -> Vec<Listed> {
        unimplemented!()
    }

    /// Writes and syncs what is pending; nothing is accepted afterwards.
    pub async fn close(&self) {
        unimplemented!()
    }
}
