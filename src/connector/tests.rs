//! One drift at a time, for whatever the table of desired properties holds.

use super::desired::{Property, Want, desired, optional};
use super::diff::{Drift, Mend, Report, diff};
use super::export::Exported;
use super::fixtures::{KINDS, LOOPED, SECRET, Tenancy, identity, plan, plan_for, plan_with};
use super::objects::Kind;
use crate::mail::Secret;
use proptest::prelude::*;
use serde_json::{Value, json};

fn compared(tenancy: &Tenancy) -> Report {
    diff(&plan(), &tenancy.exports())
}

/// The only drift, but for the proof that another way asks for; no secret stands anywhere in the report.
fn only(report: &Report) -> &Drift {
    let written = serde_json::to_string(report).unwrap();
    assert!(
        !written.contains(SECRET) && !written.contains(LOOPED),
        "{written}"
    );
    let proof = |drift: &&Drift| drift.is != "True, of another way";
    let drifts: Vec<&Drift> = report.drift.iter().filter(proof).collect();
    let [drift] = drifts.as_slice() else {
        panic!("{:#?}", report.drift);
    };
    assert!(!drift.breaks.is_empty() && !drift.is.is_empty() && !drift.should.is_empty());
    drift
}

fn line(drift: &Drift) -> &str {
    let Mend::Line(line) = &drift.mend else {
        panic!("{drift:?}");
    };
    is_known(line);
    line
}

/// Every cmdlet of a line with its parameters stands in the table that the scripts are checked against.
fn is_known(line: &str) {
    let table: Value =
        serde_json::from_str(include_str!("../../tests/powershell/cmdlets.json")).unwrap();
    for command in line
        .split("; ")
        .filter(|command| command.contains("-Identity"))
    {
        let (cmdlet, rest) = command.split_once(' ').unwrap();
        let parameters = &table["cmdlets"][cmdlet]["parameters"];
        assert!(parameters.is_object(), "{cmdlet}");
        let names = rest.split(" -").map(|part| part.split(' ').next().unwrap());
        for name in names {
            let name = name.trim_start_matches('-');
            assert!(parameters[name].is_object(), "{cmdlet} -{name}: {line}");
        }
    }
}

fn wrong(want: &Want) -> Vec<Value> {
    match want {
        Want::Mark => vec![json!("made by hand"), json!(null), json!("")],
        Want::Flag(true) => vec![json!(false), json!("False"), json!(0), json!(null)],
        Want::Flag(false) => vec![json!(true), json!("True"), json!(1)],
        Want::Word(_) => vec![json!("Other"), json!(null)],
        Want::Text(_) => vec![json!("wrong.example"), json!(null)],
        Want::CertificateName(_) => vec![
            json!("wrong.example"),
            json!("*.fabrikam.com"),
            json!("mail.contoso.com"),
            json!(null),
        ],
        Want::OneOf(..) => vec![json!("Other"), json!(null)],
        Want::Hosts(_) => vec![
            json!(["wrong.example"]),
            json!([]),
            json!("a.example *"),
            json!(null),
        ],
        Want::Unset => vec![json!(["contoso.com"]), json!("*")],
        Want::OutboundConnector => vec![json!("Elsewhere"), json!(null)],
        Want::Secret(_) => vec![json!("guess"), json!(LOOPED), json!(null)],
        Want::Words(_) => vec![
            json!(["guess"]),
            json!([LOOPED, "old"]),
            json!([]),
            json!(null),
        ],
    }
}

#[test]
fn a_tenant_as_rendered_has_no_drift() {
    let report = compared(&Tenancy::of(&plan()));
    assert_eq!(report.drift, []);
    assert_eq!(report.stage, Some("Everyone"));
    assert_eq!(
        report
            .notes
            .iter()
            .map(|note| note.text.as_str())
            .collect::<Vec<_>>(),
        ["the routing rule takes everyone's mail"]
    );
}

#[test]
fn each_property_that_drifts_is_told_alone_and_mended_by_its_own_line() {
    let plan = plan();
    let mut count = 0;
    for kind in KINDS {
        for property in desired(kind, &plan) {
            for value in wrong(&property.want) {
                let mut tenancy = Tenancy::of(&plan);
                tenancy.object(kind)[property.name] = value.clone();
                let report = compared(&tenancy);
                let drift = only(&report);
                assert_eq!(
                    (drift.name.as_str(), drift.property.as_str()),
                    (kind.name(), property.name),
                    "{value}"
                );
                judge_line(kind, &property, line(drift));
                count += 1;
            }
        }
    }
    assert!(count > 80, "{count}");
}

fn judge_line(kind: Kind, property: &Property, line: &str) {
    let expected = if property.name == "State" {
        "Enable-TransportRule"
    } else {
        kind.setter()
    };
    let identity = format!("{expected} -Identity '{}'", kind.name());
    assert!(line.contains(&identity), "{line}");
    for name in property
        .with
        .iter()
        .copied()
        .chain((property.name != "State").then_some(property.name))
    {
        assert!(line.contains(&format!(" -{name} ")), "{line}: {name}");
    }
    let reads = matches!(property.want, Want::Secret(_) | Want::Words(_));
    if reads {
        assert!(
            line.starts_with(
                "$s = Get-Content -Raw -Path '.\\gatepost-secrets.json' | ConvertFrom-Json; "
            ),
            "{line}"
        );
    }
}

#[test]
fn a_property_that_was_not_exported_is_a_note() {
    let plan = plan();
    for kind in KINDS {
        for property in desired(kind, &plan) {
            let mut tenancy = Tenancy::of(&plan);
            tenancy
                .object(kind)
                .as_object_mut()
                .unwrap()
                .remove(property.name);
            let report = compared(&tenancy);
            assert_eq!(report.drift, [], "{}", property.name);
            let told = format!("{} is not in the export", property.name);
            assert!(
                report.notes.iter().any(|note| note.text.starts_with(&told)),
                "{told}"
            );
        }
    }
}

#[test]
fn every_dress_of_a_right_value_is_right() {
    for (kind, property, value) in [
        (Kind::Inbound, "SenderDomains", json!(["*"])),
        (Kind::Inbound, "SenderDomains", json!("smtp:*;1")),
        (
            Kind::Inbound,
            "SenderDomains",
            json!([{ "Address": "*", "Type": "SMTP", "Cost": 1 }]),
        ),
        (
            Kind::Inbound,
            "ConnectorType",
            json!({ "value": 1, "Value": "OnPremises" }),
        ),
        (Kind::Inbound, "RequireTls", json!("True")),
        (
            Kind::Inbound,
            "TlsSenderCertificateName",
            json!("SMARTHOST.contoso.com"),
        ),
        (
            Kind::Inbound,
            "TlsSenderCertificateName",
            json!("@{Domain=smarthost.contoso.com; IncludeSubDomains=False}"),
        ),
        (Kind::Inbound, "TreatMessagesAsInternal", json!(null)),
        (
            Kind::Outbound,
            "SmartHosts",
            json!([{ "Domain": "Smarthost.Contoso.com", "Address": null, "IsIPAddress": false }]),
        ),
        (Kind::Outbound, "SmartHosts", json!("smarthost.contoso.com")),
        (Kind::Outbound, "RecipientDomains", json!("")),
        (Kind::Route, "ExceptIfHeaderContainsWords", json!(LOOPED)),
    ] {
        let mut tenancy = Tenancy::of(&plan());
        tenancy.object(kind)[property] = value.clone();
        assert_eq!(compared(&tenancy).drift, [], "{property} {value}");
    }
    // A rule may name the connector by its GUID.
    let mut tenancy = Tenancy::of(&plan());
    tenancy.outbound[0]["Guid"] = json!("d0d71cb9-6105-410f-8193-3640e12852a5");
    tenancy.rules[0]["RouteMessageOutboundConnector"] =
        json!("D0D71CB9-6105-410f-8193-3640e12852a5");
    assert_eq!(compared(&tenancy).drift, []);
}

#[test]
fn the_number_of_a_word_says_nothing_and_is_told_so() {
    let mut count = 0;
    for kind in KINDS {
        for property in desired(kind, &plan()) {
            if let Want::Word(_) | Want::OneOf(..) = property.want {
                count += 1;
                let mut tenancy = Tenancy::of(&plan());
                tenancy.object(kind)[property.name] = json!(7);
                let report = compared(&tenancy);
                assert_eq!(report.drift, [], "{}", property.name);
                let told = report
                    .notes
                    .iter()
                    .any(|note| note.text.contains("written as a number"));
                assert!(told, "{}: {:?}", property.name, report.notes);
            }
        }
    }
    assert_eq!(count, 10);
}

#[test]
fn an_absent_object_is_told_with_what_installs_it() {
    for kind in KINDS {
        let mut tenancy = Tenancy::of(&plan());
        match kind {
            Kind::Inbound => tenancy.inbound.clear(),
            Kind::Outbound => tenancy.outbound.clear(),
            Kind::Route => drop(tenancy.rules.remove(0)),
            Kind::CleanUp => drop(tenancy.rules.remove(1)),
        }
        let report = compared(&tenancy);
        let drift = only(&report);
        assert_eq!(
            (drift.name.as_str(), drift.is.as_str()),
            (kind.name(), "absent")
        );
        // The rule sends mail: a new connector is to be proven as well.
        let further = match kind {
            Kind::Outbound => "; .\\Confirm-GatepostConnector.ps1 -Recipient 'you@contoso.com'",
            Kind::Inbound | Kind::Route | Kind::CleanUp => "",
        };
        assert_eq!(
            line(drift),
            format!(".\\Install-GatepostConnector.ps1{further}")
        );
    }
}

#[test]
fn a_renamed_object_is_known_by_its_mark() {
    for kind in KINDS {
        let mut tenancy = Tenancy::of(&plan());
        tenancy.object(kind)["Name"] = json!("R\u{e8}gle d'essai");
        if kind == Kind::Outbound {
            // Exchange renames it in the rules as well.
            tenancy.rules[0]["RouteMessageOutboundConnector"] = json!("R\u{e8}gle d'essai");
        }
        let report = compared(&tenancy);
        let drift = only(&report);
        assert_eq!(drift.property, "Name");
        assert!(
            line(drift).ends_with(&format!(
                "-Identity ('R' + [char]0x00E8 + 'gle d''essai') -Name '{}'",
                kind.name()
            )),
            "{drift:?}"
        );
        let mut copy = tenancy.object(kind).clone();
        copy["Name"] = json!("a copy");
        match kind {
            Kind::Inbound => tenancy.inbound.push(copy),
            Kind::Outbound => tenancy.outbound.push(copy),
            Kind::Route | Kind::CleanUp => tenancy.rules.push(copy),
        }
        let report = compared(&tenancy);
        let several = report
            .drift
            .iter()
            .find(|drift| drift.is.contains("carry Gatepost's mark"));
        assert!(several.is_some(), "{:#?}", report.drift);
    }
}

#[test]
fn a_copy_with_our_mark_is_a_note_and_two_of_one_name_are_drift() {
    let mut tenancy = Tenancy::of(&plan());
    let mut copy = tenancy.outbound[0].clone();
    copy["Name"] = json!("To Gatepost (old)");
    tenancy.outbound.push(copy);
    let report = compared(&tenancy);
    assert_eq!(report.drift, []);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.text.contains("To Gatepost (old)"))
    );
    let twin = tenancy.outbound[0].clone();
    tenancy.outbound.push(twin);
    assert!(only(&compared(&tenancy)).is.starts_with("2 objects"));
}

#[test]
fn word_lists_say_present_previous_and_outdated_and_never_a_value() {
    let rotating = || {
        plan_with(|tenant| {
            let header = tenant.loop_header.as_mut().unwrap();
            header.previous = vec![Secret::new("old-value-secret")];
            let header = tenant.secret_header.as_mut().unwrap();
            header.values.push(Secret::new("old-gate"));
        })
    };
    for (words, is) in [
        (json!([LOOPED, "old-value-secret"]), None),
        (json!(format!("{LOOPED} old-value-secret")), None),
        (
            json!([LOOPED, "stranger"]),
            Some("the present value, and one outdated value"),
        ),
        (
            json!(["old-value-secret"]),
            Some("one previous value, not the present one"),
        ),
        (
            json!(["x", "y"]),
            Some("2 outdated values, not the present one"),
        ),
        (
            json!(["x", "old-value-secret"]),
            Some("previous and outdated values, not the present one"),
        ),
    ] {
        let mut tenancy = Tenancy::of(&rotating());
        tenancy.rules[0]["ExceptIfHeaderContainsWords"] = words.clone();
        let report = diff(&rotating(), &tenancy.exports());
        match is {
            None => assert_eq!(report.drift, [], "{words}"),
            Some(is) => {
                let drift = only(&report);
                assert_eq!(drift.is, is);
                assert!(!line(drift).contains("old-value"), "{drift:?}");
                assert!(line(drift).ends_with("-ExceptIfHeaderContainsWords (@($s.LoopHeaderValue) + @($s.LoopHeaderPrevious))"), "{drift:?}");
            }
        }
    }
    // Once only the present value is left, the configuration can forget the old one.
    let mut tenancy = Tenancy::of(&rotating());
    tenancy.rules[1]["HeaderContainsWords"] = json!([LOOPED]);
    tenancy.rules[0]["SetHeaderValue"] = json!("old-gate");
    let report = diff(&rotating(), &tenancy.exports());
    assert_eq!(report.drift, []);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.text.contains("after -Stage NewOnly it can go"))
    );
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.text.contains("still a previous value"))
    );
}

#[test]
fn a_value_with_blanks_is_one_word_also_where_depth_made_a_text_of_the_list() {
    let blanks = || {
        plan_with(|tenant| {
            tenant.loop_header.as_mut().unwrap().value = Secret::new("a value with blanks");
        })
    };
    let mut tenancy = Tenancy::of(&blanks());
    tenancy.rules[0]["ExceptIfHeaderContainsWords"] = json!("a value with blanks");
    assert_eq!(diff(&blanks(), &tenancy.exports()).drift, []);
}

fn foreign(name: &str, priority: i64, further: Value) -> Value {
    let mut rule = json!({ "Name": name, "Priority": priority, "State": "Enabled", "Mode": "Enforce", "StopRuleProcessing": false });
    rule.as_object_mut()
        .unwrap()
        .extend(further.as_object().unwrap().clone());
    rule
}

/// Our two rules, moved to `route` and `clean_up`, and foreign ones.
fn with_rules(route: i64, clean_up: i64, others: Vec<Value>) -> Tenancy {
    let mut tenancy = Tenancy::of(&plan());
    tenancy.rules[0]["Priority"] = json!(route);
    tenancy.rules[1]["Priority"] = json!(clean_up);
    tenancy.rules.extend(others);
    tenancy
}

#[test]
fn a_foreign_rule_that_stops_or_routes_before_ours_is_drift() {
    for (further, what) in [
        (json!({ "StopRuleProcessing": true }), "stops"),
        (
            json!({ "RouteMessageOutboundConnector": "Elsewhere" }),
            "routes",
        ),
        (
            json!({ "RouteMessageOutboundConnector": "Elsewhere", "StopRuleProcessing": true }),
            "routes and stops",
        ),
        (
            json!({ "HeaderContainsMessageHeader": "X-Gatepost-Processed", "RemoveHeader": "x-gatepost-processed" }),
            "takes the loop header off",
        ),
        (
            json!({ "RemoveHeader": "X-Gatepost-Processed", "StopRuleProcessing": true }),
            "stops",
        ),
    ] {
        let tenancy = with_rules(1, 2, vec![foreign("Theirs", 0, further)]);
        let report = compared(&tenancy);
        let drift = only(&report);
        assert_eq!(
            (drift.name.as_str(), drift.property.as_str()),
            ("Route to Gatepost", "Priority")
        );
        assert_eq!(drift.is, format!("1, behind Theirs (0, {what})"));
        let unmarks = drift
            .breaks
            .starts_with("mail that has come back loses the mark");
        assert_eq!(unmarks, what == "takes the loop header off", "{drift:?}");
        assert_eq!(
            line(drift),
            "Set-TransportRule -Identity 'Route to Gatepost' -Priority 0; Set-TransportRule -Identity 'Back from Gatepost' -Priority 1"
        );
    }
    for harmless in [
        foreign("Theirs", 0, json!({})),
        foreign(
            "Theirs",
            0,
            json!({ "StopRuleProcessing": true, "State": "Disabled" }),
        ),
        foreign(
            "Theirs",
            0,
            json!({ "StopRuleProcessing": true, "Mode": "Audit" }),
        ),
        foreign(
            "Theirs",
            0,
            json!({ "StopRuleProcessing": true, "ExpiryDate": "2026-11-28T12:00:00Z" }),
        ),
        foreign("Theirs", 3, json!({ "StopRuleProcessing": true })),
        foreign(
            "Theirs",
            3,
            json!({ "RemoveHeader": "X-Gatepost-Processed" }),
        ),
        foreign("Theirs", 0, json!({ "RemoveHeader": "X-Other" })),
    ] {
        let (route, clean_up) = if harmless["Priority"] == 0 {
            (1, 2)
        } else {
            (0, 1)
        };
        assert_eq!(
            compared(&with_rules(route, clean_up, vec![harmless])).drift,
            []
        );
    }
}

/// An outbound connector beside ours.
fn foreign_outbound(further: Value) -> Tenancy {
    let mut connector = json!({ "Name": "Everything", "Enabled": true, "ConnectorType": "OnPremises",
        "SmartHosts": ["[SMARTHOST.contoso.com.]"], "IsTransportRuleScoped": false, "RecipientDomains": ["*"] });
    connector
        .as_object_mut()
        .unwrap()
        .extend(further.as_object().unwrap().clone());
    let mut tenancy = Tenancy::of(&plan());
    tenancy.outbound.push(connector);
    tenancy
}

#[test]
fn another_outbound_connector_that_leads_to_gatepost_by_itself_is_drift() {
    for (further, is) in [
        (json!({}), "smarthost.contoso.com, for mail to *"),
        (
            json!({ "AllAcceptedDomains": true, "IsTransportRuleScoped": true }),
            "smarthost.contoso.com, AllAcceptedDomains",
        ),
        (json!({ "RecipientDomains": [] }), "smarthost.contoso.com"),
        (
            json!({ "Name": "Outbound to 1234", "RouteAllMessagesViaOnPremises": true }),
            "smarthost.contoso.com, RouteAllMessagesViaOnPremises",
        ),
    ] {
        let tenancy = foreign_outbound(further);
        let report = compared(&tenancy);
        let drift = only(&report);
        assert_eq!(
            (drift.property.as_str(), drift.is.as_str()),
            ("SmartHosts", is)
        );
        let Mend::Step(step) = &drift.mend else {
            panic!("a line that switches off what is not ours: {drift:?}");
        };
        assert_eq!(step.contains("-Enabled $false"), drift.name == "Everything");
    }
    let report = compared(&foreign_outbound(json!({ "Comment": super::MARK })));
    assert_eq!(
        line(only(&report)),
        "Set-OutboundConnector -Identity 'Everything' -Enabled $false"
    );
    for harmless in [
        json!({ "Enabled": false }),
        json!({ "TestMode": true }),
        json!({ "SmartHosts": ["mail.example.net"] }),
        json!({ "IsTransportRuleScoped": true }),
    ] {
        assert_eq!(compared(&foreign_outbound(harmless)).drift, []);
    }
    let report = compared(&foreign_outbound(
        json!({ "SmartHosts": ["mail.example.net"], "RouteAllMessagesViaOnPremises": true }),
    ));
    assert_eq!(report.drift, []);
    let mut notes = report.notes.iter();
    assert!(
        notes.any(|note| note.object == "outbound connector Everything"
            && note.text.contains("takes this way as well"))
    );
}

#[test]
fn a_rule_by_another_connector_to_gatepost_is_drift() {
    let mut tenancy = foreign_outbound(json!({ "IsTransportRuleScoped": true }));
    let theirs = json!({ "RouteMessageOutboundConnector": "Everything" });
    tenancy.rules.push(foreign("Theirs", 3, theirs));
    let report = compared(&tenancy);
    let drift = only(&report);
    assert_eq!(drift.name, "Theirs");
    assert_eq!(
        drift.is,
        "Everything, without an exception for X-Gatepost-Processed"
    );
    // A rule that does nothing to mail, or to a connector that takes none.
    for (property, value) in [
        ("Mode", json!("Audit")),
        ("State", json!("Disabled")),
        ("ExpiryDate", json!("2026-11-28T12:00:00Z")),
    ] {
        let mut idle = foreign_outbound(json!({ "IsTransportRuleScoped": true }));
        idle.rules = tenancy.rules.clone();
        idle.rules[2][property] = value;
        assert_eq!(compared(&idle).drift, [], "{property}");
    }
    let mut off = foreign_outbound(json!({ "IsTransportRuleScoped": true, "Enabled": false }));
    off.rules = tenancy.rules;
    assert_eq!(compared(&off).drift, []);
}

#[test]
fn a_routing_rule_that_leaves_its_own_scope_out_is_drift() {
    let mut tenancy = Tenancy::of(&plan());
    tenancy.rules[0]["SentToScope"] = json!("NotInOrganization");
    tenancy.rules[0]["ExceptIfSentToScope"] = json!("InOrganization");
    assert!(
        compared(&tenancy)
            .drift
            .iter()
            .all(|drift| drift.property != "ExceptIfSentToScope")
    );
    tenancy.rules[0]["ExceptIfSentToScope"] = json!("NotInOrganization");
    let report = compared(&tenancy);
    assert!(
        report
            .drift
            .iter()
            .any(|drift| drift.property == "ExceptIfSentToScope"
                && drift.breaks.contains("nothing reaches Gatepost"))
    );
}

#[test]
fn the_clean_up_rule_stands_directly_behind_the_routing_rule() {
    for (route, clean_up, target) in [(0, 2, 1), (1, 0, 1), (5, 2, 5)] {
        let tenancy = with_rules(route, clean_up, vec![]);
        let report = compared(&tenancy);
        let drift = only(&report);
        assert_eq!(
            (drift.name.as_str(), drift.property.as_str()),
            ("Back from Gatepost", "Priority")
        );
        assert_eq!(
            line(drift),
            format!("Set-TransportRule -Identity 'Back from Gatepost' -Priority {target}")
        );
    }
}

#[test]
fn the_line_that_moves_the_routing_rule_brings_the_other_directly_behind_it() {
    for (clean_up, foreign_at, route, target) in [(0, 1, 2, 1), (3, 0, 1, 1), (2, 0, 3, 1)] {
        let theirs = foreign("Theirs", foreign_at, json!({ "StopRuleProcessing": true }));
        let report = compared(&with_rules(route, clean_up, vec![theirs]));
        assert_eq!(
            line(only(&report)),
            format!(
                "Set-TransportRule -Identity 'Route to Gatepost' -Priority {foreign_at}; Set-TransportRule -Identity 'Back from Gatepost' -Priority {target}"
            )
        );
    }
}

#[test]
fn a_rule_of_ours_that_does_too_much_is_not_taken_for_the_other_one() {
    let mut tenancy = Tenancy::of(&plan());
    tenancy.rules[0]["RemoveHeader"] = json!("X-Gatepost-Processed");
    tenancy.rules.remove(1);
    for name in ["Route to Gatepost", "Smart host rule"] {
        tenancy.rules[0]["Name"] = json!(name);
        let report = compared(&tenancy);
        let renames = report
            .drift
            .iter()
            .filter(|drift| drift.property == "Name" && drift.should == "Back from Gatepost");
        assert_eq!(renames.count(), 0, "{:#?}", report.drift);
        assert!(report.drift.iter().any(|drift| drift.is == "absent"));
    }
    let mut tenancy = Tenancy::of(&plan());
    tenancy.rules[1]["RouteMessageOutboundConnector"] = json!("To Gatepost");
    tenancy.rules.remove(0);
    let report = compared(&tenancy);
    let told: Vec<(&str, &str)> = report
        .drift
        .iter()
        .map(|drift| (drift.name.as_str(), drift.property.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("Back from Gatepost", "RouteMessageOutboundConnector"),
            ("Route to Gatepost", "")
        ]
    );
}

#[test]
fn a_rule_with_the_secret_is_the_routing_rule_wherever_it_sends() {
    for (value, is_ours) in [(SECRET, true), ("another", false)] {
        let mut tenancy = Tenancy::of(&plan());
        let rule = &mut tenancy.rules[0];
        rule["Name"] = json!("Smart host rule");
        rule["Comments"] = json!("by hand");
        rule["RouteMessageOutboundConnector"] = json!("Elsewhere");
        rule["SetHeaderValue"] = json!(value);
        let report = compared(&tenancy);
        let named = report.drift.iter().any(|drift| drift.property == "Name");
        let absent = report.drift.iter().any(|drift| drift.is == "absent");
        assert_eq!((named, absent), (is_ours, !is_ours), "{:#?}", report.drift);
        let line = "Set-TransportRule -Identity 'Route to Gatepost' -RouteMessageOutboundConnector 'To Gatepost'";
        let last = report.drift.last().map(|drift| &drift.mend);
        assert_eq!(last == Some(&Mend::Line(line.to_owned())), is_ours);
    }
}

#[test]
fn another_rule_to_our_connector_needs_the_loop_exception() {
    let rule = |further| foreign("Old way", 7, further);
    let tenancy = with_rules(
        0,
        1,
        vec![rule(
            json!({ "RouteMessageOutboundConnector": "To Gatepost" }),
        )],
    );
    let report = compared(&tenancy);
    let Mend::Step(step) = &only(&report).mend else {
        panic!("{:?}", report.drift);
    };
    // What a foreign rule is for, nobody here knows.
    assert!(
        step.starts_with("Look at what the rule is for: Get-TransportRule -Identity 'Old way'"),
        "{step}"
    );
    let copy = json!({ "RouteMessageOutboundConnector": "To Gatepost", "Comments": super::MARK });
    let report = compared(&with_rules(0, 1, vec![rule(copy)]));
    assert_eq!(
        line(only(&report)),
        "Disable-TransportRule -Identity 'Old way'"
    );
    let excepting = json!({ "RouteMessageOutboundConnector": "To Gatepost", "ExceptIfHeaderContainsMessageHeader": "x-gatepost-processed" });
    let report = compared(&with_rules(0, 1, vec![rule(excepting)]));
    assert_eq!(report.drift, []);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.text.starts_with("Old way sends mail"))
    );
}

#[test]
fn the_rollout_is_told_and_decides_whether_validation_is_missing() {
    for (further, stage, drifts) in [
        (json!({ "State": "Disabled" }), "Stop", 0),
        (json!({ "Mode": "Audit" }), "Audit", 0),
        (json!({ "FromMemberOf": ["pilot@contoso.com"] }), "Pilot", 1),
        (json!({}), "Everyone", 1),
    ] {
        let mut tenancy = Tenancy::of(&plan());
        tenancy.rules[0]
            .as_object_mut()
            .unwrap()
            .extend(further.as_object().unwrap().clone());
        assert_eq!(compared(&tenancy).drift, [], "{stage}");
        tenancy.outbound[0]["IsValidated"] = json!(false);
        tenancy.outbound[0]["LastValidationTimestamp"] = json!("/Date(1795594533000)/");
        let report = compared(&tenancy);
        assert_eq!(
            (report.stage, report.drift.len()),
            (Some(stage), drifts),
            "{:#?}",
            report.drift
        );
        if drifts == 1 {
            let drift = only(&report);
            assert_eq!(drift.is, "False, last tried 2026-11-25T08:15:33Z");
            assert_eq!(
                line(drift),
                ".\\Confirm-GatepostConnector.ps1 -Recipient 'you@contoso.com'"
            );
        }
    }
}

#[test]
fn a_way_that_is_mended_is_to_be_proven_again() {
    for (property, value, proves) in [
        ("SmartHosts", json!(["other.contoso.com"]), true),
        ("TlsDomain", json!("other.contoso.com"), true),
        ("TestMode", json!(true), false),
    ] {
        for (stage, validated) in [("Enabled", true), ("Disabled", true), ("Enabled", false)] {
            let mut tenancy = Tenancy::of(&plan());
            tenancy.outbound[0][property] = value.clone();
            tenancy.outbound[0]["IsValidated"] = json!(validated);
            tenancy.rules[0]["State"] = json!(stage);
            let report = compared(&tenancy);
            let own = |drift: &&Drift| drift.property == property;
            let mended = line(report.drift.iter().find(own).unwrap());
            assert_eq!(
                mended.ends_with(" -IsValidated $false"),
                validated && proves,
                "{mended}"
            );
            let confirm = ".\\Confirm-GatepostConnector.ps1 -Recipient 'you@contoso.com'";
            let last = report.drift.last().unwrap();
            let asks = last.property == "IsValidated";
            assert_eq!(asks, stage == "Enabled" && (proves || !validated));
            assert!(!asks || line(last) == confirm);
            let mut notes = report.notes.iter();
            assert_eq!(
                notes.any(|note| note.text.contains(confirm)),
                stage == "Disabled" && proves
            );
        }
    }
}

#[test]
fn a_second_connector_for_our_certificate_is_drift_and_a_hybrid_one_is_left_alone() {
    for (name, source, certificate, drifts) in [
        ("Theirs", "Default", "smarthost.contoso.com", 1),
        ("Theirs", "Default", "*.contoso.com", 1),
        ("Theirs", "Default", "mail.contoso.com", 0),
        ("Inbound from 1f2e", "HybridWizard", "mail.contoso.com", 0),
        ("Inbound from 1f2e", "HybridWizard", "*.contoso.com", 1),
    ] {
        let mut tenancy = Tenancy::of(&plan());
        tenancy.inbound.push(json!({ "Name": name, "Enabled": true, "ConnectorType": "OnPremises", "ConnectorSource": source, "TlsSenderCertificateName": certificate }));
        let report = compared(&tenancy);
        assert_eq!(report.drift.len(), drifts, "{certificate}");
        let hybrid = source == "HybridWizard";
        assert_eq!(
            report
                .notes
                .iter()
                .any(|note| note.text.contains("leave it alone")),
            hybrid
        );
        if drifts == 1 {
            let drift = only(&report);
            assert_eq!(drift.name, name);
            assert!(matches!(drift.mend, Mend::Step(_)), "{drift:?}");
            if !hybrid {
                tenancy.inbound[1]["Comment"] = json!(super::MARK);
                assert_eq!(
                    line(only(&compared(&tenancy))),
                    "Set-InboundConnector -Identity 'Theirs' -Enabled $false"
                );
            }
        }
        tenancy.inbound[1]["Enabled"] = json!(false);
        assert_eq!(
            compared(&tenancy).drift,
            [],
            "a disabled one matches nothing"
        );
    }
    let mut tenancy = Tenancy::of(&plan());
    tenancy.inbound.push(
        json!({ "Name": "Gate", "ConnectorType": "Partner", "RestrictDomainsToIPAddresses": true }),
    );
    assert!(
        compared(&tenancy)
            .notes
            .iter()
            .any(|note| note.text.contains("5.7.51"))
    );
}

#[test]
fn accepted_domains_agree_on_both_sides() {
    let mut tenancy = Tenancy::of(&plan());
    tenancy.domains.remove(0);
    let report = compared(&tenancy);
    assert_eq!(
        (only(&report).name.as_str(), only(&report).is.as_str()),
        ("contoso.com", "absent in the tenant")
    );
    let mut tenancy = Tenancy::of(&plan());
    tenancy
        .domains
        .push(json!({ "DomainName": { "Domain": "contoso.de" }, "DomainType": "InternalRelay" }));
    let report = compared(&tenancy);
    assert_eq!(
        (only(&report).name.as_str(), only(&report).is.as_str()),
        ("contoso.de", "absent in the configuration")
    );
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.text.contains("InternalRelay"))
    );
    // The certificate's name is told once, with its own consequence.
    let mut tenancy = Tenancy::of(&plan());
    tenancy.domains.pop();
    let report = compared(&tenancy);
    assert!(only(&report).breaks.contains("550 5.7.64"), "{report:#?}");
    tenancy.domains[0]["MatchSubDomains"] = json!(true);
    // The certificate's name lies below; and so do senders that the configuration does not know.
    let report = compared(&tenancy);
    assert_eq!(only(&report).property, "MatchSubDomains");
    assert!(
        matches!(&only(&report).mend, Mend::Step(step) if step.starts_with("Write \"*.contoso.com\" in"))
    );
    let mut wide = plan();
    wide.accepted = ["*.contoso.com", "contoso.onmicrosoft.com"]
        .map(|own| own.parse().unwrap())
        .to_vec();
    assert_eq!(diff(&wide, &tenancy.exports()).drift, []);
    tenancy.domains[0]["MatchSubDomains"] = json!(false);
    let report = diff(&wide, &tenancy.exports());
    let mut notes = report.notes.iter();
    assert!(notes.any(|note| note.object == "accepted domain *.contoso.com"));
    // A domain of the tenant that the configuration lacks, as it is to be written.
    let mut tenancy = Tenancy::of(&plan());
    tenancy
        .domains
        .push(json!({ "DomainName": "contoso.de", "MatchSubDomains": true }));
    let report = compared(&tenancy);
    assert!(
        matches!(&only(&report).mend, Mend::Step(step) if step.starts_with("Add \"*.contoso.de\""))
    );
}

#[test]
fn an_accepted_domain_that_is_no_domain_is_told_and_the_others_are_compared() {
    let mut tenancy = Tenancy::of(&plan());
    let domains = tenancy.domains.len();
    for strange in ["contoso .com", ""] {
        tenancy.domains.push(json!({ "DomainName": strange }));
    }
    tenancy.domains.swap(0, domains);
    let report = compared(&tenancy);
    assert_eq!(report.drift, []);
    let told: Vec<&str> = report
        .notes
        .iter()
        .filter(|note| note.text == "is no domain name, and was not compared")
        .map(|note| note.object.as_str())
        .collect();
    assert_eq!(told, ["accepted domain contoso .com", "accepted domain"]);
}

#[test]
fn the_rollout_is_told_once_and_nothing_contradicts_it() {
    let group = json!({ "FromMemberOf": ["pilot@contoso.com"] });
    for (state, mode, whose, expected) in [
        (
            "Enabled",
            "Enforce",
            &group,
            "the routing rule takes the mail of pilot@contoso.com",
        ),
        (
            "Enabled",
            "Enforce",
            &json!({}),
            "the routing rule takes everyone's mail",
        ),
        (
            "Disabled",
            "Enforce",
            &group,
            "the routing rule is disabled and sends nothing to Gatepost; enabled, it would take the mail of pilot@contoso.com (Set-GatepostRollout.ps1 -Stage Audit begins)",
        ),
        (
            "Enabled",
            "Audit",
            &group,
            "the routing rule is in Audit: it sends nothing yet, and the message trace shows what it would take of the mail of pilot@contoso.com",
        ),
    ] {
        let mut tenancy = Tenancy::of(&plan());
        let rule = tenancy.rules[0].as_object_mut().unwrap();
        rule.extend(whose.as_object().unwrap().clone());
        rule.insert("State".to_owned(), json!(state));
        rule.insert("Mode".to_owned(), json!(mode));
        let report = compared(&tenancy);
        let told: Vec<&str> = report.notes.iter().map(|note| note.text.as_str()).collect();
        assert_eq!(told, [expected]);
    }
}

#[test]
fn what_the_rule_does_with_mail_it_fails_for_is_the_administrators_choice() {
    let mut tenancy = Tenancy::of(&plan());
    tenancy.rules[0]["RuleErrorAction"] = json!("Defer");
    let report = compared(&tenancy);
    assert_eq!(report.drift, []);
    let told = report.notes.iter().any(|note| {
        note.text
            .starts_with("RuleErrorAction: is Defer, not Ignore: where Exchange cannot")
    });
    assert!(told, "{:?}", report.notes);
}

#[test]
fn what_may_be_set_for_a_reason_is_a_note() {
    let mut tenancy = Tenancy::of(&plan());
    tenancy.inbound[0]["EFSkipLastIP"] = json!(true);
    tenancy.outbound[0]["SenderRewritingEnabled"] = json!(true);
    tenancy.rules[0]["ExceptIfMessageTypeMatches"] = json!("Calendaring");
    tenancy.rules[0]["SubjectContainsWords"] = json!(["[secure]"]);
    tenancy.rules[0]["RecipientAddressType"] = json!("Resolved");
    let mut exports = tenancy.exports();
    let read = |text: &str| Exported::read(text.as_bytes()).unwrap();
    exports.arc = Some(read("{\"ArcTrustedSealers\": \"a.example, b.example\"}"));
    exports.organization = Some(read("{\"RejectDirectSend\": true, \"IsDehydrated\": true}"));
    let report = diff(&plan(), &exports);
    assert_eq!(report.drift, []);
    let told: Vec<&str> = report.notes.iter().map(|note| note.text.as_str()).collect();
    for word in [
        "EFSkipLastIP",
        "SenderRewritingEnabled",
        "Calendaring",
        "also holds SubjectContainsWords,",
        "a.example, b.example",
        "RejectDirectSend is on",
        "Enable-OrganizationCustomization",
    ] {
        assert!(
            told.iter().any(|text| text.contains(word)),
            "{word}: {told:#?}"
        );
    }
}

#[test]
fn whose_mail_the_rule_takes_is_told_as_far_as_the_export_says() {
    for (property, value, whose) in [
        (
            "SubjectContainsWords",
            json!(["x"]),
            Some(", as far as its further conditions let it through"),
        ),
        ("ActivationDate", json!("2400-01-01T00:00:00"), None),
        ("ExceptIfMessageSizeOver", json!("1 KB"), Some("")),
    ] {
        let mut tenancy = Tenancy::of(&plan());
        tenancy.rules[0][property] = value;
        let report = compared(&tenancy);
        let mut notes = report.notes.iter().map(|note| note.text.as_str());
        let told = notes.find(|text| text.contains("everyone's mail"));
        let expected = whose.map(|whose| format!("the routing rule takes everyone's mail{whose}"));
        assert_eq!(told, expected.as_deref(), "{property}");
    }
    for (property, number) in [("State", json!(0)), ("Mode", json!(2))] {
        let mut tenancy = Tenancy::of(&plan());
        tenancy.rules[0][property] = number;
        let report = compared(&tenancy);
        let mut notes = report.notes.iter();
        let told = format!("{property} of the routing rule is written as a number");
        assert!(notes.any(|note| note.text.starts_with(&told)), "{property}");
    }
    // Nobody is in the organisation and not.
    let mut tenancy = Tenancy::of(&plan());
    tenancy.rules[0]["ExceptIfFromScope"] = json!("InOrganization");
    assert_eq!(only(&compared(&tenancy)).property, "ExceptIfFromScope");
    tenancy.rules[0]["ExceptIfFromScope"] = json!("NotInOrganization");
    assert_eq!(compared(&tenancy).drift, []);
}

#[test]
fn a_rule_before_ours_that_sets_the_loop_header_keeps_its_mail_from_it() {
    let mut tenancy = Tenancy::of(&plan());
    let foreign = json!({
        "Name": "Theirs", "Priority": 0, "State": "Enabled", "Mode": "Enforce",
        "SetHeaderName": "x-gatepost-PROCESSED", "SetHeaderValue": LOOPED,
    });
    tenancy.rules.insert(0, foreign);
    for (place, rule) in tenancy.rules.iter_mut().enumerate() {
        rule["Priority"] = json!(place);
    }
    let report = compared(&tenancy);
    assert_eq!(only(&report).property, "Priority");
    assert!(
        only(&report)
            .is
            .ends_with("Theirs (0, sets the loop header)")
    );
    let mut other = Tenancy {
        rules: tenancy.rules.clone(),
        ..Tenancy::of(&plan())
    };
    other.rules[0]["SetHeaderValue"] = json!("another");
    let report = compared(&other);
    let drift = only(&report);
    assert!(
        drift
            .is
            .ends_with("Theirs (0, sets the loop header to another value)")
    );
    assert!(
        drift
            .breaks
            .starts_with("mail that has come back loses the mark")
    );
    for (property, value) in [
        ("SetHeaderName", "X-Other"),
        ("FromScope", "NotInOrganization"),
    ] {
        let mut tenancy = Tenancy {
            rules: tenancy.rules.clone(),
            ..Tenancy::of(&plan())
        };
        tenancy.rules[0][property] = json!(value);
        assert_eq!(compared(&tenancy).drift, [], "{property}");
    }
}

#[test]
fn values_are_told_whole() {
    let mut tenancy = Tenancy::of(&plan());
    tenancy.outbound[0]["SmartHosts"] =
        json!("@{Domain=smarthost.contoso.com; Port=25} @{Domain=evil.example; Port=25}");
    tenancy.rules[0]["ExceptIfMessageSizeOver"] = json!("100 MB (104,857,600 bytes)");
    let report = compared(&tenancy);
    assert_eq!(only(&report).is, "smarthost.contoso.com, evil.example");
    let mut notes = report.notes.iter();
    let size = "ExceptIfMessageSizeOver is 100 MB (104,857,600 bytes): larger";
    assert!(notes.any(|note| note.text.starts_with(size)));
    for (written, told) in [
        ("1/1/2020 12:00:00 AM", "which is no date"),
        ("2400-01-01T00:00:00Z", "the rule ends then; from there on"),
    ] {
        let mut tenancy = Tenancy::of(&plan());
        tenancy.rules[1]["ExpiryDate"] = json!(written);
        let report = compared(&tenancy);
        assert_eq!(report.drift, []);
        let mut notes = report.notes.iter();
        assert!(notes.any(|note| note.text.contains(told)), "{written}");
    }
}

#[test]
fn every_property_that_may_be_set_is_told_with_its_value() {
    for kind in [Kind::Inbound, Kind::Outbound, Kind::Route] {
        for (property, text) in optional(kind) {
            let mut tenancy = Tenancy::of(&plan());
            let object = match kind {
                Kind::Inbound => &mut tenancy.inbound[0],
                Kind::Outbound => &mut tenancy.outbound[0],
                Kind::Route | Kind::CleanUp => &mut tenancy.rules[0],
            };
            object[*property] = json!(["x1"]);
            let report = compared(&tenancy);
            assert_eq!(report.drift, [], "{property}");
            let value = match *property {
                "ExceptIfHeaderMatchesPatterns" => "set (not shown: it may be a loop value)",
                _ => "x1",
            };
            let note = format!("{property} is {value}: {text}");
            let mut notes = report.notes.iter();
            assert!(notes.any(|told| told.text == note), "{:?}", report.notes);
        }
    }
}

#[test]
fn a_secret_is_hidden_as_it_is_shown_too_and_no_word_of_a_line_is() {
    let mut plan = plan();
    plan.secrets = vec![
        Secret::new("loop\\value-0123456789".to_owned()),
        Secret::new("true".to_owned()),
    ];
    let mut tenancy = Tenancy::of(&plan);
    tenancy.inbound[0]["RequireTls"] = json!(false);
    tenancy.rules[1]["SetHeaderName"] = json!("loop\\value-0123456789");
    let report = diff(&plan, &tenancy.exports());
    let written = serde_json::to_string(&report).unwrap();
    assert!(!written.contains("value-0123456789"), "{written}");
    let lines: Vec<&Mend> = report.drift.iter().map(|drift| &drift.mend).collect();
    assert!(
        format!("{lines:?}").contains("-RequireTls $true"),
        "{lines:?}"
    );
}

#[test]
fn whatever_narrows_the_clean_up_rule_is_drift_with_the_line_that_takes_it_off() {
    for (property, value, line) in [
        ("SentToScope", json!("InOrganization"), "-SentToScope $null"),
        ("FromScope", json!("NotInOrganization"), "-FromScope $null"),
        (
            "FromMemberOf",
            json!(["a@contoso.com"]),
            "-FromMemberOf $null",
        ),
        (
            "ExceptIfMessageSizeOver",
            json!("10 MB (10,485,760 bytes)"),
            "-ExceptIfMessageSizeOver $null",
        ),
        (
            "SubjectContainsWords",
            json!(["x"]),
            "-SubjectContainsWords $null",
        ),
        ("SetHeaderName", json!("X-Other"), "-SetHeaderName $null"),
        (
            "RouteMessageOutboundConnector",
            json!("Other"),
            "-RouteMessageOutboundConnector $null",
        ),
        ("DeleteMessage", json!(true), "-DeleteMessage $false"),
    ] {
        let mut tenancy = Tenancy::of(&plan());
        tenancy.rules[1][property] = value;
        let report = compared(&tenancy);
        let found: Vec<&str> = report
            .drift
            .iter()
            .map(|drift| drift.property.as_str())
            .collect();
        assert_eq!(found, [property]);
        let mend = Mend::Line(format!(
            "Set-TransportRule -Identity 'Back from Gatepost' {line}"
        ));
        assert_eq!(report.drift[0].mend, mend);
    }
}

#[test]
fn a_foreign_name_that_our_wildcard_covers_is_drift_where_it_is_ours_and_else_a_note() {
    let plan = plan_for(&identity("client", &["mail.contoso.com"]), &["contoso.com"]);
    for (certificate, drifts, notes) in [
        ("mail.contoso.com", 1, 0),
        ("*.contoso.com", 1, 0),
        ("hybrid.contoso.com", 0, 1),
        ("*.eu.contoso.com", 0, 1),
        ("contoso.com", 0, 0),
        ("mail.fabrikam.com", 0, 0),
    ] {
        let mut tenancy = Tenancy::of(&plan);
        tenancy.inbound.push(
            json!({ "Name": "Theirs", "Enabled": true, "ConnectorType": "OnPremises", "TlsSenderCertificateName": certificate }),
        );
        let report = diff(&plan, &tenancy.exports());
        let told = report
            .notes
            .iter()
            .filter(|note| note.text.contains("*.contoso.com of ours covers"));
        assert_eq!(
            (report.drift.len(), told.count()),
            (drifts, notes),
            "{certificate}: {report:#?}"
        );
    }
}

#[test]
fn a_rule_acts_between_its_dates_and_one_that_does_not_act_is_drift() {
    let (past, ahead) = (
        [
            json!("2026-11-29T11:59:59Z"),
            json!("2026-11-29T11:59:59"),
            json!("2026-11-29T23:59:59+13:00"),
            json!("/Date(1700000000000)/"),
            json!({ "value": "/Date(1700000000000)/", "DateTime": "then" }),
        ],
        [
            json!("2026-11-29T12:00:01Z"),
            json!("2026-11-29T12:00:01.5"),
            json!("/Date(1900000000000)/"),
            json!("some day"),
        ],
    );
    for (place, kind) in [(0, Kind::Route), (1, Kind::CleanUp)] {
        let with = |property: &str, value: &Value| {
            let mut tenancy = Tenancy::of(&plan());
            tenancy.rules[place][property] = value.clone();
            compared(&tenancy)
        };
        let told = |report: &Report, property: &str| {
            let mut notes = report.notes.iter();
            notes.any(|note| note.text.starts_with(&format!("{property} is ")))
        };
        for value in &past {
            let report = with("ExpiryDate", value);
            let drift = only(&report);
            assert_eq!(
                line(drift),
                format!(
                    "Set-TransportRule -Identity '{}' -ExpiryDate $null",
                    kind.name()
                )
            );
            let takes = |note: &super::diff::Note| note.text.contains("takes everyone's mail");
            assert_eq!(report.notes.iter().any(takes), kind == Kind::CleanUp);
            let report = with("ActivationDate", value);
            assert!(report.drift.is_empty() && !told(&report, "ActivationDate"));
        }
        for value in &ahead {
            let report = with("ExpiryDate", value);
            assert!(
                report.drift.is_empty() && told(&report, "ExpiryDate"),
                "{value}"
            );
            let report = with("ActivationDate", value);
            let is_drift = kind == Kind::CleanUp && *value != json!("some day");
            assert_eq!(report.drift.len(), usize::from(is_drift), "{value}");
            assert_eq!(told(&report, "ActivationDate"), !is_drift, "{value}");
        }
    }
    // Without a clock nothing is over.
    let mut tenancy = Tenancy::of(&plan());
    tenancy.rules[0]["ExpiryDate"] = past[0].clone();
    let mut exports = tenancy.exports();
    exports.now = None;
    assert_eq!(diff(&plan(), &exports).drift, []);
}

#[test]
fn what_was_not_exported_is_not_compared() {
    let mut exports = Tenancy::of(&plan()).exports();
    exports.rules = None;
    exports.domains = None;
    let report = diff(&plan(), &exports);
    assert_eq!(report.compared, ["InboundConnector", "OutboundConnector"]);
    assert_eq!((report.drift.len(), report.stage), (0, None));
}

/// JSON of any shape, as deep as it takes.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}|@\\{[a-zA-Z=; ]{0,12}\\}|/Date\\([0-9+-]{0,20}\\)/|smtp:[*a-z.;0-9]{0,8}"
            .prop_map(Value::from),
        Just(json!(LOOPED)),
        Just(json!(SECRET)),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("Value|value|Domain|Address|Count|Name", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every text in it.
fn strings(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::String(text) => all.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| strings(item, all)),
        Value::Object(map) => map.values().for_each(|item| strings(item, all)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

proptest! {
    /// Whatever stands in a property, also a secret where none belongs: the answer comes, and repeats no secret.
    #[test]
    fn any_value_of_any_property_is_borne(kind in 0usize..4, choice in any::<prop::sample::Index>(), value in any_json()) {
        let (kind, plan) = (KINDS[kind], plan());
        let mut names: Vec<&str> = desired(kind, &plan).iter().map(|property| property.name).collect();
        names.extend(["Name", "Priority", "State", "Mode", "FromMemberOf", "IsValidated", "LastValidationTimestamp", "ConnectorSource"]);
        let name = *choice.get(&names);
        let mut tenancy = Tenancy::of(&plan);
        tenancy.object(kind)[name] = value;
        let report = compared(&tenancy);
        let written = serde_json::to_string(&report).unwrap();
        prop_assert!(!written.contains(SECRET) && !written.contains(LOOPED), "{}", written);
    }

    /// Whatever the export holds, wherever it stands, whole, in parts, or cut: no 8 octets in a row of a secret in text or JSON.
    #[test]
    fn no_part_of_a_secret_is_told(
        secrets in prop::collection::vec("[k-z0-9~^%&\\\\' ]{7}[k-z0-9~^%&' \u{e9}]{1,40}", 2),
        strewn in prop::collection::vec((0usize..6, any::<prop::sample::Index>(), 0usize..2, 0usize..230, (0usize..40, 0usize..60), 0usize..6), 1..12),
    ) {
        let plan = plan_with(|tenant| {
            tenant.secret_header.as_mut().unwrap().values.push(Secret::new(secrets[0].as_str()));
            tenant.loop_header.as_mut().unwrap().previous.push(Secret::new(secrets[1].as_str()));
        });
        let mut tenancy = Tenancy::of(&plan);
        for object in [&mut tenancy.rules, &mut tenancy.inbound] {
            let mut copy = object[0].clone();
            copy["Name"] = json!("Another");
            copy["Priority"] = json!(0);
            object.push(copy);
        }
        for (object, property, which, before, (from, length), dress) in strewn {
            let part: String = secrets[which].chars().skip(from).take(length).collect();
            let text = format!("{}{part}", "-".repeat(before));
            let value = match dress {
                0 => json!(text),
                1 => json!([text, part]),
                2 => json!({ "Name": text }),
                3 => json!(format!("@{{Domain={text}; Port=25}}")),
                4 => json!({ "value": [text], "Count": 1 }),
                _ => json!(format!("{part}.example")),
            };
            let object = match object {
                0..4 => tenancy.object(KINDS[object]),
                4 => tenancy.rules.last_mut().unwrap(),
                _ => tenancy.domains.last_mut().unwrap(),
            };
            let names: Vec<String> = object.as_object().unwrap().keys().cloned().collect();
            let further = ["ExceptIfHeaderMatchesPatterns", "SubjectContainsWords", "EFSkipIPs", "FromMemberOf", "ExpiryDate", "LastValidationTimestamp", "RouteMessageOutboundConnector"];
            let names: Vec<&str> = names.iter().map(String::as_str).chain(further).collect();
            object[*property.get(&names)] = value;
            object[format!("ExceptIf{part}")] = json!(part);
        }
        let report = diff(&plan, &tenancy.exports());
        let mut written = Vec::new();
        strings(&serde_json::to_value(&report).unwrap(), &mut written);
        for text in written {
            for secret in &secrets {
                // A blank beside seven octets may be ours, and so may a backslash or a quote among them, which are doubled.
                let ours = |run: &&[u8]| {
                    run.starts_with(b" ") || run.ends_with(b" ") || run.iter().any(|octet| b"\\'".contains(octet))
                };
                for run in secret.as_bytes().windows(8).filter(|run| !ours(run)) {
                    let told = text.as_bytes().windows(8).any(|octets| octets == run);
                    prop_assert!(!told, "{:?} in {text}", String::from_utf8_lossy(run));
                }
            }
            prop_assert!(!text.contains(['\u{fdd0}', '\u{fdd1}', '\u{fdd2}', '\u{fdd3}']), "{}", text);
        }
    }

    #[test]
    fn any_octets_are_an_export_or_a_reason(octets in prop::collection::vec(any::<u8>(), 0..64)) {
        drop(Exported::read(&octets));
    }
}
