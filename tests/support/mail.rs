//! A stored message for tests and benchmarks that work on the store alone; each changes what it is about.

#![allow(
    dead_code,
    reason = "not every program that includes it uses all of it"
)]

use gatepost::header::Rendition;
use gatepost::mail::{Envelope, QueueId, Recipient};
use gatepost::route::{From, Via};
use gatepost::smtp::data::Scanner;
use gatepost::spool::{Destination, Leg, Message};

/// From a user of contoso.com over the connector to so many others of it, back into Exchange.
pub(crate) fn message(id: u64, arrived: u64, recipients: usize, body: &[u8]) -> Message {
    let mut scanner = Scanner::default();
    scanner.push(body);
    let recipient = |number| recipient(&format!("r{number}@contoso.com"));
    Message {
        id: QueueId::from_u64(id),
        arrived,
        tenant: "contoso".into(),
        from: From::Connector,
        application: None,
        stream: None,
        bounces_to: None,
        envelope: Envelope {
            reverse_path: "ada@contoso.com".parse().unwrap(),
            recipients: (0..recipients).map(recipient).collect(),
            body: None,
            smtputf8: false,
            ret: None,
            envid: None,
            xoorg: None,
        },
        facts: scanner.facts(),
        legs: vec![Leg {
            via: Via::Exchange,
            rendition: Rendition::default(),
            xoorg: None,
            recipients: (0..recipients).collect(),
        }],
        message_id: None,
        network_message_id: None,
    }
}

/// A recipient without parameters.
pub(crate) fn recipient(address: &str) -> Recipient {
    Recipient {
        mailbox: address.parse().unwrap(),
        notify: None,
        orcpt: None,
    }
}

/// The queue of such a message.
pub(crate) fn exchange() -> Destination {
    Destination {
        via: Via::Exchange,
        tenant: "contoso".into(),
        domain: None,
    }
}
