//! What does a listener ask of the content of a message, beside what the gates make of it?
//!
//! Its size and its newlines. One place for the sessions, which ask octet by octet, and for whoever has a message in hand and
//! wants to know what they would say.

use super::intake::{Intake, Judged};
use super::rejection::Rejection;
use super::settings::{BareNewlines, Policy, Service};
use crate::smtp::command::CommandFault;
use crate::smtp::extension::{Extension, discards};
use crate::trust::Class;

/// Connector validation mail is small (product.md 3); octets.
const MAX_VALIDATION: u64 = 64 * 1024;
/// Octets that are looked at in one step.
const PIECE: usize = 64 * 1024;

/// The terms of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    service: Service,
    bare_newlines: BareNewlines,
    max_message_size: u64,
    chunking: bool,
    xoorg: bool,
}

impl Terms {
    /// By `service`, `bare_newlines`, `max_message_size` (octets) and `ehlo_discard` of a listener.
    #[must_use]
    pub fn new(
        service: Service,
        bare_newlines: BareNewlines,
        max_message_size: u64,
        ehlo_discard: &[String],
    ) -> Self {
        Self {
            service,
            bare_newlines,
            max_message_size,
            chunking: !discards(ehlo_discard, Extension::Chunking),
            xoorg: !discards(ehlo_discard, Extension::Xoorg),
        }
    }

    /// Most octets of a message that the gates let in as `class`.
    #[must_use]
    pub fn limit(&self, class: &Class) -> u64 {
        match class {
            Class::Validation { .. } => MAX_VALIDATION.min(self.max_message_size),
            Class::Proven { .. }
            | Class::Reported { .. }
            | Class::Application { .. }
            | Class::Own => self.max_message_size,
        }
    }

    /// What MAIL with XOORG is refused with where that is not offered, though the peer is proven (RFC 5321 §4.1.1.11).
    #[must_use]
    pub fn refusal_of_xoorg(&self) -> Option<Rejection> {
        (!self.xoorg).then_some(Rejection::Syntax(CommandFault::Parameter))
    }

    /// Takes a message in, over BDAT (`chunked`) or DATA.
    pub(super) fn intake<T>(&self, chunked: bool) -> Intake<T> {
        let repair =
            self.service == Service::Submission && self.bare_newlines == BareNewlines::Repair;
        // Over BDAT a connector's body stays as it came (product.md 4).
        let as_it_came = self.service == Service::Connector && chunked;
        Intake::new(!repair && !as_it_came, repair, self.max_message_size)
    }

    /// What a whole message that the gates let in as `class` is refused with, if at all. It comes by BDAT where that is offered,
    /// as Exchange sends it.
    #[must_use]
    pub fn refusal(&self, class: &Class, message: &[u8]) -> Option<Rejection> {
        let mut intake = self.intake::<()>(self.chunking);
        let limit = self.limit(class);
        let mut judge = |_: &mut [u8], _: usize| Ok(Judged { value: (), limit });
        let mut pieces = message.chunks(PIECE);
        // DATA brings a last CRLF.
        let end: &[u8] = if self.chunking || message.ends_with(b"\r\n") {
            b""
        } else {
            b"\r\n"
        };
        while intake.refusal().is_none()
            && let Some(piece) = pieces.next()
        {
            intake.push(piece.to_vec(), &mut judge);
        }
        intake.push(end.to_vec(), &mut judge);
        intake.finish(&mut judge).1.err()
    }
}

impl Policy {
    pub(super) fn terms(&self) -> Terms {
        Terms::new(
            self.service,
            self.bare_newlines,
            self.max_message_size,
            &self.ehlo_discard,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_message_is_refused_as_a_session_would() {
        let terms = |chunking: bool| {
            let discard = ["CHUNKING".to_owned()];
            let discard = if chunking { &[][..] } else { &discard[..] };
            Terms::new(
                Service::Connector,
                BareNewlines::Refuse,
                200 * 1024,
                discard,
            )
        };
        let proven = Class::Proven {
            foreign_sender: false,
        };
        let check = Class::Validation {
            foreign_sender: false,
        };
        let header = "From: a@b.example\r\n\r\n";
        let of_size = |size: usize| format!("{header}{}", "x".repeat(size - header.len()));
        let validation = usize::try_from(MAX_VALIDATION).unwrap();
        for (chunking, class, message, expected) in [
            (true, &proven, of_size(200 * 1024), None),
            (true, &proven, of_size(200 * 1024 + 1), Some("message_size")),
            (false, &proven, of_size(200 * 1024 - 2), None),
            (
                false,
                &proven,
                of_size(200 * 1024 - 1),
                Some("message_size"),
            ),
            (true, &check, of_size(validation), None),
            (
                true,
                &check,
                of_size(validation + 1),
                Some("validation_size"),
            ),
            (true, &proven, format!("{header}a\nb\r\n"), None),
            (true, &proven, format!("{header}a\r"), None),
            (
                false,
                &proven,
                format!("{header}a\nb\r\n"),
                Some("bare_newline"),
            ),
            (false, &proven, format!("{header}a\r"), Some("bare_newline")),
            (false, &proven, format!("{header}a"), None),
        ] {
            let refusal = terms(chunking).refusal(class, message.as_bytes());
            let label = refusal.as_ref().map(Rejection::label);
            assert_eq!(label, expected, "{chunking} {class:?} {}", message.len());
        }
    }
}
