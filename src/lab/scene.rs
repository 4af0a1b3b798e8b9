//! Who plays, and where are the doors? What the samples need to know of the smart host that they are played through.

use super::certificates::{Authority, EXCHANGE_NAME, Issued, Leaf};
use super::{
    ApplicationClient, Dialect, ExchangeIn, ExchangeOut, LabError, Organization, Outside, Security,
};
use crate::mail::Secret;
use rustls::RootCertStore;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// An address of loopback outside [`super::NETWORK`].
pub const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 66, 6));

/// A listener of the smart host for applications.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its name in the configuration.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How a client gets TLS there.
    pub security: Security,
    /// `bare_newlines = "repair"`.
    pub repairs: bool,
    /// `max_message_size`.
    pub max_message_size: u64,
    /// The name that its certificate is checked for.
    pub server_name: String,
}

/// An application or device of the configuration, with what it needs to log in.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Its name in the configuration.
    pub name: String,
    /// Its tenant, as a position in [`Cast::organizations`].
    pub tenant: usize,
    /// Name and password; without them its address is the proof.
    pub login: Option<(String, Secret)>,
    /// An address that it may write as.
    pub sender: String,
    /// An address that it may not write as.
    pub not_its_own: String,
    /// `internal = true`.
    pub internal: bool,
    /// Its mail to its tenant's own recipients goes to Exchange, by the routes.
    pub returns: bool,
    /// Where it comes from, if that matters.
    pub source: Option<IpAddr>,
    /// The listener that it uses.
    pub door: Door,
}

/// The connector listener, as Exchange meets it.
#[derive(Clone, Debug)]
pub struct Connector {
    /// The extensions that it does not offer, upper case.
    pub withheld: Vec<String>,
    /// `max_message_size`.
    pub max_message_size: u64,
}

impl Connector {
    /// Whether it offers this extension.
    #[must_use]
    pub fn offers(&self, keyword: &str) -> bool {
        !self.withheld.iter().any(|withheld| withheld == keyword)
    }
}

/// What the configuration makes of a tenant's mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What its users send to its own recipients goes back by its inbound connector, by the routes.
    pub returns: bool,
    /// Stamps and secret are fewer items than it asks for: a DKIM signature must come with them.
    pub needs_signature: bool,
    /// What others wrote, to recipients of the tenant that plays the main part, goes to Exchange as its own: it may
    /// forward (`forwarded_senders = "allow"`), and a route takes it.
    pub forwards: bool,
}

/// Everybody in the samples.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The smart host's name.
    pub hostname: String,
    /// The connector listener; none where Exchange can connect to none.
    pub connector: Option<Connector>,
    /// The configured tenants. At least one.
    pub organizations: Vec<Organization>,
    /// What the configuration makes of their mail, in the same order.
    pub terms: Vec<Terms>,
    /// The configured applications that can be played.
    pub actors: Vec<Actor>,
    /// `half_proven = "refuse"`.
    pub half_proven_refuses: bool,
    /// An address outside for which the main tenant's mail from Exchange leaves by mx, where there is one.
    pub outside: Option<String>,
}

impl Cast {
    /// The tenant that plays the main part, and its position: the first whose users' mail goes back, else the first.
    #[must_use]
    pub fn main(&self) -> Option<(usize, &Organization)> {
        let position = self.terms.iter().position(|terms| terms.returns);
        let position = position.unwrap_or(0);
        Some((position, self.organizations.get(position)?))
    }

    /// The tenants and what is made of their mail.
    pub fn parts(&self) -> impl Iterator<Item = (&Organization, Terms)> {
        self.organizations.iter().zip(self.terms.iter().copied())
    }
}

/// The stage: the smart host's doors, the simulated Exchange, and its certificates.
#[derive(Debug)]
pub struct Scene {
    /// Who plays.
    pub cast: Cast,
    /// The connector listener, where there is one that Exchange can connect to.
    pub connector: Option<SocketAddr>,
    /// The name that the connector listener's certificate is checked for.
    pub server_name: String,
    /// What proves the smart host's certificates.
    pub roots: RootCertStore,
    /// Exchange's certificate, and those of who would like to be Exchange.
    pub wardrobe: Wardrobe,
    /// The simulated Exchange, inbound.
    pub exchange: Arc<ExchangeIn>,
    /// Whoever takes mail in the world outside.
    pub outside: Arc<Outside>,
}

/// The certificates that outbound players show.
#[derive(Clone, Debug)]
pub struct Wardrobe {
    exchange: Issued,
    impostor: Issued,
}

/// Which certificate an outbound player shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Exchange's own.
    Exchange,
    /// The same name, signed by an authority that nobody trusts.
    Impostor,
}

impl Wardrobe {
    /// Exchange's certificate by this authority, and an impostor's by another with the same name.
    ///
    /// # Errors
    /// No certificate could be made.
    pub fn new(authority: &Authority) -> Result<Self, LabError> {
        Self::for_name(authority, EXCHANGE_NAME)
    }

    /// The same in a cloud where Exchange shows another name.
    ///
    /// # Errors
    /// No certificate could be made.
    pub fn for_name(authority: &Authority, name: &str) -> Result<Self, LabError> {
        Ok(Self {
            exchange: authority.issue(&Leaf::named(name))?,
            impostor: Authority::new("Gatepost Lab")?.issue(&Leaf::named(name))?,
        })
    }

    fn pick(&self, shown: Shown) -> &Issued {
        match shown {
            Shown::Exchange => &self.exchange,
            Shown::Impostor => &self.impostor,
        }
    }
}

impl Scene {
    /// An outbound connector to the smart host.
    ///
    /// # Errors
    /// The server name is none, or there is no connector listener.
    pub fn outbound(&self, shown: Shown, elsewhere: bool) -> Result<ExchangeOut, LabError> {
        let identity = self.wardrobe.pick(shown);
        let connector = ExchangeOut::new(
            self.connector.ok_or(LabError::NoConnector)?,
            &self.server_name,
            &self.roots,
            Some(identity),
        )?;
        Ok(if elsewhere {
            connector.from_address(ELSEWHERE)
        } else {
            connector
        })
    }

    /// This application, with this password in the place of its own where one is given.
    ///
    /// # Errors
    /// The server name is none.
    pub fn application(&self, actor: &Actor, login: Login) -> Result<ApplicationClient, LabError> {
        let door = &actor.door;
        let mut client = ApplicationClient::new(door.address, &door.server_name, &self.roots)?
            .security(door.security);
        if let Some(source) = actor.source {
            client = client.from_address(source);
        }
        Ok(match (login, &actor.login) {
            (Login::Own(dialect), Some((name, password))) => {
                client.login(name, password.expose_str(), dialect)
            }
            (Login::WrongPassword, Some((name, _))) => {
                client.login(name, "not the password", Dialect::Plain)
            }
            (Login::None, _) | (_, None) => client,
        })
    }
}

/// How an application logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// As it is configured.
    Own(Dialect),
    /// With a password that is not its own.
    WrongPassword,
    /// Not at all.
    None,
}
