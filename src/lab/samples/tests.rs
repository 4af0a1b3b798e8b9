use super::super::scene::Door;
use super::super::{Security, border};
use super::*;
use crate::mail::Secret;
use std::collections::BTreeSet;

const TERMS: Terms = Terms {
    returns: true,
    needs_signature: false,
    forwards: false,
};

pub(crate) fn cast() -> Cast {
    let tenant = |name: &str, id: &str| {
        let mut organization = Organization::new(
            name,
            id.parse().unwrap(),
            format!("{name}.com").parse().unwrap(),
        );
        organization.secret_header =
            Some(("X-Gate".to_owned(), Secret::new(format!("{name}-gate"))));
        organization.loop_header =
            Some(("X-Round".to_owned(), Secret::new(format!("{name}-round"))));
        organization
    };
    let door = |name: &str, security, repairs| Door {
        name: name.to_owned(),
        address: "127.0.0.1:1".parse().unwrap(),
        security,
        repairs,
        max_message_size: 157_286_400,
        server_name: "localhost".to_owned(),
    };
    let apps = door("apps", Security::StartTls, false);
    let actor = |name: &str, login: bool, internal, door: &Door| Actor {
        name: name.to_owned(),
        tenant: 0,
        login: login.then(|| (name.to_owned(), Secret::new("password"))),
        sender: format!("{name}@contoso.com"),
        not_its_own: "ceo@contoso.com".to_owned(),
        internal,
        returns: true,
        source: None,
        door: door.clone(),
    };
    Cast {
        hostname: "smarthost.contoso.com".to_owned(),
        connector: Some(Connector {
            withheld: Vec::new(),
            max_message_size: 157_286_400,
        }),
        terms: vec![TERMS; 2],
        organizations: vec![
            tenant("contoso", "3f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c10"),
            tenant("fabrikam", "b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25"),
        ],
        actors: vec![
            actor("printer", true, true, &apps),
            actor(
                "scanner",
                false,
                true,
                &door("devices", Security::Clear, true),
            ),
            actor("crm", true, false, &apps),
        ],
        half_proven_refuses: false,
        outside: Some("reader@partner.example".to_owned()),
    }
}

#[test]
fn the_printer_comes_first_and_every_row_has_its_reason() {
    let rows = rows(&cast());
    assert_eq!(rows[0].name, "printer to a colleague");
    assert_eq!(rows[1].name, "user to outside over mx, nothing leaked");
    assert_eq!(rows.last().unwrap().name, "mail still flows");
    let names: BTreeSet<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len());
    let tokens: Vec<_> = rows
        .iter()
        .flat_map(|row| &row.acts)
        .map(|act| &act.token)
        .collect();
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), tokens.len());
    for wanted in [
        "user to user",
        "meeting request",
        "automatic reply",
        "non-delivery report",
        "hostile tenant, XOORG",
        "forged application",
        "several tenants on one connection",
        "smuggling over the connector",
    ] {
        assert!(names.contains(wanted), "{wanted}");
    }
    for row in &rows {
        assert!(
            !row.acts.is_empty() && !row.why.is_empty() && !row.why.contains('\n'),
            "{}",
            row.name
        );
    }
}

#[test]
fn what_must_arrive_never_holds_the_secret_header() {
    let cast = cast();
    for act in rows(&cast).iter().flat_map(|row| &row.acts) {
        if let (Player::Exchange { outbound, .. }, Expect::Taken(taken)) =
            (&act.player, &act.expect)
        {
            let holds = |bytes: &[u8]| memchr::memmem::find(bytes, b"-gate\r\n").is_some();
            assert!(holds(&outbound.mail.content), "{}", act.token);
            assert!(!holds(&taken.bytes), "{}", act.token);
            assert_eq!(
                outbound.mail.content.len() - taken.bytes.len(),
                format!("X-Gate: {}-gate\r\n", taken.tenant).len()
            );
        }
        if let Player::Application { mail, .. }
        | Player::Clear(mail)
        | Player::Smuggler {
            outbound: Outbound { mail, .. },
            ..
        } = &act.player
        {
            let marked = format!("({})", act.token);
            assert!(
                memchr::memmem::find(&mail.content, marked.as_bytes()).is_some(),
                "{}",
                act.token
            );
        }
    }
}

#[test]
fn every_kind_of_trap_is_in_the_samples() {
    let rows = rows(&cast());
    let sent = |name: &str| match &rows.iter().find(|row| row.name == name).unwrap().acts[0].player
    {
        Player::Exchange { outbound, .. } => outbound.mail.content.clone(),
        other => panic!("{other:?}"),
    };
    let binary = sent("bare line feeds, NUL, every octet");
    assert!(
        binary.contains(&0)
            && binary
                .windows(2)
                .any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
    );
    let dots = sent("dots, 8 bit, 20 KB of References");
    assert!(memchr::memmem::find(&dots, b"\r\n.\r\n").is_some() && !dots.ends_with(b"\n"));
    let longest = dots
        .split(|octet| *octet == b'\n')
        .map(<[u8]>::len)
        .max()
        .unwrap();
    assert!(longest > 15_000);
    assert!(
        sent("group post, four recipients")
            .iter()
            .any(|octet| *octet > 127)
    );
}

#[test]
fn small_casts_play_what_they_can() {
    let mut small = cast();
    small.organizations.truncate(1);
    small.actors.clear();
    small.outside = None;
    assert_eq!(waiting(&cast()), []);
    small.organizations[0].secret_header = None;
    small.organizations[0].loop_header = None;
    let all = super::rows(&cast()).len();
    assert_eq!(waiting(&small).len(), all - super::rows(&small).len());
    let rows = rows(&small);
    assert!(
        rows.iter()
            .all(|row| !row.name.contains("application") && !row.name.contains("several tenants"))
    );
    assert!(rows.len() > 15);
}

/// Names of the rows that are left out, and what they need.
fn left_out(cast: &Cast) -> Vec<(&'static str, &'static str)> {
    let waiting = waiting(cast).into_iter();
    waiting
        .map(|waiting| (waiting.name, waiting.needs))
        .collect()
}

#[test]
fn what_makes_no_sense_for_a_configuration_is_left_out_with_its_reason() {
    let with = |change: &dyn Fn(&mut Cast)| {
        let mut cast = cast();
        change(&mut cast);
        left_out(&cast)
    };
    let withheld = |keywords: &[&str]| {
        with(&|cast| {
            let connector = cast.connector.as_mut().unwrap();
            connector.withheld = keywords.iter().map(|word| (*word).to_owned()).collect();
        })
    };
    assert_eq!(
        withheld(&["XOORG", "CHUNKING", "DSN", "SIZE", "8BITMIME"]),
        [
            ("bare line feeds, NUL, every octet", needs::CHUNKING),
            ("hostile tenant, XOORG", needs::XOORG),
        ]
    );
    assert_eq!(
        with(&|cast| cast.terms[0].needs_signature = true),
        [("bare line feeds, NUL, every octet", needs::CANONICAL)]
    );
    let small = with(&|cast| cast.connector.as_mut().unwrap().max_message_size = 12_000);
    let names: Vec<_> = small.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "user to outside over mx, nothing leaked",
            "dots, 8 bit, 20 KB of References"
        ]
    );
    assert!(small.iter().all(|(_, needs)| *needs == needs::ROOM));
    // The second tenant plays the main part where the first one's mail takes another way.
    let second = with(&|cast| cast.terms[0].returns = false);
    assert_eq!(
        second,
        [("several tenants on one connection", needs::RETURN_OF_TWO)]
    );
    let nobody = with(&|cast| cast.connector = None);
    // The default stage plays all of them.
    assert!(nobody.len() > 20);
    assert!(
        nobody
            .iter()
            .all(|(name, needs)| *needs == needs::CONNECTOR && !name.contains("application"))
    );
}

#[test]
fn a_neighbour_that_forwards_is_taken_as_itself() {
    let mut cast = cast();
    let act = |cast: &Cast| {
        let rows = rows(cast);
        let row = rows
            .iter()
            .find(|row| row.name == "one customer as another");
        row.unwrap().acts[0].expect.clone()
    };
    assert!(matches!(act(&cast), Expect::Refused { code: 550, .. }));
    cast.terms[1].forwards = true;
    match act(&cast) {
        Expect::Taken(taken) => assert_eq!(taken.tenant, "fabrikam"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn leaks_are_seen_by_the_oracle_of_the_mx_row() {
    let cast = cast();
    let contoso = &cast.organizations[0];
    let content = b"From: a@contoso.com\r\nX-MS-Exchange-Organization-AuthAs: Internal\r\n\r\nx-round: in the body\r\n";
    let exit = border::leave(contoso, None, content, "id").unwrap();
    let leaked = leaks(&exit.content, contoso);
    assert_eq!(
        leaked,
        [
            "X-MS-Exchange-CrossPremises-AuthAs",
            "X-OrganizationHeadersPreserved",
            "X-Gate"
        ]
    );
    assert_eq!(
        leaks(b"X-OriginatorOrg: contoso.com\r\n\r\n", contoso),
        Vec::<String>::new()
    );
}
