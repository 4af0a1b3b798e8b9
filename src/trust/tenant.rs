//! Which tenants may be meant at MAIL, and what may applications write? (product.md 3, 8)
//!
//! The judgement of connector mail, once its header section is whole, is in [`settle`](super::settle).

use super::evidence::xoorg_item;
use super::senders::Senders;
use super::settings::{Tenant, Tenants};
use super::settle::{Settlement, accepted_sender_domain, reports};
use super::verdict::{
    Application, Candidates, Class, Evidence, EvidenceItem, EvidenceKind, EvidenceState, Peer,
    Reason, Refusal, Verdict,
};
use crate::header::{Examined, Malformed};
use crate::mail::{Domain, Envelope, Mailbox, ReversePath, shown};
use std::sync::Arc;

/// At MAIL on a connector listener, network and certificate having held: the tenant of XOORG, else those whose accepted
/// domains hold the envelope sender, else (null or foreign) all.
///
/// An XOORG that names no configured tenant is refused here, unless the mail may still be let in by `gate = "report"`:
/// then the candidates are the tenants that report (for them it is one more contradiction, settled with the header).
///
/// # Errors
/// XOORG names no configured tenant, or none is configured.
pub fn candidates(
    tenants: &Tenants,
    reverse_path: &ReversePath,
    xoorg: Option<&Domain>,
    unix_seconds: u64,
) -> Result<Candidates, Refusal> {
    let select = |wanted: &dyn Fn(&Tenant) -> bool| -> Vec<Arc<Tenant>> {
        tenants
            .iter()
            .filter(|tenant| wanted(tenant))
            .cloned()
            .collect()
    };
    let accepting: Vec<Arc<Tenant>> = match reverse_path {
        ReversePath::Null => Vec::new(),
        ReversePath::Mailbox(mailbox) => {
            select(&|tenant| tenant.accepted_domains.contains(mailbox.domain()))
        }
    };
    let Some(org) = xoorg else {
        let tenants = if accepting.is_empty() {
            select(&|_| true)
        } else {
            accepting
        };
        return if tenants.is_empty() {
            Err(Refusal {
                reason: Reason::NoTenant,
                tenant: None,
                evidence: Evidence::default(),
            })
        } else {
            Ok(Candidates {
                tenants,
                application: None,
            })
        };
    };
    let named = select(&|tenant| tenant.originator_orgs.contains(org));
    if !named.is_empty() {
        return Ok(Candidates {
            tenants: named,
            application: None,
        });
    }
    let mut reporting = match reverse_path {
        ReversePath::Null => select(&|_| true),
        ReversePath::Mailbox(_) => accepting,
    };
    reporting.retain(|tenant| reports(tenant, unix_seconds));
    if reporting.is_empty() {
        let evidence = Evidence(vec![xoorg_item(tenants, xoorg, None)]);
        return Err(Refusal {
            reason: Reason::UnknownXoorg,
            tenant: None,
            evidence,
        });
    }
    Ok(Candidates {
        tenants: reporting,
        application: None,
    })
}

/// At MAIL on a connector listener, where XOORG is no domain: it names nobody, whatever a gate reports.
#[must_use]
pub fn unreadable_xoorg() -> Refusal {
    let item = EvidenceItem::bare(EvidenceKind::Xoorg, EvidenceState::Malformed);
    Refusal {
        reason: Reason::UnknownXoorg,
        tenant: None,
        evidence: Evidence(vec![item]),
    }
}

/// At MAIL on a submission listener.
///
/// # Errors
/// The application may not use this envelope sender.
pub fn submission_candidates(
    application: &Arc<Application>,
    reverse_path: &ReversePath,
) -> Result<Candidates, Refusal> {
    if application.may_send_as(reverse_path) {
        let tenants = vec![Arc::clone(&application.tenant)];
        return Ok(Candidates {
            tenants,
            application: Some(Arc::clone(application)),
        });
    }
    let seen = shown(reverse_path.to_string().as_bytes());
    let item = EvidenceItem {
        kind: EvidenceKind::EnvelopeSender,
        state: EvidenceState::Differs,
        tenant: None,
        seen: Some(seen),
    };
    Err(Refusal {
        reason: Reason::SenderNotAllowed,
        tenant: Some(Arc::clone(&application.tenant)),
        evidence: Evidence(vec![item]),
    })
}

/// With the header section of an application's mail: From: against `senders`.
#[must_use]
pub fn application(
    application: &Arc<Application>,
    envelope: &Envelope,
    header: &Examined,
) -> Settlement {
    let tenant = &application.tenant;
    let senders = Senders::read(&envelope.reverse_path, header);
    let sender_allowed = application.may_send_as(&envelope.reverse_path);
    let from_allowed = senders
        .from
        .as_ref()
        .map(|list| list.iter().all(|mailbox| application.may_write_as(mailbox)));
    let named = |mailbox: &Mailbox| {
        tenant
            .accepted_domains
            .contains(mailbox.domain())
            .then(|| tenant.name.to_string())
    };
    let evidence = Evidence(
        senders
            .evidence(sender_allowed, from_allowed == Ok(true), named)
            .to_vec(),
    );
    let refused = match from_allowed {
        _ if !sender_allowed => Some(Reason::SenderNotAllowed),
        Ok(true) => None,
        Ok(false) => Some(Reason::FromNotAllowed),
        Err(Malformed::Absent) => Some(Reason::FromAbsent),
        Err(Malformed::Duplicate) => Some(Reason::FromDuplicate),
        Err(Malformed::Unreadable) => Some(Reason::FromUnreadable),
    };
    if let Some(reason) = refused {
        return Settlement::Refused(Refusal {
            reason,
            tenant: Some(Arc::clone(tenant)),
            evidence,
        });
    }
    // The sender of a null reverse-path is who From: says.
    let from_domain = || {
        let domain = senders.from.as_ref().ok()?.first()?.domain();
        senders.fits_from(tenant).then(|| domain.clone())
    };
    let sender_domain = match &envelope.reverse_path {
        ReversePath::Null => from_domain(),
        ReversePath::Mailbox(_) => accepted_sender_domain(tenant, &envelope.reverse_path),
    };
    Settlement::Settled(Verdict {
        tenant: Arc::clone(tenant),
        class: Class::Application {
            application: Arc::clone(application),
        },
        sender_domain,
        evidence,
    })
}

/// The verdict on mail that Gatepost writes itself for a tenant: stamped with the tenant's first originator organisation.
#[must_use]
pub fn own(tenant: &Arc<Tenant>) -> Verdict {
    let first = tenant
        .originator_orgs
        .iter()
        .chain(tenant.accepted_domains.iter())
        .next();
    Verdict {
        tenant: Arc::clone(tenant),
        class: Class::Own,
        sender_domain: first.map(|pattern| pattern.domain().clone()),
        evidence: Evidence::default(),
    }
}

/// Network and certificate as evidence, for a refusal at MAIL.
#[must_use]
pub fn peer_evidence(peer: &Peer) -> Evidence {
    peer.evidence()
}
