//! What each object must hold, property by property, and what breaks where it does not.
//!
//! This table is what `diff` compares with, and what its tests walk through: a property added here is compared, mended and
//! tested. The facts are exchange-online.md 1.4, 2.2, 2.3 and 5.

use super::MARK;
use super::certificate_name::Wanted;
use super::objects::Kind;
use super::plan::{Header, Outward, Plan};

/// `State` of a rule.
pub(super) const ENABLED: &str = "Enabled";
/// `Mode` of a rule.
pub(super) const ENFORCE: &str = "Enforce";

/// What a property must be.
#[derive(Clone, Debug)]
pub(super) enum Want {
    /// Begins with our mark.
    Mark,
    /// Yes or no.
    Flag(bool),
    /// A word of an enumeration.
    Word(&'static str),
    /// This text, without case.
    Text(String),
    /// The first of these words; another of them may stand there for a reason, which is told.
    OneOf(&'static [&'static str], &'static str),
    /// The name by which Exchange knows our certificate.
    CertificateName(Box<Wanted>),
    /// These host names or address spaces, in any order; `smtp:*;1` is `*`.
    Hosts(Vec<String>),
    /// Nothing.
    Unset,
    /// Our outbound connector, by name, id or GUID.
    OutboundConnector,
    /// The secret value.
    Secret(Header),
    /// A word list with the loop value, which may hold previous ones as well.
    Words(Header),
}

/// A property with what it must be.
#[derive(Clone, Debug)]
pub(super) struct Property {
    /// As the cmdlet that reads the object names it.
    pub(super) name: &'static str,
    pub(super) want: Want,
    /// Others that Exchange wants in the same call, or that make no sense apart.
    pub(super) with: &'static [&'static str],
    /// What goes wrong otherwise: the reply or the symptom.
    pub(super) breaks: &'static str,
}

fn property(name: &'static str, want: Want, breaks: &'static str) -> Property {
    Property {
        name,
        want,
        with: &[],
        breaks,
    }
}

fn with(others: &'static [&'static str], property: Property) -> Property {
    Property {
        with: others,
        ..property
    }
}

/// The properties of an object of ours; none of an object that the set does not hold.
pub(super) fn desired(kind: Kind, plan: &Plan) -> Vec<Property> {
    match (kind, &plan.outward) {
        (Kind::Inbound, _) => inbound(plan),
        (Kind::Outbound, Some(outward)) => outbound(plan, outward),
        (Kind::Route, Some(outward)) => route(outward),
        (Kind::CleanUp, Some(outward)) => clean_up(outward),
        (Kind::Outbound | Kind::Route | Kind::CleanUp, None) => Vec::new(),
    }
}

fn mark(kind: Kind) -> Property {
    property(
        kind.comment(),
        Want::Mark,
        "the scripts take it for somebody else's: they neither repair nor remove it",
    )
}

fn inbound(plan: &Plan) -> Vec<Property> {
    vec![
        mark(Kind::Inbound),
        property(
            "Enabled",
            Want::Flag(true),
            "Exchange knows no connector for us: 550 5.7.64 TenantAttribution (ATTR36) for null and foreign senders, 550 5.7.68 with RejectDirectSend, and everything else arrives as external",
        ),
        property(
            "ConnectorType",
            Want::Word("OnPremises"),
            "a Partner connector attributes nothing: mail arrives as external, and relaying to the outside is refused (550 5.7.64)",
        ),
        property(
            "SenderDomains",
            Want::Hosts(vec!["*".to_owned()]),
            "mail of the senders left out does not match the connector: it arrives as external or is refused (550 5.7.64)",
        ),
        property(
            "TlsSenderCertificateName",
            Want::CertificateName(Box::new(Wanted::of(plan))),
            "the certificate that Gatepost shows does not match: 550 5.7.64 TenantAttribution (ATTR36), or 451 4.4.62 (ATTR35); Gatepost parks the tenant's queue",
        ),
        property(
            "RequireTls",
            Want::Flag(true),
            "the reference ties TlsSenderCertificateName to it: without it Exchange may not compare the name of our certificate, and answer 550 5.7.64 for what only the certificate can attribute",
        ),
        property(
            "RestrictDomainsToCertificate",
            Want::Flag(true),
            "Microsoft's own set-up of such a service sets it; the reference gives it a meaning for Partner connectors alone, where without it mail that does not show our certificate matches as well. What it does here nobody documents: true is the safe value",
        ),
        property(
            "RestrictDomainsToIPAddresses",
            Want::Flag(false),
            "where Exchange heeds it (the reference gives it a meaning for Partner connectors alone), it asks for an address instead of the certificate: 550 5.7.51 TenantInboundAttribution as soon as Gatepost's address changes",
        ),
        with(
            &["TreatMessagesAsInternal"],
            property(
                "CloudServicesMailEnabled",
                Want::Flag(plan.cloud),
                if plan.cloud {
                    "Exchange drops the X-MS-Exchange-CrossPremises fields (both connectors must agree): mail that went out internal comes back external, and groups that take internal senders only answer 5.7.12 or 5.7.133"
                } else {
                    "cloud_services_mail_enabled is false in the configuration, and both connectors and Gatepost must agree"
                },
            ),
        ),
        property(
            "TreatMessagesAsInternal",
            Want::Flag(false),
            "it bypasses spam filtering for everything that comes in, and excludes CloudServicesMailEnabled",
        ),
        property(
            "AssociatedAcceptedDomains",
            Want::Unset,
            "only mail of these domains may use the connector: for the others 550 5.7.64",
        ),
        property(
            "TrustedOrganizations",
            Want::Unset,
            "mail of these other tenants of Microsoft 365 is trusted as if Gatepost had handed it over, without its certificate",
        ),
    ]
}

fn outbound(plan: &Plan, outward: &Outward) -> Vec<Property> {
    vec![
        mark(Kind::Outbound),
        property(
            "Enabled",
            Want::Flag(true),
            "the routing rule has nowhere to send: its mail stays Pending in the message trace",
        ),
        property(
            "TestMode",
            Want::Flag(false),
            "Exchange does not use the connector for mail, and Get-OutboundConnector hides it",
        ),
        property(
            "ConnectorType",
            Want::Word("OnPremises"),
            "CloudServicesMailEnabled has no effect: the organisation headers are removed on the way out, and the mail comes back external",
        ),
        property(
            "IsTransportRuleScoped",
            Want::Flag(true),
            "Exchange may choose the connector by recipient domain: mail goes to Gatepost past the rule, without the secret header, and returned mail may go round (554 5.4.14 ATTR34)",
        ),
        with(
            &["SmartHosts"],
            property(
                "UseMXRecord",
                Want::Flag(false),
                "Exchange delivers by the recipient's MX and passes Gatepost by",
            ),
        ),
        with(
            &["UseMXRecord"],
            property(
                "SmartHosts",
                Want::Hosts(vec![plan.hostname.to_string()]),
                "Exchange connects to another host: mail waits there or never reaches Gatepost (450 4.4.316, 5.4.310)",
            ),
        ),
        with(
            &["TlsDomain"],
            property(
                "TlsSettings",
                Want::Word("DomainValidation"),
                "Exchange hands the tenant's mail, with the secret header, to whoever answers at that name with any certificate",
            ),
        ),
        with(
            &["TlsSettings"],
            property(
                "TlsDomain",
                Want::Text(outward.tls_domain.clone()),
                "the name is not in the certificate that Gatepost's listener shows: mail waits in Exchange's queue (450 4.4.317), then bounces",
            ),
        ),
        property(
            "CloudServicesMailEnabled",
            Want::Flag(plan.cloud),
            if plan.cloud {
                "Exchange takes the organisation headers off before the mail leaves (both connectors must agree): it comes back as external"
            } else {
                "cloud_services_mail_enabled is false in the configuration, and both connectors and Gatepost must agree"
            },
        ),
        property(
            "RouteAllMessagesViaOnPremises",
            Want::Flag(false),
            "all mail of the tenant takes the way through Gatepost, not what the rule chooses: returned mail goes round (554 5.4.14 ATTR34)",
        ),
        property(
            "AllAcceptedDomains",
            Want::Flag(false),
            "mail to every accepted domain takes the way through Gatepost, also what has come back: 554 5.4.14 ATTR34",
        ),
        property(
            "RecipientDomains",
            Want::Unset,
            "Exchange chooses the connector by recipient domain, past the rule; a connector for a rule has none",
        ),
        property(
            "SmtpDaneMode",
            Want::OneOf(
                &["Opportunistic", "None"],
                "Exchange looks up no DANE for Gatepost's name; TlsSettings proves it all the same",
            ),
            "Exchange wants a TLSA record for its next hop in a signed zone, and Gatepost's name need not have one: mail waits in Exchange's queue (450 4.7.321 to 4.7.325), and is dropped after a day. That Exchange asks this of a smart host's name, and not of a domain's alone, is inferred, not documented",
        ),
    ]
}

fn route(outward: &Outward) -> Vec<Property> {
    vec![
        mark(Kind::Route),
        property(
            "FromScope",
            Want::Word("InOrganization"),
            "mail from outside would be sent through Gatepost, which refuses its senders: 550 5.7.1",
        ),
        property(
            "RouteMessageOutboundConnector",
            Want::OutboundConnector,
            "the mail takes another way than Gatepost",
        ),
        with(
            &["SetHeaderValue"],
            property(
                "SetHeaderName",
                Want::Text(outward.secret.name.clone()),
                "mail comes without the secret header: one proof less, and with required = true 550 5.7.1 for all of it",
            ),
        ),
        with(
            &["SetHeaderName"],
            property(
                "SetHeaderValue",
                Want::Secret(outward.secret.clone()),
                "a secret header with a wrong value contradicts the tenant: Gatepost refuses all of its mail, 550 5.7.1",
            ),
        ),
        property(
            "StopRuleProcessing",
            Want::Flag(true),
            "later rules act on the mail before it leaves and again when it is back: two disclaimers, two copies",
        ),
        with(
            &["ExceptIfHeaderContainsWords"],
            property(
                "ExceptIfHeaderContainsMessageHeader",
                Want::Text(outward.looped.name.clone()),
                "returned mail is sent to Gatepost again, which refuses it: 554 5.4.6",
            ),
        ),
        with(
            &["ExceptIfHeaderContainsMessageHeader"],
            property(
                "ExceptIfHeaderContainsWords",
                Want::Words(outward.looped.clone()),
                "without the present value returned mail is sent to Gatepost again, which refuses it (554 5.4.6); with an outdated one whoever knows it keeps mail away from Gatepost",
            ),
        ),
        property(
            "RuleErrorAction",
            Want::OneOf(
                &["Ignore", "Defer"],
                "where Exchange cannot work the rule out, it keeps the mail and tries again, instead of sending it on without Gatepost",
            ),
            "what becomes of mail for which the rule fails is not said",
        ),
        severity(),
    ]
}

/// Which severity a rule's matches have in the reports.
fn severity() -> Property {
    property(
        "SetAuditSeverity",
        Want::Word("Low"),
        "with DoNotAudit the message trace does not say that the rule has acted, and with more than Low it stands among the incidents of the reports",
    )
}

fn clean_up(outward: &Outward) -> Vec<Property> {
    let leak = "the loop value leaves the tenant with the mail, and whoever receives it can keep mail away from Gatepost";
    vec![
        mark(Kind::CleanUp),
        property("State", Want::Word(ENABLED), leak),
        property("Mode", Want::Word(ENFORCE), leak),
        with(
            &["HeaderContainsWords"],
            property(
                "HeaderContainsMessageHeader",
                Want::Text(outward.looped.name.clone()),
                leak,
            ),
        ),
        with(
            &["HeaderContainsMessageHeader"],
            property(
                "HeaderContainsWords",
                Want::Words(outward.looped.clone()),
                "mail with a value that is not in the list keeps its loop header, and the value leaves the tenant; an outdated one has no use any more",
            ),
        ),
        property(
            "RemoveHeader",
            Want::Text(outward.looped.name.clone()),
            leak,
        ),
        property(
            "StopRuleProcessing",
            Want::Flag(false),
            "the rules behind it (disclaimers, encryption) do not see mail that has come back from Gatepost",
        ),
        severity(),
    ]
}

/// Properties that may be set for a reason: told, and no drift.
pub(super) fn optional(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::Inbound => &[
            (
                "EFSkipLastIP",
                "Enhanced Filtering is on: spam checks look at the hop before Gatepost",
            ),
            (
                "EFSkipIPs",
                "Enhanced Filtering skips these hops; private (RFC 1918) addresses are not supported",
            ),
            (
                "EFUsers",
                "Enhanced Filtering works only where all recipients of a mail are listed",
            ),
            (
                "SenderIPAddresses",
                "has no meaning for a connector that is known by certificate",
            ),
            ("ClientHostNames", "is Microsoft's own"),
            (
                "ScanAndDropRecipients",
                "is Microsoft's own, and by its name drops mail to these recipients",
            ),
        ],
        Kind::Outbound => &[
            (
                "SenderRewritingEnabled",
                "forwarded mail reaches Gatepost with a rewritten envelope sender",
            ),
            ("LinkForModifiedConnector", "is Microsoft's own"),
        ],
        Kind::Route => &[
            ("SentToScope", "narrows the rule to these recipients"),
            (
                "ExceptIfMessageTypeMatches",
                "such messages pass Gatepost by",
            ),
            (
                "ExceptIfMessageSizeOver",
                "larger messages pass Gatepost by",
            ),
            (
                "ExceptIfHeaderMatchesPatterns",
                "a further exception by pattern",
            ),
        ],
        Kind::CleanUp => &[],
    }
}

/// Whether a comment carries our mark.
pub(super) fn is_marked(comment: &str) -> bool {
    comment.starts_with(MARK)
}
