//! Mailboxes and paths of the envelope (RFC 5321 §4.1.2, RFC 6531 for SMTPUTF8).

use super::domain::{Domain, DomainError, DomainPattern};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A mailbox as it was written, with its domain made comparable.
///
/// The text goes to the next hop byte for byte; equality folds the case of the domain only (RFC 5321 §2.4).
#[derive(Clone)]
pub struct Mailbox {
    text: Arc<str>,
    local_length: usize,
    domain: Domain,
}

/// Why a text is not a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// No `@`, or nothing before it.
    NoLocalPart,
    /// The local part is longer than 64 octets (RFC 5321 §4.5.3.1.1) or the whole longer than 254.
    TooLong,
    /// An octet that neither a dot-string nor a quoted string may hold.
    Invalid,
    /// The domain is none.
    Domain(DomainError),
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLocalPart => f.write_str("not an address: no local part"),
            Self::TooLong => f.write_str("address too long"),
            Self::Invalid => f.write_str("not an address"),
            Self::Domain(why) => write!(f, "not an address: {why}"),
        }
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::NoLocalPart)?;
        if local.is_empty() {
            return Err(AddressError::NoLocalPart);
        }
        // SRS and VERP senders pass 64 octets in real life; the whole stays bounded.
        if local.len() > 128 || text.len() > 320 {
            return Err(AddressError::TooLong);
        }
        if !(is_dot_string(local) || is_quoted_string(local)) {
            return Err(AddressError::Invalid);
        }
        let domain = domain.parse().map_err(AddressError::Domain)?;
        Ok(Self {
            text: text.into(),
            local_length: local.len(),
            domain,
        })
    }
}

/// Dot-string of RFC 5321, lenient about misplaced dots, which real systems have; UTF-8 as RFC 6531 allows.
fn is_dot_string(local: &str) -> bool {
    local
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b) || b >= 0x80)
}

fn is_quoted_string(local: &str) -> bool {
    let Some(inner) = local
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return false;
    };
    let mut octets = inner.bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'\\' if octets.next().is_some_and(|next| (32..127).contains(&next)) => {}
            b'\\' | b'"' => return false,
            32..=126 | 0x80.. => {}
            _ => return false,
        }
    }
    true
}

impl Mailbox {
    /// The mailbox that every domain has (RFC 5321 §4.5.1).
    #[must_use]
    pub fn postmaster(domain: &Domain) -> Self {
        Self {
            text: format!("postmaster@{domain}").into(),
            local_length: "postmaster".len(),
            domain: domain.clone(),
        }
    }

    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the last `@`.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.text.get(..self.local_length).unwrap_or_default()
    }

    /// The domain, comparable.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether the next hop must offer SMTPUTF8 for this address (RFC 6531 §3.4).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.text.is_ascii()
    }
}

impl PartialEq for Mailbox {
    fn eq(&self, other: &Self) -> bool {
        self.local_part() == other.local_part() && self.domain == other.domain
    }
}

impl Eq for Mailbox {}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The envelope sender (RFC 5321 §4.1.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`: reports and automatic replies, which nobody may answer.
    Null,
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless null.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

impl FromStr for ReversePath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text {
            "" => Ok(Self::Null),
            mailbox => mailbox.parse().map(Self::Mailbox),
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// An entry of a list of addresses: `x@contoso.com`, `*@contoso.com`, `*.contoso.com`, or `<>` for the null sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxPattern {
    /// The null reverse-path.
    NullSender,
    /// One mailbox; the local part compares without case, as Exchange does.
    Mailbox(Mailbox),
    /// Every mailbox of these domains.
    Domain(DomainPattern),
}

impl MailboxPattern {
    /// Whether `mailbox` is meant by this entry.
    #[must_use]
    pub fn matches(&self, mailbox: &Mailbox) -> bool {
        match self {
            Self::NullSender => false,
            Self::Mailbox(own) => {
                own.domain == mailbox.domain
                    && own.local_part().to_lowercase() == mailbox.local_part().to_lowercase()
            }
            Self::Domain(pattern) => pattern.matches(&mailbox.domain),
        }
    }
}

impl FromStr for MailboxPattern {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "<>" {
            return Ok(Self::NullSender);
        }
        match text.strip_prefix("*@") {
            Some(domain) => domain
                .parse()
                .map(Self::Domain)
                .map_err(AddressError::Domain),
            None if text.contains('@') => text.parse().map(Self::Mailbox),
            None => text.parse().map(Self::Domain).map_err(AddressError::Domain),
        }
    }
}

impl fmt::Display for MailboxPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NullSender => f.write_str("<>"),
            Self::Mailbox(mailbox) => write!(f, "{mailbox}"),
            Self::Domain(pattern) => write!(f, "*@{pattern}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailbox_keeps_its_text_and_compares_its_domain_without_case() {
        let mailbox: Mailbox = "Bob.Müller@Contoso.COM".parse().unwrap();
        assert_eq!(mailbox.as_str(), "Bob.Müller@Contoso.COM");
        assert!(mailbox.needs_smtputf8());
        assert_eq!(mailbox, "Bob.Müller@contoso.com".parse().unwrap());
        assert_ne!(mailbox, "bob.Müller@contoso.com".parse().unwrap());
    }

    #[test]
    fn quoted_local_parts_are_understood() {
        let mailbox: Mailbox = "\"a@b \\\" c\"@contoso.com".parse().unwrap();
        assert_eq!(mailbox.domain().as_str(), "contoso.com");
        assert!("\"a\"b\"@contoso.com".parse::<Mailbox>().is_err());
        assert!("a b@contoso.com".parse::<Mailbox>().is_err());
        assert!("a\r\n@contoso.com".parse::<Mailbox>().is_err());
        assert!("@contoso.com".parse::<Mailbox>().is_err());
    }

    #[test]
    fn patterns() {
        let any: MailboxPattern = "*@billing.contoso.com".parse().unwrap();
        assert!(any.matches(&"x@Billing.contoso.com".parse().unwrap()));
        assert!(!any.matches(&"x@contoso.com".parse().unwrap()));
        let one: MailboxPattern = "ERP@contoso.com".parse().unwrap();
        assert!(one.matches(&"erp@contoso.com".parse().unwrap()));
        assert_eq!("<>".parse(), Ok(MailboxPattern::NullSender));
    }
}
