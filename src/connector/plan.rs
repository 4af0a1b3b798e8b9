//! What must the tenant's objects hold? The desired state, from the configuration and the certificates that it names.

pub(super) mod cloud;
mod facts;
mod finding;
mod headers;
mod names;
mod tokens;

use crate::mail::{Domain, DomainPattern, Secret, TenantName};
use finding::Findings;
use names::Certificate;

pub use facts::{Delivery, Door, ENVIRONMENTS, Facts, Spare};
pub use finding::{Finding, Grade};
pub use headers::Header;
pub use tokens::Token;

/// The desired state of one tenant.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) tenant: TenantName,
    pub(super) tenant_id: String,
    pub(super) hostname: Domain,
    /// Exchange's host and port, where we deliver.
    pub(super) exchange: (String, u16),
    pub(super) certificate: Certificate,
    pub(super) accepted: Vec<DomainPattern>,
    pub(super) cloud: bool,
    /// The way from Exchange to Gatepost; without, mail comes from applications alone.
    pub(super) outward: Option<Outward>,
    pub(super) environment: String,
    /// Values that no report repeats.
    pub(super) secrets: Vec<Secret>,
}

/// What Exchange sends to Gatepost, and how.
#[derive(Clone, Debug)]
pub(super) struct Outward {
    /// The name that Exchange looks for in the listener's certificate.
    pub(super) tls_domain: String,
    pub(super) secret: Header,
    pub(super) looped: Header,
    pub(super) pilot_group: Option<String>,
}

impl Plan {
    /// The plan where no finding is an error, and everything that was found.
    #[must_use]
    pub fn make(facts: &Facts<'_>) -> (Option<Self>, Vec<Finding>) {
        let mut findings = Findings(Vec::new());
        let tenant = facts.tenant;
        let certificate = names::certificate(facts, &mut findings);
        let outward = outward(facts, &mut findings);
        cloud::judge(facts, &mut findings);
        let plan = match (certificate, facts.connector) {
            (Some(certificate), Some(delivery)) if findings.are_bearable() => Some(Self {
                tenant: TenantName::clone(&tenant.name),
                tenant_id: tenant.id.to_string(),
                hostname: facts.hostname.clone(),
                exchange: (delivery.host.to_owned(), delivery.port),
                certificate,
                accepted: tenant.accepted_domains.iter().cloned().collect(),
                cloud: delivery.cloud,
                secrets: headers::values(facts, outward.as_ref()),
                outward,
                environment: facts.environment.unwrap_or(ENVIRONMENTS[0]).to_owned(),
            }),
            _ => None,
        };
        (plan, findings.0)
    }

    /// The tenant's name in the configuration.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The tenant's GUID.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.tenant_id
    }

    /// Whether Exchange sends mail to Gatepost: an outbound connector and the rules are part of the set.
    #[must_use]
    pub fn is_sent_to(&self) -> bool {
        self.outward.is_some()
    }

    /// Header fields that the configuration lacks, by their key.
    pub fn made(&self) -> impl Iterator<Item = (&'static str, &Header)> {
        let both = self.outward.iter().flat_map(|outward| {
            [
                ("secret_header", &outward.secret),
                ("loop_header", &outward.looped),
            ]
        });
        both.filter(|(_, header)| header.made)
    }
}

/// The way from Exchange to us, where there is a listener for it.
fn outward(facts: &Facts<'_>, findings: &mut Findings) -> Option<Outward> {
    if facts.doors.is_empty() {
        if facts.tenant.loop_header.is_some() {
            findings.warn(
                format!("tenant.{}.loop_header", facts.tenant.name),
                "Exchange sends nothing of this tenant here (no [[listener]] with service = \"connector\", or no [[route]] from there), so that no rule takes this field off mail that Exchange passes on: its value leaves the tenant. Leave loop_header out until user mail goes through Gatepost, and give it another value then",
            );
        }
        if let Some(group) = facts.pilot_group {
            findings.warn(
                "listener",
                format!("Exchange sends nothing of this tenant here (no [[listener]] with service = \"connector\", or no [[route]] from there): the pilot group {group} has no meaning"),
            );
        }
        return None;
    }
    names::judge_hostname(facts, findings);
    let tls_domain = names::tls_domain(facts, findings);
    let secret = headers::secret_header(facts, findings);
    let looped = headers::loop_header(facts, findings);
    if let Some(looped) = &looped {
        headers::judge_words(facts, looped, findings);
    }
    if let Some(group) = facts.pilot_group
        && !facts.tenant.accepted_domains.contains(group.domain())
    {
        findings.warn(
            format!("tenant.{}.accepted_domains", facts.tenant.name),
            format!(
                "the pilot group's domain {} is none of them: is it a group of this tenant?",
                group.domain()
            ),
        );
    }
    Some(Outward {
        tls_domain: tls_domain?,
        secret: secret?,
        looped: looped?,
        pilot_group: facts.pilot_group.map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests;
