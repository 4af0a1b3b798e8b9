//! The story of each message: what happened, in order, with evidence. Shown by `gatepost trace`.

mod event;

pub use event::{Event, LegSummary, RecipientResult, TlsFacts, TraceEvent};

/// Where rooms hand in events: cheap to clone, never blocks; what the bounded queue cannot take is counted as lost.
#[derive(Clone, Debug)]
pub struct Tracer {}

impl Tracer {
    /// Notes an event.
    pub fn record(&self, _event: TraceEvent) {
        unimplemented!()
    }
}

/// What to look for; all that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Queue id, Message-ID, network message id or address.
    pub text: Option<String>,
    /// Milliseconds since 1970.
    pub since: Option<u64>,
    /// Milliseconds since 1970.
    pub until: Option<u64>,
}

impl Tracer {
    /// Finds events.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub async fn find(&self, _query: Query) -> std::io::Result<Vec<TraceEvent>> {
        unimplemented!()
    }
}
