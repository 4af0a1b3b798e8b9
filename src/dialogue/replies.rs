//! What does a reply of the next hop mean, whose fault is it, and what is done about it?
//!
//! One table ([`super::reply_table`]) for delivery and for `gatepost explain reply`. The first entry that fits counts;
//! what no entry knows is judged by its class and by how far the dialogue got.

use super::reply_table::{PROMOTION, TABLE};
use crate::smtp::reply::Enhanced;

/// How far the dialogue got when the reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Instead of a greeting.
    Greeting,
    /// To EHLO.
    Hello,
    /// To STARTTLS, or the handshake.
    StartTls,
    /// To AUTH.
    Login,
    /// To MAIL.
    Mail,
    /// To RCPT.
    Recipient,
    /// To DATA, or in place of the reply to content that was not sent to its end.
    Content,
    /// To the end of content.
    End,
}

impl Phase {
    /// Whether no message has been mentioned yet, so that a refusal cannot be meant for one.
    #[must_use]
    pub fn is_before_mail(self) -> bool {
        match self {
            Self::Greeting | Self::Hello | Self::StartTls | Self::Login => true,
            Self::Mail | Self::Recipient | Self::Content | Self::End => false,
        }
    }

    /// The command, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Greeting => "connection",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Login => "AUTH",
            Self::Mail => "MAIL",
            Self::Recipient => "RCPT",
            Self::Content => "DATA",
            Self::End => "end of content",
        }
    }
}

/// Whose fault a reply tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Exchange Online's: load, maintenance, a proxy between.
    Exchange,
    /// The connector pair: certificate, attribution, connector settings.
    Connector,
    /// The recipient: no mailbox, full, restricted.
    Recipient,
    /// The sender, or what it may do.
    Sender,
    /// The message: size, form, content.
    Message,
    /// The tenant as a whole: its limits, its standing.
    Tenant,
    /// Whoever runs Gatepost: address, reputation, DNS.
    Operator,
    /// Gatepost itself: a defect to report.
    Gatepost,
}

impl Whose {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Exchange => "Exchange Online",
            Self::Connector => "connector or certificate",
            Self::Recipient => "recipient",
            Self::Sender => "sender",
            Self::Message => "message",
            Self::Tenant => "tenant",
            Self::Operator => "operator of this host",
            Self::Gatepost => "Gatepost",
        }
    }
}

/// What is done about a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Tried again at the times of the law.
    Retry,
    /// Tried again, at most once an hour: the limit behind the reply moves no faster.
    RetryHourly,
    /// Tried again, and the tenant's whole queue pauses.
    BackOff,
    /// Given up.
    Bounce,
    /// The message is held, and the tenant's queue parked when it happens again.
    HoldTenant,
    /// The recipient is held an hour, then given up.
    HoldRecipient,
    /// The rest goes at once in a new transaction.
    Split,
}

/// When an administrator hears of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// It passes by itself, or somebody else hears of it.
    Never,
    /// As soon as it comes.
    AtOnce,
    /// Where it still comes an hour after the message arrived.
    AfterAnHour,
}

impl Alarm {
    /// Whether it is time, `age` milliseconds after the message arrived.
    #[must_use]
    pub fn is_due(self, age: u64) -> bool {
        const HOUR: u64 = 3_600_000;
        match self {
            Self::Never => false,
            Self::AtOnce => true,
            Self::AfterAnHour => age >= HOUR,
        }
    }
}

/// Which replies an entry knows.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// Reply class: 4, 5, or 0 for both.
    pub class: u16,
    /// The reply code, where it matters.
    pub code: Option<u16>,
    /// Subject and range of details of the enhanced code; `None` fits also a reply without one.
    pub enhanced: Option<(u16, u16, u16)>,
    /// Whether a reply with an enhanced code does not fit: that says more than the reply code.
    pub bare: bool,
    /// Lower case; one of them stands in the text. Empty fits any text.
    pub text: &'static [&'static str],
}

impl Pattern {
    fn fits(&self, code: u16, enhanced: Option<Enhanced>, lower: &str) -> bool {
        let subject_fits = |(subject, from, to): (u16, u16, u16)| {
            enhanced.is_some_and(|(_, had, detail)| had == subject && (from..=to).contains(&detail))
        };
        (self.class == 0 || self.class == code / 100)
            && self.code.is_none_or(|own| own == code)
            && self.enhanced.is_none_or(subject_fits)
            && (!self.bare || enhanced.is_none())
            && (self.text.is_empty() || self.text.iter().any(|part| lower.contains(part)))
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which replies.
    pub pattern: Pattern,
    /// Such a reply, as Exchange writes it.
    pub sample: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Whose fault.
    pub whose: Whose,
    /// What is done.
    pub act: Act,
    /// When an administrator should hear of it.
    pub alarm: Alarm,
    /// What the administrator should do.
    pub advice: &'static str,
}

impl Entry {
    /// Whether it stands in the table; else it is what is done about a reply that the table does not know.
    #[must_use]
    pub fn is_of_table(&self) -> bool {
        TABLE.iter().any(|row| std::ptr::eq(row, self))
    }

    /// Whether it tells of mail that should have been internal.
    pub(super) fn is_about_promotion(&self) -> bool {
        self.act == Act::HoldRecipient || self.advice == PROMOTION
    }
}

/// The entry for a refusal (4xx or 5xx) that came in `phase`; `text` is all its lines without codes.
#[must_use]
pub fn judge_reply(
    code: u16,
    enhanced: Option<Enhanced>,
    text: &str,
    phase: Phase,
) -> &'static Entry {
    let lower = text.to_ascii_lowercase();
    let known = TABLE
        .iter()
        .find(|entry| entry.pattern.fits(code, enhanced, &lower))
        // Only a refused recipient can be sent apart from the others.
        .filter(|entry| entry.act != Act::Split || phase == Phase::Recipient);
    match known {
        Some(Entry {
            act: Act::Bounce | Act::HoldRecipient,
            ..
        }) if phase.is_before_mail() && phase != Phase::Login => &REFUSED_BEFORE_MAIL,
        // Gatepost logs in at no Exchange: what one says of a login is told as it stands there.
        Some(entry) => entry,
        None if code / 100 == 5 && phase.is_before_mail() => &REFUSED_BEFORE_MAIL,
        None if code / 100 == 5 => &OTHER_PERMANENT,
        None => &OTHER_TEMPORARY,
    }
}

const ANY: Pattern = Pattern {
    class: 0,
    code: None,
    enhanced: None,
    bare: false,
    text: &[],
};

/// 4xx that the table does not know.
static OTHER_TEMPORARY: Entry = Entry {
    pattern: ANY,
    sample: "4xx",
    meaning: "a temporary refusal that the table does not know",
    whose: Whose::Exchange,
    act: Act::Retry,
    alarm: Alarm::Never,
    advice: "nothing, unless it lasts",
};

/// 5xx that the table does not know.
static OTHER_PERMANENT: Entry = Entry {
    pattern: ANY,
    sample: "5xx",
    meaning: "a permanent refusal that the table does not know",
    whose: Whose::Message,
    act: Act::Bounce,
    alarm: Alarm::Never,
    advice: "look the enhanced code up in Microsoft's list of non-delivery reports",
};

/// 5xx before MAIL: it cannot be meant for the message, which is therefore not bounced (RFC 5321 §3.1).
static REFUSED_BEFORE_MAIL: Entry = Entry {
    pattern: ANY,
    sample: "554 (instead of a greeting, or to EHLO)",
    meaning: "the next hop refuses the connection before it has heard of a message",
    whose: Whose::Exchange,
    act: Act::Retry,
    alarm: Alarm::AtOnce,
    advice: "check host and port of the tenant's inbound connector and whether this address is blocked",
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply;
    use std::fmt::Write as _;

    fn judge(wire: &str, phase: Phase) -> &'static Entry {
        let line = format!("{wire}\r\n");
        let (reply, _) = reply::parse(line.as_bytes()).unwrap().unwrap();
        judge_reply(reply.code, reply.enhanced, &reply.lines.join(" "), phase)
    }

    #[test]
    fn every_sample_is_judged_by_its_own_entry() {
        for entry in TABLE {
            let judged = judge(entry.sample, Phase::Recipient);
            assert_eq!(judged.sample, entry.sample, "an earlier entry hides it");
            assert!(!entry.meaning.is_empty() && !entry.advice.is_empty());
            assert!(
                entry
                    .pattern
                    .text
                    .iter()
                    .all(|text| *text == text.to_lowercase())
            );
        }
    }

    #[test]
    fn replies_of_product_md_have_their_reach() {
        for (wire, act) in [
            (
                "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35",
                Act::HoldTenant,
            ),
            (
                "550 5.7.51 TenantInboundAttribution; There is a partner connector",
                Act::HoldTenant,
            ),
            (
                "550 5.7.64 TenantAttribution; Relay Access Denied SMTP",
                Act::HoldTenant,
            ),
            (
                "550 5.7.68 TenantInboundAttribution; Direct Send not allowed",
                Act::HoldTenant,
            ),
            ("550 5.7.1 Unable to relay", Act::HoldTenant),
            ("550 Unable to relay for x@y", Act::HoldTenant),
            (
                "550 5.7.12 Message was rejected by organization policy",
                Act::HoldRecipient,
            ),
            ("550 5.7.13 x", Act::HoldRecipient),
            (
                "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup",
                Act::HoldRecipient,
            ),
            ("550 5.7.136 x", Act::HoldRecipient),
            ("550 5.7.124 x", Act::Bounce),
            ("550 5.7.129 x", Act::Bounce),
            ("550 5.7.193 x", Act::Bounce),
            ("550 5.7.137 x", Act::Bounce),
            ("550 5.7.1 Not permitted", Act::Bounce),
            (
                "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required",
                Act::Bounce,
            ),
            ("530 5.7.1 Client was not authenticated", Act::Bounce),
            // A full mailbox empties no sooner than its owner wants; a quota of the sender moves on by itself.
            ("552 5.2.2 mailbox full", Act::Bounce),
            ("550 5.2.2 The recipient is over quota", Act::Bounce),
            (
                "554 5.2.2 STOREDRV.Submission.Exception:SubmissionQuotaExceededException",
                Act::RetryHourly,
            ),
            // An enhanced code says more than 552.
            ("552 too large", Act::Bounce),
            (
                "550 5.4.1 Recipient address rejected: Access denied",
                Act::Bounce,
            ),
            ("554 5.4.1 Relay access denied", Act::HoldTenant),
            ("452 4.5.3 Too many recipients", Act::Split),
            ("452 4.3.1 Insufficient system resources", Act::BackOff),
            ("452 Too many recipients", Act::Split),
            (
                "451 4.7.500 Server busy. Please try again later",
                Act::BackOff,
            ),
            ("451 4.7.0 Temporary server error. PRX2", Act::Retry),
            ("421 4.3.2 Service not available", Act::Retry),
            (
                "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded",
                Act::Retry,
            ),
            ("499 whatever", Act::Retry),
            ("599 whatever", Act::Bounce),
        ] {
            assert_eq!(judge(wire, Phase::Recipient).act, act, "{wire}");
        }
    }

    #[test]
    fn the_reply_code_of_size_yields_to_an_enhanced_code() {
        let size = judge("552 too large", Phase::End);
        assert_eq!(size.whose, Whose::Message);
        let policy = judge(
            "552 5.7.0 This message was blocked because its content presents a potential security issue",
            Phase::End,
        );
        assert!(!policy.is_of_table() && policy.act == Act::Bounce);
        assert!(judge("552 5.3.4 too large", Phase::End).is_of_table());
    }

    #[test]
    fn a_refusal_before_mail_does_not_bounce_the_message() {
        assert_eq!(
            judge("554 No SMTP service here", Phase::Greeting).act,
            Act::Retry
        );
        assert_eq!(judge("502 5.5.9 what", Phase::Hello).act, Act::Retry);
        // Also what the table gives up, or holds, where a message meets it.
        for wire in ["550 5.7.1 Access denied", "550 5.1.1 x", "550 5.7.133 x"] {
            assert_ne!(judge(wire, Phase::Recipient).act, Act::Retry);
            assert_eq!(judge(wire, Phase::Hello).act, Act::Retry, "{wire}");
        }
        assert_eq!(
            judge("550 5.7.511 banned", Phase::Greeting).act,
            Act::HoldTenant
        );
    }

    #[test]
    fn what_may_pass_by_itself_alarms_after_an_hour() {
        let routing = judge("451 4.4.4 ATTR5", Phase::Recipient).alarm;
        assert_eq!(
            [0, 3_599_999, 3_600_000].map(|age| routing.is_due(age)),
            [false, false, true]
        );
        let [held, busy] =
            ["550 5.7.64 x", "451 4.7.0 x"].map(|wire| judge(wire, Phase::Recipient).alarm);
        assert!(held.is_due(0) && !busy.is_due(u64::MAX));
    }

    #[test]
    fn only_a_refused_recipient_splits() {
        assert_eq!(
            judge("452 4.5.3 Too many recipients", Phase::End).act,
            Act::Retry
        );
        let old = "552 Too many recipients";
        assert_eq!(judge(old, Phase::Recipient).act, Act::Split);
        assert_eq!(judge(old, Phase::End).act, Act::Bounce);
        assert_eq!(judge(old, Phase::Hello).act, Act::Retry);
    }

    #[test]
    fn the_table_as_people_see_it() {
        let mut table = String::new();
        for entry in TABLE {
            let alarm = match entry.alarm {
                Alarm::Never => "",
                Alarm::AtOnce => " !",
                Alarm::AfterAnHour => " ! after 1 h",
            };
            let code: String = entry.sample.chars().take(12).collect();
            writeln!(table, "{code:12} {:?} {:?}{alarm}", entry.act, entry.whose).unwrap();
        }
        insta::assert_snapshot!(table, @r"
        550 5.7.64 T HoldTenant Connector !
        451 4.4.62 M HoldTenant Connector !
        550 5.7.51 T HoldTenant Connector !
        550 5.7.68 T HoldTenant Connector !
        550 5.7.1 Un HoldTenant Connector !
        554 5.4.1 Re HoldTenant Connector !
        421 4.7.66 T HoldTenant Connector !
        450 4.4.316  HoldTenant Operator !
        450 4.4.317  HoldTenant Connector !
        450 4.4.8 MX HoldTenant Connector !
        450 4.7.5 Re HoldTenant Connector !
        450 4.7.323  HoldTenant Connector !
        450 4.7.230  HoldTenant Connector !
        550 5.7.23 T HoldTenant Connector !
        554 5.7.506  HoldTenant Connector !
        550 5.7.12 M HoldRecipient Recipient !
        550 5.7.133  HoldRecipient Recipient !
        432 4.3.2 ST Retry Recipient
        421 4.3.2 Se Retry Exchange
        421 4.4.2 Co Retry Exchange
        452 4.5.3 To Split Exchange
        452 Too many Split Exchange
        552 Too many Split Exchange
        452 4.3.1 In BackOff Exchange
        450 4.4.315  Retry Operator ! after 1 h
        451 4.4.4 Ma Retry Exchange ! after 1 h
        451 4.7.0 Te Retry Exchange
        450 4.7.26 S Retry Operator
        421 4.7.28 O BackOff Operator
        451 4.7.650  BackOff Operator
        451 4.7.500  BackOff Connector !
        451 4.7.850  BackOff Operator !
        550 5.2.122  RetryHourly Recipient
        450 4.2.122  RetryHourly Recipient
        554 5.2.2 ma Bounce Recipient
        550 5.2.2 Su RetryHourly Sender !
        550 5.7.233  RetryHourly Tenant !
        550 5.7.236  Bounce Sender !
        550 5.1.90 Y Bounce Sender !
        550 5.1.8 Ac Bounce Sender !
        550 5.7.705  HoldTenant Tenant !
        550 5.7.708  HoldTenant Tenant !
        550 5.7.750  HoldTenant Tenant !
        550 5.7.800  HoldTenant Operator !
        550 5.7.511  HoldTenant Operator !
        550 5.7.606  HoldTenant Operator !
        550 5.7.25 S HoldTenant Operator !
        550 5.7.508  HoldTenant Operator !
        550 5.7.510  HoldTenant Operator !
        550 5.7.501  Bounce Sender !
        550 5.7.509  Bounce Sender !
        550 5.7.515  Bounce Sender !
        550 5.7.512  Bounce Message
        550 5.7.30 B Bounce Sender !
        535 5.7.139  Bounce Tenant !
        530 5.7.57 C Bounce Connector !
        550 5.7.60 C Bounce Sender !
        554 5.2.252  Bounce Sender !
        550 5.1.0 Se Bounce Sender
        554 5.1.20 M Bounce Message
        552 5.3.4 Me Bounce Message
        550 5.2.3 Me Bounce Message
        552 Requeste Bounce Message
        550 5.3.190  Bounce Tenant !
        554 5.4.6 Ho Bounce Connector !
        554 5.4.14 H Bounce Connector !
        550 5.7.128  Bounce Tenant !
        550 5.6.11 S Bounce Message
        554 5.6.0 Co Bounce Message
        550 5.5.0 Re Bounce Recipient
        501 5.5.4 In Bounce Gatepost !
        550 5.1.1 Us Bounce Recipient
        550 5.1.10 R Bounce Recipient
        550 5.4.1 Re Bounce Recipient
        550 5.4.310  Bounce Recipient
        550 5.7.124  Bounce Recipient
        550 5.7.129  Bounce Recipient
        550 5.7.193  Bounce Recipient
        550 5.7.504  Bounce Recipient
        550 5.7.507  Bounce Operator !
        550 5.7.513  Bounce Operator !
        550 5.7.703  Bounce Tenant
        550 5.7.900  Bounce Recipient
        550 5.7.1 RE Bounce Recipient
        530 5.7.1 Cl Bounce Connector
        550 5.7.1 Me Bounce Recipient
        550 5.0.350  Bounce Message
        ");
    }
}
