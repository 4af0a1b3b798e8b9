//! What else in the tenant decides: its domains, its other connectors, whether Exchange's own test mail has come through.

use super::desired::is_marked;
use super::diff::{Drift, Mend, Report, seen};
use super::export::{Exported, flag, list, moment, text};
use super::found::{self, Found};
use super::objects::Kind;
use super::plan::Plan;
use super::readme::somebody;
use super::rules::Stage;
use super::told::{self, literal, shown};
use super::turn::Turn;
use crate::mail::{Domain, DomainPattern};
use crate::trust::sender_name::is_meant;
use time::format_description::well_known::Rfc3339;

/// Whether the hybrid wizard made it: such a connector is never touched.
pub(super) fn is_hybrid(object: &Exported) -> bool {
    let source = object.text("ConnectorSource");
    let name = object.text("Name").to_ascii_lowercase();
    source.eq_ignore_ascii_case("HybridWizard")
        || source == "2"
        || name.starts_with("inbound from ")
        || name.starts_with("outbound to ")
}

/// Tells the hybrid connectors.
fn hybrid(report: &mut Report, title: &str, objects: &[Exported]) {
    for object in objects.iter().filter(|object| is_hybrid(object)) {
        let name = shown(object.text("Name").as_bytes());
        report.note(
            &format!("{title} {name}"),
            "belongs to the hybrid set-up: leave it alone, no script of ours touches it",
        );
    }
}

/// Inbound connectors beside ours that Exchange could take our mail for.
pub(super) fn other_inbound(report: &mut Report, plan: &Plan, objects: &[Exported], found: &Found) {
    hybrid(report, "inbound connector", objects);
    let ours = found
        .of(objects)
        .map(|own| own.text("TlsSenderCertificateName"))
        .unwrap_or_default();
    for (place, other) in objects.iter().enumerate() {
        if found.knows(place) || !found::is_enabled(other) {
            continue;
        }
        let name = other.text("Name");
        let theirs = other.text("TlsSenderCertificateName");
        let same = !ours.is_empty() && theirs.eq_ignore_ascii_case(&ours);
        if same || plan.certificate.is_meant_by(&theirs) {
            report.drift.push(Drift {
                object: Kind::Inbound.title().to_owned(),
                name: shown(name.as_bytes()),
                property: "TlsSenderCertificateName".to_owned(),
                is: seen(&theirs),
                should: format!(
                    "a name of its own: {} is Gatepost's",
                    plan.certificate.connector_name
                ),
                breaks: "two connectors fit the certificate that Gatepost shows, and Exchange may take the other with its settings: mail arrives as external, or is refused".to_owned(),
                mend: if is_hybrid(other) {
                    let covered = theirs.strip_prefix("*.").map(|below| format!(", which does not end in .{below}")).unwrap_or_default();
                    Mend::Step(format!("Leave the hybrid connector, and give Gatepost a certificate with a name of its own ([tenant.inbound_connector] certificate): in another accepted domain{covered}."))
                } else if is_marked(&other.text(Kind::Inbound.comment())) {
                    Mend::Line(format!("Set-InboundConnector -Identity {} -Enabled $false", told::literal(&name)))
                } else {
                    Mend::Step(format!("Look at what comes by it: Get-InboundConnector -Identity {0} | Format-List, and its mail in the message trace. An earlier connector for Gatepost is ended by Set-InboundConnector -Identity {0} -Enabled $false; where another server uses it, give that one, or Gatepost, a certificate with a name of its own.", told::literal(&name)))
                },
                turn: Turn::Today,
            });
        }
        if !same
            && !plan.certificate.is_meant_by(&theirs)
            && is_meant(&ours, std::slice::from_ref(&theirs))
        {
            report.note(
                &format!("inbound connector {}", shown(name.as_bytes())),
                format!("is known by {}, which {} of ours covers: Exchange may take ours for its mail; safer is a name of its own for Gatepost", seen(&theirs), seen(&ours)),
            );
        }
        let is_partner = other.text("ConnectorType").eq_ignore_ascii_case("Partner");
        let restricts = [
            "RestrictDomainsToIPAddresses",
            "RestrictDomainsToCertificate",
        ];
        if let Some(property) = restricts.iter().find(|property| other.is_set(property))
            && is_partner
        {
            report.note(
                &format!("inbound connector {}", shown(name.as_bytes())),
                format!("a Partner connector with {property}: where ours does not match, it answers 550 5.7.51 TenantInboundAttribution"),
            );
        }
    }
}

/// Outbound connectors beside ours that lead mail to Gatepost, or take what has come back from it.
pub(super) fn other_outbound(
    report: &mut Report,
    plan: &Plan,
    objects: &[Exported],
    found: &Found,
) {
    hybrid(report, "outbound connector", objects);
    for (place, other) in objects.iter().enumerate() {
        if found.knows(place) || !found::is_enabled(other) {
            continue;
        }
        let name = other.text("Name");
        let ways = ["RouteAllMessagesViaOnPremises", "AllAcceptedDomains"];
        let all: Vec<&str> = ways.into_iter().filter(|way| other.is_set(way)).collect();
        let domains = other.get("RecipientDomains").map(list).unwrap_or_default();
        // A rule that names it is told as such.
        let by_itself = !other.is_set("IsTransportRuleScoped") || !all.is_empty();
        let to_us = found::leads_to_us(plan, other) && by_itself;
        if to_us && other.is_set("TestMode") {
            report.note(
                &format!("outbound connector {}", shown(name.as_bytes())),
                "leads to Gatepost past the routing rule, in test mode: what Exchange sends by it then is not documented",
            );
        } else if to_us {
            let whose = match (all.is_empty(), domains.is_empty()) {
                (false, _) => format!(", {}", all.join(" and ")),
                (true, false) => format!(", for mail to {}", domains.join(", ")),
                (true, true) => String::new(),
            };
            report.drift.push(Drift {
                object: Kind::Outbound.title().to_owned(),
                name: shown(name.as_bytes()),
                property: "SmartHosts".to_owned(),
                is: seen(&format!("{}{whose}", plan.hostname)),
                should: format!("in {} alone", Kind::Outbound.name()),
                breaks: "mail goes to Gatepost past the routing rule, without the secret header, and what has come back goes there again: 550 5.7.1, or round (554 5.4.6)".to_owned(),
                mend: if is_hybrid(other) {
                    Mend::Step(format!("Leave the hybrid connector as its wizard made it, and see there why its smart host is Gatepost's: Get-OutboundConnector -Identity {} | Format-List.", literal(&name)))
                } else if is_marked(&other.text(Kind::Outbound.comment())) {
                    Mend::Line(format!("Set-OutboundConnector -Identity {} -Enabled $false", literal(&name)))
                } else {
                    Mend::Step(format!("Look at what goes by it: Get-OutboundConnector -Identity {0} | Format-List, and its mail in the message trace. An earlier way to Gatepost is ended by Set-OutboundConnector -Identity {0} -Enabled $false.", literal(&name)))
                },
                turn: Turn::Today,
            });
        } else if !all.is_empty() {
            report.note(
                &format!("outbound connector {}", shown(name.as_bytes())),
                format!(
                    "{}: mail that has come back from Gatepost takes this way as well",
                    all.join(" and ")
                ),
            );
        }
    }
}

/// What of the outbound connector Exchange's own test mail proves.
pub(super) const PROVEN: [&str; 4] = ["SmartHosts", "UseMXRecord", "TlsDomain", "TlsSettings"];

/// Whether Exchange's own test mail has come through the outbound connector.
pub(super) fn validation(report: &mut Report, plan: &Plan, own: &Exported, stage: Option<Stage>) {
    let Some(value) = own.get("IsValidated") else {
        return;
    };
    let name = own.text("Name");
    let last = own
        .get("LastValidationTimestamp")
        .map(text)
        .unwrap_or_default();
    let last = date(&last).unwrap_or(last);
    if flag(value) == Some(true) {
        let shown = shown(name.as_bytes());
        let is_mended = report.drift.iter().any(|drift| {
            drift.object == Kind::Outbound.title()
                && drift.name == shown
                && PROVEN.contains(&drift.property.as_str())
        });
        if !is_mended {
            return;
        }
        if stage.is_none_or(|stage| !stage.sends()) {
            report.note(
                &format!("outbound connector {shown}"),
                format!("IsValidated is True of another way, and the lines take it off: {} before the rule sends mail", confirm(plan)),
            );
            return;
        }
        report.drift.push(Drift {
            object: Kind::Outbound.title().to_owned(),
            name: shown,
            property: "IsValidated".to_owned(),
            is: "True, of another way".to_owned(),
            should: "True, of the way as it is to be".to_owned(),
            breaks: "Exchange's own test mail came through the connector by another host or name in the certificate: it proves nothing of this one".to_owned(),
            mend: Mend::Line(confirm(plan)),
            turn: Turn::Last,
        });
        return;
    }
    if stage.is_none_or(|stage| !stage.sends()) {
        report.note(
            &format!("outbound connector {}", shown(name.as_bytes())),
            "IsValidated is False: run Confirm-GatepostConnector.ps1 before the rule sends mail",
        );
        return;
    }
    report.drift.push(Drift {
        object: Kind::Outbound.title().to_owned(),
        name: shown(name.as_bytes()),
        property: "IsValidated".to_owned(),
        is: match last.as_str() {
            "" => "False".to_owned(),
            last => format!("False, last tried {}", shown(last.as_bytes())),
        },
        should: "True".to_owned(),
        breaks: "the rule sends mail to a connector that Exchange's own test mail has not come through: it may wait in Exchange's queue (Pending), and the admin centre warns".to_owned(),
        mend: Mend::Line(confirm(plan)),
        turn: Turn::Last,
    });
}

/// The line that has Exchange's own test mail sent.
pub(super) fn confirm(plan: &Plan) -> String {
    let recipient = literal(&somebody(plan, "you"));
    format!(".\\Confirm-GatepostConnector.ps1 -Recipient {recipient}")
}

/// A date as 5.1 writes it, in words of today.
fn date(written: &str) -> Option<String> {
    let at = written.starts_with("/Date(").then(|| moment(written))??;
    at.format(&Rfc3339).ok()
}

/// The accepted domains of the tenant, as they were exported.
pub(super) struct TenantDomains {
    /// Each with whether its sub-domains count as well.
    all: Vec<(Domain, bool)>,
    /// Names that are no domain.
    strange: Vec<String>,
}

impl TenantDomains {
    pub(super) fn read(objects: &[Exported]) -> Self {
        let mut read = Self {
            all: Vec::new(),
            strange: Vec::new(),
        };
        for object in objects {
            let name = object.text("DomainName");
            let name = if name.is_empty() {
                object.text("Name")
            } else {
                name
            };
            let sub = object.is_set("MatchSubDomains") || name.starts_with("*.");
            match name.trim_start_matches("*.").parse() {
                Ok(domain) => read.all.push((domain, sub)),
                Err(_) => read.strange.push(name),
            }
        }
        read
    }

    /// Whether mail of this domain is the tenant's.
    pub(super) fn hold(&self, domain: &Domain) -> bool {
        let mut own = self.all.iter();
        own.any(|(own, sub)| own == domain || *sub && domain.is_at_or_below(own))
    }
}

/// Accepted domains of the tenant and of the configuration, and the certificate's name among them. `told`: one that the
/// configuration lacks, and of which the connector's name has told.
pub(super) fn domains(
    report: &mut Report,
    plan: &Plan,
    objects: &[Exported],
    tenant: &TenantDomains,
    told: Option<&Domain>,
) {
    for own in &plan.accepted {
        if tenant.hold(own.domain()) {
            continue;
        }
        let is_certificate = plan.certificate.domain() == own.domain().as_str();
        report.drift.push(Drift {
            object: "accepted domain".to_owned(),
            name: own.to_string(),
            property: "DomainName".to_owned(),
            is: "absent in the tenant".to_owned(),
            should: format!("there, as accepted_domains of tenant {} says", plan.tenant),
            breaks: if is_certificate {
                "it is the name of Gatepost's certificate: Exchange takes its mail for nobody's, 550 5.7.64 TenantAttribution (ATTR36)".to_owned()
            } else {
                "Gatepost takes its senders for this tenant's, and Exchange does not: 550 5.7.64 without the certificate, 5.1.8 or 5.7.750 in numbers".to_owned()
            },
            mend: Mend::Step(format!("Add and verify {} in the Microsoft 365 admin centre (Settings, Domains), or take it out of accepted_domains; Exchange Online PowerShell cannot add a domain.", own.domain())),
            turn: Turn::Today,
        });
    }
    for (domain, sub) in &tenant.all {
        let star = if *sub { "*." } else { "" };
        let entry = format!("{star}{}", told::whole(domain.as_str()));
        let known = plan.accepted.iter().any(|own| own.matches(domain));
        let drift = |property: &str, is: &str, breaks: &str, mend: String| Drift {
            object: "accepted domain".to_owned(),
            name: shown(domain.as_str().as_bytes()),
            property: property.to_owned(),
            is: is.to_owned(),
            should: format!("in accepted_domains of tenant {}", plan.tenant),
            breaks: breaks.to_owned(),
            mend: Mend::Step(mend),
            turn: Turn::Today,
        };
        if !known && told != Some(domain) {
            report.drift.push(drift(
                "DomainName",
                "absent in the configuration",
                "mail whose envelope sender or From: lies there is refused by Gatepost, 550 5.7.1, and mail to it counts as mail to the outside",
                format!("Add \"{entry}\" to accepted_domains of [[tenant]] {} in the configuration, then reload; or keep its senders out of the rule.", plan.tenant),
            ));
        }
        let below = plan.accepted.iter().any(|own| match own {
            DomainPattern::AtOrBelow(own) => domain.is_at_or_below(own),
            DomainPattern::Exact(_) => false,
        });
        if known && *sub && !below {
            report.drift.push(drift(
                "MatchSubDomains",
                "True, and the configuration has the domain without what lies below it",
                "mail whose envelope sender or From: lies in a sub-domain is refused by Gatepost, 550 5.7.1, and mail to one counts as mail to the outside",
                format!("Write \"{entry}\" in accepted_domains of [[tenant]] {} in the configuration, then reload; or keep senders of sub-domains out of the rule.", plan.tenant),
            ));
        }
    }
    for own in &plan.accepted {
        let DomainPattern::AtOrBelow(domain) = own else {
            continue;
        };
        let sub = tenant
            .all
            .iter()
            .any(|(theirs, sub)| *sub && domain.is_at_or_below(theirs));
        if !sub && tenant.hold(domain) {
            report.note(
                &format!("accepted domain {own}"),
                "in the configuration it holds every sub-domain; the tenant has only those that Get-AcceptedDomain lists, and takes mail of the others for nobody's",
            );
        }
    }
    for name in &tenant.strange {
        let title = match name.as_str() {
            "" => "accepted domain".to_owned(),
            name => format!("accepted domain {}", shown(name.as_bytes())),
        };
        report.note(&title, "is no domain name, and was not compared");
    }
    certificate(report, plan, tenant);
    for object in objects {
        let kind = object.text("DomainType");
        if kind.eq_ignore_ascii_case("InternalRelay") || kind.eq_ignore_ascii_case("ExternalRelay")
        {
            report.note(
                &format!("accepted domain {}", shown(object.text("DomainName").as_bytes())),
                format!("is {kind}: mail to recipients that Exchange does not know leaves by a connector, and must not find ours"),
            );
        }
    }
}

/// The certificate's name, where it is no entry of the configuration by itself: such a one is compared above.
fn certificate(report: &mut Report, plan: &Plan, tenant: &TenantDomains) {
    let named = plan.certificate.domain().parse::<Domain>().ok();
    let Some(domain) = plan.certificate.sub_domain.clone().or(named) else {
        return;
    };
    let told = plan
        .accepted
        .iter()
        .any(|own| *own == DomainPattern::Exact(domain.clone()));
    if told || tenant.hold(&domain) {
        return;
    }
    let parent = tenant
        .all
        .iter()
        .find(|(own, _)| domain.is_at_or_below(own));
    match parent {
        Some((parent, _)) if plan.certificate.sub_domain.is_some() => report.note(
            "accepted domain",
            format!("the certificate's name {domain} is below {parent}, no accepted domain itself: safer than {} on the connector is to add and verify it, and to add it to accepted_domains", plan.certificate.connector_name),
        ),
        Some((parent, _)) => report.note(
            "accepted domain",
            format!("the certificate's name {domain} is below {parent}, no accepted domain itself: add it, or let TlsSenderCertificateName be *.{parent}"),
        ),
        None => report.drift.push(Drift {
            object: "accepted domain".to_owned(),
            name: domain.to_string(),
            property: "DomainName".to_owned(),
            is: "absent in the tenant".to_owned(),
            should: "there: it is the name of Gatepost's certificate".to_owned(),
            breaks: "Exchange takes Gatepost's mail for nobody's: 550 5.7.64 TenantAttribution (ATTR36)".to_owned(),
            mend: Mend::Step(format!("Add and verify {domain} in the Microsoft 365 admin centre (Settings, Domains); Exchange Online PowerShell cannot add a domain.")),
            turn: Turn::Today,
        }),
    }
}

/// Which sealers the tenant trusts. Gatepost seals nothing, so that none is asked for.
pub(super) fn arc(report: &mut Report, objects: &[Exported]) {
    let sealers: Vec<String> = objects
        .iter()
        .filter_map(|object| object.get("ArcTrustedSealers"))
        .flat_map(list)
        .collect();
    let sealers = match sealers.is_empty() {
        true => "none".to_owned(),
        false => seen(&sealers.join(", ")),
    };
    report.note(
        "ARC",
        format!("trusted sealers: {sealers}; Gatepost changes no body and seals nothing, so it needs no entry"),
    );
}

/// Settings of the organisation that decide what a mistake costs.
pub(super) fn organization(report: &mut Report, objects: &[Exported]) {
    let Some(organization) = objects.first() else {
        return;
    };
    if let Some(value) = organization.get("RejectDirectSend") {
        report.note(
            "organisation",
            if flag(value) == Some(true) {
                "RejectDirectSend is on: with a connector or certificate that does not match, internal senders get 550 5.7.68 instead of arriving as external"
            } else {
                "RejectDirectSend is off: anyone may write to the tenant as one of its own users; turn it on once all mail comes by connector"
            },
        );
    }
    if organization.is_set("IsDehydrated") {
        report.note(
            "organisation",
            "IsDehydrated: run Enable-OrganizationCustomization once before the scripts",
        );
    }
}
