//! Which names does a certificate carry, does its chain hold, and do the names match? (product.md 3)
//!
//! The handshake never fails for trust: what a client presented is judged here, after it, on every connection anew. The
//! TLS provider has verified by then that the peer holds the key (RFC 8446 §4.4.3); this room asks whose key it is.

use crate::mail::{Domain, shown};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime,
};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Which side of a handshake shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that connects: clientAuth or serverAuth will do, for public authorities issue no clientAuth since 2026.
    Client,
    /// The one that listens: serverAuth.
    Server,
}

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
    /// Whether the chain ends at, or right below, a root that the system or the Microsoft set holds, as far as names tell.
    pub known_root: bool,
    /// The files that it was read from; `None` where it was made in memory.
    pub origin: Option<Origin>,
}

/// Where an [`Identity`] was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `chain`.
    pub chain: PathBuf,
    /// `key`.
    pub key: PathBuf,
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
            known_root: false,
            origin: None,
        })
    }

    /// Whether one of its names is, or by a wildcard label covers, `domain`.
    #[must_use]
    pub fn covers(&self, domain: &Domain) -> bool {
        self.names.iter().any(|name| name_covers(name, domain))
    }

    /// Whether a client that looks takes it for the server `name`: by the SAN alone, which it must (RFC 9525 §6.3), where
    /// [`Identity::covers`] takes the subject CN as well.
    #[must_use]
    pub fn serves(&self, name: &str) -> bool {
        let leaf = self.chain.first();
        let leaf = leaf.and_then(|leaf| EndEntityCert::try_from(leaf).ok());
        let name = ServerName::try_from(name);
        leaf.zip(name.ok())
            .is_some_and(|(leaf, name)| leaf.verify_is_valid_for_subject_name(&name).is_ok())
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
            .filter_map(|name| {
                if let GeneralName::DNSName(name) = name {
                    Some((*name).to_owned())
                } else {
                    None
                }
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

/// The last judgement of one set of roots and names. [`judge`] asks nothing but its arguments, so that for the same octets in
/// the same second it says the same: Exchange opens many connections at once with one certificate, and each has its
/// signatures checked once a second instead of each time.
#[derive(Debug, Default)]
pub struct LastJudged(Mutex<Option<(u64, Vec<CertificateDer<'static>>, ClientCertificate)>>);

impl LastJudged {
    /// As [`judge`], always with the same `roots` and `names`.
    #[must_use]
    pub fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        roots: &Roots,
        names: &[Domain],
        unix_seconds: u64,
    ) -> ClientCertificate {
        let last = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((second, known, verdict)) = &*last()
            && *second == unix_seconds
            && known == chain
        {
            return verdict.clone();
        }
        let verdict = judge(chain, roots, names, unix_seconds);
        let chain = chain.iter().map(|own| own.clone().into_owned()).collect();
        *last() = Some((unix_seconds, chain, verdict.clone()));
        verdict
    }
}

/// The public key of a certificate that rustls-webpki cannot read, and [`holds`] therefore calls [`WhyAbsent::Malformed`]: X.509
/// version 1, an unknown critical extension. The handshake's signature can be verified by it, and nothing more: whatever a
/// verdict goes by is read by webpki. None for every other certificate, and where it is no X.509 at all.
#[must_use]
pub fn key_of_unreadable(
    certificate: &CertificateDer<'_>,
) -> Option<SubjectPublicKeyInfoDer<'static>> {
    if EndEntityCert::try_from(certificate).is_ok() {
        return None;
    }
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.public_key().raw.to_vec().into())
}

fn judged(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    names: &[Domain],
    unix_seconds: u64,
) -> Result<Arc<str>, WhyAbsent> {
    holds(chain, roots, unix_seconds, Role::Client)?;
    let leaf = chain.first().ok_or(WhyAbsent::NotPresented)?;
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

/// The half of [`judge`] that asks for no name: does the chain lead to `roots` at `unix_seconds`, and may it be shown so?
///
/// # Errors
/// Why not.
pub fn holds(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    unix_seconds: u64,
    role: Role,
) -> Result<(), WhyAbsent> {
    let (leaf, intermediates) = chain.split_first().ok_or(WhyAbsent::NotPresented)?;
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| WhyAbsent::Malformed)?;
    let verified = end_entity.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &roots.anchors,
        intermediates,
        UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds)),
        Allowed(role),
        None,
        None,
    );
    verified.map(drop).map_err(|error| why(&error))
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

/// Key usage absent, or what the role asks for: public CAs stopped issuing clientAuth in 2026, and webpki's own
/// `KeyUsage::client_auth` would refuse Exchange's next certificate.
struct Allowed(Role);

/// id-kp-serverAuth and id-kp-clientAuth (RFC 5280 §4.2.1.12), the contents of their DER.
const SERVER_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
const CLIENT_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);

impl ExtendedKeyUsageValidator for Allowed {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?;
            if purpose == SERVER_AUTH || purpose == CLIENT_AUTH && self.0 == Role::Client {
                return Ok(());
            }
            present.push(purpose.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = match self.0 {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        Err(webpki::Error::RequiredEkuNotFoundContext(
            webpki::RequiredEkuNotFoundContext { required, present },
        ))
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "webpki's error is open; what is not named is a bad chain"
)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
        IsCa, Issuer, KeyPair, date_time_ymd,
    };

    const NOW: u64 = 1_795_594_533;
    const EXCHANGE: &str = "mail.protection.outlook.com";

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        der: CertificateDer<'static>,
    }

    fn authority_params(name: &str) -> CertificateParams {
        let mut params = params(&[], Some(name));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn root(name: &str) -> Authority {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().clone();
        Authority {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    impl Authority {
        fn intermediate(&self, name: &str) -> Self {
            let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
            let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
            Self {
                issuer: Issuer::new(params, key),
                der,
            }
        }

        fn issue(&self, params: &CertificateParams) -> CertificateDer<'static> {
            params
                .signed_by(&KeyPair::generate().unwrap(), &self.issuer)
                .unwrap()
                .der()
                .clone()
        }

        fn roots(&self) -> Roots {
            let (roots, unreadable) = Roots::from_certificates([&self.der]);
            assert_eq!(unreadable, 0);
            roots
        }
    }

    fn params(sans: &[&str], common_name: Option<&str>) -> CertificateParams {
        let sans: Vec<String> = sans.iter().map(|&san| san.to_owned()).collect();
        let mut params = CertificateParams::new(sans).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params
    }

    fn with_usage(usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
        let mut params = params(&[EXCHANGE], None);
        params.extended_key_usages = usages.to_vec();
        params
    }

    fn says(chain: &[CertificateDer<'_>], roots: &Roots) -> ClientCertificate {
        judge(
            chain,
            roots,
            &[EXCHANGE.parse().unwrap(), "contoso.com".parse().unwrap()],
            NOW,
        )
    }

    /// The verdict on a leaf that a trusted root signed.
    fn leaf(params: &CertificateParams) -> ClientCertificate {
        let root = root("Root");
        says(&[root.issue(params)], &root.roots())
    }

    fn verified(name: &str) -> ClientCertificate {
        ClientCertificate::Verified { name: name.into() }
    }

    fn mismatch(names: &str) -> ClientCertificate {
        ClientCertificate::Absent(WhyAbsent::NameMismatch {
            names: names.to_owned(),
        })
    }

    #[test]
    fn key_usage_absent_or_for_client_or_server_is_taken() {
        use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
        for usages in [
            &[][..],
            &[ClientAuth],
            &[ServerAuth],
            &[CodeSigning, ServerAuth],
        ] {
            assert_eq!(leaf(&with_usage(usages)), verified(EXCHANGE), "{usages:?}");
        }
        for usages in [&[CodeSigning][..], &[ExtendedKeyUsagePurpose::Any]] {
            assert_eq!(
                leaf(&with_usage(usages)),
                ClientCertificate::Absent(WhyAbsent::WrongKeyUsage),
                "{usages:?}"
            );
        }
    }

    #[test]
    fn what_is_remembered_is_what_would_be_judged_and_only_for_its_octets_and_its_second() {
        let (root, other) = (root("Root"), root("Root"));
        let good = root.issue(&params(&[EXCHANGE], None));
        let foreign = other.issue(&params(&[EXCHANGE], None));
        let (roots, names) = (root.roots(), [EXCHANGE.parse().unwrap()]);
        let last = LastJudged::default();
        let end = u64::try_from(date_time_ymd(2027, 1, 1).unix_timestamp()).unwrap();
        let mut seen = std::collections::HashSet::new();
        for second in [NOW, NOW, NOW + 1, end - 1, end, end + 1, end, NOW] {
            for chain in [
                &[good.clone()][..],
                std::slice::from_ref(&good),
                &[good.clone(), foreign.clone()],
                std::slice::from_ref(&foreign),
                &[],
            ] {
                let verdict = last.judge(chain, &roots, &names, second);
                assert_eq!(verdict, judge(chain, &roots, &names, second), "{second}");
                seen.insert(format!("{verdict:?}"));
            }
        }
        assert!(seen.len() >= 4, "{seen:?}");
        // Asked again within the second no signature is checked: no root is needed any more.
        let chain = [good];
        let first = last.judge(&chain, &roots, &names, NOW);
        assert_eq!(first, verified(EXCHANGE));
        let again = |second| last.judge(&chain, &Roots::default(), &names, second);
        assert_eq!(again(NOW), first);
        let unknown = ClientCertificate::Absent(WhyAbsent::UnknownIssuer);
        assert_eq!(again(NOW + 1), unknown);
    }

    #[test]
    fn the_chain_must_lead_to_a_configured_root() {
        let (root, other) = (root("Root"), root("Root"));
        let issued = root.issue(&params(&[EXCHANGE], None));
        // The other root has the same name and another key.
        assert!(matches!(
            says(std::slice::from_ref(&issued), &other.roots()),
            ClientCertificate::Absent(WhyAbsent::UnknownIssuer | WhyAbsent::BadChain)
        ));
        assert_eq!(
            says(std::slice::from_ref(&issued), &Roots::default()),
            ClientCertificate::Absent(WhyAbsent::UnknownIssuer)
        );
        let key = KeyPair::generate().unwrap();
        let self_signed = params(&[EXCHANGE], None)
            .self_signed(&key)
            .unwrap()
            .der()
            .clone();
        assert_eq!(
            says(&[self_signed], &root.roots()),
            ClientCertificate::Absent(WhyAbsent::UnknownIssuer)
        );
        assert_eq!(
            says(&[], &root.roots()),
            ClientCertificate::Absent(WhyAbsent::NotPresented)
        );
    }

    #[test]
    fn intermediates_are_used_and_needed() {
        let root = root("Root");
        let intermediate = root.intermediate("Issuing CA");
        let issued = intermediate.issue(&params(&[EXCHANGE], None));
        assert_eq!(
            says(&[issued.clone(), intermediate.der.clone()], &root.roots()),
            verified(EXCHANGE)
        );
        assert_eq!(
            says(&[issued], &root.roots()),
            ClientCertificate::Absent(WhyAbsent::UnknownIssuer)
        );
    }

    #[test]
    fn a_leaf_cannot_sign_another() {
        let root = root("Root");
        let (leaf_params, key) = (
            params(&["evil.example"], Some("evil.example")),
            KeyPair::generate().unwrap(),
        );
        let leaf = leaf_params
            .signed_by(&key, &root.issuer)
            .unwrap()
            .der()
            .clone();
        let forged = Authority {
            issuer: Issuer::new(leaf_params, key),
            der: leaf.clone(),
        };
        let chain = [forged.issue(&params(&[EXCHANGE], None)), leaf];
        assert_eq!(
            says(&chain, &root.roots()),
            ClientCertificate::Absent(WhyAbsent::BadChain)
        );
    }

    #[test]
    fn dates_are_judged_at_the_moment_given() {
        let mut expired = params(&[EXCHANGE], None);
        expired.not_after = date_time_ymd(2026, 11, 25);
        assert_eq!(
            leaf(&expired),
            ClientCertificate::Absent(WhyAbsent::Expired)
        );
        let mut early = params(&[EXCHANGE], None);
        early.not_before = date_time_ymd(2026, 11, 26);
        assert_eq!(
            leaf(&early),
            ClientCertificate::Absent(WhyAbsent::NotYetValid)
        );
    }

    #[test]
    fn the_common_name_counts_only_where_there_is_no_dns_name() {
        assert_eq!(leaf(&params(&[], Some(EXCHANGE))), verified(EXCHANGE));
        assert_eq!(
            leaf(&params(&["evil.example"], Some(EXCHANGE))),
            mismatch("evil.example")
        );
        assert_eq!(
            leaf(&params(&["192.0.2.1"], Some(EXCHANGE))),
            verified(EXCHANGE),
            "an address is no dNSName"
        );
        assert_eq!(leaf(&params(&[], None)), mismatch(""));
        assert!(!leaf(&params(&[], Some("\u{ff4d}ail.protection.outlook.com"))).is_verified());
    }

    #[test]
    fn an_unreadable_subject_alternative_name_does_not_fall_back_to_the_common_name() {
        let mut params = params(&[], Some(EXCHANGE));
        params.custom_extensions = vec![CustomExtension::from_oid_content(
            &[2, 5, 29, 17],
            vec![0x30, 0x05, 0x82],
        )];
        assert!(!leaf(&params).is_verified());
    }

    #[test]
    fn one_of_several_names_is_enough_and_is_told() {
        assert_eq!(
            leaf(&params(&["a.example", "Contoso.COM", EXCHANGE], None)),
            verified("Contoso.COM")
        );
        assert_eq!(
            leaf(&params(&["a.example", "b.example"], None)),
            mismatch("a.example, b.example")
        );
    }

    #[test]
    fn a_wildcard_stands_for_one_label_and_only_in_the_certificate() {
        assert_eq!(
            leaf(&params(&["*.protection.outlook.com"], None)),
            verified("*.protection.outlook.com")
        );
        assert_eq!(
            leaf(&params(&["*.outlook.com"], None)),
            mismatch("*.outlook.com")
        );
        let covers = |name: &str, domain: &str| name_covers(name, &domain.parse().unwrap());
        assert!(covers("*.contoso.com", "a.contoso.com"));
        assert!(!covers("*.contoso.com", "contoso.com"));
        assert!(!covers("*.contoso.com", "a.b.contoso.com"));
        assert!(!covers("a*.contoso.com", "ab.contoso.com"));
        assert!(!covers("a.*.com", "a.contoso.com"));
        assert!(!covers("*", "contoso"));
        assert!(!covers("contoso.com.", "contoso.com"));
        assert!(!covers("contoso.com\0.evil.example", "contoso.com"));
        assert!(
            "*.contoso.com".parse::<Domain>().is_err(),
            "the key cannot be one"
        );
    }

    #[test]
    fn garbage_is_malformed() {
        let roots = root("Root").roots();
        for garbage in [&b""[..], b"\x30", b"\x30\x03\x02\x01\x01", &[0xff; 100]] {
            let garbage = CertificateDer::from(garbage);
            assert_eq!(
                says(std::slice::from_ref(&garbage), &roots),
                ClientCertificate::Absent(WhyAbsent::Malformed)
            );
            assert_eq!(Leaf::read(&garbage), Err(Unreadable));
        }
        assert_eq!(
            Roots::from_certificates([&CertificateDer::from(&b"\x30"[..])]).1,
            1
        );
    }

    #[test]
    fn an_identity_says_its_names_and_dates() {
        let key = KeyPair::generate().unwrap();
        let certificate = params(&["smarthost.contoso.com", "*.fabrikam.com"], None)
            .self_signed(&key)
            .unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let identity =
            Identity::new("contoso".into(), vec![certificate.der().clone()], private).unwrap();
        assert_eq!(identity.names, ["smarthost.contoso.com", "*.fabrikam.com"]);
        assert_eq!(
            (identity.not_before, identity.not_after),
            (1_767_225_600, 1_798_761_600)
        );
        assert!(identity.is_valid_at(NOW) && !identity.is_valid_at(1_798_761_601));
        assert!(identity.covers(&"a.fabrikam.com".parse().unwrap()));
        assert!(!identity.covers(&"contoso.com".parse().unwrap()));
    }
}
