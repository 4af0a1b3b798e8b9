//! The mail of these tests: whose, which way, and with octets that tell whose they are.

use super::super::*;
use super::op::Kind;

pub(super) fn body(id: u64, octets: usize) -> Bytes {
    let line = format!("X-Id: {id}\r\n");
    line.bytes().cycle().take(octets.max(16)).collect()
}

pub(super) fn mail(id: u64, kind: Kind, body: &[u8]) -> Message {
    let mut message = match kind {
        Kind::ToExchange(recipients) => message(id, recipients, body),
        Kind::ToDomains => by_mx(id, &["a.example", "b.example", "A.example", "c.example"]),
        Kind::Both => {
            let mut both = message(id, 3, body);
            let mut outside = both.legs[0].clone();
            (outside.via, outside.recipients) = (Via::Mx, vec![1, 2]);
            both.legs[0].recipients = vec![0];
            both.legs.push(outside);
            both
        }
        Kind::Own => {
            let mut own = message(id, 1, body);
            own.from = From::Submission;
            own.envelope.reverse_path = crate::mail::ReversePath::Null;
            own
        }
    };
    let mut scanner = Scanner::default();
    scanner.push(body);
    message.facts = scanner.facts();
    message
}
