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
    let bounds = bounds(&pem, "BEGIN").max(bounds(&pem, "END"));
    if bounds > found.len() {
        return Err(format!(
            "holds {bounds} certificates, of which only {} can be read: each -----BEGIN CERTIFICATE----- and -----END CERTIFICATE----- must be a line of its own",
            found.len()
        ));
    }
    if !is_whole(&pem) {
        return Err(BROKEN.to_owned());
    }
    Ok(found)
}

/// The first private key that is not encrypted.
#[must_use]
pub fn key(pem: &[u8]) -> Option<PrivateKeyDer<'static>> {
    let pem = without_marks(pem);
    let key = PrivateKeyDer::from_pem_slice(&pem).ok()?;
    is_whole(&pem).then_some(key)
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

/// Why the certificates of a text that is not whole are not taken.
const BROKEN: &str = "holds a block that begins before the one above it has its -----END line";

/// Whether every block ends before the next one begins. The library takes what stands in both for the content of the second.
fn is_whole(pem: &[u8]) -> bool {
    let mut open = None;
    for line in lines(pem) {
        if let Some(label) = line.strip_prefix(b"-----BEGIN ") {
            if open.is_some() {
                return false;
            }
            open = Some(label.trim_ascii_end());
        } else if let (Some(label), Some(ended)) = (open, line.strip_prefix(b"-----END "))
            && ended.starts_with(label)
        {
            open = None;
        }
    }
    true
}

fn lines(pem: &[u8]) -> impl Iterator<Item = &[u8]> {
    pem.split(|octet| matches!(octet, b'\n' | b'\r'))
}

/// How many certificates begin, or end, wherever in a line and with however many dashes and blanks: whoever copies a text loses
/// some. A line that `#` begins is a remark.
fn bounds(pem: &[u8], word: &str) -> usize {
    lines(pem)
        .map(|line| String::from_utf8_lossy(line))
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| {
            let labels = line.split(word).skip(1).filter_map(|rest| {
                let (label, _) = rest.split_once('-')?;
                Some(label.trim())
            });
            let known = ["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"];
            labels.filter(|label| known.contains(label)).count()
        })
        .sum()
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
            pem.replacen("-----BEGIN", "----BEGIN", 1),
            pem.replacen("-----BEGIN", "BEGIN", 1),
            pem.replacen("BEGIN CERTIFICATE", "BEGIN CERTIFICATE ", 1)
                .replacen("END CERTIFICATE", "END CERTIFICATE ", 1),
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
        // Copied without its first line: what ends was there.
        let headless = pem.replacen("-----BEGIN CERTIFICATE-----", "", 1);
        assert!(certificates(headless.as_bytes()).is_err());
    }

    #[test]
    fn a_block_that_does_not_end_gives_nothing_to_the_next_one() {
        let issued = Authority::new("Lab")
            .unwrap()
            .issue(&Leaf::named("contoso.com"))
            .unwrap();
        let (chain, own) = (issued.chain_pem(), issued.key_pem());
        let cut = "-----BEGIN X509 CRL-----\nMAAA\n";
        let why = certificates(format!("{cut}{chain}").as_bytes()).unwrap_err();
        assert_eq!(why, BROKEN);
        assert_eq!(key(format!("{cut}{own}").as_bytes()), None);
        let whole = format!("{cut}-----END X509 CRL-----\n{own}{chain}");
        assert_eq!(certificates(whole.as_bytes()).unwrap(), issued.chain);
        assert_eq!(key(whole.as_bytes()).unwrap(), issued.key);
    }
}
