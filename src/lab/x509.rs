//! Which names stand in a certificate, and does its chain hold? The lab's own reading.
//!
//! A walker over DER that knows just the way to subject CN and SAN: `trust` reads certificates with a library, and an
//! oracle that asked the same library would share its mistakes. Chains are judged by rustls as Exchange judges ours:
//! a leaf with serverAuth or clientAuth or neither will do, and missing intermediates are not fetched.

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;

/// The names of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// SAN dNSName, in order.
    pub alternative: Vec<String>,
    /// Subject CN.
    pub common: Option<String>,
}

impl Names {
    /// Every name once: SAN, then CN. Exchange counts both (RELAY17 in the research: "CN or SAN").
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let mut all = self.alternative.clone();
        all.extend(
            self.common
                .iter()
                .filter(|common| !self.alternative.contains(common))
                .cloned(),
        );
        all
    }
}

/// Reads the names; `None` where the bytes are no certificate.
#[must_use]
pub fn names(certificate: &[u8]) -> Option<Names> {
    let mut outer = Reader(certificate);
    let mut signed = Reader(outer.expect(SEQUENCE)?);
    let mut body = Reader(signed.expect(SEQUENCE)?);
    let mut names = Names::default();
    let mut sequences = 0;
    while let Some((tag, value)) = body.next() {
        match tag {
            // signature algorithm, issuer, validity, subject, key
            SEQUENCE => {
                sequences += 1;
                if sequences == 4 {
                    names.common = common_name(value);
                }
            }
            EXTENSIONS => names.alternative = alternative_names(value).unwrap_or_default(),
            _ => {}
        }
    }
    (sequences >= 5).then_some(names)
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const ID_COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ID_SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

fn common_name(subject: &[u8]) -> Option<String> {
    let mut sets = Reader(subject);
    let mut found = None;
    while let Some(set) = sets.expect(SET) {
        let mut pairs = Reader(set);
        while let Some(pair) = pairs.expect(SEQUENCE) {
            let mut pair = Reader(pair);
            if pair.expect(OBJECT_IDENTIFIER)? == ID_COMMON_NAME {
                found = pair
                    .next()
                    .map(|(_, text)| String::from_utf8_lossy(text).into_owned());
            }
        }
    }
    found
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut list = Reader(Reader(extensions).expect(SEQUENCE)?);
    while let Some(extension) = list.expect(SEQUENCE) {
        let mut extension = Reader(extension);
        if extension.expect(OBJECT_IDENTIFIER)? != ID_SUBJECT_ALT_NAME {
            continue;
        }
        let content = std::iter::from_fn(|| extension.next())
            .find(|(tag, _)| *tag == OCTET_STRING)?
            .1;
        let mut names = Reader(Reader(content).expect(SEQUENCE)?);
        let texts = std::iter::from_fn(|| names.next())
            .filter(|(tag, _)| *tag == DNS_NAME)
            .map(|(_, text)| String::from_utf8_lossy(text).into_owned());
        return Some(texts.collect());
    }
    None
}

/// Tag, length, value, with definite lengths (X.690 §10.1).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let count = usize::from(first & 0x7f);
            if count > 4 {
                return None;
            }
            let (octets, after) = rest.split_at_checked(count)?;
            length = octets
                .iter()
                .fold(0, |length, octet| length << 8 | usize::from(*octet));
            rest = after;
        }
        let (value, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, value))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(tag, _)| *tag == wanted)
            .map(|(_, value)| value)
    }
}

/// Whether the chain leads to one of `roots` now.
///
/// # Errors
/// Why not, in words.
pub fn chain_holds(chain: &[CertificateDer<'_>], roots: &RootCertStore) -> Result<(), String> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err("no certificate".to_owned());
    };
    let now = UnixTime::now();
    let provider = aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
    let as_server = verify_server_cert_signed_by_trust_anchor(
        &parsed,
        roots,
        intermediates,
        now,
        algorithms.all,
    );
    let Err(fault) = as_server else { return Ok(()) };
    let as_client =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::new(provider))
            .build()
            .map(|verifier| verifier.verify_client_cert(leaf, intermediates, now));
    match as_client {
        Ok(Ok(_)) => Ok(()),
        _ => Err(super::fault::of_tls(&fault)),
    }
}

/// Whether a connector's `TlsSenderCertificateName` (`contoso.com` or `*.contoso.com`) means one of these names.
#[must_use]
pub fn connector_name_matches(wanted: &str, names: &[String]) -> bool {
    let wanted = wanted.to_ascii_lowercase();
    names.iter().any(|name| {
        let name = name.to_ascii_lowercase();
        match wanted.strip_prefix("*.") {
            Some(parent) => name
                .strip_suffix(parent)
                .is_some_and(|rest| rest.ends_with('.')),
            None => name == wanted,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::certificates::{Authority, Leaf};

    #[test]
    fn names_of_a_certificate_are_read() {
        let authority = Authority::new("Lab").unwrap();
        let issued = authority.issue(&Leaf::exchange().and("127.0.0.1")).unwrap();
        let names = names(&issued.chain[0]).unwrap();
        assert_eq!(names.common.as_deref(), Some("mail.protection.outlook.com"));
        assert_eq!(
            names.alternative,
            [
                "mail.protection.outlook.com",
                "*.mail.protection.outlook.com"
            ]
        );
        assert_eq!(names.all().len(), 2);
        assert_eq!(super::names(&issued.chain[0][..40]), None);
    }

    #[test]
    fn only_a_whole_living_chain_of_a_known_root_holds() {
        let authority = Authority::new("Lab").unwrap();
        let roots = authority.roots().unwrap();
        let good = authority
            .issue(&Leaf::named("contoso.com").server_auth_only())
            .unwrap();
        assert_eq!(chain_holds(&good.chain, &roots), Ok(()));
        assert!(chain_holds(&good.without_intermediate().chain, &roots).is_err());
        let expired = authority
            .issue(&Leaf::named("contoso.com").expired())
            .unwrap();
        assert!(
            chain_holds(&expired.chain, &roots)
                .unwrap_err()
                .contains("expired")
        );
        let stranger = Authority::new("Lab")
            .unwrap()
            .issue(&Leaf::exchange())
            .unwrap();
        assert!(chain_holds(&stranger.chain, &roots).is_err());
        assert!(chain_holds(&[], &roots).is_err());
    }

    #[test]
    fn wildcard_connector_means_what_lies_below() {
        let names = ["smtp.contoso.com".to_owned()];
        assert!(connector_name_matches("*.Contoso.com", &names));
        assert!(connector_name_matches("smtp.contoso.com", &names));
        assert!(!connector_name_matches("contoso.com", &names));
        assert!(!connector_name_matches(
            "*.contoso.com",
            &["contoso.com".to_owned()]
        ));
        assert!(!connector_name_matches(
            "*.contoso.com",
            &["evilcontoso.com".to_owned()]
        ));
    }
}
