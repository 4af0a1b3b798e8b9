//! Would Gatepost take it? Asked before all that Exchange may make of it, by the judgement that the server itself gives.
//!
//! Of mail that has passed Gatepost already (its own `Received:` on top, or its own stamp), only what Gatepost neither adds
//! nor takes away still counts: a stamp that contradicts, stands twice or cannot be read.

use super::{Bears, CROSS_PREMISES, Conclusion, Facts, Row, STAMPS, says, topmost_is_ours, value};
use crate::exchange::Mark;
use crate::header::{Examined, MAX_RECEIVED};
use crate::trust::{
    self, Class, Evidence, EvidenceItem, EvidenceKind, EvidenceState, Reason, Settlement, Tenants,
};

/// What the gate says.
#[derive(Default)]
pub(super) struct Gate {
    /// For the table.
    pub(super) row: Option<Row>,
    /// A refusal that tells more than any missing field does.
    pub(super) first: Option<Conclusion>,
    /// What counts where all else would make it internal: in an excerpt, the proof may be what was left out.
    pub(super) last: Option<Conclusion>,
}

/// Asks it, where the message has what Exchange stamps.
pub(super) fn ask(header: &Examined, facts: &Facts<'_>) -> Gate {
    if !STAMPS.into_iter().any(|name| header.has(name)) {
        return Gate::default();
    }
    let nobody = Tenants::default();
    let tenants = facts.tenants.unwrap_or(&nobody);
    let has_passed = has_passed(header, facts);
    match trust::settle_saved(tenants, header, facts.now) {
        Settlement::Settled(verdict) => match verdict.class() {
            Class::Reported { reason } => {
                let tenant = Some(&*verdict.tenant().name);
                let refused = Refused::new(*reason, verdict.evidence(), tenant, true);
                refused.gate(header, facts, has_passed)
            }
            _ if has_passed => Gate::default(),
            Class::Proven { .. }
            | Class::Validation { .. }
            | Class::Application { .. }
            | Class::Own => proven(header, &verdict.tenant().name),
        },
        Settlement::NeedsSignature(_) if has_passed => Gate::default(),
        Settlement::NeedsSignature(_) => undecided(),
        Settlement::Refused(refusal) => {
            let tenant = refusal.tenant.as_ref().map(|tenant| &*tenant.name);
            let refused = Refused::new(refusal.reason, &refusal.evidence, tenant, false);
            refused.gate(header, facts, has_passed)
        }
    }
}

/// Whether it has the form that Gatepost gives what it delivers: nobody else writes so on the way here.
fn has_passed(header: &Examined, facts: &Facts<'_>) -> bool {
    let source = format!("{CROSS_PREMISES}AuthSource");
    let stamped = facts
        .hostname
        .is_some_and(|own| says(header, &source, own.as_str()));
    facts.as_delivered || stamped || topmost_is_ours(header, facts)
}

fn row(value: &str, bears: Bears, says: String) -> Option<Row> {
    Some(Row {
        field: "(tenant gate)".to_owned(),
        value: value.to_owned(),
        bears,
        says,
        mark: Mark::Given,
    })
}

fn proven(header: &Examined, tenant: &str) -> Gate {
    let last = header.is_over_hop_limit().then(|| {
        Conclusion::external(
            format!("Gatepost refuses it: more than {MAX_RECEIVED} Received fields, a loop"),
            trust::advice(Reason::Loop, &Evidence::default()),
        )
    });
    let says =
        format!("Gatepost takes it for proven mail of {tenant}, where it comes from Exchange");
    Gate {
        row: row("proven", Bears::Neither, says),
        first: None,
        last,
    }
}

/// A signature decides, and nobody looks it up here.
fn undecided() -> Gate {
    let because =
        "whether Gatepost takes it hangs on a DKIM signature, which is not looked up here";
    let last = Conclusion::unknown(because, "gatepost explain trust --dns looks it up");
    Gate {
        row: row("undecided", Bears::Neither, because.to_owned()),
        first: None,
        last: Some(last),
    }
}

/// A refusal, or what would be one but for `gate = "report"`.
struct Refused<'a> {
    reason: Reason,
    evidence: &'a Evidence,
    tenant: Option<&'a str>,
    reported: bool,
    /// The item that decided, but for From:.
    item: Option<&'a EvidenceItem>,
}

impl<'a> Refused<'a> {
    fn new(
        reason: Reason,
        evidence: &'a Evidence,
        tenant: Option<&'a str>,
        reported: bool,
    ) -> Self {
        let item = trust::culprit(reason, evidence);
        Self {
            reason,
            evidence,
            tenant,
            reported,
            item: item.filter(|item| item.kind != EvidenceKind::HeaderSender),
        }
    }

    /// An item stands twice or cannot be read, which is so for every tenant.
    fn is_spoilt(&self) -> bool {
        self.item.is_some_and(|item| {
            matches!(
                item.state,
                EvidenceState::Duplicate | EvidenceState::Malformed
            )
        })
    }

    fn counts(&self, facts: &Facts<'_>, has_passed: bool) -> bool {
        if facts.tenants.is_none() {
            // There is no tenant to find.
            return self.is_spoilt() && !facts.as_delivered;
        }
        match self.reason {
            Reason::NoTenant if !self.is_spoilt() => true,
            _ if facts.as_delivered => false,
            Reason::Contradiction => true,
            _ => self.is_spoilt() || !has_passed,
        }
    }

    fn gate(&self, header: &Examined, facts: &Facts<'_>, has_passed: bool) -> Gate {
        if !self.counts(facts, has_passed) {
            return Gate::default();
        }
        let (because, mended_by) = (self.because(header), self.mended_by());
        let lacks_from =
            !header.has("From") && self.reason == Reason::AmbiguousEvidence && !self.is_spoilt();
        let conclusion = if lacks_from {
            Conclusion::unknown(
                "there is no From:, without which Gatepost takes nothing",
                "if it was left out of this copy, take the whole header",
            )
        } else {
            Conclusion::external(because.clone(), mended_by)
        };
        let word = if self.reported { "reported" } else { "refused" };
        let row = row(word, Bears::External, because);
        let too_little = match self.reason {
            Reason::TooFewProofs | Reason::SecretMissing | Reason::Loop => true,
            Reason::AmbiguousEvidence => !self.is_spoilt(),
            _ => false,
        };
        let (first, last) = if too_little {
            (None, Some(conclusion))
        } else {
            (Some(conclusion), None)
        };
        Gate { row, first, last }
    }

    fn because(&self, header: &Examined) -> String {
        let does = if self.reported {
            "gate = \"report\" lets it in without the fields that would make it internal"
        } else {
            "Gatepost refuses it"
        };
        match self.item {
            Some(item) if item.state == EvidenceState::Malformed => {
                format!(
                    "{} is nothing that Exchange writes, and {does}",
                    item.words()
                )
            }
            Some(item) if item.state == EvidenceState::Duplicate => {
                let field = item.kind.field();
                let times = match header.count(field) {
                    0 => "more than once".to_owned(),
                    count => format!("{count} times"),
                };
                format!("{field} stands {times}, where Exchange writes it once, and {does}")
            }
            _ if self.reason == Reason::NoTenant => {
                let stamp = STAMPS.into_iter().find(|name| header.has(name));
                let stamp = stamp.unwrap_or_default();
                let seen = value(header, stamp).unwrap_or_default();
                format!(
                    "it is of a tenant that is not configured ({stamp}: {seen}): {does}, and Exchange would not take it for ours"
                )
            }
            item => {
                let mut about: Vec<String> = self.tenant.map(str::to_owned).into_iter().collect();
                about.extend(item.map(EvidenceItem::words));
                let about = match about.join("; ") {
                    none if none.is_empty() => none,
                    some => format!(" ({some})"),
                };
                format!("{does}: {}{about}", self.reason.describe())
            }
        }
    }

    fn mended_by(&self) -> String {
        let shows = "(gatepost explain trust shows the evidence)";
        let reason = match self.reason {
            Reason::NoTenant if self.is_spoilt() => Reason::AmbiguousEvidence,
            Reason::NoTenant => {
                return format!(
                    "nothing, if that tenant is a stranger; else its [[tenant]] with tenant_id and originator_orgs {shows}"
                );
            }
            reason => reason,
        };
        format!("{} {shows}", trust::advice(reason, self.evidence))
    }
}
