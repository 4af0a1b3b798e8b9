//! Which of the tenant's objects are ours? By name, else by mark, else by what only ours does.
//!
//! An object is told once: one under another name comes with the line that renames it, and is no stranger beside it.

use super::MARK;
use super::desired::is_marked;
use super::diff::{Drift, Exports, Mend, Note};
use super::export::{Exported, flag, list};
use super::judge::host_of;
use super::objects::Kind;
use super::plan::Plan;
use super::rules::{self, Stage};
use super::tenancy::{confirm, is_hybrid};
use super::told::{self, literal, shown};
use super::turn::Turn;

/// One object of ours among those of its kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Its place; `None`: absent, or nobody can say which.
    pub(super) place: Option<usize>,
    /// Known by what it does alone: the line that renames it gives it the mark.
    pub(super) is_adopted: bool,
    /// Objects of which `drift` or `notes` tell.
    told: Vec<usize>,
    pub(super) drift: Vec<Drift>,
    pub(super) notes: Vec<Note>,
}

impl Found {
    /// The object.
    pub(super) fn of<'a>(&self, objects: &'a [Exported]) -> Option<&'a Exported> {
        objects.get(self.place?)
    }

    /// Whether nothing more is to be told of the object at this place as of a stranger.
    pub(super) fn knows(&self, place: usize) -> bool {
        self.place == Some(place) || self.told.contains(&place)
    }
}

/// All four.
pub(super) struct Ours {
    pub(super) inbound: Found,
    pub(super) outbound: Found,
    pub(super) route: Found,
    pub(super) clean_up: Found,
    /// Every name by which a rule may mean our outbound connector.
    pub(super) outbound_names: Vec<String>,
    /// The same, and those of every other enabled connector that leads to Gatepost.
    pub(super) ways: Vec<String>,
    /// How far the rollout is, where the rules were exported and the routing rule is there.
    pub(super) stage: Option<Stage>,
}

/// Looks for them.
pub(super) fn find(plan: &Plan, exports: &Exports) -> Ours {
    let all =
        |objects: &Option<Vec<Exported>>, kind: Kind, names: &[String], taken: Option<usize>| {
            let objects = objects.as_deref();
            objects.map_or_else(Found::default, |objects| {
                one(plan, kind, objects, names, taken)
            })
        };
    let mut outbound = all(&exports.outbound, Kind::Outbound, &[], None);
    let mut outbound_names = vec![Kind::Outbound.name().to_owned()];
    let connectors = exports.outbound.as_deref().unwrap_or_default();
    outbound_names.extend(outbound.of(connectors).into_iter().flat_map(aliases));
    let mut ways = outbound_names.clone();
    let to_us = connectors
        .iter()
        .filter(|other| is_enabled(other) && leads_to_us(plan, other));
    ways.extend(to_us.flat_map(aliases));
    let route = all(&exports.rules, Kind::Route, &outbound_names, None);
    let rule = route.of(exports.rules.as_deref().unwrap_or_default());
    let stage = rule.map(rules::stage);
    if stage.is_some_and(Stage::sends) {
        validated(plan, &mut outbound);
    }
    Ours {
        inbound: all(&exports.inbound, Kind::Inbound, &[], None),
        clean_up: all(&exports.rules, Kind::CleanUp, &[], route.place),
        stage,
        outbound,
        outbound_names,
        ways,
        route,
    }
}

/// Every name by which a rule may mean a connector.
fn aliases(connector: &Exported) -> impl Iterator<Item = String> + use<> {
    ["Name", "Identity", "Guid", "DistinguishedName", "Id"]
        .map(|alias| connector.text(alias))
        .into_iter()
        .filter(|alias| !alias.is_empty())
}

/// Whether Gatepost is a smart host of an outbound connector.
pub(super) fn leads_to_us(plan: &Plan, connector: &Exported) -> bool {
    let hosts = connector.get("SmartHosts").map(list).unwrap_or_default();
    hosts
        .iter()
        .any(|host| host_of(host) == plan.hostname.as_str())
}

/// A connector that is made while a rule sends mail is one that Exchange's own test mail has not come through.
fn validated(plan: &Plan, outbound: &mut Found) {
    for drift in &mut outbound.drift {
        if let (Turn::Make, Mend::Line(line)) = (drift.turn, &mut drift.mend) {
            line.push_str(&format!("; {}", confirm(plan)));
        }
    }
}

/// Whether an object does what only ours does.
fn is_alike(plan: &Plan, kind: Kind, object: &Exported, outbound: &[String]) -> bool {
    let Some(outward) = &plan.outward else {
        return kind == Kind::Inbound && fits(plan, object);
    };
    let holds = |property: &str, name: &str| object.text(property).eq_ignore_ascii_case(name);
    match kind {
        Kind::Inbound => fits(plan, object),
        Kind::Outbound => leads_to_us(plan, object) && !is_hybrid(object),
        Kind::Route => {
            let way = object.text("RouteMessageOutboundConnector");
            let to_us = outbound.iter().any(|name| name.eq_ignore_ascii_case(&way));
            to_us && holds("SetHeaderName", &outward.secret.name)
        }
        Kind::CleanUp => holds("RemoveHeader", &outward.looped.name),
    }
}

/// An inbound connector that says the certificate's name as ours would, or one of its names.
fn fits(plan: &Plan, object: &Exported) -> bool {
    let name = object.text("TlsSenderCertificateName");
    let own = &plan.certificate.connector_name;
    let is_name = !name.starts_with("*.") && plan.certificate.is_meant_by(&name);
    (is_name || name.eq_ignore_ascii_case(own)) && !is_hybrid(object)
}

/// Whether an object without our name and mark is taken for ours: it does the same, or it is a rule with our secret, wherever
/// that sends the mail today.
fn could_be_ours(plan: &Plan, kind: Kind, object: &Exported, outbound: &[String]) -> bool {
    let holds_secret = || {
        plan.outward.as_ref().is_some_and(|outward| {
            let secret = &outward.secret;
            let name = object.text("SetHeaderName");
            let value = object.text("SetHeaderValue");
            let mut known = std::iter::once(&secret.value).chain(&secret.previous);
            name.eq_ignore_ascii_case(&secret.name)
                && known.any(|known| known.matches(value.as_bytes()))
        })
    };
    is_alike(plan, kind, object, outbound) || kind == Kind::Route && holds_secret()
}

/// Whether an object goes by the name of another one of ours: a rule that does too much is not that one besides.
fn is_another(kind: Kind, object: &Exported) -> bool {
    let other = match kind {
        Kind::Inbound | Kind::Outbound => return false,
        Kind::Route => Kind::CleanUp,
        Kind::CleanUp => Kind::Route,
    };
    object.text("Name").eq_ignore_ascii_case(other.name())
}

/// Whether the set holds such an object.
fn is_wanted(plan: &Plan, kind: Kind) -> bool {
    kind == Kind::Inbound || plan.is_sent_to()
}

/// Looks for one of them; `taken` is the place of a rule that is another of ours.
fn one(
    plan: &Plan,
    kind: Kind,
    objects: &[Exported],
    outbound: &[String],
    taken: Option<usize>,
) -> Found {
    let places = |wanted: &dyn Fn(&Exported) -> bool| -> Vec<usize> {
        let all = objects.iter().enumerate();
        all.filter(|(place, object)| {
            Some(*place) != taken && !is_another(kind, object) && wanted(object)
        })
        .map(|(place, _)| place)
        .collect()
    };
    let of_kind = |object: &Exported| match kind {
        Kind::Inbound | Kind::Outbound => true,
        Kind::Route => object.is_set("RouteMessageOutboundConnector"),
        Kind::CleanUp => object.is_set("RemoveHeader"),
    };
    let named = places(&|object| object.text("Name").eq_ignore_ascii_case(kind.name()));
    let marked = places(&|object| is_marked(&object.text(kind.comment())) && of_kind(object));
    if !is_wanted(plan, kind) {
        return unwanted(kind, objects, named.first().or_else(|| marked.first()));
    }
    let names = |places: &[usize]| -> String {
        let names = places.iter().map(|&place| name_of(objects, place));
        let names: Vec<String> = names.map(|name| shown(name.as_bytes())).collect();
        names.join(", ")
    };
    match (named.as_slice(), marked.as_slice()) {
        ([own], marked) => {
            let copies: Vec<usize> = marked
                .iter()
                .copied()
                .filter(|place| place != own)
                .collect();
            // One that takes mail in the place of ours is told as such.
            let idle: Vec<usize> = copies
                .into_iter()
                .filter(|&place| {
                    let copy = objects.get(place);
                    copy.is_none_or(|copy| {
                        !is_enabled(copy) || !is_alike(plan, kind, copy, outbound)
                    }) || matches!(kind, Kind::Outbound | Kind::CleanUp)
                })
                .collect();
            let mut found = Found {
                place: Some(*own),
                ..Found::default()
            };
            if !idle.is_empty() {
                found.notes.push(Note {
                    object: kind.title().to_owned(),
                    text: format!("{} carries Gatepost's mark as well: a copy? The scripts look after {} only", names(&idle), kind.name()),
                });
            }
            found
        }
        ([first, ..], _) => Found {
            place: Some(*first),
            told: named.clone(),
            drift: vec![whole(
                kind,
                format!("{} objects with this name in the export", named.len()),
                "one".to_owned(),
                "which of them counts cannot be told; compared is the first",
                Mend::Step(
                    "Export each tenant into a folder of its own, then compare again.".to_owned(),
                ),
            )],
            ..Found::default()
        },
        ([], []) => {
            let alike = places(&|object| could_be_ours(plan, kind, object, outbound));
            match alike.as_slice() {
                [] => Found {
                    drift: vec![absent(kind)],
                    ..Found::default()
                },
                [own] => renamed(kind, objects, *own, true),
                several => Found {
                    told: alike.clone(),
                    drift: vec![whole(
                        kind,
                        format!(
                            "absent; {} do what it does, without Gatepost's mark",
                            names(several)
                        ),
                        format!("one, named {}", kind.name()),
                        "which of them counts cannot be told, and the scripts would make one more",
                        Mend::Step(format!(
                            "Decide which of them is Gatepost's, remove the others, and give it the name and the mark: {}",
                            rename(kind, "NAME", true)
                        )),
                    )],
                    ..Found::default()
                },
            }
        }
        ([], [own]) => renamed(kind, objects, *own, false),
        ([], several) => Found {
            told: several.to_vec(),
            drift: vec![whole(
                kind,
                format!("absent; {} carry Gatepost's mark", names(several)),
                format!("one, named {}", kind.name()),
                "which of them counts cannot be told, and the scripts would make one more",
                Mend::Line(rename(
                    kind,
                    &several
                        .first()
                        .map(|&place| name_of(objects, place))
                        .unwrap_or_default(),
                    false,
                )),
            )],
            ..Found::default()
        },
    }
}

fn name_of(objects: &[Exported], place: usize) -> String {
    let object = objects.get(place);
    object.map(|object| object.text("Name")).unwrap_or_default()
}

pub(super) fn is_enabled(object: &Exported) -> bool {
    object
        .get("Enabled")
        .is_none_or(|value| flag(value) != Some(false))
        && !object.text("State").eq_ignore_ascii_case("Disabled")
}

/// A drift of the object as a whole: which one it is.
fn whole(kind: Kind, is: String, should: String, breaks: &str, mend: Mend) -> Drift {
    Drift {
        object: kind.title().to_owned(),
        name: kind.name().to_owned(),
        property: String::new(),
        is,
        should,
        breaks: breaks.to_owned(),
        mend,
        turn: Turn::Rename,
    }
}

/// The line that gives it our name, and our mark where it has none.
fn rename(kind: Kind, name: &str, mark: bool) -> String {
    let mut line = format!(
        "{} -Identity {} -Name {}",
        kind.setter(),
        told::literal(name),
        literal(kind.name())
    );
    if mark {
        line.push_str(&format!(" -{} {}", kind.comment(), literal(MARK)));
    }
    line
}

fn renamed(kind: Kind, objects: &[Exported], place: usize, is_adopted: bool) -> Found {
    let name = name_of(objects, place);
    let (should, breaks) = if is_adopted {
        (
            format!("{}, with Gatepost's mark", kind.name()),
            "it does what Gatepost's does, and the scripts know neither its name nor its comment: they would make a second one beside it",
        )
    } else {
        (
            kind.name().to_owned(),
            "the scripts look for the name, find nothing, and would make a second one",
        )
    };
    let drift = Drift {
        name: shown(name.as_bytes()),
        property: "Name".to_owned(),
        ..whole(
            kind,
            shown(name.as_bytes()),
            should,
            breaks,
            Mend::Line(rename(kind, &name, is_adopted)),
        )
    };
    Found {
        place: Some(place),
        is_adopted,
        drift: vec![drift],
        ..Found::default()
    }
}

fn absent(kind: Kind) -> Drift {
    let drift = whole(
        kind,
        "absent".to_owned(),
        "there".to_owned(),
        match kind {
            Kind::Inbound => {
                "Exchange attributes nothing that Gatepost delivers: 550 5.7.64 TenantAttribution, 5.7.68 with RejectDirectSend, or mail that arrives as external"
            }
            Kind::Outbound => "no mail of the tenant reaches Gatepost",
            Kind::Route => "Exchange sends nothing to Gatepost",
            Kind::CleanUp => {
                "the loop header, with its value, stays on mail that leaves the tenant"
            }
        },
        Mend::Line(".\\Install-GatepostConnector.ps1".to_owned()),
    );
    Drift {
        turn: Turn::Make,
        ..drift
    }
}

/// An object of ours that the set does not hold: mail that it sends to us finds no listener.
fn unwanted(kind: Kind, objects: &[Exported], place: Option<&usize>) -> Found {
    let Some((&place, object)) = place.and_then(|place| Some((place, objects.get(*place)?))) else {
        return Found::default();
    };
    let name = object.text("Name");
    let mut found = Found {
        place: Some(place),
        ..Found::default()
    };
    if kind == Kind::Route && is_enabled(object) && rules::is_enforced(object) {
        found.drift.push(Drift {
            name: shown(name.as_bytes()),
            turn: Turn::Today,
            ..whole(
                kind,
                "enabled".to_owned(),
                "disabled, or a [[listener]] with service = \"connector\" in the configuration, and a [[route]] from there"
                    .to_owned(),
                "Exchange sends mail that Gatepost does not take: without a listener it waits in Exchange's queue (450 4.4.316), then bounces; without a route it is refused, 550 5.7.1",
                Mend::Line(format!(
                    "Disable-TransportRule -Identity {}",
                    told::literal(&name)
                )),
            )
        });
    } else {
        found.notes.push(Note {
            object: format!("{} {}", kind.title(), shown(name.as_bytes())),
            text: match kind {
                Kind::CleanUp => format!("is Gatepost's, and not part of the set any more: it takes the loop header off what Exchange sent here before, and does no harm. When nothing of that is queued: Remove-TransportRule -Identity {}", told::literal(&name)),
                Kind::Inbound | Kind::Outbound | Kind::Route => "is Gatepost's, and not part of the set any more: Remove-GatepostConnector.ps1 -KeepInboundConnector takes it away".to_owned(),
            },
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::diff::{Report, diff};
    use super::super::fixtures::{KINDS, Tenancy, inward, plan};
    use super::*;
    use serde_json::{Value, json};

    fn compared(tenancy: &Tenancy) -> Report {
        diff(&plan(), &tenancy.exports())
    }

    fn push(tenancy: &mut Tenancy, kind: Kind, object: Value) {
        match kind {
            Kind::Inbound => tenancy.inbound.push(object),
            Kind::Outbound => tenancy.outbound.push(object),
            Kind::Route | Kind::CleanUp => tenancy.rules.push(object),
        }
    }

    #[test]
    fn one_that_does_the_same_under_another_name_is_one_finding_with_the_line_that_takes_it_over() {
        for kind in KINDS {
            let mut tenancy = Tenancy::of(&plan());
            let own = tenancy.object(kind);
            own["Name"] = json!("Smart host");
            own[kind.comment()] = json!("made by hand");
            if kind == Kind::Outbound {
                tenancy.rules[0]["RouteMessageOutboundConnector"] = json!("Smart host");
            }
            let report = compared(&tenancy);
            let [drift] = report.drift.as_slice() else {
                panic!("{:#?}", report.drift);
            };
            assert_eq!(
                (drift.property.as_str(), drift.is.as_str()),
                ("Name", "Smart host")
            );
            let line = format!(
                "{} -Identity 'Smart host' -Name '{}' -{} '{MARK}'",
                kind.setter(),
                kind.name(),
                kind.comment()
            );
            assert_eq!(drift.mend, Mend::Line(line));
            // Its properties are compared as those of ours.
            let stray = match kind {
                Kind::Inbound => ("RequireTls", json!(false)),
                Kind::Outbound => ("IsTransportRuleScoped", json!(false)),
                Kind::Route | Kind::CleanUp => ("SetAuditSeverity", json!("High")),
            };
            tenancy.object(kind)[stray.0] = stray.1;
            let properties: Vec<String> = compared(&tenancy)
                .drift
                .into_iter()
                .map(|drift| drift.property)
                .collect();
            assert_eq!(properties, [stray.0, "Name"]);
        }
    }

    #[test]
    fn several_that_could_be_ours_are_one_finding() {
        for (kind, comment) in KINDS
            .into_iter()
            .flat_map(|kind| [(kind, MARK), (kind, "by hand")])
        {
            let mut tenancy = Tenancy::of(&plan());
            let own = tenancy.object(kind);
            own["Name"] = json!("One");
            own[kind.comment()] = json!(comment);
            let mut other = own.clone();
            other["Name"] = json!("Two");
            other["Priority"] = json!(7);
            push(&mut tenancy, kind, other);
            if kind == Kind::Outbound {
                tenancy.rules[0]["RouteMessageOutboundConnector"] = json!("To Gatepost");
            }
            let report = compared(&tenancy);
            let [drift] = report.drift.as_slice() else {
                panic!("{kind:?} {comment}: {:#?}", report.drift);
            };
            assert!(drift.is.starts_with("absent; One, Two "), "{drift:?}");
        }
    }

    #[test]
    fn a_copy_that_takes_mail_is_told_once() {
        for kind in [Kind::Inbound, Kind::Route] {
            let mut tenancy = Tenancy::of(&plan());
            let mut copy = tenancy.object(kind).clone();
            copy["Name"] = json!("A copy");
            copy["Priority"] = json!(7);
            push(&mut tenancy, kind, copy);
            let report = compared(&tenancy);
            let told = report
                .drift
                .iter()
                .filter(|drift| drift.name == "A copy")
                .count()
                + report
                    .notes
                    .iter()
                    .filter(|note| note.text.contains("A copy"))
                    .count();
            assert_eq!(told, 1, "{kind:?} {report:#?}");
        }
    }

    #[test]
    fn applications_alone_need_the_inbound_connector_and_nothing_else() {
        let plan = inward();
        let report = diff(&plan, &Tenancy::of(&plan).exports());
        assert_eq!((report.drift.as_slice(), report.stage), (&[][..], None));
        let told: Vec<&str> = report.notes.iter().map(|note| note.text.as_str()).collect();
        assert!(
            told.len() == 1 && told[0].starts_with("not part of the set"),
            "{told:?}"
        );
        let mut tenancy = Tenancy::of(&plan);
        tenancy.inbound.clear();
        assert_eq!(diff(&plan, &tenancy.exports()).drift.len(), 1);
        // What an earlier set has left sends mail to nobody.
        let mut tenancy = Tenancy::of(&super::super::fixtures::plan());
        tenancy.domains.pop();
        let mut tenancy = Tenancy {
            domains: Tenancy::of(&plan).domains,
            ..tenancy
        };
        let report = diff(&plan, &tenancy.exports());
        let [drift] = report.drift.as_slice() else {
            panic!("{:#?}", report.drift);
        };
        assert_eq!(
            drift.mend,
            Mend::Line("Disable-TransportRule -Identity 'Route to Gatepost'".to_owned())
        );
        tenancy.rules[0]["State"] = json!("Disabled");
        let report = diff(&plan, &tenancy.exports());
        assert_eq!(report.drift, []);
        let left = report
            .notes
            .iter()
            .filter(|note| note.text.contains("not part of the set any more"));
        let left: Vec<bool> = left
            .map(|note| note.text.contains("Remove-GatepostConnector.ps1"))
            .collect();
        // The switch keeps the clean-up rule.
        assert_eq!(left, [true, true, false]);
    }
}
