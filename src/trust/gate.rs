//! Which tenant do the items of evidence prove, if any? (product.md 3, "Tenant")
//!
//! Every configured tenant gets a [`Case`]; at most one case may hold. Nothing here looks at the senders: they are a
//! condition, never evidence, for anybody may write any address.

use super::settings::{Tenant, Tenants};
use super::stamps::Stamps;
use super::verdict::{EvidenceState, Reason};
use crate::header::Examined;
use crate::mail::Secret;
use std::sync::Arc;

/// What the evidence says about one tenant.
pub(super) struct Case<'a> {
    pub(super) tenant: &'a Arc<Tenant>,
    /// Items that prove it: X-OriginatorOrg, CrossTenant-Id, XOORG, secret header, a verified signature.
    pub(super) proofs: usize,
    /// Items that name it, those that stand twice with them.
    pub(super) named_by: usize,
    /// An item names another, or the secret is wrong.
    pub(super) contradicted: bool,
    /// Its secret header, where it has one.
    pub(super) secret: Option<EvidenceState>,
}

impl<'a> Case<'a> {
    pub(super) fn of(
        tenant: &'a Arc<Tenant>,
        stamps: &Stamps,
        signed: bool,
        header: &Examined,
    ) -> Self {
        let (secret, secret_names) = match secret_state(tenant, header) {
            Some((state, names)) => (Some(state), names),
            None => (None, false),
        };
        let org = stamps.org.values();
        let id = stamps.id.values();
        let org_names = org.iter().any(|org| tenant.originator_orgs.contains(org));
        let id_names = id.contains(&tenant.id);
        let xoorg_names = stamps
            .xoorg
            .as_ref()
            .is_some_and(|org| tenant.originator_orgs.contains(org));

        let count = |items: [bool; 5]| items.into_iter().filter(|&item| item).count();
        let contradicted = org.iter().any(|org| !tenant.originator_orgs.contains(org))
            || id.iter().any(|id| *id != tenant.id)
            || (stamps.xoorg.is_some() && !xoorg_names)
            || secret == Some(EvidenceState::Differs)
            || stamps.connecting.iter().any(|id| *id != tenant.id);
        Self {
            tenant,
            proofs: count([
                org_names && !stamps.org.is_ambiguous(),
                id_names && !stamps.id.is_ambiguous(),
                xoorg_names,
                secret == Some(EvidenceState::Matches),
                signed,
            ]),
            named_by: count([org_names, id_names, xoorg_names, secret_names, signed]),
            contradicted,
            secret,
        }
    }

    /// How many items its configuration asks for; none at all would make it anybody's.
    pub(super) fn wanted(&self) -> usize {
        self.tenant.proofs.max(1)
    }

    fn holds(&self) -> bool {
        self.proofs >= self.wanted() && !self.contradicted
    }
}

/// All tenants that at least one item names, in the order of the configuration; `signed` has a verified DKIM signature.
pub(super) fn cases<'a>(
    tenants: &'a Tenants,
    stamps: &Stamps,
    signed: Option<&Tenant>,
    header: &Examined,
) -> Vec<Case<'a>> {
    let cases = tenants.iter().map(|tenant| {
        let signed = signed.is_some_and(|signed| signed.name == tenant.name);
        Case::of(tenant, stamps, signed, header)
    });
    cases.filter(|case| case.named_by > 0).collect()
}

/// The case that the evidence speaks for most: one that holds, else the one with most proofs, else most names; of equals
/// the first.
pub(super) fn leading<'c, 'a>(cases: &'c [Case<'a>]) -> Option<&'c Case<'a>> {
    let weight = |case: &Case<'_>| (case.holds(), case.proofs, case.named_by);
    // `max_by_key` would take the last of equals.
    cases.iter().rev().max_by_key(|case| weight(case))
}

/// Whether the gate holds for `lead`, senders aside. `validation`: Microsoft's connector check, which no transport rule
/// has seen, so that no secret can be demanded of it.
pub(super) fn judge(
    lead: &Case<'_>,
    cases: &[Case<'_>],
    stamps: &Stamps,
    validation: bool,
) -> Result<(), Reason> {
    if stamps.org.is_ambiguous()
        || stamps.id.is_ambiguous()
        || lead.secret == Some(EvidenceState::Duplicate)
    {
        return Err(Reason::AmbiguousEvidence);
    }
    let rival = |case: &Case<'_>| case.tenant.name != lead.tenant.name && case.holds();
    if lead.contradicted || cases.iter().any(rival) {
        return Err(Reason::Contradiction);
    }
    let required = lead
        .tenant
        .secret_header
        .as_ref()
        .is_some_and(|header| header.required);
    if required && !validation && lead.secret != Some(EvidenceState::Matches) {
        return Err(Reason::SecretMissing);
    }
    if lead.proofs < lead.wanted() {
        return Err(Reason::TooFewProofs);
    }
    Ok(())
}

/// The tenant's secret header, and whether one of its instances carries the secret; the value itself goes nowhere. A
/// header without a configured value is wrong.
fn secret_state(tenant: &Tenant, header: &Examined) -> Option<(EvidenceState, bool)> {
    let secret = tenant.secret_header.as_ref()?;
    let matched: Vec<bool> = header
        .named(&secret.name)
        .map(|field| {
            let text = field.text();
            // Every value is compared, so that the time taken does not tell which one it is; an empty one is none.
            let matches = |value: &Secret| !value.is_empty() && value.matches(&text);
            secret
                .values
                .iter()
                .fold(false, |matched, value| matches(value) | matched)
        })
        .collect();
    let state = match matched.as_slice() {
        [] => EvidenceState::Absent,
        [true] => EvidenceState::Matches,
        [false] => EvidenceState::Differs,
        [..] => EvidenceState::Duplicate,
    };
    Some((state, matched.contains(&true)))
}
