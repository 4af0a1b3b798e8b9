//! What shall the simulated Exchange answer, when, and how often? Its replies on demand.

use std::time::Duration;

/// Where in a session a step of the script applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In place of the banner.
    Connect,
    /// At EHLO.
    Ehlo,
    /// At STARTTLS.
    StartTls,
    /// At MAIL.
    Mail,
    /// At RCPT.
    Rcpt,
    /// At DATA, or at the first BDAT before its octets are read.
    Data,
    /// After the last octet.
    EndOfData,
    /// After a message was taken and answered.
    AfterMessage,
}

/// What happens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// This reply instead of the true one; a positive one changes nothing else.
    Reply(String),
    /// This reply, then the connection is closed.
    ReplyAndClose(String),
    /// The connection is closed without a word.
    Drop,
    /// Nothing is said for so long, then the true answer follows.
    Stall(Duration),
}

/// One step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    phase: Phase,
    action: Action,
    recipient: Option<String>,
    skip: usize,
    times: Option<usize>,
}

impl Step {
    /// Answers with this reply, once.
    #[must_use]
    pub fn reply(phase: Phase, reply: &str) -> Self {
        Self::new(phase, Action::Reply(reply.to_owned()))
    }

    /// Does this, once.
    #[must_use]
    pub fn new(phase: Phase, action: Action) -> Self {
        Self {
            phase,
            action,
            recipient: None,
            skip: 0,
            times: Some(1),
        }
    }

    /// So many times.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// Until [`super::ExchangeIn::forget_script`].
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// Not before the phase was reached so many times.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// Only where this recipient is concerned.
    #[must_use]
    pub fn for_recipient(mut self, address: &str) -> Self {
        self.recipient = Some(address.to_owned());
        self
    }
}

/// The steps that are still to come.
#[derive(Debug, Default)]
pub(super) struct Script(Vec<Step>);

impl Script {
    pub(super) fn add(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The action of the first step that applies, used up.
    pub(super) fn take(&mut self, phase: Phase, recipients: &[&str]) -> Option<Action> {
        let applies = |step: &&mut Step| {
            step.phase == phase
                && step.times != Some(0)
                && step.recipient.as_ref().is_none_or(|wanted| {
                    recipients
                        .iter()
                        .any(|address| address.eq_ignore_ascii_case(wanted))
                })
        };
        for step in self.0.iter_mut().filter(|step| applies(step)) {
            if step.skip > 0 {
                step.skip -= 1;
                continue;
            }
            step.times = step.times.map(|times| times - 1);
            return Some(step.action.clone());
        }
        None
    }
}

/// The replies of Exchange Online that a smart host must understand, by the word that names each.
pub const VOCABULARY: &[(&str, &str)] = &[
    ("draining", "421 4.3.2 Service not active"),
    ("idle", "421 4.4.2 Connection timed out"),
    (
        "old-tls",
        "421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade/update your client to support TLS 1.2",
    ),
    (
        "mailbox-busy",
        "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded",
    ),
    ("no-resources", "452 4.3.1 Insufficient system resources"),
    (
        "not-provisioned",
        "451 4.4.4 Mail received as unauthenticated, incoming to a recipient domain configured in a hosted tenant which has no mail-enabled subscriptions. ATTR5",
    ),
    (
        "wrong-region",
        "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35",
    ),
    (
        "untrusted-root",
        "450 4.4.317 Cannot establish session with remote server [Message=451 5.7.3 UntrustedRoot]",
    ),
    ("too-many-recipients", "452 4.5.3 Too many recipients"),
    (
        "proxy",
        "451 4.7.0 Temporary server error. Please try again later. PRX5",
    ),
    (
        "ipv6-unsigned",
        "450 4.7.26 Service does not accept messages sent over IPv6 unless they pass either SPF or DKIM validation",
    ),
    (
        "old-exchange",
        "450 4.7.230 Connecting Exchange server version is out-of-date; connection throttled",
    ),
    (
        "greylisted",
        "451 4.7.500 Server busy. Please try again later from [127.0.0.1]. AS777",
    ),
    (
        "ip-rate",
        "451 4.7.650 The mail server [127.0.0.1] has been temporarily rate limited due to IP reputation",
    ),
    (
        "ip-suspicious",
        "451 4.7.850 Access denied, please try again later",
    ),
    ("sender-denied", "550 5.1.0 Sender denied"),
    (
        "unknown-recipient",
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
    ),
    (
        "access-denied",
        "550 5.4.1 Recipient address rejected: Access denied",
    ),
    (
        "blocked-sender",
        "550 5.1.8 Access denied, bad outbound sender",
    ),
    (
        "daily-limit",
        "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
    ),
    ("quota", "550 5.2.2 Submission quota exceeded"),
    (
        "mailbox-full",
        "554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
    ),
    (
        "receive-limit",
        "550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour",
    ),
    (
        "too-large",
        "552 5.3.4 Message size exceeds fixed maximum message size",
    ),
    ("relay-denied", "550 5.4.1 Relay access denied"),
    (
        "loop",
        "550 5.4.14 Hop count exceeded - possible mail loop ATTR34",
    ),
    (
        "bare-linefeeds",
        "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds",
    ),
    ("unable-to-relay", "550 5.7.1 Unable to relay"),
    (
        "internal-senders-only",
        "550 5.7.12 Sender was not authenticated by organization",
    ),
    (
        "group-restricted",
        "550 5.7.124 Sender not in allowed-senders list",
    ),
    (
        "group-internal-only",
        "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required",
    ),
    (
        "rules-loop",
        "550 5.7.128 TRANSPORT.RULES.RejectMessage; Transport rules loop count exceeded and message rejected",
    ),
    (
        "spf",
        "550 5.7.23 The message was rejected because of Sender Policy Framework violation",
    ),
    (
        "partner-restriction",
        "550 5.7.51 TenantInboundAttribution; There is a partner connector configured that matched the message's recipient domain. The connector had either the RestrictDomainsToIPAddresses or RestrictDomainsToCertificate set",
    ),
    (
        "attribution",
        "550 5.7.64 TenantAttribution; Relay Access Denied",
    ),
    (
        "direct-send",
        "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources",
    ),
    (
        "tenant-rate",
        "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients",
    ),
    (
        "spam-banned",
        "550 5.7.501 Access denied, spam abuse detected",
    ),
    (
        "dmarc",
        "550 5.7.509 Access denied, sending domain does not pass DMARC verification",
    ),
    (
        "ip-banned",
        "550 5.7.606 Access denied, banned sending IP [127.0.0.1]",
    ),
    (
        "tenant-block-list",
        "550 5.7.703 Your message can't be delivered because messages to the recipient are blocked by your organization",
    ),
    (
        "tenant-threshold",
        "550 5.7.705 Access denied, tenant has exceeded threshold",
    ),
    (
        "unregistered-domains",
        "550 5.7.750 Client blocked from sending from unregistered domain",
    ),
    ("domain-banned", "550 5.7.800 Access denied, domain banned"),
];

/// The reply with this name, or with this enhanced code.
#[must_use]
pub fn vocabulary(word: &str) -> Option<&'static str> {
    let named =
        |(name, reply): &&(&str, &str)| *name == word || reply.split(' ').nth(1) == Some(word);
    VOCABULARY.iter().find(named).map(|(_, reply)| *reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_used_up_in_order() {
        let mut script = Script::default();
        script.add(Step::reply(Phase::Mail, "451 4.7.0 one").times(2).after(1));
        script.add(
            Step::reply(Phase::Rcpt, "550 5.1.10 two")
                .for_recipient("A@x")
                .always(),
        );
        assert_eq!(script.take(Phase::Mail, &[]), None);
        assert!(script.take(Phase::Mail, &[]).is_some());
        assert!(script.take(Phase::Mail, &[]).is_some());
        assert_eq!(script.take(Phase::Mail, &[]), None);
        assert_eq!(script.take(Phase::Rcpt, &["b@x"]), None);
        assert!(script.take(Phase::Rcpt, &["a@x"]).is_some());
    }

    #[test]
    fn every_reply_of_the_vocabulary_is_one_line_with_an_enhanced_code_of_its_class() {
        for (name, reply) in VOCABULARY {
            let mut words = reply.split(' ');
            let code = words.next().unwrap();
            let enhanced = words.next().unwrap();
            assert_eq!(code.len(), 3, "{name}");
            assert_eq!(code[..1], enhanced[..1], "{name}");
            assert_eq!(enhanced.split('.').count(), 3, "{name}");
            assert!(reply.len() < 500 && !reply.contains(['\r', '\n']), "{name}");
        }
        assert!(vocabulary("5.7.64").unwrap().contains("TenantAttribution"));
        assert!(vocabulary("wrong-region").unwrap().contains("ATTR35"));
    }
}
