//! Password checks off the runtime's threads: as many at once as cores, a queue of 64, then 454 (product.md 8).

use crate::clock::Clock;
use crate::credentials::{Accounts, Brake, Pace};
use crate::session::Credentials;
use crate::smtp::sasl::Login;
use arc_swap::ArcSwap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Checks that may wait for their turn.
const MAX_WAITING: usize = 64;
/// How long a stranger to a name under attack waits.
const SLOW: Duration = Duration::from_secs(2);

/// The checker of logins.
#[derive(Debug)]
pub struct Passwords {
    accounts: Arc<ArcSwap<Accounts>>,
    brake: Brake,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    clock: Clock,
}

impl Passwords {
    /// Checks against `accounts`, which a reload may exchange; `cores` checks at once.
    #[must_use]
    pub fn new(accounts: Arc<ArcSwap<Accounts>>, cores: usize, clock: Clock) -> Self {
        Self {
            accounts,
            brake: Brake::default(),
            turns: Arc::new(Semaphore::new(cores.max(1))),
            waiting: AtomicUsize::new(0),
            clock,
        }
    }

    /// Judges a login from `address`. Where that is not `proven` to be the client's, it counts for the brake alone: it
    /// opens no account with `networks`.
    pub async fn check(&self, login: Login, address: IpAddr, proven: bool) -> Credentials {
        let own = proven.then_some(address);
        let ticks = self.clock.now().ticks;
        let accounts = self.accounts.load_full();
        match self.brake.pace(address, &login.username, ticks) {
            Pace::Stop => return Credentials::Throttled,
            Pace::Slow => tokio::time::sleep(SLOW).await,
            Pace::Free => {}
        }
        if let Some(application) = accounts.remembered(&login, own, ticks) {
            return Credentials::Accepted(application);
        }
        let Some(_place) = Place::take(&self.waiting) else {
            return Credentials::Busy;
        };
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
            return Credentials::Busy;
        };
        let username = login.username.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            accounts.check(&login, own, ticks)
        });
        match checked.await {
            Ok(Some(application)) => {
                self.brake.succeeded(address, &username, ticks);
                Credentials::Accepted(application)
            }
            Ok(None) => {
                self.brake.failed(address, &username, ticks);
                Credentials::Rejected
            }
            Err(_) => Credentials::Busy,
        }
    }
}

/// A place among those who are checked or wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        if waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            Some(Self(waiting))
        } else {
            waiting.fetch_sub(1, Ordering::Relaxed);
            None
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
