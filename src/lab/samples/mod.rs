//! Which mails prove that the smart host does its job? The rows of the lab, each with what must happen and why it matters.
//!
//! The printer comes first, for it pays for the house; then what users and systems of Exchange send; then those who try
//! to get in. Rows are made for a [`Cast`], so that an administrator's own tenants can play them. Where a row makes no sense
//! for a configuration it is left out, and says what it would need: it is never a failure that nothing is wrong with.

mod hostile;
mod lapse;
mod messages;
mod welcome;

pub use lapse::{Lapse, lapse};

use super::client::Mail;
use super::scene::{Actor, Cast, Connector, Login, Shown, Terms};
use super::{Organization, Outbound};
use crate::smtp::reply::Enhanced;

/// One row: what is sent, what must happen, and why anyone should care.
#[derive(Clone, Debug)]
pub struct Row {
    /// A short name.
    pub name: &'static str,
    /// Why it matters, in a line.
    pub why: &'static str,
    /// Acts are played in order; outbound acts of one row share a connection.
    pub acts: Vec<Act>,
}

/// One message, or one attempt.
#[derive(Clone, Debug)]
pub struct Act {
    /// Stands in the subject, so that the message is known wherever it turns up.
    pub token: String,
    /// Who sends it.
    pub player: Player,
    /// What must happen.
    pub expect: Expect,
}

/// Who sends.
#[derive(Clone, Debug)]
pub enum Player {
    /// Exchange, or someone who would like to be it.
    Exchange {
        /// The certificate that is shown.
        shown: Shown,
        /// From outside Exchange's networks.
        elsewhere: bool,
        /// The message.
        outbound: Outbound,
    },
    /// Exchange's address without STARTTLS.
    Clear(Mail),
    /// An application.
    Application {
        /// Which.
        actor: Actor,
        /// How it logs in.
        login: Login,
        /// The message.
        mail: Mail,
    },
    /// Hides a second message behind something that only a careless reader takes for the end of data.
    Smuggler {
        /// Through this application; `None`: over the connector.
        actor: Option<Actor>,
        /// The message, with the second one in it.
        outbound: Outbound,
    },
    /// Sends a command in clear text behind STARTTLS.
    Injector,
}

/// What must happen.
#[derive(Clone, Debug)]
pub enum Expect {
    /// 250, and Exchange receives it.
    Taken(Taken),
    /// 250, and it arrives outside with nothing internal on it.
    Abroad(Abroad),
    /// This refusal, and nothing arrives.
    Refused {
        /// `MAIL`, `RCPT` or `content`, where it matters.
        at: Option<&'static str>,
        /// Reply code.
        code: u16,
        /// Enhanced code.
        enhanced: Enhanced,
    },
    /// Clear text behind STARTTLS is dropped.
    Dropped,
}

/// How a message must arrive.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Attributed to this tenant.
    pub tenant: String,
    /// Exchange takes it as internal.
    pub internal: bool,
    /// The envelope sender.
    pub sender: String,
    /// The envelope recipients, with the parameters of RCPT that must be handed on.
    pub recipients: Vec<String>,
    /// The parameters of MAIL that must be handed on.
    pub parameters: Vec<String>,
    /// What must stand below the fields that the smart host puts on top, byte for byte.
    pub bytes: Vec<u8>,
    /// The loop header that must stand on top.
    pub loop_header: Option<(String, crate::mail::Secret)>,
    /// The internal stamp must stand on top.
    pub stamped: bool,
    /// Date and Message-ID must be added.
    pub completed: bool,
    /// It must have gone through BDAT.
    pub chunked: bool,
}

/// How a message must leave for the world outside.
#[derive(Clone, Debug)]
pub struct Abroad {
    /// Whose it is: whose headers must not be on it.
    pub organization: Organization,
    /// The envelope sender.
    pub sender: String,
    /// The envelope recipients.
    pub recipients: Vec<String>,
    /// What must stand below the one field on top, byte for byte: the message without what is internal.
    pub bytes: Vec<u8>,
}

/// A row that this cast cannot play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub name: &'static str,
    /// What it would need.
    pub needs: &'static str,
}

/// What a row may need and not find.
mod needs {
    pub(super) const CONNECTOR: &str =
        "a connector listener with STARTTLS: Exchange Online speaks nothing else";
    pub(super) const RETURN: &str =
        "a route that takes Exchange's mail to accepted domains back to Exchange";
    pub(super) const RETURN_OF_TWO: &str = "two tenants whose mail goes back to Exchange";
    pub(super) const OUTSIDE: &str = "a route that sends Exchange's mail by mx";
    pub(super) const CHUNKING: &str = "CHUNKING, which ehlo_discard takes from the connector listener: Exchange Online bounces such mail";
    pub(super) const XOORG: &str = "XOORG, which ehlo_discard takes from the connector listener";
    pub(super) const CANONICAL: &str = "a DKIM signature by this tenant's proofs, and bare line feeds have no canonical form to sign";
    pub(super) const NEIGHBOUR: &str = "a second tenant";
    pub(super) const SECRET: &str = "a tenant with a secret_header";
    pub(super) const LOOP: &str = "a tenant with a loop_header";
    pub(super) const ROOM: &str = "a larger max_message_size";
    pub(super) const INTERNAL: &str =
        "an application with internal = true that can log in, and a route to Exchange";
    pub(super) const NOT_INTERNAL: &str =
        "an application without internal = true that can log in, and a route to Exchange";
    pub(super) const LOGIN: &str = "an application that can log in";
    pub(super) const STRICT: &str =
        "an application that can log in where bare newlines are refused, and a route to Exchange";
    pub(super) const DEVICE: &str = "an application without username, a listener with bare_newlines = \"repair\", and a route to Exchange";
    pub(super) const MADE: &str = "a message that could be made";
}

/// What is not played with this cast, and why: said in the table, so that nobody takes it for tested.
#[must_use]
pub fn waiting(cast: &Cast) -> Vec<Waiting> {
    Program::of(cast).waiting
}

/// All rows for this cast.
#[must_use]
pub fn rows(cast: &Cast) -> Vec<Row> {
    Program::of(cast).rows
}

/// The rows in the making.
struct Program<'a> {
    cast: &'a Cast,
    rows: Vec<Row>,
    waiting: Vec<Waiting>,
}

impl<'a> Program<'a> {
    fn of(cast: &'a Cast) -> Self {
        let mut program = Self {
            cast,
            rows: Vec::new(),
            waiting: Vec::new(),
        };
        welcome::applications(&mut program);
        welcome::exchange(&mut program);
        hostile::tenants(&mut program);
        hostile::peers(&mut program);
        hostile::applications(&mut program);
        hostile::protocol(&mut program);
        welcome::last(&mut program);
        program
    }

    /// Adds a row of several acts, whose tokens `make` is given one by one; or what it needs and does not find.
    fn play(
        &mut self,
        name: &'static str,
        why: &'static str,
        make: impl FnOnce(&dyn Fn(usize) -> String) -> Result<Vec<Act>, &'static str>,
    ) {
        let number = self.rows.len() + 1;
        let token = |act: usize| format!("lab-{number:02}-{act}");
        let made = make(&token).and_then(|acts| {
            let room = acts.iter().all(|act| fits(self.cast, &act.player));
            room.then_some(acts).ok_or(needs::ROOM)
        });
        match made {
            Ok(acts) => self.rows.push(Row { name, why, acts }),
            Err(needs) => self.waiting.push(Waiting { name, needs }),
        }
    }

    /// Adds a row with one act.
    fn add(
        &mut self,
        name: &'static str,
        why: &'static str,
        make: impl FnOnce(&str) -> Result<(Player, Expect), &'static str>,
    ) {
        self.play(name, why, |token| {
            let token = token(0);
            let (player, expect) = make(&token)?;
            Ok(vec![Act {
                token,
                player,
                expect,
            }])
        });
    }
}

/// The main tenant of a cast, where Exchange can connect.
fn main_part(cast: &Cast) -> Result<(&Connector, &Organization, Terms), &'static str> {
    let connector = cast.connector.as_ref().ok_or(needs::CONNECTOR)?;
    let (position, organization) = cast.main().ok_or(needs::RETURN)?;
    let terms = cast.terms.get(position).ok_or(needs::RETURN)?;
    Ok((connector, organization, *terms))
}

/// The same, where its users' mail goes back to Exchange.
fn returning(cast: &Cast) -> Result<(&Connector, &Organization, Terms), &'static str> {
    let (connector, organization, terms) = main_part(cast)?;
    let returns = terms.returns.then_some((connector, organization, terms));
    returns.ok_or(needs::RETURN)
}

/// Whether the listener takes a message of this size.
fn fits(cast: &Cast, player: &Player) -> bool {
    let door = |actor: &Actor| actor.door.max_message_size;
    let connector = || {
        cast.connector
            .as_ref()
            .map_or(0, |one| one.max_message_size)
    };
    let (mail, most) = match player {
        Player::Exchange { outbound, .. } => (&outbound.mail, connector()),
        Player::Clear(mail) => (mail, connector()),
        Player::Application { actor, mail, .. } => (mail, door(actor)),
        Player::Smuggler { actor, outbound } => {
            (&outbound.mail, actor.as_ref().map_or_else(connector, door))
        }
        Player::Injector => return true,
    };
    // DATA may add a line end.
    mail.content.len() as u64 + 2 <= most
}

/// A message of this tenant, as Exchange sends it, and as it must come back.
fn stamped(
    connector: &Connector,
    organization: &Organization,
    mail: Mail,
) -> Result<(Outbound, Taken), &'static str> {
    let id = "f3c95789-ace1-4954-9c5d-6baed2eac902";
    let made = |organization: &Organization| {
        Outbound::stamped(organization, mail.clone(), id).ok_or(needs::MADE)
    };
    let sent = made(organization)?;
    let mut open = organization.clone();
    open.secret_header = None;
    let bytes = made(&open)?.mail.content;
    let flags = organization.outbound_cloud_services_mail_enabled
        && organization
            .inbound
            .as_ref()
            .is_some_and(|inbound| inbound.cloud_services_mail_enabled);
    let taken = Taken {
        tenant: organization.name.clone(),
        internal: flags,
        sender: mail.sender.clone(),
        recipients: mail.recipients.clone(),
        parameters: mail.parameters.clone(),
        bytes: transferred(connector, bytes),
        loop_header: organization.loop_header.clone(),
        stamped: false,
        completed: false,
        chunked: true,
    };
    Ok((sent, taken))
}

/// The bytes as the listener gets them: DATA ends the last line where BDAT leaves it open.
fn transferred(connector: &Connector, mut bytes: Vec<u8>) -> Vec<u8> {
    if !connector.offers("CHUNKING") && !bytes.ends_with(b"\r\n") {
        bytes.extend(b"\r\n");
    }
    bytes
}

/// From Exchange, with its certificate, from its network.
fn from_exchange(outbound: Outbound) -> Player {
    Player::Exchange {
        shown: Shown::Exchange,
        elsewhere: false,
        outbound,
    }
}

/// The fields of a message that has left Exchange for an outside next hop and must not have: the oracle of the mx row.
#[must_use]
pub fn leaks(content: &[u8], organization: &Organization) -> Vec<String> {
    let section = super::fields::Section::of(content);
    let leaked = section.fields().iter();
    let leaked = leaked.filter(|field| is_internal(field, organization));
    leaked.map(|field| field.name.clone()).collect()
}

/// The message as it must leave for the outside.
fn without_leaks(content: &[u8], organization: &Organization) -> Vec<u8> {
    let section = super::fields::Section::of(content);
    section.rewrite(|field, bytes| (!is_internal(field, organization)).then(|| bytes.to_vec()))
}

fn is_internal(field: &super::fields::Field, organization: &Organization) -> bool {
    let headers = [&organization.secret_header, &organization.loop_header];
    let own = headers
        .iter()
        .any(|header| header.as_ref().is_some_and(|(own, _)| field.is(own)));
    let prefixes = [
        "X-MS-Exchange-Organization-",
        "X-MS-Exchange-Forest-",
        "X-MS-Exchange-CrossPremises-",
        "X-CrossPremisesHeaders",
    ];
    own || field.is("X-OrganizationHeadersPreserved")
        || prefixes.iter().any(|prefix| field.begins(prefix))
}

#[cfg(test)]
pub(crate) mod tests;
