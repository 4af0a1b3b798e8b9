//! Sockets of the server side: accept, limits, TLS, and the pump that drives a session.

mod settings;

pub use settings::{BareNewlines, ListenerSettings, Service, TlsMode};
