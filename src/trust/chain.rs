//! What does a chain of certificates say, link by link?
//!
//! Facts for people: `check` and the `certificate` commands show them and judge by them. What a peer's chain is worth is
//! [`super::certificate::judge`]'s to say.

use super::certificate::{Role, Unreadable};
use crate::mail::printable;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;

/// A chain, leaf first, as a file holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Leaf first.
    pub links: Vec<Link>,
}

/// One certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Whose it is, printable.
    pub subject: String,
    /// Who signed it, as it says itself, printable.
    pub issuer: String,
    /// Hexadecimal octets with colons.
    pub serial: String,
    /// Of the whole certificate; hexadecimal, lower case.
    pub sha256: String,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
    /// `ECDSA P-256`, `RSA 2048`.
    pub key: String,
    /// Whether it may sign certificates (basicConstraints).
    pub authority: bool,
    /// Extended key usage.
    pub usage: Usage,
    /// SAN dNSNames and addresses, as written.
    pub alternative_names: Vec<String>,
    /// Subject CN, the most specific.
    #[serde(skip)]
    pub common_name: Option<String>,
    /// How it stands to the next certificate of the file.
    pub signer: Signer,
    /// DER of the names, to compare them.
    #[serde(skip)]
    names: (Vec<u8>, Vec<u8>),
}

/// Extended key usage (RFC 5280 §4.2.1.12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// No such extension: any use.
    Absent,
    /// What it names.
    Named {
        /// serverAuth.
        server: bool,
        /// clientAuth.
        client: bool,
        /// Anything else.
        other: bool,
    },
}

impl Usage {
    /// Whether a certificate with it may be shown so.
    #[must_use]
    pub fn allows(&self, role: Role) -> bool {
        match *self {
            Self::Absent => true,
            Self::Named { server, client, .. } => server || client && role == Role::Client,
        }
    }
}

/// Who signed a certificate of a chain, as far as the chain tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signer {
    /// The next certificate: it has the issuer's name, and its key verifies the signature.
    Next,
    /// The next certificate has another name: one is missing, or the order is wrong.
    NotNext,
    /// The next certificate has the issuer's name and another key: an older or newer one of the same authority.
    NextHasAnotherKey,
    /// Itself: a root, which nobody needs in a chain.
    Itself,
    /// It is the last of the file: a root that whoever verifies must have.
    Beyond,
}

impl Chain {
    /// Reads each certificate.
    ///
    /// # Errors
    /// There is none, or one (counted from 0) is not X.509.
    pub fn read(certificates: &[CertificateDer<'_>]) -> Result<Self, (usize, Unreadable)> {
        let mut parsed = Vec::with_capacity(certificates.len());
        for (index, der) in certificates.iter().enumerate() {
            match X509Certificate::from_der(der) {
                Ok(([], certificate)) => parsed.push((der, certificate)),
                _ => return Err((index, Unreadable)),
            }
        }
        if parsed.is_empty() {
            return Err((0, Unreadable));
        }
        let next = parsed.iter().skip(1).map(Some).chain([None]);
        let links = parsed.iter().zip(next);
        let links = links.map(|((der, certificate), next)| link(der, certificate, next));
        Ok(Self {
            links: links.collect(),
        })
    }

    /// The first certificate that the next one did not sign, said in words.
    #[must_use]
    pub fn disorder(&self) -> Option<String> {
        let named = self.links.iter().enumerate();
        named.into_iter().find_map(|(index, link)| {
            let (number, issuer) = (index + 2, &link.issuer);
            match link.signer {
                Signer::Itself if index + 1 == self.links.len() => None,
                Signer::NotNext | Signer::Itself => Some(format!(
                    "certificate {number} is not the issuer ({issuer}) of the one before it: leaf first, then every intermediate in order"
                )),
                Signer::NextHasAnotherKey => Some(format!(
                    "certificate {number} has the name of the issuer ({issuer}) of the one before it, but its key did not sign that one: an older or newer certificate of the same authority"
                )),
                Signer::Next | Signer::Beyond => None,
            }
        })
    }

    /// Who signed the last certificate, as DER and in words; `None` where it signed itself.
    #[must_use]
    pub fn beyond(&self) -> Option<(&[u8], &str)> {
        let last = self.links.last()?;
        (last.signer == Signer::Beyond).then_some((&last.names.1, &last.issuer))
    }

    /// The first certificate that is not valid at this time (seconds since 1970), counted from 1.
    #[must_use]
    pub fn outside_dates(&self, unix_seconds: u64) -> Option<(usize, &Link)> {
        let mut numbered = (1..).zip(&self.links);
        numbered.find(|(_, link)| !link.is_valid_at(unix_seconds))
    }

    /// The first certificate, counted from 1, whose extended key usage does not let the leaf be shown so: that of an
    /// authority holds for what it signs.
    #[must_use]
    pub fn forbids(&self, role: Role) -> Option<(usize, &Link)> {
        let mut numbered = (1..).zip(&self.links);
        numbered.find(|(_, link)| !link.usage.allows(role))
    }

    /// Whether a certificate of the chain that is no root has this name (DER).
    #[must_use]
    pub fn holds_intermediate(&self, name: &[u8]) -> bool {
        let mut above = self.links.iter().skip(1);
        above.any(|link| link.signer != Signer::Itself && link.names.0 == name)
    }
}

impl Link {
    /// Reads the leaf of a chain and nothing above it.
    ///
    /// # Errors
    /// The chain is empty or its leaf is not readable as X.509.
    pub fn leaf(chain: &[CertificateDer<'_>]) -> Result<Self, Unreadable> {
        let der = chain.first().ok_or(Unreadable)?;
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(link(der, &certificate, None)),
            _ => Err(Unreadable),
        }
    }

    /// Whether it is within its dates.
    #[must_use]
    pub fn is_valid_at(&self, unix_seconds: u64) -> bool {
        (self.not_before..=self.not_after).contains(&unix_seconds)
    }

    /// The subject as DER.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.names.0
    }
}

type Parsed<'a> = (&'a CertificateDer<'a>, X509Certificate<'a>);

fn link(der: &CertificateDer<'_>, own: &X509Certificate<'_>, next: Option<&Parsed<'_>>) -> Link {
    let seconds =
        |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or_default();
    let raw = |name: &x509_parser::x509::X509Name<'_>| name.as_raw().to_vec();
    let validity = own.validity();
    Link {
        subject: printable(&own.subject().to_string()),
        issuer: printable(&own.issuer().to_string()),
        serial: own.raw_serial_as_string(),
        sha256: hexadecimal(&Sha256::digest(der)),
        not_before: seconds(validity.not_before),
        not_after: seconds(validity.not_after),
        key: key(own),
        authority: own.is_ca(),
        usage: usage(own),
        alternative_names: alternative_names(own),
        common_name: common_name(own),
        signer: signer(own, next),
        names: (raw(own.subject()), raw(own.issuer())),
    }
}

fn signer(own: &X509Certificate<'_>, next: Option<&Parsed<'_>>) -> Signer {
    if own.issuer().as_raw() == own.subject().as_raw() {
        return Signer::Itself;
    }
    match next {
        None => Signer::Beyond,
        Some((_, next)) if next.subject().as_raw() != own.issuer().as_raw() => Signer::NotNext,
        Some((der, _)) if signed(own, der) => Signer::Next,
        Some(_) => Signer::NextHasAnotherKey,
    }
}

/// Whether the key of `issuer` verifies the signature of `own`, by an algorithm that TLS knows here.
fn signed(own: &X509Certificate<'_>, issuer: &CertificateDer<'_>) -> bool {
    let Ok(issuer) = EndEntityCert::try_from(issuer) else {
        return false;
    };
    let (content, signature) = (own.tbs_certificate.as_ref(), &own.signature_value.data);
    let mut known = webpki::ALL_VERIFICATION_ALGS.iter();
    known.any(|algorithm| {
        let verified = issuer.verify_signature(*algorithm, content, signature);
        verified.is_ok()
    })
}

fn key(own: &X509Certificate<'_>) -> String {
    let info = own.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", curve_bits(point.key_size())),
        _ if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => format!("kind {}", info.algorithm.algorithm),
    }
}

/// A point of P-521 fills 66 octets.
fn curve_bits(bits: usize) -> usize {
    if bits == 528 { 521 } else { bits }
}

fn usage(own: &X509Certificate<'_>) -> Usage {
    match own.extended_key_usage() {
        Ok(None) => Usage::Absent,
        Ok(Some(extension)) => Usage::Named {
            server: extension.value.server_auth,
            client: extension.value.client_auth,
            other: extension.value.any
                || extension.value.code_signing
                || extension.value.email_protection
                || extension.value.time_stamping
                || extension.value.ocsp_signing
                || !extension.value.other.is_empty(),
        },
        Err(_) => Usage::Named {
            server: false,
            client: false,
            other: true,
        },
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "TLS compares host names and addresses; other kinds of names say nothing to it"
)]
fn alternative_names(own: &X509Certificate<'_>) -> Vec<String> {
    let extension = own.subject_alternative_name().ok().flatten();
    let names = extension
        .iter()
        .flat_map(|extension| &extension.value.general_names);
    let shown = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => address(octets),
        _ => None,
    });
    shown.collect()
}

fn common_name(own: &X509Certificate<'_>) -> Option<String> {
    let name = own.subject().iter_common_name().last()?;
    name.as_str().ok().map(str::to_owned)
}

fn address(octets: &[u8]) -> Option<String> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).to_string());
    let v6 = <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).to_string());
    v4.or(v6).ok()
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::certificates::{Authority, Leaf};

    fn read(certificates: &[CertificateDer<'_>]) -> Chain {
        Chain::read(certificates).unwrap()
    }

    #[test]
    fn a_whole_chain_is_told_link_by_link() {
        let authority = Authority::new("Lab").unwrap();
        let leaf = Leaf::named("contoso.com").and("127.0.0.1");
        let issued = authority.issue(&leaf.server_auth_only()).unwrap();
        let chain = read(&issued.chain);
        let [leaf, intermediate] = &chain.links[..] else {
            panic!("{chain:?}")
        };
        assert_eq!(leaf.subject, "CN=contoso.com");
        assert_eq!(leaf.issuer, intermediate.subject);
        assert_eq!(leaf.alternative_names, ["contoso.com", "127.0.0.1"]);
        assert_eq!(leaf.key, "ECDSA P-256");
        assert_eq!(leaf.sha256.len(), 64);
        let only_server = Usage::Named {
            server: true,
            client: false,
            other: false,
        };
        assert_eq!(leaf.usage, only_server);
        assert!(!leaf.authority && intermediate.authority);
        assert_eq!(leaf.signer, Signer::Next);
        assert_eq!(intermediate.signer, Signer::Beyond);
        assert_eq!(chain.disorder(), None);
        assert_eq!(chain.beyond().unwrap().1, "CN=Lab Root");
    }

    #[test]
    fn a_name_of_an_authority_does_not_act_on_a_terminal() {
        let evil = Authority::new("Lab\u{1b}[31m\u{7}\u{202e}\u{2028}").unwrap();
        let issued = evil.issue(&Leaf::named("contoso.com")).unwrap();
        let chain = read(&issued.chain);
        let told = format!(
            "{:?}",
            chain
                .links
                .iter()
                .map(|link| format!("{} {}", link.subject, link.issuer))
                .collect::<String>()
        );
        assert!(told.contains("u{1b}[31m"), "{told}");
        for link in &chain.links {
            let names = format!("{}{}", link.subject, link.issuer);
            assert!(
                names.is_ascii() && !names.contains(char::is_control),
                "{names:?}"
            );
        }
    }

    #[test]
    fn a_superfluous_root_is_seen_and_ends_the_chain() {
        let authority = Authority::new("Lab").unwrap();
        let mut certificates = authority.issue(&Leaf::named("contoso.com")).unwrap().chain;
        let root = authority.roots().unwrap().roots[0].subject.to_vec();
        assert!(!read(&certificates).holds_intermediate(&root));
        let pem = authority.pem();
        let root = <CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
            pem.as_bytes(),
        );
        certificates.push(root.unwrap());
        let chain = read(&certificates);
        let signers: Vec<Signer> = chain.links.iter().map(|link| link.signer).collect();
        assert_eq!(signers, [Signer::Next, Signer::Next, Signer::Itself]);
        assert_eq!((chain.disorder(), chain.beyond()), (None, None));
    }

    #[test]
    fn a_wrong_order_and_a_namesake_are_told_apart() {
        let authority = Authority::new("Lab").unwrap();
        let good = authority.issue(&Leaf::named("contoso.com")).unwrap().chain;
        let turned = read(&[good[1].clone(), good[0].clone()]);
        assert_eq!(turned.links[0].signer, Signer::NotNext);
        assert!(turned.disorder().unwrap().contains("in order"));
        // Renewed with the same name and another key.
        let namesake = Authority::new("Lab").unwrap();
        let other = namesake.issue(&Leaf::named("contoso.com")).unwrap().chain;
        let mixed = read(&[good[0].clone(), other[1].clone()]);
        assert_eq!(mixed.links[0].signer, Signer::NextHasAnotherKey);
        assert!(mixed.disorder().unwrap().contains("did not sign"));
    }

    #[test]
    fn what_is_no_certificate_is_told_by_its_place() {
        let authority = Authority::new("Lab").unwrap();
        let mut certificates = authority.issue(&Leaf::named("contoso.com")).unwrap().chain;
        certificates.push(CertificateDer::from(vec![0x30, 0]));
        assert_eq!(Chain::read(&certificates), Err((2, Unreadable)));
        assert_eq!(Chain::read(&[]), Err((0, Unreadable)));
    }
}
