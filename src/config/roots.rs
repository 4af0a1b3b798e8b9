//! Which roots does a chain have to lead to: the system's with the Microsoft set that we ship, or a PEM file's?

use super::{identity, pem};
use crate::trust::certificate::Roots;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::path::Path;

/// The public roots of Microsoft 365, for machines whose own set is old or has dropped one (certs/README.md).
const MICROSOFT: &[u8] = include_bytes!("../../certs/microsoft-roots.pem");

/// `"system"`. Certificates of the system that are not usable as roots are left out, as every TLS library does.
pub(super) fn system() -> Roots {
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a root certificate of the system is not readable");
    }
    let mut anchors: Vec<TrustAnchor<'static>> = microsoft();
    for certificate in &native.certs {
        if let Some(anchor) = anchor(certificate).filter(|anchor| !anchors.contains(anchor)) {
            anchors.push(anchor);
        }
    }
    Roots { anchors }
}

/// The set that we ship.
fn microsoft() -> Vec<TrustAnchor<'static>> {
    let certificates = pem::certificates(MICROSOFT).unwrap_or_default();
    certificates.iter().filter_map(anchor).collect()
}

/// The certificates of a PEM file, all of which must be usable.
pub(super) fn from_file(path: &Path) -> Result<Roots, String> {
    let mut anchors = Vec::new();
    for (index, certificate) in identity::certificates(path)?.iter().enumerate() {
        let anchor = anchor(certificate);
        anchors.push(anchor.ok_or_else(|| {
            format!(
                "certificate {} of {} cannot be used as a root",
                index + 1,
                path.display()
            )
        })?);
    }
    Ok(Roots { anchors })
}

fn anchor(certificate: &CertificateDer<'_>) -> Option<TrustAnchor<'static>> {
    webpki::anchor_from_trusted_cert(certificate)
        .ok()
        .map(|anchor| anchor.to_owned())
}

/// Whether one of `roots` has this name (DER, with its SEQUENCE header, which an anchor leaves out).
pub(super) fn holds(roots: &Roots, name: &[u8]) -> bool {
    let content = match name.get(1) {
        Some(long) if long & 0x80 != 0 => name.get(2 + usize::from(long & 0x7f)..),
        Some(_) => name.get(2..),
        None => None,
    };
    content.is_some_and(|content| {
        roots
            .anchors
            .iter()
            .any(|anchor| anchor.subject.as_ref() == content)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject as _;
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn the_shipped_set_is_usable_whole_and_holds_the_roots_of_microsoft_365() {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(MICROSOFT)
            .map(Result::unwrap)
            .collect();
        assert_eq!(microsoft().len(), certificates.len());
        let names: Vec<String> = certificates
            .iter()
            .map(|der| {
                X509Certificate::from_der(der)
                    .unwrap()
                    .1
                    .subject()
                    .to_string()
            })
            .collect();
        for name in [
            "CN=DigiCert Global Root CA",
            "CN=DigiCert Global Root G2",
            "OU=GlobalSign Root CA - R3",
            "CN=Microsoft RSA Root Certificate Authority 2017",
            "CN=Microsoft ECC Root Certificate Authority 2017",
        ] {
            assert!(
                names.iter().any(|subject| subject.contains(name)),
                "{name} in {names:?}"
            );
        }
    }

    #[test]
    fn each_shipped_root_stands_below_its_own_fingerprint() {
        use sha2::{Digest, Sha256};
        let text = std::str::from_utf8(MICROSOFT).unwrap();
        let written: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# SHA-256 "))
            .map(|hex| hex.replace(':', "").to_lowercase())
            .collect();
        let computed: Vec<String> = CertificateDer::pem_slice_iter(MICROSOFT)
            .map(|der| {
                Sha256::digest(der.unwrap())
                    .iter()
                    .map(|octet| format!("{octet:02x}"))
                    .collect()
            })
            .collect();
        assert_eq!(written, computed);
    }

    #[test]
    fn a_root_is_found_by_its_name() {
        let der = CertificateDer::pem_slice_iter(MICROSOFT)
            .next()
            .unwrap()
            .unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let roots = Roots {
            anchors: microsoft(),
        };
        assert!(holds(&roots, certificate.subject().as_raw()));
        assert!(!holds(&roots, b"\x30\x00"));
        assert!(!holds(&roots, b""));
    }

    #[test]
    fn system_roots_hold_the_shipped_set_once() {
        let roots = system();
        for own in microsoft() {
            assert_eq!(
                roots
                    .anchors
                    .iter()
                    .filter(|anchor| **anchor == own)
                    .count(),
                1
            );
        }
    }
}
