//! The mail that must get through: applications and devices, then what Exchange's users and systems send.

use super::super::client::{Mail, Transfer};
use super::super::scene::{Actor, Cast, Login};
use super::super::{Dialect, Organization};
use super::messages::{self, Inside};
use super::{
    Abroad, Act, Expect, Player, Program, Taken, from_exchange, main_part, needs, returning,
    stamped, transferred, without_leaks,
};

/// Applications and devices.
pub(super) fn applications(program: &mut Program<'_>) {
    let cast = program.cast;
    let played = |wanted: &dyn Fn(&Actor) -> bool| {
        let mut actors = cast.actors.iter();
        actors.find(|actor| actor.returns && wanted(actor))
    };
    program.play(
        "printer to a colleague",
        "what a printer sends must land as internal; it is logged in as five kinds of device do",
        |token| {
            let printer = played(&|actor| actor.internal && actor.login.is_some());
            let actor = printer.ok_or(needs::INTERNAL)?;
            let dialects = [
                Dialect::Login,
                Dialect::Plain,
                Dialect::PlainOnRequest,
                Dialect::LoginWithName,
                Dialect::LowerCaseLogin,
            ];
            let acts = dialects.into_iter().enumerate().map(|(index, dialect)| {
                application_act(cast, actor, Login::Own(dialect), token(index), false)
            });
            acts.collect::<Option<_>>().ok_or(needs::MADE)
        },
    );
    to_outside(program);
    program.play(
        "old device without login or TLS",
        "known by its address alone; its bare line feeds are repaired, Date and Message-ID added",
        |token| {
            let device = played(&|actor| actor.login.is_none() && actor.door.repairs);
            let actor = device.ok_or(needs::DEVICE)?;
            let act = application_act(cast, actor, Login::None, token(0), true);
            Ok(vec![act.ok_or(needs::MADE)?])
        },
    );
    program.play(
        "application that is not internal",
        "attributed by certificate, but without the stamp nothing is promoted: two gates",
        |token| {
            let plain = played(&|actor| !actor.internal && actor.login.is_some());
            let actor = plain.ok_or(needs::NOT_INTERNAL)?;
            let login = Login::Own(Dialect::Plain);
            let act = application_act(cast, actor, login, token(0), false);
            Ok(vec![act.ok_or(needs::MADE)?])
        },
    );
}

/// Selected mail of Exchange that leaves by a reputation of its own.
fn to_outside(program: &mut Program<'_>) {
    let cast = program.cast;
    program.add(
        "user to outside over mx, nothing leaked",
        "what leaves for strangers must carry no trust: no internal header, no secret, no certificate of the tenant",
        |token| {
            let (connector, organization, _) = main_part(cast)?;
            let reader = cast.outside.as_ref().ok_or(needs::OUTSIDE)?;
            let ada = organization.address("ada");
            let inside = Inside::new(&format!("Ada <{ada}>"), reader, "Our newsletter", token)
                .field("X-Greeting: t\u{e4}glich")
                .body(messages::dotty_body());
            let mail = Mail::new(&ada, reader, inside.build());
            let (outbound, taken) = stamped(connector, organization, mail)?;
            let bytes = without_leaks(&outbound.mail.content, organization);
            let abroad = Abroad {
                organization: organization.clone(),
                sender: taken.sender,
                recipients: taken.recipients,
                bytes: transferred(connector, bytes),
            };
            Ok((from_exchange(outbound), Expect::Abroad(abroad)))
        },
    );
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
pub(super) fn exchange(program: &mut Program<'_>) {
    let cast = program.cast;
    let Some((_, organization)) = cast.main() else {
        return;
    };
    let ada = organization.address("ada");
    let bob = organization.address("bob");
    let mut given = |name: &'static str,
                     why: &'static str,
                     demand: &dyn Fn() -> Result<(), &'static str>,
                     make: &dyn Fn(&str) -> Mail| {
        program.add(name, why, |token| {
            let (connector, organization, _) = returning(cast)?;
            demand()?;
            let (outbound, taken) = stamped(connector, organization, make(token))?;
            Ok((from_exchange(outbound), Expect::Taken(taken)))
        });
    };
    let dsn = cast.connector.as_ref().is_some_and(|one| one.offers("DSN"));
    let binary = || {
        let (connector, _, terms) = returning(cast)?;
        let offered = connector.offers("CHUNKING").then_some(());
        offered.ok_or(needs::CHUNKING)?;
        (!terms.needs_signature)
            .then_some(())
            .ok_or(needs::CANONICAL)
    };
    let mut add = |name, why, make: &dyn Fn(&str) -> Mail| given(name, why, &|| Ok(()), make);
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
            let mail = Mail::new(&ada, &bob, inside.build());
            let mail = mail.and_to(&organization.address("carol"));
            if !dsn {
                // What is not offered is not said (RFC 3461 §5).
                return mail
                    .and_to(&organization.address("dave"))
                    .and_to(&organization.address("erin"));
            }
            mail.and_to(&format!(
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
    given(
        "bare line feeds, NUL, every octet",
        "Exchange sends such mail by BDAT only, and it must come back so",
        &binary,
        &|token| {
            let inside = Inside::new(&ada, &bob, "Sensor dump", token)
                .content_type("application/octet-stream\r\nContent-Transfer-Encoding: binary")
                .body(messages::binary_body());
            Mail::new(&ada, &bob, inside.build()).by(Transfer::Chunks(1000))
        },
    );
    given(
        "dots, 8 bit, 20 KB of References",
        "what a careless relay changes: dots, folds, long lines, a missing last newline",
        &|| Ok(()),
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
    tenants_together(program);
}

/// Mail of several tenants on one connection of Exchange.
fn tenants_together(program: &mut Program<'_>) {
    let cast = program.cast;
    program.play(
        "several tenants on one connection",
        "Exchange mixes tenants on a connection; each must leave by its own certificate, never a shared connection",
        |token| {
            let connector = cast.connector.as_ref().ok_or(needs::CONNECTOR)?;
            let returning = || cast.parts().filter(|(_, terms)| terms.returns);
            if returning().count() < 2 {
                return Err(needs::RETURN_OF_TWO);
            }
            let round = returning().chain(returning().take(1));
            let acts = round.enumerate().map(|(index, (organization, _))| {
                let token = token(index);
                let (from, to) = (organization.address("ada"), organization.address("bob"));
                let inside = Inside::new(&from, &to, "Weekly figures", &token);
                let mail = Mail::new(&from, &to, inside.build());
                let (outbound, taken) = stamped(connector, organization, mail)?;
                Ok(Act {
                    token,
                    player: from_exchange(outbound),
                    expect: Expect::Taken(taken),
                })
            });
            acts.collect()
        },
    );
}

/// Mail still flows after everything that was tried; and what was refused has had time to turn up where it should not.
pub(super) fn last(program: &mut Program<'_>) {
    let cast = program.cast;
    program.add(
        "mail still flows",
        "what attackers tried must not have closed the door to anyone else",
        |token| {
            let (connector, organization, _) = returning(cast)?;
            let (ada, bob) = (organization.address("ada"), organization.address("bob"));
            let inside = Inside::new(&ada, &bob, "Still there?", token);
            let mail = Mail::new(&ada, &bob, inside.build());
            let (outbound, taken) = stamped(connector, organization, mail)?;
            Ok((from_exchange(outbound), Expect::Taken(taken)))
        },
    );
}
