//! Where is a signature asked for, and what does each answer make of the mail?

use super::*;
use crate::trust::candidates;
use crate::trust::fixtures::{contoso, domains, envelope, fabrikam, proven_peer, tenants};
use crate::trust::{EvidenceKind, HalfProven};

const NOW: u64 = 1_795_594_533;
const ADA: &str = "ada@contoso.com";
const FROM: &str = "From: Ada Example <ada@contoso.com>";
const ORG: &str = "X-OriginatorOrg: contoso.com";
const ID: &str = "X-MS-Exchange-CrossTenant-id: 11111111-2222-3333-4444-555555555555";
const SECRET: &str = "X-Contoso-Gate: gate-contoso";
const SIGNED: &str =
    "DKIM-Signature: v=1; a=rsa-sha256; d=contoso.com; s=s1;\r\n\th=From; bh=YQ==; b=YQ==";
const ALSO_SIGNED: &str =
    "dkim-signature : v=1; a=rsa-sha256; d=contoso.onmicrosoft.com; s=s1; h=From; bh=YQ==; b=YQ==";
const THEIRS: &str =
    "DKIM-Signature: v=1; a=rsa-sha256; d=fabrikam.com; s=s1; h=From; bh=YQ==; b=YQ==";

fn settlement(list: &[Tenant], sender: &str, xoorg: Option<&str>, fields: &[&str]) -> Settlement {
    let tenants = tenants(list.iter().cloned());
    let text: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let header = crate::header::examine(format!("{text}\r\n").as_bytes()).unwrap();
    let mut envelope = envelope(sender);
    envelope.xoorg = xoorg.map(|org| org.parse().unwrap());
    let candidates = candidates(
        &tenants,
        &envelope.reverse_path,
        envelope.xoorg.as_ref(),
        NOW,
    )
    .unwrap();
    settle(
        &tenants,
        &candidates,
        &proven_peer(),
        &envelope,
        &header,
        NOW,
    )
}

fn word(outcome: &Result<Verdict, Refusal>) -> String {
    match outcome {
        Ok(verdict) => {
            let class = match verdict.class() {
                Class::Proven { .. } => "proven".to_owned(),
                Class::Validation { .. } => "validation".to_owned(),
                Class::Reported { reason } => format!("reported {reason}"),
                Class::Application { .. } | Class::Own => "impossible".to_owned(),
            };
            format!("{} {class}", verdict.tenant().name)
        }
        Err(refusal) => refusal.reason.to_string(),
    }
}

fn pending(settlement: Settlement) -> Option<Pending> {
    match settlement {
        Settlement::NeedsSignature(pending) => Some(*pending),
        Settlement::Settled(_) | Settlement::Refused(_) => None,
    }
}

fn fact(letter: char) -> SignatureFact {
    match letter {
        'v' => SignatureFact::Verified,
        'f' => SignatureFact::Failed("the body differs".to_owned()),
        _ => SignatureFact::Unavailable("no answer".to_owned()),
    }
}

/// What each answer makes of it: one letter a signature, verified, failed, unavailable. `settled` where nothing is asked.
fn says(list: &[Tenant], sender: &str, fields: &[&str], answers: &str) -> String {
    match settlement(list, sender, None, fields) {
        Settlement::NeedsSignature(pending) => {
            assert_eq!(pending.signatures().len(), answers.len(), "{fields:?}");
            word(&pending.conclude(&DkimFacts(answers.chars().map(fact).collect())))
        }
        Settlement::Settled(verdict) => format!("settled {}", word(&Ok(verdict))),
        Settlement::Refused(refusal) => format!("settled {}", word(&Err(refusal))),
    }
}

fn proofs(tenant: Tenant, proofs: usize) -> Tenant {
    Tenant { proofs, ..tenant }
}

#[test]
fn one_verified_signature_of_the_tenant_counts_as_one_item() {
    let list = [contoso(), fabrikam()];
    for fields in [
        &[FROM, ORG, SIGNED][..],
        &[FROM, ID, SIGNED],
        &[FROM, SECRET, SIGNED],
        &[SIGNED, FROM, ORG],
        &[FROM, ORG, THEIRS, SIGNED],
        &[FROM, ORG, ALSO_SIGNED],
    ] {
        assert_eq!(
            says(&list, ADA, fields, "v"),
            "contoso proven",
            "{fields:?}"
        );
        assert_eq!(
            says(&list, ADA, fields, "f"),
            "too_few_proofs",
            "{fields:?}"
        );
        assert_eq!(
            says(&list, ADA, fields, "u"),
            "signature_unavailable",
            "{fields:?}"
        );
    }
    assert_eq!(says(&list, "", &[FROM, ORG, SIGNED], "v"), "contoso proven");
    let both = &[FROM, ORG, SIGNED, ALSO_SIGNED];
    for (answers, expected) in [
        ("vv", "contoso proven"),
        ("fv", "contoso proven"),
        ("vu", "contoso proven"),
        ("fu", "signature_unavailable"),
        ("ff", "too_few_proofs"),
    ] {
        assert_eq!(says(&list, ADA, both, answers), expected, "{answers}");
    }
    // Two signatures are one item.
    let three = [proofs(contoso(), 3)];
    assert_eq!(says(&three, ADA, both, ""), "settled too_few_proofs");
    assert_eq!(
        says(&three, ADA, &[FROM, ORG, ID, SIGNED], "v"),
        "contoso proven"
    );
    let five = [proofs(contoso(), 5)];
    let all = settlement(
        &five,
        ADA,
        Some("contoso.com"),
        &[FROM, ORG, ID, SECRET, SIGNED],
    );
    let verified = pending(all).unwrap().conclude(&DkimFacts(vec![fact('v')]));
    assert_eq!(word(&verified), "contoso proven");
    let one = [proofs(contoso(), 1)];
    assert_eq!(says(&one, ADA, &[FROM, SIGNED], "v"), "contoso proven");
    assert_eq!(says(&one, ADA, &[FROM, SIGNED], "f"), "no_tenant");
}

/// The gate comes before the loop check; mail that only the signature lets pass the gate is a loop with it.
#[test]
fn what_was_here_before_and_is_proven_by_its_signature_is_a_loop() {
    let list = [contoso(), fabrikam()];
    let fields = &[FROM, ORG, SIGNED, "X-Gatepost-Processed: loop-contoso"];
    for (answer, expected) in [
        ("v", "loop"),
        ("f", "too_few_proofs"),
        ("u", "signature_unavailable"),
    ] {
        assert_eq!(says(&list, ADA, fields, answer), expected);
    }
    let pending = pending(settlement(&list, ADA, None, fields)).unwrap();
    let kept: Vec<_> = pending.likely_verdicts().collect();
    assert_eq!(kept.len(), 1, "its secret may not rest on the disk either");
    let reporting = Tenant {
        gate: Gate::Report { until: NOW + 1 },
        ..contoso()
    };
    assert_eq!(says(&[reporting], ADA, fields, ""), "settled loop");
}

#[test]
fn dkim_is_asked_only_where_it_can_change_the_verdict() {
    let list = [contoso(), fabrikam()];
    for (sender, fields, expected) in [
        (ADA, &[FROM, ORG, ID, SIGNED][..], "settled contoso proven"),
        (ADA, &[FROM, ORG, ID, THEIRS], "settled contoso proven"),
        (ADA, &[FROM, SIGNED], "settled no_tenant"),
        (ADA, &[FROM, ORG], "settled too_few_proofs"),
        (ADA, &[FROM, ORG, THEIRS], "settled too_few_proofs"),
        (
            ADA,
            &[FROM, ORG, SIGNED, "X-Contoso-Gate: wrong"],
            "settled contradiction",
        ),
        (
            ADA,
            &[
                FROM,
                ORG,
                SIGNED,
                "X-MS-Exchange-CrossTenant-Id: b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25",
            ],
            "settled contradiction",
        ),
        (ADA, &[FROM, ORG, ORG, SIGNED], "settled ambiguous_evidence"),
        (ADA, &["From: x", ORG, SIGNED], "settled too_few_proofs"),
        (
            "x@evil.example",
            &[FROM, ORG, SIGNED],
            "settled too_few_proofs",
        ),
        (
            ADA,
            &["From: x@evil.example", ORG, SIGNED],
            "settled too_few_proofs",
        ),
        (
            ADA,
            &[
                FROM,
                ORG,
                "DKIM-Signature: v=1; a=rsa-sha256; d=contoso.com; s=s1; h=From; l=9; bh=YQ==; b=YQ==",
            ],
            "settled too_few_proofs",
        ),
        (
            ADA,
            &[
                FROM,
                ORG,
                "DKIM-Signature: v=1; a=rsa-sha256; d=sub.contoso.com; s=s1; h=From; bh=YQ==; b=YQ==",
            ],
            "settled too_few_proofs",
        ),
        (
            ADA,
            &[FROM, ORG, "X: y", "DKIM-Signatures: d=contoso.com"],
            "settled too_few_proofs",
        ),
    ] {
        assert_eq!(
            says(&list, sender, fields, ""),
            expected,
            "{sender} {fields:?}"
        );
    }
    let returned = &[FROM, ORG, ID, SIGNED, "X-Gatepost-Processed: loop-contoso"];
    assert_eq!(says(&list, ADA, returned, ""), "settled loop");
    let mut required = contoso();
    if let Some(secret) = &mut required.secret_header {
        secret.required = true;
    }
    assert_eq!(
        says(
            std::slice::from_ref(&required),
            ADA,
            &[FROM, ORG, SIGNED],
            ""
        ),
        "settled secret_missing"
    );
    assert_eq!(
        says(
            std::slice::from_ref(&required),
            ADA,
            &[FROM, SECRET, SIGNED],
            "v"
        ),
        "contoso proven"
    );
    let check = "O365ConnectorValidation@contoso.com";
    let from = "From: O365ConnectorValidation@contoso.com";
    assert_eq!(
        says(&[required], check, &[from, ORG, SIGNED], "v"),
        "contoso validation"
    );
    assert_eq!(
        says(&list, check, &[from, ORG, SIGNED], "f"),
        "too_few_proofs"
    );
}

#[test]
fn the_domains_of_a_tenant_are_its_accepted_ones_and_its_organisations() {
    let tenant = Tenant {
        accepted_domains: domains(&["contoso.com", "*.contoso.net"]),
        originator_orgs: domains(&["contoso.com", "contoso.onmicrosoft.com"]),
        ..contoso()
    };
    for (domain, may) in [
        ("contoso.com", true),
        ("CONTOSO.com", true),
        ("a.b.contoso.net", true),
        ("contoso.onmicrosoft.com", true),
        ("sub.contoso.com", false),
        ("com", false),
        ("xcontoso.com", false),
    ] {
        assert_eq!(
            may_sign_for(&tenant, &domain.parse().unwrap()),
            may,
            "{domain}"
        );
    }
}

#[test]
fn at_most_four_signatures_that_fit_are_looked_at() {
    let list = [contoso(), fabrikam()];
    let field = |number: usize| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=contoso.com; s=s{number}; h=From; bh=YQ==; b=YQ=="
        )
    };
    let many: Vec<String> = (1..=9).map(field).collect();
    let mut fields = vec![FROM, ORG, THEIRS, THEIRS];
    fields.extend(many.iter().map(String::as_str));
    let pending = pending(settlement(&list, ADA, None, &fields)).unwrap();
    let asked: Vec<&str> = pending
        .signatures()
        .iter()
        .map(Signature::selector)
        .collect();
    assert_eq!(asked, ["s1", "s2", "s3", "s4"]);
    let facts = DkimFacts(vec![fact('f'); 4]);
    assert_eq!(word(&pending.conclude(&facts)), "too_few_proofs");
}

#[test]
fn a_signature_never_contradicts() {
    // Either tenant would be proven by a signature alone.
    let list = [proofs(contoso(), 1), proofs(fabrikam(), 1)];
    assert_eq!(
        says(&list, ADA, &[FROM, SECRET, THEIRS], ""),
        "settled contoso proven"
    );
    // Ada may not write for fabrikam: its signature is not even asked about, but where it forwards it is.
    assert_eq!(
        says(&list, ADA, &[FROM, SIGNED, THEIRS], "v"),
        "contoso proven"
    );
    let [contoso, fabrikam] = list;
    let forwarding = Tenant {
        forwarded_senders: Forwarded::Allow,
        ..fabrikam
    };
    let list = [contoso, forwarding];
    for (answers, expected) in [
        ("vf", "contoso proven"),
        ("fv", "fabrikam proven"),
        ("vv", "contradiction"),
        ("ff", "no_tenant"),
    ] {
        assert_eq!(
            says(&list, ADA, &[FROM, SIGNED, THEIRS], answers),
            expected,
            "{answers}"
        );
    }
}

#[test]
fn report_mode_asks_too() {
    let reporting = Tenant {
        gate: Gate::Report { until: NOW + 1 },
        ..contoso()
    };
    let list = [reporting.clone(), fabrikam()];
    let fields = &[FROM, ORG, SIGNED];
    assert_eq!(says(&list, ADA, fields, "v"), "contoso proven");
    assert_eq!(
        says(&list, ADA, fields, "f"),
        "contoso reported too_few_proofs"
    );
    assert_eq!(
        says(&list, ADA, fields, "u"),
        "signature_unavailable",
        "an unreachable resolver makes a 451, not a pass"
    );
    assert_eq!(
        says(&list, ADA, &[FROM, SIGNED], ""),
        "settled contoso reported no_tenant"
    );
    // Mail proven to be another configured tenant's is always refused, also where its signature proves it.
    let list = [reporting, proofs(fabrikam(), 1)];
    let fields = &[FROM, THEIRS];
    assert_eq!(says(&list, ADA, fields, "v"), "foreign_envelope_sender");
    assert_eq!(says(&list, ADA, fields, "f"), "contoso reported no_tenant");
}

#[test]
fn nothing_is_asked_of_a_peer_that_the_first_two_gates_do_not_know() {
    let tenants = tenants([contoso()]);
    let header = crate::header::examine(format!("{FROM}\r\n{ORG}\r\n{SIGNED}\r\n\r\n").as_bytes());
    let envelope = envelope(ADA);
    let candidates = candidates(&tenants, &envelope.reverse_path, None, NOW).unwrap();
    let mut peer = proven_peer();
    peer.network = false;
    let settled = settle(
        &tenants,
        &candidates,
        &peer,
        &envelope,
        &header.unwrap(),
        NOW,
    );
    let Settlement::Refused(refusal) = settled else {
        panic!("{settled:?}")
    };
    assert_eq!(
        Some(refusal.reason),
        Reason::of_standing(peer.standing(), HalfProven::Defer)
    );
}

#[test]
fn the_evidence_tells_what_became_of_the_signatures() {
    let list = [contoso(), fabrikam()];
    let item = |evidence: &super::super::Evidence| {
        let mut items = evidence
            .0
            .iter()
            .filter(|item| item.kind == EvidenceKind::Dkim);
        let item = items.next().unwrap();
        assert!(items.next().is_none());
        let (tenant, seen) = (item.tenant.as_deref(), item.seen.as_deref());
        format!(
            "{:?} {} {}",
            item.state,
            tenant.unwrap_or("-"),
            seen.unwrap_or("-")
        )
    };
    let fields = &[FROM, ORG, SIGNED, ALSO_SIGNED];
    let conclude = |answers: &str| {
        let pending = pending(settlement(&list, ADA, None, fields)).unwrap();
        match pending.conclude(&DkimFacts(answers.chars().map(fact).collect())) {
            Ok(verdict) => item(verdict.evidence()),
            Err(refusal) => {
                assert_eq!(
                    refusal.tenant.as_deref().map(|tenant| &*tenant.name),
                    Some("contoso")
                );
                item(&refusal.evidence)
            }
        }
    };
    insta::assert_snapshot!(conclude("fv"), @"Matches contoso contoso.com: the body differs | contoso.onmicrosoft.com: verified");
    insta::assert_snapshot!(conclude("ff"), @"Absent - contoso.com: the body differs | contoso.onmicrosoft.com: the body differs");
    insta::assert_snapshot!(conclude("fu"), @"Absent - contoso.com: the body differs | contoso.onmicrosoft.com: cannot be checked now: no answer");
    let unasked = |fields: &[&str]| match settlement(&list, ADA, None, fields) {
        Settlement::Settled(verdict) => item(verdict.evidence()),
        Settlement::Refused(refusal) => item(&refusal.evidence),
        Settlement::NeedsSignature(pending) => panic!("{pending:?}"),
    };
    insta::assert_snapshot!(unasked(&[FROM, ORG, ID]), @"Absent - -");
    insta::assert_snapshot!(unasked(&[FROM, ORG, ID, SIGNED]), @"Absent - contoso.com: not asked, it could not change the verdict");
    insta::assert_snapshot!(unasked(&[FROM, ORG, ID, THEIRS]), @"Absent - fabrikam.com: not asked, it could not change the verdict");
    let evil = "DKIM-Signature: v=1; a=rsa-sha256; d=evil.example; s=s; h=From; bh=YQ==; b=YQ==";
    insta::assert_snapshot!(unasked(&[FROM, ORG, evil]), @"Absent - evil.example: no tenant's");
    insta::assert_snapshot!(unasked(&[FROM, ORG, "DKIM-Signature: what?"]), @"Absent - none over From: and the whole body in a known algorithm");
}

#[test]
fn secrets_may_be_blanked_before_the_facts_are_there() {
    let reporting = Tenant {
        gate: Gate::Report { until: NOW + 1 },
        ..contoso()
    };
    let classes = |list: &[Tenant], fields: &[&str]| -> Vec<String> {
        let pending = pending(settlement(list, ADA, None, fields)).unwrap();
        pending
            .likely_verdicts()
            .map(|verdict| word(&Ok(verdict.clone())))
            .collect()
    };
    assert_eq!(
        classes(&[contoso()], &[FROM, ORG, SIGNED]),
        ["contoso proven"]
    );
    assert_eq!(
        classes(std::slice::from_ref(&reporting), &[FROM, ORG, SIGNED]),
        ["contoso proven"]
    );
    assert_eq!(
        classes(&[reporting, proofs(fabrikam(), 1)], &[FROM, THEIRS]),
        ["contoso reported no_tenant"]
    );
}
