//! What Exchange made of it, by the fields that a mailbox shows.

use super::{CROSS_TENANT, Conclusion, ORGANIZATION, says, value};
use crate::header::Examined;
use crate::mail::shown;

/// How it was attributed, as far as the fields tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attributed {
    Yes,
    No,
    Untold,
}

pub(super) fn conclude(header: &Examined) -> Conclusion {
    let verdicts = [ORGANIZATION, CROSS_TENANT].map(|family| format!("{family}AuthAs"));
    if let Some(name) = verdicts.iter().find(|name| header.has(name))
        && header.count(name) > 1
    {
        return several(header, name);
    }
    let auth_as = verdicts.iter().find_map(|name| value(header, name));
    let auth_as = auth_as.map(|value| value.to_ascii_lowercase());
    match auth_as.as_deref() {
        Some("internal") => internal(header),
        Some("partner") => Conclusion::external(
            "Exchange took it as a partner's (AuthAs Partner)",
            "an inbound connector of type OnPremises in the place of the Partner connector",
        ),
        Some(_) => not_internal(header),
        None => Conclusion::unknown(
            "neither X-MS-Exchange-Organization-AuthAs nor a field like it stands there",
            "take the whole header: in Outlook under File, Properties; in Outlook on the web under View message source",
        ),
    }
}

/// Exchange writes its verdict once and takes away what a message brings: of several, somebody else wrote one.
fn several(header: &Examined, name: &str) -> Conclusion {
    let values: Vec<String> = header
        .named(name)
        .map(|field| shown(&field.text()))
        .collect();
    let because = format!(
        "{name} stands {} times ({}), Exchange writes it once, and which of them is Exchange's nobody can tell",
        values.len(),
        shown(values.join(", ").as_bytes())
    );
    let instead = "taking the header anew from the mailbox itself, and taking out what writes the field there";
    let all_internal = values
        .iter()
        .all(|value| value.eq_ignore_ascii_case("internal"));
    if all_internal {
        Conclusion::unknown(because, instead)
    } else {
        Conclusion::external(because, instead)
    }
}

fn internal(header: &Examined) -> Conclusion {
    let promoted = value(header, "X-CrossPremisesHeadersPromoted");
    let source = value(header, &format!("{ORGANIZATION}AuthSource"));
    let source = source.map_or_else(String::new, |source| format!(", AuthSource {source}"));
    let mechanism = value(header, &format!("{ORGANIZATION}AuthMechanism"));
    let mechanism = mechanism.map_or_else(String::new, |mechanism| {
        format!(", AuthMechanism {mechanism}")
    });
    Conclusion::internal(match promoted {
        Some(_) => {
            format!("attributed by the connector and promoted, AuthAs Internal{mechanism}{source}")
        }
        None => format!(
            "AuthAs Internal{mechanism}{source}, without promotion: it did not come in over a connector with CloudServicesMailEnabled"
        ),
    })
}

fn not_internal(header: &Examined) -> Conclusion {
    if header.has("X-CrossPremisesHeadersPromoted") {
        return Conclusion::external(
            "it was attributed and promoted, but promotion carries the original verdict, and that was already Anonymous",
            "for an application, internal = true of its [[application]] (and one of its senders as From:); mail that came from outside stays external",
        );
    }
    match attributed(header) {
        Attributed::No => Conclusion::external(
            "no inbound connector fitted it: to Exchange it is anybody's mail (MessageDirectionality Incoming)",
            "where Gatepost delivered it, a certificate, connector and accepted domain that fit each other, gatepost explain attribution says which; mail that came from outside stays external",
        ),
        Attributed::Yes if header.has("X-OrganizationHeadersPreserved") => Conclusion::external(
            "it was attributed but not promoted: the CrossPremises fields left Exchange and were dropped where they came in",
            "CloudServicesMailEnabled on the inbound connector: Set-InboundConnector -CloudServicesMailEnabled $true",
        ),
        Attributed::Yes if left_exchange_before(header) => Conclusion::external(
            "it was attributed but not promoted: it left Exchange without CrossPremises fields",
            "CloudServicesMailEnabled on the outbound connector, and on the inbound one as well: Set-OutboundConnector -CloudServicesMailEnabled $true",
        ),
        Attributed::Yes => Conclusion::external(
            "it was attributed but not promoted: an application's mail without the internal stamp, or the inbound connector does not promote",
            "internal = true of its [[application]], and CloudServicesMailEnabled on the inbound connector",
        ),
        Attributed::Untold => Conclusion::external(
            "Exchange did not take it as authenticated (AuthAs Anonymous), and whether a connector fitted is not in this copy (MessageDirectionality)",
            "gatepost explain attribution says whether certificate and connector fit, the whole header says the rest",
        ),
    }
}

fn attributed(header: &Examined) -> Attributed {
    let direction = format!("{ORGANIZATION}MessageDirectionality");
    let entity = format!("{CROSS_TENANT}FromEntityHeader");
    if says(header, &direction, "Originating") {
        Attributed::Yes
    } else if header.has(&direction) || says(header, &entity, "Internet") {
        Attributed::No
    } else if says(header, &entity, "HybridOnPrem")
        || header.has(&format!(
            "{CROSS_TENANT}OriginalAttributedTenantConnectingIp"
        ))
    {
        Attributed::Yes
    } else {
        Attributed::Untold
    }
}

/// What the first pass leaves behind: it began in a mailbox.
fn left_exchange_before(header: &Examined) -> bool {
    let mapi = header.named("Received").any(|field| {
        let text = String::from_utf8_lossy(&field.text()).to_ascii_lowercase();
        text.contains("with mapi id")
    });
    mapi || header.has("X-MS-Office365-Filtering-Correlation-Id-Prvs")
        || header.has("X-MS-Exchange-Transport-CrossTenantHeadersStripped")
}
