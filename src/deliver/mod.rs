//! Sockets of the client side: due work becomes connections, dialogues and outcomes.

mod settings;

pub use settings::{InboundConnector, Relay, RelayTls, ServerTrust};
