//! `[store]`, `[dns]`, `[trace]`, `[admin]`, `[log]`: the house itself.

use super::super::raw::{Admin, Dns, File, Log, Trace, default};
use super::super::reader::{At, Reader, Scope};
use super::super::value::WordOrList;
use super::super::{AdminSettings, LogSettings, units};
use super::headers::LONG_ENOUGH;
use super::listeners::reaches;
use crate::receive::ListenerSettings;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What the tables come to.
pub(super) struct House {
    pub(super) dns_servers: Option<Vec<SocketAddr>>,
    pub(super) trace_keep: Duration,
    pub(super) admin: AdminSettings,
    pub(super) log: LogSettings,
}

pub(super) fn store(raw: &File, reader: &mut Reader<'_>) {
    let Some((table, scope)) = reader.table(&Scope::top(), "store", &raw.store) else {
        return;
    };
    let engine = reader.choice(
        &scope,
        "engine",
        &table.engine,
        &[("embedded", false), ("postgres", true)],
    );
    let postgres = engine.as_ref().is_some_and(|at| at.value);
    if let Some(engine) = engine.filter(|at| at.value) {
        reader.error(
            &engine.spot,
            "\"postgres\" is not built in this version: only \"embedded\" is",
        );
    }
    let url = reader.secret(&scope, "url", &table.url, |_| Ok(()));
    if let Some(url) = url.filter(|_| !postgres) {
        reader.warn(&url.spot, "has no effect with engine = \"embedded\"");
    }
}

pub(super) fn house(raw: &File, reader: &mut Reader<'_>, listeners: &[ListenerSettings]) -> House {
    let nothing = (
        Dns::default(),
        Trace::default(),
        Admin::default(),
        Log::default(),
    );
    let top = Scope::top();
    let (table, scope) = reader
        .table(&top, "dns", &raw.dns)
        .unwrap_or_else(|| (&nothing.0, top.clone()));
    let dns_servers = dns_servers(reader, &scope, table);
    let (table, scope) = reader
        .table(&top, "trace", &raw.trace)
        .unwrap_or_else(|| (&nothing.1, top.clone()));
    let keep = reader.parse(&scope, "keep", &table.keep, units::some_duration);
    let (table, scope) = reader
        .table(&top, "admin", &raw.admin)
        .unwrap_or_else(|| (&nothing.2, top.clone()));
    let admin = admin(reader, &scope, table, listeners);
    let (table, scope) = reader
        .table(&top, "log", &raw.log)
        .unwrap_or((&nothing.3, top));
    let json = reader.choice(
        &scope,
        "format",
        &table.format,
        &[("text", false), ("json", true)],
    );
    let levels = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    let level = reader.choice(&scope, "level", &table.level, &levels);
    House {
        dns_servers,
        trace_keep: keep.map_or_else(
            || units::duration(default::TRACE_KEEP).unwrap_or(Duration::MAX),
            |at| at.value,
        ),
        admin,
        log: LogSettings {
            json: json.is_some_and(|at| at.value),
            level: level.map_or(tracing::Level::INFO, |at| at.value),
        },
    }
}

fn dns_servers(reader: &mut Reader<'_>, scope: &Scope, table: &Dns) -> Option<Vec<SocketAddr>> {
    let At { value, spot } = reader.word_or_list(scope, "servers", &table.servers)?;
    match value {
        WordOrList::Word(word) => {
            reader.word(&spot, word, |text| match text {
                "system" => Ok(()),
                _ => Err("must be \"system\" or a list of addresses".to_owned()),
            });
            None
        }
        WordOrList::List(list) => {
            let servers = reader.items(&spot, list, |text| units::socket(text, Some(53)));
            if list.0.is_empty() {
                reader.error(&spot, "empty: at least one is needed, or \"system\"");
            }
            Some(servers.into_iter().map(|at| at.value).collect())
        }
    }
}

fn admin(
    reader: &mut Reader<'_>,
    scope: &Scope,
    table: &Admin,
    listeners: &[ListenerSettings],
) -> AdminSettings {
    let address = reader.parse(scope, "address", &table.address, |text| {
        units::socket(text, None)
    });
    let hosts = reader
        .list(scope, "hosts", &table.hosts, super::host)
        .unwrap_or_default();
    let token = reader.secret(scope, "token", &table.token, |_| Ok(()));
    if let Some(At { value, spot }) = &token
        && value.expose().len() < LONG_ENOUGH
    {
        let told = format!("shorter than {LONG_ENOUGH} characters, and can be guessed");
        reader.warn(spot, told);
    }
    if let Some(address) = &address {
        if !address.value.ip().is_loopback() && table.token.is_absent() {
            reader.warn(
                &address.spot,
                "reached from other machines, and without a token of yours; it speaks no TLS",
            );
        }
        if listeners
            .iter()
            .any(|listener| reaches(listener.address, address.value))
        {
            reader.error(&address.spot, "is the address of a [[listener]]");
        }
    }
    let fallback = || {
        default::ADMIN_ADDRESS
            .parse()
            .unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, 8025)))
    };
    AdminSettings {
        address: address.map_or_else(fallback, |at| at.value),
        hosts: hosts.into_iter().map(|at| at.value).collect(),
        token: token.map(|at| at.value),
    }
}
