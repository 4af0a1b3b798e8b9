//! The mail that must get through: applications and devices, then what Exchange's users and systems send.

use super::super::client::{Mail, Transfer};
use super::super::scene::{Actor, Cast, Login};
use super::super::{Dialect, Organization};
use super::messages::{self, Inside};
use super::{
    Abroad, Act, Expect, OVER_MX, Player, Row, Taken, from_exchange, stamped, token, without_leaks,
};

/// Applications and devices.
pub(super) fn applications(cast: &Cast, rows: &mut Vec<Row>) {
    if let Some(actor) = cast
        .actors
        .iter()
        .find(|actor| actor.internal && actor.login.is_some())
    {
        let dialects = [
            Dialect::Login,
            Dialect::Plain,
            Dialect::PlainOnRequest,
            Dialect::LoginWithName,
            Dialect::LowerCaseLogin,
        ];
        let acts = dialects
            .into_iter()
            .enumerate()
            .filter_map(|(index, dialect)| {
                let token = token(rows, index);
                application_act(cast, actor, Login::Own(dialect), token, false)
            });
        rows.push(Row {
            name: "printer to a colleague",
            why: "what a printer sends must land as internal; it is logged in as five kinds of device do",
            acts: acts.collect(),
        });
    }
    to_outside(cast, rows);
    let by_address = |actor: &&Actor| actor.login.is_none() && actor.door.repairs;
    if let Some(actor) = cast.actors.iter().find(by_address) {
        let act = application_act(cast, actor, Login::None, token(rows, 0), true);
        rows.extend(act.map(|act| Row {
            name: "old device without login or TLS",
            why: "known by its address alone; its bare line feeds are repaired, Date and Message-ID added",
            acts: vec![act],
        }));
    }
    if let Some(actor) = cast
        .actors
        .iter()
        .find(|actor| !actor.internal && actor.login.is_some())
    {
        let act = application_act(
            cast,
            actor,
            Login::Own(Dialect::Plain),
            token(rows, 0),
            false,
        );
        rows.extend(act.map(|act| Row {
            name: "application that is not internal",
            why: "attributed by certificate, but without the stamp nothing is promoted: two gates",
            acts: vec![act],
        }));
    }
}

/// Selected mail of Exchange that leaves by a reputation of its own.
fn to_outside(cast: &Cast, rows: &mut Vec<Row>) {
    let (Some(organization), Some(reader)) = (cast.organizations.first(), &cast.outside) else {
        return;
    };
    let token = token(rows, 0);
    let ada = organization.address("ada");
    let inside = Inside::new(&format!("Ada <{ada}>"), reader, "Our newsletter", &token)
        .field("X-Greeting: t\u{e4}glich")
        .body(messages::dotty_body());
    let mail = Mail::new(&ada, reader, inside.build());
    let Some((outbound, taken)) = stamped(organization, mail) else {
        return;
    };
    let abroad = Abroad {
        organization: organization.clone(),
        sender: taken.sender,
        recipients: taken.recipients,
        bytes: without_leaks(&outbound.mail.content, organization),
    };
    rows.push(Row {
        name: OVER_MX,
        why: "what leaves for strangers must carry no trust: no internal header, no secret, no certificate of the tenant",
        acts: vec![Act {
            token,
            player: from_exchange(outbound),
            expect: Expect::Abroad(abroad),
        }],
    });
}

pub(super) fn application_act(
    cast: &Cast,
    actor: &Actor,
    login: Login,
    token: String,
    device: bool,
) -> Option<Act> {
    let organization = cast.organizations.get(actor.tenant)?;
    let to = organization.address("bob");
    let content = if device {
        messages::device(&actor.sender, &to, &token)
    } else {
        messages::application(&actor.sender, &to, "Scan of 24 November", &token, "")
    };
    let transfer = if device {
        Transfer::Data
    } else {
        Transfer::Best
    };
    let mail = Mail::new(&actor.sender, &to, content).by(transfer);
    let taken = application_taken(organization, actor, &mail, device);
    Some(Act {
        token,
        player: Player::Application {
            actor: actor.clone(),
            login,
            mail,
        },
        expect: Expect::Taken(taken),
    })
}

/// How an application's message must arrive, where nothing in it is forged.
pub(super) fn application_taken(
    organization: &Organization,
    actor: &Actor,
    mail: &Mail,
    device: bool,
) -> Taken {
    let promoted = organization
        .inbound
        .as_ref()
        .is_some_and(|inbound| inbound.cloud_services_mail_enabled);
    let repaired = || {
        String::from_utf8_lossy(&mail.content)
            .replace("\r\n", "\n")
            .replace('\n', "\r\n")
            .into_bytes()
    };
    Taken {
        tenant: organization.name.clone(),
        internal: actor.internal && promoted,
        sender: mail.sender.clone(),
        recipients: mail.recipients.clone(),
        parameters: Vec::new(),
        bytes: if device {
            repaired()
        } else {
            mail.content.clone()
        },
        loop_header: organization.loop_header.clone(),
        stamped: actor.internal,
        completed: device,
        chunked: true,
    }
}

/// What Exchange's users and systems send.
pub(super) fn exchange(cast: &Cast, rows: &mut Vec<Row>) {
    let Some(organization) = cast.organizations.first() else {
        return;
    };
    let ada = organization.address("ada");
    let bob = organization.address("bob");
    let mut add = |name: &'static str, why: &'static str, make: &dyn Fn(&str) -> Mail| {
        let token = token(rows, 0);
        if let Some((outbound, taken)) = stamped(organization, make(&token)) {
            let act = Act {
                token,
                player: from_exchange(outbound),
                expect: Expect::Taken(taken),
            };
            rows.push(Row {
                name,
                why,
                acts: vec![act],
            });
        }
    };
    add(
        "user to user",
        "the message must come back still internal and not a byte different",
        &|token| {
            Mail::new(
                &ada,
                &bob,
                Inside::new(&format!("Ada <{ada}>"), &bob, "Lunch menu", token).build(),
            )
        },
    );
    add(
        "group post, four recipients",
        "one message, many recipients, raw 8-bit octets in its header",
        &|token| {
            let group = organization.address("allhands");
            let inside = Inside::new(&ada, &group, "Team day", token)
            .field(b"X-Legacy-App: caf\xe9 r\xe9f\xe9rence (latin-1)")
            .field("X-Greeting: t\u{e4}gliches Treffen \u{2013} Gr\u{f6}\u{df}e")
            .field("X-MS-Exchange-UnifiedGroup-SubmittedViaGroupAddress:\r\n /o=ExchangeLabs/cn=Recipients/cn=0000-allhands")
            .field("List-ID: <allhands>")
            .field("Precedence: list");
            Mail::new(&ada, &bob, inside.build())
                .and_to(&organization.address("carol"))
                .and_to(&format!(
                    "{0}> NOTIFY=FAILURE,DELAY ORCPT=rfc822;{0}",
                    organization.address("dave")
                ))
                .and_to(&format!("{}> NOTIFY=NEVER", organization.address("erin")))
                .parameter("RET=HDRS")
                .parameter("ENVID=QQ314159+2B1")
        },
    );
    add(
        "meeting request",
        "a calendar part that is re-encoded is a meeting that cannot be accepted",
        &|token| {
            let inside = Inside::new(&ada, &bob, "Project review", token)
                .organization("TransportTrafficSubType: MeetingMessage")
                .content_type("multipart/alternative;\r\n\tboundary=\"b_cal\"")
                .body(messages::calendar_body());
            Mail::new(&ada, &bob, inside.build())
        },
    );
    add(
        "automatic reply",
        "null sender: only the header can say whose mail it is",
        &|token| {
            let inside = Inside::new(&bob, &ada, "Automatic reply: Lunch menu", token)
                .field("X-Auto-Response-Suppress: All")
                .field("auto-submitted: auto-generated")
                .field(format!("X-MS-Exchange-Inbox-Rules-Loop: {bob}"))
                .field("x-ms-exchange-generated-message-source: Mailbox Rules Agent");
            Mail::new("", &ada, inside.build())
        },
    );
    add(
        "non-delivery report",
        "null sender again; reports that vanish leave senders in the dark",
        &|token| {
            let inside = Inside::new(
                &organization.address("postmaster"),
                &ada,
                "Undeliverable: Lunch menu",
                token,
            )
            .field("X-MS-Exchange-Message-Is-Ndr:")
            .field("Auto-Submitted: auto-replied")
            .content_type("multipart/report; report-type=delivery-status;\r\n\tboundary=\"b_ndr\"")
            .body(messages::report_body(&organization.address("nobody")));
            Mail::new("", &ada, inside.build())
        },
    );
    add(
        "bare line feeds, NUL, every octet",
        "Exchange sends such mail by BDAT only, and it must come back so",
        &|token| {
            let inside = Inside::new(&ada, &bob, "Sensor dump", token)
                .content_type("application/octet-stream\r\nContent-Transfer-Encoding: binary")
                .body(messages::binary_body());
            Mail::new(&ada, &bob, inside.build()).by(Transfer::Chunks(1000))
        },
    );
    add(
        "dots, 8 bit, 20 KB of References",
        "what a careless relay changes: dots, folds, long lines, a missing last newline",
        &|token| {
            let inside = Inside::new(&ada, &bob, "Re: Re: Re: plans", token)
                .field(messages::long_references())
                .field("X-Twice: one")
                .field("x-twice: two")
                .field("X-Blank-Line:\r\n \t \r\n continued")
                .body(messages::dotty_body());
            Mail::new(&ada, &bob, inside.build())
        },
    );
    tenants_together(cast, rows);
}

/// Mail of several tenants on one connection of Exchange.
fn tenants_together(cast: &Cast, rows: &mut Vec<Row>) {
    if cast.organizations.len() < 2 {
        return;
    }
    let round = cast.organizations.iter().chain(cast.organizations.first());
    let acts = round.enumerate().filter_map(|(index, organization)| {
        let token = token(rows, index);
        let (from, to) = (organization.address("ada"), organization.address("bob"));
        let mail = Mail::new(
            &from,
            &to,
            Inside::new(&from, &to, "Weekly figures", &token).build(),
        );
        let (outbound, taken) = stamped(organization, mail)?;
        Some(Act {
            token,
            player: from_exchange(outbound),
            expect: Expect::Taken(taken),
        })
    });
    rows.push(Row {
        name: "several tenants on one connection",
        why: "Exchange mixes tenants on a connection; each must leave by its own certificate, never a shared connection",
        acts: acts.collect(),
    });
}

/// Mail still flows after everything that was tried; and what was refused has had time to turn up where it should not.
pub(super) fn last(cast: &Cast, rows: &mut Vec<Row>) {
    let Some(organization) = cast.organizations.first() else {
        return;
    };
    let token = token(rows, 0);
    let (ada, bob) = (organization.address("ada"), organization.address("bob"));
    let mail = Mail::new(
        &ada,
        &bob,
        Inside::new(&ada, &bob, "Still there?", &token).build(),
    );
    if let Some((outbound, taken)) = stamped(organization, mail) {
        let act = Act {
            token,
            player: from_exchange(outbound),
            expect: Expect::Taken(taken),
        };
        rows.push(Row {
            name: "mail still flows",
            why: "what attackers tried must not have closed the door to anyone else",
            acts: vec![act],
        });
    }
}
