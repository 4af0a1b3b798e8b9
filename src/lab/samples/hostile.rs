//! The mail that must not get through, or not as what it pretends to be.

use super::super::client::{Mail, Transfer};
use super::super::scene::{Actor, Cast, Login, Shown};
use super::super::{Dialect, Organization, Outbound};
use super::messages::{self, Inside};
use super::welcome::application_taken;
use super::{Act, Expect, Player, Row, from_exchange, stamped, token};
use crate::smtp::reply::Enhanced;

const ATTRIBUTION: (u16, Enhanced) = (550, (5, 7, 64));
const NOT_ALLOWED: (u16, Enhanced) = (550, (5, 7, 1));

fn refused(at: Option<&'static str>, (code, enhanced): (u16, Enhanced)) -> Expect {
    Expect::Refused { at, code, enhanced }
}

/// A tenant that no configuration names.
fn attacker() -> Option<Organization> {
    let id = "0badc0de-0bad-4bad-8bad-0badc0de0bad".parse().ok()?;
    Some(Organization::new("attacker", id, "attacker.onmicrosoft.example".parse().ok()?))
}

/// Adds one row with one act.
fn add(rows: &mut Vec<Row>, name: &'static str, why: &'static str, make: impl FnOnce(&str) -> Option<(Player, Expect)>) {
    let token = token(rows, 0);
    if let Some((player, expect)) = make(&token) {
        rows.push(Row { name, why, acts: vec![Act { token, player, expect }] });
    }
}

/// Other tenants of Microsoft 365: they have Exchange's address and certificate as well.
pub(super) fn tenants(cast: &Cast, rows: &mut Vec<Row>) {
    let Some(organization) = cast.organizations.first() else { return };
    let ceo = organization.address("ceo");
    let victim = organization.address("bob");
    let spoof = |token: &str| {
        let content = Inside::new(&format!("CEO <{ceo}>"), &victim, "Urgent payment", token)
            // What its transport rule sets is removed at the exit, and the true stamp put in its place.
            .field(format!("X-OriginatorOrg: {}", organization.domain()))
            .field(format!("X-MS-Exchange-CrossTenant-Id: {}", organization.id))
            .build();
        Mail::new(&ceo, &victim, content)
    };
    let by_attacker = |token: &str| Outbound::stamped(&attacker()?, spoof(token), "3996568b-0a1a-45d5-9488-9cce4e655602");
    add(
        rows,
        "hostile tenant, XOORG",
        "EchoSpoofing: any tenant can relay your sender through Exchange; its own XOORG gives it away at MAIL",
        |token| Some((from_exchange(by_attacker(token)?), refused(Some("MAIL"), ATTRIBUTION))),
    );
    add(
        rows,
        "hostile tenant, no XOORG",
        "the same where Exchange sends no XOORG: the stamps in the header name the attacker",
        |token| Some((from_exchange(by_attacker(token)?.xoorg(None)), refused(None, ATTRIBUTION))),
    );
    add(
        rows,
        "hostile tenant without stamps",
        "mail that nothing names a tenant for is nobody's, whatever its From: says",
        |token| {
            let content = format!("From: {ceo}\r\nTo: {victim}\r\nSubject: Urgent ({token})\r\n\r\nPay.\r\n");
            let outbound = Outbound::bare(Mail::new(&ceo, &victim, content));
            Some((from_exchange(outbound), refused(None, ATTRIBUTION)))
        },
    );
    if let Some(neighbour) = cast.organizations.get(1) {
        add(
            rows,
            "one customer as another",
            "a proven tenant may write as itself only, not as its neighbour on the same smart host",
            |token| {
                let outbound = Outbound::stamped(neighbour, spoof(token), "3996568b-0a1a-45d5-9488-9cce4e655602")?;
                Some((from_exchange(outbound), refused(None, NOT_ALLOWED)))
            },
        );
    }
    add(
        rows,
        "X-OriginatorOrg twice",
        "of two stamps one was not Exchange's: neither is believed",
        |token| {
            let (mut outbound, _) = stamped(organization, spoof(token))?;
            let second = format!("X-OriginatorOrg: {}\r\n", organization.domain());
            outbound.mail.content.splice(0..0, second.bytes());
            Some((from_exchange(outbound), refused(None, NOT_ALLOWED)))
        },
    );
    if let Some((name, _)) = &organization.secret_header {
        add(
            rows,
            "wrong secret header",
            "a secret that is guessed contradicts, even where the stamps are right",
            |token| {
                let mut guesser = organization.clone();
                guesser.secret_header = Some((name.clone(), crate::mail::Secret::new("guess")));
                let outbound = Outbound::stamped(&guesser, spoof(token), "3996568b-0a1a-45d5-9488-9cce4e655602")?;
                Some((from_exchange(outbound), refused(None, NOT_ALLOWED)))
            },
        );
    }
    if let Some((name, value)) = &organization.loop_header {
        add(
            rows,
            "mail that went round already",
            "its loop header says that it was here: once more, and it would circle for ever",
            |token| {
                let (mut outbound, _) = stamped(organization, spoof(token))?;
                let marker = [name.as_bytes(), b": ", value.expose(), b"\r\n"].concat();
                outbound.mail.content.splice(0..0, marker);
                Some((from_exchange(outbound), refused(None, (554, (5, 4, 6)))))
            },
        );
    }
}

/// Who is not Exchange at all, or only half.
pub(super) fn peers(cast: &Cast, rows: &mut Vec<Row>) {
    let Some(organization) = cast.organizations.first() else { return };
    let (ada, bob) = (organization.address("ada"), organization.address("bob"));
    let half = if cast.half_proven_refuses { NOT_ALLOWED } else { (451, (4, 7, 1)) };
    let mail = |token: &str| Mail::new(&ada, &bob, Inside::new(&ada, &bob, "Hello", token).build());
    let mut peer = |name, why, shown, elsewhere, expected| {
        add(rows, name, why, |token| {
            let (outbound, _) = stamped(organization, mail(token))?;
            Some((Player::Exchange { shown, elsewhere, outbound }, refused(Some("MAIL"), expected)))
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
    peer("neither", "a stranger gets nothing", Shown::Impostor, true, NOT_ALLOWED);
    add(rows, "no TLS", "without TLS there is no certificate, so no connector mail", |token| {
        Some((Player::Clear(mail(token)), refused(Some("MAIL"), (530, (5, 7, 0)))))
    });
}

/// Applications that want more than is theirs.
pub(super) fn applications(cast: &Cast, rows: &mut Vec<Row>) {
    let with_login = |actor: &&Actor| actor.login.is_some();
    let plain = Login::Own(Dialect::Plain);
    let forger = cast.actors.iter().filter(with_login).find(|actor| !actor.internal);
    if let Some((actor, organization)) = forger.and_then(|actor| Some((actor, cast.organizations.get(actor.tenant)?))) {
        add(
            rows,
            "forged application",
            "an application that writes Exchange's own headers must not become internal by them",
            |token| Some(forgery(actor, organization, token)),
        );
    }
    let Some(actor) = cast.actors.iter().find(with_login) else { return };
    let Some(organization) = cast.organizations.get(actor.tenant) else { return };
    let bob = organization.address("bob");
    let ceo = actor.not_its_own.clone();
    let message = |from: &str, token: &str| messages::application(from, &bob, "Invoice", token, "");
    let play = |login, mail| Player::Application { actor: actor.clone(), login, mail };
    add(rows, "application as someone else", "an account that leaks must not be able to write as the CEO", |token| {
        let mail = Mail::new(&ceo, &bob, message(&ceo, token));
        Some((play(plain, mail), refused(None, NOT_ALLOWED)))
    });
    add(rows, "application with another From:", "people see From:, not the envelope: both must be its own", |token| {
        let mail = Mail::new(&actor.sender, &bob, message(&ceo, token));
        Some((play(plain, mail), refused(None, NOT_ALLOWED)))
    });
    add(rows, "wrong password", "and nothing says whether the name exists", |token| {
        let mail = Mail::new(&actor.sender, &bob, message(&actor.sender, token));
        Some((play(Login::WrongPassword, mail), refused(Some("MAIL"), (535, (5, 7, 8)))))
    });
    add(rows, "no password", "an open door would be found within the hour", |token| {
        let mail = Mail::new(&actor.sender, &bob, message(&actor.sender, token));
        Some((play(Login::None, mail), refused(Some("MAIL"), (530, (5, 7, 0)))))
    });
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
    for (name, _) in organization.loop_header.iter().chain(&organization.secret_header) {
        forged += &format!("{name}: forged\r\n");
    }
    let bob = organization.address("bob");
    let content = messages::application(&actor.sender, &bob, "Invoice", token, &forged);
    let mail = Mail::new(&actor.sender, &bob, content);
    let mut taken = application_taken(organization, actor, &mail, false);
    taken.bytes = messages::application(&actor.sender, &bob, "Invoice", token, "");
    let player = Player::Application { actor: actor.clone(), login: Login::Own(Dialect::Plain), mail };
    (player, Expect::Taken(taken))
}

/// Those who attack the protocol.
pub(super) fn protocol(cast: &Cast, rows: &mut Vec<Row>) {
    let Some(organization) = cast.organizations.first() else { return };
    let (ada, bob) = (organization.address("ada"), organization.address("bob"));
    add(rows, "bare line feed in the header", "two readers would see two different headers", |token| {
        let (mut outbound, _) = stamped(organization, Mail::new(&ada, &bob, Inside::new(&ada, &bob, "x", token).build()))?;
        outbound.mail.content.splice(0..0, *b"X-One: 1\nX-Two: 2\r\n");
        Some((from_exchange(outbound), refused(Some("content"), (554, (5, 6, 0)))))
    });
    let endings = ["\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r\n\0.\r\n\n.\n"];
    let hidden = |sender: &str, token: &str, ending: &str| {
        format!(
            "{ending}MAIL FROM:<{sender}>\r\nRCPT TO:<{bob}>\r\nDATA\r\nFrom: {sender}\r\nSubject: smuggled ({token})\r\n\r\nx\r\n"
        )
    };
    let acts = endings.iter().enumerate().map(|(index, ending)| {
        let token = token(rows, index);
        let bait = Inside::new(&ada, &bob, "bait", &token).body(format!("body{}", hidden(&ada, &token, ending)));
        let (outbound, _) = stamped(organization, Mail::new(&ada, &bob, bait.build()).by(Transfer::Data))?;
        let player = Player::Smuggler { actor: None, mail: outbound.mail };
        Some(Act { token, player, expect: refused(Some("content"), (554, (5, 6, 0))) })
    });
    let acts = acts.flatten().collect();
    rows.push(Row {
        name: "smuggling over the connector",
        why: "a second message hidden behind a false end of data would carry any sender past every gate",
        acts,
    });
    let strict = |actor: &&Actor| actor.login.is_some() && !actor.door.repairs;
    if let Some(actor) = cast.actors.iter().find(strict) {
        let acts = endings.iter().enumerate().map(|(index, ending)| {
            let token = token(rows, index);
            let start = format!("From: {}\r\nTo: {bob}\r\nSubject: bait ({token})\r\n\r\nbody", actor.sender);
            let mail = Mail::new(&actor.sender, &bob, start + &hidden(&ada, &token, ending)).by(Transfer::Data);
            let player = Player::Smuggler { actor: Some(actor.clone()), mail };
            Act { token, player, expect: refused(Some("content"), (554, (5, 6, 0))) }
        });
        let acts = acts.collect();
        rows.push(Row {
            name: "smuggling by an application",
            why: "the same from inside: whoever has one account must not be able to send as every account",
            acts,
        });
    }
    let token = token(rows, 0);
    rows.push(Row {
        name: "command injected behind STARTTLS",
        why: "clear text that counts as encrypted lets a man in the middle speak for the peer",
        acts: vec![Act { token, player: Player::Injector, expect: Expect::Dropped }],
    });
}
