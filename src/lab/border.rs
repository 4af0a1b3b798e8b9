//! What does Exchange Online do to header fields where mail leaves a tenant and where it comes in?
//!
//! The renaming of exchange-online.md 3.1. On the way out: a tenant's own X-OriginatorOrg and CrossTenant fields go, the
//! true ones are stamped, and the whole is signed where the tenant has a key; Organization fields become CrossPremises where the outbound connector has
//! CloudServicesMailEnabled, else they go. On the way in: CrossPremises fields become Organization fields again where the
//! inbound connector has the flag (promotion), else they go; the stamps of the last exit go always.

use super::fields::{Section, renamed};
use super::organization::{Attribution, By, Organization};
use crate::mail::Domain;

const ORGANIZATION: &str = "X-MS-Exchange-Organization-";
const CROSS_PREMISES: &str = "X-MS-Exchange-CrossPremises-";
const CROSS_TENANT: &str = "X-MS-Exchange-CrossTenant-";
const FOREST: &str = "X-MS-Exchange-Forest-";
const MESSAGE_DATA: &str = "X-MS-Exchange-AntiSpam-MessageData-";

/// The Organization fields that have been seen to travel as CrossPremises.
const TRAVELS: &[&str] = &[
    "AuthAs",
    "AuthMechanism",
    "AuthSource",
    "TransportTrafficType",
    "TransportTrafficSubType",
    "SCL",
    "MessageSource",
    "Mapi-Admin-Submission",
    "BCC",
    "OriginalClientIPAddress",
    "Antispam-ScanContext",
    "Processed-By-Journaling",
];

/// What changes its name where it comes in again.
const RENAMED: &[(&str, &str)] = &[
    (
        "X-Forefront-Antispam-Report",
        "X-Forefront-Antispam-Report-Untrusted",
    ),
    ("X-Microsoft-Antispam", "X-Microsoft-Antispam-Untrusted"),
    (
        "X-Microsoft-Antispam-Message-Info",
        "X-Microsoft-Antispam-Message-Info-Original",
    ),
    (
        "X-MS-Office365-Filtering-Correlation-Id",
        "X-MS-Office365-Filtering-Correlation-Id-Prvs",
    ),
    ("Authentication-Results", "Authentication-Results-Original"),
];

/// A message as it leaves Exchange, with the organisation that its stamp names.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The bytes.
    pub content: Vec<u8>,
    /// The value of X-OriginatorOrg, and of XOORG where it is offered.
    pub originator_org: String,
}

/// The machine names that the simulated Exchange uses.
pub const MAILBOX_SERVER: &str = "AM8PR05MB0002.eurprd05.prod.outlook.com";
/// The front end that takes mail in.
pub const FRONT_END: &str = "AMS0EPF0000019A.eurprd05.prod.outlook.com";

/// Sends a message over the organisation's outbound connector. `None`: the transport rule leaves it alone, for it carries
/// the loop header.
#[must_use]
pub fn leave(
    organization: &Organization,
    sender: Option<&Domain>,
    content: &[u8],
    network_id: &str,
) -> Option<Exit> {
    let section = Section::of(content);
    if let Some((name, value)) = &organization.loop_header
        && section
            .named(name)
            .any(|field| value.matches(section.value(field).as_bytes()))
    {
        return None;
    }
    let flag = organization.outbound_cloud_services_mail_enabled;
    let auth_as = section
        .first(&format!("{ORGANIZATION}AuthAs"))
        .unwrap_or_else(|| "Anonymous".to_owned());
    let auth_source = section
        .first(&format!("{ORGANIZATION}AuthSource"))
        .unwrap_or_else(|| MAILBOX_SERVER.to_owned());
    let mut carried: Vec<u8> = Vec::new();
    let mut out = section.rewrite(|field, bytes| {
        if field.begins(ORGANIZATION) {
            let rest = field.name.get(ORGANIZATION.len()..).unwrap_or_default();
            if flag && TRAVELS.iter().any(|name| name.eq_ignore_ascii_case(rest)) {
                carried.extend(renamed(bytes, &format!("{CROSS_PREMISES}{rest}")));
            }
            return None;
        }
        let own = field.is("X-OriginatorOrg")
            || field.begins(CROSS_TENANT)
            || field.begins(CROSS_PREMISES)
            || field.begins(FOREST);
        (!own).then(|| bytes.to_vec())
    });
    let originator_org = organization.stamp_for(sender);
    let mut stamps = format!(
        "X-OriginatorOrg: {originator_org}\r\n\
         {CROSS_TENANT}AuthAs: {auth_as}\r\n\
         {CROSS_TENANT}AuthSource: {auth_source}\r\n\
         {CROSS_TENANT}Network-Message-Id: {network_id}\r\n\
         {CROSS_TENANT}fromentityheader: Hosted\r\n\
         {CROSS_TENANT}id: {id}\r\n\
         X-MS-Exchange-Transport-CrossTenantHeadersStamped: AM8PR05MB0002\r\n",
        id = organization.id,
    )
    .into_bytes();
    if flag {
        stamps.extend(carried);
        stamps.extend(format!("X-OrganizationHeadersPreserved: {MAILBOX_SERVER}\r\n").bytes());
    }
    if let Some((name, value)) = &organization.secret_header {
        stamps.extend([name.as_bytes(), b": ", value.expose(), b"\r\n"].concat());
    }
    let end = out.len() - section.rest().len();
    out.splice(end..end, stamps);
    let signer = organization.signer.as_ref();
    if let Some(signature) = signer.and_then(|signer| signer.sign(organization.domain(), &out)) {
        out.splice(0..0, signature.into_bytes());
    }
    Some(Exit {
        content: out,
        originator_org,
    })
}

/// A message as a mailbox would show it, and what Exchange made of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The bytes after the header firewall.
    pub content: Vec<u8>,
    /// Exchange takes it as internal.
    pub internal: bool,
    /// Because of what, in words.
    pub because: String,
}

/// Takes a message in, after attribution.
#[must_use]
pub fn enter(attribution: &Attribution, content: &[u8]) -> Entry {
    let section = Section::of(content);
    let promotes = attribution
        .connector()
        .is_some_and(|connector| connector.cloud_services_mail_enabled);
    let (internal, because) = judge(attribution, promotes, &section);
    // What is not there is not promoted, and leaves no mark of it.
    let crossing =
        |name: &str| promotes && section.first(&format!("{CROSS_PREMISES}{name}")).is_some();
    let (told, sourced) = (crossing("AuthAs"), crossing("AuthSource"));
    let mut promoted = false;
    let mut stripped = false;
    let mut kept = section.rewrite(|field, bytes| {
        if field.is("X-OriginatorOrg") || field.begins(CROSS_TENANT) {
            stripped = true;
            return None;
        }
        if field.begins(ORGANIZATION) || field.begins(FOREST) {
            return None;
        }
        if field.begins(CROSS_PREMISES) {
            let rest = field.name.get(CROSS_PREMISES.len()..).unwrap_or_default();
            promoted |= promotes;
            return promotes.then(|| renamed(bytes, &format!("{ORGANIZATION}{rest}")));
        }
        if field.begins(MESSAGE_DATA) {
            let rest = field.name.get(MESSAGE_DATA.len()..).unwrap_or_default();
            return Some(renamed(bytes, &format!("{MESSAGE_DATA}Original-{rest}")));
        }
        let new_name = RENAMED
            .iter()
            .find(|(old, _)| field.is(old))
            .map(|(_, new)| *new);
        Some(new_name.map_or_else(|| bytes.to_vec(), |name| renamed(bytes, name)))
    });
    let direction = if attribution.by == By::Certificate {
        "Originating"
    } else {
        "Incoming"
    };
    let mut marks = format!(
        "X-EOPAttributedMessage: 0\r\n{ORGANIZATION}MessageDirectionality: {direction}\r\n"
    );
    if promoted {
        marks += &format!(
            "X-CrossPremisesHeadersPromoted: {FRONT_END}\r\nX-CrossPremisesHeadersFiltered: {FRONT_END}\r\n"
        );
    }
    if !told {
        marks += &format!("{ORGANIZATION}AuthAs: Anonymous\r\n");
        if !sourced {
            marks += &format!("{ORGANIZATION}AuthSource: {FRONT_END}\r\n");
        }
    }
    if stripped {
        marks += &format!("X-MS-Exchange-Transport-CrossTenantHeadersStripped: {FRONT_END}\r\n");
    }
    let end = kept.len() - section.rest().len();
    kept.splice(end..end, marks.into_bytes());
    Entry {
        content: kept,
        internal,
        because,
    }
}

/// Internal or not: attribution and promotion are two gates (exchange-online.md 3.2).
fn judge(attribution: &Attribution, promotes: bool, section: &Section<'_>) -> (bool, String) {
    if attribution.by != By::Certificate {
        return (
            false,
            "the certificate matched no inbound connector, so this is anyone's mail".to_owned(),
        );
    }
    if !promotes {
        return (
            false,
            "the inbound connector has CloudServicesMailEnabled off: attributed, not promoted"
                .to_owned(),
        );
    }
    let value = |name: &str| section.first(&format!("{CROSS_PREMISES}{name}"));
    let count = section.named(&format!("{CROSS_PREMISES}AuthAs")).count();
    match (value("AuthAs"), value("AuthSource"), value("AuthMechanism")) {
        (None, ..) => (
            false,
            "attributed, but no CrossPremises-AuthAs to promote: AuthAs stays Anonymous".to_owned(),
        ),
        (Some(_), ..) if count > 1 => (false, format!("CrossPremises-AuthAs stands {count} times")),
        (Some(_), None, _) | (Some(_), _, None) => (
            false,
            "CrossPremises-AuthAs came without AuthSource or AuthMechanism".to_owned(),
        ),
        (Some(auth), Some(source), Some(mechanism)) if auth.eq_ignore_ascii_case("Internal") => (
            true,
            format!("promoted: AuthAs Internal, AuthMechanism {mechanism}, AuthSource {source}"),
        ),
        (Some(auth), ..) => (
            false,
            format!("promoted as {auth}: promotion carries the original verdict"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const INSIDE: &[u8] = b"From: a@contoso.com\r\nX-OriginatorOrg: victim.example\r\n\
        X-MS-Exchange-CrossTenant-Id: 00000000-0000-0000-0000-000000000000\r\n\
        X-MS-Exchange-Organization-AuthAs: Internal\r\nX-MS-Exchange-Organization-AuthMechanism: 04\r\n\
        X-MS-Exchange-Organization-AuthSource: host\r\nX-MS-Exchange-Organization-BCC:\r\n\
        X-MS-Exchange-Organization-Rules-Execution-Log: no\r\nx-microsoft-antispam: BCL:0;\r\n\r\nBody";

    fn contoso() -> Organization {
        let id = "3f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c10".parse().unwrap();
        let mut organization = Organization::new("contoso", id, "contoso.com".parse().unwrap());
        organization.secret_header = Some(("X-Gate".to_owned(), Secret::new("s3cret")));
        organization.loop_header = Some(("X-Loop".to_owned(), Secret::new("round")));
        organization
    }

    use crate::mail::Secret;

    fn attributed(organization: Organization, by: By) -> Attribution {
        Attribution {
            organization: Arc::new(organization),
            by,
        }
    }

    fn left(organization: &Organization) -> Vec<u8> {
        leave(
            organization,
            Some(&"contoso.com".parse().unwrap()),
            INSIDE,
            "id",
        )
        .unwrap()
        .content
    }

    #[test]
    fn stamps_at_exit_replace_what_the_tenant_set_itself() {
        let content = left(&contoso());
        let section = Section::of(&content);
        let value = |name: &str| {
            section
                .named(name)
                .map(|field| section.value(field))
                .collect::<Vec<_>>()
        };
        assert_eq!(value("X-OriginatorOrg"), ["contoso.com"]);
        assert_eq!(
            value("X-MS-Exchange-CrossTenant-Id"),
            ["3f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c10"]
        );
        assert_eq!(value("X-MS-Exchange-CrossPremises-AuthAs"), ["Internal"]);
        assert_eq!(value("X-MS-Exchange-CrossPremises-BCC"), [""]);
        assert_eq!(value("X-Gate"), ["s3cret"]);
        assert!(
            !section
                .fields()
                .iter()
                .any(|field| field.begins(ORGANIZATION))
        );
        assert!(content.ends_with(b"\r\n\r\nBody"));
    }

    #[test]
    fn the_stamp_names_an_originator_organisation() {
        let org = |organization: &Organization, sender: &str| {
            let exit = leave(organization, sender.parse().ok().as_ref(), INSIDE, "id").unwrap();
            let section = Section::of(&exit.content);
            assert_eq!(
                section.first("X-OriginatorOrg"),
                Some(exit.originator_org.clone())
            );
            exit.originator_org
        };
        let mut organization = contoso();
        let patterns = ["contoso.onmicrosoft.com", "mail.contoso.com"];
        let patterns = patterns.map(|pattern| pattern.parse().unwrap());
        organization.originator_orgs = crate::mail::DomainSet::new(patterns.to_vec());
        assert_eq!(org(&organization, "mail.contoso.com"), "mail.contoso.com");
        assert_eq!(org(&organization, "contoso.com"), "contoso.onmicrosoft.com");
        assert_eq!(org(&organization, ""), "contoso.onmicrosoft.com");
    }

    #[test]
    fn without_the_flag_organization_headers_are_removed() {
        let mut organization = contoso();
        organization.outbound_cloud_services_mail_enabled = false;
        let content = left(&organization);
        let section = Section::of(&content);
        assert!(
            !section
                .fields()
                .iter()
                .any(|field| field.begins(CROSS_PREMISES) || field.begins(ORGANIZATION))
        );
        assert_eq!(section.first("X-OrganizationHeadersPreserved"), None);
    }

    #[test]
    fn the_rule_leaves_alone_what_went_round_already() {
        let marked = [b"X-Loop: round\r\n".as_slice(), INSIDE].concat();
        assert!(leave(&contoso(), None, &marked, "id").is_none());
        let forged = [b"X-Loop: guess\r\n".as_slice(), INSIDE].concat();
        assert!(leave(&contoso(), None, &forged, "id").is_some());
    }

    #[test]
    fn attribution_and_promotion_are_two_gates() {
        let content = left(&contoso());
        let entry = enter(&attributed(contoso(), By::Certificate), &content);
        assert!(entry.internal, "{}", entry.because);
        let section = Section::of(&entry.content);
        assert_eq!(
            section
                .first("X-MS-Exchange-Organization-AuthAs")
                .as_deref(),
            Some("Internal")
        );
        assert_eq!(
            section
                .first("X-MS-Exchange-Organization-MessageDirectionality")
                .as_deref(),
            Some("Originating")
        );
        assert_eq!(section.first("X-OriginatorOrg"), None);
        assert_eq!(
            section.first("X-Microsoft-Antispam-Untrusted").as_deref(),
            Some("BCL:0;")
        );

        assert!(!enter(&attributed(contoso(), By::Sender), &content).internal);
        let mut without_flag = contoso();
        without_flag
            .inbound
            .as_mut()
            .unwrap()
            .cloud_services_mail_enabled = false;
        let entry = enter(&attributed(without_flag, By::Certificate), &content);
        assert!(!entry.internal);
        let section = Section::of(&entry.content);
        assert_eq!(
            section
                .first("X-MS-Exchange-Organization-AuthAs")
                .as_deref(),
            Some("Anonymous")
        );
        let entry = enter(
            &attributed(contoso(), By::Certificate),
            b"From: a@contoso.com\r\n\r\n",
        );
        assert!(!entry.internal);
    }

    /// exchange-online.md 3.1: the marks tell what was promoted, and mail that brings no verdict is given one.
    #[test]
    fn what_had_nothing_to_promote_is_anonymous_and_carries_no_mark_of_it() {
        let auth = "X-MS-Exchange-CrossPremises-AuthAs: Internal\r\n";
        let source = "X-MS-Exchange-CrossPremises-AuthSource: host\r\n";
        let level = "X-MS-Exchange-CrossPremises-SCL: -1\r\n";
        for (flag, fields, marked, auth_as, auth_source) in [
            (true, String::new(), false, "Anonymous", FRONT_END),
            (true, level.to_owned(), true, "Anonymous", FRONT_END),
            (true, source.to_owned(), true, "Anonymous", "host"),
            (true, format!("{auth}{source}"), true, "Internal", "host"),
            (
                false,
                format!("{auth}{source}"),
                false,
                "Anonymous",
                FRONT_END,
            ),
        ] {
            let mut organization = contoso();
            let inbound = organization.inbound.as_mut().unwrap();
            inbound.cloud_services_mail_enabled = flag;
            let content = format!("From: a@contoso.com\r\n{fields}\r\n");
            let by = attributed(organization, By::Certificate);
            let entry = enter(&by, content.as_bytes());
            let section = Section::of(&entry.content);
            let values = |name: &str| {
                let fields = section.named(name);
                fields.map(|field| section.value(field)).collect::<Vec<_>>()
            };
            for mark in [
                "X-CrossPremisesHeadersPromoted",
                "X-CrossPremisesHeadersFiltered",
            ] {
                assert_eq!(values(mark).len(), usize::from(marked), "{fields}");
            }
            assert_eq!(
                values("X-MS-Exchange-Organization-AuthAs"),
                [auth_as],
                "{fields}"
            );
            assert_eq!(
                values("X-MS-Exchange-Organization-AuthSource"),
                [auth_source],
                "{fields}"
            );
        }
    }

    /// What stands where a field with this name came in: its new name, or nothing.
    fn after_entry(name: &str, flag: bool) -> Option<String> {
        let mut organization = contoso();
        organization
            .inbound
            .as_mut()
            .unwrap()
            .cloud_services_mail_enabled = flag;
        let content = format!("From: a@contoso.com\r\n{name}: the value\r\n\r\n");
        let entry = enter(
            &attributed(organization, By::Certificate),
            content.as_bytes(),
        );
        let section = Section::of(&entry.content);
        let found = section
            .fields()
            .iter()
            .find(|field| section.value(field) == "the value");
        found.map(|field| field.name.to_owned())
    }

    /// exchange-online.md 3.1, row by row.
    #[test]
    fn re_entry_renames_and_removes_what_the_first_pass_stamped() {
        let both_ways = [
            ("X-OriginatorOrg", None),
            ("X-MS-Exchange-CrossTenant-Id", None),
            ("x-ms-exchange-crosstenant-originalarrivaltime", None),
            ("X-MS-Exchange-Forest-RulesExecuted", None),
            ("X-MS-Exchange-Organization-SCL", None),
            (
                "X-MS-Exchange-Transport-CrossTenantHeadersStamped",
                Some("X-MS-Exchange-Transport-CrossTenantHeadersStamped"),
            ),
            (
                "X-Forefront-Antispam-Report",
                Some("X-Forefront-Antispam-Report-Untrusted"),
            ),
            (
                "X-Microsoft-Antispam",
                Some("X-Microsoft-Antispam-Untrusted"),
            ),
            (
                "X-Microsoft-Antispam-Message-Info",
                Some("X-Microsoft-Antispam-Message-Info-Original"),
            ),
            (
                "X-MS-Exchange-AntiSpam-MessageData-0",
                Some("X-MS-Exchange-AntiSpam-MessageData-Original-0"),
            ),
            (
                "X-MS-Office365-Filtering-Correlation-Id",
                Some("X-MS-Office365-Filtering-Correlation-Id-Prvs"),
            ),
            (
                "Authentication-Results",
                Some("Authentication-Results-Original"),
            ),
            ("Subject", Some("Subject")),
        ];
        for (name, renamed) in both_ways {
            for flag in [true, false] {
                assert_eq!(after_entry(name, flag).as_deref(), renamed, "{name} {flag}");
            }
        }
        let crossing = "X-MS-Exchange-CrossPremises-SCL";
        assert_eq!(
            after_entry(crossing, true).as_deref(),
            Some("X-MS-Exchange-Organization-SCL"),
            "promoted"
        );
        assert_eq!(after_entry(crossing, false), None, "not promoted, dropped");
    }
}
