//! The replies of Exchange Online, as data. Order matters: the first entry that fits counts.

use super::replies::{Act, Alarm, Entry, Pattern, Whose};
use Act::{BackOff, Bounce, HoldRecipient, HoldTenant, Retry, RetryHourly, Split};
use Whose::{Connector, Exchange, Gatepost, Message, Operator, Recipient, Sender, Tenant};

/// An enhanced code `class.subject.from` to `class.subject.to`; class 0 means 4 and 5.
const fn at(class: u16, subject: u16, from: u16, to: u16) -> Pattern {
    Pattern {
        class,
        code: None,
        enhanced: Some((subject, from, to)),
        bare: false,
        text: &[],
    }
}

const fn saying(pattern: Pattern, text: &'static [&'static str]) -> Pattern {
    Pattern { text, ..pattern }
}

const fn class(class: u16, text: &'static [&'static str]) -> Pattern {
    Pattern {
        class,
        code: None,
        enhanced: None,
        bare: false,
        text,
    }
}

const fn code(code: u16, text: &'static [&'static str]) -> Pattern {
    Pattern {
        class: 0,
        code: Some(code),
        enhanced: None,
        bare: false,
        text,
    }
}

/// Only where no enhanced code says more.
const fn bare(pattern: Pattern) -> Pattern {
    Pattern {
        bare: true,
        ..pattern
    }
}

const fn entry(
    pattern: Pattern,
    sample: &'static str,
    meaning: &'static str,
    whose: Whose,
    act: Act,
    advice: &'static str,
) -> Entry {
    Entry {
        pattern,
        sample,
        meaning,
        whose,
        act,
        alarm: if matches!(act, HoldTenant | HoldRecipient) {
            Alarm::AtOnce
        } else {
            Alarm::Never
        },
        advice,
    }
}

const fn alarm(entry: Entry) -> Entry {
    Entry {
        alarm: Alarm::AtOnce,
        ..entry
    }
}

/// It may pass by itself: told where it lasts.
const fn lasting(entry: Entry) -> Entry {
    Entry {
        alarm: Alarm::AfterAnHour,
        ..entry
    }
}

const CONNECTOR: &str = "compare the certificate's names with the accepted domains and both connectors: gatepost check, gatepost explain attribution, gatepost connector diff";
const BUG: &str = "report it as a defect of Gatepost, with the trace of the message";
/// Of mail that should have been internal.
pub(super) const PROMOTION: &str = "check CloudServicesMailEnabled on both connectors and that the internal stamp arrives: gatepost explain headers";
const ENDPOINT: &str = "set host to the tenant's mail.protection.outlook.com endpoint, port 25";
const NOTHING: &str = "nothing, unless it lasts";
const TELL_SENDER: &str = "nothing; the sender is told";

/// See [`super::replies::judge_reply`].
#[rustfmt::skip] // a row a line: it is read as a table
pub(super) static TABLE: &[Entry] = &[
    // ---- attribution, connector, certificate --------------------------------------------------------------------
    entry(at(0, 7, 64, 64), "550 5.7.64 TenantAttribution; Relay Access Denied [ATTR36]", "no inbound connector matched our certificate, or its domain is no accepted domain of the tenant; also an incomplete chain", Connector, HoldTenant, CONNECTOR),
    entry(at(4, 4, 62, 62), "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35", "wrong endpoint name for this tenant, or relay without a matching connector", Connector, HoldTenant, "set host to the tenant's own endpoint (its MX record, or the name of its onmicrosoft.com domain)"),
    entry(at(0, 7, 51, 51), "550 5.7.51 TenantInboundAttribution; There is a partner connector configured", "a partner connector of the tenant restricts source address or certificate, and this one does not fit", Connector, HoldTenant, CONNECTOR),
    entry(at(0, 7, 68, 68), "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization", "the tenant rejects direct send, and no connector matched, so that our mail counts as such", Connector, HoldTenant, CONNECTOR),
    entry(class(5, &["unable to relay", "tenantattribution", "tenantinboundattribution"]), "550 5.7.1 Unable to relay", "Exchange Online does not see the mail as the tenant's: no connector matched", Connector, HoldTenant, CONNECTOR),
    entry(saying(at(5, 4, 1, 1), &["relay access denied"]), "554 5.4.1 Relay access denied", "the recipient's domain is not accepted here and no connector matched", Connector, HoldTenant, CONNECTOR),
    entry(at(0, 7, 66, 66), "421 4.7.66 TLS 1.0 and 1.1 are not supported", "an old TLS version reached Exchange Online: something between terminates TLS", Connector, HoldTenant, "look for a device that opens TLS between this host and Exchange Online"),
    entry(at(4, 4, 316, 316), "450 4.4.316 Connection refused [Message=Socket error code 10061]", "Exchange Online could not connect to our host: nobody listens there, or a firewall refuses it", Operator, HoldTenant, "let Exchange Online's addresses reach port 25 of this host: the address that the outbound connector's smart host name leads to, the listener there, the firewall before it"),
    entry(at(4, 4, 317, 317), "450 4.4.317 Cannot establish session with remote server: UntrustedRoot", "Exchange Online makes no TLS session with our host: our certificate's chain is incomplete or not trusted there, or what the brackets say", Connector, HoldTenant, "where the brackets say UntrustedRoot, or nothing: put every intermediate certificate into the chain file and use a public CA; else they name the cause: names or dates of the listener's certificate, TLSA records, a listener without STARTTLS (gatepost check, gatepost certificate show)"),
    entry(at(0, 4, 8, 8), "450 4.4.8 MX hosts of the domain failed MTA-STS validation", "the name that our zone announces does not fit its MTA-STS policy", Connector, HoldTenant, "mend the MTA-STS policy of the smart host's domain"),
    entry(at(0, 7, 5, 5), "450 4.7.5 Remote certificate failed MTA-STS validation", "a certificate failed MTA-STS validation", Connector, HoldTenant, "mend certificate or MTA-STS policy of the smart host's domain"),
    entry(at(0, 7, 321, 325), "450 4.7.323 tlsa-invalid", "the TLSA records of the smart host's zone do not fit its certificate", Connector, HoldTenant, "publish TLSA records for the present certificate, or none"),
    entry(at(0, 7, 230, 230), "450 4.7.230 Connecting Exchange server version is out-of-date", "Exchange Online takes us for an outdated Exchange server", Connector, HoldTenant, "look for an Exchange server behind the same address or certificate"),
    entry(at(0, 7, 23, 23), "550 5.7.23 The message was rejected because of Sender Policy Framework violation", "our address is not in the sender's SPF record and no connector vouched for the mail", Connector, HoldTenant, "let the inbound connector match (see 5.7.64), and add our address to the domain's SPF record"),
    entry(at(0, 7, 506, 506), "554 5.7.506 Access denied, bad HELO", "our EHLO name claims to be the receiver", Connector, HoldTenant, "set hostname to this machine's own public name"),
    // ---- promotion: attributed, and yet not internal -------------------------------------------------------------
    entry(at(5, 7, 12, 13), "550 5.7.12 Message was rejected by organization policy", "the recipient takes internal senders only; our mail should be internal, so promotion may have failed", Recipient, HoldRecipient, PROMOTION),
    entry(at(5, 7, 133, 136), "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup", "the group or mailbox takes authenticated senders only; our mail should be internal, so promotion may have failed", Recipient, HoldRecipient, PROMOTION),
    // ---- load ----------------------------------------------------------------------------------------------------
    entry(saying(at(4, 3, 2, 2), &["storedrv", "thread limit"]), "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", "this mailbox is busy", Recipient, Retry, NOTHING),
    entry(at(4, 3, 2, 2), "421 4.3.2 Service not available", "the machine that answered is being drained", Exchange, Retry, NOTHING),
    entry(at(4, 4, 2, 2), "421 4.4.2 Connection dropped", "the connection was dropped or timed out", Exchange, Retry, NOTHING),
    entry(at(4, 5, 3, 3), "452 4.5.3 Too many recipients", "more recipients than one transaction may have", Exchange, Split, NOTHING),
    entry(code(452, &["too many recipients"]), "452 Too many recipients", "more recipients than one transaction may have", Exchange, Split, NOTHING),
    entry(code(552, &["too many recipients"]), "552 Too many recipients", "more recipients than one transaction may have, in an older way (RFC 5321 §4.5.3.1.10)", Exchange, Split, NOTHING),
    entry(at(4, 3, 1, 1), "452 4.3.1 Insufficient system resources", "overload", Exchange, BackOff, NOTHING),
    lasting(entry(at(4, 4, 310, 318), "450 4.4.315 Connection timed out [Message=Socket error code 10060]", "Exchange Online cannot reach our host: its name is not found, or nothing answers there", Operator, Retry, "let the outbound connector's smart host name lead to this host, and Exchange Online's addresses reach port 25 of it: DNS, firewall, listener")),
    lasting(entry(at(4, 4, 0, 999), "451 4.4.4 Mail received as unauthenticated, tenant not provisioned. ATTR5", "routing inside Exchange Online, or the tenant is not provisioned there yet", Exchange, Retry, "if it lasts an hour, check host and accepted domains")),
    entry(at(4, 7, 0, 0), "451 4.7.0 Temporary server error. Please try again later. PRX2", "a proxy failed inside Exchange Online", Exchange, Retry, NOTHING),
    entry(at(4, 7, 26, 26), "450 4.7.26 Service does not accept messages sent over IPv6 unless they pass SPF or DKIM", "mail over IPv6 must pass SPF or DKIM", Operator, Retry, "send over IPv4"),
    entry(at(4, 7, 28, 28), "421 4.7.28 Our system has detected an unusual rate of mail", "too much at once from this address", Operator, BackOff, NOTHING),
    entry(at(4, 7, 650, 651), "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775)", "Outlook.com limits our address for now because of its reputation", Operator, BackOff, "see what else this address sends; it passes by itself when the traffic is steady"),
    alarm(entry(at(4, 7, 500, 699), "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (AS77712)", "our address is throttled because its traffic changed; a matching connector would lift that", Connector, BackOff, CONNECTOR)),
    alarm(entry(at(4, 7, 850, 899), "451 4.7.850 Access denied, please try again later", "our address looks suspicious, for now", Operator, BackOff, "see that the connector matches, and what else this address sends")),
    // ---- limits --------------------------------------------------------------------------------------------------
    entry(at(5, 2, 121, 122), "550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour", "the mailbox got too much within an hour", Recipient, RetryHourly, "look for a loop or a flood to this mailbox"),
    entry(at(4, 2, 121, 122), "450 4.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour", "the mailbox got too much within an hour", Recipient, RetryHourly, "look for a loop or a flood to this mailbox"),
    entry(saying(at(5, 2, 2, 2), &["mailbox full", "mailbox is full", "inbox is full", "over quota", "overquota", "deliver.exception:quotaexceeded", "shutoffquotaexceeded", "out of storage", "storage limit"]), "554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded", "the mailbox is full", Recipient, Bounce, TELL_SENDER),
    alarm(entry(at(5, 2, 2, 2), "550 5.2.2 Submission quota exceeded", "the sender's quota is used up", Sender, RetryHourly, "spread the load over several senders, or wait")),
    alarm(entry(at(5, 7, 232, 233), "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients", "the tenant's limit of external recipients in 24 hours is reached", Tenant, RetryHourly, "send bulk mail by another way; the window moves on by itself")),
    alarm(entry(at(5, 7, 236, 236), "550 5.7.236 onmicrosoft.com sender exceeded its external recipients", "senders below onmicrosoft.com may reach 100 external recipients a day", Sender, Bounce, "give the sender an address in an own domain")),
    alarm(entry(at(5, 1, 90, 90), "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients", "the sender reached its daily limit of recipients", Sender, Bounce, "spread the load over several senders")),
    alarm(entry(at(5, 1, 8, 8), "550 5.1.8 Access denied, bad outbound sender", "Exchange Online blocked this sender because it looks compromised", Sender, Bounce, "secure the account or application, then unblock it in the Defender portal")),
    // ---- standing of the tenant ----------------------------------------------------------------------------------
    entry(at(5, 7, 705, 705), "550 5.7.705 Access denied, tenant has exceeded threshold", "the tenant sent too much spam", Tenant, HoldTenant, "find the source of the spam, then ask Microsoft's support to lift the block"),
    entry(at(5, 7, 708, 708), "550 5.7.708 Access denied, traffic not accepted from this IP", "address of low reputation, seen with trial tenants", Tenant, HoldTenant, "ask Microsoft's support"),
    entry(at(5, 7, 750, 750), "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains", "much mail from domains that are not registered with the tenant", Tenant, HoldTenant, "register the domains, or stop relaying for foreign ones"),
    entry(at(5, 7, 800, 800), "550 5.7.800 Access denied, banned domain", "the domain of our EHLO name or of a sender is banned for spam", Operator, HoldTenant, "only Microsoft's support lifts it; the EHLO name counts as well"),
    entry(at(5, 7, 511, 511), "550 5.7.511 Access denied, banned sender [192.0.2.1]", "our address is banned", Operator, HoldTenant, "ask delist@microsoft.com to lift it"),
    entry(at(5, 7, 606, 649), "550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "our address is banned", Operator, HoldTenant, "ask for removal at https://sender.office.com"),
    entry(at(5, 7, 25, 25), "550 5.7.25 Sending IPv6 address must have a reverse DNS record", "no reverse name for our IPv6 address", Operator, HoldTenant, "send over IPv4, or set the reverse name"),
    entry(at(5, 7, 508, 508), "550 5.7.508 Access denied, IPv6 address has exceeded permitted limits", "too much from our IPv6 range", Operator, HoldTenant, "send over IPv4"),
    entry(at(5, 7, 510, 510), "550 5.7.510 Access denied, domain does not accept mail over IPv6", "the recipient takes no mail over IPv6", Operator, HoldTenant, "send over IPv4"),
    // ---- sender and message --------------------------------------------------------------------------------------
    alarm(entry(at(5, 7, 501, 503), "550 5.7.501 Access denied, spam abuse detected", "this sender is banned for spam", Sender, Bounce, "stop the sender, find out what it sent")),
    alarm(entry(at(5, 7, 509, 509), "550 5.7.509 Access denied, sending domain does not pass DMARC verification", "the sender's domain fails DMARC and asks to reject", Sender, Bounce, "sign with DKIM for the From: domain, or let the connector match")),
    alarm(entry(at(5, 7, 515, 515), "550 5.7.515 Access denied, sending domain does not meet the required authentication level", "senders of much mail must pass SPF, DKIM and DMARC", Sender, Bounce, "complete SPF, DKIM and DMARC of the sending domain")),
    entry(at(5, 7, 512, 512), "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant", "From: is missing or invalid", Message, Bounce, "let the application write a valid From:"),
    alarm(entry(at(5, 7, 30, 30), "550 5.7.30 Basic authentication is not supported for Client Submission", "a client submission with password reached Exchange Online", Sender, Bounce, "let the application submit to Gatepost")),
    alarm(entry(saying(at(5, 7, 139, 139), &["smtpclientauthentication is disabled", "basic authentication is disabled"]), "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant", "SMTP AUTH is switched off in Exchange Online, for the organisation or for this mailbox: no refusal of Gatepost's", Tenant, Bounce, "let that client log in at Gatepost; or switch SMTP AUTH on for the mailbox (Set-CASMailbox -SmtpClientAuthenticationDisabled $false; for all: Set-TransportConfig)")),
    alarm(entry(at(5, 7, 57, 57), "530 5.7.57 Client not authenticated to send mail", "this is the client submission endpoint, not a connector", Connector, Bounce, ENDPOINT)),
    alarm(entry(at(5, 7, 60, 60), "550 5.7.60 Client does not have permissions to send as this sender", "no Send As permission", Sender, Bounce, "grant Send As, or use another sender")),
    alarm(entry(at(5, 2, 252, 252), "554 5.2.252 SendAsDenied", "no Send As permission", Sender, Bounce, "grant Send As, or use another sender")),
    entry(at(5, 1, 0, 0), "550 5.1.0 Sender denied", "the sender is denied, or an address of the old X.500 form was used", Sender, Bounce, TELL_SENDER),
    entry(at(5, 1, 20, 20), "554 5.1.20 Multiple From addresses are not allowed without Sender address", "several From: addresses without Sender:", Message, Bounce, "let the application write Sender:"),
    entry(at(5, 3, 4, 4), "552 5.3.4 Message size exceeds fixed maximum message size", "message or header too large", Message, Bounce, "raise the tenant's size limits, or send less"),
    entry(at(5, 2, 3, 3), "550 5.2.3 Message too large for this recipient", "larger than the recipient takes", Message, Bounce, TELL_SENDER),
    entry(bare(code(552, &[])), "552 Requested mail action aborted: exceeded storage allocation", "message or header too large", Message, Bounce, "raise the tenant's size limits, or send less"),
    alarm(entry(at(5, 3, 190, 190), "550 5.3.190 Journaling on-premises messages to Microsoft 365 or Office 365 is not supported", "journal reports to Exchange Online are not supported for this organisation", Tenant, Bounce, "send journal reports elsewhere")),
    alarm(entry(at(5, 4, 6, 6), "554 5.4.6 Hop count exceeded - possible mail loop", "a loop", Connector, Bounce, "compare both connectors and the transport rule's exception for our loop header: gatepost connector diff")),
    alarm(entry(at(5, 4, 14, 14), "554 5.4.14 Hop count exceeded - possible mail loop ATTR34", "a loop", Connector, Bounce, "compare both connectors and the transport rule's exception for our loop header: gatepost connector diff")),
    alarm(entry(at(5, 7, 128, 128), "550 5.7.128 TRANSPORT.RULES.RejectMessage; the transport rule loop count was exceeded", "a transport rule sent the message round", Tenant, Bounce, "look at the tenant's transport rules")),
    entry(at(5, 6, 11, 11), "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds", "bare line feeds that BDAT was not offered for", Message, Bounce, "repair the application that writes bare line feeds (listener: bare_newlines)"),
    entry(at(5, 6, 0, 0), "554 5.6.0 Corrupt message content", "the content cannot be read", Message, Bounce, TELL_SENDER),
    entry(at(5, 5, 0, 0), "550 5.5.0 Requested action not taken: mailbox unavailable", "no such mailbox at Outlook.com", Recipient, Bounce, TELL_SENDER),
    alarm(entry(at(5, 5, 1, 6), "501 5.5.4 Invalid arguments", "Exchange Online did not understand a command of ours", Gatepost, Bounce, BUG)),
    // ---- recipient -----------------------------------------------------------------------------------------------
    entry(at(5, 1, 1, 1), "550 5.1.1 User unknown", "no such recipient", Recipient, Bounce, TELL_SENDER),
    entry(at(5, 1, 10, 10), "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "no such recipient", Recipient, Bounce, TELL_SENDER),
    entry(at(5, 4, 1, 1), "550 5.4.1 Recipient address rejected: Access denied", "no such recipient (directory based edge blocking)", Recipient, Bounce, TELL_SENDER),
    entry(at(5, 4, 300, 317), "550 5.4.310 DNS domain does not exist", "Exchange Online could not send it on", Recipient, Bounce, TELL_SENDER),
    entry(at(5, 7, 124, 124), "550 5.7.124 RESOLVER.RST.SenderNotInAllowedSendersList", "the sender is not on the group's list", Recipient, Bounce, TELL_SENDER),
    entry(at(5, 7, 129, 129), "550 5.7.129 RESOLVER.RST.RestrictedToRecipientsPermission", "the recipient is restricted to certain senders", Recipient, Bounce, TELL_SENDER),
    entry(at(5, 7, 193, 193), "550 5.7.193 The group only accepts messages from its members", "the group takes members only", Recipient, Bounce, TELL_SENDER),
    entry(at(5, 7, 504, 505), "550 5.7.504 Recipient address rejected: Access denied", "the recipient is invalid or banned", Recipient, Bounce, TELL_SENDER),
    alarm(entry(at(5, 7, 507, 507), "550 5.7.507 Access denied, rejected by recipient organization", "the recipient's organisation blocks our address", Operator, Bounce, "ask the recipient's administrator")),
    alarm(entry(at(5, 7, 513, 513), "550 5.7.513 Service unavailable, client host blocked by recipient using customer block list", "the recipient's organisation blocks our address", Operator, Bounce, "ask the recipient's administrator")),
    entry(at(5, 7, 703, 703), "550 5.7.703 Your message can't be delivered because messages to the recipient are blocked by your organization", "the tenant's own block list", Tenant, Bounce, TELL_SENDER),
    entry(at(5, 7, 900, 999), "550 5.7.900 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy", "a mail flow rule of the recipient's organisation refused it: it may choose 5.7.900 to 5.7.999, and the text is its own", Recipient, Bounce, "ask that organisation's administrator which rule has this code (RejectMessageEnhancedStatusCode); where it is our own tenant and the rule is meant for outside senders, gatepost explain headers says why the mail was external"),
    entry(saying(at(5, 7, 1, 1), &["rst.authrequired", "sendernotauthenticated"]), "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", "the recipient takes authenticated, internal senders only; our mail should be internal, so promotion may have failed", Recipient, Bounce, PROMOTION),
    entry(saying(at(5, 7, 1, 1), &["client was not authenticated"]), "530 5.7.1 Client was not authenticated", "what answered takes mail of clients that have logged in, and no other: no connector of the tenant's is met there", Connector, Bounce, ENDPOINT),
    entry(at(5, 7, 1, 1), "550 5.7.1 Message not permitted", "the recipient or a rule does not take this message", Recipient, Bounce, TELL_SENDER),
    entry(at(5, 0, 350, 350), "550 5.0.350 Remote server returned an error", "a generic error", Message, Bounce, TELL_SENDER),
];

/// A reply of each entry.
#[cfg(test)]
pub(super) fn samples() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|entry| entry.sample)
}
