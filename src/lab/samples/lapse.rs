//! Which mail tells what a lapsed certificate does? Some that must wait and not bounce, some that must be asked back for.

use super::super::Dialect;
use super::super::client::Mail;
use super::super::scene::{Actor, Cast, Login};
use super::messages::Inside;
use super::{Act, Expect, from_exchange, stamped, welcome};
use crate::mail::TenantName;

/// What is sent around the lapse, in this order.
#[derive(Clone, Debug)]
pub struct Lapse {
    /// Whose certificate runs out.
    pub tenant: TenantName,
    /// Sent when it has run out: taken, and waits.
    pub waits: Act,
    /// An application's, a quarter of an hour later: still taken. Where no application can be played, none.
    pub still_taken: Option<Act>,
    /// Exchange's own, then: it shall keep it.
    pub kept_back: Act,
    /// Exchange's own after the renewal: taken, and arrives.
    pub flows: Act,
}

/// The mail around a lapse of this tenant's certificate; none where the cast cannot play it.
#[must_use]
pub fn lapse(cast: &Cast, tenant: &str) -> Option<Lapse> {
    let at = |one: &super::Organization| one.name == *tenant;
    let position = cast.organizations.iter().position(at)?;
    let organization = cast.organizations.get(position)?;
    let connector = cast.connector.as_ref()?;
    if !cast.terms.get(position)?.returns {
        return None;
    }
    let (ada, bob) = (organization.address("ada"), organization.address("bob"));
    let exchange = |token: &str| {
        let inside = Inside::new(&ada, &bob, "Lunch menu", token);
        let mail = Mail::new(&ada, &bob, inside.build());
        let (outbound, taken) = stamped(connector, organization, mail).ok()?;
        Some(Act {
            token: token.to_owned(),
            player: from_exchange(outbound),
            expect: Expect::Taken(taken),
        })
    };
    let logged_in =
        |actor: &&Actor| actor.tenant == position && actor.login.is_some() && actor.returns;
    let actor = cast.actors.iter().find(logged_in);
    let application = |token: &str| {
        let login = Login::Own(Dialect::Plain);
        welcome::application_act(cast, actor?, login, token.to_owned(), false)
    };
    Some(Lapse {
        tenant: tenant.into(),
        waits: application("lab-lapse-1").or_else(|| exchange("lab-lapse-1"))?,
        still_taken: application("lab-lapse-2"),
        kept_back: Act {
            expect: Expect::Refused {
                at: None,
                code: 451,
                enhanced: (4, 4, 0),
            },
            ..exchange("lab-lapse-3")?
        },
        flows: exchange("lab-lapse-4")?,
    })
}
