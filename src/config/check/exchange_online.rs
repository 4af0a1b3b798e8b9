//! `[exchange_online]`: how Microsoft 365 proves itself to us, in both directions.

use super::super::raw::{ExchangeOnline as Raw, File, default};
use super::super::reader::{At, Reader, Scope, base_of};
use super::super::value::Key;
use super::super::{identity, roots, units};
use crate::deliver::ServerTrust;
use crate::mail::{Domain, DomainPattern};
use crate::trust::certificate::Roots;
use crate::trust::endpoints::{self, Published};
use crate::trust::network::Networks;
use crate::trust::{ExchangeOnline, HalfProven};
use ipnet::IpNet;
use std::sync::Arc;

/// What the table comes to.
pub(super) struct Exchange {
    pub(super) receiving: ExchangeOnline,
    pub(super) delivering: ServerTrust,
    pub(super) endpoints_made: Option<u64>,
    pub(super) endpoints: Published,
    pub(super) endpoints_rejected: bool,
}

/// An entry of `networks`.
enum Network {
    Published,
    Block(IpNet),
}

pub(super) fn exchange_online(raw: &File, reader: &mut Reader<'_>) -> Exchange {
    let empty = Raw::default();
    let top = Scope::top();
    let (table, scope) = reader
        .table(&top, "exchange_online", &raw.exchange_online)
        .unwrap_or((&empty, top));

    let names = reader.some_list(
        &scope,
        "client_certificate_names",
        &table.client_certificate_names,
        |text| {
            if text.starts_with("*.") {
                return Err("a wildcard stands only in the certificate, never here".to_owned());
            }
            super::fully_qualified(text)
        },
    );
    let names = names.map_or_else(|| parsed(default::CLIENT_CERTIFICATE_NAMES), values);
    let client_roots = roots_of(
        reader,
        &scope,
        "client_certificate_roots",
        &table.client_certificate_roots,
    );

    let server_names = reader.some_list(
        &scope,
        "server_certificate_names",
        &table.server_certificate_names,
        pattern,
    );
    let server_names = server_names.map_or_else(
        || {
            default::SERVER_CERTIFICATE_NAMES
                .iter()
                .map(|&name| name.to_owned())
                .collect()
        },
        values,
    );
    let server_roots = roots_of(
        reader,
        &scope,
        "server_certificate_roots",
        &table.server_certificate_roots,
    );

    let words = [("defer", HalfProven::Defer), ("refuse", HalfProven::Refuse)];
    let half_proven = reader.choice(&scope, "half_proven", &table.half_proven, &words);

    let (endpoints, endpoints_rejected) = endpoints_of(reader, &scope, &table.endpoints);
    let (networks, endpoints_made) =
        networks_of(reader, &scope, &table.networks, endpoints.clone());
    if endpoints_made.is_none() && !table.endpoints.is_absent() {
        let spot = reader.spot(&scope, "endpoints", &table.endpoints);
        reader.warn(
            &spot,
            "has no effect, because networks does not hold \"published\"",
        );
    }
    Exchange {
        receiving: ExchangeOnline {
            client_certificate_names: names,
            client_certificate_roots: client_roots,
            networks,
            half_proven: half_proven.map(|at| at.value).unwrap_or_default(),
        },
        delivering: ServerTrust {
            names: server_names,
            roots: server_roots,
        },
        endpoints_made,
        endpoints,
        endpoints_rejected,
    }
}

fn values<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}

fn parsed(names: &[&str]) -> Vec<Domain> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// A name of Exchange's server certificate; here `*.` stands for any depth.
fn pattern(text: &str) -> Result<String, String> {
    let pattern: DomainPattern = text
        .parse()
        .map_err(|why: crate::mail::DomainError| why.to_string())?;
    if pattern.domain().as_str().contains('.') {
        Ok(pattern.to_string())
    } else {
        Err("must be a full domain name, such as mail.protection.outlook.com".to_owned())
    }
}

pub(super) fn roots_of(
    reader: &mut Reader<'_>,
    scope: &Scope,
    name: &str,
    key: &Key<String>,
) -> Arc<Roots> {
    let base = base_of(reader.file());
    let file = reader.parse(scope, name, key, |text| match text {
        "system" => Ok(None),
        "" => Err("must be \"system\" or a PEM file".to_owned()),
        path => Ok(Some(base.join(path))),
    });
    let Some(At {
        value: Some(path),
        spot,
    }) = file
    else {
        return (reader.surroundings.system_roots)();
    };
    match roots::from_file(&path) {
        Ok(roots) => Arc::new(roots),
        Err(why) => {
            reader.error(&spot, why);
            Arc::default()
        }
    }
}

/// The endpoint data, and whether a file was not taken at a reload: it must neither shut Exchange out of a server that
/// runs nor keep the rest of the configuration from it. At start and in `check` there is nothing to fall back on.
fn endpoints_of(reader: &mut Reader<'_>, scope: &Scope, key: &Key<String>) -> (Published, bool) {
    let Some(path) = reader.path(scope, "endpoints", key) else {
        return (endpoints::shipped(), false);
    };
    let in_force = reader.surroundings.endpoints_in_force;
    let read = identity::read(&path.value).and_then(|bytes| {
        let text = String::from_utf8(bytes)
            .map_err(|_| format!("{} is not UTF-8", path.value.display()))?;
        let mut published =
            endpoints::parse(&text).map_err(|why| format!("{}: {why}", path.value.display()))?;
        // Microsoft's own array has no date: the file's is taken.
        published.made = published.made.or_else(|| modified(&path.value));
        match in_force {
            Some(old) => endpoints::replace(old, published)
                .map_err(|why| format!("{}: {why}", path.value.display())),
            None => Ok(published),
        }
    });
    match (read, in_force) {
        (Ok(published), _) => (published, false),
        (Err(why), Some(old)) => {
            reader.warn(
                &path.spot,
                format!(
                    "{why}: not taken, the endpoint data in force stay; if it is meant so, restart"
                ),
            );
            (old.clone(), true)
        }
        (Err(why), None) => {
            reader.error(&path.spot, why);
            (endpoints::shipped(), false)
        }
    }
}

fn networks_of(
    reader: &mut Reader<'_>,
    scope: &Scope,
    key: &Key<super::super::value::List>,
    published: Published,
) -> (Networks, Option<u64>) {
    let entries = reader.some_list(scope, "networks", key, |text| match text {
        "published" => Ok(Network::Published),
        block => units::block(block).map(Network::Block),
    });
    let Some(entries) = entries else {
        return (Networks::new(published.smtp_networks), published.made);
    };
    let mut blocks = Vec::new();
    let mut made = None;
    for At { value, spot } in entries {
        match value {
            Network::Published => {
                blocks.extend(published.smtp_networks.iter().copied());
                made = published.made;
            }
            Network::Block(block) => {
                if block.prefix_len() == 0 {
                    reader.warn(
                        &spot,
                        "holds every address: the network gate is open to everyone",
                    );
                }
                blocks.push(block);
            }
        }
    }
    (Networks::new(blocks), made)
}

fn modified(path: &std::path::Path) -> Option<u64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    modified
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}
