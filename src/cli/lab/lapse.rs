//! What happens when a certificate lapses? `lab --fault certificate`: from the first message that meets it to the release.
//!
//! The tenant's certificate is issued anew with an hour to live, and the smart host's clock set forward by two, then by a
//! quarter of an hour; the renewal is a reload, as SIGHUP makes it. Each row says what an administrator would see.

use super::{Prepared, Stopped, Up};
use crate::config::Settings;
use crate::deliver::InboundConnector;
use crate::lab::LabError;
use crate::lab::certificates::{Authority, Leaf};
use crate::lab::play::{ActTold, Begun, Told, begin};
use crate::lab::samples::{self, Act};
use crate::message_trace::{Event, Query};
use crate::trust::certificate::Identity;
use std::sync::Arc;
use std::time::Duration;

/// How long the certificate is good for after the lab has started; the samples take a minute or two.
const LIFE: Duration = Duration::from_secs(3600);
/// Older than this a hold asks Exchange to keep its mail: a quarter of an hour, and a minute.
const LATER: Duration = Duration::from_secs(16 * 60);
/// How long something may take that happens by itself, and how often it is looked for meanwhile.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

/// Gives the first tenant whose mail goes by its inbound connector a certificate that is about to lapse; its name.
pub(super) fn prepare(prepared: &mut Prepared) -> Result<String, Stopped> {
    if prepared.settings.exchange_law.hold_on_connector_fault <= LATER {
        return Err(Stopped::Unusable(
            "delivery.exchange.hold_on_connector_fault is over before Exchange would be asked to keep its mail: nothing to show"
                .to_owned(),
        ));
    }
    let named = prepared.cast.organizations.iter().map(|one| &one.name);
    let mut named = named.filter(|name| samples::lapse(&prepared.cast, name).is_some());
    let tenant = named.next().cloned().ok_or_else(|| {
        Stopped::Unusable(
            "no tenant's mail from Exchange goes back by an inbound connector: nothing can lapse"
                .to_owned(),
        )
    })?;
    let until = super::super::unix_millis() / 1000 + LIFE.as_secs();
    issue(
        &mut prepared.settings,
        &prepared.authority,
        &tenant,
        Some(until),
    )?;
    Ok(tenant)
}

/// A new certificate with the same names in the place of the tenant's.
fn issue(
    settings: &mut Settings,
    authority: &Authority,
    tenant: &str,
    until: Option<u64>,
) -> Result<(), LabError> {
    for connector in &mut settings.inbound_connectors {
        if *connector.tenant != *tenant {
            continue;
        }
        let old = &connector.identity;
        let mut names = old.names.iter();
        let first = names.next().map_or(tenant, String::as_str);
        let mut leaf = names.fold(Leaf::named(first), |leaf, name| leaf.and(name));
        if let Some(until) = until {
            leaf = leaf.until(until);
        }
        let issued = authority.issue(&leaf)?;
        let new = Identity::new(Arc::clone(&old.name), issued.chain, issued.key);
        let new = Arc::new(new.map_err(|error| LabError::Certificate(error.to_string()))?);
        for identity in &mut settings.identities {
            if identity.name == new.name {
                *identity = Arc::clone(&new);
            }
        }
        *connector = Arc::new(InboundConnector {
            identity: new,
            ..InboundConnector::clone(connector)
        });
    }
    Ok(())
}

/// Plays the lapse; the rows, numbered from `number`.
pub(super) async fn play(
    up: &Up,
    tenant: &str,
    number: usize,
    mut tell: impl FnMut(&Told),
) -> Vec<Told> {
    let mut story = Vec::new();
    let mut row = |name, why, acts| {
        let told = Told {
            number: number + story.len(),
            name,
            why,
            acts,
        };
        tell(&told);
        story.push(told);
    };
    let Some(acts) = samples::lapse(&up.scene.cast, tenant) else {
        let fault = format!("nobody can send for {tenant}");
        row(
            "the certificate lapses",
            "no mail of the tenant can be played",
            vec![told("lapse", String::new(), vec![fault])],
        );
        return story;
    };
    let mut waiting = Vec::new();

    up.server.set_clock_forward(2 * LIFE);
    let (begun, held) = held(up, &acts.waits).await;
    row(
        "the certificate lapses",
        "one message meets it: it is held, not bounced, and the tenant's queue is parked",
        vec![held],
    );
    waiting.push((&acts.waits, begun));

    up.server.set_clock_forward(LATER);
    let kept = begin(&up.scene, &acts.kept_back).await;
    let kept = kept.conclude(&up.scene, &acts.kept_back).await;
    row(
        "Exchange, a quarter of an hour later",
        "Exchange keeps its mail, shows it as Pending with the fault, and tells its senders itself",
        vec![kept],
    );
    if let Some(act) = &acts.still_taken {
        let (begun, held) = taken(up, act).await;
        row(
            "an application meanwhile",
            "a printer cannot keep its mail: it is taken and waits",
            vec![held],
        );
        waiting.push((act, begun));
    }

    row(
        "the certificate is renewed",
        "a reload probes at once; one success releases everything, with a ramp",
        renewed(up, tenant, waiting).await,
    );
    let flows = begin(&up.scene, &acts.flows).await;
    let mut flows = flows.conclude(&up.scene, &acts.flows).await;
    flows.faults.extend(leftovers(up));
    row(
        "Exchange again",
        "its own mail is taken as before; nothing came twice, nothing bounced",
        vec![flows],
    );
    story
}

fn told(token: &str, answer: String, faults: Vec<String>) -> ActTold {
    ActTold {
        token: token.to_owned(),
        answer,
        faults,
        ..ActTold::default()
    }
}

/// Sends what must be taken though it cannot go.
async fn taken(up: &Up, act: &Act) -> (Begun, ActTold) {
    let begun = begin(&up.scene, act).await;
    let (answer, faults) = match begun.queue_id() {
        Some(id) => (format!("250, queued as {id}: waits"), Vec::new()),
        None => ("not taken".to_owned(), vec!["must be accepted".to_owned()]),
    };
    (begun, told(&act.token, answer, faults))
}

/// Sends the first message, and looks what the trace says of it and of the queue.
async fn held(up: &Up, act: &Act) -> (Begun, ActTold) {
    let (begun, mut told) = taken(up, act).await;
    let Some(id) = begun.queue_id().map(str::to_owned) else {
        return (begun, told);
    };
    let parked = until(async || {
        let query = Query {
            text: Some(id.clone()),
            ..Query::default()
        };
        up.server.tracer().flush().await;
        let events = up.server.tracer().find(query).await.unwrap_or_default();
        events.into_iter().find_map(|event| match event.event {
            Event::Queue { state, reason, .. } if state == "parked" => Some(reason),
            _ => None,
        })
    })
    .await;
    match parked {
        Some(reason) => told.answer = format!("held, the queue is parked: {reason}"),
        None => told.faults.push("the queue must be parked".to_owned()),
    }
    (begun, told)
}

/// Renews the certificate and follows what waited for it.
async fn renewed(up: &Up, tenant: &str, waiting: Vec<(&Act, Begun)>) -> Vec<ActTold> {
    let mut settings = up.settings.clone();
    let reloaded = match issue(&mut settings, &up.authority, tenant, None) {
        Ok(()) => up.server.reload(settings),
        Err(error) => Err(error.to_string()),
    };
    if let Err(fault) = reloaded {
        return vec![told(
            "lapse",
            "the reload was refused".to_owned(),
            vec![fault],
        )];
    }
    let mut acts = Vec::new();
    for (act, begun) in waiting {
        acts.push(begun.conclude(&up.scene, act).await);
    }
    let arrived = acts.iter().filter(|act| act.exchange.is_some()).count();
    let all = acts.len();
    if let Some(first) = acts.first_mut() {
        first.answer = format!("released: {arrived} of {all} that waited arrived");
    }
    acts
}

/// What must not have come: a bounce, or anything a second time.
fn leftovers(up: &Up) -> Vec<String> {
    let waiting = up.scene.exchange.waiting();
    let words = waiting.iter().map(|message| {
        let subject = message.header("Subject").unwrap_or_default();
        let subject = crate::mail::shown(subject.as_bytes());
        format!("arrived besides, from <{}>: {subject}", message.sender)
    });
    words.collect()
}

/// Waits for something that happens by itself.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.ok()
}
