//! What the kept store 2 holds: the fields that came to the records of version 1 after store 1 was kept (`tests/data/README.md`).

use super::mail::{self, recipient as to};
use super::store_1::{self, leg};
use gatepost::header::internal_stamp;
use gatepost::mail::QueueId;
use gatepost::route::{From, Via};
use gatepost::spool::Message;
use std::path::Path;

/// 2026-11-30 12:00:00 UTC.
pub(crate) const ARRIVED: u64 = 1_796_040_000_000;
/// Its sender was told that two of its recipients wait; the first one has it.
pub(crate) const TOLD: u64 = 1;
/// Waits as well, and its sender was told nothing.
pub(crate) const UNTOLD: u64 = 2;
/// A report of ours that has been to the tenant's host without certificate.
pub(crate) const UNCERTIFIED: u64 = 3;
/// A report of ours that has not.
pub(crate) const OWN: u64 = 4;
/// Its body was torn before the second start, which found it so while this was the last segment.
pub(crate) const TORN: u64 = 5;
/// Came after that start, into the second segment.
pub(crate) const AFTER: u64 = 6;

pub(crate) fn id(number: u64) -> QueueId {
    QueueId::from_u64((ARRIVED << 20) | number)
}

/// The arrival bytes.
pub(crate) fn body(number: u64) -> Vec<u8> {
    format!("From: ada@contoso.com\r\nSubject: number {number}\r\n\r\nstore 2\r\n").into_bytes()
}

pub(crate) fn message(number: u64) -> Message {
    let arrived = ARRIVED + number * 1000;
    let mut message = mail::message(id(number).as_u64(), arrived, 1, &body(number));
    message.envelope.recipients = vec![to("bob@contoso.com")];
    message.legs = vec![leg(Via::Exchange, &[0])];
    match number {
        TOLD => {
            message.envelope.recipients = ["bob", "carol", "dan"]
                .map(|user| to(&format!("{user}@contoso.com")))
                .into();
            message.legs[0].recipients = vec![0, 1, 2];
        }
        UNCERTIFIED | OWN => {
            let org = "contoso.com".parse().unwrap();
            message.from = From::Submission;
            message.envelope.reverse_path = "".parse().unwrap();
            let prepend = &mut message.legs[0].rendition.prepend;
            prepend.extend(internal_stamp("smarthost.contoso.com", &org));
            message.legs[0].xoorg = Some(org);
        }
        _ => {}
    }
    message
}

/// Makes the kept store in this folder as it was on disk.
pub(crate) fn unpack(folder: &Path) {
    store_1::lay_out("store-2", folder);
}
