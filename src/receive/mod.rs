//! Sockets of the server side: accept, limits, TLS, and the pump that drives a session.

mod bind;
mod conditions;
mod handshake;
pub mod hello;
mod listener;
mod passwords;
pub mod proxy;
mod pump;
mod settings;
mod tls;

pub use crate::session::{BareNewlines, Service, TlsMode};
pub use conditions::{ConnectorFault, Desk};
pub use listener::{Listener, Listening, Services};
pub use passwords::Passwords;
pub use settings::ListenerSettings;
pub use tls::{check_identity, server_config};

use crate::session::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clock of the receiving shell.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock whose ticks start now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the shell is where the clock is read"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time, in the form that the rooms take.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the shell is where the clock is read"
    )]
    pub fn now(&self) -> Now {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Now {
            unix_millis: millis(since_1970),
            ticks: millis(self.0.elapsed()),
        }
    }

    /// The moment of `ticks`.
    #[must_use]
    pub fn at(&self, ticks: u64) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.0 + Duration::from_millis(ticks))
    }
}
