//! PEM as people keep it (RFC 7468), read in one place for every key, option and command.
//!
//! What the library does not know as a boundary it passes over, and a chain that has lost its leaf so looks like another
//! chain. So a byte order mark is skipped, which Notepad writes and which stands in the middle where files were joined; what
//! else hides a boundary is refused.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// U+FEFF in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Every certificate, in order; none where there is none.
///
/// # Errors
/// It is not PEM, or holds a certificate that cannot be reached; in words that follow the name of the file.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = without_marks(pem);
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|_| "is not PEM".to_owned())?;
    let begun = begun(&pem);
    if begun > found.len() {
        return Err(format!(
            "holds {begun} certificates, of which only {} can be read: each -----BEGIN CERTIFICATE----- and -----END CERTIFICATE----- must be a line of its own",
            found.len()
        ));
    }
    Ok(found)
}

/// The first private key that is not encrypted.
#[must_use]
pub fn key(pem: &[u8]) -> Option<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&without_marks(pem)).ok()
}

fn without_marks(pem: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pem.len());
    let mut rest = pem;
    while let Some((&first, after)) = rest.split_first() {
        match rest.strip_prefix(MARK) {
            Some(after) => rest = after,
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

/// How many certificates begin, wherever in a line; a line that `#` begins is a remark.
fn begun(pem: &[u8]) -> usize {
    const BEGIN: [&[u8]; 3] = [
        b"-----BEGIN CERTIFICATE-----",
        b"-----BEGIN TRUSTED CERTIFICATE-----",
        b"-----BEGIN X509 CERTIFICATE-----",
    ];
    let lines = pem.split(|octet| matches!(octet, b'\n' | b'\r'));
    let lines = lines.filter(|line| !line.trim_ascii_start().starts_with(b"#"));
    let in_line = |line: &[u8]| {
        let of = |begin: &&[u8]| {
            line.windows(begin.len())
                .filter(|part| part == begin)
                .count()
        };
        BEGIN.iter().map(of).sum::<usize>()
    };
    lines.map(in_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::certificates::{Authority, Leaf};

    #[test]
    fn byte_order_marks_hide_no_certificate_and_no_key() {
        let authority = Authority::new("Lab").unwrap();
        let issued = authority.issue(&Leaf::named("contoso.com")).unwrap();
        let (leaf, above) = issued.chain_pem().split_at(issued.chain_pem().len() / 2);
        let end = "-----END CERTIFICATE-----\n";
        let at = leaf.find(end).map_or(leaf.len(), |at| at + end.len());
        let (leaf, rest) = leaf.split_at(at);
        let joined = format!("\u{feff}{leaf}\u{feff}{rest}{above}");
        let marked = format!("\u{feff}{}", issued.chain_pem());
        for pem in [
            issued.chain_pem(),
            &marked,
            &joined,
            &marked.replace('\n', "\r\n"),
        ] {
            assert_eq!(certificates(pem.as_bytes()).unwrap(), issued.chain);
        }
        let marked = format!("\u{feff}{}", issued.key_pem());
        assert_eq!(key(marked.as_bytes()).unwrap(), issued.key);
    }

    #[test]
    fn a_certificate_that_cannot_be_reached_is_no_missing_one() {
        let authority = Authority::new("Lab").unwrap();
        let issued = authority.issue(&Leaf::named("contoso.com")).unwrap();
        let pem = issued.chain_pem();
        let faults = [
            pem.replacen("-----\n-----BEGIN", "----------BEGIN", 1),
            format!("  {pem}"),
            format!("x{pem}"),
            pem.replacen(" CERTIFICATE", " TRUSTED CERTIFICATE", 2),
        ];
        for pem in &faults {
            let why = certificates(pem.as_bytes()).unwrap_err();
            assert!(
                why.starts_with("holds 2 certificates, of which only 1"),
                "{why}"
            );
        }
        let remark = format!("# -----BEGIN CERTIFICATE-----\nsubject=CN = contoso.com\n{pem}");
        assert_eq!(certificates(remark.as_bytes()).unwrap(), issued.chain);
        assert_eq!(certificates(b""), Ok(Vec::new()));
        assert!(certificates(&pem.as_bytes()[..pem.len() - 9]).is_err());
    }
}
