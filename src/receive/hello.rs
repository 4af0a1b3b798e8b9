//! What did a client offer in a handshake that failed?
//!
//! Read from the first octets that it sent, by `tls-parser`; rustls tells its own verdict but not the offer. An old device
//! shows here that it knows nothing newer than TLS 1.0, or only RSA key exchange, and which way out product.md 5 has.

use crate::mail::shown;
use crate::message_trace::Offered;
use rustls::{NamedGroup, ProtocolVersion, SignatureScheme};
use std::fmt::Debug;
use tls_parser::{
    TlsCipherSuite, TlsExtension, TlsRecordType, parse_tls_client_hello_extensions,
    parse_tls_handshake_client_hello, parse_tls_record_header,
};

/// Entries of a list that are told; the longest offers of real clients have about a hundred suites.
const MAX_TOLD: usize = 128;
/// Handshake type of a ClientHello (RFC 8446 §4), and the octets before its body.
const CLIENT_HELLO: u8 = 1;
const HANDSHAKE_HEADER: usize = 4;
const RECORD_HEADER: usize = 5;

/// What the octets offer; `None` where they hold no ClientHello that can be read.
#[must_use]
pub fn offered(octets: &[u8]) -> Option<Offered> {
    let message = match octets {
        [first, _, CLIENT_HELLO, ..] if first & 0x80 != 0 => return from_version_2(octets),
        _ => handshake_message(octets)?,
    };
    let body = match message.as_slice() {
        [CLIENT_HELLO, _, _, _, ..] => message.get(HANDSHAKE_HEADER..)?,
        _ => return None,
    };
    let (_, hello) = parse_tls_handshake_client_hello(body).ok()?;
    let mut offered = Offered {
        versions: Vec::new(),
        suites: suites_of(hello.ciphers.iter().map(|suite| suite.0)),
        ..Offered::default()
    };
    let extensions = hello
        .ext
        .and_then(|bytes| parse_tls_client_hello_extensions(bytes).ok())
        .map_or_else(Vec::new, |(_, extensions)| extensions);
    for extension in extensions {
        match extension {
            TlsExtension::SupportedVersions(versions) => {
                offered.versions = versions_of(versions.into_iter().map(|version| version.0));
            }
            TlsExtension::SignatureAlgorithms(schemes) => {
                offered.signature_schemes = names(schemes, rustls_name(SignatureScheme::from));
            }
            TlsExtension::EllipticCurves(groups) => {
                offered.groups = names(
                    groups.into_iter().map(|group| group.0),
                    rustls_name(NamedGroup::from),
                );
            }
            TlsExtension::SNI(entries) => {
                offered.server_name = entries.first().map(|(_, name)| shown(name));
            }
            // What else a client may say decides no handshake here.
            _ => {}
        }
    }
    if offered.versions.is_empty() {
        // Before TLS 1.3 the highest one is named, and those below are meant.
        offered.versions = versions_of([hello.version.0]);
    }
    Some(offered)
}

/// The handshake message that the records carry, without their headers; it may be cut short.
fn handshake_message(mut octets: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    while let Ok((_, record)) = parse_tls_record_header(octets) {
        if record.record_type != TlsRecordType::Handshake {
            break;
        }
        let payload = octets.get(RECORD_HEADER..)?;
        let length = usize::from(record.len).min(payload.len());
        let (own, rest) = payload.split_at_checked(length)?;
        message.extend_from_slice(own);
        octets = rest;
    }
    (!message.is_empty()).then_some(message)
}

/// A ClientHello in the form of SSL 2.0, in which very old clients ask for SSL 3.0 and TLS 1.0, too (RFC 5246 §E.2).
fn from_version_2(octets: &[u8]) -> Option<Offered> {
    let two = |at: usize| match octets.get(at..at + 2) {
        Some([high, low]) => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    };
    let (version, length) = (two(3)?, usize::from(two(5)?));
    let specs = octets.get(11..)?;
    let specs = specs.get(..length.min(specs.len()))?;
    let suites = specs.chunks_exact(3).filter_map(|spec| match spec {
        [0, high, low] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    });
    Some(Offered {
        versions: versions_of([version]),
        suites: suites_of(suites),
        ..Offered::default()
    })
}

fn versions_of(versions: impl IntoIterator<Item = u16>) -> Vec<String> {
    names(versions, rustls_name(ProtocolVersion::from))
        .into_iter()
        .map(|name| name.replacen("TLSv1_", "TLS1.", 1))
        .collect()
}

fn suites_of(suites: impl IntoIterator<Item = u16>) -> Vec<String> {
    names(suites, |value| {
        TlsCipherSuite::from_id(value).map(|suite| suite.name.to_owned())
    })
}

/// What rustls calls it; what it does not know it prints as a number in brackets.
fn rustls_name<T: Debug>(kind: impl Fn(u16) -> T) -> impl Fn(u16) -> Option<String> {
    move |value| Some(format!("{:?}", kind(value))).filter(|name| !name.contains('('))
}

/// Their names, a number where there is none; GREASE values (RFC 8701) mean nothing.
fn names(
    values: impl IntoIterator<Item = u16>,
    named: impl Fn(u16) -> Option<String>,
) -> Vec<String> {
    let grease = |value: u16| {
        let [high, low] = value.to_be_bytes();
        high == low && low & 0x0f == 0x0a
    };
    let mut values = values.into_iter().filter(|value| !grease(*value));
    let mut names: Vec<String> = values
        .by_ref()
        .take(MAX_TOLD)
        .map(|value| named(value).unwrap_or_else(|| format!("0x{value:04x}")))
        .collect();
    let more = values.count();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list<const N: usize>(values: [u16; N]) -> Vec<u8> {
        let octets: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_be_bytes())
            .collect();
        with_length(&octets)
    }

    fn with_length(octets: &[u8]) -> Vec<u8> {
        let length = u16::try_from(octets.len()).unwrap();
        [&length.to_be_bytes()[..], octets].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_length(content)].concat()
    }

    /// A ClientHello in records of at most `record` octets.
    pub(crate) fn hello(version: u16, suites: &[u8], extensions: &[u8], record: usize) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend_from_slice(suites);
        body.extend([1, 0]);
        if !extensions.is_empty() {
            body.extend(with_length(extensions));
        }
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend(with_length(&body));
        message
            .chunks(record)
            .flat_map(|part| [&[22, 3, 1][..], &with_length(part)].concat())
            .collect()
    }

    /// A device that knows TLS 1.0 and RSA key exchange.
    pub(crate) fn tls_1_0() -> Vec<u8> {
        hello(0x0301, &list([0x0035, 0x002f, 0x000a]), &[], 16_384)
    }

    /// TLS 1.2, but RSA key exchange only.
    pub(crate) fn rsa_only() -> Vec<u8> {
        let signatures = extension(13, &list([0x0401, 0x0201]));
        let groups = extension(10, &list([0x0017]));
        let extensions = [signatures, groups].concat();
        hello(0x0303, &list([0x009d, 0x003c, 0x002f]), &extensions, 16_384)
    }

    #[test]
    fn an_old_device_shows_its_version_and_suites() {
        let offered = offered(&tls_1_0()).unwrap();
        assert_eq!(offered.versions, ["TLS1.0"]);
        assert_eq!(
            offered.suites,
            [
                "TLS_RSA_WITH_AES_256_CBC_SHA",
                "TLS_RSA_WITH_AES_128_CBC_SHA",
                "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
            ]
        );
        assert!(offered.server_name.is_none() && offered.groups.is_empty());
    }

    #[test]
    fn a_modern_hello_is_told_whole_however_it_is_cut_into_records() {
        let versions = extension(43, &[&[6][..], &[0x0a, 0x0a, 3, 4, 3, 3]].concat());
        let groups = extension(10, &list([0x1a1a, 0x001d, 0x9999]));
        let signatures = extension(13, &list([0x0804, 0x0401]));
        let name = [&[0][..], &with_length(b"mx\r\nX")].concat();
        let name = extension(0, &with_length(&name));
        let extensions = [versions, groups, signatures, name].concat();
        for record in [1, 7, 100, 16_384] {
            let octets = hello(0x0303, &list([0x1a1a, 0x1301, 0xfefe]), &extensions, record);
            let offered = offered(&octets).unwrap();
            assert_eq!(offered.versions, ["TLS1.3", "TLS1.2"], "no GREASE");
            assert_eq!(offered.suites, ["TLS_AES_128_GCM_SHA256", "0xfefe"]);
            assert_eq!(offered.groups, ["X25519", "0x9999"]);
            assert_eq!(
                offered.signature_schemes,
                ["RSA_PSS_SHA256", "RSA_PKCS1_SHA256"]
            );
            let name = offered.server_name.unwrap();
            assert!(!name.contains('\r') && name.starts_with("mx"), "{name}");
        }
    }

    #[test]
    fn a_hello_in_the_form_of_ssl_2_is_read() {
        let octets = [
            0x80, 0x2e, 0x01, 0x03, 0x01, 0x00, 0x09, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x2f,
            0x01, 0x00, 0x80, 0x00, 0x00, 0x0a,
        ];
        let offered = offered(&octets).unwrap();
        assert_eq!(offered.versions, ["TLS1.0"]);
        assert_eq!(
            offered.suites,
            [
                "TLS_RSA_WITH_AES_128_CBC_SHA",
                "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
            ]
        );
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let suites: Vec<u8> = (1_u16..=300).flat_map(u16::to_be_bytes).collect();
        let octets = hello(0x0303, &with_length(&suites), &[], 16_384);
        let offered = offered(&octets).unwrap();
        assert_eq!(offered.suites.len(), MAX_TOLD + 1);
        assert_eq!(offered.suites.last().unwrap(), "and 172 more");
    }

    #[test]
    fn what_is_no_hello_offers_nothing() {
        for octets in [
            &b""[..],
            b"EHLO x\r\n",
            b"\x16\x03\x01",
            b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
            b"\x15\x03\x01\x00\x02\x02\x28",
        ] {
            assert_eq!(offered(octets), None, "{}", octets.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_octets_are_too_odd(octets: Vec<u8>, cut in 0_usize..400) {
            drop(offered(&octets));
            let hello = rsa_only();
            drop(offered(hello.get(..cut).unwrap_or(&hello)));
        }
    }
}
