//! How does Exchange sign what leaves? DKIM as exchange-online.md 3.4 and 4 tell it: rsa-sha256, relaxed/relaxed, `d=`
//! the tenant's own domain (RFC 6376).
//!
//! The lab's own words for it: the product verifies with a library, and a signer of the same library would share its
//! mistakes. A body with bare CR or LF has no canonical form (RFC 6376 §5.3): it is signed, and nobody can say whether the
//! signature holds.

use super::LabError;
use super::fields::Section;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize, SigningKey as _};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// What Exchange signs, of what is there.
const SIGNED: [&str; 7] = [
    "From",
    "Date",
    "Subject",
    "Message-ID",
    "Content-Type",
    "MIME-Version",
    "X-MS-Exchange-SenderADCheck",
];

const SELECTOR: &str = "selector1";

/// A key that lives as long as the lab; all its tenants sign with it, each under its own name.
pub struct Signer(KeyPair);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// A new key.
    ///
    /// # Errors
    /// None could be made.
    pub fn new() -> Result<Self, LabError> {
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
            .map(Self)
            .map_err(|error| LabError::Certificate(error.to_string()))
    }

    /// Where the key of this domain is asked for (RFC 6376 §3.6.2.1).
    #[must_use]
    pub fn key_name(domain: &str) -> String {
        format!("{SELECTOR}._domainkey.{domain}")
    }

    /// The key record.
    #[must_use]
    pub fn record(&self) -> String {
        let key = STANDARD.encode(self.0.subject_public_key_info());
        format!("v=DKIM1; k=rsa; p={key}")
    }

    /// The DKIM-Signature field for a message, with its line end; none where the provider fails.
    #[must_use]
    pub fn sign(&self, domain: &str, content: &[u8]) -> Option<String> {
        let section = Section::of(content);
        let rest = section.rest();
        let body = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        let fields: Vec<_> = SIGNED
            .iter()
            .filter_map(|name| section.named(name).last())
            .collect();
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let unsigned = format!(
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain};\r\n s={SELECTOR};\r\n h={};\r\n bh={};\r\n b=",
            names.join(":"),
            STANDARD.encode(Sha256::digest(relaxed_body(body))),
        );
        let mut input = Vec::new();
        for field in fields {
            input.extend(relaxed_field(section.bytes(field)));
            input.extend(b"\r\n");
        }
        input.extend(relaxed_field(unsigned.as_bytes()));
        let signature = self.0.sign(&input).ok()?;
        Some(format!("{unsigned}{}\r\n", STANDARD.encode(signature)))
    }
}

fn is_blank(octet: u8) -> bool {
    octet == b' ' || octet == b'\t'
}

/// Runs of blanks as one space, none at the end.
fn reduced(line: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(line.len());
    for &octet in line {
        match is_blank(octet) {
            true if out.last() == Some(&b' ') => {}
            true => out.push(b' '),
            false => out.push(octet),
        }
    }
    if out.last() == Some(&b' ') {
        out.pop();
    }
    out
}

/// RFC 6376 §3.4.2, without the line end.
fn relaxed_field(field: &[u8]) -> Vec<u8> {
    let colon = memchr::memchr(b':', field).unwrap_or(0);
    let (name, value) = field.split_at(colon);
    let value: Vec<u8> = value.iter().skip(1).copied().collect();
    let unfolded: Vec<u8> = value
        .into_iter()
        .filter(|octet| !matches!(octet, b'\r' | b'\n'))
        .collect();
    let value = reduced(&unfolded);
    let value = value.strip_prefix(b" ").unwrap_or(&value);
    let name = reduced(name).to_ascii_lowercase();
    [&name, b":".as_slice(), value].concat()
}

/// RFC 6376 §3.4.4: blanks reduced, empty lines at the end dropped, a line end at the end of what is not empty.
fn relaxed_body(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 2);
    let mut empty_lines = 0;
    let lines = body.split(|octet| *octet == b'\n');
    for line in lines.map(|line| reduced(line.strip_suffix(b"\r").unwrap_or(line))) {
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        out.extend(b"\r\n".repeat(empty_lines));
        empty_lines = 0;
        out.extend(line);
        out.extend(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6376 §3.4.5, and what is around it.
    #[test]
    fn the_canonical_forms_are_those_of_the_rfc() {
        assert_eq!(relaxed_field(b"A: X\r\n"), b"a:X");
        assert_eq!(relaxed_field(b"B : Y\t\r\n\tZ  \r\n"), b"b:Y Z");
        assert_eq!(relaxed_body(b" C \r\nD \t E\r\n\r\n\r\n"), b" C\r\nD E\r\n");
        assert_eq!(relaxed_body(b""), b"");
        assert_eq!(relaxed_body(b"\r\n\r\n"), b"");
        assert_eq!(relaxed_body(b"a\r\n\r\nb"), b"a\r\n\r\nb\r\n");
    }

    #[test]
    fn a_signature_names_what_is_signed_and_is_the_same_each_time() {
        let signer = Signer::new().unwrap();
        let sign = |message: &str| signer.sign("contoso.com", message.as_bytes()).unwrap();
        let message = "From: a@contoso.com\r\nX-Gate: one\r\nsubject: s\r\n\r\na\r\n";
        let field = sign(message);
        assert!(
            field.contains("d=contoso.com;") && field.contains("h=From:subject;"),
            "{field}"
        );
        // A message and what must come of it are made apart, and the secret comes off on the way.
        assert_eq!(sign(&message.replace("X-Gate: one\r\n", "")), field);
        assert_ne!(sign(&message.replace("a\r\n", "b\r\n")), field);
    }
}
