//! What does a rule of ours hold that no rendering puts there, and what does that do to the mail?
//!
//! A condition or an exception of the routing rule decides whose mail it takes: the administrator's choice, and a note. An action
//! beside ours, and a condition that no mail can meet, break or widen the way and are drift. On the clean-up rule everything
//! is, for it must take the loop value off all mail that comes back, and do nothing else.

use super::diff::{Drift, Mend, Report, seen};
use super::export::{Exported, text};
use super::objects::Kind;
use super::told::{literal, shown, whole};
use super::turn::Turn;
use serde_json::Value;

/// Beginnings of the names of conditions and exceptions.
const CONDITIONS: [&str; 19] = [
    "ADComparison",
    "AnyOf",
    "Attachment",
    "BetweenMemberOf",
    "ContentCharacterSet",
    "ExceptIf",
    "From",
    "Has",
    "Header",
    "Manager",
    "MessageContains",
    "MessageSize",
    "MessageType",
    "Recipient",
    "SCLOver",
    "Sender",
    "Sent",
    "Subject",
    "With",
];

/// What an action does to the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It is refused, held, or goes another way.
    Lost,
    /// Others get it, or are told of it.
    Copied,
    /// Its octets are not those that were sent.
    Changed,
    /// Nothing that matters on its way to Gatepost.
    None,
}

/// Actions that no rendering sets, also those that the reference keeps for Microsoft. A test holds the list against the table
/// of cmdlets.
const ACTIONS: [(&str, Effect); 32] = [
    ("AddManagerAsRecipientType", Effect::Copied),
    ("AddToRecipients", Effect::Copied),
    ("ApplyClassification", Effect::Changed),
    ("ApplyHtmlDisclaimerText", Effect::Changed),
    ("ApplyOME", Effect::Changed),
    (
        "ApplyRightsProtectionCustomizationTemplate",
        Effect::Changed,
    ),
    ("ApplyRightsProtectionTemplate", Effect::Changed),
    ("BlindCopyTo", Effect::Copied),
    ("CopyTo", Effect::Copied),
    ("DeleteMessage", Effect::Lost),
    ("Disconnect", Effect::Lost),
    ("GenerateIncidentReport", Effect::Copied),
    ("GenerateNotification", Effect::Copied),
    ("LogEventText", Effect::None),
    ("ModerateMessageByManager", Effect::Lost),
    ("ModerateMessageByUser", Effect::Lost),
    ("NotifySender", Effect::Lost),
    ("PrependSubject", Effect::Changed),
    ("Quarantine", Effect::Lost),
    ("RedirectMessageTo", Effect::Lost),
    ("RejectMessageEnhancedStatusCode", Effect::Lost),
    ("RejectMessageReasonText", Effect::Lost),
    ("RemoveHeader", Effect::Changed),
    ("RemoveOME", Effect::Changed),
    ("RemoveOMEv2", Effect::Changed),
    ("RemoveRMSAttachmentEncryption", Effect::Changed),
    ("RouteMessageOutboundConnector", Effect::Lost),
    ("RouteMessageOutboundRequireTls", Effect::None),
    ("SetHeaderName", Effect::Changed),
    ("SetSCL", Effect::Changed),
    ("SmtpRejectMessageRejectStatusCode", Effect::Lost),
    ("SmtpRejectMessageRejectText", Effect::Lost),
];

/// What Exchange takes in one call, or what means nothing alone: told once, by the first that is set, and taken off together.
const TOGETHER: [&[&str]; 14] = [
    &["ADComparisonAttribute", "ADComparisonOperator"],
    &[
        "ApplyHtmlDisclaimerText",
        "ApplyHtmlDisclaimerLocation",
        "ApplyHtmlDisclaimerFallbackAction",
    ],
    &["BetweenMemberOf1", "BetweenMemberOf2"],
    &[
        "ExceptIfADComparisonAttribute",
        "ExceptIfADComparisonOperator",
    ],
    &["ExceptIfBetweenMemberOf1", "ExceptIfBetweenMemberOf2"],
    &[
        "ExceptIfHeaderContainsMessageHeader",
        "ExceptIfHeaderContainsWords",
    ],
    &[
        "ExceptIfHeaderMatchesMessageHeader",
        "ExceptIfHeaderMatchesPatterns",
    ],
    &[
        "ExceptIfManagerAddresses",
        "ExceptIfManagerForEvaluatedUser",
    ],
    &["GenerateIncidentReport", "IncidentReportContent"],
    &["HeaderContainsMessageHeader", "HeaderContainsWords"],
    &["HeaderMatchesMessageHeader", "HeaderMatchesPatterns"],
    &["ManagerAddresses", "ManagerForEvaluatedUser"],
    &["RejectMessageReasonText", "RejectMessageEnhancedStatusCode"],
    &["SetHeaderName", "SetHeaderValue"],
];

/// What the routing rule may hold; the rest is told.
const KNOWN_TO_ROUTE: [&str; 12] = [
    "ExceptIfHeaderContainsMessageHeader",
    "ExceptIfHeaderContainsWords",
    "ExceptIfHeaderMatchesMessageHeader",
    "ExceptIfHeaderMatchesPatterns",
    "ExceptIfMessageSizeOver",
    "ExceptIfMessageTypeMatches",
    "FromMemberOf",
    "FromScope",
    "RecipientAddressType",
    "RouteMessageOutboundConnector",
    "SenderAddressLocation",
    "SentToScope",
];

/// What the clean-up rule holds, and what every rule has.
const KNOWN_TO_CLEAN_UP: [&str; 5] = [
    "HeaderContainsMessageHeader",
    "HeaderContainsWords",
    "RecipientAddressType",
    "RemoveHeader",
    "SenderAddressLocation",
];

fn effect(property: &str) -> Option<Effect> {
    let mut all = ACTIONS.iter();
    all.find(|(name, _)| *name == property)
        .map(|(_, effect)| *effect)
}

fn is_condition(property: &str) -> bool {
    CONDITIONS.iter().any(|start| property.starts_with(start))
}

/// Whether the rule holds it; a spam confidence level of 0 is one as well.
fn holds(rule: &Exported, property: &str) -> bool {
    rule.is_set(property)
        || matches!(property, "SetSCL" | "SCLOver" | "ExceptIfSCLOver")
            && !rule.text(property).is_empty()
}

/// Those that are told with this one.
fn group(property: &str) -> Option<&'static [&'static str]> {
    TOGETHER
        .iter()
        .copied()
        .find(|group| group.contains(&property))
}

/// Conditions, exceptions and actions of a rule that are not among `known`, as they are called in the export.
fn further<'a>(
    rule: &'a Exported,
    known: &'static [&'static str],
) -> impl Iterator<Item = &'a str> {
    rule.names().filter(move |property| {
        let is_first = group(property)
            .and_then(|group| group.iter().find(|other| holds(rule, other)))
            .is_none_or(|first| first == property);
        (is_condition(property) || effect(property).is_some())
            && is_first
            && !known.contains(property)
            && holds(rule, property)
            && !property.contains('@')
    })
}

/// The drift of a property that is to go, with those that go together with it.
fn drift(kind: Kind, rule: &Exported, property: &str, breaks: &str) -> Drift {
    let name = rule.text("Name");
    let value = rule.get(property).map(text).unwrap_or_default();
    // A switch is written as a boolean; a word or a number that reads as true is none.
    let off = |property: &str| match rule.get(property).and_then(Value::as_bool) {
        Some(true) => format!(" -{} $false", whole(property)),
        Some(false) | None => format!(" -{} $null", whole(property)),
    };
    let arguments: String = match group(property) {
        Some(group) => {
            let held = group.iter().filter(|other| holds(rule, other));
            held.map(|other| off(other)).collect()
        }
        None => off(property),
    };
    let plain = property.bytes().all(|octet| octet.is_ascii_alphanumeric());
    Drift {
        object: kind.title().to_owned(),
        name: shown(name.as_bytes()),
        property: shown(property.as_bytes()),
        is: seen(&value),
        should: "not set".to_owned(),
        breaks: breaks.to_owned(),
        mend: if plain {
            Mend::Line(format!(
                "{} -Identity {}{arguments}",
                kind.setter(),
                literal(&name)
            ))
        } else {
            Mend::Step("take it off the rule in the admin centre".to_owned())
        },
        turn: Turn::Today,
    }
}

/// The clean-up rule is to take the loop value off all mail that has come back: whatever narrows it, or does more, lets the
/// value out or mail away.
pub(super) fn of_clean_up(report: &mut Report, rule: &Exported) {
    for property in further(rule, &KNOWN_TO_CLEAN_UP) {
        let breaks = match effect(property) {
            Some(Effect::Lost) => {
                "mail that has come back is refused, held or led elsewhere: it does not reach its recipients, or not all of it"
            }
            Some(Effect::Copied) => {
                "others get each mail that has come back, or are told of it, as well"
            }
            Some(Effect::Changed) => {
                "mail that has come back is changed once more: its signatures no longer fit, and the change is there twice where another rule makes it as well"
            }
            Some(Effect::None) => "the rule does more than take the loop header off",
            None => {
                "mail that has come back and does not fit it keeps the loop header, whose value leaves the tenant"
            }
        };
        report
            .drift
            .push(drift(Kind::CleanUp, rule, property, breaks));
    }
}

/// Whether conditions that no script of ours sets narrow the routing rule.
pub(super) fn is_narrowed(rule: &Exported) -> bool {
    further(rule, &KNOWN_TO_ROUTE).any(|property| effect(property).is_none())
}

/// The routing rule is to send mail to Gatepost as it is: whose, an administrator may choose.
pub(super) fn of_route(report: &mut Report, looped: &str, rule: &Exported) {
    let mut told = Vec::new();
    for property in further(rule, &KNOWN_TO_ROUTE) {
        if property == "SetHeaderName" {
            continue;
        }
        let is = |value: &str| rule.text(property).eq_ignore_ascii_case(value);
        let loops_only = matches!(
            property,
            "HeaderContainsMessageHeader" | "HeaderMatchesMessageHeader"
        ) && is(looped);
        let nobody = property == "ExceptIfFromScope" && is("InOrganization");
        let nowhere = property == "ExceptIfSentToScope" && is(&rule.text("SentToScope"));
        let breaks = match effect(property) {
            Some(Effect::Lost) => {
                "the rule refuses the mail, holds it or leads it elsewhere: it does not reach Gatepost, or not all of it"
            }
            Some(Effect::Copied) => {
                "others get the mail, or are told of it, each time that it goes to Gatepost"
            }
            Some(Effect::Changed) if property == "RemoveHeader" => {
                "the field is gone before Gatepost sees the mail: one that Gatepost judges by (550 5.7.1), or one that the recipient should have got"
            }
            Some(Effect::Changed) => {
                "the mail is changed on its way to Gatepost, which hands back what it gets: its signatures no longer fit, and the change is there twice where another rule makes it as well"
            }
            Some(Effect::None) | None if loops_only => {
                "the rule takes only mail with the loop header, which it leaves out: nothing reaches Gatepost"
            }
            Some(Effect::None) | None if nobody => {
                "the rule takes only mail of the tenant's own senders, and leaves it out: nothing reaches Gatepost"
            }
            Some(Effect::None) | None if nowhere => {
                "the rule takes only mail to this scope, and leaves it out: nothing reaches Gatepost"
            }
            Some(Effect::None) | None => {
                told.push(shown(property.as_bytes()));
                continue;
            }
        };
        report
            .drift
            .push(drift(Kind::Route, rule, property, breaks));
    }
    if !told.is_empty() {
        let name = rule.text("Name");
        report.note(
            &format!("transport rule {}", shown(name.as_bytes())),
            format!(
                "also holds {}, which no script of ours sets",
                told.join(", ")
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff::diff;
    use super::super::fixtures::{Tenancy, plan, plan_with};
    use super::*;
    use crate::mail::Secret;
    use serde_json::json;
    use std::collections::BTreeMap;

    /// What every rule has, and says nothing about the mail.
    const PLAIN: [&str; 16] = [
        "ActivationDate",
        "Comments",
        "Confirm",
        "Enabled",
        "ExpiryDate",
        "Mode",
        "Name",
        "Priority",
        "RecipientAddressType",
        "RuleErrorAction",
        "RuleSubType",
        "SenderAddressLocation",
        "SetAuditSeverity",
        "StopRuleProcessing",
        "UseLegacyRegex",
        "WhatIf",
    ];

    #[test]
    fn every_parameter_of_a_rule_is_a_condition_an_action_or_plain() {
        let table: Value =
            serde_json::from_str(include_str!("../../tests/powershell/cmdlets.json")).unwrap();
        let mut parameters: Vec<&String> = Vec::new();
        for cmdlet in ["New-TransportRule", "Set-TransportRule"] {
            let own = table["cmdlets"][cmdlet]["parameters"].as_object().unwrap();
            parameters.extend(own.keys().filter(|name| *name != "Identity"));
        }
        assert!(parameters.len() > 300);
        for name in parameters {
            let plain = PLAIN.contains(&name.as_str());
            let companion = group(name).is_some_and(|group| group.first() != Some(&name.as_str()));
            let kinds = [
                plain,
                is_condition(name) && !plain,
                effect(name).is_some(),
                companion && !is_condition(name) && effect(name).is_none(),
            ];
            assert_eq!(
                kinds.iter().filter(|is| **is).count(),
                1,
                "{name}: {kinds:?}"
            );
        }
    }

    #[test]
    fn the_scripts_take_off_whatever_the_table_has() {
        let table: Value =
            serde_json::from_str(include_str!("../../tests/powershell/cmdlets.json")).unwrap();
        let parameters = table["cmdlets"]["Set-TransportRule"]["parameters"]
            .as_object()
            .unwrap();
        let own = parameters.iter().filter(|(name, _)| {
            let name = name.as_str();
            !PLAIN.contains(&name) && name != "Identity"
                || ["ActivationDate", "ExpiryDate"].contains(&name)
        });
        let own: BTreeMap<&str, &str> = own
            .map(|(name, fact)| {
                let off = match fact["type"].as_str().unwrap() {
                    "Boolean" => "$false",
                    _ => "$null",
                };
                (name.as_str(), off)
            })
            .collect();
        assert!(own.len() > 140);
        for script in [
            include_str!("../../connector-templates/Install-GatepostConnector.ps1"),
            include_str!("../../connector-templates/Repair-GatepostConnector.ps1"),
        ] {
            let (_, rest) = script.split_once("$script:Removable = @{").unwrap();
            let (removable, _) = rest.split_once('}').unwrap();
            let entries = removable.split([';', '\n']).map(str::trim);
            let entries: BTreeMap<&str, &str> = entries
                .filter(|entry| !entry.is_empty())
                .map(|entry| entry.split_once(" = ").unwrap())
                .collect();
            assert_eq!(entries, own);
            let (_, rest) = script.split_once("$script:Condition = '^(").unwrap();
            let (conditions, _) = rest.split_once(')').unwrap();
            let conditions: Vec<&str> = conditions.split('|').collect();
            assert_eq!(conditions, CONDITIONS);
        }
    }

    #[test]
    fn an_action_beside_ours_is_drift_on_both_rules() {
        for (property, effect) in ACTIONS {
            for place in [0, 1] {
                let ours: &[&str] = match place {
                    0 => &["RouteMessageOutboundConnector", "SetHeaderName"],
                    _ => &["RemoveHeader"],
                };
                if ours.contains(&property) {
                    continue;
                }
                let mut tenancy = Tenancy::of(&plan());
                tenancy.rules[place][property] = json!("x");
                let report = diff(&plan(), &tenancy.exports());
                if place == 0 && effect == Effect::None {
                    assert_eq!(report.drift, []);
                    let mut notes = report.notes.iter();
                    assert!(notes.any(|note| note.text.contains(property)));
                    continue;
                }
                let [drift] = report.drift.as_slice() else {
                    panic!("{property}: {:#?}", report.drift);
                };
                assert_eq!(drift.property, property);
                let line = format!("-{property} $null");
                assert!(matches!(&drift.mend, Mend::Line(mend) if mend.ends_with(&line)));
            }
        }
    }

    #[test]
    fn what_goes_together_is_told_once_and_taken_off_in_one_call() {
        for group in TOGETHER {
            let mut tenancy = Tenancy::of(&plan());
            for property in group {
                tenancy.rules[1][*property] = json!("x");
            }
            let report = diff(&plan(), &tenancy.exports());
            if group.contains(&"HeaderContainsWords") {
                continue;
            }
            let [drift] = report.drift.as_slice() else {
                panic!("{group:?}: {:#?}", report.drift);
            };
            let line: String = group.iter().map(|name| format!(" -{name} $null")).collect();
            assert!(matches!(&drift.mend, Mend::Line(mend) if mend.ends_with(&line)));
        }
    }

    #[test]
    fn only_a_switch_is_taken_off_by_false() {
        for (property, value, off) in [
            ("DeleteMessage", json!(true), "$false"),
            ("AttachmentSizeOver", json!(1), "$null"),
            ("SetSCL", json!(1), "$null"),
            ("SubjectContainsWords", json!(["true"]), "$null"),
            ("FromScope", json!(1), "$null"),
        ] {
            let mut tenancy = Tenancy::of(&plan());
            tenancy.rules[1][property] = value;
            let report = diff(&plan(), &tenancy.exports());
            let line = format!("-{property} {off}");
            let mut mends = report.drift.iter().map(|drift| &drift.mend);
            assert!(
                mends.any(|mend| matches!(mend, Mend::Line(mend) if mend.ends_with(&line))),
                "{property}: {:#?}",
                report.drift
            );
        }
    }

    #[test]
    fn a_priority_that_is_none_is_where_the_rule_stands() {
        for odd in [json!(i64::MAX), json!(-1), json!("x"), json!(1e300)] {
            for place in [0, 1] {
                let mut tenancy = Tenancy::of(&plan());
                tenancy.rules[place]["Priority"] = odd.clone();
                assert_eq!(diff(&plan(), &tenancy.exports()).drift, [], "{odd}");
            }
        }
    }

    #[test]
    fn a_level_of_zero_is_a_level() {
        for zero in [json!(0), json!("0")] {
            let mut tenancy = Tenancy::of(&plan());
            tenancy.rules[0]["SetSCL"] = zero;
            assert_eq!(diff(&plan(), &tenancy.exports()).drift.len(), 1);
        }
        let mut tenancy = Tenancy::of(&plan());
        tenancy.rules[0]["SetSCL"] = json!(null);
        assert_eq!(diff(&plan(), &tenancy.exports()).drift, []);
    }

    #[test]
    fn a_condition_of_the_routing_rule_is_drift_where_no_mail_can_meet_it() {
        for (header, drifts) in [("x-gatepost-PROCESSED", 1), ("X-By-Gatepost", 0)] {
            for (name, values) in [
                ("HeaderContainsMessageHeader", "HeaderContainsWords"),
                ("HeaderMatchesMessageHeader", "HeaderMatchesPatterns"),
            ] {
                let mut tenancy = Tenancy::of(&plan());
                tenancy.rules[0][name] = json!(header);
                tenancy.rules[0][values] = json!(["x"]);
                let report = diff(&plan(), &tenancy.exports());
                assert_eq!(report.drift.len(), drifts, "{:#?}", report.drift);
                let mut notes = report.notes.iter();
                let told = notes.any(|note| note.text.contains(&format!("also holds {name},")));
                assert_eq!(told, drifts == 0, "{:#?}", report.notes);
            }
        }
    }

    #[test]
    fn a_part_of_a_secret_in_the_name_of_a_property_is_not_told() {
        let plan = plan_with(|tenant| {
            if let Some(looped) = &mut tenant.loop_header {
                looped.value = Secret::new("Jt5bN8cYh3fG6dSa");
            }
        });
        let mut tenancy = Tenancy::of(&plan);
        tenancy.rules[1]["FromJt5bN8cYh3"] = json!("x");
        let report = serde_json::to_string(&diff(&plan, &tenancy.exports())).unwrap();
        assert!(report.contains("-From(secret) $null"), "{report}");
        assert!(!report.contains("Jt5bN8cY"), "{report}");
    }
}
