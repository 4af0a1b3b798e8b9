//! Which names does a certificate carry, does its chain hold, and do the names match? (product.md 3)

use crate::mail::Domain;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use std::sync::Arc;

/// Trust anchors for a chain.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// The anchors.
    pub anchors: Vec<TrustAnchor<'static>>,
}

/// The verdict on a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Chain holds, valid now, a name matches.
    Verified {
        /// The name that matched.
        name: Arc<str>,
    },
    /// No trusted identity, and why.
    Absent(WhyAbsent),
}

impl ClientCertificate {
    /// Whether the gate holds.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }
}

/// Why there is no trusted client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyAbsent {
    /// The session is not under TLS.
    NoTls,
    /// The client presented none.
    NotPresented,
    /// Not readable as X.509.
    Malformed,
    /// The chain does not lead to a configured root.
    UnknownIssuer,
    /// Not valid now.
    Expired,
    /// Not valid yet.
    NotYetValid,
    /// Its key usages allow neither client nor server authentication.
    WrongKeyUsage,
    /// Another fault of the chain (signature, constraints, depth).
    BadChain,
    /// The chain holds, no name matches; the names it carries, escaped and cut.
    NameMismatch {
        /// As shown to a person.
        names: String,
    },
}

/// A certificate chain with its key, and what the leaf says: one `[[certificate]]`.
#[derive(Debug)]
pub struct Identity {
    /// `name`.
    pub name: Arc<str>,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// SAN dNSNames, else the subject CN, as written (wildcards kept).
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
}

/// Judges what a client presented: chain to `roots` at `unix_seconds`, key usage absent, clientAuth or serverAuth, then a
/// name of the leaf (SAN dNSName; subject CN only where there is none) against `names`; a wildcard in the certificate
/// stands for one label.
#[must_use]
pub fn judge(
    _chain: &[CertificateDer<'_>],
    _roots: &Roots,
    _names: &[Domain],
    _unix_seconds: u64,
) -> ClientCertificate {
    unimplemented!()
}
