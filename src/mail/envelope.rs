//! The envelope of one message (RFC 5321 §2.3.1) with the extension parameters that are handed on.

use super::address::{Mailbox, ReversePath};
use super::domain::Domain;

/// What MAIL and RCPT said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender, or null.
    pub reverse_path: ReversePath,
    /// In the order of RCPT.
    pub recipients: Vec<Recipient>,
    /// `BODY=` (RFC 6152), absent where the client gave none.
    pub body: Option<BodyType>,
    /// `SMTPUTF8` was given (RFC 6531).
    pub smtputf8: bool,
    /// `RET=` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID=` as xtext, still encoded (RFC 3461 §4.4): handed on byte for byte.
    pub envid: Option<Box<str>>,
    /// `XOORG=`, decoded: Exchange's originator organisation.
    pub xoorg: Option<Domain>,
}

impl Envelope {
    /// Whether a hop without SMTPUTF8 cannot take the message to `recipient`, because of an address (RFC 6531 §3.4). That
    /// SMTPUTF8 was given makes no need: clients give it as soon as it is offered.
    #[must_use]
    pub fn needs_smtputf8(&self, recipient: &Recipient) -> bool {
        recipient.mailbox.needs_smtputf8()
            || self
                .reverse_path
                .mailbox()
                .is_some_and(Mailbox::needs_smtputf8)
    }
}

/// One RCPT with its DSN parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The forward-path; source routes are dropped (RFC 5321 §4.1.1.3).
    pub mailbox: Mailbox,
    /// `NOTIFY=` (RFC 3461 §4.1).
    pub notify: Option<Notify>,
    /// `ORCPT=` as given, address type and xtext (RFC 3461 §4.2): handed on byte for byte.
    pub orcpt: Option<Box<str>>,
}

/// `BODY=` values; BINARYMIME is never offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyType {
    /// `7BIT`
    SevenBit,
    /// `8BITMIME`
    EightBitMime,
}

/// `RET=` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header section.
    Headers,
}

/// `NOTIFY=` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// No report of any kind.
    Never,
    /// Reports on these events.
    On {
        /// `SUCCESS`
        success: bool,
        /// `FAILURE`
        failure: bool,
        /// `DELAY`
        delay: bool,
    },
}
