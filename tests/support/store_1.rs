//! What the kept store of version 1 holds, and the store as it was on disk: `tests/data/README.md`.

#![allow(clippy::unwrap_used, reason = "test code")]

use super::mail::{self, recipient as to};
use gatepost::header::Rendition;
use gatepost::mail::{BodyType, Notify, QueueId, Ret};
use gatepost::route::{From, Via};
use gatepost::spool::{Leg, Message};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// 2026-11-25 08:00:00 UTC: when the first message of the store arrived.
pub(crate) const ARRIVED: u64 = 1_795_593_600_000;
/// Octets of a segment on disk; a kept one is cut behind its last record.
pub(crate) const SEGMENT: u64 = 64 * 1024 * 1024;
/// Octets that no text has: what they open cannot be put on top as JSON text.
pub(crate) const LATIN_1: &[u8] = b"X-Latin-1: \xe4\xf6\xfc\r\n";

pub(crate) fn id(number: u64) -> QueueId {
    QueueId::from_u64((ARRIVED << 20) | number)
}

pub(crate) fn leg(via: Via, recipients: &[usize]) -> Leg {
    Leg {
        via,
        rendition: Rendition {
            prepend: b"Received: from a by b; Wed, 25 Nov 2026 08:00:00 +0000\r\n".to_vec(),
            omit: Vec::new(),
        },
        xoorg: None,
        recipients: recipients.to_vec(),
    }
}

/// Mail from Exchange to one recipient at the tenant's connector.
pub(crate) fn plain(number: u64) -> Message {
    let arrived = ARRIVED + number * 1000;
    let mut message = mail::message(id(number).as_u64(), arrived, 1, &body(number));
    message.envelope.recipients = vec![to("bob@contoso.com")];
    message.legs = vec![leg(Via::Exchange, &[0])];
    message
}

/// The arrival bytes; number 7 is so large that it has a file of its own.
pub(crate) fn body(number: u64) -> Vec<u8> {
    let head = format!("From: ada@contoso.com\r\nSubject: number {number}\r\n\r\n");
    let mut body = head.into_bytes();
    if number == 7 {
        for line in 0..30_000 {
            body.extend_from_slice(
                format!("line {line} of a large body, {}\r\n", line * 7).as_bytes(),
            );
        }
    } else {
        body.extend_from_slice(b"text\r\n.\r\nX-OriginatorOrg: of the body\r\n\0\xff\n");
    }
    body
}

pub(crate) fn message(number: u64) -> Message {
    let mut message = plain(number);
    match number {
        // An application's: stream, reports elsewhere, a form with internal stamp and ranges left out.
        2 => {
            message.tenant = "fabrikam".into();
            message.from = From::Submission;
            message.application = Some("erp".into());
            message.stream = Some("bulk".into());
            message.bounces_to = Some("admin@fabrikam.com".parse().unwrap());
            message.envelope.reverse_path = "erp@fabrikam.com".parse().unwrap();
            message.envelope.recipients = vec![to("carol@fabrikam.com")];
            message.envelope.body = Some(BodyType::EightBitMime);
            message.legs[0].rendition.omit = vec![0..23, 23..30];
            message.legs[0].xoorg = Some("fabrikam.com".parse().unwrap());
            message.message_id = Some("<2@fabrikam.com>".to_owned());
        }
        // Three ways, several domains by one of them, every parameter of RFC 3461.
        3 => {
            message.envelope.ret = Some(Ret::Headers);
            message.envelope.envid = Some("QQ+3D314159".into());
            message.envelope.xoorg = Some("contoso.com".parse().unwrap());
            message.envelope.recipients = vec![
                to("dan@one.example"),
                to("eve@two.example"),
                to("fay@one.example"),
                to("gus@contoso.com"),
                to("hal@partner.example"),
            ];
            message.envelope.recipients[0].notify = Some(Notify::Never);
            message.envelope.recipients[1].notify = Some(Notify::On {
                success: true,
                failure: false,
                delay: true,
            });
            message.envelope.recipients[2].orcpt = Some("rfc822;fay+2Bx@one.example".into());
            message.legs = vec![
                leg(Via::Mx, &[0, 1, 2]),
                leg(Via::Exchange, &[3]),
                leg(Via::Relay("upstream".into()), &[4]),
            ];
        }
        // Internationalised, with octets on top that are no UTF-8.
        8 => {
            message.envelope.smtputf8 = true;
            message.envelope.ret = Some(Ret::Full);
            message.envelope.body = Some(BodyType::SevenBit);
            message.envelope.reverse_path = "jörg@bücher.example".parse().unwrap();
            message.envelope.recipients = vec![to("\"a b\"@contoso.com"), to("ü@contoso.com")];
            message.legs = vec![leg(Via::Exchange, &[0, 1])];
            message.legs[0].rendition.prepend.extend_from_slice(LATIN_1);
            message.network_message_id = Some("c0ffee00-1111-2222-3333-444455556666".to_owned());
        }
        10 => message.envelope.reverse_path = "".parse().unwrap(),
        _ => {}
    }
    message
}

/// Makes the kept store in this folder as it was on disk, the large body in its file. The record holds that one's length and
/// checksum, as the older version wrote them.
pub(crate) fn unpack(folder: &Path) {
    lay_out("store-1", folder);
    let large = format!("bodies/{:016x}", id(7).as_u64());
    std::fs::write(folder.join(large), body(7)).unwrap();
}

/// The segments of a kept store in this folder, in their full length, and a folder for large bodies.
pub(crate) fn lay_out(kept: &str, folder: &Path) {
    std::fs::create_dir_all(folder.join("bodies")).unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(kept);
    for segment in segments(&kept) {
        let target = folder.join(segment.file_name().unwrap());
        std::fs::copy(&segment, &target).unwrap();
        let file = OpenOptions::new().write(true).open(&target).unwrap();
        file.set_len(SEGMENT).unwrap();
    }
}

pub(crate) fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    paths.sort();
    paths
}
