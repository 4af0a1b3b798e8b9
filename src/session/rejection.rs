//! Every refusal: code, enhanced code (RFC 3463), wording and metric label, here and nowhere else.
//!
//! A text begins with our host name, so that nobody looks for the fault in Exchange's connector, and ends with an id that
//! `gatepost trace` finds. The wording is what an Exchange administrator would search for; details go to the trace.

use crate::header::HeaderFault;
use crate::mail::{Domain, QueueId};
use crate::smtp::command::CommandFault;
use crate::smtp::reply::{Enhanced, Reply};
use crate::trust::Reason;

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each variant is described by its wording below"
)]
pub enum Rejection {
    Syntax(CommandFault),
    LineMalformed,
    LineTooLong,
    TooManyErrors,
    ChunkOfUnknownSize,
    BadSequence { expected: &'static str },
    NotImplemented,
    StartTlsRequired,
    StartTlsNotAvailable,
    AuthNotAvailable,
    AuthenticationRequired,
    BadCredentials,
    AuthenticationBusy,
    AuthenticationThrottled,
    AuthenticationCancelled,
    AuthenticationMalformed,
    UnknownMechanism,
    Trust(Reason),
    NoRoute,
    RecipientNotServed,
    RateExceeded,
    ValidationRateExceeded,
    TooManyRecipients,
    NeedsSmtpUtf8,
    MessageTooLarge,
    ValidationTooLarge,
    Header(HeaderFault),
    BareNewline,
    TooManyHops,
    ConnectorHeld { fault: String },
    StoreUnavailable,
    StrangerLimit,
    IdleTooLong,
    ShuttingDown,
    TooManyConnections,
    ProxyNotTaken,
    ProxyRequired,
}

impl Rejection {
    /// The label of `gatepost_messages_refused_total{reason}` and of the trace.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Syntax(CommandFault::Parameter) => "unknown_parameter",
            Self::Syntax(_)
            | Self::LineMalformed
            | Self::LineTooLong
            | Self::ChunkOfUnknownSize => "syntax",
            Self::TooManyErrors => "too_many_errors",
            Self::BadSequence { .. } | Self::NotImplemented | Self::AuthNotAvailable => "sequence",
            Self::StartTlsRequired | Self::StartTlsNotAvailable => "starttls_required",
            Self::AuthenticationRequired => "authentication_required",
            Self::BadCredentials => "bad_credentials",
            Self::AuthenticationBusy => "authentication_busy",
            Self::AuthenticationThrottled => "authentication_throttled",
            Self::AuthenticationCancelled
            | Self::AuthenticationMalformed
            | Self::UnknownMechanism => "authentication_syntax",
            Self::Trust(reason) => reason.label(),
            Self::NoRoute | Self::RecipientNotServed => "no_route",
            Self::RateExceeded => "rate",
            Self::ValidationRateExceeded => "validation_rate",
            Self::TooManyRecipients => "too_many_recipients",
            Self::NeedsSmtpUtf8 => "smtputf8",
            Self::MessageTooLarge => "message_size",
            Self::ValidationTooLarge => "validation_size",
            Self::Header(HeaderFault::TooLarge) => "header_size",
            Self::Header(_) => "header_grammar",
            Self::BareNewline => "bare_newline",
            Self::TooManyHops => "hop_count",
            Self::ConnectorHeld { .. } => "connector_held",
            Self::StoreUnavailable => "store",
            Self::StrangerLimit => "stranger_limit",
            Self::IdleTooLong => "timeout",
            Self::ShuttingDown => "shutdown",
            Self::TooManyConnections => "too_many_connections",
            Self::ProxyNotTaken | Self::ProxyRequired => "proxy_protocol",
        }
    }

    /// Whether the session ends with it.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(
            self,
            Self::LineTooLong
                | Self::TooManyErrors
                | Self::ChunkOfUnknownSize
                | Self::StrangerLimit
                | Self::IdleTooLong
                | Self::ShuttingDown
                | Self::TooManyConnections
                | Self::ProxyNotTaken
                | Self::ProxyRequired
        )
    }

    /// Whether it counts among the errors that a session may make; refused mail does not.
    #[must_use]
    pub fn is_error_of_protocol(&self) -> bool {
        matches!(
            self,
            Self::Syntax(_)
                | Self::LineMalformed
                | Self::BadSequence { .. }
                | Self::NotImplemented
                | Self::StartTlsRequired
                | Self::StartTlsNotAvailable
                | Self::AuthNotAvailable
                | Self::AuthenticationRequired
                | Self::BadCredentials
                | Self::AuthenticationThrottled
                | Self::AuthenticationCancelled
                | Self::AuthenticationMalformed
                | Self::UnknownMechanism
        )
    }

    /// Code and enhanced code.
    #[must_use]
    pub fn status(&self) -> (u16, Enhanced) {
        match self {
            Self::Syntax(CommandFault::Unknown) | Self::LineMalformed => (500, (5, 5, 2)),
            Self::LineTooLong => (500, (5, 5, 6)),
            Self::Syntax(CommandFault::Arguments) => (501, (5, 5, 4)),
            Self::Syntax(CommandFault::Sender) => (501, (5, 1, 7)),
            Self::Syntax(CommandFault::Recipient) => (501, (5, 1, 3)),
            Self::Syntax(CommandFault::Parameter) => (555, (5, 5, 4)),
            Self::BadSequence { .. } => (503, (5, 5, 1)),
            Self::NotImplemented | Self::StartTlsNotAvailable | Self::AuthNotAvailable => {
                (502, (5, 5, 1))
            }
            Self::StartTlsRequired | Self::AuthenticationRequired => (530, (5, 7, 0)),
            Self::BadCredentials => (535, (5, 7, 8)),
            Self::AuthenticationBusy | Self::AuthenticationThrottled => (454, (4, 7, 0)),
            Self::AuthenticationCancelled => (501, (5, 7, 0)),
            Self::AuthenticationMalformed => (501, (5, 5, 2)),
            Self::UnknownMechanism => (504, (5, 5, 4)),
            Self::Trust(Reason::HalfProvenDefer) => (451, (4, 7, 1)),
            Self::Trust(Reason::SignatureUnavailable) => (451, (4, 7, 5)),
            Self::Trust(Reason::NoTenant | Reason::UnknownXoorg) => (550, (5, 7, 64)),
            Self::Trust(Reason::Loop) | Self::TooManyHops => (554, (5, 4, 6)),
            Self::Trust(
                Reason::Stranger
                | Reason::HalfProvenRefuse
                | Reason::TooFewProofs
                | Reason::Contradiction
                | Reason::AmbiguousEvidence
                | Reason::SecretMissing
                | Reason::ForeignEnvelopeSender
                | Reason::ForeignHeaderSender
                | Reason::SenderNotAllowed
                | Reason::FromNotAllowed
                | Reason::FromAbsent
                | Reason::FromDuplicate
                | Reason::FromUnreadable,
            )
            | Self::NoRoute
            | Self::RecipientNotServed => (550, (5, 7, 1)),
            Self::RateExceeded | Self::ValidationRateExceeded => (450, (4, 7, 1)),
            Self::TooManyRecipients => (452, (4, 5, 3)),
            Self::NeedsSmtpUtf8 => (553, (5, 6, 7)),
            Self::MessageTooLarge
            | Self::ValidationTooLarge
            | Self::Header(HeaderFault::TooLarge) => (552, (5, 3, 4)),
            Self::Header(_) | Self::BareNewline => (554, (5, 6, 0)),
            Self::ConnectorHeld { .. } => (451, (4, 4, 0)),
            Self::StoreUnavailable => (451, (4, 3, 1)),
            Self::StrangerLimit
            | Self::TooManyErrors
            | Self::ChunkOfUnknownSize
            | Self::ProxyNotTaken
            | Self::ProxyRequired => (421, (4, 7, 0)),
            Self::IdleTooLong => (421, (4, 4, 2)),
            Self::ShuttingDown | Self::TooManyConnections => (421, (4, 3, 2)),
        }
    }

    /// The text, without host name and id.
    #[must_use]
    pub fn wording(&self) -> String {
        let text = match self {
            Self::Syntax(CommandFault::Unknown) => "Command not recognised",
            Self::Syntax(CommandFault::Arguments) => "Syntax error in parameters",
            Self::Syntax(CommandFault::Sender) => "Malformed sender address",
            Self::Syntax(CommandFault::Recipient) => "Malformed recipient address",
            Self::Syntax(CommandFault::Parameter) => "Parameter not recognised or not offered",
            Self::LineMalformed => "A line must end in CRLF and hold no bare CR, bare LF or NUL",
            Self::LineTooLong => "Line too long",
            Self::TooManyErrors => "Too many errors, closing",
            Self::ChunkOfUnknownSize => "Nobody knows where a chunk of unknown size ends, closing",
            Self::BadSequence { expected } => return format!("{BAD_SEQUENCE} {expected}"),
            Self::NotImplemented => "Command not implemented",
            Self::StartTlsRequired => "Must issue a STARTTLS command first",
            Self::StartTlsNotAvailable => "STARTTLS is not available here",
            Self::AuthNotAvailable => "AUTH is not offered here",
            Self::AuthenticationRequired => "Authentication required",
            Self::BadCredentials => "Authentication unsuccessful: user name or password is wrong",
            Self::AuthenticationBusy => "Too many credentials being checked, try again",
            Self::AuthenticationThrottled => {
                "Too many failed logins from this address, try again later"
            }
            Self::AuthenticationCancelled => "Authentication cancelled",
            Self::AuthenticationMalformed => "Authentication response not understood",
            Self::UnknownMechanism => "Authentication mechanism not supported: use PLAIN or LOGIN",
            Self::Trust(reason) => trust_wording(*reason),
            Self::NoRoute => "Unable to relay: no route for this recipient",
            Self::RecipientNotServed => {
                "Unable to relay: a recipient of this message may not be served for its tenant"
            }
            Self::RateExceeded => "Message rate of this application exceeded",
            Self::ValidationRateExceeded => "Too many connector validation messages this hour",
            Self::TooManyRecipients => "Too many recipients",
            Self::NeedsSmtpUtf8 => "Address needs the SMTPUTF8 parameter on MAIL",
            Self::MessageTooLarge => "Message size exceeds fixed maximum message size",
            Self::ValidationTooLarge => "Connector validation message too large",
            Self::Header(HeaderFault::TooLarge) => "Header size exceeds fixed maximum size",
            Self::Header(HeaderFault::BareCr) => "Malformed header section: bare CR",
            Self::Header(HeaderFault::BareLf) => "Malformed header section: bare LF",
            Self::Header(HeaderFault::Nul) => "Malformed header section: NUL",
            Self::Header(HeaderFault::NoColon) => "Malformed header section: a line without colon",
            Self::Header(HeaderFault::BadName) => {
                "Malformed header section: a field name with a bad character"
            }
            Self::Header(HeaderFault::LeadingContinuation) => {
                "Malformed header section: the first line is a continuation"
            }
            Self::BareNewline => "Bare CR or LF in the body (RFC 5321 section 2.3.8)",
            Self::TooManyHops => "Hop count exceeded - possible mail loop",
            Self::ConnectorHeld { fault } => return format!("{CONNECTOR_HELD} {fault}"),
            Self::StoreUnavailable => "Queue unavailable, try again later",
            Self::StrangerLimit => "Closing: this address is not known here",
            Self::IdleTooLong => "Timeout, closing",
            Self::ShuttingDown => "Service shutting down",
            Self::TooManyConnections => "Too many connections",
            Self::ProxyNotTaken => "The PROXY protocol is not taken from this address",
            Self::ProxyRequired => "This address must begin with a PROXY protocol header",
        };
        text.to_owned()
    }

    /// The reply as it goes out.
    #[must_use]
    pub fn reply(&self, hostname: &Domain, id: QueueId) -> Reply {
        let (code, enhanced) = self.status();
        Reply::new(
            code,
            enhanced,
            format!("{hostname} {} {id}", self.wording()),
        )
    }
}

/// How the two wordings begin that end as it comes.
const BAD_SEQUENCE: &str = "Bad sequence of commands:";
const CONNECTOR_HELD: &str = "Inbound connector of this tenant is held:";

impl Rejection {
    /// Every one, those with an open end with none.
    pub fn every() -> impl Iterator<Item = Self> {
        let plain = [
            Self::LineMalformed,
            Self::LineTooLong,
            Self::TooManyErrors,
            Self::ChunkOfUnknownSize,
            Self::BadSequence { expected: "" },
            Self::NotImplemented,
            Self::StartTlsRequired,
            Self::StartTlsNotAvailable,
            Self::AuthNotAvailable,
            Self::AuthenticationRequired,
            Self::BadCredentials,
            Self::AuthenticationBusy,
            Self::AuthenticationThrottled,
            Self::AuthenticationCancelled,
            Self::AuthenticationMalformed,
            Self::UnknownMechanism,
            Self::NoRoute,
            Self::RecipientNotServed,
            Self::RateExceeded,
            Self::ValidationRateExceeded,
            Self::TooManyRecipients,
            Self::NeedsSmtpUtf8,
            Self::MessageTooLarge,
            Self::ValidationTooLarge,
            Self::BareNewline,
            Self::TooManyHops,
            Self::ConnectorHeld {
                fault: String::new(),
            },
            Self::StoreUnavailable,
            Self::StrangerLimit,
            Self::IdleTooLong,
            Self::ShuttingDown,
            Self::TooManyConnections,
            Self::ProxyNotTaken,
            Self::ProxyRequired,
        ];
        let syntax = [
            CommandFault::Unknown,
            CommandFault::Arguments,
            CommandFault::Sender,
            CommandFault::Recipient,
            CommandFault::Parameter,
        ];
        let header = [
            HeaderFault::TooLarge,
            HeaderFault::BareCr,
            HeaderFault::BareLf,
            HeaderFault::Nul,
            HeaderFault::NoColon,
            HeaderFault::BadName,
            HeaderFault::LeadingContinuation,
        ];
        plain
            .into_iter()
            .chain(syntax.map(Self::Syntax))
            .chain(header.map(Self::Header))
            .chain(Reason::ALL.map(Self::Trust))
    }

    /// The refusal whose [`wording`](Self::wording) this is, for who reads it in a log or a report; its codes tell apart
    /// what has one wording. An open end is kept only where it is text of its own.
    #[must_use]
    pub fn recognised(code: u16, enhanced: Option<Enhanced>, wording: &str) -> Option<Self> {
        let fits = |own: &Self| {
            let (own_code, own_enhanced) = own.status();
            own_code == code && enhanced.is_none_or(|enhanced| enhanced == own_enhanced)
        };
        if let Some(fault) = wording.strip_prefix(CONNECTOR_HELD) {
            let fault = fault.trim().to_owned();
            Some(Self::ConnectorHeld { fault }).filter(fits)
        } else if wording.starts_with(BAD_SEQUENCE) {
            Some(Self::BadSequence { expected: "" }).filter(fits)
        } else {
            Self::every().find(|own| fits(own) && own.wording() == wording)
        }
    }
}

fn trust_wording(reason: Reason) -> &'static str {
    match reason {
        Reason::Stranger => {
            "Access denied: neither source address nor client certificate is Exchange Online's"
        }
        Reason::HalfProvenDefer | Reason::HalfProvenRefuse => {
            "Access denied: only one of source address and client certificate is Exchange Online's"
        }
        Reason::UnknownXoorg | Reason::NoTenant => "TenantAttribution; Relay Access Denied",
        Reason::TooFewProofs => "TenantAttribution; too little evidence of the tenant",
        Reason::Contradiction => "TenantAttribution; contradicting evidence of the tenant",
        Reason::AmbiguousEvidence => {
            "TenantAttribution; evidence or From: is malformed or stands twice"
        }
        Reason::SecretMissing => {
            "TenantAttribution; the required header of the tenant's transport rule is missing"
        }
        Reason::ForeignEnvelopeSender => {
            "Sender address is not in an accepted domain of the tenant"
        }
        Reason::ForeignHeaderSender => "From: address is not in an accepted domain of the tenant",
        Reason::SenderNotAllowed => "This application may not send as this sender address",
        Reason::FromNotAllowed => "This application may not send as this From: address",
        Reason::FromAbsent => "From: is missing: it must name one of this application's senders",
        Reason::FromDuplicate => "From: stands more than once",
        Reason::FromUnreadable => "From: is empty or cannot be read as a list of addresses",
        Reason::SignatureUnavailable => {
            "TenantAttribution; the DKIM signature cannot be checked now, try again later"
        }
        Reason::Loop => "Mail loop: the message has passed here before",
    }
}

impl From<CommandFault> for Rejection {
    fn from(fault: CommandFault) -> Self {
        Self::Syntax(fault)
    }
}

impl From<HeaderFault> for Rejection {
    fn from(fault: HeaderFault) -> Self {
        Self::Header(fault)
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self::Trust(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(rejection: &Rejection) -> String {
        let mut out = Vec::new();
        rejection
            .reply(&"mx.example".parse().unwrap(), QueueId::from_u64(1))
            .write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// How many of its kind [`Rejection::every`] has: whoever adds one is led here, and there.
    fn of_its_kind(rejection: &Rejection) -> usize {
        match rejection {
            Rejection::Syntax(fault) => match fault {
                CommandFault::Unknown
                | CommandFault::Arguments
                | CommandFault::Sender
                | CommandFault::Recipient
                | CommandFault::Parameter => 5,
            },
            Rejection::Header(fault) => match fault {
                HeaderFault::TooLarge
                | HeaderFault::BareCr
                | HeaderFault::BareLf
                | HeaderFault::Nul
                | HeaderFault::NoColon
                | HeaderFault::BadName
                | HeaderFault::LeadingContinuation => 7,
            },
            Rejection::Trust(reason) => match reason {
                Reason::Stranger
                | Reason::HalfProvenDefer
                | Reason::HalfProvenRefuse
                | Reason::UnknownXoorg
                | Reason::NoTenant
                | Reason::TooFewProofs
                | Reason::Contradiction
                | Reason::AmbiguousEvidence
                | Reason::SecretMissing
                | Reason::ForeignEnvelopeSender
                | Reason::ForeignHeaderSender
                | Reason::SenderNotAllowed
                | Reason::FromNotAllowed
                | Reason::FromAbsent
                | Reason::FromDuplicate
                | Reason::FromUnreadable
                | Reason::SignatureUnavailable
                | Reason::Loop => 18,
            },
            Rejection::LineMalformed
            | Rejection::LineTooLong
            | Rejection::TooManyErrors
            | Rejection::ChunkOfUnknownSize
            | Rejection::BadSequence { .. }
            | Rejection::NotImplemented
            | Rejection::StartTlsRequired
            | Rejection::StartTlsNotAvailable
            | Rejection::AuthNotAvailable
            | Rejection::AuthenticationRequired
            | Rejection::BadCredentials
            | Rejection::AuthenticationBusy
            | Rejection::AuthenticationThrottled
            | Rejection::AuthenticationCancelled
            | Rejection::AuthenticationMalformed
            | Rejection::UnknownMechanism
            | Rejection::NoRoute
            | Rejection::RecipientNotServed
            | Rejection::RateExceeded
            | Rejection::ValidationRateExceeded
            | Rejection::TooManyRecipients
            | Rejection::NeedsSmtpUtf8
            | Rejection::MessageTooLarge
            | Rejection::ValidationTooLarge
            | Rejection::BareNewline
            | Rejection::TooManyHops
            | Rejection::ConnectorHeld { .. }
            | Rejection::StoreUnavailable
            | Rejection::StrangerLimit
            | Rejection::IdleTooLong
            | Rejection::ShuttingDown
            | Rejection::TooManyConnections
            | Rejection::ProxyNotTaken
            | Rejection::ProxyRequired => 34,
        }
    }

    #[test]
    fn every_refusal_is_listed_once_and_recognised_by_its_wording() {
        let every: Vec<Rejection> = Rejection::every().collect();
        for count in [5, 7, 18, 34] {
            let there = every.iter().filter(|own| of_its_kind(own) == count);
            assert_eq!(there.count(), count);
        }
        for (number, own) in every.iter().enumerate() {
            assert!(!every[..number].contains(own), "{own:?} stands twice");
            let (code, enhanced) = own.status();
            for enhanced in [Some(enhanced), None] {
                let found = Rejection::recognised(code, enhanced, &own.wording()).unwrap();
                // What has one wording and one code is one to whoever reads it.
                assert_eq!(
                    (found.status(), found.wording()),
                    (own.status(), own.wording())
                );
            }
            assert_eq!(
                Rejection::recognised(250, None, &own.wording()),
                None,
                "{own:?}"
            );
        }
        let held = Rejection::ConnectorHeld {
            fault: "550 5.7.64 x".to_owned(),
        };
        let found = Rejection::recognised(451, Some((4, 4, 0)), &held.wording());
        assert_eq!(found, Some(held));
        let open = Rejection::BadSequence { expected: "RSET" };
        assert!(Rejection::recognised(503, None, &open.wording()).is_some());
        assert_eq!(Rejection::recognised(550, None, "Unable to relay"), None);
    }

    #[test]
    fn codes_of_the_contract() {
        let table = [
            (Rejection::StartTlsRequired, "530 5.7.0 "),
            (Rejection::AuthenticationRequired, "530 5.7.0 "),
            (Rejection::AuthNotAvailable, "502 5.5.1 "),
            (Rejection::ChunkOfUnknownSize, "421 4.7.0 "),
            (Rejection::BadCredentials, "535 5.7.8 "),
            (Rejection::AuthenticationBusy, "454 4.7.0 "),
            (Rejection::Trust(Reason::HalfProvenDefer), "451 4.7.1 "),
            (Rejection::Trust(Reason::HalfProvenRefuse), "550 5.7.1 "),
            (Rejection::Trust(Reason::SignatureUnavailable), "451 4.7.5 "),
            (Rejection::Trust(Reason::NoTenant), "550 5.7.64 "),
            (Rejection::Trust(Reason::UnknownXoorg), "550 5.7.64 "),
            (Rejection::Trust(Reason::Contradiction), "550 5.7.1 "),
            (Rejection::Trust(Reason::FromAbsent), "550 5.7.1 "),
            (Rejection::Trust(Reason::FromDuplicate), "550 5.7.1 "),
            (Rejection::Trust(Reason::FromUnreadable), "550 5.7.1 "),
            (Rejection::NoRoute, "550 5.7.1 "),
            (Rejection::MessageTooLarge, "552 5.3.4 "),
            (Rejection::Header(HeaderFault::TooLarge), "552 5.3.4 "),
            (Rejection::Header(HeaderFault::BareLf), "554 5.6.0 "),
            (Rejection::BareNewline, "554 5.6.0 "),
            (Rejection::Trust(Reason::Loop), "554 5.4.6 "),
            (Rejection::TooManyHops, "554 5.4.6 "),
            (Rejection::StoreUnavailable, "451 4.3.1 "),
            (
                Rejection::ConnectorHeld {
                    fault: String::new(),
                },
                "451 4.4.0 ",
            ),
            (Rejection::Syntax(CommandFault::Parameter), "555 5.5.4 "),
            (Rejection::ShuttingDown, "421 4.3.2 "),
            (Rejection::TooManyConnections, "421 4.3.2 "),
            (Rejection::StrangerLimit, "421 4.7.0 "),
            (Rejection::ProxyNotTaken, "421 4.7.0 "),
            (Rejection::ProxyRequired, "421 4.7.0 "),
            (Rejection::RateExceeded, "450 4.7.1 "),
            (Rejection::ValidationRateExceeded, "450 4.7.1 "),
        ];
        for (rejection, start) in table {
            let wire = wire(&rejection);
            assert!(wire.starts_with(&format!("{start}mx.example ")), "{wire}");
            assert!(wire.ends_with(" 0000000000001\r\n"), "{wire}");
            assert!(wire.len() <= 512, "{wire}");
        }
    }
}
