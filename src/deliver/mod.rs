//! Sockets of the client side: due work becomes connections, dialogues and outcomes.
//!
//! [`Dispatcher`] looks at the spool and gives each queue the connections it may have now; a `worker` is one connection
//! that takes message after message; `dial` makes the connection to a tenant's connector, `outside` those to mail exchangers
//! and relays, `tls` says what their servers have to prove; `pump` drives the dialogue on a connection; `report`
//! turns answers into what the spool, the trace and the metrics are told; `bounce` tells the sender of failures and of what
//! was handed on, `notice` of what waits, `own` makes mail of it, and `uncertified` takes that past a parked queue. When to
//! try, hold and release is not decided here but in [`crate::schedule`], and what a reply means in [`crate::dialogue`].

mod bounce;
mod dial;
mod dispatcher;
mod lane;
mod notice;
mod outside;
mod own;
mod pump;
mod report;
mod settings;
mod store;
mod tls;
mod uncertified;
mod worker;

#[cfg(test)]
mod tests;

pub use dispatcher::Dispatcher;
pub use lane::Holds;
pub use settings::{DeliverSettings, InboundConnector, Relay, RelayTls, ServerTrust};
pub use store::{Store, Work};
