//! Does a rule of ours act today? Exchange keeps it enabled before its `ActivationDate` and behind its `ExpiryDate`, and it does
//! nothing. That `$null` takes a date off a rule, as it does other properties, is inferred: the reference says nothing of it.

use super::diff::{Drift, Mend, Report, seen};
use super::export::{Exported, moment};
use super::objects::Kind;
use super::told::{literal, shown};
use super::turn::Turn;

use time::OffsetDateTime;

/// Whether the rule has ended.
pub(super) fn is_over(rule: &Exported, now: Option<OffsetDateTime>) -> bool {
    let end = moment(&rule.text("ExpiryDate"));
    end.zip(now).is_some_and(|(end, now)| end <= now)
}

/// Whether the rule has not begun.
pub(super) fn is_ahead(rule: &Exported, now: Option<OffsetDateTime>) -> bool {
    let begin = moment(&rule.text("ActivationDate"));
    begin.zip(now).is_some_and(|(begin, now)| begin > now)
}

/// Tells its two dates: drift where nothing happens today that must, else a note.
pub(super) fn of(report: &mut Report, kind: Kind, rule: &Exported, now: Option<OffsetDateTime>) {
    let without = match kind {
        Kind::CleanUp => "the loop header, with its value, stays on mail that leaves the tenant",
        Kind::Inbound | Kind::Outbound | Kind::Route => "nothing reaches Gatepost",
    };
    let name = rule.text("Name");
    let title = format!("{} {}", kind.title(), shown(name.as_bytes()));
    let drift = |property: &str, is: String, breaks: String| Drift {
        object: kind.title().to_owned(),
        name: shown(name.as_bytes()),
        property: property.to_owned(),
        is,
        should: "not set".to_owned(),
        breaks,
        mend: Mend::Line(format!(
            "{} -Identity {} -{property} $null",
            kind.setter(),
            literal(&name)
        )),
        turn: Turn::Today,
    };
    if rule.is_set("ExpiryDate") {
        let is = seen(&rule.text("ExpiryDate"));
        if is_over(rule, now) {
            let breaks = format!("the rule has ended, though it is enabled: {without}");
            report.drift.push(drift("ExpiryDate", is, breaks));
        } else if moment(&rule.text("ExpiryDate")).is_none() {
            report.note(
                &title,
                format!("ExpiryDate is {is}, which is no date as PowerShell writes it into JSON: if it has passed, {without}"),
            );
        } else {
            report.note(
                &title,
                format!("ExpiryDate is {is}: the rule ends then; from there on {without}"),
            );
        }
    }
    if rule.is_set("ActivationDate") {
        let is = seen(&rule.text("ActivationDate"));
        let begin = moment(&rule.text("ActivationDate"));
        let ahead = begin.zip(now).map(|(begin, now)| begin > now);
        match (kind, ahead) {
            (_, Some(false)) => {}
            (Kind::CleanUp, Some(true)) => {
                let breaks = format!("the rule has not begun, though it is enabled: {without}");
                report.drift.push(drift("ActivationDate", is, breaks));
            }
            // Until then it is no more than a rule that is disabled: a stage of the rollout.
            _ => report.note(
                &title,
                format!("ActivationDate is {is}: the rule begins then"),
            ),
        }
    }
}
