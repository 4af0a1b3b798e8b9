//! The tenant gate, rule by rule, on short forms of the headers that Exchange Online writes.

use super::fixtures::{
    CONTOSO_ID, FABRIKAM_ID, application as erp, contoso, envelope, fabrikam, proven_peer, tenants,
};
use super::*;
use crate::header::{Examined, examine};
use crate::mail::Envelope;
use std::sync::Arc;

const NOW: u64 = 1_795_594_533;

/// What the gate says in one word: `contoso proven`, `contoso foreign`, `contoso validation`, `contoso reported REASON`,
/// or `REASON`, followed by the tenant that the evidence points at.
fn word(settlement: &Settlement) -> String {
    match settlement {
        Settlement::Settled(verdict) => {
            let class = match verdict.class() {
                Class::Proven {
                    foreign_sender: false,
                } => "proven".to_owned(),
                Class::Proven {
                    foreign_sender: true,
                } => "foreign".to_owned(),
                Class::Validation {
                    foreign_sender: false,
                } => "validation".to_owned(),
                Class::Validation {
                    foreign_sender: true,
                } => "foreign validation".to_owned(),
                Class::Reported { reason } => format!("reported {reason}"),
                Class::Application { .. } => "application".to_owned(),
                Class::Own => "own".to_owned(),
            };
            format!("{} {class}", verdict.tenant().name)
        }
        Settlement::NeedsSignature(_) => "needs a signature".to_owned(),
        Settlement::Refused(refusal) => match &refusal.tenant {
            Some(tenant) => format!("{} {}", refusal.reason, tenant.name),
            None => refusal.reason.to_string(),
        },
    }
}

fn header(fields: &[&str]) -> Examined {
    let text = fields
        .iter()
        .map(|field| format!("{field}\r\n"))
        .collect::<String>()
        + "\r\n";
    examine(text.as_bytes()).unwrap()
}

struct Gatehouse {
    tenants: Tenants,
    peer: Peer,
    now: u64,
}

impl Gatehouse {
    fn new(list: impl IntoIterator<Item = Tenant>) -> Self {
        Self {
            tenants: tenants(list),
            peer: proven_peer(),
            now: NOW,
        }
    }

    fn settle(&self, envelope: &Envelope, fields: &[&str]) -> Settlement {
        match candidates(
            &self.tenants,
            &envelope.reverse_path,
            envelope.xoorg.as_ref(),
            self.now,
        ) {
            Ok(candidates) => settle(
                &self.tenants,
                &candidates,
                &self.peer,
                envelope,
                &header(fields),
                self.now,
            ),
            Err(refusal) => Settlement::Refused(refusal),
        }
    }

    fn says(&self, sender: &str, fields: &[&str]) -> String {
        word(&self.settle(&envelope(sender), fields))
    }

    fn says_with_xoorg(&self, sender: &str, xoorg: &str, fields: &[&str]) -> String {
        let envelope = Envelope {
            xoorg: Some(xoorg.parse().unwrap()),
            ..envelope(sender)
        };
        word(&self.settle(&envelope, fields))
    }
}

fn two() -> Gatehouse {
    Gatehouse::new([contoso(), fabrikam()])
}

const ADA: &str = "ada@contoso.com";
const FROM: &str = "From: Ada Example <ada@contoso.com>";
const ORG: &str = "X-OriginatorOrg: contoso.com";
const ID: &str = "X-MS-Exchange-CrossTenant-id: 11111111-2222-3333-4444-555555555555";
const SECRET: &str = "X-Contoso-Gate: gate-contoso";
const THEIR_ORG: &str = "X-OriginatorOrg: fabrikam.onmicrosoft.com";
const THEIR_ID: &str = "X-MS-Exchange-CrossTenant-Id: b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25";

#[test]
fn enough_items_that_name_one_tenant_prove_it() {
    let gate = two();
    for fields in [
        &[FROM, ORG, ID][..],
        &[FROM, ORG, SECRET],
        &[FROM, ID, SECRET],
        &[FROM, ORG, ID, SECRET],
        &[FROM, "x-originatororg \t:\r\n\tCONTOSO.com ", ID],
        &[FROM, "X-OriginatorOrg: contoso.onmicrosoft.com", ID],
        &[FROM, ORG, "X-Contoso-Gate:\r\n old-gate-contoso"],
        &[
            FROM,
            ORG,
            ID,
            "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp: TenantId=11111111-2222-3333-4444-555555555555;Ip=[198.51.100.25];Helo=[x]",
        ],
    ] {
        assert_eq!(gate.says(ADA, fields), "contoso proven", "{fields:?}");
    }
    assert_eq!(
        gate.says_with_xoorg(ADA, "contoso.com", &[FROM, ORG]),
        "contoso proven"
    );
    assert_eq!(
        gate.says("", &[FROM, ORG, ID]),
        "contoso proven",
        "null sender by header evidence only"
    );
}

#[test]
fn fewer_items_than_proofs_are_refused() {
    let gate = two();
    for fields in [&[FROM, ORG][..], &[FROM, ID], &[FROM, SECRET]] {
        assert_eq!(
            gate.says(ADA, fields),
            "too_few_proofs contoso",
            "{fields:?}"
        );
    }
    let three = Gatehouse::new([Tenant {
        proofs: 3,
        ..contoso()
    }]);
    assert_eq!(three.says(ADA, &[FROM, ORG, ID]), "too_few_proofs contoso");
    assert_eq!(three.says(ADA, &[FROM, ORG, ID, SECRET]), "contoso proven");
    let one = Gatehouse::new([Tenant {
        proofs: 1,
        ..contoso()
    }]);
    assert_eq!(one.says(ADA, &[FROM, SECRET]), "contoso proven");
    let none = Gatehouse::new([Tenant {
        proofs: 0,
        ..contoso()
    }]);
    assert_eq!(
        none.says(ADA, &[FROM]),
        "no_tenant",
        "not even a proof of none lets anybody in"
    );
}

#[test]
fn nothing_that_names_a_configured_tenant_is_no_tenant() {
    let gate = two();
    for fields in [
        &[FROM][..],
        &[
            FROM,
            "X-OriginatorOrg: evil.example",
            "X-MS-Exchange-CrossTenant-Id: 99999999-2222-3333-4444-555555555555",
        ],
        &[FROM, "X-OriginatorOrg: contoso.com."],
        &[FROM, "X-OriginatorOrg:"],
        &[
            FROM,
            "X-OriginatorOrg: contoso.com fabrikam.com",
            "X-MS-Exchange-CrossTenant-Id: {11111111-2222-3333-4444-555555555555}",
        ],
        &[FROM, "X-OriginatorOrg: \u{ff43}ontoso.com"],
        &[FROM, "X-OriginatorOrg: \u{441}ontoso.com"],
        &[FROM, "X-Contoso-Gate: wrong"],
        &[
            FROM,
            "X-OriginatorOrg: evil.example",
            "X-OriginatorOrg: worse.example",
        ],
        &[
            "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp: TenantId=11111111-2222-3333-4444-555555555555",
        ],
        &[
            FROM,
            "X-OriginatorOrgs: contoso.com",
            "X-MS-Exchange-CrossTenant-Id-: 11111111-2222-3333-4444-555555555555",
        ],
    ] {
        assert_eq!(gate.says(ADA, fields), "no_tenant", "{fields:?}");
    }
}

#[test]
fn a_hostile_tenant_with_the_customers_addresses_is_refused() {
    // Tenant B, not configured, relays mail as the customer: EchoSpoofing.
    let gate = Gatehouse::new([contoso()]);
    let fields = [
        "From: \"CEO\" <ceo@contoso.com>",
        THEIR_ORG,
        THEIR_ID,
        "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp: TenantId=b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25;Ip=[203.0.113.66]",
    ];
    assert_eq!(gate.says("ceo@contoso.com", &fields), "no_tenant");
    // The same from a configured one.
    assert_eq!(
        two().says("ceo@contoso.com", &fields),
        "foreign_envelope_sender fabrikam"
    );
    assert_eq!(
        two().says("x@fabrikam.com", &fields),
        "foreign_header_sender fabrikam"
    );
}

#[test]
fn contradictions_refuse() {
    let gate = two();
    for fields in [
        &[FROM, THEIR_ORG, ID, SECRET][..],
        &[FROM, "X-OriginatorOrg: evil.example", ID, SECRET],
        &[FROM, ORG, THEIR_ID, SECRET],
        &[
            FROM,
            ORG,
            "X-MS-Exchange-CrossTenant-Id: 99999999-2222-3333-4444-555555555555",
            SECRET,
        ],
        &[FROM, ORG, ID, "X-Contoso-Gate: wrong"],
        &[FROM, ORG, ID, "X-Contoso-Gate: gate-contoso2"],
        &[FROM, ORG, ID, "X-Contoso-Gate: GATE-contoso"],
        &[FROM, ORG, ID, "X-Contoso-Gate:"],
        &[
            FROM,
            ORG,
            ID,
            "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp: TenantId=b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25;Ip=[x]",
        ],
        &[
            FROM,
            ORG,
            ID,
            "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp: TenantId=11111111-2222-3333-4444-555555555555",
            "x-ms-exchange-crosstenant-originalattributedtenantconnectingip : x=1; tenantid=99999999-2222-3333-4444-555555555555",
        ],
    ] {
        assert_eq!(
            gate.says(ADA, fields),
            "contradiction contoso",
            "{fields:?}"
        );
    }
    assert_eq!(
        gate.says_with_xoorg(ADA, "fabrikam.com", &[FROM, ORG, ID]),
        "contradiction contoso"
    );
    assert_eq!(
        gate.says(
            ADA,
            &[
                FROM,
                ORG,
                ID,
                "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp: garbage"
            ]
        ),
        "contoso proven",
        "an unreadable one says nothing"
    );
}

#[test]
fn evidence_for_two_tenants_proves_neither() {
    let gate = Gatehouse::new([
        Tenant {
            proofs: 1,
            ..contoso()
        },
        Tenant {
            proofs: 1,
            ..fabrikam()
        },
    ]);
    assert_eq!(
        gate.says(ADA, &[FROM, SECRET, "X-Fabrikam-Gate: gate-fabrikam"]),
        "contradiction contoso"
    );
    assert_eq!(
        gate.says(ADA, &[FROM, ORG, "X-Fabrikam-Gate: gate-fabrikam"]),
        "contoso proven",
        "another tenant's secret that its own stamps contradict"
    );
}

#[test]
fn twice_or_malformed_refuses() {
    let gate = two();
    for fields in [
        &[FROM, ORG, ORG, ID, SECRET][..],
        &[FROM, ORG, "x-originatororg : contoso.com", ID, SECRET],
        &[FROM, ORG, "X-ORIGINATORORG: evil.example", ID, SECRET],
        &[FROM, ORG, ORG],
        &[
            FROM,
            ORG,
            ID,
            "X-MS-EXCHANGE-CROSSTENANT-ID: 11111111-2222-3333-4444-555555555555",
            SECRET,
        ],
        &[FROM, ORG, ID, SECRET, "x-contoso-gate: gate-contoso"],
        &[FROM, SECRET, SECRET],
        &[FROM, "X-OriginatorOrg: contoso.com (really)", ID, SECRET],
        &[FROM, "X-OriginatorOrg:", ID, SECRET],
        &[FROM, "X-OriginatorOrg: contos\u{f6}.com\u{a0}", ID, SECRET],
        &[FROM, ORG, "X-MS-Exchange-CrossTenant-Id: 1111", SECRET],
        &[
            FROM,
            ORG,
            "X-MS-Exchange-CrossTenant-Id: {11111111-2222-3333-4444-555555555555}",
            SECRET,
        ],
        &[FROM, "from : eve@contoso.com", ORG, ID],
        &["From: Ada ada@contoso.com", ORG, ID],
        &["From: ada@contoso.com <ceo@contoso.com>", ORG, ID],
        &["From:", ORG, ID],
        &["From: Team:ada@contoso.com;", ORG, ID],
        &["Sender: ada@contoso.com", ORG, ID],
    ] {
        assert_eq!(
            gate.says(ADA, fields),
            "ambiguous_evidence contoso",
            "{fields:?}"
        );
    }
}

#[test]
fn evidence_in_the_body_is_none() {
    let gate = two();
    let section = b"From: ada@contoso.com\r\n\r\nX-OriginatorOrg: contoso.com\r\n";
    let header = examine(section).unwrap();
    let envelope = envelope(ADA);
    let candidates = candidates(&gate.tenants, &envelope.reverse_path, None, NOW).unwrap();
    let settled = settle(
        &gate.tenants,
        &candidates,
        &gate.peer,
        &envelope,
        &header,
        NOW,
    );
    assert_eq!(word(&settled), "no_tenant");
}

#[test]
fn a_required_secret_must_be_there() {
    let mut tenant = contoso();
    if let Some(secret) = &mut tenant.secret_header {
        secret.required = true;
    }
    let gate = Gatehouse::new([tenant]);
    assert_eq!(gate.says(ADA, &[FROM, ORG, ID]), "secret_missing contoso");
    assert_eq!(gate.says(ADA, &[FROM, ORG, SECRET]), "contoso proven");
    assert_eq!(
        gate.says(ADA, &[FROM, ORG, ID, "X-Contoso-Gate: old-gate-contoso"]),
        "contoso proven"
    );
    assert_eq!(
        gate.says(ADA, &[FROM, ORG, ID, "X-Contoso-Gate: old"]),
        "contradiction contoso"
    );
    let check = "o365connectorvalidation@contoso.com";
    let from = "From: O365ConnectorValidation@contoso.com";
    assert_eq!(
        gate.says(check, &[from, ORG, ID]),
        "contoso validation",
        "not of the connector check"
    );
    assert_eq!(
        gate.says(check, &[from, ORG, ID, "X-Contoso-Gate: x"]),
        "contradiction contoso"
    );
}

#[test]
fn connector_validation_mail_needs_the_same_proofs() {
    let gate = two();
    let check = "O365ConnectorValidation@contoso.com";
    let from = "From: O365ConnectorValidation@contoso.com";
    assert_eq!(gate.says(check, &[from, ORG, ID]), "contoso validation");
    assert_eq!(gate.says(check, &[from, ORG]), "too_few_proofs contoso");
    assert_eq!(gate.says(check, &[from]), "no_tenant");
    assert_eq!(
        gate.says(check, &[from, THEIR_ORG, THEIR_ID]),
        "foreign_envelope_sender fabrikam"
    );
    assert_eq!(
        gate.says("xO365ConnectorValidation@contoso.com", &[from, ORG, ID]),
        "contoso proven"
    );
    let foreign = ["From: ceo@evil.example", "Sender: ada@contoso.com", ORG, ID];
    assert_eq!(gate.says(check, &foreign), "contoso foreign validation");
}

#[test]
fn an_empty_secret_proves_nothing() {
    let mut tenant = Tenant {
        proofs: 1,
        ..contoso()
    };
    if let Some(secret) = &mut tenant.secret_header {
        secret.values = vec![crate::mail::Secret::new("")];
    }
    assert_eq!(
        Gatehouse::new([tenant]).says(ADA, &[FROM, "X-Contoso-Gate:"]),
        "no_tenant"
    );
}

#[test]
fn senders_must_lie_in_the_accepted_domains() {
    let gate = two();
    for (sender, fields, expected) in [
        (
            "ada@sub.contoso.com",
            &[FROM][..],
            "foreign_envelope_sender contoso",
        ),
        (
            "ada@evil.example",
            &[FROM],
            "foreign_envelope_sender contoso",
        ),
        ("x@CONTOSO.onmicrosoft.com", &[FROM], "contoso proven"),
        (
            ADA,
            &["From: ceo@evil.example"],
            "foreign_header_sender contoso",
        ),
        (
            "",
            &["From: ceo@evil.example"],
            "foreign_header_sender contoso",
        ),
        (
            ADA,
            &["From: a@contoso.com, b@contoso.onmicrosoft.com"],
            "contoso proven",
        ),
        (
            ADA,
            &["From: a@contoso.com, b@evil.example"],
            "foreign_header_sender contoso",
        ),
        (
            ADA,
            &[
                "From: a@contoso.com, b@evil.example",
                "Sender: a@contoso.com",
            ],
            "contoso foreign",
        ),
        (
            ADA,
            &["From: b@evil.example", "Sender: Ada <a@contoso.com>"],
            "contoso foreign",
        ),
        (
            ADA,
            &[
                "From: b@evil.example",
                "Sender: a@contoso.com",
                "Sender: a@contoso.com",
            ],
            "foreign_header_sender contoso",
        ),
        (
            ADA,
            &[
                "From: b@evil.example",
                "Sender: a@contoso.com b@evil.example",
            ],
            "foreign_header_sender contoso",
        ),
        (
            ADA,
            &["From: b@evil.example", "Sender: b@evil.example"],
            "foreign_header_sender contoso",
        ),
        (
            ADA,
            &["From: b@evil.example", "Resent-From: a@contoso.com"],
            "contoso foreign",
        ),
        (
            ADA,
            &[
                "From: b@evil.example",
                "Resent-From: c@evil.example",
                "Resent-From: a@contoso.com",
            ],
            "contoso foreign",
        ),
        (
            ADA,
            &[
                "From: b@evil.example",
                "Resent-From: a@contoso.com, c@evil.example",
            ],
            "foreign_header_sender contoso",
        ),
        (
            ADA,
            &["From: b@evil.example", "Resent-Sender: a@contoso.com"],
            "foreign_header_sender contoso",
        ),
        (ADA, &[FROM, "Sender: b@evil.example"], "contoso proven"),
    ] {
        let fields = [fields, &[ORG, ID]].concat();
        assert_eq!(gate.says(sender, &fields), expected, "{sender} {fields:?}");
    }
}

#[test]
fn forwarded_mail_passes_where_it_is_allowed_and_is_marked() {
    let gate = Gatehouse::new([Tenant {
        forwarded_senders: Forwarded::Allow,
        ..contoso()
    }]);
    for (sender, from, expected) in [
        (
            "x@evil.example",
            "From: ceo@evil.example",
            "contoso foreign",
        ),
        ("x@evil.example", FROM, "contoso foreign"),
        (ADA, "From: ceo@evil.example", "contoso foreign"),
        ("", "From: ceo@evil.example", "contoso foreign"),
        (ADA, FROM, "contoso proven"),
        (ADA, "From: nobody", "ambiguous_evidence contoso"),
    ] {
        assert_eq!(
            gate.says(sender, &[from, ORG, ID]),
            expected,
            "{sender} {from}"
        );
    }
}

#[test]
fn the_loop_header_of_the_settled_tenant_is_a_loop() {
    let gate = two();
    for fields in [
        &["X-Gatepost-Processed: loop-contoso"][..],
        &["x-gatepost-processed :\r\n old-loop-contoso "],
        &[
            "X-Gatepost-Processed: other",
            "X-Gatepost-Processed: loop-contoso",
        ],
    ] {
        let fields = [&[FROM, ORG, ID], fields].concat();
        assert_eq!(gate.says(ADA, &fields), "loop contoso", "{fields:?}");
    }
    for value in ["loop-fabrikam", "other", ""] {
        let field = format!("X-Gatepost-Processed: {value}");
        assert_eq!(
            gate.says(ADA, &[FROM, ORG, ID, &field]),
            "contoso proven",
            "{value}"
        );
    }
    let looping = "X-Gatepost-Processed: loop-contoso";
    assert_eq!(
        gate.says(ADA, &[FROM, looping]),
        "no_tenant",
        "the gate comes first"
    );
    assert_eq!(
        gate.says(ADA, &["From: x", ORG, ID, looping]),
        "ambiguous_evidence contoso"
    );
}

fn reporting(until: u64) -> Gatehouse {
    Gatehouse::new([
        Tenant {
            gate: Gate::Report { until },
            ..contoso()
        },
        fabrikam(),
    ])
}

#[test]
fn report_mode_lets_in_what_would_be_refused() {
    let gate = reporting(NOW + 1);
    for (sender, fields, expected) in [
        (ADA, &[FROM][..], "contoso reported no_tenant"),
        (ADA, &[FROM, ORG], "contoso reported too_few_proofs"),
        (
            ADA,
            &[FROM, ORG, ORG, ID],
            "contoso reported ambiguous_evidence",
        ),
        (
            ADA,
            &[FROM, ORG, ID, "X-Contoso-Gate: wrong"],
            "contoso reported contradiction",
        ),
        (
            ADA,
            &["From: x@evil.example", ORG, ID],
            "contoso reported foreign_header_sender",
        ),
        (ADA, &["Subject: no From"], "contoso reported no_tenant"),
        ("", &[FROM], "contoso reported no_tenant"),
        ("", &["From: x@evil.example"], "no_tenant"),
        ("", &["From: a@contoso.com, x@evil.example"], "no_tenant"),
        ("", &[FROM, FROM], "no_tenant"),
        ("x@evil.example", &[FROM], "no_tenant"),
        (
            "x@evil.example",
            &[FROM, ORG, ID],
            "foreign_envelope_sender contoso",
        ),
        ("x@fabrikam.com", &["From: x@fabrikam.com"], "no_tenant"),
        (ADA, &[FROM, ORG, ID], "contoso proven"),
    ] {
        assert_eq!(gate.says(sender, fields), expected, "{sender} {fields:?}");
    }
    assert_eq!(
        gate.says_with_xoorg(ADA, "evil.example", &[FROM, ORG]),
        "contoso reported contradiction"
    );
    assert_eq!(
        gate.says_with_xoorg(ADA, "evil.example", &[FROM]),
        "contoso reported no_tenant"
    );
    assert_eq!(
        gate.says_with_xoorg("x@fabrikam.com", "evil.example", &[FROM]),
        "unknown_xoorg"
    );
}

#[test]
fn report_mode_never_takes_mail_proven_to_be_anothers() {
    let gate = reporting(NOW + 1);
    assert_eq!(
        gate.says(ADA, &[FROM, THEIR_ORG, THEIR_ID]),
        "foreign_envelope_sender fabrikam"
    );
    assert_eq!(
        gate.says("", &[FROM, THEIR_ORG, THEIR_ID]),
        "foreign_header_sender fabrikam"
    );
    assert_eq!(
        gate.says(ADA, &[FROM, THEIR_ORG, THEIR_ORG, THEIR_ID]),
        "ambiguous_evidence fabrikam"
    );
}

#[test]
fn report_mode_asks_for_the_loop_first() {
    let gate = reporting(NOW + 1);
    assert_eq!(
        gate.says(ADA, &[FROM, "X-Gatepost-Processed: loop-contoso"]),
        "loop contoso"
    );
    assert_eq!(
        gate.says(
            ADA,
            &[FROM, ORG, ID, "X-Gatepost-Processed: old-loop-contoso"]
        ),
        "loop contoso"
    );
}

#[test]
fn from_its_day_on_report_mode_enforces() {
    for until in [NOW, NOW - 1, 0] {
        let gate = reporting(until);
        assert_eq!(gate.says(ADA, &[FROM]), "no_tenant");
        assert_eq!(
            gate.says_with_xoorg(ADA, "evil.example", &[FROM]),
            "unknown_xoorg"
        );
    }
}

#[test]
fn candidates_are_chosen_by_xoorg_then_sender_then_all() {
    let gate = two();
    let names = |sender: &str, xoorg: Option<&str>| {
        let xoorg = xoorg.map(|org| org.parse().unwrap());
        match candidates(&gate.tenants, &sender.parse().unwrap(), xoorg.as_ref(), NOW) {
            Ok(found) => found
                .tenants()
                .map(|tenant| tenant.name.to_string())
                .collect::<Vec<_>>()
                .join(" "),
            Err(refusal) => {
                assert!(!refusal.evidence.0.is_empty());
                refusal.reason.to_string()
            }
        }
    };
    assert_eq!(names(ADA, Some("fabrikam.com")), "fabrikam");
    assert_eq!(names(ADA, Some("evil.example")), "unknown_xoorg");
    assert_eq!(names("", Some("evil.example")), "unknown_xoorg");
    assert_eq!(names(ADA, None), "contoso");
    assert_eq!(names("", None), "contoso fabrikam");
    assert_eq!(names("x@evil.example", None), "contoso fabrikam");
}

#[test]
fn no_path_leads_round_network_and_certificate() {
    let mut gate = reporting(NOW + 1);
    gate.peer.network = false;
    assert_eq!(gate.says(ADA, &[FROM, ORG, ID]), "half_proven_defer");
    gate.peer.certificate =
        certificate::ClientCertificate::Absent(certificate::WhyAbsent::NotPresented);
    assert_eq!(gate.says(ADA, &[FROM, ORG, ID]), "stranger");
}

#[test]
fn every_item_is_in_the_evidence_and_no_secret_is() {
    let gate = two();
    let fields = [
        FROM,
        THEIR_ORG,
        ID,
        SECRET,
        "X-Gatepost-Processed: loop-contoso",
    ];
    let Settlement::Refused(refusal) = gate.settle(&envelope(ADA), &fields) else {
        panic!("contradiction");
    };
    let table: Vec<String> = refusal
        .evidence
        .0
        .iter()
        .map(|item| {
            format!(
                "{:?} {:?} {}",
                item.kind,
                item.state,
                item.tenant.as_deref().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        table,
        [
            "Network Matches -",
            "Certificate Matches -",
            "Xoorg Absent -",
            "OriginatorOrg Differs fabrikam",
            "CrossTenantId Matches contoso",
            "ConnectingIp Absent -",
            "SecretHeader Matches contoso",
            "Dkim Absent -",
            "EnvelopeSender Matches contoso",
            "HeaderSender Matches contoso",
        ]
    );
    let printed = format!(
        "{refusal:?} {}",
        serde_json::to_string(&refusal.evidence).unwrap()
    );
    for secret in ["gate-contoso", "loop-contoso"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(printed.contains(CONTOSO_ID) && !printed.contains(FABRIKAM_ID));
    let wrong = gate.settle(&envelope(ADA), &[FROM, ORG, ID, "X-Contoso-Gate: hunter2"]);
    assert!(
        !format!("{wrong:?}").contains("hunter2"),
        "nor a wrong one: it may be a typing error away from the right one"
    );
}

#[test]
fn an_application_writes_as_its_senders_only() {
    let tenant = Arc::new(contoso());
    let app = erp(&tenant, &["erp@contoso.com", "*@billing.contoso.com"], true);
    let says = |sender: &str, fields: &[&str]| {
        word(&application(&app, &envelope(sender), &header(fields)))
    };
    let erp_from = "From: ERP <erp@contoso.com>";
    for (sender, fields, expected) in [
        ("erp@contoso.com", &[erp_from][..], "contoso application"),
        (
            "x@billing.contoso.com",
            &["From: ERP@contoso.com, y@billing.contoso.com"],
            "contoso application",
        ),
        ("ada@contoso.com", &[erp_from], "sender_not_allowed contoso"),
        ("", &[erp_from], "sender_not_allowed contoso"),
        ("erp@contoso.com", &[FROM], "from_not_allowed contoso"),
        (
            "erp@contoso.com",
            &["From: erp@contoso.com, ada@contoso.com"],
            "from_not_allowed contoso",
        ),
        (
            "erp@contoso.com",
            &[erp_from, FROM],
            "from_duplicate contoso",
        ),
        (
            "erp@contoso.com",
            &["from : erp@contoso.com", erp_from],
            "from_duplicate contoso",
        ),
        ("erp@contoso.com", &["Subject: x"], "from_absent contoso"),
        (
            "erp@contoso.com",
            &["From: ada@contoso.com <erp@contoso.com>"],
            "from_unreadable contoso",
        ),
        ("erp@contoso.com", &["From:"], "from_unreadable contoso"),
        (
            "erp@contoso.com",
            &[erp_from, "X-Gatepost-Processed: loop-contoso"],
            "contoso application",
        ),
    ] {
        assert_eq!(says(sender, fields), expected, "{sender} {fields:?}");
    }
    assert!(submission_candidates(&app, &"erp@contoso.com".parse().unwrap()).is_ok());
    let refused = submission_candidates(&app, &"".parse().unwrap()).unwrap_err();
    assert_eq!(refused.reason, Reason::SenderNotAllowed);
}

#[test]
fn the_stamp_names_the_senders_accepted_domain() {
    let tenant = Arc::new(contoso());
    let org = |senders: &[&str], internal, sender: &str, from: &str| {
        let from = format!("From: {from}");
        match application(
            &erp(&tenant, senders, internal),
            &envelope(sender),
            &header(&[&from]),
        ) {
            Settlement::Settled(verdict) => verdict.stamp_org().map(ToString::to_string),
            Settlement::Refused(refusal) => Some(refusal.reason.to_string()),
            Settlement::NeedsSignature(_) => None,
        }
    };
    let any = [
        "*@contoso.com",
        "*@contoso.onmicrosoft.com",
        "*@evil.example",
        "<>",
    ];
    let onmicrosoft = Some("contoso.onmicrosoft.com".to_owned());
    assert_eq!(
        org(&any, true, "x@contoso.onmicrosoft.com", "x@contoso.com"),
        onmicrosoft
    );
    assert_eq!(
        org(&any, true, "", "x@contoso.onmicrosoft.com"),
        onmicrosoft
    );
    assert_eq!(org(&any, true, "x@evil.example", "x@contoso.com"), None);
    assert_eq!(org(&any, true, "", "x@evil.example"), None);
    assert_eq!(org(&any, false, "x@contoso.com", "x@contoso.com"), None);
    assert_eq!(
        own(&tenant).stamp_org().map(ToString::to_string).as_deref(),
        Some("contoso.com")
    );
}
