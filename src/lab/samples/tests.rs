use super::super::scene::Door;
use super::super::{Security, border};
use super::*;
use crate::mail::Secret;
use std::collections::BTreeSet;

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
        source: None,
        door: door.clone(),
    };
    Cast {
        hostname: "smarthost.contoso.com".to_owned(),
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
        | Player::Smuggler { mail, .. } = &act.player
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
    assert_eq!(waiting(&small).len(), 1);
    assert_eq!(waiting(&cast()), []);
    small.organizations[0].secret_header = None;
    small.organizations[0].loop_header = None;
    let rows = rows(&small);
    assert!(
        rows.iter()
            .all(|row| !row.name.contains("application") && !row.name.contains("several tenants"))
    );
    assert!(rows.len() > 15);
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
