//! Who is an application, and how often may it try? Submission accounts, rates, and the brake on guessing.
//!
//! Checking a password is slow by design; this room only offers the check. The shell runs it off the runtime's threads,
//! at most as many at once as there are cores (product.md 8).

mod hashing;

use crate::mail::{ReversePath, Secret};
use crate::session::ByAddress;
use crate::smtp::sasl::Login;
use crate::trust::Application;
use hashing::Memory;
use hmac::{Hmac, Mac as _};
use ipnet::IpNet;
use sha2::Sha256;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One `[[application]]`.
#[derive(Clone, Debug)]
pub struct Account {
    /// What judgement sees of it.
    pub application: Arc<Application>,
    /// `password_hash`, a PHC string.
    pub password_hash: Option<Secret>,
    /// `networks`: where it may connect from; empty means anywhere (only with a username).
    pub networks: Vec<IpNet>,
    /// `rate`.
    pub rate: Option<Rate>,
}

/// `rate = "600/hour"`: so many messages may come at once, and so many in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Messages.
    pub messages: u32,
    /// Period.
    pub per: Duration,
}

impl Account {
    /// Whether it may log in from this address; `None`: nobody knows it.
    #[must_use]
    pub fn allows_login_from(&self, address: Option<IpAddr>) -> bool {
        self.networks.is_empty()
            || address.is_some_and(|address| self.allows_address(address.to_canonical()))
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|block| block.contains(&address))
    }
}

/// All accounts of a configuration, with what has been learnt about logins since it was loaded.
#[derive(Debug)]
pub struct Accounts {
    accounts: Vec<Arc<Account>>,
    /// Keyed hashes of logins that were right, with the moment (ticks, ms) until which that is remembered.
    known: Mutex<HashMap<[u8; 32], (u64, usize)>>,
    /// The key of those hashes, made at random for each load: a reload forgets.
    key: [u8; 32],
    memory: Memory,
}

/// How long a right password is remembered.
const KNOWN_MILLIS: u64 = 10 * 60_000;
/// How many right passwords are remembered at once.
const MAX_KNOWN: usize = 10_000;
/// What an unknown user name is checked against, so that it takes as long as a wrong password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$X5t2N1YQFq0Yq0F1tq1bJtPZkU8qHnH6cF2zq9G8l3Y";

impl Accounts {
    /// These accounts; `key` is 32 random octets.
    #[must_use]
    pub fn new(accounts: Vec<Arc<Account>>, key: [u8; 32]) -> Self {
        Self {
            accounts,
            known: Mutex::default(),
            key,
            memory: Memory::default(),
        }
    }

    /// In the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.iter()
    }

    /// The application that an address is without login, for this sender: entries without username, first match wins.
    #[must_use]
    pub fn by_address(&self, address: IpAddr, sender: &ReversePath) -> ByAddress {
        let address = address.to_canonical();
        let mut entries = self
            .accounts
            .iter()
            .filter(|account| {
                account.application.username.is_none() && account.allows_address(address)
            })
            .map(|account| &account.application);
        let Some(first) = entries.clone().next() else {
            return ByAddress::Unknown;
        };
        match entries.find(|application| application.may_send_as(sender)) {
            Some(application) => ByAddress::Application(Arc::clone(application)),
            None => ByAddress::SenderNotAllowed(Arc::clone(first)),
        }
    }

    /// The application that has logged in by another configuration, as it is in this one: of the same name, user name and
    /// tenant. Its password may be another: nobody is turned away while one is exchanged.
    #[must_use]
    pub fn renewed(&self, application: &Application) -> Option<Arc<Application>> {
        let is_same = |own: &Application| {
            let login = (own.username.is_some(), &own.username, &own.name);
            login == (true, &application.username, &application.name)
                && own.tenant.name == application.tenant.name
        };
        let mut own = self.accounts.iter().map(|account| &account.application);
        own.find(|own| is_same(own)).cloned()
    }

    /// Whether the login was right within the last ten minutes: the quick answer that costs no hash. Without an address
    /// (behind a balancer that does not tell it) an account with `networks` is not open.
    #[must_use]
    pub fn remembered(
        &self,
        login: &Login,
        address: Option<IpAddr>,
        ticks: u64,
    ) -> Option<Arc<Application>> {
        let digest = self.digest(login)?;
        let index = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known
                .get(&digest)
                .filter(|(until, _)| ticks < *until)
                .map(|(_, index)| *index)
        }?;
        let account = self.accounts.get(index)?;
        let allowed = account.allows_login_from(address);
        allowed.then(|| Arc::clone(&account.application))
    }

    /// Checks a login: slow, for a thread that may block.
    #[must_use]
    pub fn check(
        &self,
        login: &Login,
        address: Option<IpAddr>,
        ticks: u64,
    ) -> Option<Arc<Application>> {
        let found = self.accounts.iter().enumerate().find(|(_, account)| {
            account.application.username.as_deref() == Some(login.username.as_str())
        });
        let hash = found
            .and_then(|(_, account)| account.password_hash.as_ref())
            .map_or(NOBODY, Secret::expose_str);
        let right = self.memory.verify(login.password.expose(), hash);
        let (index, account) = found.filter(|_| right)?;
        if !account.allows_login_from(address) {
            return None;
        }
        if let Some(digest) = self.digest(login) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MAX_KNOWN {
                known.retain(|_, (until, _)| ticks < *until);
            }
            if known.len() < MAX_KNOWN {
                known.insert(digest, (ticks + KNOWN_MILLIS, index));
            }
        }
        Some(Arc::clone(&account.application))
    }

    fn digest(&self, login: &Login) -> Option<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(&(login.username.len() as u64).to_be_bytes());
        mac.update(login.username.as_bytes());
        mac.update(login.password.expose());
        Some(mac.finalize().into_bytes().into())
    }
}

/// The message rates of applications and of connector validation mail: a bucket each, refilled steadily.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<Arc<str>, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: u64,
    updated: u64,
}

impl Rates {
    /// Takes one message off `name`'s bucket at `ticks` (ms); false where it is empty.
    pub fn take(&self, name: &str, rate: Rate, ticks: u64) -> bool {
        // In units of a message divided by the period's milliseconds: every millisecond refills `messages` units and a
        // message costs `period` of them, so nothing is lost to rounding.
        let period = u64::try_from(rate.per.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let messages = u64::from(rate.messages);
        let full = messages.saturating_mul(period);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match buckets.get_mut(name) {
            Some(bucket) => bucket,
            None => buckets.entry(name.into()).or_insert(Bucket {
                level: full,
                updated: ticks,
            }),
        };
        let gained = messages.saturating_mul(ticks.saturating_sub(bucket.updated));
        bucket.level = full.min(bucket.level.saturating_add(gained));
        bucket.updated = ticks;
        match bucket.level.checked_sub(period) {
            Some(rest) => {
                bucket.level = rest;
                true
            }
            None => false,
        }
    }
}

/// The brake on guessing passwords: per address, and per name without locking out the owner.
#[derive(Debug, Default)]
pub struct Brake(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    by_address: HashMap<IpAddr, Window>,
    by_name: HashMap<String, Window>,
    /// Names and addresses that have logged in: the owner at home is not slowed down by strangers.
    at_home: HashMap<(String, IpAddr), u64>,
}

/// When the last failures were, as many as it takes to be braked.
#[derive(Clone, Debug, Default)]
struct Window(VecDeque<u64>);

impl Window {
    fn count(&mut self, most: usize, ticks: u64) {
        self.0.push_back(ticks);
        if self.0.len() > most {
            self.0.pop_front();
        }
    }

    /// As many as `most` lie within the last minute.
    fn is_full(&self, most: usize, ticks: u64) -> bool {
        self.0.len() >= most
            && self
                .0
                .front()
                .is_some_and(|&oldest| is_fresh(oldest, ticks))
    }

    fn latest(&self) -> u64 {
        self.0.back().copied().unwrap_or_default()
    }
}

fn is_fresh(failure: u64, ticks: u64) -> bool {
    ticks < failure.saturating_add(WINDOW_MILLIS)
}

/// What the brake says before a login is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Judge it.
    Free,
    /// Judge it after two seconds: its name is under attack, and this address has never logged in as it.
    Slow,
    /// Answer 454 unjudged.
    Stop,
}

/// Failures from one address within [`WINDOW_MILLIS`] after which it is stopped.
const ADDRESS_FAILURES: usize = 5;
/// Failures for one name after which strangers to it are slowed down.
const NAME_FAILURES: usize = 20;
const WINDOW_MILLIS: u64 = 60_000;
const AT_HOME_MILLIS: u64 = 24 * 3_600_000;
const MAX_TRACKED: usize = 20_000;

impl Brake {
    /// What to do with a login from `address` as `name`.
    #[must_use]
    pub fn pace(&self, address: IpAddr, name: &str, ticks: u64) -> Pace {
        let key = block(address);
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |window: Option<&Window>, most| {
            window.is_some_and(|window| window.is_full(most, ticks))
        };
        if over(failures.by_address.get(&key), ADDRESS_FAILURES) {
            return Pace::Stop;
        }
        let at_home = failures
            .at_home
            .get(&(name.to_owned(), key))
            .is_some_and(|until| ticks < *until);
        if !at_home && over(failures.by_name.get(&name_key(name)), NAME_FAILURES) {
            return Pace::Slow;
        }
        Pace::Free
    }

    /// A login was wrong.
    pub fn failed(&self, address: IpAddr, name: &str, ticks: u64) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.make_room(ticks);
        let by_address = failures.by_address.entry(block(address)).or_default();
        by_address.count(ADDRESS_FAILURES, ticks);
        let by_name = failures.by_name.entry(name_key(name)).or_default();
        by_name.count(NAME_FAILURES, ticks);
    }

    /// A login was right.
    pub fn succeeded(&self, address: IpAddr, name: &str, ticks: u64) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.make_room(ticks);
        failures
            .at_home
            .insert((name.to_owned(), block(address)), ticks + AT_HOME_MILLIS);
    }
}

impl Failures {
    /// Forgets what no longer matters; where an attacker fills the tables, the oldest goes.
    fn make_room(&mut self, ticks: u64) {
        let fresh = |window: &Window| is_fresh(window.latest(), ticks);
        if self.by_address.len() >= MAX_TRACKED {
            self.by_address.retain(|_, window| fresh(window));
            drop_oldest(&mut self.by_address, Window::latest);
        }
        if self.by_name.len() >= MAX_TRACKED {
            self.by_name.retain(|_, window| fresh(window));
            drop_oldest(&mut self.by_name, Window::latest);
        }
        if self.at_home.len() >= MAX_TRACKED {
            self.at_home.retain(|_, until| ticks < *until);
            drop_oldest(&mut self.at_home, |until| *until);
        }
    }
}

fn drop_oldest<K: Clone + Eq + std::hash::Hash, V>(
    table: &mut HashMap<K, V>,
    age: impl Fn(&V) -> u64,
) {
    if table.len() >= MAX_TRACKED
        && let Some(oldest) = table
            .iter()
            .min_by_key(|(_, value)| age(value))
            .map(|(key, _)| key.clone())
    {
        table.remove(&oldest);
    }
}

/// Long enough for any name; a guesser may send longer ones.
fn name_key(name: &str) -> String {
    name.chars().take(128).collect()
}

/// An IPv6 peer has a /64 to itself.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Forwarded, Gate, Tenant};

    fn account(
        name: &str,
        username: Option<&str>,
        networks: &[&str],
        senders: &[&str],
    ) -> Arc<Account> {
        let tenant = Tenant {
            name: "contoso".into(),
            id: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
            accepted_domains: Default::default(),
            originator_orgs: Default::default(),
            gate: Gate::Enforce,
            proofs: 2,
            secret_header: None,
            forwarded_senders: Forwarded::Refuse,
            loop_header: None,
        };
        Arc::new(Account {
            application: Arc::new(Application {
                name: name.into(),
                username: username.map(str::to_owned),
                tenant: Arc::new(tenant),
                senders: senders
                    .iter()
                    .map(|sender| sender.parse().unwrap())
                    .collect(),
                internal: false,
                stream: None,
                bounces_to: None,
            }),
            password_hash: username.map(|_| Secret::new(password_auth::generate_hash("right"))),
            networks: networks
                .iter()
                .map(|block| block.parse().unwrap())
                .collect(),
            rate: None,
        })
    }

    fn login(username: &str, password: &str) -> Login {
        Login {
            username: username.to_owned(),
            password: Secret::new(password),
        }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_password_is_checked_and_then_remembered_for_ten_minutes() {
        let accounts = Accounts::new(
            vec![account("erp", Some("erp"), &["10.0.0.0/8"], &[])],
            [7; 32],
        );
        assert!(
            accounts
                .remembered(&login("erp", "right"), Some(HERE), 0)
                .is_none()
        );
        assert!(
            accounts
                .check(&login("erp", "wrong"), Some(HERE), 0)
                .is_none()
        );
        assert!(
            accounts
                .check(&login("nobody", "right"), Some(HERE), 0)
                .is_none()
        );
        assert!(
            accounts
                .check(&login("erp", "right"), Some(THERE), 0)
                .is_none(),
            "outside its networks"
        );
        assert!(
            accounts
                .check(&login("erp", "right"), Some(HERE), 0)
                .is_some()
        );
        assert!(
            accounts
                .remembered(&login("erp", "right"), Some(HERE), KNOWN_MILLIS - 1)
                .is_some()
        );
        assert!(
            accounts
                .remembered(&login("erp", "right"), Some(THERE), 1)
                .is_none(),
            "outside its networks"
        );
        assert!(
            accounts
                .remembered(&login("erp", "wrong"), Some(HERE), 1)
                .is_none()
        );
        assert!(
            accounts
                .remembered(&login("erp", "right"), Some(HERE), KNOWN_MILLIS)
                .is_none()
        );
    }

    #[test]
    fn the_hash_of_nobody_is_one_that_takes_time_to_check() {
        let parsed = password_auth::verify_password("x", NOBODY);
        assert!(
            matches!(parsed, Err(password_auth::VerifyError::PasswordInvalid)),
            "{parsed:?}"
        );
    }

    #[test]
    fn an_address_is_an_application_by_its_sender() {
        let accounts = Accounts::new(
            vec![
                account("a", None, &["10.1.0.0/16"], &["a@contoso.com"]),
                account("b", None, &["10.1.2.0/24"], &["b@contoso.com"]),
                account("c", Some("c"), &["10.0.0.0/8"], &["c@contoso.com"]),
            ],
            [7; 32],
        );
        let by =
            |address, sender: &str| match accounts.by_address(address, &sender.parse().unwrap()) {
                ByAddress::Application(application) => format!("is {}", application.name),
                ByAddress::SenderNotAllowed(_) => "not this sender".to_owned(),
                ByAddress::Unknown => "unknown".to_owned(),
            };
        assert_eq!(by(HERE, "b@contoso.com"), "is b");
        assert_eq!(
            by("::ffff:10.1.2.3".parse().unwrap(), "a@contoso.com"),
            "is a"
        );
        assert_eq!(by(HERE, "c@contoso.com"), "not this sender");
        assert_eq!(by(HERE, ""), "not this sender");
        assert_eq!(by(THERE, "a@contoso.com"), "unknown");
        let of = |name: &str| {
            let mut all = accounts.iter().map(|account| &account.application);
            Application::clone(all.find(|own| *own.name == *name).unwrap())
        };
        let c = of("c");
        let again = |application: &Application| accounts.renewed(application).is_some();
        assert!(again(&c));
        assert!(!again(&of("a")), "its address is its login");
        for other in [
            Application {
                name: "d".into(),
                ..c.clone()
            },
            Application {
                username: Some("another".to_owned()),
                ..c.clone()
            },
            Application {
                tenant: Arc::new(Tenant {
                    name: "fabrikam".into(),
                    ..Tenant::clone(&c.tenant)
                }),
                ..c.clone()
            },
        ] {
            assert!(!again(&other), "{other:?}");
        }
    }

    #[test]
    fn a_rate_allows_its_burst_and_then_its_pace() {
        let rates = Rates::default();
        let rate = Rate {
            messages: 3,
            per: Duration::from_secs(60),
        };
        let taken = |ticks| rates.take("erp", rate, ticks);
        assert!(taken(0) && taken(0) && taken(0));
        assert!(!taken(0));
        assert!(!taken(19_999));
        assert!(taken(20_000));
        assert!(!taken(20_001));
        assert!(taken(1_000_000) && taken(1_000_000) && taken(1_000_000));
        assert!(!taken(1_000_000));
    }

    #[test]
    fn guessing_stops_an_address_and_slows_strangers_to_a_name() {
        let brake = Brake::default();
        brake.succeeded(HERE, "erp", 0);
        for _ in 0..ADDRESS_FAILURES {
            assert_eq!(brake.pace(THERE, "erp", 0), Pace::Free);
            brake.failed(THERE, "erp", 0);
        }
        assert_eq!(brake.pace(THERE, "erp", 1), Pace::Stop);
        assert_eq!(brake.pace(THERE, "other", 1), Pace::Stop);
        assert_eq!(brake.pace(HERE, "erp", 1), Pace::Free);
        assert_eq!(brake.pace(THERE, "erp", WINDOW_MILLIS), Pace::Free);
        for guess in 0..NAME_FAILURES {
            brake.failed(
                IpAddr::from([203, 0, 113, u8::try_from(guess).unwrap()]),
                "erp",
                2,
            );
        }
        assert_eq!(
            brake.pace(IpAddr::from([198, 51, 100, 9]), "erp", 3),
            Pace::Slow
        );
        assert_eq!(brake.pace(HERE, "erp", 3), Pace::Free, "the owner at home");
    }

    #[test]
    fn a_minute_is_any_minute_and_not_one_that_began_with_a_failure() {
        let brake = Brake::default();
        brake.failed(THERE, "erp", 0);
        for late in 59_000..59_003 {
            brake.failed(THERE, "erp", late);
        }
        assert_eq!(brake.pace(THERE, "erp", 60_500), Pace::Free);
        brake.failed(THERE, "erp", 60_500);
        assert_eq!(brake.pace(THERE, "erp", 60_501), Pace::Free, "four");
        brake.failed(THERE, "erp", 60_501);
        assert_eq!(brake.pace(THERE, "erp", 60_502), Pace::Stop);
        assert_eq!(brake.pace(THERE, "erp", 118_999), Pace::Stop);
        assert_eq!(brake.pace(THERE, "erp", 119_000), Pace::Free);
    }

    #[test]
    fn the_brake_keeps_a_bounded_memory() {
        let brake = Brake::default();
        for number in 0..(MAX_TRACKED as u32 + 100) {
            brake.failed(IpAddr::from(number.to_be_bytes()), &number.to_string(), 0);
        }
        let failures = brake.0.lock().unwrap();
        assert!(failures.by_address.len() <= MAX_TRACKED && failures.by_name.len() <= MAX_TRACKED);
    }
}
