//! Whose mail is it? The tenant gate, and the judgement of applications (product.md 3).
//!
//! All tenants of Microsoft 365 leave from the same addresses with the same certificate, so those two prove "some tenant".
//! Which one is said by stamps that Exchange sets and by the tenant's secret: enough of them must name one configured
//! tenant, and none may contradict.

use super::gate::{self, Case};
use super::senders::Senders;
use super::settings::{Forwarded, Gate, HalfProven, Tenant, Tenants};
use super::stamps::{Reading, Stamps};
use super::verdict::{
    Application, Candidates, Class, Evidence, EvidenceItem, EvidenceKind, EvidenceState, Peer,
    Reason, Refusal, Settlement, Verdict,
};
use crate::header::Examined;
use crate::mail::{Domain, Envelope, Mailbox, ReversePath, TenantId, shown};
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

/// With the header section of connector mail: the tenant gate, then the loop check, in that order (report mode: loop first).
///
/// The envelope sender narrows the candidates for RCPT but proves nothing, so every configured tenant is considered; with
/// XOORG, which is a proof, only the candidates it chose can win. The hop count is the caller's
/// ([`Examined::is_over_hop_limit`]), for it concerns applications too.
#[must_use]
pub fn settle(
    tenants: &Tenants,
    candidates: &Candidates,
    peer: &Peer,
    envelope: &Envelope,
    header: &Examined,
    unix_seconds: u64,
) -> Settlement {
    let stamps = Stamps::read(envelope, header);
    let senders = Senders::read(&envelope.reverse_path, header);
    let cases = gate::cases(tenants, &stamps, header);
    let lead = gate::leading(&cases);
    let evidence = evidence(tenants, peer, &stamps, &senders, lead, header);
    let refuse = |reason: Reason, tenant: Option<&Arc<Tenant>>| {
        let (tenant, evidence) = (tenant.cloned(), evidence.clone());
        Settlement::Refused(Refusal {
            reason,
            tenant,
            evidence,
        })
    };
    // Refused at MAIL already; asked again so that no path leads round the first two gates, not even for a report.
    if let Some(reason) = Reason::of_standing(peer.standing(), HalfProven::Defer) {
        return refuse(reason, None);
    }
    let judged = match lead {
        None => Err(Reason::NoTenant),
        Some(lead) => admitted(
            lead,
            &cases,
            &stamps,
            &senders,
            candidates,
            &envelope.reverse_path,
        )
        .map(|class| (lead.tenant, class)),
    };
    let (tenant, class) = match judged {
        Ok(admitted) => admitted,
        Err(reason) => match reporting_tenant(
            tenants,
            &cases,
            &senders,
            &envelope.reverse_path,
            unix_seconds,
        ) {
            Some(tenant) => (tenant, Class::Reported { reason }),
            None => return refuse(reason, lead.map(|lead| lead.tenant)),
        },
    };
    if is_loop(tenant, header) {
        return refuse(Reason::Loop, Some(tenant));
    }
    Settlement::Settled(Verdict {
        tenant: Arc::clone(tenant),
        class,
        sender_domain: accepted_sender_domain(tenant, &envelope.reverse_path),
        evidence,
    })
}

/// The gate and the senders: what the mail counts as, or why it is refused.
fn admitted(
    lead: &Case<'_>,
    cases: &[Case<'_>],
    stamps: &Stamps,
    senders: &Senders<'_>,
    candidates: &Candidates,
    reverse_path: &ReversePath,
) -> Result<Class, Reason> {
    let tenant = lead.tenant;
    let validation = is_validation(tenant, reverse_path);
    gate::judge(lead, cases, stamps, validation)?;
    if stamps.xoorg.is_some()
        && !candidates
            .tenants()
            .any(|candidate| candidate.name == tenant.name)
    {
        return Err(Reason::Contradiction);
    }
    if senders.from.is_err() {
        return Err(Reason::AmbiguousEvidence);
    }
    let forwards = match tenant.forwarded_senders {
        Forwarded::Refuse => false,
        Forwarded::Allow => true,
    };
    if !forwards && !senders.fits_envelope(tenant) {
        return Err(Reason::ForeignEnvelopeSender);
    }
    if !forwards && !senders.fits_header(tenant) {
        return Err(Reason::ForeignHeaderSender);
    }
    if validation {
        return Ok(Class::Validation);
    }
    // From: may be foreign even where Sender: or Resent-From: vouches for it; such mail never leaves by mx or relay.
    let foreign_sender = !senders.fits_envelope(tenant) || !senders.fits_from(tenant);
    Ok(Class::Proven { foreign_sender })
}

/// The tenant that lets unproven mail in for now: the one whose accepted domain the envelope sender carries (null: all of
/// From:), while its gate reports. Mail that another tenant's evidence would prove is that tenant's, never this one's.
fn reporting_tenant<'a>(
    tenants: &'a Tenants,
    cases: &[Case<'_>],
    senders: &Senders<'_>,
    reverse_path: &ReversePath,
    unix_seconds: u64,
) -> Option<&'a Arc<Tenant>> {
    let tenant = match reverse_path {
        ReversePath::Mailbox(mailbox) => tenants.accepting(mailbox.domain()),
        ReversePath::Null => tenants.iter().find(|tenant| senders.fits_from(tenant)),
    }?;
    let anothers = cases
        .iter()
        .any(|case| case.tenant.name != tenant.name && case.named_by >= case.wanted());
    (reports(tenant, unix_seconds) && !anothers).then_some(tenant)
}

/// `gate = "report"`, and its day has not come.
fn reports(tenant: &Tenant, unix_seconds: u64) -> bool {
    match tenant.gate {
        Gate::Report { until } => unix_seconds < until,
        Gate::Enforce => false,
    }
}

/// Microsoft's connector check (product.md 3).
fn is_validation(tenant: &Tenant, reverse_path: &ReversePath) -> bool {
    reverse_path.mailbox().is_some_and(|mailbox| {
        mailbox
            .local_part()
            .eq_ignore_ascii_case("O365ConnectorValidation")
            && tenant.accepted_domains.contains(mailbox.domain())
    })
}

/// The tenant's loop header with its value or a previous one, in any of its instances; another tenant's is none.
fn is_loop(tenant: &Tenant, header: &Examined) -> bool {
    tenant.loop_header.as_ref().is_some_and(|own| {
        header
            .named(&own.name)
            .any(|field| own.matches(&field.text()))
    })
}

fn accepted_sender_domain(tenant: &Tenant, reverse_path: &ReversePath) -> Option<Domain> {
    let domain = reverse_path.mailbox()?.domain();
    tenant
        .accepted_domains
        .contains(domain)
        .then(|| domain.clone())
}

/// Every item, as it stands to the tenant that the evidence speaks for most.
fn evidence(
    tenants: &Tenants,
    peer: &Peer,
    stamps: &Stamps,
    senders: &Senders<'_>,
    lead: Option<&Case<'_>>,
    header: &Examined,
) -> Evidence {
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
    let fits = |check: &dyn Fn(&Tenant) -> bool| tenant.is_some_and(|tenant| check(tenant));
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

fn xoorg_item(
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
        Err(_) => Some(Reason::AmbiguousEvidence),
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
