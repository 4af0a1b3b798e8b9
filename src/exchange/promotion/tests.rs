use super::*;
use crate::header::examine;
use crate::trust::fixtures::{CONTOSO_ID, FABRIKAM_ID, contoso, fabrikam, tenants};

fn header(fields: &[&str]) -> Examined {
    let text: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    examine(format!("{text}\r\n").as_bytes()).unwrap()
}

const CROSSING: [&str; 4] = [
    "X-MS-Exchange-CrossPremises-AuthAs: Internal",
    "X-MS-Exchange-CrossPremises-AuthMechanism: 04",
    "X-MS-Exchange-CrossPremises-AuthSource: GV2.prod.outlook.com",
    "X-OrganizationHeadersPreserved: AM8.prod.outlook.com",
];
const STAMP: &str = "X-OriginatorOrg: contoso.com";
/// The second proof that the gate asks for.
const ID: &str = "X-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555";
const FROM: &str = "From: Ada <ada@contoso.com>";

fn with(more: &[&'static str]) -> Vec<&'static str> {
    [&[FROM], more].concat()
}

/// As mail of a mailbox leaves Exchange by a connector with CloudServicesMailEnabled.
fn stamped() -> Vec<&'static str> {
    [&CROSSING[..], &[STAMP, ID]].concat()
}

/// As Gatepost with contoso's configuration has it, the certificate being attributed so.
fn judged(fields: &[&str], change: impl FnOnce(&mut Facts<'_>)) -> Judgement {
    judged_by(&tenants([contoso()]), fields, change)
}

fn judged_by(tenants: &Tenants, fields: &[&str], change: impl FnOnce(&mut Facts<'_>)) -> Judgement {
    let tenant = tenants.named("contoso").cloned().unwrap();
    let answer = attributed(attribution::Verdict::Attributed);
    let hostname = "smarthost.contoso.com".parse().unwrap();
    let mut facts = Facts {
        tenants: Some(tenants),
        hostname: Some(&hostname),
        tenant: Some(&tenant),
        attribution: Some(&answer),
        promotes: Some(true),
        as_delivered: false,
        now: 0,
    };
    change(&mut facts);
    judge(&header(fields), None, &facts)
}

fn attributed(verdict: attribution::Verdict) -> attribution::Answer {
    attribution::Answer {
        verdict,
        tenant: Some("contoso".to_owned()),
        by: None,
        steps: Vec::new(),
        replies: Vec::new(),
        because: "the reason".to_owned(),
        mended_by: Some("the remedy".to_owned()),
    }
}

fn on_its_way(fields: &[&'static str]) -> Judgement {
    let judgement = judged(&with(fields), |_| ());
    assert_eq!(judgement.reading, Reading::OnItsWay);
    judgement
}

fn mailbox(fields: &[&'static str]) -> Judgement {
    let judgement = judged(
        &[&with(fields)[..], &["X-EOPAttributedMessage: 0"]].concat(),
        |_| (),
    );
    assert_eq!(judgement.reading, Reading::Mailbox);
    judgement
}

#[test]
fn both_gates_make_it_internal() {
    let judgement = on_its_way(&stamped());
    assert_eq!(judgement.internal, Some(true));
    insta::assert_snapshot!(judgement.sentence(), @"Internal: the certificate attributes it, and the inbound connector promotes AuthAs Internal, AuthMechanism 04, AuthSource GV2.prod.outlook.com.");
    // Without a configuration it says what it has not judged.
    let alone = judge(&header(&with(&stamped())), None, &Facts::default());
    assert_eq!(alone.internal, Some(true));
    assert!(
        alone.because.contains("no configuration was read"),
        "{}",
        alone.because
    );
}

#[test]
fn attribution_and_promotion_are_two_gates() {
    let answer = attributed(attribution::Verdict::External);
    let tenants = tenants([contoso()]);
    let tenant = tenants.named("contoso").cloned().unwrap();
    let facts = Facts {
        tenants: Some(&tenants),
        tenant: Some(&tenant),
        attribution: Some(&answer),
        promotes: Some(true),
        ..Facts::default()
    };
    let fields = header(&with(&stamped()));
    let judgement = judge(&fields, None, &facts);
    assert_eq!(judgement.internal, Some(false));
    insta::assert_snapshot!(judgement.sentence(), @"External because Exchange would not take it for the tenant's own: the reason; mended by this: the remedy.");
    let off = judged(&with(&stamped()), |facts| facts.promotes = Some(false));
    assert_eq!(off.internal, Some(false));
    assert!(
        off.because.contains("cloud_services_mail_enabled = false"),
        "{}",
        off.because
    );
    let row = off
        .rows
        .iter()
        .find(|row| row.field.contains("cloud_services"))
        .unwrap();
    assert_eq!(row.bears, Bears::External);
}

#[test]
fn what_is_missing_or_wrong_on_the_way_is_named() {
    let internal = "X-MS-Exchange-CrossTenant-AuthAs: Internal";
    let [auth_as, mechanism, source, preserved] = CROSSING;
    for (fields, because, remedy) in [
        (&[][..], "no CrossPremises fields", "internal = true"),
        (
            &[internal],
            "left Exchange as internal but without",
            "Set-OutboundConnector",
        ),
        (
            &[
                "X-MS-Exchange-CrossTenant-AuthAs: Anonymous",
                "X-MS-Exchange-CrossTenant-FromEntityHeader: HybridOnPrem",
            ],
            "already external when it left Exchange (AuthAs Anonymous, having come in over a connector",
            "an inbound connector that fits",
        ),
        (
            &["X-CrossPremisesHeadersFilteredBySendConnector: host"],
            "on-premises send connector",
            "Set-SendConnector",
        ),
        (
            &[auth_as, auth_as, mechanism, source, preserved],
            "stands 2 times",
            "second time",
        ),
        (
            &[auth_as, mechanism, preserved],
            "without AuthSource",
            "letting the fields through",
        ),
        (
            &[auth_as, source, preserved],
            "without AuthMechanism",
            "letting the fields through",
        ),
        (
            &[
                "X-MS-Exchange-CrossPremises-AuthAs: Anonymous",
                mechanism,
                source,
                preserved,
            ],
            "AuthAs Anonymous: it was not internal before",
            "stays external",
        ),
        (
            &[auth_as, mechanism, source, STAMP],
            "neither Exchange",
            "internal = true",
        ),
        (&CROSSING, "without a stamp", "internal = true"),
        (
            &[
                auth_as,
                "X-MS-Exchange-CrossPremises-AuthMechanism: 10",
                "X-MS-Exchange-CrossPremises-AuthSource: smarthost.contoso.com",
            ],
            "without a stamp",
            "internal = true",
        ),
        (
            &[auth_as, mechanism, source, preserved, STAMP, STAMP],
            "X-OriginatorOrg stands 2 times",
            "explain trust",
        ),
    ] {
        let judgement = on_its_way(fields);
        assert_eq!(judgement.internal, Some(false), "{fields:?}");
        assert!(judgement.because.contains(because), "{}", judgement.because);
        assert!(judgement.mended_by.as_deref().unwrap().contains(remedy));
    }
}

#[test]
fn our_own_stamp_and_what_gatepost_delivers_are_believed() {
    let stamp = [
        "X-MS-Exchange-CrossPremises-AuthAs: Internal",
        "X-MS-Exchange-CrossPremises-AuthMechanism: 10",
        "X-MS-Exchange-CrossPremises-AuthSource: smarthost.contoso.com",
        STAMP,
    ];
    assert_eq!(on_its_way(&stamp).internal, Some(true));
    // Without a configuration nobody knows our name: by its mechanism it is as we write it.
    for (mechanism, internal) in [(stamp[1], true), (CROSSING[1], false)] {
        let fields = with(&[stamp[0], mechanism, stamp[2], STAMP]);
        let alone = judge(&header(&fields), None, &Facts::default());
        assert_eq!(alone.internal, Some(internal), "{mechanism}");
    }
    let delivered = judged(&with(&CROSSING[..3]), |facts| facts.as_delivered = true);
    assert_eq!(delivered.internal, Some(true));
}

#[test]
fn stamps_of_a_stranger_are_told_before_all() {
    let id = format!("X-MS-Exchange-CrossTenant-Id: {FABRIKAM_ID}");
    let fields = [&with(&CROSSING)[..], &[&*id]].concat();
    let judgement = judged(&fields, |facts| facts.tenant = None);
    assert_eq!(judgement.internal, Some(false));
    assert!(
        judgement.because.contains("not configured"),
        "{}",
        judgement.because
    );
    let own = format!("X-MS-Exchange-CrossTenant-id: {CONTOSO_ID}");
    let fields = [&with(&CROSSING)[..], &[&*own, STAMP]].concat();
    assert_eq!(judged(&fields, |_| ()).internal, Some(true));
    let org = with(&["X-OriginatorOrg: evil.example"]);
    assert!(
        judged(&org, |_| ())
            .because
            .contains("X-OriginatorOrg: evil.example")
    );
}

/// What Gatepost refuses is internal for nobody, whatever its CrossPremises fields say; and the sentence names the item.
#[test]
fn what_the_tenant_gate_refuses_is_external_because_of_that_item() {
    let gate = "X-contoso-Gate: gate-contoso";
    let connecting = format!(
        "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp: TenantId={FABRIKAM_ID};Ip=[203.0.113.66];Helo=[x]"
    );
    let other = "X-OriginatorOrg: example.com";
    let spoilt = "X-OriginatorOrg: not a domain!";
    let garbage = "X-MS-Exchange-CrossTenant-Id: garbage";
    for (fields, because, remedy) in [
        (
            &[other, ID][..],
            "contradicts the tenant (contoso; X-OriginatorOrg: example.com)",
            "add example.com to accepted_domains",
        ),
        (
            &["X-OriginatorOrg: fabrikam.com", ID],
            "(contoso; X-OriginatorOrg: fabrikam.com)",
            "move fabrikam.com from fabrikam",
        ),
        (
            &[spoilt, ID],
            "X-OriginatorOrg: not a domain! is nothing that Exchange writes",
            "let X-OriginatorOrg through",
        ),
        (
            &[STAMP, garbage],
            "X-MS-Exchange-CrossTenant-Id: garbage is nothing",
            "let X-MS-Exchange-CrossTenant-Id through",
        ),
        (
            &[STAMP, ID, &*connecting],
            "OriginalAttributedTenantConnectingIp: TenantId=b7e0a4d3",
            "a connector of another tenant",
        ),
        (
            &[STAMP, ID, "X-contoso-Gate: wrong"],
            "(contoso; the secret header)",
            "connector diff",
        ),
        (
            &[STAMP, ID, gate, gate],
            "the secret header stands more than once",
            "a second time",
        ),
        (
            &[STAMP],
            "fewer items than `proofs`",
            "set the secret header",
        ),
        (
            &[STAMP, ID, "X-Gatepost-Processed: loop-contoso"],
            "loop header is there already",
            "connector diff",
        ),
    ] {
        let tenants = tenants([contoso(), fabrikam()]);
        let all = [&with(&CROSSING)[..], fields].concat();
        let judgement = judged_by(&tenants, &all, |_| ());
        assert_eq!(judgement.internal, Some(false), "{fields:?}");
        assert!(judgement.because.contains(because), "{}", judgement.because);
        let mended_by = judgement.mended_by.as_deref().unwrap();
        assert!(
            mended_by.contains(remedy) && mended_by.contains("explain trust"),
            "{mended_by}"
        );
        let row = judgement
            .rows
            .iter()
            .find(|row| row.field == "(tenant gate)");
        assert_eq!(row.unwrap().bears, Bears::External);
        let text = format!("{judgement:?}");
        assert!(
            !text.contains("gate-contoso") && !text.contains("loop-contoso"),
            "{text}"
        );
    }
    // What no configuration is needed for is told without one.
    for field in [spoilt, garbage] {
        let fields = [&with(&CROSSING)[..], &[field]].concat();
        let alone = judge(&header(&fields), None, &Facts::default());
        assert_eq!(alone.internal, Some(false), "{field}");
        assert!(alone.because.contains("is nothing that Exchange writes"));
    }
}

/// One judgement: internal on its way is only what the gate itself lets in as proven.
#[test]
fn headers_and_trust_cannot_disagree() {
    let tenants = tenants([contoso(), fabrikam()]);
    let connecting = format!(
        "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp: TenantId={FABRIKAM_ID}"
    );
    let choices: [&[&str]; 5] = [
        &[
            "",
            STAMP,
            "X-OriginatorOrg: fabrikam.com",
            "X-OriginatorOrg: x.example",
            "X-OriginatorOrg: no domain",
        ],
        &["", ID, "X-MS-Exchange-CrossTenant-Id: garbage"],
        &["", "X-contoso-Gate: gate-contoso", "X-contoso-Gate: wrong"],
        &["", &*connecting],
        &[
            FROM,
            "From: eve@elsewhere.example",
            "From: a@fabrikam.com",
            "From: a@contoso.com\r\nSender: b@contoso.com",
        ],
    ];
    let mut internal = 0;
    let count = choices.iter().map(|choice| choice.len()).product::<usize>();
    for number in 0..count {
        let mut rest = number;
        let mut fields = CROSSING.to_vec();
        for choice in choices {
            fields.push(choice[rest % choice.len()]);
            rest /= choice.len();
        }
        fields.retain(|field| !field.is_empty());
        let judgement = judged_by(&tenants, &fields, |_| ());
        assert_eq!(judgement.reading, Reading::OnItsWay);
        let settled = crate::trust::settle_saved(&tenants, &header(&fields), 0);
        let proven = matches!(
            &settled,
            crate::trust::Settlement::Settled(verdict) if verdict.is_from_trusted_connector()
        );
        let stamped = fields.iter().any(|field| [STAMP, ID].contains(field));
        assert_eq!(
            judgement.internal == Some(true),
            proven && stamped,
            "{fields:?}: {}",
            judgement.sentence()
        );
        internal += usize::from(proven);
    }
    assert!(
        internal > 3 && internal < count / 2,
        "{internal} of {count}"
    );
}

#[test]
fn mail_that_passes_for_a_report_loses_the_fields() {
    let reporting = || Tenant {
        gate: crate::trust::Gate::Report { until: 10 },
        ..contoso()
    };
    let tenants = tenants([reporting()]);
    let fields = [&with(&CROSSING)[..], &["X-OriginatorOrg: example.com", ID]].concat();
    for (now, because) in [
        (9, "gate = \"report\" lets it in"),
        (10, "Gatepost refuses it"),
    ] {
        let judgement = judged_by(&tenants, &fields, |facts| facts.now = now);
        assert_eq!(judgement.internal, Some(false));
        assert!(judgement.because.contains(because), "{}", judgement.because);
    }
}

#[test]
fn what_the_gate_waits_for_or_an_excerpt_lacks_cannot_be_told() {
    let signed = "DKIM-Signature: v=1; a=rsa-sha256; d=contoso.com; s=s1; h=From; bh=YQ==; b=YQ==";
    let fields = [&with(&CROSSING)[..], &[STAMP, signed]].concat();
    let undecided = judged(&fields, |_| ());
    assert_eq!(undecided.internal, None);
    assert!(
        undecided.sentence().contains("explain trust --dns"),
        "{}",
        undecided.sentence()
    );
    let excerpt = judged(&stamped(), |_| ());
    assert_eq!(excerpt.internal, None);
    assert!(
        excerpt.sentence().contains("take the whole header"),
        "{}",
        excerpt.sentence()
    );
}

/// Behind Gatepost the loop header is there and the secret is not: no fault of what it has delivered itself.
#[test]
fn what_has_passed_gatepost_is_not_judged_as_if_it_came_again() {
    let ours = "Received: from x\r\n\tby smarthost.contoso.com with ESMTPS; now";
    let looped = "X-Gatepost-Processed: loop-contoso";
    let fields = [&[ours, looped, FROM], &CROSSING[..], &[STAMP]].concat();
    assert_eq!(judged(&fields, |_| ()).internal, Some(true));
    for field in [
        "X-MS-Exchange-CrossTenant-Id: garbage",
        "X-OriginatorOrg: x.example",
    ] {
        let fields = [&[ours, looped, FROM], &CROSSING[..], &[ID, field]].concat();
        assert_eq!(judged(&fields, |_| ()).internal, Some(false), "{field}");
    }
}

#[test]
fn what_exchange_made_of_it_stands_in_a_mailbox() {
    let anonymous = "X-MS-Exchange-Organization-AuthAs: Anonymous";
    let originating = "X-MS-Exchange-Organization-MessageDirectionality: Originating";
    let incoming = "X-MS-Exchange-Organization-MessageDirectionality: Incoming";
    let promoted = "X-CrossPremisesHeadersPromoted: AMS.prod.outlook.com";
    let hybrid = "X-MS-Exchange-CrossTenant-FromEntityHeader: HybridOnPrem";
    for (fields, because, remedy) in [
        (
            &[anonymous, incoming][..],
            "no inbound connector fitted",
            "explain attribution",
        ),
        (
            &[anonymous, originating],
            "an application's mail without the internal stamp",
            "internal = true",
        ),
        (
            &[anonymous, hybrid],
            "an application's mail without the internal stamp",
            "internal = true",
        ),
        (
            &[anonymous, originating, CROSSING[3]],
            "dropped where they came in",
            "Set-InboundConnector",
        ),
        (
            &[
                anonymous,
                originating,
                "X-MS-Exchange-Transport-CrossTenantHeadersStripped: AMS",
            ],
            "left Exchange without CrossPremises fields",
            "Set-OutboundConnector",
        ),
        (
            &[anonymous, originating, promoted],
            "carries the original verdict",
            "[[application]]",
        ),
        (
            &[
                anonymous,
                "X-MS-Exchange-CrossTenant-FromEntityHeader: Internet",
            ],
            "no inbound connector fitted",
            "explain attribution",
        ),
        (&[anonymous], "is not in this copy", "explain attribution"),
        (
            &["X-MS-Exchange-Organization-AuthAs: Partner"],
            "a partner's",
            "OnPremises",
        ),
    ] {
        let judgement = mailbox(fields);
        assert_eq!(judgement.internal, Some(false), "{fields:?}");
        assert!(judgement.because.contains(because), "{}", judgement.because);
        let mended_by = judgement.mended_by.unwrap();
        assert!(mended_by.contains(remedy), "{mended_by}");
    }
    let internal = "X-MS-Exchange-Organization-AuthAs: Internal";
    let judgement = mailbox(&[internal, originating, promoted]);
    insta::assert_snapshot!(judgement.sentence(), @"Internal: attributed by the connector and promoted, AuthAs Internal.");
    assert!(mailbox(&[internal]).because.contains("without promotion"));
    let untold = mailbox(&[incoming]);
    assert_eq!(untold.internal, None);
    assert!(
        untold.sentence().starts_with("It cannot be told"),
        "{}",
        untold.sentence()
    );
}

#[test]
fn a_verdict_that_stands_twice_is_nobodys() {
    let internal = "X-MS-Exchange-Organization-AuthAs: Internal";
    let anonymous = "X-MS-Exchange-Organization-AuthAs: Anonymous";
    let promoted = "X-CrossPremisesHeadersPromoted: AMS.prod.outlook.com";
    for (fields, told) in [
        ([internal, anonymous], Some(false)),
        ([anonymous, internal], Some(false)),
        ([anonymous, anonymous], Some(false)),
        ([internal, internal], None),
    ] {
        let judgement = mailbox(&[fields[0], promoted, fields[1]]);
        assert_eq!(judgement.internal, told, "{fields:?}");
        assert!(
            judgement.because.contains("stands 2 times"),
            "{judgement:?}"
        );
        assert!(judgement.mended_by.unwrap().contains("the mailbox itself"));
    }
    let crossing = ["X-MS-Exchange-CrossTenant-AuthAs: Internal"; 2];
    let fields = header(&with(&crossing));
    let judgement = judge(&fields, Some(Reading::Mailbox), &Facts::default());
    assert_eq!(judgement.internal, None);
}

#[test]
fn the_reading_is_recognised() {
    let reading = |fields: &[&str]| judged(fields, |_| ()).reading;
    let forged = "X-MS-Exchange-Organization-AuthAs: Internal";
    // An excerpt shows no more; a whole message that has never met Exchange has forged it.
    assert_eq!(reading(&[forged]), Reading::Mailbox);
    assert_eq!(reading(&[FROM, forged]), Reading::OnItsWay);
    let met = "Received: from x by AMS.mail.protection.outlook.com with Microsoft\r\n SMTP Server id 1; now";
    assert_eq!(reading(&[met, FROM, forged]), Reading::Mailbox);
    let ours = "Received: from x\r\n\tby smarthost.contoso.com with ESMTPS; now";
    assert_eq!(reading(&[ours, met, FROM, forged]), Reading::OnItsWay);
    let told = judge(
        &header(&[forged]),
        Some(Reading::OnItsWay),
        &Facts::default(),
    );
    assert_eq!(
        (told.reading, told.internal),
        (Reading::OnItsWay, Some(false))
    );
}

/// A guess is told as one where the other reading has another answer, and nowhere else.
#[test]
fn a_reading_that_is_a_guess_says_so() {
    let forged = "X-MS-Exchange-Organization-AuthAs: Internal";
    let excerpt = "Received: from a.example (192.0.2.1) by b.example with ESMTP; now";
    let otherwise = |fields: &[&str]| {
        let judgement = judge(&header(fields), None, &Facts::default());
        (judgement.reading, judgement.otherwise)
    };
    assert_eq!(
        otherwise(&[excerpt, FROM, forged]),
        (Reading::OnItsWay, Some(Reading::Mailbox))
    );
    assert_eq!(
        otherwise(&[forged]),
        (Reading::Mailbox, Some(Reading::OnItsWay))
    );
    assert_eq!(
        otherwise(&["X-MS-Exchange-CrossTenant-AuthAs: Internal"]),
        (Reading::OnItsWay, Some(Reading::Mailbox))
    );
    // Between two hosts of Exchange it is a mailbox's, though the product is not named.
    let inside = "Received: from GV2.eurprd05.prod.outlook.com (::1) by\r\n AM8.eurprd05.prod.outlook.com (::1) with HTTPS; now";
    assert_eq!(otherwise(&[inside, FROM, forged]), (Reading::Mailbox, None));
    assert_eq!(otherwise(&with(&stamped())), (Reading::OnItsWay, None));
    assert_eq!(otherwise(&[FROM]), (Reading::OnItsWay, None));
    let asked = judge(
        &header(&[excerpt, FROM, forged]),
        Some(Reading::OnItsWay),
        &Facts::default(),
    );
    assert_eq!(asked.otherwise, None);
}

#[test]
fn loop_header_values_are_never_shown() {
    for (value, shown) in [("loop-contoso", "(matches)"), ("loop-other", "(differs)")] {
        let field = format!("X-Gatepost-Processed: {value}");
        let judgement = judged(&[&with(&CROSSING)[..], &[&*field]].concat(), |_| ());
        assert!(!format!("{judgement:?}").contains(value), "{judgement:?}");
        let row = judgement
            .rows
            .iter()
            .find(|row| row.field == "X-Gatepost-Processed");
        assert_eq!(row.unwrap().value, shown);
    }
}

#[test]
fn a_loop_header_whose_value_a_server_keeps_back_is_not_said_to_differ() {
    let field = format!("X-Gatepost-Processed: {}", crate::header::KEPT_BACK);
    let judgement = judged(&[&with(&CROSSING)[..], &[&*field]].concat(), |_| ());
    let mut rows = judgement.rows.iter();
    let row = rows
        .find(|row| row.field == "X-Gatepost-Processed")
        .unwrap();
    assert_eq!(row.value, "(not shown)");
    assert!(row.says.contains("keeps its value back"), "{}", row.says);
}

#[test]
fn values_of_peers_are_escaped() {
    let judgement = judged(&["X-MS-Exchange-Organization-AuthAs: \x1b[31mred"], |_| ());
    let text = format!("{} {:?}", judgement.sentence(), judgement.rows);
    assert!(!text.contains('\x1b'), "{text}");
}
