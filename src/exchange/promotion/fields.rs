//! The fields that count, in the order in which they are told, each with what its value says.

use super::{Bears, Facts, Reading, Row};
use crate::exchange::Mark;
use crate::header::{Examined, KEPT_BACK};
use crate::mail::{TenantId, shown};
use Bears::{External, Internal, Neither};
use Mark::{Documented, Observed};

/// What a value says.
struct Said {
    bears: Bears,
    says: String,
    mark: Mark,
}

fn said(bears: Bears, mark: Mark, says: impl Into<String>) -> Said {
    Said {
        bears,
        says: says.into(),
        mark,
    }
}

type Speak = fn(&str, Reading, &Facts<'_>) -> Said;

const FIELDS: &[(&str, Speak)] = &[
    ("X-MS-Exchange-Organization-AuthAs", organization_auth_as),
    ("X-MS-Exchange-Organization-AuthMechanism", mechanism),
    ("X-MS-Exchange-Organization-AuthSource", source),
    (
        "X-MS-Exchange-Organization-MessageDirectionality",
        direction,
    ),
    ("X-MS-Exchange-Organization-SCL", level),
    ("X-MS-Exchange-CrossPremises-AuthAs", crossing_auth_as),
    ("X-MS-Exchange-CrossPremises-AuthMechanism", mechanism),
    ("X-MS-Exchange-CrossPremises-AuthSource", source),
    ("X-OrganizationHeadersPreserved", preserved),
    ("X-CrossPremisesHeadersPromoted", promoted),
    ("X-CrossPremisesHeadersFiltered", filtered),
    (
        "X-CrossPremisesHeadersFilteredBySendConnector",
        filtered_at_exit,
    ),
    ("X-EOPAttributedMessage", attributed),
    ("X-EOPTenantAttributedMessage", tenant_id),
    ("X-OriginatorOrg", originator),
    ("X-MS-Exchange-CrossTenant-Id", tenant_id),
    ("X-MS-Exchange-CrossTenant-AuthAs", exit_auth_as),
    ("X-MS-Exchange-CrossTenant-FromEntityHeader", entity),
    (
        "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp",
        connecting,
    ),
    ("X-MS-Exchange-Transport-CrossTenantHeadersStamped", stamped),
    (
        "X-MS-Exchange-Transport-CrossTenantHeadersPromoted",
        stamps_promoted,
    ),
    (
        "X-MS-Exchange-Transport-CrossTenantHeadersStripped",
        stripped,
    ),
    ("X-Forefront-Antispam-Report", report),
    ("X-MS-Exchange-ExternalInOutlookResult", tagged),
];

/// The rows of what stands there, and of the field that decides where it does not.
pub(super) fn rows(header: &Examined, reading: Reading, facts: &Facts<'_>) -> Vec<Row> {
    let decisive = match reading {
        Reading::Mailbox => "X-MS-Exchange-Organization-AuthAs",
        Reading::OnItsWay => "X-MS-Exchange-CrossPremises-AuthAs",
    };
    let mut rows = Vec::new();
    for (name, speak) in FIELDS {
        let row = |value: String, said: Said| Row {
            field: (*name).to_owned(),
            value,
            bears: said.bears,
            says: said.says,
            mark: said.mark,
        };
        if !header.has(name) && *name == decisive {
            let absent = match reading {
                Reading::Mailbox => said(
                    Neither,
                    Documented,
                    "absent: the verdict of Exchange is not in this copy",
                ),
                Reading::OnItsWay => said(
                    External,
                    Documented,
                    "absent: there is nothing to promote, AuthAs will be Anonymous",
                ),
            };
            rows.push(row(String::new(), absent));
        }
        for field in header.named(name) {
            let text = String::from_utf8_lossy(&field.text()).into_owned();
            rows.push(row(
                shown(text.as_bytes()),
                speak(text.trim(), reading, facts),
            ));
        }
    }
    rows.extend(own_marks(header, facts));
    rows
}

/// Our loop header: never its value.
fn own_marks(header: &Examined, facts: &Facts<'_>) -> Option<Row> {
    let own = facts.tenant?.loop_header.as_ref()?;
    let field = header.named(&own.name).next()?;
    let text = field.text();
    let (value, says) = if *text == *KEPT_BACK.as_bytes() {
        (
            KEPT_BACK,
            "the name of our loop header; a server keeps its value back",
        )
    } else if own.matches(&text) {
        ("(matches)", "our loop header: it has been through Gatepost")
    } else {
        (
            "(differs)",
            "the name of our loop header with another value: nobody's proof of anything",
        )
    };
    Some(Row {
        field: own.name.to_string(),
        value: value.to_owned(),
        bears: Neither,
        says: says.to_owned(),
        mark: Mark::Given,
    })
}

fn auth_as(value: &str) -> Option<Bears> {
    match value.to_ascii_lowercase().as_str() {
        "internal" => Some(Internal),
        "anonymous" | "external" | "partner" => Some(External),
        _ => None,
    }
}

fn organization_auth_as(value: &str, reading: Reading, _: &Facts<'_>) -> Said {
    if reading == Reading::OnItsWay {
        return said(
            Neither,
            Documented,
            "an Organization field outside Exchange: taken away where it comes in",
        );
    }
    match auth_as(value) {
        Some(Internal) => said(
            Internal,
            Documented,
            "Exchange's verdict: sent by an authenticated sender of the organisation",
        ),
        Some(_) if value.eq_ignore_ascii_case("partner") => said(
            External,
            Documented,
            "Exchange's verdict: a partner by domain security or a Partner connector, not internal",
        ),
        Some(_) => said(
            External,
            Documented,
            "Exchange's verdict: not authenticated",
        ),
        None => said(
            Neither,
            Documented,
            "a value that Exchange is not known to write",
        ),
    }
}

fn crossing_auth_as(value: &str, reading: Reading, _: &Facts<'_>) -> Said {
    if reading == Reading::Mailbox {
        return said(
            External,
            Documented,
            "still there: nothing has promoted or filtered it",
        );
    }
    match auth_as(value) {
        Some(Internal) => said(
            Internal,
            Documented,
            "becomes Organization-AuthAs where the inbound connector has CloudServicesMailEnabled",
        ),
        Some(_) => said(
            External,
            Observed,
            "promotion carries the original verdict: it stays so",
        ),
        None => said(
            Neither,
            Documented,
            "a value that Exchange is not known to write",
        ),
    }
}

fn mechanism(value: &str, _: Reading, _: &Facts<'_>) -> Said {
    match value {
        "00" => said(Neither, Observed, "no authentication"),
        "04" | "06" | "05" | "07" | "14" => said(
            Neither,
            Observed,
            "as Exchange writes it for mail of a mailbox or of its own",
        ),
        "10" => said(
            Neither,
            Observed,
            "another server of the organisation vouches for it; also our internal stamp",
        ),
        _ => said(
            Neither,
            Documented,
            "how it was authenticated, two hexadecimal digits",
        ),
    }
}

fn source(value: &str, reading: Reading, facts: &Facts<'_>) -> Said {
    let ours = facts
        .hostname
        .is_some_and(|own| value.eq_ignore_ascii_case(own.as_str()));
    match (ours, reading) {
        (true, _) => said(Neither, Mark::Given, "this Gatepost: our internal stamp"),
        (false, _) => said(Neither, Documented, "the server that judged"),
    }
}

fn direction(value: &str, reading: Reading, _: &Facts<'_>) -> Said {
    if reading == Reading::OnItsWay {
        return said(
            Neither,
            Documented,
            "an Organization field outside Exchange: taken away where it comes in",
        );
    }
    if value.eq_ignore_ascii_case("originating") {
        said(
            Internal,
            Documented,
            "attributed to the tenant: from inside, or by an inbound connector that fitted",
        )
    } else {
        said(
            External,
            Documented,
            "not attributed: anybody's mail, no inbound connector fitted",
        )
    }
}

fn level(value: &str, _: Reading, _: &Facts<'_>) -> Said {
    match value {
        "-1" => said(Neither, Documented, "the spam filter was passed by"),
        _ => said(Neither, Documented, "the spam confidence level"),
    }
}

fn preserved(_: &str, reading: Reading, _: &Facts<'_>) -> Said {
    let says = match reading {
        Reading::OnItsWay => {
            "the outbound connector has CloudServicesMailEnabled: it wrote the CrossPremises fields"
        }
        Reading::Mailbox => {
            "the outbound connector had CloudServicesMailEnabled: the message left with CrossPremises fields"
        }
    };
    said(Internal, Observed, says)
}

fn promoted(_: &str, _: Reading, _: &Facts<'_>) -> Said {
    said(
        Internal,
        Observed,
        "the inbound connector promoted the CrossPremises fields to Organization fields",
    )
}

fn filtered(_: &str, _: Reading, _: &Facts<'_>) -> Said {
    said(
        Neither,
        Observed,
        "the CrossPremises fields were taken away, as always behind promotion",
    )
}

fn filtered_at_exit(_: &str, _: Reading, _: &Facts<'_>) -> Said {
    said(
        External,
        Documented,
        "an on-premises send connector without CloudServicesMailEnabled took the Organization fields away",
    )
}

fn attributed(_: &str, _: Reading, _: &Facts<'_>) -> Said {
    said(
        Neither,
        Observed,
        "Exchange's front end has attributed it; to whom, others say",
    )
}

fn tenant_id(value: &str, _: Reading, facts: &Facts<'_>) -> Said {
    whose(value.parse::<TenantId>().ok(), facts)
}

fn whose(id: Option<TenantId>, facts: &Facts<'_>) -> Said {
    match (id, facts.tenants) {
        (None, _) => said(External, Documented, "no tenant id"),
        (Some(_), None) => said(Neither, Documented, "the tenant of Exchange that it is of"),
        (Some(id), Some(tenants)) => match tenants.of_id(id) {
            Some(tenant) => said(Neither, Documented, format!("tenant {}", tenant.name)),
            None => said(External, Documented, "a tenant that is not configured"),
        },
    }
}

fn originator(value: &str, _: Reading, facts: &Facts<'_>) -> Said {
    let domain = value.parse::<crate::mail::Domain>().ok();
    match (domain, facts.tenants) {
        (None, _) => said(External, Observed, "no domain"),
        (Some(_), None) => said(
            Neither,
            Observed,
            "an accepted domain of the sending tenant, written by Exchange at the exit or by our stamp",
        ),
        (Some(domain), Some(tenants)) => match tenants.of_org(&domain) {
            Some(tenant) => said(Neither, Observed, format!("tenant {}", tenant.name)),
            None => said(
                External,
                Observed,
                "no originator organisation of a configured tenant",
            ),
        },
    }
}

fn exit_auth_as(value: &str, _: Reading, _: &Facts<'_>) -> Said {
    match auth_as(value) {
        Some(Internal) => said(
            Neither,
            Observed,
            "it was internal when it last left, or now is: for the next entry only CrossPremises counts",
        ),
        Some(_) => said(
            External,
            Observed,
            "it was not internal when it last left, or now is not",
        ),
        None => said(
            Neither,
            Observed,
            "a value that Exchange is not known to write",
        ),
    }
}

fn entity(value: &str, _: Reading, _: &Facts<'_>) -> Said {
    match value.to_ascii_lowercase().as_str() {
        "hosted" => said(Neither, Observed, "of a mailbox in Exchange Online"),
        "hybridonprem" => said(
            Neither,
            Observed,
            "attributed by an inbound connector, which does not make it internal",
        ),
        "internet" => said(
            External,
            Observed,
            "from the Internet: no connector attributed it",
        ),
        _ => said(Neither, Observed, "where Exchange has it from"),
    }
}

fn connecting(value: &str, _: Reading, facts: &Facts<'_>) -> Said {
    let id = value
        .split(';')
        .filter_map(|part| part.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case("TenantId"))
        .and_then(|(_, id)| id.trim().parse::<TenantId>().ok());
    let told = whose(id, facts);
    said(
        told.bears,
        Observed,
        format!(
            "who handed it to Exchange, and to whom it was attributed: {}",
            told.says
        ),
    )
}

fn stamped(_: &str, _: Reading, _: &Facts<'_>) -> Said {
    said(Neither, Observed, "it has left a tenant; one for each time")
}

fn stamps_promoted(_: &str, _: Reading, _: &Facts<'_>) -> Said {
    said(
        Neither,
        Observed,
        "Exchange took stamps of an earlier exit over",
    )
}

fn stripped(_: &str, _: Reading, _: &Facts<'_>) -> Said {
    said(
        Neither,
        Observed,
        "it came in again, and the stamps of its last exit were taken away: by itself no fault",
    )
}

fn report(value: &str, _: Reading, _: &Facts<'_>) -> Said {
    let part = |wanted: &str| {
        let mut parts = value.split(';').filter_map(|part| part.split_once(':'));
        parts
            .find(|(key, _)| key.trim() == wanted)
            .map(|(_, value)| shown(value.trim().as_bytes()))
    };
    let direction = match part("DIR").as_deref() {
        Some("INB") => "DIR:INB, mail from outside",
        Some("OUT") => "DIR:OUT, mail of the organisation on its way out",
        Some("INT") => "DIR:INT, mail within the organisation",
        _ => "no direction",
    };
    said(
        Neither,
        Documented,
        format!("{direction}; from {}", part("CIP").unwrap_or_default()),
    )
}

fn tagged(value: &str, _: Reading, _: &Facts<'_>) -> Said {
    let says = if value.eq_ignore_ascii_case("true") {
        "Outlook shows the External tag"
    } else {
        "whether Outlook shows the External tag"
    };
    said(Neither, Observed, says)
}
