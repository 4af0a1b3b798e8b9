//! Does a DKIM signature hold? The only file that names mail-auth: facts come out, judgement stays in `trust`.
//!
//! [`Pending`](crate::trust::Pending) says which signatures of a message matter, at most four. Their keys are asked of our own
//! resolver; only where one is there the message is read again, as it arrived, and hashed on a blocking thread. What all
//! checks hold in memory at once is bounded, and so is the time of each; what finds no room or no time in bounds, or no
//! resolver, is *unavailable*, which makes a 451: never a pass, never a bounce.

use crate::dns::{DnsError, Resolve};
use crate::trust::{DkimFacts, MAX_SIGNED_SIZE, Signature, SignatureFact, TagList};
use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::DomainKey;
use mail_auth::{
    AuthenticatedMessage, DkimResult, Error, MessageAuthenticator, Parameters, ResolverCache, Txt,
};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What all checks at once may hold in memory, KiB (product.md 3: 64 MiB).
const MEMORY: u32 = 64 * 1024;
/// How long one check may take in all. Exchange waits for minutes, but the reply is due within half of one.
const DEADLINE: Duration = Duration::from_secs(15);

/// Verifies signatures, within bounds.
pub struct Verifier {
    resolver: ArcSwap<Arc<dyn Resolve>>,
    /// mail-auth's entry. It is handed every key beforehand and has no name server to ask.
    authenticator: MessageAuthenticator,
    memory: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    /// Keys are asked of `resolver`; at most `cores` messages are hashed at once.
    ///
    /// # Errors
    /// The library could not be set up, with the reason.
    pub fn new(resolver: Arc<dyn Resolve>, cores: usize) -> Result<Self, String> {
        let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        let silent = TokioResolver::builder_with_config(nobody, TokioRuntimeProvider::default())
            .build()
            .map_err(|error| format!("DKIM: {error}"))?;
        Ok(Self {
            resolver: ArcSwap::from_pointee(resolver),
            authenticator: MessageAuthenticator(silent),
            memory: Arc::new(Semaphore::new(MEMORY as usize)),
            turns: Arc::new(Semaphore::new(cores.max(1))),
        })
    }

    /// Asks another resolver from now on.
    pub fn reload(&self, resolver: Arc<dyn Resolve>) {
        self.resolver.store(Arc::new(resolver));
    }

    /// One fact for each signature, in order. `message` brings the `size` octets of the message as it arrived; it is only
    /// awaited where a key exists and there is room.
    ///
    /// # Errors
    /// That of `message`.
    pub async fn check<E>(
        &self,
        signatures: &[Signature],
        size: u64,
        message: impl Future<Output = Result<Vec<u8>, E>>,
    ) -> Result<DkimFacts, E> {
        let checked = timeout(DEADLINE, self.check_patiently(signatures, size, message));
        match checked.await {
            Ok(facts) => facts,
            Err(_) => Ok(DkimFacts::unavailable("no answer in time", signatures)),
        }
    }

    async fn check_patiently<E>(
        &self,
        signatures: &[Signature],
        size: u64,
        message: impl Future<Output = Result<Vec<u8>, E>>,
    ) -> Result<DkimFacts, E> {
        if size > MAX_SIGNED_SIZE {
            return Ok(DkimFacts::absent("the message is too large", signatures));
        }
        let keys = self.keys(signatures).await;
        if keys.iter().all(Result::is_err) {
            return Ok(DkimFacts(
                keys.into_iter().filter_map(Result::err).collect(),
            ));
        }
        let gone = || Ok(DkimFacts::unavailable("shutting down", signatures));
        let kibibytes = u32::try_from(size.div_ceil(1024)).unwrap_or(MEMORY);
        let memory = Arc::clone(&self.memory).acquire_many_owned(kibibytes.clamp(1, MEMORY));
        let Ok(memory) = memory.await else {
            return gone();
        };
        let message = message.await?;
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
            return gone();
        };
        let wanted: Vec<_> = signatures.iter().cloned().zip(keys).collect();
        let authenticator = self.authenticator.clone();
        let runtime = Handle::current();
        let verified = tokio::task::spawn_blocking(move || {
            // Held until the work is done, also where nobody waits for it any more.
            let _held = (memory, turn);
            runtime.block_on(verify(&authenticator, &message, wanted))
        });
        match verified.await {
            Ok(facts) => Ok(DkimFacts(facts)),
            Err(_) => Ok(DkimFacts::unavailable("the check broke off", signatures)),
        }
    }

    /// The key of each signature, or what its lack makes of it.
    async fn keys(&self, signatures: &[Signature]) -> Vec<Result<Key, SignatureFact>> {
        let mut asking = JoinSet::new();
        for (position, signature) in signatures.iter().enumerate() {
            let resolver = Arc::clone(&self.resolver.load());
            let signature = signature.clone();
            asking.spawn(async move {
                let answer = resolver.texts(&signature.key_name()).await;
                (position, key_in(answer, &signature))
            });
        }
        let lost = || {
            Err(SignatureFact::Unavailable(
                "the look-up broke off".to_owned(),
            ))
        };
        let mut keys: Vec<_> = signatures.iter().map(|_| lost()).collect();
        while let Some(asked) = asking.join_next().await {
            if let Ok((position, key)) = asked
                && let Some(place) = keys.get_mut(position)
            {
                *place = key;
            }
        }
        keys
    }
}

/// A public key that this signature may use.
type Key = Arc<DomainKey>;

/// The first record that is a usable key (RFC 6376 §3.6.2.2 leaves several undefined).
fn key_in(
    answer: Result<Vec<Vec<u8>>, DnsError>,
    signature: &Signature,
) -> Result<Key, SignatureFact> {
    let records = match answer {
        Ok(records) => records,
        Err(DnsError::NotFound | DnsError::NoSuchName) => Vec::new(),
        Err(DnsError::Unavailable(why)) => return Err(SignatureFact::Unavailable(why)),
    };
    let mut why = "no such key".to_owned();
    for record in &records {
        match key(record, signature) {
            Ok(key) => return Ok(Arc::new(key)),
            Err(reason) => why = reason,
        }
    }
    Err(SignatureFact::Failed(why))
}

/// One key record (RFC 6376 §3.6.1), and whether it is meant for this signature: for mail, for SHA-256, not only a trial.
fn key(record: &[u8], signature: &Signature) -> Result<DomainKey, String> {
    let Some(tags) = TagList::read(record) else {
        return Err("the key record is malformed".to_owned());
    };
    let lists = |tag: &str, words: &[&str]| {
        tags.get(tag)
            .map(|list| list.split(':').any(|word| words.contains(&word.trim())))
    };
    if tags.get("v").is_some() && (tags.first() != Some("v") || tags.get("v") != Some("DKIM1")) {
        return Err("the key record is of another version".to_owned());
    }
    if lists("h", &["sha256"]) == Some(false) || lists("s", &["*", "email"]) == Some(false) {
        return Err("the key is not meant for this".to_owned());
    }
    // Mail signed in testing mode is to be treated like unsigned mail.
    if lists("t", &["y"]) == Some(true) {
        return Err("the key is in testing mode".to_owned());
    }
    if lists("t", &["s"]) == Some(true) && signature.identity() != signature.domain() {
        return Err("the key does not serve sub-domains".to_owned());
    }
    // mail-auth takes `P=` for `p=`, no `k=` for any, and passes over blanks in its value.
    let filled = |tag: &str| tags.get(tag).is_some_and(|value| !value.is_empty());
    if !filled("p") {
        return Err("the key was revoked, or there is none".to_owned());
    }
    let is_known = |kind: &str| {
        ["rsa", "ed25519"]
            .iter()
            .any(|own| own.eq_ignore_ascii_case(kind))
    };
    if tags.get("k").is_some_and(|kind| !is_known(kind)) {
        return Err("the key is of a kind that is unknown here".to_owned());
    }
    DomainKey::parse(record).map_err(|error| error.to_string())
}

/// The keys, in the form in which mail-auth asks for records; whatever else it may ask for does not exist.
struct Keys(HashMap<Box<str>, Txt>);

impl ResolverCache<Box<str>, Txt> for Keys {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let none = || Txt::Error(Error::Dns(mail_auth::DnsError::InvalidRecordType));
        Some(self.0.get(name).cloned().unwrap_or_else(none))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: std::time::Instant) {}
}

/// Whether mail-auth hashes one of these fields otherwise than RFC 6376 §3.4 says, and would not notice what was put in: it
/// drops form feeds, and passes over a field with blanks before its colon.
fn is_hashed_otherwise(fields: &[(&[u8], &[u8])], signed: &[String]) -> bool {
    fields.iter().any(|(name, value)| {
        let bare = name.trim_ascii_end();
        let mut signed = signed.iter().map(String::as_bytes);
        signed.any(|own| own.eq_ignore_ascii_case(bare))
            && (bare.len() < name.len() || value.contains(&b'\x0c'))
    })
}

/// Whether mail-auth hashes these octets as if they were others: it drops every bare CR, and takes a bare LF for CRLF. Where
/// they stand, what was put in would not be noticed, and a signature that is right fails.
fn has_bare_newlines(octets: &[u8]) -> bool {
    let mut last = 0;
    octets.iter().any(|octet| {
        let before = std::mem::replace(&mut last, *octet);
        (before == b'\r') != (*octet == b'\n')
    }) || last == b'\r'
}

/// Verifies the signatures that have a key. Blocks for as long as hashing takes; nothing in it waits.
async fn verify(
    authenticator: &MessageAuthenticator,
    message: &[u8],
    wanted: Vec<(Signature, Result<Key, SignatureFact>)>,
) -> Vec<SignatureFact> {
    let failed = |why: &str| SignatureFact::Failed(why.to_owned());
    let Some(mut parsed) = AuthenticatedMessage::parse(message) else {
        return vec![failed("the message has no header section"); wanted.len()];
    };
    let uncertain = has_bare_newlines(message);
    // Of all signatures only those that were asked for are verified, each once.
    let mut there = std::mem::take(&mut parsed.dkim_headers);
    parsed.errors.clear();
    let mut keys = Keys(HashMap::new());
    let mut facts = Vec::with_capacity(wanted.len());
    let mut verifying = Vec::with_capacity(wanted.len());
    for (signature, key) in wanted {
        let found = there.iter().position(|header| {
            let value = header.value.strip_suffix(b"\r\n").unwrap_or(header.value);
            let (domain, selector) = (&*header.header.d, &*header.header.s);
            value == signature.value()
                && domain == signature.domain().as_str()
                && selector == signature.selector()
        });
        facts.push(match (key, found) {
            (Err(fact), _) => fact,
            (Ok(_), None) => failed("the signature is malformed"),
            (Ok(_), Some(_)) if uncertain => {
                failed("the body has bare CR or LF, by which no signature is verified here")
            }
            (Ok(_), Some(position))
                if there.get(position).is_some_and(|header| {
                    is_hashed_otherwise(parsed.raw_parsed_headers(), &header.header.h)
                }) =>
            {
                failed("a signed field has a form feed, or blanks before its colon")
            }
            (Ok(key), Some(position)) => {
                let name = format!("{}.", signature.key_name());
                keys.0.insert(name.into(), Txt::DomainKey(key));
                parsed.dkim_headers.push(there.swap_remove(position));
                verifying.push(facts.len());
                failed("not verified")
            }
        });
    }
    let parameters = Parameters::new(&parsed).with_txt_cache(&keys);
    let outputs = authenticator.verify_dkim(parameters).await;
    for (position, output) in verifying.into_iter().zip(&outputs) {
        if let Some(fact) = facts.get_mut(position) {
            *fact = match output.result() {
                DkimResult::Pass => SignatureFact::Verified,
                DkimResult::None => failed("no signature"),
                DkimResult::Neutral(error)
                | DkimResult::Fail(error)
                | DkimResult::PermError(error)
                | DkimResult::TempError(error) => SignatureFact::Failed(error.to_string()),
            };
        }
    }
    facts
}

#[cfg(test)]
pub(crate) mod tests;
