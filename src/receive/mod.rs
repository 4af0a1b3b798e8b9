//! Sockets of the server side: accept, limits, TLS, and the pump that drives a session.

mod settings;

pub use crate::session::{BareNewlines, Service, TlsMode};
pub use settings::ListenerSettings;
