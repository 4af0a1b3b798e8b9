//! Whose mail is it, then? What the header section settles, and what waits for a signature (product.md 3).
//!
//! All tenants of Microsoft 365 leave from the same addresses with the same certificate, so those two prove "some tenant".
//! Which one is said by stamps that Exchange sets, by the tenant's secret and by its DKIM signature: enough of them must
//! name one configured tenant, and none may contradict. A signature is asked for only where a verified one would change
//! the verdict; what it would be in either case is worked out here, so that nothing but the facts is missing.

use super::evidence::{self, Sights, may_sign_for};
use super::gate::{self, Case};
use super::senders::Senders;
use super::settings::{Forwarded, Gate, HalfProven, Tenant, Tenants};
use super::signature::{self, DkimFacts, MAX_SIGNATURES, Signature, SignatureFact};
use super::stamps::Stamps;
use super::verdict::{
    Candidates, Class, EvidenceItem, EvidenceKind, EvidenceState, Peer, Reason, Refusal, Standing,
    Verdict,
};
use crate::header::Examined;
use crate::mail::{Domain, Envelope, Mailbox, ReversePath, shown};
use std::sync::Arc;

/// What the header section settles.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// Let in.
    Settled(Verdict),
    /// A verified DKIM signature would change the verdict: to be asked at the end of the content.
    NeedsSignature(Box<Pending>),
    /// Not let in.
    Refused(Refusal),
}

/// A verdict that waits for the facts about some signatures; [`conclude`](Self::conclude) is the only way to it.
#[derive(Clone, Debug)]
pub struct Pending {
    signatures: Vec<Signature>,
    /// Without any signature.
    unsigned: Result<Passed, Refusal>,
    /// With one of this tenant.
    signed: Vec<(Arc<Tenant>, Result<Passed, Refusal>)>,
}

/// Mail that the tenant gate lets pass; one that was here before goes no further (product.md 4).
#[derive(Clone, Debug)]
struct Passed {
    verdict: Verdict,
    is_loop: bool,
}

impl Passed {
    fn concluded(self) -> Result<Verdict, Refusal> {
        if self.is_loop {
            return Err(Refusal {
                reason: Reason::Loop,
                tenant: Some(self.verdict.tenant),
                evidence: self.verdict.evidence,
            });
        }
        Ok(self.verdict)
    }
}

impl Pending {
    /// The signatures to verify, at most [`MAX_SIGNATURES`].
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The verdicts that let the message pass the tenant gate and need the signature; where there is none, the one that does
    /// without. What they all keep from the disk (the secret header) may be blanked before the facts are known.
    pub fn likely_verdicts(&self) -> impl Iterator<Item = &Verdict> {
        let signed = self
            .signed
            .iter()
            .filter_map(|(_, outcome)| outcome.as_ref().ok());
        let mut signed = signed.peekable();
        let unsigned = self.unsigned.as_ref().ok();
        let unsigned = unsigned.filter(|_| signed.peek().is_none());
        signed.chain(unsigned).map(|passed| &passed.verdict)
    }

    /// The end. One verified signature of the tenant counts; failed ones count as absent; where none counts and one could
    /// not be looked at, the mail is to be tried again.
    ///
    /// # Errors
    /// The refusal, with what was seen.
    pub fn conclude(self, facts: &DkimFacts) -> Result<Verdict, Refusal> {
        let facts: Vec<(&Signature, &SignatureFact)> =
            self.signatures.iter().zip(&facts.0).collect();
        let verified = |tenant: &Tenant| {
            facts.iter().any(|(signature, fact)| {
                **fact == SignatureFact::Verified && may_sign_for(tenant, signature.domain())
            })
        };
        let mut signed = self.signed;
        signed.retain(|(tenant, _)| verified(tenant));
        let unavailable = facts
            .iter()
            .any(|(_, fact)| matches!(fact, SignatureFact::Unavailable(_)));
        let outcome = match (signed.pop(), signed.is_empty()) {
            (Some((_, outcome)), true) => outcome,
            // Enough evidence for two tenants proves neither.
            (Some((_, outcome)), false) => Err(Refusal {
                reason: Reason::Contradiction,
                tenant: None,
                evidence: match outcome {
                    Ok(passed) => passed.verdict.evidence,
                    Err(refusal) => refusal.evidence,
                },
            }),
            (None, _) if unavailable => Err(match self.unsigned {
                Ok(Passed { verdict, .. }) => Refusal {
                    reason: Reason::SignatureUnavailable,
                    tenant: Some(verdict.tenant),
                    evidence: verdict.evidence,
                },
                Err(refusal) => Refusal {
                    reason: Reason::SignatureUnavailable,
                    ..refusal
                },
            }),
            (None, _) => self.unsigned,
        };
        let item = |tenant: Option<&Tenant>| dkim_item(tenant, &facts);
        match outcome {
            Ok(mut passed) => {
                let verdict = &mut passed.verdict;
                verdict.evidence.replace(item(Some(&verdict.tenant)));
                passed.concluded()
            }
            Err(mut refusal) => {
                refusal.evidence.replace(item(refusal.tenant.as_deref()));
                Err(refusal)
            }
        }
    }
}

/// What DKIM said: *matches* where a signature of the tenant holds, else *absent*, with what became of each.
fn dkim_item(tenant: Option<&Tenant>, facts: &[(&Signature, &SignatureFact)]) -> EvidenceItem {
    let mut state = EvidenceState::Absent;
    let mut seen = Vec::with_capacity(facts.len());
    for (signature, fact) in facts {
        let domain = signature.domain();
        seen.push(match fact {
            SignatureFact::Verified => {
                if tenant.is_some_and(|tenant| may_sign_for(tenant, domain)) {
                    state = EvidenceState::Matches;
                }
                format!("{domain}: verified")
            }
            SignatureFact::Failed(why) => format!("{domain}: {why}"),
            SignatureFact::Unavailable(why) => format!("{domain}: cannot be checked now: {why}"),
        });
    }
    EvidenceItem {
        kind: EvidenceKind::Dkim,
        state,
        tenant: tenant
            .filter(|_| state == EvidenceState::Matches)
            .map(|tenant| tenant.name.to_string()),
        seen: Some(shown(seen.join(" | ").as_bytes())),
    }
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
    let scene = Scene {
        tenants,
        candidates,
        peer,
        reverse_path: &envelope.reverse_path,
        header,
        unix_seconds,
        stamps: Stamps::read(envelope, header),
        senders: Senders::read(&envelope.reverse_path, header),
        signatures: signature::of(header),
    };
    let unsigned = scene.outcome(None);
    if unsigned
        .as_ref()
        .is_ok_and(|passed| passed.verdict.is_from_trusted_connector())
        || peer.standing() != Standing::Proven
    {
        return settled(unsigned);
    }
    // Nothing is asked that could not change the verdict.
    let signed: Vec<_> = tenants
        .iter()
        .filter(|tenant| scene.may_be_signed_by(tenant))
        .map(|tenant| (Arc::clone(tenant), scene.outcome(Some(tenant))))
        .filter(|(_, outcome)| differs(outcome, &unsigned))
        .collect();
    if signed.is_empty() {
        return settled(unsigned);
    }
    let mut signatures = scene.signatures;
    signatures.retain(|signature| {
        signed
            .iter()
            .any(|(tenant, _)| may_sign_for(tenant, signature.domain()))
    });
    signatures.truncate(MAX_SIGNATURES);
    Settlement::NeedsSignature(Box::new(Pending {
        signatures,
        unsigned,
        signed,
    }))
}

fn settled(outcome: Result<Passed, Refusal>) -> Settlement {
    match outcome.and_then(Passed::concluded) {
        Ok(verdict) => Settlement::Settled(verdict),
        Err(refusal) => Settlement::Refused(refusal),
    }
}

/// Whether two outcomes treat the mail differently; why the gate refuses is no difference, but whether the gate or the loop
/// check does is one: the first fault answers.
fn differs(one: &Result<Passed, Refusal>, other: &Result<Passed, Refusal>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) if one.is_loop && other.is_loop => false,
        (Ok(one), Ok(other)) => {
            let (one_verdict, other_verdict) = (&one.verdict, &other.verdict);
            one.is_loop != other.is_loop
                || one_verdict.tenant.name != other_verdict.tenant.name
                || one_verdict.is_from_trusted_connector()
                    != other_verdict.is_from_trusted_connector()
        }
        (Err(_), Err(_)) => false,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => true,
    }
}

/// Everything that is known of a message when its header section is whole.
struct Scene<'a> {
    tenants: &'a Tenants,
    candidates: &'a Candidates,
    peer: &'a Peer,
    reverse_path: &'a ReversePath,
    header: &'a Examined,
    unix_seconds: u64,
    stamps: Stamps,
    senders: Senders<'a>,
    signatures: Vec<Signature>,
}

impl Scene<'_> {
    fn may_be_signed_by(&self, tenant: &Tenant) -> bool {
        let mut domains = self.signatures.iter().map(Signature::domain);
        domains.any(|domain| may_sign_for(tenant, domain))
    }

    /// What the gate says, if `signed` had a verified signature.
    fn outcome(&self, signed: Option<&Tenant>) -> Result<Passed, Refusal> {
        let cases = gate::cases(self.tenants, &self.stamps, signed, self.header);
        let lead = gate::leading(&cases);
        let sights = Sights {
            tenants: self.tenants,
            peer: self.peer,
            stamps: &self.stamps,
            senders: &self.senders,
            signatures: &self.signatures,
            header: self.header,
        };
        let evidence = evidence::table(&sights, lead);
        // Refused at MAIL already; asked again so that no path leads round the first two gates, not even for a report.
        if let Some(reason) = Reason::of_standing(self.peer.standing(), HalfProven::Defer) {
            return Err(Refusal {
                reason,
                tenant: None,
                evidence,
            });
        }
        let judged = match lead {
            None => Err(Reason::NoTenant),
            Some(lead) => self
                .admitted(lead, &cases)
                .map(|class| (lead.tenant, class)),
        };
        let (tenant, class) = match judged {
            Ok(admitted) => admitted,
            Err(reason) => match self.reporting_tenant(&cases) {
                Some(tenant) => (tenant, Class::Reported { reason }),
                None => {
                    return Err(Refusal {
                        reason,
                        tenant: lead.map(|lead| Arc::clone(lead.tenant)),
                        evidence,
                    });
                }
            },
        };
        let verdict = Verdict {
            tenant: Arc::clone(tenant),
            class,
            sender_domain: accepted_sender_domain(tenant, self.reverse_path),
            evidence,
        };
        let is_loop = is_loop(tenant, self.header);
        Ok(Passed { verdict, is_loop })
    }

    /// The gate and the senders: what the mail counts as, or why it is refused.
    fn admitted(&self, lead: &Case<'_>, cases: &[Case<'_>]) -> Result<Class, Reason> {
        let (tenant, stamps, senders) = (lead.tenant, &self.stamps, &self.senders);
        let validation = is_validation(tenant, self.reverse_path);
        gate::judge(lead, cases, stamps, validation)?;
        if stamps.xoorg.is_some()
            && !self
                .candidates
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
        // From: may be foreign even where Sender: or Resent-From: vouches for it; such mail never leaves by mx or relay.
        let foreign_sender = !senders.fits_envelope(tenant) || !senders.fits_from(tenant);
        Ok(match validation {
            true => Class::Validation { foreign_sender },
            false => Class::Proven { foreign_sender },
        })
    }

    /// The tenant that lets unproven mail in for now: the one whose accepted domain the envelope sender carries (null: all of
    /// From:), while its gate reports. Mail that another tenant's evidence would prove is that tenant's, never this one's.
    fn reporting_tenant(&self, cases: &[Case<'_>]) -> Option<&Arc<Tenant>> {
        let tenant = match self.reverse_path {
            ReversePath::Mailbox(mailbox) => self.tenants.accepting(mailbox.domain()),
            ReversePath::Null => self
                .tenants
                .iter()
                .find(|tenant| self.senders.fits_from(tenant)),
        }?;
        let anothers = cases
            .iter()
            .any(|case| case.tenant.name != tenant.name && case.named_by >= case.wanted());
        (reports(tenant, self.unix_seconds) && !anothers).then_some(tenant)
    }
}

/// `gate = "report"`, and its day has not come.
pub(super) fn reports(tenant: &Tenant, unix_seconds: u64) -> bool {
    match tenant.gate {
        Gate::Report { until } => unix_seconds < until,
        Gate::Enforce => false,
    }
}

/// Microsoft's connector check (product.md 3).
fn is_validation(tenant: &Tenant, reverse_path: &ReversePath) -> bool {
    reverse_path.mailbox().is_some_and(|mailbox| {
        is_validator(mailbox) && tenant.accepted_domains.contains(mailbox.domain())
    })
}

/// The local part that Microsoft's connector check writes as.
pub(super) fn is_validator(mailbox: &Mailbox) -> bool {
    mailbox
        .local_part()
        .eq_ignore_ascii_case("O365ConnectorValidation")
}

/// The tenant's loop header with its value or a previous one, in any of its instances; another tenant's is none.
fn is_loop(tenant: &Tenant, header: &Examined) -> bool {
    tenant.loop_header.as_ref().is_some_and(|own| {
        header
            .named(&own.name)
            .any(|field| own.matches(&field.text()))
    })
}

pub(super) fn accepted_sender_domain(
    tenant: &Tenant,
    reverse_path: &ReversePath,
) -> Option<Domain> {
    let domain = reverse_path.mailbox()?.domain();
    tenant
        .accepted_domains
        .contains(domain)
        .then(|| domain.clone())
}

#[cfg(test)]
mod tests;
