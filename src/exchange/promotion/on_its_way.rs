//! What becomes of it: taken by Gatepost, attributed by Exchange's connector, promoted by the CrossPremises fields.

use super::{
    Bears, CROSS_PREMISES, CROSS_TENANT, Conclusion, Facts, Row, STAMPS, gate, says, value,
};
use crate::exchange::Mark;
use crate::exchange::attribution::Verdict;
use crate::header::Examined;

pub(super) fn conclude(header: &Examined, facts: &Facts<'_>, rows: &mut Vec<Row>) -> Conclusion {
    let gate = gate::ask(header, facts);
    rows.extend(gate.row);
    settings(facts, rows);
    let against = gate.first.or_else(|| crossing(header, facts)).or(gate.last);
    if let Some(conclusion) = against {
        return conclusion;
    }
    if let Some(answer) = facts.attribution
        && answer.verdict != Verdict::Attributed
    {
        let mended_by = answer.mended_by.clone().unwrap_or_default();
        return Conclusion::external(
            format!(
                "Exchange would not take it for the tenant's own: {}",
                answer.because
            ),
            mended_by,
        );
    }
    if facts.promotes == Some(false) {
        return Conclusion::external(
            "the inbound connector does not promote (cloud_services_mail_enabled = false), so the CrossPremises fields are dropped",
            "CloudServicesMailEnabled on both connectors, and cloud_services_mail_enabled = true",
        );
    }
    let part = |name: &str| value(header, &format!("{CROSS_PREMISES}{name}")).unwrap_or_default();
    let promotes = format!(
        "promotes AuthAs Internal, AuthMechanism {}, AuthSource {}",
        part("AuthMechanism"),
        part("AuthSource"),
    );
    Conclusion::internal(match (facts.attribution, facts.tenants) {
        (Some(_), _) => {
            format!("the certificate attributes it, and the inbound connector {promotes}")
        }
        (None, None) => format!(
            "an inbound connector that the certificate fits and that has CloudServicesMailEnabled {promotes} (neither was judged: no configuration was read)"
        ),
        (None, Some(_)) => format!(
            "an inbound connector that the certificate fits and that has CloudServicesMailEnabled {promotes} (neither was judged: the header names no tenant that has one, --tenant does)"
        ),
    })
}

/// What the configuration adds to the table.
fn settings(facts: &Facts<'_>, rows: &mut Vec<Row>) {
    if let Some(answer) = facts.attribution {
        let good = answer.verdict == Verdict::Attributed;
        rows.push(Row {
            field: "(certificate)".to_owned(),
            value: answer.verdict.word().to_owned(),
            bears: if good {
                Bears::Neither
            } else {
                Bears::External
            },
            says: answer.because.clone(),
            mark: Mark::Documented,
        });
    }
    if let Some(promotes) = facts.promotes {
        rows.push(Row {
            field: "(cloud_services_mail_enabled)".to_owned(),
            value: promotes.to_string(),
            bears: if promotes {
                Bears::Neither
            } else {
                Bears::External
            },
            says: "whether the inbound connector promotes, as the configuration has it".to_owned(),
            mark: Mark::Given,
        });
    }
}

/// What the CrossPremises fields say; `None` where they say Internal as they should.
fn crossing(header: &Examined, facts: &Facts<'_>) -> Option<Conclusion> {
    let name = |part: &str| format!("{CROSS_PREMISES}{part}");
    let count = header.count(&name("AuthAs"));
    let Some(auth_as) = value(header, &name("AuthAs")) else {
        return Some(absent(header));
    };
    if count > 1 {
        return Some(Conclusion::external(
            format!(
                "X-MS-Exchange-CrossPremises-AuthAs stands {count} times, and nobody has documented which counts"
            ),
            "taking out what writes it a second time on the way",
        ));
    }
    if !auth_as.eq_ignore_ascii_case("Internal") {
        return Some(Conclusion::external(
            format!(
                "promotion carries the original verdict, and that is AuthAs {auth_as}: it was not internal before it came here"
            ),
            "nothing here; mail that Exchange took as external stays external",
        ));
    }
    let missing = ["AuthSource", "AuthMechanism"];
    if let Some(missing) = missing.into_iter().find(|part| !header.has(&name(part))) {
        return Some(Conclusion::external(
            format!("X-MS-Exchange-CrossPremises-AuthAs came without {missing}"),
            "letting the fields through as Exchange wrote them",
        ));
    }
    if facts.as_delivered {
        return None;
    }
    unproven(header, facts)
}

/// Fields that anybody can write: what Gatepost would not let through.
fn unproven(header: &Examined, facts: &Facts<'_>) -> Option<Conclusion> {
    if !STAMPS.into_iter().any(|name| header.has(name)) {
        return Some(Conclusion::external(
            "the CrossPremises fields came without a stamp (X-OriginatorOrg, X-MS-Exchange-CrossTenant-Id), and anybody can write them: Exchange stamps all that leaves it, so Gatepost takes them out of an application's mail",
            "internal = true of the [[application]] that may be internal: then Gatepost writes fields and stamp; of mail that Exchange sent, take the whole header",
        ));
    }
    let name = |part: &str| format!("{CROSS_PREMISES}{part}");
    // Without a configuration our name is unknown, and what we write as the mechanism is not.
    let ours = match facts.hostname {
        Some(own) => says(header, &name("AuthSource"), own.as_str()),
        None => says(header, &name("AuthMechanism"), "10"),
    };
    let exchange = header.has("X-OrganizationHeadersPreserved");
    (!ours && !exchange).then(|| {
        Conclusion::external(
            "neither Exchange (X-OrganizationHeadersPreserved) nor this Gatepost wrote the CrossPremises fields, so Gatepost takes them out of an application's mail",
            "internal = true of the [[application]] that may be internal: then Gatepost writes them",
        )
    })
}

fn absent(header: &Examined) -> Conclusion {
    if header.has("X-CrossPremisesHeadersFilteredBySendConnector") {
        return Conclusion::external(
            "an on-premises send connector without CloudServicesMailEnabled took the Organization fields away",
            "Set-SendConnector -CloudServicesMailEnabled $true on that server",
        );
    }
    let auth_as = value(header, &format!("{CROSS_TENANT}AuthAs"));
    match auth_as {
        Some(auth_as) if auth_as.eq_ignore_ascii_case("Internal") => Conclusion::external(
            "it left Exchange as internal but without CrossPremises fields, so there is nothing to promote: the outbound connector has no CloudServicesMailEnabled",
            "Set-OutboundConnector -CloudServicesMailEnabled $true (and the same on the inbound connector)",
        ),
        Some(auth_as) => {
            let entity = format!("{CROSS_TENANT}FromEntityHeader");
            let by = if says(header, &entity, "HybridOnPrem") {
                ", having come in over a connector without promotion"
            } else {
                ""
            };
            Conclusion::external(
                format!("it was already external when it left Exchange (AuthAs {auth_as}{by})"),
                "whatever handed it to Exchange: an inbound connector that fits and promotes; mail from outside stays external",
            )
        }
        None => Conclusion::external(
            "it carries no CrossPremises fields, so there is nothing to promote",
            "for an application's mail to accepted domains, internal = true of its [[application]] (to other recipients nothing makes it internal); for mail of a mailbox, CloudServicesMailEnabled on the outbound connector",
        ),
    }
}
