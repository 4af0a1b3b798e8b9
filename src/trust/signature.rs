//! Could a DKIM signature prove the tenant, and did one? (product.md 3, "Tenant"; RFC 6376)
//!
//! DKIM is asked last and only where its answer can change the verdict, for it costs look-ups and the whole body. So the
//! header section is read here first: which signatures are of a kind that may count ([`Signature`]), and of whom. The
//! answer comes back from outside as [`DkimFacts`]; what it means is decided when [`Pending`](super::Pending) is concluded.
//!
//! This reader is stricter than a verifier has to be: what it does not take counts as absent, and its reading and that of
//! the verifying library must agree before a signature proves anything.

use crate::header::Examined;
use crate::mail::Domain;

/// Signatures that are looked at in one message (product.md 3).
pub const MAX_SIGNATURES: usize = 4;
/// A larger message is not read again for its signature, which counts as absent (product.md 3).
pub const MAX_SIGNED_SIZE: u64 = 32 * 1024 * 1024;

/// A `DKIM-Signature` field that may count: readable, of a known algorithm, over From: and the whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    value: Vec<u8>,
    domain: Domain,
    selector: String,
    identity: Option<Domain>,
}

impl Signature {
    /// The field's value as it arrived, folding kept, without the last CRLF.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// `d=`: who signed.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// `s=`: which of the domain's keys.
    #[must_use]
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// The domain of `i=`, which lies in [`domain`](Self::domain); the same where there is no `i=`.
    #[must_use]
    pub fn identity(&self) -> &Domain {
        self.identity.as_ref().unwrap_or(&self.domain)
    }

    /// Where the key lies in DNS (RFC 6376 §3.6.2.1).
    #[must_use]
    pub fn key_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// Reads a field value. Without `l=`: a signature over a part of the body lets anybody append to it.
    fn read(value: &[u8]) -> Option<Self> {
        let tags = TagList::read(value)?;
        let word = |name: &str| tags.get(name).map(str::to_ascii_lowercase);
        if tags.get("v") != Some("1") || tags.get("l").is_some() {
            return None;
        }
        // Whoever reads `t=1 l=0` leniently finds an l=.
        let is_number =
            |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        if !["t", "x"]
            .iter()
            .all(|name| tags.get(name).is_none_or(is_number))
        {
            return None;
        }
        // RFC 8301 §3.1: rsa-sha1 proves nothing any more. RFC 8463: ed25519-sha256.
        if !matches!(word("a").as_deref(), Some("rsa-sha256" | "ed25519-sha256")) {
            return None;
        }
        let domain = host_name(tags.get("d")?)?;
        let selector = host_name(tags.get("s")?)?.as_str().to_owned();
        // RFC 6376 §5.4: From: must be signed.
        let mut signed = tags.get("h")?.split(':').map(str::trim);
        if !signed.any(|name| name.eq_ignore_ascii_case("from")) {
            return None;
        }
        let identity = match tags.get("i") {
            None => None,
            Some(identity) => Some(identity_within(identity, &domain)?),
        };
        let filled = |name: &str| tags.get(name).is_some_and(|value| !value.is_empty());
        (filled("b") && filled("bh")).then(|| Self {
            value: value.to_vec(),
            domain,
            selector,
            identity,
        })
    }
}

/// RFC 6376 §3.5: the domain of `i=` is that of `d=` or below it.
fn identity_within(identity: &str, domain: &Domain) -> Option<Domain> {
    let own = host_name(identity.rsplit_once('@')?.1)?;
    let within = own.as_str() == domain.as_str()
        || own
            .as_str()
            .strip_suffix(domain.as_str())
            .is_some_and(|parent| parent.ends_with('.'));
    within.then_some(own)
}

/// Plain ASCII (a U-label stands as its A-label, RFC 8616 §5), no address literal.
fn host_name(text: &str) -> Option<Domain> {
    if !text.is_ascii() || text.starts_with('[') {
        return None;
    }
    text.parse().ok()
}

/// The signatures of a message that may count, from top to bottom.
pub(super) fn of(header: &Examined) -> Vec<Signature> {
    header
        .named("DKIM-Signature")
        .filter_map(|field| Signature::read(field.value()))
        .collect()
}

/// A tag-list (RFC 6376 §3.2), of a signature or of a key record.
#[derive(Debug)]
pub struct TagList<'a>(Vec<(&'a str, &'a str)>);

impl<'a> TagList<'a> {
    /// Reads one; `None` where it breaks the grammar or a tag stands twice, which makes the whole list invalid. In other letters
    /// it is another tag (RFC 6376 §3.2), but not to every reader: that is taken for twice as well.
    #[must_use]
    pub fn read(text: &'a [u8]) -> Option<Self> {
        let is_fit = |octet: u8| octet.is_ascii_graphic() || b" \t\r\n".contains(&octet);
        let text = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.bytes().all(is_fit))?;
        let mut tags: Vec<(&str, &str)> = Vec::new();
        let mut parts = text.split(';').map(trimmed).peekable();
        while let Some(part) = parts.next() {
            // The last tag may end in a semicolon, and no other may be empty.
            if part.is_empty() && parts.peek().is_none() && !tags.is_empty() {
                break;
            }
            let (name, value) = part.split_once('=')?;
            let (name, value) = (trimmed(name), trimmed(value));
            let good = name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name
                    .chars()
                    .all(|other| other.is_ascii_alphanumeric() || other == '_');
            let twice = tags
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name));
            if !good || twice {
                return None;
            }
            tags.push((name, value));
        }
        Some(Self(tags))
    }

    /// The value of a tag, without blanks at its ends. Names are compared with case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| *value)
    }

    /// The name of the first tag.
    #[must_use]
    pub fn first(&self) -> Option<&'a str> {
        self.0.first().map(|(name, _)| *name)
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

/// What became of one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureFact {
    /// It holds.
    Verified,
    /// It does not, or its key does not exist: as good as absent. With the reason.
    Failed(String),
    /// Nobody can say now: the key could not be looked up, or there was no room or time. With the reason.
    Unavailable(String),
}

/// The answer to the question that a [`Pending`](super::Pending) verdict asks: one fact for each signature, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimFacts(pub Vec<SignatureFact>);

impl DkimFacts {
    /// Nothing was looked at, and it counts as absent.
    #[must_use]
    pub fn absent(why: &str, signatures: &[Signature]) -> Self {
        let fact = SignatureFact::Failed(why.to_owned());
        Self(vec![fact; signatures.len()])
    }

    /// Nothing could be looked at.
    #[must_use]
    pub fn unavailable(why: &str, signatures: &[Signature]) -> Self {
        let fact = SignatureFact::Unavailable(why.to_owned());
        Self(vec![fact; signatures.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "v=1; a=rsa-sha256; c=relaxed/relaxed; d=Contoso.com; s=selector1;\r\n\th=From:Date:Subject;\r\n\tbh=abc=; b=de\r\n f=";

    #[test]
    fn a_signature_that_may_count_is_read() {
        let signature = Signature::read(GOOD.as_bytes()).unwrap();
        assert_eq!(signature.domain().as_str(), "contoso.com");
        assert_eq!(signature.identity().as_str(), "contoso.com");
        assert_eq!(signature.key_name(), "selector1._domainkey.contoso.com");
        assert_eq!(signature.value(), GOOD.as_bytes());
        for (from, to) in [
            ("rsa-sha256", "ed25519-sha256"),
            ("s=selector1", "s=a.b; i=ada@contoso.com"),
            ("s=selector1", "s=a; i=@sub.Contoso.com"),
            ("b=de\r\n f=", "b=x;\r\n\t"),
            ("From:Date", "date : FROM"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert!(Signature::read(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn what_may_not_count_is_left_aside() {
        for (from, to) in [
            ("v=1", "v=2"),
            ("v=1; ", ""),
            ("v=1", "v=1; l=100"),
            ("v=1", "v=1; l=0"),
            ("v=1", "v=1; t=1 l=0"),
            ("v=1", "v=1; x="),
            ("v=1", "v=1; d=contoso.com"),
            ("v=1", "v=1; H=Date"),
            ("v=1", "v=1; z=\u{1}"),
            ("v=1", "v=1;; q=dns/txt"),
            ("v=1", "v=1; =x"),
            ("v=1", "v=1; x"),
            ("v=1", "v=1; i=ada@fabrikam.com"),
            ("v=1", "v=1; i=ada@xcontoso.com"),
            ("v=1", "v=1; i=contoso.com"),
            ("rsa-sha256", "rsa-sha1"),
            ("a=rsa-sha256; ", ""),
            ("d=Contoso.com", "d=contoso.com."),
            ("d=Contoso.com", "d=[192.0.2.1]"),
            ("d=Contoso.com", "d=con toso.com"),
            ("d=Contoso.com", "D=contoso.com"),
            ("d=Contoso.com", "d=\u{441}ontoso.com"),
            ("From:", "X-From:"),
            ("b=de\r\n f=", "b="),
            ("bh=abc=; ", ""),
            ("s=selector1;", ""),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            assert_eq!(Signature::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Signature::read(b""), None);
    }
}
