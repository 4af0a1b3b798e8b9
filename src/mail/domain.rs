//! Domain names as mail uses them (RFC 5321 §4.1.2), compared without case and as A-labels (RFC 5890).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A domain in lower-case A-labels (`contoso.com`, `xn--...`), or an address literal (`[192.0.2.1]`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

/// Why a text is not a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainError {
    /// Nothing between the dots, or nothing at all.
    Empty,
    /// Longer than 255 octets (RFC 5321 §4.5.3.1.2), or a label longer than 63.
    TooLong,
    /// A character that no host name has, or a U-label that IDNA does not allow.
    Invalid,
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty domain or label",
            Self::TooLong => "a domain longer than 255 octets or a label longer than 63",
            Self::Invalid => "not a domain name",
        })
    }
}

impl std::error::Error for DomainError {}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        if text.starts_with('[') {
            return address_literal(text);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(text).map_err(|_| DomainError::Invalid)?
        };
        if ascii.is_empty() || ascii.split('.').any(str::is_empty) {
            return Err(DomainError::Empty);
        }
        if ascii.len() > 255 || ascii.split('.').any(|label| label.len() > 63) {
            return Err(DomainError::TooLong);
        }
        let host_octet =
            |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        let good_label = |label: &str| {
            label.bytes().all(host_octet) && !label.starts_with('-') && !label.ends_with('-')
        };
        if !ascii.split('.').all(good_label) {
            return Err(DomainError::Invalid);
        }
        Ok(Self(ascii.into()))
    }
}

/// RFC 5321 §4.1.3, IPv4 and IPv6 only.
fn address_literal(text: &str) -> Result<Domain, DomainError> {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .ok_or(DomainError::Invalid)?;
    let lower = inner.to_ascii_lowercase();
    let good = match lower.strip_prefix("ipv6:") {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => lower.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    if good {
        Ok(Domain(format!("[{lower}]").into()))
    } else {
        Err(DomainError::Invalid)
    }
}

impl Domain {
    /// The name in lower-case A-labels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `parent` or lies below it, at any depth.
    #[must_use]
    pub fn is_at_or_below(&self, parent: &Self) -> bool {
        self.0
            .strip_suffix(parent.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entry of a list of domains: `contoso.com`, or `*.contoso.com` for it and everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainPattern {
    /// This domain alone.
    Exact(Domain),
    /// This domain and its sub-domains, at any depth.
    AtOrBelow(Domain),
}

impl DomainPattern {
    /// Whether `domain` is meant by this entry.
    #[must_use]
    pub fn matches(&self, domain: &Domain) -> bool {
        match self {
            Self::Exact(own) => own == domain,
            Self::AtOrBelow(parent) => domain.is_at_or_below(parent),
        }
    }

    /// The domain that the entry is written with.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        match self {
            Self::Exact(domain) | Self::AtOrBelow(domain) => domain,
        }
    }

    /// Whether some domain is meant by both entries.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.matches(other.domain()) || other.matches(self.domain())
    }
}

impl FromStr for DomainPattern {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        match text.strip_prefix("*.") {
            Some(parent) => parent.parse().map(Self::AtOrBelow),
            None => text.parse().map(Self::Exact),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => write!(f, "{domain}"),
            Self::AtOrBelow(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// A list of domain entries, as in `accepted_domains`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainSet(Vec<DomainPattern>);

impl DomainSet {
    /// The set of these entries.
    #[must_use]
    pub fn new(patterns: Vec<DomainPattern>) -> Self {
        Self(patterns)
    }

    /// Whether an entry means `domain`.
    #[must_use]
    pub fn contains(&self, domain: &Domain) -> bool {
        self.0.iter().any(|pattern| pattern.matches(domain))
    }

    /// The entries in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &DomainPattern> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    #[test]
    fn u_labels_become_a_labels_and_case_is_folded() {
        assert_eq!(domain("Bücher.Example").as_str(), "xn--bcher-kva.example");
        assert_eq!(domain("CONTOSO.com"), domain("contoso.COM"));
    }

    #[test]
    fn malformed_domains_are_refused() {
        assert_eq!("".parse::<Domain>(), Err(DomainError::Empty));
        assert_eq!("a..b".parse::<Domain>(), Err(DomainError::Empty));
        assert_eq!("a b.example".parse::<Domain>(), Err(DomainError::Invalid));
        assert_eq!("-a.example".parse::<Domain>(), Err(DomainError::Invalid));
        assert_eq!("[192.0.2.999]".parse::<Domain>(), Err(DomainError::Invalid));
        assert_eq!(
            format!("{}.example", "a".repeat(64)).parse::<Domain>(),
            Err(DomainError::TooLong)
        );
        assert!("[IPv6:2001:db8::1]".parse::<Domain>().is_ok());
    }

    #[test]
    fn sub_domain_entry_means_the_domain_and_what_lies_below() {
        let entry: DomainPattern = "*.contoso.com".parse().unwrap();
        assert!(entry.matches(&domain("a.b.contoso.com")));
        assert!(entry.matches(&domain("contoso.com")));
        assert!(!entry.matches(&domain("evilcontoso.com")));
        let exact: DomainPattern = "contoso.com".parse().unwrap();
        assert!(!exact.matches(&domain("a.contoso.com")));
    }
}
