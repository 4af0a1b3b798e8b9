//! How a next hop is met: Exchange with TLS or not at all, a stranger with what he offers, a relay as it is configured.

use crate::smtp::sasl::Login;

/// How a connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS, or nothing is sent.
    Required,
    /// TLS before the greeting (RFC 8314 §3).
    FromTheStart,
    /// STARTTLS where it is offered (RFC 7435).
    WhereOffered,
    /// In clear text: the handshake has failed before, and clear text is better than no mail (RFC 7435).
    Never,
}

/// How a next hop is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manners {
    /// How the connection is secured.
    pub tls: Tls,
    /// Who we are to the next hop; sent under TLS only.
    pub login: Option<Login>,
    /// HELO is tried where EHLO is refused.
    pub old_hello: bool,
}

impl Default for Manners {
    /// As Exchange is met.
    fn default() -> Self {
        Self {
            tls: Tls::Required,
            login: None,
            old_hello: false,
        }
    }
}
