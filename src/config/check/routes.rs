//! `[[route]]`: every one leads somewhere, and every one is reached.

use super::super::raw::File;
use super::super::reader::{At, Reader, Scope, label};
use super::super::value::WordOrList;
use super::applications::Facts as Application;
use super::named::{Named, missing};
use super::reach::recipients_within;
use super::tenants::Facts as TenantFacts;
use crate::deliver::Relay;
use crate::mail::MailboxPattern;
use crate::route::{From, Recipients, Route, Routes, Via};
use crate::trust::Forwarded;
use std::sync::Arc;

pub(super) fn routes(
    raw: &File,
    reader: &mut Reader<'_>,
    tenants: &[TenantFacts],
    relays: &Named<Arc<Relay>>,
    applications: &[Application],
) -> Routes {
    let mut made: Vec<(Route, Scope)> = Vec::new();
    for (table, scope) in reader.tables("route", &raw.route, |_| None) {
        let tenant = reader.parse(&scope, "tenant", &table.tenant, label);
        if let Some(tenant) = &tenant {
            let known: Vec<&str> = tenants
                .iter()
                .flat_map(|facts| &facts.name)
                .map(|name| name.value.as_str())
                .collect();
            if !known.contains(&tenant.value.as_str()) {
                missing(
                    reader,
                    "tenant",
                    &tenant.spot,
                    &tenant.value,
                    known.into_iter(),
                );
            }
        }
        reader.demand(&scope, "recipients", &table.recipients);
        let recipients = recipients(reader, &scope, table);
        let sides = [
            ("connector", From::Connector),
            ("submission", From::Submission),
        ];
        let from = reader
            .choice(&scope, "from", &table.from, &sides)
            .map(|at| at.value);
        let stream = reader.parse(&scope, "stream", &table.stream, label);
        if let Some(stream) = &stream
            && from == Some(From::Connector)
        {
            reader.warn(
                &stream.spot,
                "only applications have streams: with from = \"connector\" the route takes no mail",
            );
        } else if let Some(stream) = &stream {
            let used = applications
                .iter()
                .any(|facts| facts.account.application.stream.as_deref() == Some(&stream.value));
            if !used {
                reader.warn(&stream.spot, "no [[application]] has this stream");
            }
        }
        let via = reader.required(&scope, "via", &table.via, via);
        if let Some(via) = &via {
            judge_via(reader, via, tenant.as_ref(), tenants, relays);
        }
        if let (Some(recipients), Some(via)) = (recipients, via) {
            let route = Route {
                tenant: tenant.map(|at| at.value.into()),
                recipients,
                from,
                stream: stream.map(|at| at.value.into()),
                via: via.value,
            };
            made.push((route, scope));
        }
    }
    for (index, (route, scope)) in made.iter().enumerate() {
        let earlier = made.get(..index).unwrap_or_default();
        if let Some(taker) = taken_before(route, earlier, tenants) {
            reader.warn(
                scope.spot(),
                format!(
                    "is never reached: {} takes all of it before",
                    taker.spot().key
                ),
            );
        }
    }
    for relay in relays.names() {
        let used = |(route, _): &(Route, Scope)| match &route.via {
            Via::Relay(name) => **name == *relay.value,
            Via::Exchange | Via::Mx => false,
        };
        if !made.iter().any(used) {
            reader.warn(&relay.spot, "no [[route]] leads to this relay");
        }
    }
    for facts in tenants {
        let (Some(name), Some(_)) = (&facts.name, &facts.tenant) else {
            continue;
        };
        let served = made
            .iter()
            .any(|(route, _)| route.tenant.as_deref().is_none_or(|own| own == name.value));
        if !served {
            reader.warn(
                &name.spot,
                "no [[route]] takes this tenant's mail: all of it is refused",
            );
        }
    }
    Routes::new(made.into_iter().map(|(route, _)| route).collect())
}

fn recipients(
    reader: &mut Reader<'_>,
    scope: &Scope,
    table: &super::super::raw::Route,
) -> Option<Recipients> {
    let At { value, spot } = reader.word_or_list(scope, "recipients", &table.recipients)?;
    match value {
        WordOrList::Word(word) => {
            let read = |text: &str| match text {
                "accepted" => Ok(Recipients::Accepted),
                "any" => Ok(Recipients::Any),
                _ => Err(
                    "must be \"accepted\", \"any\" or a list of addresses and domains".to_owned(),
                ),
            };
            reader.word(&spot, word, read).map(|at| at.value)
        }
        WordOrList::List(list) => {
            let list = reader.items(&spot, list, |text| match text.parse() {
                Ok(MailboxPattern::NullSender) => Err("is no recipient".to_owned()),
                Ok(pattern) => Ok(pattern),
                Err(why) => Err(why.to_string()),
            });
            Some(Recipients::Listed(
                list.into_iter().map(|at| at.value).collect(),
            ))
        }
    }
}

fn via(text: &str) -> Result<Via, String> {
    match text {
        "exchange" => Ok(Via::Exchange),
        "mx" => Ok(Via::Mx),
        other => match other.strip_prefix("relay:") {
            Some(name) => label(name).map(|name| Via::Relay(name.into())),
            None => Err("must be \"exchange\", \"mx\" or \"relay:NAME\"".to_owned()),
        },
    }
}

fn judge_via(
    reader: &mut Reader<'_>,
    via: &At<Via>,
    tenant: Option<&At<String>>,
    tenants: &[TenantFacts],
    relays: &Named<Arc<Relay>>,
) {
    match &via.value {
        Via::Exchange => {
            for facts in tenants {
                let Some(name) = &facts.name else { continue };
                let meant = tenant.is_none_or(|tenant| tenant.value == name.value);
                if meant && facts.tenant.is_some() && !facts.has_connector {
                    reader.error(
                        &via.spot,
                        format!("tenant {} has no inbound_connector", name.value),
                    );
                }
            }
        }
        Via::Mx => {}
        Via::Relay(name) => {
            let name = At {
                value: name.to_string(),
                spot: via.spot.clone(),
            };
            relays.find(reader, &name);
        }
    }
}

/// The route that takes the last of what `route` would take; `None` where some mail reaches it (or where no tenant's
/// could, which is told elsewhere).
///
/// Looked at for each tenant and each kind of mail that the table tells apart, because the takers may differ: one for
/// connector mail, another for submissions.
fn taken_before<'m>(
    route: &Route,
    earlier: &'m [(Route, Scope)],
    tenants: &[TenantFacts],
) -> Option<&'m Scope> {
    let streams = earlier
        .iter()
        .map(|(earlier, _)| earlier)
        .chain([route])
        .filter_map(|route| route.stream.as_deref());
    let mut kinds = vec![(From::Connector, None), (From::Submission, None)];
    kinds.extend(streams.map(|stream| (From::Submission, Some(stream))));
    let mut last = None;
    for tenant in tenants.iter().filter(|tenant| applies(route, tenant)) {
        let accepted: Vec<_> = tenant.accepted().collect();
        for kind in kinds.iter().filter(|kind| takes(route, kind)) {
            let (_, taker) = earlier.iter().find(|(earlier, _)| {
                // Mail with a foreign sender passes mx and relay by.
                let passed_by = kind.0 == From::Connector
                    && tenant.forwarded == Forwarded::Allow
                    && !earlier.via.is_internal()
                    && route.via.is_internal();
                applies(earlier, tenant)
                    && takes(earlier, kind)
                    && !passed_by
                    && recipients_within(&route.recipients, &earlier.recipients, &accepted)
            })?;
            last = Some(taker);
        }
    }
    last
}

fn applies(route: &Route, tenant: &TenantFacts) -> bool {
    let own = route.tenant.as_deref();
    own.is_none_or(|name| tenant.is_named(name))
}

fn takes(route: &Route, kind: &(From, Option<&str>)) -> bool {
    route.from.is_none_or(|from| from == kind.0)
        && route
            .stream
            .as_deref()
            .is_none_or(|stream| kind.1 == Some(stream))
}
