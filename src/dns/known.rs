//! What if no name server answers for a while? Next hops that were found before are where they were: mail by a tenant's
//! connector or by a relay goes on to their last known addresses (RFC 8767), and TLS shows whether they still are who they were.
//!
//! For hosts that the configuration names alone. Where a domain's mail goes is asked anew each time, and waits.

use super::{Answer, DnsError, MxRecord, Resolve, literal};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// So long an answer is not asked for again: while a next hop is down every message that comes tries it, and twenty attempts
/// at once need to know where it is only once.
const FRESH: Duration = Duration::from_secs(1);
/// How long known addresses are good for (RFC 8767 §5: one to three days).
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long an answer is waited for where there are known addresses (RFC 8767 §5: 1.8 s).
const IMPATIENCE: Duration = Duration::from_millis(1_800);
/// After an answer that did not come, it is not asked for again for so long (RFC 8767 §5: 30 s).
const PAUSE: Duration = Duration::from_secs(30);
/// Hosts that are remembered: a configuration names few.
const HOSTS: usize = 1024;

/// Addresses that were found; clones share them. Outlives a reload.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<HashMap<String, Kept>>>);

#[derive(Clone, Debug)]
struct Kept {
    addresses: Vec<IpAddr>,
    found: Instant,
    /// Nobody answered then.
    in_vain: Option<Instant>,
}

impl Known {
    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, host: &str) -> Option<Kept> {
        let kept = self.hosts().get(host).cloned()?;
        (kept.found.elapsed() < LONGEST).then_some(kept)
    }

    fn note(&self, host: &str, addresses: &[IpAddr]) {
        let mut hosts = self.hosts();
        if hosts.len() >= HOSTS && !hosts.contains_key(host) {
            hosts.retain(|_, kept| kept.found.elapsed() < LONGEST);
        }
        if hosts.len() < HOSTS || hosts.contains_key(host) {
            let kept = Kept {
                addresses: addresses.to_vec(),
                found: Instant::now(),
                in_vain: None,
            };
            hosts.insert(host.to_owned(), kept);
        }
    }

    fn note_silence(&self, host: &str) {
        if let Some(kept) = self.hosts().get_mut(host) {
            kept.in_vain = Some(Instant::now());
        }
    }
}

/// A resolver that remembers.
#[derive(Debug)]
pub struct Remembering {
    asked: Arc<dyn Resolve>,
    known: Known,
}

impl Remembering {
    /// Asks `asked`, and falls back on what is known.
    #[must_use]
    pub fn new(asked: Arc<dyn Resolve>, known: Known) -> Self {
        Self { asked, known }
    }

    async fn addresses_of(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        let Some(before) = self.known.of(host) else {
            let found = self.asked.addresses(host).await?;
            self.known.note(host, &found);
            return Ok(found);
        };
        let asked_in_vain = before.in_vain.is_some_and(|then| then.elapsed() < PAUSE);
        if asked_in_vain || before.found.elapsed() < FRESH {
            return Ok(before.addresses);
        }
        let why = match timeout(IMPATIENCE, self.asked.addresses(host)).await {
            Ok(Ok(found)) => {
                self.known.note(host, &found);
                return Ok(found);
            }
            Ok(Err(error @ (DnsError::NotFound | DnsError::NoSuchName))) => {
                self.known.hosts().remove(host);
                return Err(error);
            }
            Ok(Err(DnsError::Unavailable(why))) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        self.known.note_silence(host);
        tracing::warn!(host, %why, "DNS does not answer: the last known addresses are used");
        Ok(before.addresses)
    }
}

impl Resolve for Remembering {
    fn addresses<'a>(&'a self, host: &'a str) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(async move {
            match literal(host) {
                Some(address) => Ok(vec![address]),
                None => self.addresses_of(host).await,
            }
        })
    }

    fn mail_exchangers<'a>(&'a self, domain: &'a str) -> Answer<'a, Vec<MxRecord>> {
        self.asked.mail_exchangers(domain)
    }

    fn host_records<'a>(&'a self, host: &'a str) -> Answer<'a, Vec<IpAddr>> {
        self.asked.host_records(host)
    }

    fn texts<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        self.asked.texts(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Says what it is told to say; nothing is silence.
    #[derive(Debug, Default)]
    struct Told {
        answer: Mutex<Option<Result<Vec<IpAddr>, DnsError>>>,
        asked: AtomicUsize,
    }

    impl Resolve for Told {
        fn addresses<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<IpAddr>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = self.answer.lock().unwrap().clone();
            Box::pin(async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        }

        fn mail_exchangers<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<MxRecord>> {
            unreachable!("not remembered")
        }

        fn host_records<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<IpAddr>> {
            unreachable!("not remembered")
        }

        fn texts<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
            unreachable!("not remembered")
        }
    }

    fn found(text: &str) -> Result<Vec<IpAddr>, DnsError> {
        Ok(vec![text.parse().unwrap()])
    }

    fn silent() -> DnsError {
        DnsError::Unavailable("SERVFAIL".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_used_while_nobody_answers_and_asked_for_again() {
        let told = Arc::new(Told::default());
        let say = |answer| *told.answer.lock().unwrap() = answer;
        let known = Known::default();
        let dns = Remembering::new(Arc::clone(&told) as Arc<dyn Resolve>, known.clone());
        let ask = || dns.addresses("mail.example");
        say(Some(Err(silent())));
        assert_eq!(ask().await, Err(silent()), "never found");
        say(Some(found("192.0.2.1")));
        assert_eq!(ask().await, found("192.0.2.1"));
        // An answer holds for a second, whoever asks.
        say(Some(found("192.0.2.9")));
        let before = told.asked.load(Ordering::SeqCst);
        tokio::time::advance(FRESH - Duration::from_millis(1)).await;
        assert_eq!(ask().await, found("192.0.2.1"));
        assert_eq!(told.asked.load(Ordering::SeqCst), before);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(ask().await, found("192.0.2.9"));
        say(Some(found("192.0.2.1")));
        tokio::time::advance(FRESH).await;
        assert_eq!(ask().await, found("192.0.2.1"));
        tokio::time::advance(FRESH).await;
        // Silence costs 1.8 s once, and nothing for half a minute.
        say(None);
        let begun = Instant::now();
        assert_eq!(ask().await, found("192.0.2.1"));
        assert_eq!(begun.elapsed(), IMPATIENCE);
        let before = told.asked.load(Ordering::SeqCst);
        for _ in 0..100 {
            assert_eq!(ask().await, found("192.0.2.1"));
        }
        assert_eq!(begun.elapsed(), IMPATIENCE);
        assert_eq!(told.asked.load(Ordering::SeqCst), before);
        // A reload makes another resolver of the same memory.
        let dns = Remembering::new(Arc::clone(&told) as Arc<dyn Resolve>, known);
        let ask = || dns.addresses("mail.example");
        tokio::time::advance(PAUSE).await;
        say(Some(Err(silent())));
        assert_eq!(ask().await, found("192.0.2.1"));
        tokio::time::advance(PAUSE).await;
        say(Some(found("192.0.2.2")));
        assert_eq!(ask().await, found("192.0.2.2"), "it is back");
        tokio::time::advance(FRESH).await;
        // What DNS says is not there is not there; and a day later nobody knows.
        say(Some(Err(DnsError::NotFound)));
        assert_eq!(ask().await, Err(DnsError::NotFound));
        say(Some(Err(silent())));
        assert_eq!(ask().await, Err(silent()));
        say(Some(found("192.0.2.3")));
        assert_eq!(ask().await, found("192.0.2.3"));
        tokio::time::advance(LONGEST).await;
        say(Some(Err(silent())));
        assert_eq!(ask().await, Err(silent()));
    }
}
