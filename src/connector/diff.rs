//! What do the tenant's objects differ in from the plan, what does it break, and which line mends it?

use super::desired::{Property, Want, desired, is_marked, optional};
use super::export::{Exported, flag, list, text};
use super::literal::{literal, literals};
use super::objects::Kind;
use super::plan::{Header, Plan};
use super::{MARK, SECRETS_FILE, rules, tenancy};
use crate::mail::{Secret, shown};
use serde::Serialize;
use serde_json::Value;

/// What was exported; what was not is not compared.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    /// `Get-InboundConnector`.
    pub inbound: Option<Vec<Exported>>,
    /// `Get-OutboundConnector -IncludeTestModeConnectors $true`.
    pub outbound: Option<Vec<Exported>>,
    /// `Get-TransportRule`.
    pub rules: Option<Vec<Exported>>,
    /// `Get-ArcConfig`.
    pub arc: Option<Vec<Exported>>,
    /// `Get-AcceptedDomain`.
    pub domains: Option<Vec<Exported>>,
    /// `Get-OrganizationConfig`.
    pub organization: Option<Vec<Exported>>,
}

/// What mends a drift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mend {
    /// One line of PowerShell, in a session of the tenant and the rendered folder.
    Line(String),
    /// Something that no cmdlet of Exchange's can do.
    Step(String),
}

/// A difference that breaks something. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// What kind of object.
    pub object: String,
    /// Its name.
    pub name: String,
    /// Which property; empty for the object as a whole.
    pub property: String,
    /// As it is, fit for a terminal.
    pub is: String,
    /// As it must be.
    pub should: String,
    /// Which reply or symptom comes of it.
    pub breaks: String,
    /// What mends it.
    pub mend: Mend,
}

/// Something worth knowing that is no drift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What it is about.
    pub object: String,
    /// What it is.
    pub text: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of the objects.
    pub drift: Vec<Drift>,
    /// In the order of the objects.
    pub notes: Vec<Note>,
    /// Which exports were looked at.
    pub compared: Vec<&'static str>,
    /// How far the rollout is, where the rules were exported and the routing rule is there.
    pub stage: Option<&'static str>,
}

/// Compares what was exported with the plan.
#[must_use]
pub fn diff(plan: &Plan, exports: &Exports) -> Report {
    let mut report = Report::default();
    let outbound = exports.outbound.as_deref().unwrap_or_default();
    let rules = exports.rules.as_deref();
    let stage = rules.and_then(rules::stage);
    report.stage = stage.map(rules::Stage::name);
    if let Some(objects) = &exports.inbound {
        report.compared.push("InboundConnector");
        if let Some(own) = object(&mut report, Kind::Inbound, plan, objects, outbound) {
            tenancy::other_inbound(&mut report, plan, objects, own);
        } else {
            tenancy::other_inbound(&mut report, plan, objects, objects.len());
        }
    }
    if let Some(objects) = &exports.outbound {
        report.compared.push("OutboundConnector");
        if let Some(own) = object(&mut report, Kind::Outbound, plan, objects, outbound)
            && let Some(own) = objects.get(own)
        {
            tenancy::validation(&mut report, plan, own, stage);
        }
        tenancy::hybrid(&mut report, "outbound connector", objects);
    }
    if let Some(objects) = rules {
        report.compared.push("TransportRule");
        let route = object(&mut report, Kind::Route, plan, objects, outbound);
        let clean_up = object(&mut report, Kind::CleanUp, plan, objects, outbound);
        rules::order(&mut report, plan, objects, route, clean_up);
        if let Some(stage) = stage {
            report.note("transport rule", stage.text());
        }
    }
    if let Some(objects) = &exports.domains {
        report.compared.push("AcceptedDomain");
        tenancy::domains(&mut report, plan, objects);
    }
    if let Some(objects) = &exports.arc {
        report.compared.push("ArcConfig");
        tenancy::arc(&mut report, objects);
    }
    if let Some(objects) = &exports.organization {
        report.compared.push("OrganizationConfig");
        tenancy::organization(&mut report, objects);
    }
    report.hide(plan);
    report
}

impl Report {
    /// A secret that somebody has put where none belongs is not repeated.
    fn hide(&mut self, plan: &Plan) {
        let headers = [&plan.secret, &plan.looped];
        let values = headers
            .into_iter()
            .flat_map(|header| std::iter::once(&header.value).chain(&header.previous));
        let values: Vec<&str> = values
            .map(Secret::expose_str)
            .filter(|value| !value.is_empty())
            .collect();
        let texts = self
            .drift
            .iter_mut()
            .flat_map(|drift| {
                let (Mend::Line(mend) | Mend::Step(mend)) = &mut drift.mend;
                [&mut drift.name, &mut drift.is, mend]
            })
            .chain(
                self.notes
                    .iter_mut()
                    .flat_map(|note| [&mut note.object, &mut note.text]),
            );
        for text in texts {
            for value in &values {
                if text.contains(value) {
                    *text = text.replace(value, "(secret)");
                }
            }
        }
    }

    pub(super) fn note(&mut self, object: &str, text: impl Into<String>) {
        self.notes.push(Note {
            object: object.to_owned(),
            text: text.into(),
        });
    }
}

/// Text of the tenant's, fit for a terminal.
pub(super) fn seen(text: &str) -> String {
    match text {
        "" => "not set".to_owned(),
        text => shown(text.as_bytes()),
    }
}

/// Finds an object of ours and compares it; its place among `objects`.
fn object(
    report: &mut Report,
    kind: Kind,
    plan: &Plan,
    objects: &[Exported],
    outbound: &[Exported],
) -> Option<usize> {
    let place = find(report, kind, objects)?;
    let own = objects.get(place)?;
    let name = own.text("Name");
    let properties = desired(kind, plan);
    for property in &properties {
        let Some(value) = own.get(property.name) else {
            report.note(
                &title(kind, &name),
                format!(
                    "{} is not in the export, and was not compared",
                    property.name
                ),
            );
            continue;
        };
        match judge(&property.want, value, outbound) {
            Judged::Fits => {}
            Judged::Note(what) => {
                report.note(&title(kind, &name), format!("{}: {what}", property.name));
            }
            Judged::Differs(is) => report.drift.push(Drift {
                object: kind.title().to_owned(),
                name: shown(name.as_bytes()),
                property: property.name.to_owned(),
                is,
                should: should(&property.want),
                breaks: property.breaks.to_owned(),
                mend: Mend::Line(mend(kind, &name, property, &properties)),
            }),
        }
    }
    for (property, text) in optional(kind) {
        if own.is_set(property) {
            let value = own.get(property).map(|value| list(value).join(", "));
            let value = seen(&value.unwrap_or_default());
            report.note(
                &title(kind, &name),
                format!("{property} is {value}: {text}"),
            );
        }
    }
    Some(place)
}

fn title(kind: Kind, name: &str) -> String {
    format!("{} {}", kind.title(), shown(name.as_bytes()))
}

/// The object with our name; else the one that carries our mark.
fn find(report: &mut Report, kind: Kind, objects: &[Exported]) -> Option<usize> {
    let places = |wanted: &dyn Fn(&Exported) -> bool| -> Vec<usize> {
        let all = objects.iter().enumerate();
        all.filter(|(_, object)| wanted(object))
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
    let whole = |name: &str, is: String, should: String, breaks: &str, mend: Mend| Drift {
        object: kind.title().to_owned(),
        name: name.to_owned(),
        property: String::new(),
        is,
        should,
        breaks: breaks.to_owned(),
        mend,
    };
    let names = |places: &[usize]| -> String {
        let names = places.iter().filter_map(|&place| objects.get(place));
        let names: Vec<String> = names
            .map(|object| shown(object.text("Name").as_bytes()))
            .collect();
        names.join(", ")
    };
    match (named.as_slice(), marked.as_slice()) {
        ([own], marked) => {
            let others: Vec<usize> = marked
                .iter()
                .copied()
                .filter(|place| place != own)
                .collect();
            if !others.is_empty() {
                report.note(
                    kind.title(),
                    format!("{} carries Gatepost's mark as well: a copy? The scripts look after {} only", names(&others), kind.name()),
                );
            }
            Some(*own)
        }
        ([first, ..], _) => {
            report.drift.push(whole(
                kind.name(),
                format!("{} objects with this name in the export", named.len()),
                "one".to_owned(),
                "which of them counts cannot be told; compared is the first",
                Mend::Step(
                    "Export each tenant into a folder of its own, then compare again.".to_owned(),
                ),
            ));
            Some(*first)
        }
        ([], [own]) => {
            let name = objects
                .get(*own)
                .map(|object| object.text("Name"))
                .unwrap_or_default();
            let mut drift = whole(
                &shown(name.as_bytes()),
                shown(name.as_bytes()),
                kind.name().to_owned(),
                "the scripts look for the name, find nothing, and would make a second one",
                Mend::Line(format!(
                    "{} -Identity {} -Name {}",
                    kind.setter(),
                    literal(&name),
                    literal(kind.name())
                )),
            );
            drift.property = "Name".to_owned();
            report.drift.push(drift);
            Some(*own)
        }
        ([], []) => {
            report.drift.push(whole(
                kind.name(),
                "absent".to_owned(),
                "there".to_owned(),
                match kind {
                    Kind::Inbound => "Exchange attributes nothing that Gatepost delivers: 550 5.7.64 TenantAttribution, 5.7.68 with RejectDirectSend, or mail that arrives as external",
                    Kind::Outbound => "no mail of the tenant reaches Gatepost",
                    Kind::Route => "Exchange sends nothing to Gatepost",
                    Kind::CleanUp => "the loop header, with its value, stays on mail that leaves the tenant",
                },
                Mend::Line(".\\Install-GatepostConnector.ps1".to_owned()),
            ));
            None
        }
        ([], several) => {
            report.drift.push(whole(
                kind.name(),
                format!("absent; {} carry Gatepost's mark", names(several)),
                format!("one, named {}", kind.name()),
                "which of them counts cannot be told, and the scripts would make one more",
                Mend::Line(format!(
                    "{} -Identity {} -Name {}",
                    kind.setter(),
                    literal(
                        &several
                            .first()
                            .and_then(|&place| objects.get(place))
                            .map(|object| object.text("Name"))
                            .unwrap_or_default()
                    ),
                    literal(kind.name())
                )),
            ));
            None
        }
    }
}

/// What came of a comparison.
enum Judged {
    Fits,
    Note(String),
    Differs(String),
}

/// Whether a word of an enumeration was written as its number, as `ConvertTo-Json` does where an object was not serialised on
/// its way.
pub(super) fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok()
}

fn judge(want: &Want, value: &Value, outbound: &[Exported]) -> Judged {
    let is = text(value);
    let differs = || Judged::Differs(seen(&is));
    let same = |other: &str| is.eq_ignore_ascii_case(other);
    let fits = match want {
        Want::Mark => is_marked(&is),
        Want::Flag(wanted) => flag(value) == Some(*wanted),
        Want::Word(_) if is_number(&is) => {
            return Judged::Note(
                "is written as a number, and which word that is stands nowhere: export it by Export-GatepostState.ps1".to_owned(),
            );
        }
        Want::Word(word) => same(word),
        Want::Text(wanted, other) => {
            if let Some(other) = other
                && same(other)
            {
                return Judged::Note(format!("is {other}, which covers {wanted}: well, too"));
            }
            same(wanted)
        }
        Want::Hosts(wanted) => {
            let mut own: Vec<String> = list(value).iter().map(|host| host_of(host)).collect();
            own.sort();
            own.dedup();
            let mut wanted: Vec<String> = wanted.iter().map(|host| host_of(host)).collect();
            wanted.sort();
            own == wanted
        }
        Want::Unset => {
            let own = list(value);
            if own.is_empty() {
                return Judged::Fits;
            }
            return Judged::Differs(seen(&own.join(", ")));
        }
        Want::OutboundConnector => {
            let named = |object: &&Exported| {
                object
                    .text("Name")
                    .eq_ignore_ascii_case(Kind::Outbound.name())
            };
            let marked = |object: &&Exported| is_marked(&object.text(Kind::Outbound.comment()));
            let own = outbound.iter().find(named);
            let own = own.or_else(|| outbound.iter().find(marked));
            let aliases = ["Name", "Identity", "Guid", "DistinguishedName", "Id"];
            same(Kind::Outbound.name())
                || own.is_some_and(|own| {
                    let mut known = aliases.iter().map(|alias| own.text(alias));
                    known.any(|alias| !alias.is_empty() && same(&alias))
                })
        }
        Want::Secret(header) => return judge_secret(header, &is),
        Want::Words(header) => return judge_words(header, value, &is),
    };
    if fits { Judged::Fits } else { differs() }
}

/// A host name or address space without its type and cost: `smtp:*;1` is `*`.
fn host_of(written: &str) -> String {
    let lower = written.to_ascii_lowercase();
    let bare = lower.strip_prefix("smtp:").unwrap_or(&lower);
    let bare = bare.split(';').next().unwrap_or(bare);
    bare.trim_end_matches('.').to_owned()
}

fn judge_secret(header: &Header, is: &str) -> Judged {
    if header.value.matches(is.as_bytes()) {
        Judged::Fits
    } else if header
        .previous
        .iter()
        .any(|previous| previous.matches(is.as_bytes()))
    {
        Judged::Note("is still a previous value, which Gatepost takes; Update-GatepostSecret.ps1 -Stage Both sets the present one".to_owned())
    } else if is.is_empty() {
        Judged::Differs("not set".to_owned())
    } else {
        Judged::Differs("differs".to_owned())
    }
}

fn judge_words(header: &Header, value: &Value, whole: &str) -> Judged {
    let known = |word: &str| {
        let previous = header
            .previous
            .iter()
            .any(|previous| previous.matches(word.as_bytes()));
        let present = header.value.matches(word.as_bytes());
        (present, previous)
    };
    // A list of one that -Depth made a text may hold blanks.
    let words = if known(whole) == (false, false) {
        list(value)
    } else {
        vec![whole.to_owned()]
    };
    let judged: Vec<(bool, bool)> = words.iter().map(|word| known(word)).collect();
    let present = judged.iter().any(|(present, _)| *present);
    let previous = judged.iter().filter(|(_, previous)| *previous).count();
    let outdated = judged
        .iter()
        .filter(|known| **known == (false, false))
        .count();
    let values = |count: usize, what: &str| match count {
        1 => format!("one {what} value"),
        count => format!("{count} {what} values"),
    };
    match (present, previous, outdated) {
        (true, 0, 0) if !header.previous.is_empty() => Judged::Note(
            "holds the present value only, not `previous` of the configuration: Update-GatepostSecret.ps1 -Stage Both adds it; after -Stage NewOnly it can go from there".to_owned(),
        ),
        (true, _, 0) => Judged::Fits,
        (true, _, outdated) => Judged::Differs(format!(
            "the present value, and {}",
            values(outdated, "outdated")
        )),
        (false, 0, 0) => Judged::Differs("not set".to_owned()),
        (false, previous, 0) => Judged::Differs(format!(
            "{}, not the present one",
            values(previous, "previous")
        )),
        (false, 0, outdated) => Judged::Differs(format!(
            "{}, not the present one",
            values(outdated, "outdated")
        )),
        (false, _, _) => {
            Judged::Differs("previous and outdated values, not the present one".to_owned())
        }
    }
}

/// What a property must be, in words; never a secret.
fn should(want: &Want) -> String {
    match want {
        Want::Mark => format!("begins with \"{MARK}\""),
        Want::Flag(true) => "True".to_owned(),
        Want::Flag(false) => "False".to_owned(),
        Want::Word(word) => (*word).to_owned(),
        Want::Text(text, None) => text.clone(),
        Want::Text(text, Some(other)) => format!("{text} or {other}"),
        Want::Hosts(hosts) => hosts.join(", "),
        Want::Unset => "not set".to_owned(),
        Want::OutboundConnector => Kind::Outbound.name().to_owned(),
        Want::Secret(_) => format!("SecretHeaderValue of {SECRETS_FILE}"),
        Want::Words(header) if header.previous.is_empty() => {
            format!("LoopHeaderValue of {SECRETS_FILE}")
        }
        Want::Words(_) => format!("LoopHeaderValue and LoopHeaderPrevious of {SECRETS_FILE}"),
    }
}

/// The line that sets a property, with the others that belong into the same call.
fn mend(kind: Kind, name: &str, property: &Property, all: &[Property]) -> String {
    if let ("State", Want::Word(_)) = (property.name, &property.want) {
        return format!("Enable-TransportRule -Identity {}", literal(name));
    }
    let together = std::iter::once(property.name).chain(property.with.iter().copied());
    let together: Vec<&Property> = all
        .iter()
        .filter(|other| together.clone().any(|name| name == other.name))
        .collect();
    let arguments: String = together
        .iter()
        .map(|property| format!(" -{} {}", property.name, argument(&property.want)))
        .collect();
    let line = format!("{} -Identity {}{arguments}", kind.setter(), literal(name));
    if together
        .iter()
        .any(|property| matches!(property.want, Want::Secret(_) | Want::Words(_)))
    {
        format!(
            "$s = Get-Content -Raw -Path {} | ConvertFrom-Json; {line}",
            literal(&format!(".\\{SECRETS_FILE}"))
        )
    } else {
        line
    }
}

fn argument(want: &Want) -> String {
    match want {
        Want::Mark => literal(MARK),
        Want::Flag(true) => "$true".to_owned(),
        Want::Flag(false) => "$false".to_owned(),
        Want::Word(word) => (*word).to_owned(),
        Want::Text(text, _) => literal(text),
        Want::Hosts(hosts) => literals(hosts),
        Want::Unset => "$null".to_owned(),
        Want::OutboundConnector => literal(Kind::Outbound.name()),
        Want::Secret(_) => "$s.SecretHeaderValue".to_owned(),
        Want::Words(header) if header.previous.is_empty() => "$s.LoopHeaderValue".to_owned(),
        Want::Words(_) => "(@($s.LoopHeaderValue) + @($s.LoopHeaderPrevious))".to_owned(),
    }
}
