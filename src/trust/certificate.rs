//! Which names does a certificate carry, does its chain hold, and do the names match? (product.md 3)
//!
//! The handshake never fails for trust: what a client presented is judged here, after it, on every connection anew. The
//! TLS provider has verified by then that the peer holds the key (RFC 8446 §4.4.3); this room asks whose key it is.

use crate::mail::{Domain, shown};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Trust anchors for a chain.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// The anchors.
    pub anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// The anchors of these root certificates, and how many of them could not be read as such.
    #[must_use]
    pub fn from_certificates<'a>(
        certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    ) -> (Self, usize) {
        let (mut anchors, mut unreadable) = (Vec::new(), 0);
        for certificate in certificates {
            match webpki::anchor_from_trusted_cert(certificate) {
                Ok(anchor) => anchors.push(anchor.to_owned()),
                Err(_) => unreadable += 1,
            }
        }
        (Self { anchors }, unreadable)
    }
}

/// The verdict on a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Chain holds, valid now, a name matches.
    Verified {
        /// The name that matched, as the certificate writes it.
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

impl fmt::Display for WhyAbsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTls => "no TLS",
            Self::NotPresented => "none presented",
            Self::Malformed => "not readable as X.509",
            Self::UnknownIssuer => "the chain does not lead to a trusted root",
            Self::Expired => "expired",
            Self::NotYetValid => "not valid yet",
            Self::WrongKeyUsage => "its key usage allows neither client nor server authentication",
            Self::BadChain => "the chain does not hold",
            Self::NameMismatch { names } => return write!(f, "no name matches: {names}"),
        })
    }
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

impl Identity {
    /// The identity of a loaded chain and key; whether they belong together is for the TLS library to say.
    ///
    /// # Errors
    /// The chain is empty or its leaf is not readable as X.509.
    pub fn new(
        name: Arc<str>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Unreadable> {
        let leaf = Leaf::read(chain.first().ok_or(Unreadable)?)?;
        Ok(Self {
            name,
            chain,
            key,
            names: leaf.names,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }

    /// Whether one of its names is, or by a wildcard label covers, `domain`.
    #[must_use]
    pub fn covers(&self, domain: &Domain) -> bool {
        self.names.iter().any(|name| name_covers(name, domain))
    }

    /// Whether it is within its dates.
    #[must_use]
    pub fn is_valid_at(&self, unix_seconds: u64) -> bool {
        (self.not_before..=self.not_after).contains(&unix_seconds)
    }
}

/// A certificate that is not readable as X.509.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not readable as an X.509 certificate")
    }
}

impl std::error::Error for Unreadable {}

/// What a leaf certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// SAN dNSNames; where there is none, the most specific subject CN (RFC 6125 §6.4.4). As written.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
}

impl Leaf {
    /// Reads names and dates.
    ///
    /// # Errors
    /// Not X.509, or an unreadable or repeated subjectAltName: falling back to the CN there would let a certificate
    /// choose which of its names counts.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, Unreadable> {
        let (rest, certificate) = X509Certificate::from_der(certificate).map_err(|_| Unreadable)?;
        if !rest.is_empty() {
            return Err(Unreadable);
        }
        let alternatives = certificate
            .subject_alternative_name()
            .map_err(|_| Unreadable)?;
        let mut names: Vec<String> = alternatives
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            let common_name = certificate.subject().iter_common_name().last();
            names.extend(
                common_name
                    .and_then(|name| name.as_str().ok())
                    .map(str::to_owned),
            );
        }
        let seconds = |moment: i64| u64::try_from(moment).unwrap_or(0);
        Ok(Self {
            names,
            not_before: seconds(certificate.validity().not_before.timestamp()),
            not_after: seconds(certificate.validity().not_after.timestamp()),
        })
    }
}

/// Judges what a client presented: chain to `roots` at `unix_seconds`, key usage absent, clientAuth or serverAuth, then a
/// name of the leaf (SAN dNSName; subject CN only where there is none) against `names`; a wildcard in the certificate
/// stands for one label. The issuer is never pinned.
#[must_use]
pub fn judge(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    names: &[Domain],
    unix_seconds: u64,
) -> ClientCertificate {
    match judged(chain, roots, names, unix_seconds) {
        Ok(name) => ClientCertificate::Verified { name },
        Err(why) => ClientCertificate::Absent(why),
    }
}

fn judged(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    names: &[Domain],
    unix_seconds: u64,
) -> Result<Arc<str>, WhyAbsent> {
    let (leaf, intermediates) = chain.split_first().ok_or(WhyAbsent::NotPresented)?;
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| WhyAbsent::Malformed)?;
    end_entity
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &roots.anchors,
            intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds)),
            ClientOrServer,
            None,
            None,
        )
        .map_err(|error| why(&error))?;
    let leaf = Leaf::read(leaf).map_err(|_| WhyAbsent::Malformed)?;
    match leaf
        .names
        .iter()
        .find(|name| names.iter().any(|wanted| name_covers(name, wanted)))
    {
        Some(name) => Ok(name.as_str().into()),
        None => Err(WhyAbsent::NameMismatch {
            names: shown(leaf.names.join(", ").as_bytes()),
        }),
    }
}

/// Whether a name of a certificate is `domain`, or `*.` and all but its first label. Only US-ASCII counts: a certificate
/// writes A-labels (RFC 5280 §7.2), and look-alikes in a CN must not be mapped into a match.
#[must_use]
pub fn name_covers(presented: &str, domain: &Domain) -> bool {
    if !presented.is_ascii() {
        return false;
    }
    match presented.strip_prefix("*.") {
        Some(parent) => {
            let wanted = domain.as_str().split_once('.').map(|(_, rest)| rest);
            parent
                .parse::<Domain>()
                .is_ok_and(|parent| wanted == Some(parent.as_str()))
        }
        None => presented.parse::<Domain>().is_ok_and(|own| own == *domain),
    }
}

/// Key usage absent, clientAuth or serverAuth: public CAs stopped issuing clientAuth in 2026, and webpki's own
/// `KeyUsage::client_auth` would refuse Exchange's next certificate.
struct ClientOrServer;

/// id-kp-serverAuth and id-kp-clientAuth (RFC 5280 §4.2.1.12), the contents of their DER.
const SERVER_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
const CLIENT_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);

impl ExtendedKeyUsageValidator for ClientOrServer {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?;
            if purpose == SERVER_AUTH || purpose == CLIENT_AUTH {
                return Ok(());
            }
            present.push(purpose.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = KeyUsage::client_auth();
        Err(webpki::Error::RequiredEkuNotFoundContext(
            webpki::RequiredEkuNotFoundContext { required, present },
        ))
    }
}

fn why(error: &webpki::Error) -> WhyAbsent {
    match error {
        webpki::Error::CertExpired { .. } => WhyAbsent::Expired,
        webpki::Error::CertNotValidYet { .. } => WhyAbsent::NotYetValid,
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => {
            WhyAbsent::WrongKeyUsage
        }
        webpki::Error::UnknownIssuer => WhyAbsent::UnknownIssuer,
        _ => WhyAbsent::BadChain,
    }
}
