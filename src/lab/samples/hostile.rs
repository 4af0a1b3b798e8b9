//! The mail that must not get through, or not as what it pretends to be.

use super::super::client::{Mail, Transfer};
use super::super::scene::{Actor, Login, Shown};
use super::super::{Dialect, Organization, Outbound};
use super::messages::{self, Inside};
use super::welcome::application_taken;
use super::{Act, Expect, Player, Program, from_exchange, main_part, needs, returning, stamped};
use crate::smtp::reply::Enhanced;

const ATTRIBUTION: (u16, Enhanced) = (550, (5, 7, 64));
const NOT_ALLOWED: (u16, Enhanced) = (550, (5, 7, 1));

fn refused(at: Option<&'static str>, (code, enhanced): (u16, Enhanced)) -> Expect {
    Expect::Refused { at, code, enhanced }
}

/// A tenant that no configuration names.
fn attacker() -> Option<Organization> {
    let id = "0badc0de-0bad-4bad-8bad-0badc0de0bad".parse().ok()?;
    Some(Organization::new(
        "attacker",
        id,
        "attacker.onmicrosoft.example".parse().ok()?,
    ))
}

/// The Network-Message-Id of forged mail; no judge reads it.
const NETWORK_ID: &str = "3996568b-0a1a-45d5-9488-9cce4e655602";

/// Other tenants of Microsoft 365: they have Exchange's address and certificate as well.
pub(super) fn tenants(program: &mut Program<'_>) {
    let cast = program.cast;
    let Some((position, organization)) = cast.main() else {
        return;
    };
    let ceo = organization.address("ceo");
    let victim = organization.address("bob");
    let spoof = |token: &str| {
        let content = Inside::new(&format!("CEO <{ceo}>"), &victim, "Urgent payment", token)
            // What its transport rule sets is removed at the exit, and the true stamp put in its place.
            .field(format!("X-OriginatorOrg: {}", organization.stamp_for(None)))
            .field(format!("X-MS-Exchange-CrossTenant-Id: {}", organization.id))
            .build();
        Mail::new(&ceo, &victim, content)
    };
    let leaving = |organization: &Organization, token: &str| {
        Outbound::stamped(organization, spoof(token), NETWORK_ID).ok_or(needs::MADE)
    };
    let by_attacker = |token: &str| leaving(&attacker().ok_or(needs::MADE)?, token);
    program.add(
        "hostile tenant, XOORG",
        "EchoSpoofing: any tenant can relay your sender through Exchange; its own XOORG gives it away at MAIL",
        |token| {
            let (connector, ..) = main_part(cast)?;
            connector.offers("XOORG").then_some(()).ok_or(needs::XOORG)?;
            Ok((
                from_exchange(by_attacker(token)?),
                refused(Some("MAIL"), ATTRIBUTION),
            ))
        },
    );
    program.add(
        "hostile tenant, no XOORG",
        "the same where Exchange sends no XOORG: the stamps in the header name the attacker",
        |token| {
            returning(cast)?;
            Ok((
                from_exchange(by_attacker(token)?.xoorg(None)),
                refused(None, ATTRIBUTION),
            ))
        },
    );
    program.add(
        "hostile tenant without stamps",
        "mail that nothing names a tenant for is nobody's, whatever its From: says",
        |token| {
            returning(cast)?;
            let content =
                format!("From: {ceo}\r\nTo: {victim}\r\nSubject: Urgent ({token})\r\n\r\nPay.\r\n");
            let outbound = Outbound::bare(Mail::new(&ceo, &victim, content));
            Ok((from_exchange(outbound), refused(None, ATTRIBUTION)))
        },
    );
    let mut others = cast.parts().enumerate();
    let neighbour = others.find(|(other, _)| *other != position);
    let neighbour = neighbour.map(|(_, part)| part);
    // What it may forward is its own mail to Exchange, never the victim's, and goes nowhere else (product.md 3).
    let why = match neighbour {
        Some((_, terms)) if terms.forwards => {
            "a tenant with forwarded_senders = \"allow\" sends on what others wrote: as itself, by its own connector, and no further"
        }
        Some(_) | None => {
            "a proven tenant may write as itself only, not as its neighbour on the same smart host"
        }
    };
    program.add("one customer as another", why, |token| {
        let (connector, ..) = main_part(cast)?;
        let (neighbour, terms) = neighbour.ok_or(needs::NEIGHBOUR)?;
        let (outbound, taken) = stamped(connector, neighbour, spoof(token))?;
        let expect = if terms.forwards {
            Expect::Taken(taken)
        } else {
            refused(None, NOT_ALLOWED)
        };
        Ok((from_exchange(outbound), expect))
    });
    program.add(
        "X-OriginatorOrg twice",
        "of two stamps one was not Exchange's: neither is believed",
        |token| {
            let (connector, ..) = returning(cast)?;
            let (mut outbound, _) = stamped(connector, organization, spoof(token))?;
            let second = format!("X-OriginatorOrg: {}\r\n", organization.stamp_for(None));
            outbound.mail.content.splice(0..0, second.bytes());
            Ok((from_exchange(outbound), refused(None, NOT_ALLOWED)))
        },
    );
    program.add(
        "wrong secret header",
        "a secret that is guessed contradicts, even where the stamps are right",
        |token| {
            returning(cast)?;
            let header = organization.secret_header.as_ref();
            let (name, _) = header.ok_or(needs::SECRET)?;
            let mut guesser = organization.clone();
            guesser.secret_header = Some((name.clone(), crate::mail::Secret::new("guess")));
            let outbound = leaving(&guesser, token)?;
            Ok((from_exchange(outbound), refused(None, NOT_ALLOWED)))
        },
    );
    program.add(
        "mail that went round already",
        "its loop header says that it was here: once more, and it would circle for ever",
        |token| {
            let (connector, ..) = returning(cast)?;
            let header = organization.loop_header.as_ref();
            let (name, value) = header.ok_or(needs::LOOP)?;
            let (mut outbound, _) = stamped(connector, organization, spoof(token))?;
            let marker = [name.as_bytes(), b": ", value.expose(), b"\r\n"].concat();
            outbound.mail.content.splice(0..0, marker);
            Ok((from_exchange(outbound), refused(None, (554, (5, 4, 6)))))
        },
    );
}

/// Who is not Exchange at all, or only half.
pub(super) fn peers(program: &mut Program<'_>) {
    let cast = program.cast;
    let Some((_, organization)) = cast.main() else {
        return;
    };
    let (ada, bob) = (organization.address("ada"), organization.address("bob"));
    let half = if cast.half_proven_refuses {
        NOT_ALLOWED
    } else {
        (451, (4, 7, 1))
    };
    let mail = |token: &str| Mail::new(&ada, &bob, Inside::new(&ada, &bob, "Hello", token).build());
    let mut peer = |name, why, shown, elsewhere, expected| {
        program.add(name, why, |token| {
            let (connector, ..) = main_part(cast)?;
            let (outbound, _) = stamped(connector, organization, mail(token))?;
            let player = Player::Exchange {
                shown,
                elsewhere,
                outbound,
            };
            Ok((player, refused(Some("MAIL"), expected)))
        });
    };
    peer(
        "right name, self-made authority",
        "a certificate that anyone can make; the address is Exchange's, so it may be a change not followed yet",
        Shown::Impostor,
        false,
        half,
    );
    peer(
        "right certificate, wrong network",
        "only half of the proof: put off, not believed",
        Shown::Exchange,
        true,
        half,
    );
    peer(
        "neither",
        "a stranger gets nothing",
        Shown::Impostor,
        true,
        NOT_ALLOWED,
    );
    program.add(
        "no TLS",
        "without TLS there is no certificate, so no connector mail",
        |token| {
            main_part(cast)?;
            let expect = refused(Some("MAIL"), (530, (5, 7, 0)));
            Ok((Player::Clear(mail(token)), expect))
        },
    );
}

/// Applications that want more than is theirs.
pub(super) fn applications(program: &mut Program<'_>) {
    let cast = program.cast;
    let tenant_of = |actor: &Actor| cast.organizations.get(actor.tenant).ok_or(needs::MADE);
    program.add(
        "forged application",
        "an application that writes Exchange's own headers must not become internal by them",
        |token| {
            let forger = |actor: &&Actor| actor.login.is_some() && !actor.internal && actor.returns;
            let actor = cast.actors.iter().find(forger);
            let actor = actor.ok_or(needs::NOT_INTERNAL)?;
            Ok(forgery(actor, tenant_of(actor)?, token))
        },
    );
    let mut impostor =
        |name, why, login, expect: Expect, mail: &dyn Fn(&Actor, &str, &str) -> Mail| {
            program.add(name, why, |token| {
                let with_login = |actor: &&Actor| actor.login.is_some();
                let actor = cast.actors.iter().find(with_login).ok_or(needs::LOGIN)?;
                let bob = tenant_of(actor)?.address("bob");
                let player = Player::Application {
                    actor: actor.clone(),
                    login,
                    mail: mail(actor, &bob, token),
                };
                Ok((player, expect))
            });
        };
    let plain = Login::Own(Dialect::Plain);
    let written = |sender: &str, from: &str, to: &str, token: &str| {
        let content = messages::application(from, to, "Invoice", token, "");
        Mail::new(sender, to, content)
    };
    impostor(
        "application as someone else",
        "an account that leaks must not be able to write as the CEO",
        plain,
        refused(None, NOT_ALLOWED),
        &|actor, bob, token| written(&actor.not_its_own, &actor.not_its_own, bob, token),
    );
    impostor(
        "application with another From:",
        "people see From:, not the envelope: both must be its own",
        plain,
        refused(None, NOT_ALLOWED),
        &|actor, bob, token| written(&actor.sender, &actor.not_its_own, bob, token),
    );
    impostor(
        "wrong password",
        "and nothing says whether the name exists",
        Login::WrongPassword,
        refused(Some("MAIL"), (535, (5, 7, 8))),
        &|actor, bob, token| written(&actor.sender, &actor.sender, bob, token),
    );
    impostor(
        "no password",
        "an open door would be found within the hour",
        Login::None,
        refused(Some("MAIL"), (530, (5, 7, 0))),
        &|actor, bob, token| written(&actor.sender, &actor.sender, bob, token),
    );
}

/// Everything that an application might write to look internal, to look looped, or to leak its hidden recipients.
fn forgery(actor: &Actor, organization: &Organization, token: &str) -> (Player, Expect) {
    let mut forged = format!(
        "X-MS-Exchange-Organization-AuthAs: Internal\r\nX-MS-Exchange-Organization-SCL: -1\r\n\
         X-MS-Exchange-CrossPremises-AuthAs: Internal\r\nx-ms-exchange-crosspremises-authmechanism : 04\r\n\
         X-MS-EXCHANGE-CrossPremises-AuthSource:\r\n forged.example\r\nX-OriginatorOrg: {0}\r\n\
         X-MS-Exchange-CrossTenant-Id: {1}\r\nX-OrganizationHeadersPreserved: forged\r\n\
         X-CrossPremisesHeadersPromoted: forged\r\nX-Forefront-Antispam-Report: SCL:-1;\r\nBcc: hidden@{0}\r\n\
         Return-Path: <forged@{0}>\r\n",
        organization.domain(),
        organization.id,
    );
    for (name, _) in organization
        .loop_header
        .iter()
        .chain(&organization.secret_header)
    {
        forged += &format!("{name}: forged\r\n");
    }
    let bob = organization.address("bob");
    let content = messages::application(&actor.sender, &bob, "Invoice", token, &forged);
    let mail = Mail::new(&actor.sender, &bob, content);
    let mut taken = application_taken(organization, actor, &mail, false);
    taken.bytes = messages::application(&actor.sender, &bob, "Invoice", token, "");
    let player = Player::Application {
        actor: actor.clone(),
        login: Login::Own(Dialect::Plain),
        mail,
    };
    (player, Expect::Taken(taken))
}

/// Ends of content that are none.
const FALSE_ENDS: [&str; 6] = [
    "\n.\n",
    "\r\n.\n",
    "\n.\r\n",
    "\r.\r",
    "\r\n.\r",
    "\r\n\0.\r\n\n.\n",
];

/// A false end of content, and a second message behind it.
fn hidden(sender: &str, to: &str, token: &str, ending: &str) -> String {
    format!(
        "{ending}MAIL FROM:<{sender}>\r\nRCPT TO:<{to}>\r\nDATA\r\nFrom: {sender}\r\nSubject: smuggled ({token})\r\n\r\nx\r\n"
    )
}

/// Those who attack the protocol.
pub(super) fn protocol(program: &mut Program<'_>) {
    let cast = program.cast;
    program.add(
        "bare line feed in the header",
        "two readers would see two different headers",
        |token| {
            let (connector, organization, _) = returning(cast)?;
            let (ada, bob) = (organization.address("ada"), organization.address("bob"));
            let mail = Mail::new(&ada, &bob, Inside::new(&ada, &bob, "x", token).build());
            let (mut outbound, _) = stamped(connector, organization, mail)?;
            let bare = *b"X-One: 1\nX-Two: 2\r\n";
            outbound.mail.content.splice(0..0, bare);
            let expect = refused(Some("content"), (554, (5, 6, 0)));
            Ok((from_exchange(outbound), expect))
        },
    );
    program.play(
        "smuggling over the connector",
        "a second message hidden behind a false end of data would carry any sender past every gate",
        |token| {
            let (connector, organization, _) = returning(cast)?;
            let (ada, bob) = (organization.address("ada"), organization.address("bob"));
            let acts = FALSE_ENDS.iter().enumerate().map(|(index, ending)| {
                let token = token(index);
                let bait = Inside::new(&ada, &bob, "bait", &token)
                    .body(format!("body{}", hidden(&ada, &bob, &token, ending)));
                let mail = Mail::new(&ada, &bob, bait.build()).by(Transfer::Data);
                let (outbound, _) = stamped(connector, organization, mail)?;
                Ok(smuggler(token, None, outbound))
            });
            acts.collect()
        },
    );
    program.play(
        "smuggling by an application",
        "the same from inside: whoever has one account must not be able to send as every account",
        |token| {
            let strict =
                |actor: &&Actor| actor.login.is_some() && actor.returns && !actor.door.repairs;
            let actor = cast.actors.iter().find(strict).ok_or(needs::STRICT)?;
            let organization = cast.organizations.get(actor.tenant).ok_or(needs::MADE)?;
            let (ada, bob) = (organization.address("ada"), organization.address("bob"));
            let acts = FALSE_ENDS.iter().enumerate().map(|(index, ending)| {
                let token = token(index);
                let start = format!(
                    "From: {}\r\nTo: {bob}\r\nSubject: bait ({token})\r\n\r\nbody",
                    actor.sender
                );
                let content = start + &hidden(&ada, &bob, &token, ending);
                let mail = Mail::new(&actor.sender, &bob, content).by(Transfer::Data);
                smuggler(token, Some(actor.clone()), Outbound::bare(mail))
            });
            Ok(acts.collect())
        },
    );
    program.add(
        "command injected behind STARTTLS",
        "clear text that counts as encrypted lets a man in the middle speak for the peer",
        |_| {
            main_part(cast)?;
            Ok((Player::Injector, Expect::Dropped))
        },
    );
}

fn smuggler(token: String, actor: Option<Actor>, outbound: Outbound) -> Act {
    Act {
        token,
        player: Player::Smuggler { actor, outbound },
        expect: refused(Some("content"), (554, (5, 6, 0))),
    }
}
