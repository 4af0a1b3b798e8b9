//! Does the smart host do what it must, seen from Exchange Online's side? A simulated Exchange Online on loopback.
//!
//! ```text
//!  ExchangeOut (outbound connector) ──▶ ┌──────────┐ ──▶ ExchangeIn (inbound connector)
//!  ApplicationClient (SMTP AUTH) ─────▶ │ Gatepost │      attribution · header firewall · internal or external
//!                                       └──────────┘ ──▶ Outside (a stranger's mail exchanger, or a relay)
//! ```
//!
//! `gatepost lab` plays [`samples`] through a real server and tells the [`story`]; the scenario tests use the same pieces
//! as their harness. It behaves as the research in exchange-online.md says, and judges with code of its own: it reads
//! headers ([`fields`]) and certificates ([`x509`]) itself, for an oracle with the product's parser would share its
//! mistakes. So it imports `mail`, `smtp` and rustls, and never `header` or `trust`.

mod application;
pub mod border;
pub mod certificates;
mod client;
pub mod dkim;
mod exchange_in;
mod exchange_out;
mod fault;
pub mod fields;
mod organization;
mod outside;
pub mod play;
pub mod samples;
pub mod scene;
mod script;
mod stand;
pub mod story;
mod wire;
pub mod x509;

pub use application::{ApplicationClient, Dialect, Security};
pub use client::{Client, ClientError, Mail, Transaction, Transfer};
pub use exchange_in::{ExchangeIn, ExchangeOptions, Received, RecipientSeen, Refused};
pub use exchange_out::{ExchangeOut, NETWORK, Outbound, OutboundConnection};
pub use organization::{
    Attribution, By, ClientIdentity, DIRECT_SEND_REFUSED, Inbound, Organization, RELAY_DENIED,
    attribute, has_connector,
};
pub use outside::{Carried, Outside, OutsideOptions};
pub use script::{Action, Phase, Step, VOCABULARY, vocabulary};
pub use wire::{Dialogue, TlsSeen};

#[cfg(test)]
mod tests;

use std::fmt;

/// Why the lab itself cannot go on; never a verdict on the smart host.
#[derive(Debug)]
pub enum LabError {
    /// A certificate could not be made or used.
    Certificate(String),
    /// A socket could not be had.
    Socket(std::io::Error),
    /// What was waited for did not come.
    NothingCame(&'static str),
    /// No listener that Exchange could connect to.
    NoConnector,
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(f, "certificate: {why}"),
            Self::Socket(error) => write!(f, "socket: {error}"),
            Self::NothingCame(what) => write!(f, "{what} did not come in time"),
            Self::NoConnector => f.write_str("there is no listener that Exchange can connect to"),
        }
    }
}

impl std::error::Error for LabError {}
