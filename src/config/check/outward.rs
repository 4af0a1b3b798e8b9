//! `[[relay]]` and `[delivery.*]`: the ways out and their laws.

use super::super::raw::{File, default};
use super::super::reader::{At, Reader, Scope, label};
use super::super::units;
use super::super::value::{Key, List, Value};
use super::applications::Facts as Application;
use super::connectors::Own;
use super::exchange_online::roots_of;
use super::named::Named;
use crate::deliver::{Relay, RelayTls};
use crate::schedule::Law;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn relays(raw: &File, reader: &mut Reader<'_>, own: &Own<'_>) -> Named<Arc<Relay>> {
    let mut named = Named::new("relay");
    for (table, scope) in reader.tables("relay", &raw.relay, |table| Some(&table.name)) {
        let name = reader.name(&scope, &table.name);
        let host = reader.required(&scope, "host", &table.host, super::host);
        let port = reader
            .whole(&scope, "port", &table.port, 1..=65_535)
            .map_or(default::RELAY_PORT, |at| at.value);
        if let Some(host) = &host
            && own.is_reached(&host.value, port)
        {
            reader.error(
                &host.spot,
                "is this smart host itself: mail would go round in circles",
            );
        }
        let levels = [
            ("verify", RelayTls::Verify),
            ("encrypt", RelayTls::Encrypt),
            ("opportunistic", RelayTls::Opportunistic),
        ];
        let tls = reader
            .choice(&scope, "tls", &table.tls, &levels)
            .map_or(RelayTls::Verify, |at| at.value);
        let roots = roots_of(
            reader,
            &scope,
            "server_certificate_roots",
            &table.server_certificate_roots,
        );
        let username = reader.parse(&scope, "username", &table.username, |text| match text {
            "" => Err("empty".to_owned()),
            text => Ok(text.to_owned()),
        });
        let password = reader.secret(&scope, "password", &table.password, |_| Ok(()));
        match (table.username.is_absent(), table.password.is_absent()) {
            (false, true) => reader.error(
                &scope.missing("password"),
                "required with username, and missing",
            ),
            (true, false) => reader.error(
                &scope.missing("username"),
                "required with password, and missing",
            ),
            (false, false) if tls == RelayTls::Opportunistic => {
                let spot = reader.spot(&scope, "tls", &table.tls);
                reader.warn(
                    &spot,
                    "the password is sent under TLS only: where the relay offers none, its mail waits",
                );
            }
            (false, false) | (true, true) => {}
        }
        let relay = match (&name, host) {
            (Some(name), Some(host)) => Some(Arc::new(Relay {
                name: name.value.as_str().into(),
                host: host.value.into(),
                port,
                tls,
                roots,
                credentials: username
                    .zip(password)
                    .map(|(user, password)| (user.value, password.value)),
            })),
            _ => None,
        };
        named.add(reader, name, relay);
    }
    named
}

/// What `[delivery]` comes to.
pub(super) struct Laws {
    pub(super) exchange: Law,
    pub(super) mx: Law,
    pub(super) source_addresses: Vec<(Arc<str>, Vec<IpAddr>)>,
}

pub(super) fn laws(raw: &File, reader: &mut Reader<'_>, applications: &[Application]) -> Laws {
    let nothing = (
        super::super::raw::ExchangeLaw::default(),
        super::super::raw::MxLaw::default(),
    );
    let top = Scope::top();
    let delivery = reader.table(&top, "delivery", &raw.delivery);
    let exchange = delivery
        .as_ref()
        .and_then(|(table, scope)| reader.table(scope, "exchange", &table.exchange));
    let mx = delivery
        .as_ref()
        .and_then(|(table, scope)| reader.table(scope, "mx", &table.mx));

    let (table, scope) = exchange.unwrap_or_else(|| (&nothing.0, top.clone()));
    let hold = reader.parse(
        &scope,
        "hold_on_connector_fault",
        &table.hold_on_connector_fault,
        units::duration,
    );
    let exchange = Law {
        retry: retry(reader, &scope, &table.retry, default::EXCHANGE_RETRY),
        expire: some(
            reader,
            &scope,
            "expire",
            &table.expire,
            default::EXCHANGE_EXPIRE,
        ),
        hold_on_connector_fault: hold.map_or_else(|| fixed(default::EXCHANGE_HOLD), |at| at.value),
        delay_notice: notice(reader, &scope, &table.delay_notice),
    };
    let (table, scope) = mx.unwrap_or((&nothing.1, top));
    let mx = Law {
        retry: retry(reader, &scope, &table.retry, default::MX_RETRY),
        expire: some(reader, &scope, "expire", &table.expire, default::MX_EXPIRE),
        hold_on_connector_fault: Duration::ZERO,
        delay_notice: notice(reader, &scope, &table.delay_notice),
    };
    let source_addresses = source_addresses(reader, &scope, table, applications);
    Laws {
        exchange,
        mx,
        source_addresses,
    }
}

/// A default of our own, which is well-formed.
fn fixed(text: &str) -> Duration {
    units::duration(text).unwrap_or(Duration::from_secs(3600))
}

fn retry(
    reader: &mut Reader<'_>,
    scope: &Scope,
    key: &Key<List>,
    default: &[&str],
) -> Vec<Duration> {
    let given = reader
        .some_list(scope, "retry", key, units::some_duration)
        .filter(|list| !list.is_empty());
    given.map_or_else(
        || default.iter().map(|text| fixed(text)).collect(),
        |list| list.into_iter().map(|at| at.value).collect(),
    )
}

fn some(
    reader: &mut Reader<'_>,
    scope: &Scope,
    name: &str,
    key: &Key<String>,
    default: &str,
) -> Duration {
    reader
        .parse(scope, name, key, units::some_duration)
        .map_or_else(|| fixed(default), |at| at.value)
}

fn notice(reader: &mut Reader<'_>, scope: &Scope, key: &Key<String>) -> Option<Duration> {
    let given = reader.parse(scope, "delay_notice", key, units::duration);
    let notice = given.map_or_else(|| fixed(default::DELAY_NOTICE), |at| at.value);
    (!notice.is_zero()).then_some(notice)
}

fn source_addresses(
    reader: &mut Reader<'_>,
    scope: &Scope,
    table: &super::super::raw::MxLaw,
    applications: &[Application],
) -> Vec<(Arc<str>, Vec<IpAddr>)> {
    let Some(At { value, spot }) =
        reader.by_label(scope, "source_addresses", &table.source_addresses)
    else {
        return Vec::new();
    };
    let mut made = Vec::new();
    for (stream, list) in &value.0 {
        let here = reader.inside(&spot, &format!(".{stream}"), list);
        let Value::List(items) = list.get_ref() else {
            reader.error(
                &here,
                format!(
                    "must be a list of IP addresses, not {}",
                    list.get_ref().found()
                ),
            );
            continue;
        };
        if let Err(why) = label(stream) {
            reader.error(&here, why);
        }
        if !applications
            .iter()
            .any(|facts| facts.account.application.stream.as_deref() == Some(stream))
        {
            reader.warn(&here, "no [[application]] has this stream");
        }
        let addresses = reader.items(&here, &List(items.clone()), |text| {
            text.parse::<IpAddr>()
                .map_err(|_| "not an IP address".to_owned())
        });
        made.push((
            stream.as_str().into(),
            addresses.into_iter().map(|at| at.value).collect(),
        ));
    }
    made
}
