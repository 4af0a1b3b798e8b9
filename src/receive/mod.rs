//! Sockets of the server side: accept, limits, TLS, and the pump that drives a session.

mod ahead;
mod bind;
mod conditions;
mod handshake;
pub mod hello;
mod listener;
mod passwords;
pub mod proxy;
mod pump;
mod settings;
mod strangers;
mod tls;

pub use crate::session::{BareNewlines, Service, TlsMode};
pub use conditions::{ConnectorFault, Desk};
pub use listener::{Listener, Listening, Services};
pub use passwords::Passwords;
pub use settings::ListenerSettings;
pub use strangers::Strangers;
pub use tls::{check_identity, server_config};
