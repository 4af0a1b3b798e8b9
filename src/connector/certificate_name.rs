//! Does `TlsSenderCertificateName` of the tenant's connector mean our certificate, also the next one?
//!
//! What `render` writes fits. A wider wildcard works and is a note: Microsoft discourages it (exchange-online.md 2.2), and the
//! scripts set it back. Any other name of the certificate works today, but a reload of
//! Gatepost watches over the one that it takes the connector for ([`SenderName::connector_name`]), and would let a renewed
//! certificate lose it. A name of its own below an accepted domain is the safer remedy of the two (exchange-online.md 2.2):
//! where the tenant has it, the configuration must have it as well.
//!
//! [`SenderName::connector_name`]: crate::trust::sender_name::SenderName::connector_name

use super::diff::Mend;
use super::literal::literal;
use super::objects::Kind;
use super::plan::Plan;
use super::tenancy::TenantDomains;
use super::told;
use crate::mail::{Domain, DomainPattern, DomainSet, TenantName};
use crate::trust::sender_name::is_meant;

/// What the property must be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    tenant: TenantName,
    /// As `render` writes it.
    pub(super) connector_name: String,
    /// The names of the certificate.
    names: Vec<String>,
    /// The tenant's domains as the configuration has them.
    accepted: DomainSet,
}

/// How a name stands to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// As wanted.
    Fits,
    /// A wildcard that covers it, and more than it.
    Wider,
    /// Good, and the configuration does not know why.
    Unknown(Said),
    /// Not good, for a reason of its own.
    Otherwise(Said),
    /// It does not mean the certificate.
    Foreign,
}

/// What is told of a name, in the place of what is told of any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) should: String,
    pub(super) breaks: String,
    pub(super) mend: Option<Mend>,
    /// An accepted domain of the tenant that the configuration lacks.
    pub(super) accepted: Option<Domain>,
}

impl Wanted {
    /// By the plan.
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            tenant: TenantName::clone(&plan.tenant),
            connector_name: plan.certificate.connector_name.clone(),
            names: plan.certificate.names.clone(),
            accepted: DomainSet::new(plan.accepted.clone()),
        }
    }

    /// Judges the name on the connector called `own`, with the tenant's domains where they were exported.
    pub(super) fn judge(&self, is: &str, own: &str, domains: Option<&TenantDomains>) -> Fit {
        let wanted = &self.connector_name;
        if is.eq_ignore_ascii_case(wanted) {
            return Fit::Fits;
        }
        let Ok(name) = is.parse::<DomainPattern>() else {
            return Fit::Foreign;
        };
        let domain = match name {
            DomainPattern::AtOrBelow(domain) => {
                let covers = is_meant(is, std::slice::from_ref(wanted));
                return match covers && self.accepted.contains(&domain) {
                    true => Fit::Wider,
                    false => Fit::Foreign,
                };
            }
            DomainPattern::Exact(domain) => domain,
        };
        if !is_meant(is, &self.names) {
            return Fit::Foreign;
        }
        if self.accepted.contains(&domain) {
            return Fit::Otherwise(Said {
                should: wanted.clone(),
                breaks: format!(
                    "it is a name of the certificate in force, but a reload watches over {wanted}: it would take a renewed certificate without {domain}, and Exchange would refuse the mail (550 5.7.64)"
                ),
                mend: None,
                accepted: None,
            });
        }
        match domains {
            Some(domains) if domains.hold(&domain) => Fit::Unknown(self.sub_domain(&domain)),
            Some(_) => Fit::Otherwise(Said {
                should: wanted.clone(),
                breaks: format!(
                    "{domain} is no accepted domain of the tenant, and that its parent is one need not be enough: 550 5.7.64 TenantAttribution (ATTR36) for null and foreign senders; and a reload watches over {wanted}"
                ),
                mend: None,
                accepted: None,
            }),
            None => Fit::Otherwise(self.unclear(&domain, own)),
        }
    }

    /// The tenant has the sub-domain and the connector goes by it: the configuration must follow.
    fn sub_domain(&self, domain: &Domain) -> Said {
        Said {
            should: format!(
                "that, and {domain} in accepted_domains of tenant {}, too",
                self.tenant
            ),
            breaks: format!(
                "nothing today: {domain} is an accepted domain of the tenant. But the configuration does not know it, so that a reload watches over {}, would take a renewed certificate without {domain} (550 5.7.64), and Install and Repair set the connector back to the wildcard",
                self.connector_name
            ),
            mend: Some(Mend::Step(format!(
                "Add \"{domain}\" to accepted_domains of [[tenant]] {} in the configuration, reload, then render again.",
                self.tenant
            ))),
            accepted: Some(domain.clone()),
        }
    }

    fn unclear(&self, domain: &Domain, own: &str) -> Said {
        let wanted = &self.connector_name;
        Said {
            should: format!("{wanted}, or {domain} in accepted_domains as well"),
            breaks: format!(
                "where {domain} is no accepted domain of the tenant (it was not exported), 550 5.7.64 TenantAttribution (ATTR36); where it is one, a reload does not watch over it, and would take a renewed certificate without it"
            ),
            mend: Some(Mend::Step(format!(
                "Look whether Get-AcceptedDomain lists {domain}. If so, add it to accepted_domains of [[tenant]] {} in the configuration, and reload; if not, {} -Identity {} -TlsSenderCertificateName {}",
                self.tenant,
                Kind::Inbound.setter(),
                told::literal(own),
                literal(wanted)
            ))),
            accepted: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff::{Report, diff};
    use super::super::fixtures::{Tenancy, identity, plan_for};
    use super::*;
    use serde_json::json;

    /// What is told of a tenant whose connector goes by `name`, with these domains (`None`: not exported).
    fn told(
        certificate: &[&str],
        accepted: &[&str],
        name: &str,
        domains: Option<&[&str]>,
    ) -> Report {
        let plan = plan_for(&identity("client", certificate), accepted);
        let mut tenancy = Tenancy::of(&plan);
        tenancy.inbound[0]["TlsSenderCertificateName"] = json!(name);
        for domain in domains.unwrap_or_default() {
            tenancy.domains.push(json!({ "DomainName": domain }));
        }
        let mut exports = tenancy.exports();
        if domains.is_none() {
            exports.domains = None;
        }
        diff(&plan, &exports)
    }

    const BELOW: &[&str] = &["mail.contoso.com"];

    #[test]
    fn what_render_writes_below_an_accepted_domain_is_no_drift() {
        let report = told(BELOW, &["contoso.com"], "*.contoso.com", Some(&[]));
        assert_eq!(report.drift, []);
        let safer = |report: &Report| {
            let mut notes = report.notes.iter();
            notes.any(|note| {
                note.text
                    .contains("safer than *.contoso.com on the connector is to add and verify it")
            })
        };
        assert!(safer(&report), "{:?}", report.notes);
        let wider = told(
            &["gate.eu.contoso.com"],
            &["contoso.com", "eu.contoso.com"],
            "*.contoso.com",
            Some(&[]),
        );
        assert_eq!(wider.drift, []);
        let covers = |note: &super::super::diff::Note| {
            note.text
                .contains("which covers *.eu.contoso.com, and every other certificate")
        };
        assert!(wider.notes.iter().any(covers), "{:?}", wider.notes);
        // An entry by pattern: the name of its own is written, and the wildcard covers it.
        let by_pattern = told(BELOW, &["*.contoso.com"], "*.contoso.com", None);
        assert_eq!(by_pattern.drift, []);
    }

    #[test]
    fn a_sub_domain_that_only_the_tenant_knows_is_one_finding_that_says_so() {
        let name = "MAIL.contoso.com";
        let report = told(BELOW, &["contoso.com"], name, Some(&["mail.contoso.com"]));
        let [drift] = report.drift.as_slice() else {
            panic!("{:#?}", report.drift);
        };
        assert_eq!(
            (drift.property.as_str(), drift.is.as_str()),
            ("TlsSenderCertificateName", name)
        );
        let Mend::Step(step) = &drift.mend else {
            panic!("{drift:?}");
        };
        assert!(
            step.starts_with("Add \"mail.contoso.com\" to accepted_domains of [[tenant]] contoso")
        );
        // Once it is there, all is well.
        let both = &["contoso.com", "mail.contoso.com"];
        assert_eq!(told(BELOW, both, name, Some(&[])).drift, []);
        // By a domain whose sub-domains count.
        let plan = plan_for(&identity("client", BELOW), &["contoso.com"]);
        let mut tenancy = Tenancy::of(&plan);
        tenancy.inbound[0]["TlsSenderCertificateName"] = json!(name);
        tenancy.domains[0]["MatchSubDomains"] = json!(true);
        let report = diff(&plan, &tenancy.exports());
        let told: Vec<&str> = report
            .drift
            .iter()
            .map(|own| own.property.as_str())
            .collect();
        assert_eq!(told, ["TlsSenderCertificateName", "MatchSubDomains"]);
        assert!(
            report
                .drift
                .iter()
                .all(|own| matches!(own.mend, Mend::Step(_)))
        );
    }

    #[test]
    fn a_sub_domain_that_nobody_knows_is_set_to_the_wildcard_and_an_unclear_one_is_looked_up() {
        let report = told(BELOW, &["contoso.com"], "mail.contoso.com", Some(&[]));
        let [drift] = report.drift.as_slice() else {
            panic!("{:#?}", report.drift);
        };
        let line = "Set-InboundConnector -Identity 'From Gatepost' -TlsSenderCertificateName '*.contoso.com'";
        assert_eq!(drift.mend, Mend::Line(line.to_owned()));
        let report = told(BELOW, &["contoso.com"], "mail.contoso.com", None);
        let [drift] = report.drift.as_slice() else {
            panic!("{:#?}", report.drift);
        };
        let Mend::Step(step) = &drift.mend else {
            panic!("{drift:?}");
        };
        assert!(
            step.contains("Get-AcceptedDomain") && step.ends_with(line),
            "{step}"
        );
    }

    #[test]
    fn another_name_of_the_certificate_is_one_that_no_reload_watches_over() {
        let both = &["contoso.com", "contoso.net"];
        let report = told(both, both, "contoso.net", Some(&[]));
        let [drift] = report.drift.as_slice() else {
            panic!("{:#?}", report.drift);
        };
        assert!(
            drift.breaks.contains("a reload watches over contoso.com"),
            "{drift:?}"
        );
        assert!(matches!(&drift.mend, Mend::Line(line) if line.ends_with("'contoso.com'")));
    }
}
