//! Which certificates does the lab need, and who signs them?
//!
//! A throw-away authority with an intermediate, as public CAs have, so that a chain sent without it is a fault that
//! shows. Keys are ECDSA P-256: a thousand times faster to make than RSA. Validity is fixed, so no clock is read.

use super::LabError;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
    PublicKeyData, date_time_ymd,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, TrustAnchor};
use std::time::Duration;

/// What ends a certificate in PEM.
const END: &str = "-----END CERTIFICATE-----\n";

/// The name that Exchange Online shows in both directions (subject CN, and SAN).
pub const EXCHANGE_NAME: &str = "mail.protection.outlook.com";

const START_OF_2020: u64 = 1_577_836_800;
const START_OF_2021: u64 = 1_609_459_200;
const START_OF_2024: u64 = 1_704_067_200;
const START_OF_2044: u64 = 2_335_219_200;

/// A certification authority that lives as long as the lab: a root and one intermediate.
pub struct Authority {
    root: Issuing,
    intermediate: Issuing,
    intermediate_name: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// What a certificate shall say.
#[derive(Clone, Debug)]
pub struct Leaf {
    common_name: String,
    alternative_names: Vec<String>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    /// Seconds since 1970.
    valid: (u64, u64),
}

impl Leaf {
    /// A certificate with this name in CN and SAN, for servers and clients.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            common_name: name.to_owned(),
            alternative_names: vec![name.to_owned()],
            usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            valid: (START_OF_2024, START_OF_2044),
        }
    }

    /// The certificate of Exchange Online.
    #[must_use]
    pub fn exchange() -> Self {
        Self::named(EXCHANGE_NAME).and("*.mail.protection.outlook.com")
    }

    /// A further name or address in SAN.
    #[must_use]
    pub fn and(mut self, name: &str) -> Self {
        self.alternative_names.push(name.to_owned());
        self
    }

    /// Only serverAuth: what public CAs issue since May 2026.
    #[must_use]
    pub fn server_auth_only(mut self) -> Self {
        self.usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self
    }

    /// Only clientAuth.
    #[must_use]
    pub fn client_auth_only(mut self) -> Self {
        self.usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self
    }

    /// For programs, and not for TLS.
    #[must_use]
    pub fn code_signing_only(mut self) -> Self {
        self.usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        self
    }

    /// The name in the subject CN alone.
    #[must_use]
    pub fn without_alternative_names(mut self) -> Self {
        self.alternative_names.clear();
        self
    }

    /// Ran out in 2021.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.valid = (START_OF_2020, START_OF_2021);
        self
    }

    /// Runs out at this moment (seconds since 1970).
    #[must_use]
    pub fn until(mut self, unix_seconds: u64) -> Self {
        self.valid.1 = unix_seconds;
        self
    }
}

/// An intermediate that a leaf should not be signed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Above {
    /// It runs out at this moment (seconds since 1970).
    Until(u64),
    /// It is valid from this moment on.
    From(u64),
    /// Its extended key usage is emailProtection alone.
    ForEmail,
    /// Its name constraints permit `elsewhere.example` alone.
    ForElsewhere,
}

/// A chain with its key.
pub struct Issued {
    /// Leaf first, then the intermediate.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    chain_pem: String,
    key_pem: String,
}

impl Clone for Issued {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            chain_pem: self.chain_pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl Issued {
    /// The chain in PEM, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The key in PEM; it protects nothing but a lab.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The leaf alone: the commonest mistake with a certificate, for Exchange never fetches what is missing.
    #[must_use]
    pub fn without_intermediate(mut self) -> Self {
        self.chain.truncate(1);
        if let Some(end) = self.chain_pem.find(END) {
            self.chain_pem.truncate(end + END.len());
        }
        self
    }
}

impl Authority {
    /// A new root with this name, and its intermediate.
    ///
    /// # Errors
    /// No key could be made.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let root = CertifiedIssuer::self_signed(authority(&format!("{name} Root")), key()?)
            .map_err(certificate)?;
        let intermediate_name = format!("{name} Issuing CA");
        let below = authority(&intermediate_name);
        let intermediate = CertifiedIssuer::signed_by(below, key()?, &root).map_err(certificate)?;
        Ok(Self {
            root,
            intermediate,
            intermediate_name,
        })
    }

    /// Signs a certificate.
    ///
    /// # Errors
    /// A name that no certificate can hold, or no key could be made.
    pub fn issue(&self, leaf: &Leaf) -> Result<Issued, LabError> {
        issued(leaf, &self.intermediate)
    }

    /// Signs a certificate by another intermediate of the same name.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_below(&self, leaf: &Leaf, above: Above) -> Result<Issued, LabError> {
        let mut params = authority(&self.intermediate_name);
        match above {
            Above::Until(end) => params.not_after = moment(end),
            Above::From(begin) => params.not_before = moment(begin),
            Above::ForEmail => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
            }
            Above::ForElsewhere => {
                params.name_constraints = Some(NameConstraints {
                    permitted_subtrees: vec![GeneralSubtree::DnsName("elsewhere.example".into())],
                    excluded_subtrees: Vec::new(),
                });
            }
        }
        let above = CertifiedIssuer::signed_by(params, key()?, &self.root).map_err(certificate)?;
        issued(leaf, &above)
    }

    /// Signs a certificate for somebody else's key; the chain in PEM, leaf first.
    ///
    /// # Errors
    /// A name that no certificate can hold.
    pub fn certify(&self, leaf: &Leaf, key: &impl PublicKeyData) -> Result<String, LabError> {
        let signed = signed(leaf, key, &self.intermediate)?;
        Ok(format!("{}{}", signed.pem(), self.intermediate.pem()))
    }

    /// The root in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.root.pem()
    }

    /// A set of trusted roots that holds this one.
    ///
    /// # Errors
    /// rustls does not like the certificate.
    pub fn roots(&self) -> Result<RootCertStore, LabError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.root.der().clone())
            .map_err(|error| LabError::Certificate(error.to_string()))?;
        Ok(roots)
    }

    /// The same set with further anchors, and with the end of each of these chains: a rehearsal trusts the
    /// administrator's own authority. A chain of one certificate that did not sign itself proves nothing even so: its
    /// intermediate is missing, and Exchange never fetches one.
    ///
    /// # Errors
    /// rustls does not like the root.
    pub fn roots_and(
        &self,
        anchors: &[TrustAnchor<'static>],
        chains: &[&[CertificateDer<'static>]],
    ) -> Result<RootCertStore, LabError> {
        let mut roots = self.roots()?;
        roots.extend(anchors.iter().cloned());
        let ends = chains.iter().filter_map(|chain| chain.last()).cloned();
        let (_, unreadable) = roots.add_parsable_certificates(ends);
        if unreadable > 0 {
            tracing::debug!(unreadable, "ends of chains that are no certificates");
        }
        Ok(roots)
    }
}

type Issuing = CertifiedIssuer<'static, KeyPair>;

fn issued(leaf: &Leaf, by: &Issuing) -> Result<Issued, LabError> {
    let key = key()?;
    let signed = signed(leaf, &key, by)?;
    Ok(Issued {
        chain_pem: format!("{}{}", signed.pem(), by.pem()),
        key_pem: key.serialize_pem(),
        chain: vec![signed.der().clone(), by.der().clone()],
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    })
}

fn signed(leaf: &Leaf, key: &impl PublicKeyData, by: &Issuing) -> Result<Certificate, LabError> {
    let mut params = CertificateParams::new(leaf.alternative_names.clone()).map_err(certificate)?;
    params.distinguished_name = common_name(&leaf.common_name);
    params.not_before = moment(leaf.valid.0);
    params.not_after = moment(leaf.valid.1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages.clone_from(&leaf.usages);
    params.use_authority_key_identifier_extension = true;
    params.signed_by(key, by).map_err(certificate)
}

fn moment(unix_seconds: u64) -> time::OffsetDateTime {
    date_time_ymd(1970, 1, 1) + Duration::from_secs(unix_seconds)
}

fn key() -> Result<KeyPair, LabError> {
    KeyPair::generate().map_err(certificate)
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2044, 1, 1);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn certificate(error: rcgen::Error) -> LabError {
    LabError::Certificate(error.to_string())
}
