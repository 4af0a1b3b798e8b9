//! What did the tenant gate see? Every item, as it stands to the tenant that the evidence speaks for most; never the value
//! of a secret.

use super::gate::Case;
use super::senders::Senders;
use super::settings::{Tenant, Tenants};
use super::signature::Signature;
use super::stamps::{Reading, Stamps};
use super::verdict::{Evidence, EvidenceItem, EvidenceKind, EvidenceState, Peer};
use crate::header::Examined;
use crate::mail::{Domain, Mailbox, TenantId, shown};
use std::sync::Arc;

/// What there is to see in one message.
pub(super) struct Sights<'a> {
    pub(super) tenants: &'a Tenants,
    pub(super) peer: &'a Peer,
    pub(super) stamps: &'a Stamps,
    pub(super) senders: &'a Senders<'a>,
    pub(super) signatures: &'a [Signature],
    pub(super) header: &'a Examined,
}

/// The table, for the tenant of `lead`.
pub(super) fn table(sights: &Sights<'_>, lead: Option<&Case<'_>>) -> Evidence {
    let Sights {
        tenants,
        peer,
        stamps,
        senders,
        signatures,
        header,
    } = *sights;
    let tenant = lead.map(|lead| lead.tenant);
    let mut items = peer.evidence().0;
    items.push(xoorg_item(tenants, stamps.xoorg.as_ref(), tenant));
    let name = |tenant: &Arc<Tenant>| tenant.name.to_string();
    items.push(EvidenceItem {
        kind: EvidenceKind::OriginatorOrg,
        state: state(&stamps.org, |org| {
            tenant.is_some_and(|tenant| tenant.originator_orgs.contains(org))
        }),
        tenant: stamps
            .org
            .values()
            .iter()
            .find_map(|org| tenants.of_org(org))
            .map(name),
        seen: stamps.org_seen.clone(),
    });
    items.push(EvidenceItem {
        kind: EvidenceKind::CrossTenantId,
        state: state(&stamps.id, |id| {
            tenant.is_some_and(|tenant| tenant.id == *id)
        }),
        tenant: stamps
            .id
            .values()
            .iter()
            .find_map(|id| tenants.of_id(*id))
            .map(name),
        seen: stamps.id_seen.clone(),
    });
    let own = |id: &TenantId| tenant.is_some_and(|tenant| tenant.id == *id);
    items.push(EvidenceItem {
        kind: EvidenceKind::ConnectingIp,
        state: match (&stamps.connecting_seen, stamps.connecting.as_slice()) {
            (None, _) => EvidenceState::Absent,
            (Some(_), []) => EvidenceState::Malformed,
            (Some(_), ids) if ids.iter().all(own) => EvidenceState::Matches,
            (Some(_), _) => EvidenceState::Differs,
        },
        tenant: stamps
            .connecting
            .iter()
            .find_map(|id| tenants.of_id(*id))
            .map(name),
        seen: stamps.connecting_seen.clone(),
    });
    items.extend(secret_item(tenants, lead, header));
    items.push(unasked_signatures(tenants, signatures, header));
    // Where nothing speaks for a tenant there is none to differ from: any that the address is of.
    let fits = |check: &dyn Fn(&Tenant) -> bool| match tenant {
        Some(tenant) => check(tenant),
        None => tenants.iter().any(|tenant| check(tenant)),
    };
    let accepting = |mailbox: &Mailbox| tenants.accepting(mailbox.domain()).map(name);
    items.extend(senders.evidence(
        fits(&|tenant| senders.fits_envelope(tenant)),
        fits(&|tenant| senders.fits_header(tenant)),
        accepting,
    ));
    Evidence(items)
}

fn state<T: PartialEq>(reading: &Reading<T>, names: impl Fn(&T) -> bool) -> EvidenceState {
    match reading {
        Reading::Absent => EvidenceState::Absent,
        Reading::One(value) if names(value) => EvidenceState::Matches,
        Reading::One(_) => EvidenceState::Differs,
        Reading::Malformed => EvidenceState::Malformed,
        Reading::Duplicate(_) => EvidenceState::Duplicate,
    }
}

pub(super) fn xoorg_item(
    tenants: &Tenants,
    xoorg: Option<&Domain>,
    tenant: Option<&Arc<Tenant>>,
) -> EvidenceItem {
    let Some(org) = xoorg else {
        return EvidenceItem::bare(EvidenceKind::Xoorg, EvidenceState::Absent);
    };
    let names = tenant.is_some_and(|tenant| tenant.originator_orgs.contains(org));
    EvidenceItem {
        kind: EvidenceKind::Xoorg,
        state: if names {
            EvidenceState::Matches
        } else {
            EvidenceState::Differs
        },
        tenant: tenants.of_org(org).map(|tenant| tenant.name.to_string()),
        seen: Some(shown(org.as_str().as_bytes())),
    }
}

/// The secret header of the tenant that the evidence speaks for; where it speaks for none, whether any tenant's is there
/// (it is wrong then). No item where no secret is configured.
fn secret_item(
    tenants: &Tenants,
    lead: Option<&Case<'_>>,
    header: &Examined,
) -> Option<EvidenceItem> {
    let (state, tenant) = match lead {
        Some(lead) => {
            let state = lead.secret?;
            (
                state,
                (state == EvidenceState::Matches).then(|| lead.tenant.name.to_string()),
            )
        }
        None => {
            let mut names = tenants
                .iter()
                .filter_map(|tenant| tenant.secret_header.as_ref())
                .peekable();
            names.peek()?;
            let there = names.any(|secret| header.has(&secret.name));
            (
                if there {
                    EvidenceState::Differs
                } else {
                    EvidenceState::Absent
                },
                None,
            )
        }
    };
    Some(EvidenceItem {
        kind: EvidenceKind::SecretHeader,
        state,
        tenant,
        seen: None,
    })
}

/// DKIM before it is asked, or where it is not: absent, whatever stands there (product.md 3).
fn unasked_signatures(
    tenants: &Tenants,
    signatures: &[Signature],
    header: &Examined,
) -> EvidenceItem {
    let seen = |text: &str| Some(shown(text.as_bytes()));
    let own = signatures.iter().find(|signature| {
        tenants
            .iter()
            .any(|tenant| may_sign_for(tenant, signature.domain()))
    });
    let seen = match (own, signatures) {
        (Some(own), _) => seen(&format!(
            "{}: not asked, it could not change the verdict",
            own.domain()
        )),
        (None, [foreign, ..]) => seen(&format!("{}: no tenant's", foreign.domain())),
        (None, []) if header.has("DKIM-Signature") => {
            seen("none over From: and the whole body in a known algorithm")
        }
        (None, []) => None,
    };
    EvidenceItem {
        kind: EvidenceKind::Dkim,
        state: EvidenceState::Absent,
        tenant: None,
        seen,
    }
}

/// Whether a signature of this domain is the tenant's: an accepted domain or originator organisation.
pub(super) fn may_sign_for(tenant: &Tenant, domain: &Domain) -> bool {
    tenant.accepted_domains.contains(domain) || tenant.originator_orgs.contains(domain)
}
