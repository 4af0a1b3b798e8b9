//! Certificates and keys as an authority or an administrator hands them over.

use super::naive;
use gatepost::config::pem;
use rustls_pki_types::PrivateKeyDer;

/// A PEM file. What is taken is, octet by octet and in order, what a reader of RFC 7468 of its own finds; no certificate that
/// begins or ends in a line is left out without an error, however the line is spoiled by blanks and dashes; no block is given
/// what stands in the one above it. A file of whole blocks alone, with text between them, is taken.
///
/// Not held: what the DER says (`certificate` does), labels in other letters than capitals, PKCS #7, and files in UTF-16,
/// which hold nothing.
pub fn pem(octets: &[u8]) {
    let read = read(octets);
    match pem::certificates(octets) {
        Ok(taken) => {
            let taken: Vec<Vec<u8>> = taken.iter().map(|der| der.to_vec()).collect();
            assert_eq!(read.fault, None, "taken in spite of it");
            let known: Option<Vec<Vec<u8>>> = read.of("CERTIFICATE").cloned().collect();
            assert_eq!(Some(taken), known);
        }
        Err(why) => {
            assert!(!read.is_plain(), "{why}");
            assert!(!why.contains(char::is_control), "{why:?}");
        }
    }
    let keys = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
    let first = read
        .blocks
        .iter()
        .find(|(label, _)| keys.contains(&label.as_str()));
    match (pem::key(octets), first) {
        (Some(taken), Some((label, der))) => {
            assert_ne!(read.fault, Some("a block in a block"));
            assert_eq!(Some(taken.secret_der().to_vec()), *der);
            let kind = match taken {
                PrivateKeyDer::Pkcs8(_) => keys[0],
                PrivateKeyDer::Pkcs1(_) => keys[1],
                _ => keys[2],
            };
            assert_eq!(kind, label);
        }
        (Some(_), None) => panic!("a key out of nothing"),
        (None, first) => assert!(first.is_none() || !read.is_plain(), "a key is lost"),
    }
}

/// What a plain reader finds.
#[derive(Default)]
struct Read {
    /// Labels, and the content where it is base64.
    blocks: Vec<(String, Option<Vec<u8>>)>,
    /// Something that cannot be passed over where certificates are wanted.
    fault: Option<&'static str>,
    /// A line outside of blocks that may be a boundary, or one in a block that is not base64.
    odd: bool,
}

impl Read {
    fn of<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a Option<Vec<u8>>> {
        let own = self.blocks.iter().filter(move |(own, _)| own == label);
        own.map(|(_, der)| der)
    }

    fn is_plain(&self) -> bool {
        self.fault.is_none() && !self.odd && self.blocks.iter().all(|(_, der)| der.is_some())
    }
}

fn read(octets: &[u8]) -> Read {
    // Byte order marks go first, wherever they stand: they may hold a line apart, and nothing else.
    let (mut text, mut rest) = (Vec::new(), octets);
    while let Some(at) = rest.windows(3).position(|three| three == b"\xef\xbb\xbf") {
        text.extend_from_slice(&rest[..at]);
        rest = &rest[at + 3..];
    }
    text.extend_from_slice(rest);
    let (mut read, mut open) = (Read::default(), None::<(Vec<u8>, Vec<u8>)>);
    for line in text.split(|octet| b"\r\n".contains(octet)) {
        if line.starts_with(b"-----BEGIN ") || line.starts_with(b"-----END ") {
            let dashes = line.iter().filter(|octet| **octet == b'-').count();
            read.odd |= !line.ends_with(b"-----") || dashes != 10;
        }
        if let Some(label) = begun(line) {
            let kinds = ["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"];
            if kinds.contains(&&*String::from_utf8_lossy(label.trim_ascii()))
                && label != b"CERTIFICATE"
            {
                read.fault.get_or_insert("a certificate by another name");
            }
            if open.is_some() {
                read.fault.get_or_insert("a block in a block");
            }
            open = Some((label.to_vec(), Vec::new()));
        } else if ended(line).is_some() {
            match open.take() {
                Some((begun, content)) if ends(line, &begun) => {
                    let label = String::from_utf8_lossy(&begun).into_owned();
                    read.blocks.push((label, naive::unbase64(&content)));
                }
                other => {
                    open = other;
                    read.odd = true;
                    note_spoiled(&mut read, line);
                }
            }
        } else if let Some((_, content)) = &mut open {
            content.extend_from_slice(line);
            content.push(b'\n');
            note_spoiled(&mut read, line);
        } else {
            read.odd |= naive::contains(line, b"-----") || naive::contains(line, b"CERTIFICATE");
            note_spoiled(&mut read, line);
        }
    }
    if open.is_some() {
        read.fault.get_or_insert("a block without an end");
    }
    read
}

/// The label of a line that begins a block: five dashes behind it, with blanks as people leave them.
fn begun(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"-----BEGIN ")?;
    let core = rest.iter().rposition(|octet| !b" -".contains(octet));
    let (core, run) = rest.split_at(core.map_or(0, |last| last + 1));
    let blanks = run.iter().take_while(|octet| **octet == b' ').count();
    let dashes = run.iter().filter(|octet| **octet == b'-').count();
    (dashes == 5).then(|| &rest[..core.len() + blanks])
}

/// That of one that ends a block; what stands behind it is passed over.
fn ended(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"-----END ")?;
    let end = rest.windows(5).position(|five| five == b"-----")?;
    Some(&rest[..end])
}

/// Whether a line ends the block with this label, in which dashes may stand.
fn ends(line: &[u8], label: &[u8]) -> bool {
    let rest = line.strip_prefix(b"-----END ");
    let rest = rest.and_then(|rest| rest.strip_prefix(label));
    rest.is_some_and(|rest| rest.starts_with(b"-----"))
}

/// A line that says nothing but that a certificate begins or ends, and is no boundary.
fn note_spoiled(read: &mut Read, line: &[u8]) {
    let shown = String::from_utf8_lossy(line);
    let words = shown.trim_matches([' ', '\t', '-']);
    let bounds = ["BEGIN CERTIFICATE", "END CERTIFICATE"];
    if bounds.contains(&words) && line.contains(&b'-') {
        // Without a dash behind the label it is a sentence.
        let trimmed = line.trim_ascii_end();
        read.odd = true;
        if trimmed.ends_with(b"-") {
            read.fault.get_or_insert("a spoiled boundary");
        }
    }
}
