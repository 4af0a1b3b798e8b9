//! The answers to what a session asks while it runs.

use crate::clock::Clock;
use crate::credentials::{Accounts, Rate, Rates};
use crate::mail::{QueueId, QueueIds, ReversePath};
use crate::session::{ByAddress, Conditions, Now};
use crate::spool::Spool;
use crate::trust::Application;
use arc_swap::ArcSwap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Tells the fault that has held a tenant's connector for longer than the given milliseconds, at a moment (ms since 1970).
pub type ConnectorFault = Arc<dyn Fn(&str, u64) -> Option<String> + Send + Sync>;

/// Connector validation mails of a tenant (product.md 3).
const VALIDATION_RATE: Rate = Rate {
    messages: 20,
    per: Duration::from_secs(3600),
};

/// What the desk of the receiving side knows.
pub struct Desk {
    ids: Arc<QueueIds>,
    spool: Spool,
    fault: ConnectorFault,
    accounts: Arc<ArcSwap<Accounts>>,
    rates: Rates,
    validations: Rates,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk; the queue ids are those of the whole server.
    #[must_use]
    pub fn new(
        ids: Arc<QueueIds>,
        spool: Spool,
        fault: ConnectorFault,
        accounts: Arc<ArcSwap<Accounts>>,
    ) -> Self {
        Self {
            ids,
            spool,
            fault,
            accounts,
            rates: Rates::default(),
            validations: Rates::default(),
        }
    }

    /// A queue id for something outside a session.
    #[must_use]
    pub fn id(&self, clock: &Clock) -> QueueId {
        self.ids.next(clock.now().unix_millis)
    }
}

impl Conditions for Desk {
    fn next_id(&self, now: Now) -> QueueId {
        self.ids.next(now.unix_millis)
    }

    fn store_ready(&self) -> bool {
        self.spool.ready().is_ok()
    }

    fn connector_fault(&self, tenant: &str, now: Now) -> Option<String> {
        (self.fault)(tenant, now.unix_millis)
    }

    fn by_address(&self, address: IpAddr, sender: &ReversePath) -> ByAddress {
        self.accounts.load().by_address(address, sender)
    }

    fn renewed(&self, application: &Arc<Application>) -> Option<Arc<Application>> {
        self.accounts.load().renewed(application)
    }

    fn within_rate(&self, application: &str, now: Now) -> bool {
        let accounts = self.accounts.load();
        let rate = accounts
            .iter()
            .find(|account| *account.application.name == *application)
            .and_then(|a| a.rate);
        rate.is_none_or(|rate| self.rates.take(application, rate, now.ticks))
    }

    fn within_validation_rate(&self, tenant: &str, now: Now) -> bool {
        self.validations.take(tenant, VALIDATION_RATE, now.ticks)
    }
}
