//! What do the tenant's objects differ in from the plan, what does it break, and which line mends it?

use super::desired::{Want, desired, optional};
use super::export::{Exported, list};
use super::found::{self, Found};
use super::judge::{Around, Judged, judge, mend, should};
use super::objects::Kind;
use super::plan::Plan;
use super::rules;
use super::tenancy::{self, TenantDomains};
use super::told::{Hidden, RUN, shown, value_of};
use super::turn::Turn;
use crate::mail::Domain;
use serde::Serialize;
use time::OffsetDateTime;

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
    /// When it is compared; without, nothing is told to be over.
    pub now: Option<OffsetDateTime>,
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
    /// When that runs.
    #[serde(skip)]
    pub(super) turn: Turn,
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
    /// In the order in which the lines run, from the first to the last; within it, in that of the objects.
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
    let domains = exports.domains.as_deref().map(TenantDomains::read);
    let ours = found::find(plan, exports);
    report.stage = ours.stage.map(rules::Stage::name);
    // An accepted domain of which the connector's name has told.
    let mut told = None;
    let around = Around {
        name: "",
        outbound: &ours.outbound_names,
        domains: domains.as_ref(),
    };
    if let Some(objects) = &exports.inbound {
        report.compared.push("InboundConnector");
        told = object(
            &mut report,
            Kind::Inbound,
            plan,
            objects,
            &ours.inbound,
            &around,
        );
        tenancy::other_inbound(&mut report, plan, objects, &ours.inbound);
    }
    if let Some(objects) = &exports.outbound {
        report.compared.push("OutboundConnector");
        object(
            &mut report,
            Kind::Outbound,
            plan,
            objects,
            &ours.outbound,
            &around,
        );
        if let Some(own) = ours.outbound.of(objects)
            && plan.is_sent_to()
        {
            tenancy::validation(&mut report, plan, own, ours.stage);
        }
        tenancy::other_outbound(&mut report, plan, objects, &ours.outbound);
    }
    if let Some(objects) = &exports.rules {
        report.compared.push("TransportRule");
        object(
            &mut report,
            Kind::Route,
            plan,
            objects,
            &ours.route,
            &around,
        );
        object(
            &mut report,
            Kind::CleanUp,
            plan,
            objects,
            &ours.clean_up,
            &around,
        );
        rules::order(&mut report, plan, objects, &ours, exports.now);
        rules::rollout(&mut report, plan, objects, &ours, exports.now);
    }
    if let (Some(objects), Some(domains)) = (&exports.domains, &domains) {
        report.compared.push("AcceptedDomain");
        tenancy::domains(&mut report, plan, objects, domains, told.as_ref());
    }
    if let Some(objects) = &exports.arc {
        report.compared.push("ArcConfig");
        tenancy::arc(&mut report, objects);
    }
    if let Some(objects) = &exports.organization {
        report.compared.push("OrganizationConfig");
        tenancy::organization(&mut report, objects);
    }
    if !plan.is_sent_to() {
        report.note(
            "outbound connector, transport rules",
            "not part of the set: the configuration has no listener with service = \"connector\", or no route that takes the tenant's mail from there, so that Exchange sends nothing to Gatepost",
        );
    }
    report.drift.sort_by_key(|drift| drift.turn);
    report.hide(plan);
    report
}

impl Report {
    /// A secret that somebody has put where none belongs is not repeated, nor a part of it, as it is or as it is shown. A value
    /// so short that it may be a word of PowerShell (`true`) stays in the lines, which would not run without it.
    fn hide(&mut self, plan: &Plan) {
        let hidden = Hidden::new(&plan.secrets);
        let clean = |text: &mut String, least: usize| *text = hidden.finish(text, least);
        for drift in &mut self.drift {
            let (Mend::Line(mend) | Mend::Step(mend)) = &mut drift.mend;
            clean(mend, RUN);
            for text in [&mut drift.name, &mut drift.property, &mut drift.is] {
                clean(text, 1);
            }
            for text in [&mut drift.should, &mut drift.breaks] {
                clean(text, RUN);
            }
        }
        for note in &mut self.notes {
            clean(&mut note.object, 1);
            clean(&mut note.text, 1);
        }
    }

    /// Adds something worth knowing.
    pub fn note(&mut self, object: &str, text: impl Into<String>) {
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

/// Tells how an object of ours was found, and compares it. The accepted domain that the tenant has and the configuration
/// lacks, where its name on the connector told so.
fn object(
    report: &mut Report,
    kind: Kind,
    plan: &Plan,
    objects: &[Exported],
    found: &Found,
    around: &Around<'_>,
) -> Option<Domain> {
    report.drift.extend(found.drift.iter().cloned());
    report.notes.extend(found.notes.iter().cloned());
    let own = found.of(objects)?;
    let name = own.text("Name");
    let properties = desired(kind, plan);
    let around = Around {
        name: &name,
        ..*around
    };
    let mut told = None;
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
        // The line that renames it marks it as well.
        if matches!(property.want, Want::Mark) && found.is_adopted {
            continue;
        }
        let drift = |is: String, should: String, breaks: String, mend: Mend| Drift {
            object: kind.title().to_owned(),
            name: shown(name.as_bytes()),
            property: property.name.to_owned(),
            is,
            should,
            breaks,
            mend,
            turn: match property.want {
                Want::OutboundConnector => Turn::Named,
                _ => Turn::Today,
            },
        };
        // By then the rule has our name, as the connector has that it names.
        let called = match property.want {
            Want::OutboundConnector => kind.name(),
            _ => name.as_str(),
        };
        let line = || {
            let mut line = mend(kind, called, property, &properties);
            // Another way was proven than mail takes from then on.
            if tenancy::PROVEN.contains(&property.name) && own.is_set("IsValidated") {
                line.push_str(" -IsValidated $false");
            }
            Mend::Line(line)
        };
        match judge(&property.want, value, &around) {
            Judged::Fits => {}
            Judged::Note(what) => {
                report.note(&title(kind, &name), format!("{}: {what}", property.name));
            }
            Judged::Differs(is) => report.drift.push(drift(
                is,
                should(&property.want),
                property.breaks.to_owned(),
                line(),
            )),
            Judged::Said(is, said) => {
                told = told.or(said.accepted);
                let mend = said.mend.unwrap_or_else(line);
                report.drift.push(drift(is, said.should, said.breaks, mend));
            }
        }
    }
    for (property, text) in optional(kind) {
        if own.is_set(property) && !properties.is_empty() {
            let value = own.get(property).map(|value| match *property {
                // "22.5 MB (23,592,960 bytes)" is no list.
                "ExceptIfMessageSizeOver" => super::export::text(value),
                _ => list(value).join(", "),
            });
            let value = value_of(property, &value.unwrap_or_default());
            report.note(
                &title(kind, &name),
                format!("{property} is {value}: {text}"),
            );
        }
    }
    told
}

fn title(kind: Kind, name: &str) -> String {
    format!("{} {}", kind.title(), shown(name.as_bytes()))
}
