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

/// Checks that may wait for their turn, beside those that have it.
const MAX_WAITING: usize = 64;
/// How long a stranger to a name under attack waits.
const SLOW: Duration = Duration::from_secs(2);

/// The checker of logins.
#[derive(Debug)]
pub struct Passwords {
    accounts: Arc<ArcSwap<Accounts>>,
    brake: Arc<Brake>,
    turns: Arc<Semaphore>,
    present: AtomicUsize,
    most: usize,
    clock: Clock,
}

impl Passwords {
    /// Checks against `accounts`, which a reload may exchange; `cores` checks at once.
    #[must_use]
    pub fn new(accounts: Arc<ArcSwap<Accounts>>, cores: usize, clock: Clock) -> Self {
        let cores = cores.max(1);
        Self {
            accounts,
            brake: Arc::default(),
            turns: Arc::new(Semaphore::new(cores)),
            present: AtomicUsize::new(0),
            most: cores + MAX_WAITING,
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
        let Some(_place) = Place::take(&self.present, self.most) else {
            return Credentials::Busy;
        };
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
            return Credentials::Busy;
        };
        // Those who waited side by side have failed meanwhile, perhaps.
        if self.brake.pace(address, &login.username, ticks) == Pace::Stop {
            return Credentials::Throttled;
        }
        let brake = Arc::clone(&self.brake);
        let checked = tokio::task::spawn_blocking(move || {
            let application = accounts.check(&login, own, ticks);
            // Before the turn is given on, and even where nobody waits for the answer any more.
            match application {
                Some(_) => brake.succeeded(address, &login.username, ticks),
                None => brake.failed(address, &login.username, ticks),
            }
            drop(turn);
            application
        });
        match checked.await {
            Ok(Some(application)) => Credentials::Accepted(application),
            Ok(None) => Credentials::Rejected,
            Err(_) => Credentials::Busy,
        }
    }
}

/// A place among those who are checked or wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(present: &'a AtomicUsize, most: usize) -> Option<Self> {
        if present.fetch_add(1, Ordering::Relaxed) < most {
            Some(Self(present))
        } else {
            present.fetch_sub(1, Ordering::Relaxed);
            None
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Account;
    use crate::mail::Secret;
    use crate::trust::Application;
    use crate::trust::fixtures::{application, contoso};

    /// A hash that is quick to check, of a password that nobody knows.
    const QUICK: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$X5t2N1YQFq0Yq0F1tq1bJtPZkU8qHnH6cF2zq9G8l3Y";

    fn accounts(hash: &str) -> Accounts {
        let account = Account {
            application: Arc::new(Application {
                username: Some("erp".to_owned()),
                ..(*application(&Arc::new(contoso()), &["erp@contoso.com"], false)).clone()
            }),
            password_hash: Some(Secret::new(hash)),
            networks: Vec::new(),
            rate: None,
        };
        Accounts::new(vec![Arc::new(account)], [7; 32])
    }

    fn passwords(hash: &str) -> Arc<Passwords> {
        let accounts = Arc::new(ArcSwap::from_pointee(accounts(hash)));
        Arc::new(Passwords::new(accounts, 1, Clock::start()))
    }

    /// A login from 10.0.0.`host`.
    fn try_login(
        passwords: &Arc<Passwords>,
        host: u8,
        password: &str,
    ) -> tokio::task::JoinHandle<Credentials> {
        let passwords = Arc::clone(passwords);
        let login = Login {
            username: "erp".to_owned(),
            password: Secret::new(password),
        };
        tokio::spawn(async move { passwords.check(login, [10, 0, 0, host].into(), true).await })
    }

    #[tokio::test]
    async fn sixty_four_wait_and_the_next_is_told_so() {
        let passwords = passwords(QUICK);
        let turn = Arc::clone(&passwords.turns).acquire_owned().await.unwrap();
        let _checked = Place::take(&passwords.present, passwords.most);
        let waiting: Vec<_> = (0..64)
            .map(|host| try_login(&passwords, host, "wrong"))
            .collect();
        while passwords.present.load(Ordering::Relaxed) < 65 {
            tokio::task::yield_now().await;
        }
        let next = try_login(&passwords, 100, "wrong").await.unwrap();
        assert!(matches!(next, Credentials::Busy), "{next:?}");
        drop(turn);
        for waits in waiting {
            let answer = waits.await.unwrap();
            assert!(matches!(answer, Credentials::Rejected), "{answer:?}");
        }
        assert_eq!(passwords.present.load(Ordering::Relaxed), 1, "given back");
    }

    #[tokio::test]
    async fn guesses_side_by_side_are_no_more_than_one_after_the_other() {
        let passwords = passwords(QUICK);
        let guesses: Vec<_> = (0..20).map(|_| try_login(&passwords, 1, "wrong")).collect();
        let (mut rejected, mut throttled) = (0, 0);
        for guess in guesses {
            match guess.await.unwrap() {
                Credentials::Rejected => rejected += 1,
                Credentials::Throttled => throttled += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((rejected, throttled), (5, 15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_to_a_name_under_attack_waits_and_its_owner_does_not() {
        let passwords = passwords(QUICK);
        let now = passwords.clock.now().ticks;
        passwords.brake.succeeded([10, 0, 0, 1].into(), "erp", now);
        for guesser in 0..20 {
            passwords
                .brake
                .failed([192, 0, 2, guesser].into(), "erp", now);
        }
        let begun = tokio::time::Instant::now();
        let owner = try_login(&passwords, 1, "typo").await.unwrap();
        assert!(matches!(owner, Credentials::Rejected), "{owner:?}");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let stranger = try_login(&passwords, 2, "guess").await.unwrap();
        assert!(matches!(stranger, Credentials::Rejected), "{stranger:?}");
        assert!(begun.elapsed() >= Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_reload_forgets_what_was_right() {
        let hash = password_auth::generate_hash("right");
        let passwords = passwords(&hash);
        let first = try_login(&passwords, 1, "right").await.unwrap();
        assert!(matches!(first, Credentials::Accepted(_)), "{first:?}");
        let turn = Arc::clone(&passwords.turns).acquire_owned().await.unwrap();
        let again = try_login(&passwords, 2, "right").await.unwrap();
        assert!(matches!(again, Credentials::Accepted(_)), "without a check");
        drop(turn);
        passwords.accounts.store(Arc::new(accounts(QUICK)));
        let changed = try_login(&passwords, 1, "right").await.unwrap();
        assert!(matches!(changed, Credentials::Rejected), "{changed:?}");
    }
}
