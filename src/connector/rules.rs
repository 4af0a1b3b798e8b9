//! Do the rules stand in the right order, does another rule come before them, and how far is the rollout?

use super::desired::{ENABLED, ENFORCE, is_marked};
use super::diff::{Drift, Mend, Report};
use super::export::{Exported, flag, list, text};
use super::found::Ours;
use super::judge::is_number;
use super::objects::Kind;
use super::plan::{Header, Plan};
use super::told::{literal, shown};
use super::turn::Turn;
use super::{further, lifetime};
use time::OffsetDateTime;

/// How far the rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The routing rule is disabled.
    Stopped,
    /// It only writes into the message trace what it would do.
    Audit,
    /// It takes the mail of a group.
    Pilot,
    /// It takes everyone's.
    Everyone,
}

impl Stage {
    /// As `Set-GatepostRollout -Stage` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stopped => "Stop",
            Self::Audit => "Audit",
            Self::Pilot => "Pilot",
            Self::Everyone => "Everyone",
        }
    }

    /// In words; `whose` is the mail of the pilot group, where the rule names one, else everyone's.
    fn text(self, whose: &str) -> String {
        match self {
            Self::Stopped => format!(
                "the routing rule is disabled and sends nothing to Gatepost; enabled, it would take {whose} (Set-GatepostRollout.ps1 -Stage Audit begins)"
            ),
            Self::Audit => format!(
                "the routing rule is in Audit: it sends nothing yet, and the message trace shows what it would take of {whose}"
            ),
            Self::Pilot | Self::Everyone => format!("the routing rule takes {whose}"),
        }
    }

    /// Whether mail depends on the connectors.
    pub(super) fn sends(self) -> bool {
        matches!(self, Self::Pilot | Self::Everyone)
    }
}

/// How far the routing rule is.
pub(super) fn stage(rule: &Exported) -> Stage {
    if !is_enabled(rule) {
        Stage::Stopped
    } else if !is_enforced(rule) {
        Stage::Audit
    } else if rule.is_set("FromMemberOf") {
        Stage::Pilot
    } else {
        Stage::Everyone
    }
}

/// Tells how far the rollout is, once.
pub(super) fn rollout(
    report: &mut Report,
    plan: &Plan,
    rules: &[Exported],
    ours: &Ours,
    now: Option<OffsetDateTime>,
) {
    let (Some(stage), Some(rule)) = (ours.stage, ours.route.of(rules)) else {
        return;
    };
    // One that has ended, or not begun, takes nobody's mail, and that is told of its dates.
    if !plan.is_sent_to() || lifetime::is_over(rule, now) || lifetime::is_ahead(rule, now) {
        return;
    }
    for property in ["State", "Mode"] {
        if is_number(&rule.text(property)) {
            report.note(
                "transport rule",
                format!("{property} of the routing rule is written as a number, and which word that is stands nowhere: what is said of the rollout may be wrong; export it by Export-GatepostState.ps1"),
            );
        }
    }
    let mut whose = match rule.get("FromMemberOf").map(list).unwrap_or_default() {
        groups if groups.is_empty() => "everyone's mail".to_owned(),
        groups => format!("the mail of {}", shown(groups.join(", ").as_bytes())),
    };
    if further::is_narrowed(rule) {
        whose.push_str(", as far as its further conditions let it through");
    }
    report.note("transport rule", stage.text(&whose));
}

fn is(rule: &Exported, property: &str, word: &str) -> bool {
    rule.get(property).is_none_or(|value| {
        let value = text(value);
        value.is_empty()
            || value.eq_ignore_ascii_case(word)
            // Nobody knows: a note says so.
            || is_number(&value)
    })
}

fn is_enabled(rule: &Exported) -> bool {
    is(rule, "State", ENABLED)
        && rule
            .get("Enabled")
            .is_none_or(|value| flag(value) != Some(false))
}

pub(super) fn is_enforced(rule: &Exported) -> bool {
    is(rule, "Mode", ENFORCE)
}

/// Whether a rule does to mail what it says: it is enabled, enforced, and has not ended.
fn acts(rule: &Exported, now: Option<OffsetDateTime>) -> bool {
    is_enabled(rule) && is_enforced(rule) && !lifetime::is_over(rule, now)
}

/// The place of a rule in Exchange's order: its priority, else (also where that is no place) where it stands in the export.
fn priority(rule: &Exported, place: usize) -> i64 {
    let written = rule.text("Priority").parse::<u32>().ok();
    written.map_or_else(|| i64::try_from(place).unwrap_or(0), i64::from)
}

/// What keeps mail from the routing rule, or from the clean-up rule once it is back.
pub(super) fn order(
    report: &mut Report,
    plan: &Plan,
    rules: &[Exported],
    ours: &Ours,
    now: Option<OffsetDateTime>,
) {
    let Some(outward) = &plan.outward else {
        return;
    };
    let (route, clean_up) = (ours.route.place, ours.clean_up.place);
    let at = |place: Option<usize>| {
        let place = place?;
        Some((rules.get(place)?, priority(rules.get(place)?, place)))
    };
    let foreign = rules
        .iter()
        .enumerate()
        .filter(|(place, _)| !ours.route.knows(*place) && !ours.clean_up.knows(*place))
        .map(|(place, rule)| (rule, priority(rule, place)));
    let foreign: Vec<(&Exported, i64)> = foreign.collect();
    if let Some((own, own_priority)) = at(route) {
        // The line that moves the routing rule moves the other with it.
        if !before(
            report,
            &outward.looped,
            own,
            own_priority,
            at(clean_up),
            &foreign,
            now,
        ) {
            behind(report, own_priority, at(clean_up));
        }
    }
    for (rule, _) in &foreign {
        same_way(report, &outward.looped.name, ours, rule, now);
    }
    if let Some(rule) = route.and_then(|place| rules.get(place)) {
        further::of_route(report, &outward.looped.name, rule);
        lifetime::of(report, Kind::Route, rule, now);
    }
    if let Some(rule) = clean_up.and_then(|place| rules.get(place)) {
        further::of_clean_up(report, rule);
        lifetime::of(report, Kind::CleanUp, rule, now);
    }
}

/// What a rule does to the loop header: mail that it sets has not been with us, and is left out all the same.
const MARKS: &str = "sets the loop header";
/// Mail that has come back is not known any more.
const UNMARKS: &str = "takes the loop header off";
/// The same.
const REMARKS: &str = "sets the loop header to another value";

/// What a rule before ours does that keeps mail from it, or sends mail by it that has come back; `None`: neither.
fn what_counts(rule: &Exported, looped: &Header) -> Option<&'static str> {
    let routes = rule.is_set("RouteMessageOutboundConnector");
    // What it stops, ours does not see, whatever stands in it by then.
    if rule.is_set("StopRuleProcessing") {
        return Some(if routes { "routes and stops" } else { "stops" });
    }
    let is_looped = |property: &str| rule.text(property).eq_ignore_ascii_case(&looped.name);
    if is_looped("RemoveHeader") {
        return Some(UNMARKS);
    }
    if is_looped("SetHeaderName") {
        let value = rule.text("SetHeaderValue");
        let mut known = std::iter::once(&looped.value).chain(&looped.previous);
        let is_known = known.any(|own| own.matches(value.as_bytes()));
        return Some(if is_known { MARKS } else { REMARKS });
    }
    routes.then_some("routes")
}

/// Enabled rules before ours that end the processing, route the mail elsewhere, or touch the mark of mail that has come
/// back; whether there are any.
fn before(
    report: &mut Report,
    looped: &Header,
    own: &Exported,
    own_priority: i64,
    clean_up: Option<(&Exported, i64)>,
    foreign: &[(&Exported, i64)],
    now: Option<OffsetDateTime>,
) -> bool {
    let mut ahead: Vec<&(&Exported, i64)> = foreign
        .iter()
        .filter(|(rule, priority)| {
            // Mail from outside is none of ours.
            let is_outside = rule
                .text("FromScope")
                .eq_ignore_ascii_case("NotInOrganization");
            *priority < own_priority && acts(rule, now) && !is_outside
        })
        .collect();
    ahead.sort_by_key(|(_, priority)| *priority);
    let what = |rule: &Exported| what_counts(rule, looped);
    let named = |rule: &Exported| shown(rule.text("Name").as_bytes());
    let telling: Vec<(String, i64)> = ahead
        .iter()
        .filter_map(|(rule, priority)| {
            Some((
                format!("{} ({priority}, {})", named(rule), what(rule)?),
                *priority,
            ))
        })
        .collect();
    let unmarks = ahead
        .iter()
        .any(|(rule, _)| matches!(what(rule), Some(UNMARKS | REMARKS)));
    let harmless: Vec<String> = ahead
        .iter()
        .filter(|(rule, _)| what(rule).is_none())
        .map(|(rule, _)| named(rule))
        .collect();
    if !harmless.is_empty() {
        report.note(
            "transport rule",
            format!(
                "before {} stand {}: what they change, Gatepost sees; what they refuse, hold or lead elsewhere never reaches it",
                Kind::Route.name(),
                harmless.join(", ")
            ),
        );
    }
    let Some((_, first)) = telling.first() else {
        return false;
    };
    let own_name = own.text("Name");
    let mut line = format!(
        "Set-TransportRule -Identity {} -Priority {first}",
        literal(&own_name)
    );
    if let Some((clean_up, place)) = clean_up {
        line.push_str(&format!(
            "; Set-TransportRule -Identity {} -Priority {}",
            literal(&clean_up.text("Name")),
            directly_behind(*first, place)
        ));
    }
    let names: Vec<&str> = telling.iter().map(|(name, _)| name.as_str()).collect();
    report.drift.push(Drift {
        object: Kind::Route.title().to_owned(),
        name: shown(own_name.as_bytes()),
        property: "Priority".to_owned(),
        is: format!("{own_priority}, behind {}", names.join(", ")),
        should: format!("{first}, before them"),
        breaks: if unmarks {
            "mail that has come back loses the mark by which ours leaves it out: it is sent to Gatepost again, and round; what another such rule takes goes out past Gatepost, or another way"
        } else {
            "mail that such a rule takes never meets ours: it goes out past Gatepost, or another way"
        }
        .to_owned(),
        mend: Mend::Line(line),
        turn: Turn::Today,
    });
    true
}

/// The priority that brings a rule from its place directly behind another: one that stood before it leaves its place, and the
/// other moves up.
fn directly_behind(other: i64, place: i64) -> i64 {
    if place < other { other } else { other + 1 }
}

/// The clean-up rule stands directly behind the routing rule.
fn behind(report: &mut Report, route: i64, clean_up: Option<(&Exported, i64)>) {
    let Some((rule, own)) = clean_up else {
        return;
    };
    if own == route + 1 {
        return;
    }
    let target = directly_behind(route, own);
    let name = rule.text("Name");
    report.drift.push(Drift {
        object: Kind::CleanUp.title().to_owned(),
        name: shown(name.as_bytes()),
        property: "Priority".to_owned(),
        is: own.to_string(),
        should: format!("{}, directly behind {}", target, Kind::Route.name()),
        breaks: "a rule between the two may end the processing of returned mail: its loop header, with the value, leaves the tenant".to_owned(),
        mend: Mend::Line(format!("Set-TransportRule -Identity {} -Priority {target}", literal(&name))),
        turn: Turn::Today,
    });
}

/// Another rule that sends mail to our connector, or to one that leads to Gatepost as well.
fn same_way(
    report: &mut Report,
    looped: &str,
    ours: &Ours,
    rule: &Exported,
    now: Option<OffsetDateTime>,
) {
    let way = rule.text("RouteMessageOutboundConnector");
    let mut names = ours.ways.iter();
    if !names.any(|name| name.eq_ignore_ascii_case(&way)) || !acts(rule, now) {
        return;
    }
    let name = rule.text("Name");
    let excepts = [
        "ExceptIfHeaderContainsMessageHeader",
        "ExceptIfHeaderMatchesMessageHeader",
    ]
    .iter()
    .any(|property| rule.text(property).eq_ignore_ascii_case(looped));
    if excepts {
        report.note(
            "transport rule",
            format!(
                "{} sends mail to {}, beside {}",
                shown(name.as_bytes()),
                shown(way.as_bytes()),
                Kind::Route.name()
            ),
        );
        return;
    }
    report.drift.push(Drift {
        object: Kind::Route.title().to_owned(),
        name: shown(name.as_bytes()),
        property: "RouteMessageOutboundConnector".to_owned(),
        is: format!(
            "{}, without an exception for {looped}",
            shown(way.as_bytes())
        ),
        should: format!("not set, but in {}", Kind::Route.name()),
        breaks: "mail that has come back is sent to Gatepost again, which refuses it: 554 5.4.6"
            .to_owned(),
        mend: if is_marked(&rule.text(Kind::Route.comment())) {
            Mend::Line(format!("Disable-TransportRule -Identity {}", literal(&name)))
        } else {
            Mend::Step(format!(
                "Look at what the rule is for: Get-TransportRule -Identity {0} | Format-List. An earlier way to Gatepost is ended by Disable-TransportRule -Identity {0}; one that has a purpose of its own gets the exception for {looped} that {1} has, or another connector.",
                literal(&name),
                Kind::Route.name()
            ))
        },
        turn: Turn::Today,
    });
}
