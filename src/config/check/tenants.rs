//! `[[tenant]]`: whose mail it is, and how that is proven.

use super::super::raw::{File, Tenant as Raw, default};
use super::super::reader::{At, Reader, Scope};
use super::connectors::{self, Connector, Own};
use super::headers::{self, Field};
use super::named::{Named, unique};
use crate::deliver::InboundConnector;
use crate::mail::{DomainPattern, DomainSet, Secret, TenantId, TenantName};
use crate::trust::certificate::Identity;
use crate::trust::{Forwarded, Gate, LoopHeader, SecretHeader, Tenant};
use std::sync::Arc;

/// A tenant as far as it could be made.
pub(super) struct Facts {
    pub(super) name: Option<At<String>>,
    pub(super) tenant: Option<Arc<Tenant>>,
    pub(super) connector: Option<Arc<InboundConnector>>,
    /// The table is there, even if it has errors of its own.
    pub(super) has_connector: bool,
    pub(super) forwarded: Forwarded,
    domains: Vec<At<DomainPattern>>,
    /// Where given; else the accepted domains.
    orgs: Option<Vec<At<DomainPattern>>>,
    id: Option<At<TenantId>>,
    identity: Option<At<Arc<Identity>>>,
    secret: Option<Field<SecretHeader>>,
    looped: Option<Field<LoopHeader>>,
}

impl Facts {
    /// Whether the table has this name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.value == name)
    }

    /// The accepted domains.
    pub(super) fn accepted(&self) -> impl Iterator<Item = &DomainPattern> {
        self.domains.iter().map(|at| &at.value)
    }
}

pub(super) fn tenants(
    raw: &File,
    reader: &mut Reader<'_>,
    certificates: &Named<Arc<Identity>>,
    own: &Own<'_>,
) -> Vec<Facts> {
    let mut facts: Vec<Facts> = Vec::new();
    for (table, scope) in reader.tables("tenant", &raw.tenant, |table| Some(&table.name)) {
        let made = tenant(reader, &scope, table, certificates, own);
        compare(reader, &made, &facts);
        facts.push(made);
    }
    facts
}

/// A name, id, domain or certificate under two tenants.
fn compare(reader: &mut Reader<'_>, made: &Facts, others: &[Facts]) {
    if let Some(name) = &made.name {
        let first = others
            .iter()
            .flat_map(|other| &other.name)
            .find(|other| other.value == name.value);
        unique(reader, "[[tenant]] with this name", name, first);
    }
    if let Some(id) = &made.id {
        let first = others
            .iter()
            .flat_map(|other| &other.id)
            .find(|other| other.value == id.value);
        unique(reader, "tenant with this tenant_id", id, first);
    }
    for domain in &made.domains {
        let mut all = others.iter().flat_map(|other| &other.domains);
        unique(
            reader,
            "tenant with this domain",
            domain,
            all.find(|other| other.value.overlaps(&domain.value)),
        );
    }
    for other in others {
        compare_evidence(reader, made, other);
    }
}

/// Evidence that would name both of two tenants, or a loop header that would stop mail between them.
fn compare_evidence(reader: &mut Reader<'_>, made: &Facts, other: &Facts) {
    let whose = other.name.as_ref().map_or("?", |name| name.value.as_str());
    if let (Some(own), Some(theirs)) = (&made.identity, &other.identity)
        && own.value.chain.first() == theirs.value.chain.first()
    {
        unique(
            reader,
            "tenant that presents this certificate (Exchange tells tenants apart by it)",
            own,
            Some(theirs),
        );
    }
    if made.orgs.is_some() || other.orgs.is_some() {
        for org in made.orgs.as_ref().unwrap_or(&made.domains) {
            let mut theirs = other.orgs.as_ref().unwrap_or(&other.domains).iter();
            let first = theirs.find(|theirs| theirs.value.overlaps(&org.value));
            unique(reader, "tenant with this originator org", org, first);
        }
    }
    if let (Some(own), Some(theirs)) = (&made.secret, &other.secret)
        && same_name(own, theirs)
        && own
            .header
            .values
            .iter()
            .any(|value| theirs.header.values.contains(value))
    {
        reader.error(
            &own.name.spot,
            format!("the same field with the same value as tenant {whose}'s secret_header: it cannot tell them apart"),
        );
    }
    if let (Some(own), Some(theirs)) = (&made.looped, &other.looped)
        && same_name(own, theirs)
        && loop_values(&own.header).any(|value| theirs.header.matches(value.expose()))
    {
        reader.error(
            &own.name.spot,
            format!("the same field with the same value as tenant {whose}'s loop_header: mail between the two would be a loop"),
        );
    }
    if let (Some(own), Some(theirs)) = (&made.secret, &other.looped)
        && same_name(own, theirs)
    {
        let text =
            format!("the same field as tenant {whose}'s loop_header: the two have different fates");
        reader.error(&own.name.spot, text);
    }
    if let (Some(own), Some(theirs)) = (&made.looped, &other.secret)
        && same_name(own, theirs)
    {
        let text = format!(
            "the same field as tenant {whose}'s secret_header: the two have different fates"
        );
        reader.error(&own.name.spot, text);
    }
}

fn same_name<T, U>(one: &Field<T>, two: &Field<U>) -> bool {
    one.name.value.eq_ignore_ascii_case(&two.name.value)
}

fn loop_values(header: &LoopHeader) -> impl Iterator<Item = &Secret> {
    std::iter::once(&header.value).chain(&header.previous)
}

fn tenant(
    reader: &mut Reader<'_>,
    scope: &Scope,
    table: &Raw,
    certificates: &Named<Arc<Identity>>,
    own: &Own<'_>,
) -> Facts {
    let name = reader.name(scope, &table.name);
    let id = reader.required(scope, "tenant_id", &table.tenant_id, |text| {
        text.parse::<TenantId>().map_err(|why| why.to_string())
    });
    reader.demand(scope, "accepted_domains", &table.accepted_domains);
    let domains = reader
        .some_list(
            scope,
            "accepted_domains",
            &table.accepted_domains,
            domain_pattern,
        )
        .unwrap_or_default();
    let accepted = DomainSet::new(domains.iter().map(|at| at.value.clone()).collect());
    let orgs = reader.some_list(
        scope,
        "originator_orgs",
        &table.originator_orgs,
        domain_pattern,
    );
    let gate = gate(reader, scope, table);
    let secret = headers::secret(reader, scope, &table.secret_header);
    let looped = headers::looped(reader, scope, &table.loop_header);
    if table.secret_header.is_absent() {
        reader.warn(
            scope.spot(),
            "no secret_header: two stamps of one step of Exchange are all the proof there is",
        );
    }
    if table.loop_header.is_absent() {
        reader.warn(scope.spot(), "no loop_header: Exchange's rule has nothing to except, and a loop is only seen at the hop limit");
    }
    if let (Some(secret), Some(looped)) = (&secret, &looped)
        && secret.name.value.eq_ignore_ascii_case(&looped.name.value)
    {
        reader.error(
            &looped.name.spot,
            "the same field as secret_header: the two have different fates",
        );
    }
    // Stamps: X-OriginatorOrg, CrossTenant-Id; a DKIM signature; XOORG and the secret header where there are.
    let (with_xoorg, without_xoorg) = own.connector_listeners_by_xoorg();
    let unmarked = 3 + usize::from(secret.is_some());
    let possible = unmarked + usize::from(with_xoorg > 0 || without_xoorg == 0);
    let proofs = reader.whole::<usize>(scope, "proofs", &table.proofs, 1..=5);
    if let Some(proofs) = proofs.as_ref().filter(|proofs| proofs.value > possible) {
        reader.error(
            &proofs.spot,
            format!(
                "can never be reached: only {possible} items can name this tenant{}",
                if possible == unmarked {
                    " (no connector listener offers XOORG)"
                } else {
                    ""
                }
            ),
        );
    } else if let Some(proofs) = proofs
        .as_ref()
        .filter(|proofs| proofs.value > unmarked && without_xoorg > 0)
    {
        reader.warn(
            &proofs.spot,
            format!("can never be reached on a connector listener whose ehlo_discard has XOORG: only {unmarked} items can name this tenant there"),
        );
    } else if let Some(proofs) = proofs.as_ref().filter(|proofs| proofs.value == 1) {
        reader.warn(
            &proofs.spot,
            "one item of evidence is enough: nothing has to agree with it",
        );
    }
    let words = [("refuse", Forwarded::Refuse), ("allow", Forwarded::Allow)];
    let forwarded = reader.choice(scope, "forwarded_senders", &table.forwarded_senders, &words);
    let tenant_name: Option<TenantName> = name.as_ref().map(|name| name.value.as_str().into());
    let connector = connectors::inbound_connector(
        reader,
        scope,
        &table.inbound_connector,
        tenant_name.as_ref(),
        &accepted,
        certificates,
        own,
    );
    let (connector, identity) = match connector {
        Some(Connector { settings, identity }) => (Some(settings), Some(identity)),
        None => (None, None),
    };
    if table.inbound_connector.is_absent() && matches!(gate, Gate::Report { .. }) {
        reader.error(
            &scope.missing("inbound_connector"),
            "required with gate = \"report\": such mail leaves by it only",
        );
    }
    let forwarded = forwarded.map(|at| at.value).unwrap_or_default();
    let tenant = match (tenant_name, &id) {
        (Some(name), Some(id)) => Some(Arc::new(Tenant {
            name,
            id: id.value,
            originator_orgs: orgs.as_ref().map_or_else(
                || accepted.clone(),
                |orgs| DomainSet::new(orgs.iter().map(|at| at.value.clone()).collect()),
            ),
            accepted_domains: accepted,
            gate,
            proofs: proofs.map_or(default::PROOFS, |at| at.value),
            secret_header: secret.as_ref().map(|field| field.header.clone()),
            forwarded_senders: forwarded,
            loop_header: looped.as_ref().map(|field| field.header.clone()),
        })),
        _ => None,
    };
    Facts {
        name,
        tenant,
        connector,
        has_connector: !table.inbound_connector.is_absent(),
        forwarded,
        domains,
        orgs,
        id,
        identity,
        secret,
        looped,
    }
}

fn gate(reader: &mut Reader<'_>, scope: &Scope, table: &Raw) -> Gate {
    let report = reader.choice(
        scope,
        "gate",
        &table.gate,
        &[("enforce", false), ("report", true)],
    );
    let until = reader.date(scope, "gate_report_until", &table.gate_report_until);
    let Some(report) = report.filter(|report| report.value) else {
        if let Some(until) = until {
            reader.warn(&until.spot, "has no effect with gate = \"enforce\"");
        }
        return Gate::Enforce;
    };
    match until {
        Some(until) => {
            if until.value <= reader.surroundings.unix_seconds {
                reader.warn(&until.spot, "has passed: the gate enforces");
            }
            Gate::Report { until: until.value }
        }
        None => {
            if table.gate_report_until.is_absent() {
                reader.error(
                    &report.spot,
                    "\"report\" needs gate_report_until, the day from which the gate enforces",
                );
            }
            Gate::Enforce
        }
    }
}

/// A domain of a tenant. A top-level domain or an address would make half of the Internet its own.
fn domain_pattern(text: &str) -> Result<DomainPattern, String> {
    super::fully_qualified(text.strip_prefix("*.").unwrap_or(text))
        .map_err(|why| why.replace("smarthost.contoso.com", "contoso.com or *.contoso.com"))?;
    text.parse()
        .map_err(|why: crate::mail::DomainError| why.to_string())
}
