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
