//! What the trust room is told by the configuration.

use super::certificate::Roots;
use super::network::Networks;
use crate::mail::{Domain, DomainSet, Secret, TenantId, TenantName};
use std::sync::Arc;

/// `[exchange_online]`: how Microsoft 365 proves itself, the same for every tenant.
#[derive(Clone, Debug)]
pub struct ExchangeOnline {
    /// `client_certificate_names`: SAN dNSName, else subject CN.
    pub client_certificate_names: Vec<Domain>,
    /// `client_certificate_roots`, loaded.
    pub client_certificate_roots: Arc<Roots>,
    /// `networks` with `published` resolved.
    pub networks: Networks,
    /// What to answer where only one of network and certificate holds.
    pub half_proven: HalfProven,
}

/// `half_proven`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HalfProven {
    /// 451 4.7.1, counted and alarmed.
    #[default]
    Defer,
    /// 550 5.7.1.
    Refuse,
}

/// `gate` of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Unproven mail is refused.
    Enforce,
    /// Unproven mail is let in as anything else until this moment (seconds since 1970, start of the day in UTC); then
    /// the gate enforces.
    Report {
        /// `gate_report_until`.
        until: u64,
    },
}

/// `forwarded_senders`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Forwarded {
    /// Senders outside the accepted domains are refused.
    #[default]
    Refuse,
    /// They pass, but never by mx or relay.
    Allow,
}

/// `secret_header`: proof that the tenant's transport rule sets.
#[derive(Clone, Debug)]
pub struct SecretHeader {
    /// Field name.
    pub name: Box<str>,
    /// The value, and `previous` while it is rotated.
    pub values: Vec<Secret>,
    /// Without it nothing passes.
    pub required: bool,
}

/// `loop_header`: what mail to the tenant's connector carries, so that it is known when it comes round again.
#[derive(Clone, Debug)]
pub struct LoopHeader {
    /// Field name.
    pub name: Box<str>,
    /// The value that is written.
    pub value: Secret,
    /// Values that are still recognised (rotation).
    pub previous: Vec<Secret>,
}

impl LoopHeader {
    /// Whether a field value is the current or a previous one.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.value.matches(value) || self.previous.iter().any(|previous| previous.matches(value))
    }
}

/// One `[[tenant]]`, as trust sees it.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// `name`.
    pub name: TenantName,
    /// `tenant_id`.
    pub id: TenantId,
    /// `accepted_domains`.
    pub accepted_domains: DomainSet,
    /// `originator_orgs`, by default the accepted domains.
    pub originator_orgs: DomainSet,
    /// `gate`.
    pub gate: Gate,
    /// `proofs`: how many items of evidence must name this tenant.
    pub proofs: usize,
    /// `secret_header`.
    pub secret_header: Option<SecretHeader>,
    /// `forwarded_senders`.
    pub forwarded_senders: Forwarded,
    /// `loop_header`.
    pub loop_header: Option<LoopHeader>,
}

/// All tenants, in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Tenants(Vec<Arc<Tenant>>);

impl Tenants {
    /// These tenants.
    #[must_use]
    pub fn new(tenants: Vec<Arc<Tenant>>) -> Self {
        Self(tenants)
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.0.iter()
    }

    /// The tenant with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.0.iter().find(|tenant| *tenant.name == *name)
    }

    /// The tenant that allows this originator organisation.
    #[must_use]
    pub fn of_org(&self, org: &Domain) -> Option<&Arc<Tenant>> {
        self.0
            .iter()
            .find(|tenant| tenant.originator_orgs.contains(org))
    }

    /// The tenant with this id.
    #[must_use]
    pub fn of_id(&self, id: TenantId) -> Option<&Arc<Tenant>> {
        self.0.iter().find(|tenant| tenant.id == id)
    }

    /// The tenant whose accepted domains hold `domain`.
    #[must_use]
    pub fn accepting(&self, domain: &Domain) -> Option<&Arc<Tenant>> {
        self.0
            .iter()
            .find(|tenant| tenant.accepted_domains.contains(domain))
    }
}
