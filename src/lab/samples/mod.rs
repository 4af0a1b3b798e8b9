//! Which mails prove that the smart host does its job? The rows of the lab, each with what must happen and why it matters.
//!
//! The printer comes first, for it pays for the house; then what users and systems of Exchange send; then those who try
//! to get in. Rows are made for a [`Cast`], so that an administrator's own tenants can play them.

mod hostile;
mod lapse;
mod messages;
mod welcome;

pub use lapse::{Lapse, lapse};

use super::client::Mail;
use super::scene::{Actor, Cast, Login, Shown};
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
        mail: Mail,
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

const OVER_MX: &str = "user to outside over mx, nothing leaked";

/// What is not played with this cast, and why: said in the table, so that nobody takes it for tested.
#[must_use]
pub fn waiting(cast: &Cast) -> Vec<Waiting> {
    let over_mx = Waiting {
        name: OVER_MX,
        needs: "a route that sends Exchange's mail by mx",
    };
    let missing = cast.outside.is_none().then_some(over_mx);
    missing.into_iter().collect()
}

/// All rows for this cast.
#[must_use]
pub fn rows(cast: &Cast) -> Vec<Row> {
    let mut rows = Vec::new();
    welcome::applications(cast, &mut rows);
    welcome::exchange(cast, &mut rows);
    hostile::tenants(cast, &mut rows);
    hostile::peers(cast, &mut rows);
    hostile::applications(cast, &mut rows);
    hostile::protocol(cast, &mut rows);
    welcome::last(cast, &mut rows);
    rows
}

/// Makes the tokens of a row's acts.
fn token(rows: &[Row], act: usize) -> String {
    format!("lab-{:02}-{act}", rows.len() + 1)
}

/// A message of this tenant, as Exchange sends it, and as it must come back.
fn stamped(organization: &Organization, mail: Mail) -> Option<(Outbound, Taken)> {
    let id = "f3c95789-ace1-4954-9c5d-6baed2eac902";
    let sent = Outbound::stamped(organization, mail.clone(), id)?;
    let mut open = organization.clone();
    open.secret_header = None;
    let bytes = Outbound::stamped(&open, mail.clone(), id)?.mail.content;
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
        bytes,
        loop_header: organization.loop_header.clone(),
        stamped: false,
        completed: false,
        chunked: true,
    };
    Some((sent, taken))
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
