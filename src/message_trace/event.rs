//! What can happen to a message. Text from peers is escaped and cut before it gets here ([`crate::mail::shown`]).

use crate::trust::Evidence;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One line of the trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// Milliseconds since 1970.
    pub at: u64,
    /// Queue id of the transaction (also of one that was refused).
    pub id: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The events, in the order of a message's life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A TLS handshake failed.
    HandshakeFailed {
        /// Listener name.
        listener: String,
        /// Peer address.
        peer: String,
        /// What rustls said.
        error: String,
        /// What the peer offered, where it could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offered: Option<Offered>,
    },
    /// A transaction was refused.
    Refused {
        /// Listener name.
        listener: String,
        /// Peer address.
        peer: String,
        /// Application name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        application: Option<String>,
        /// The tenant that the evidence points at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tenant: Option<String>,
        /// Envelope sender, empty for null, absent before MAIL.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender: Option<String>,
        /// Recipients so far.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        recipients: Vec<String>,
        /// Message-ID where the header section was read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
        /// The reply that was given.
        reply: String,
        /// The reason label.
        reason: String,
        /// What was seen.
        #[serde(default)]
        evidence: Evidence,
    },
    /// Received, judged, routed and on disk.
    Received {
        /// Listener name.
        listener: String,
        /// Peer address.
        peer: String,
        /// Application name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        application: Option<String>,
        /// Tenant name.
        tenant: String,
        /// Envelope sender, empty for null.
        sender: String,
        /// Envelope recipients.
        recipients: Vec<String>,
        /// Message-ID.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
        /// Exchange's network message id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network_message_id: Option<String>,
        /// Octets of content.
        size: u64,
        /// `BDAT` or `DATA`.
        transfer: String,
        /// TLS of the session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<TlsFacts>,
        /// `proven`, `validation`, `reported`, `application`, `own`.
        verdict: String,
        /// For `reported`: why it would have been refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// What was seen.
        #[serde(default)]
        evidence: Evidence,
        /// Protected fields that were removed from mail that may not carry them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<String>,
        /// Where it goes.
        legs: Vec<LegSummary>,
    },
    /// One attempt to deliver.
    Attempt {
        /// Tenant name.
        tenant: String,
        /// `exchange`, `mx`, `relay:NAME`.
        via: String,
        /// Host name of the next hop.
        host: String,
        /// Its address, once connected.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// TLS of the connection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<TlsFacts>,
        /// Whether the connection had carried a message before.
        reused: bool,
        /// Mail of our own went to the tenant's host without certificate, its queue being parked.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        uncertified: bool,
        /// Milliseconds.
        took: u64,
        /// What became of each recipient tried.
        results: Vec<RecipientResult>,
    },
    /// The sender is told what became of recipients.
    Report {
        /// `failure`, `delay` or `relayed`.
        class: String,
        /// Queue id of the report.
        report: String,
        /// Who is told.
        to: String,
        /// Of whom.
        recipients: Vec<String>,
    },
    /// A tenant's queue was parked, probed in vain, or released.
    Queue {
        /// Tenant name.
        tenant: String,
        /// `exchange`, `mx`, `relay:NAME`.
        via: String,
        /// `parked`, `probe_failed`, `released`, `backed_off`.
        state: String,
        /// The fault.
        reason: String,
    },
    /// An operator acted.
    Operator {
        /// `retry`, `hold`, `release`, `delete`.
        action: String,
    },
}

impl Event {
    /// Whether a story begins with it.
    pub(super) fn is_first(&self) -> bool {
        match self {
            Self::HandshakeFailed { .. } | Self::Refused { .. } | Self::Received { .. } => true,
            Self::Attempt { .. }
            | Self::Report { .. }
            | Self::Queue { .. }
            | Self::Operator { .. } => false,
        }
    }
}

/// What a client offered in its ClientHello; the lists are bounded and in its order, a number stands for what has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// `TLS1.0`; before TLS 1.3 the highest one alone.
    pub versions: Vec<String>,
    /// Cipher suites.
    pub suites: Vec<String>,
    /// Key exchange groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Signature schemes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signature_schemes: Vec<String>,
    /// The name it asked for (SNI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} with {}",
            self.versions.join(" "),
            self.suites.join(" ")
        )?;
        for (what, list) in [
            ("groups", &self.groups),
            ("signatures", &self.signature_schemes),
        ] {
            if !list.is_empty() {
                write!(f, "; {what} {}", list.join(" "))?;
            }
        }
        match &self.server_name {
            Some(name) => write!(f, "; for {name}"),
            None => Ok(()),
        }
    }
}

/// What became of a recipient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipientResult {
    /// Address.
    pub recipient: String,
    /// `delivered`, `deferred`, `held` or `failed`.
    pub outcome: String,
    /// The peer's reply, or what went wrong.
    pub reply: String,
    /// Milliseconds since 1970, where it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<u64>,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LegSummary {
    /// `exchange`, `mx`, `relay:NAME`.
    pub via: String,
    /// Whether it carries the internal stamp.
    pub stamped: bool,
    /// Addresses.
    pub recipients: Vec<String>,
}

/// What TLS agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFacts {
    /// `TLS1.3`.
    pub version: String,
    /// Suite.
    pub cipher: String,
    /// The peer's certificate name, where it was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_name: Option<String>,
    /// A resumed session.
    #[serde(default)]
    pub resumed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_handshake_of_an_older_version_still_reads() {
        let old = r#"{"at":1,"id":"0000000000001","event":"handshake_failed","listener":"exchange","peer":"192.0.2.1:5","error":"e"}"#;
        let event: TraceEvent = serde_json::from_str(old).unwrap();
        assert!(matches!(
            event.event,
            Event::HandshakeFailed { offered: None, .. }
        ));
        assert_eq!(serde_json::to_string(&event).unwrap(), old);
    }

    #[test]
    fn an_offer_reads_as_a_sentence() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect();
        let mut offered = Offered {
            versions: list("TLS1.0"),
            suites: list("TLS_RSA_WITH_AES_128_CBC_SHA"),
            ..Offered::default()
        };
        assert_eq!(
            offered.to_string(),
            "TLS1.0 with TLS_RSA_WITH_AES_128_CBC_SHA"
        );
        offered.groups = list("X25519 secp256r1");
        offered.signature_schemes = list("RSA_PKCS1_SHA1");
        offered.server_name = Some("mx.example".to_owned());
        assert_eq!(
            offered.to_string(),
            "TLS1.0 with TLS_RSA_WITH_AES_128_CBC_SHA; groups X25519 secp256r1; signatures RSA_PKCS1_SHA1; for mx.example"
        );
    }
}
