//! Sockets of the client side: due work becomes connections, dialogues and outcomes.
//!
//! [`Dispatcher`] looks at the spool and gives each queue the connections it may have now; a `worker` is one connection
//! that takes message after message; `dial` makes and proves the connection, `pump` drives the dialogue on it; `report`
//! turns answers into what the spool, the trace and the metrics are told. When to try, hold and release is not decided
//! here but in [`crate::schedule`], and what a reply means in [`crate::dialogue`].

mod dial;
mod dispatcher;
mod lane;
mod pump;
mod report;
mod settings;
mod store;
mod worker;

#[cfg(test)]
mod tests;

pub use dispatcher::Dispatcher;
pub use lane::Holds;
pub use settings::{DeliverSettings, InboundConnector, Relay, RelayTls, ServerTrust};
pub use store::{Store, Work};
