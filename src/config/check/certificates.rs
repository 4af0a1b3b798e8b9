//! `[[certificate]]`: readable, in order, the key's own, and valid today.

use super::super::raw::File;
use super::super::reader::{At, Reader};
use super::super::{identity, roots};
use super::named::Named;
use crate::trust::certificate::Identity;
use std::path::PathBuf;
use std::sync::Arc;

const DAY: u64 = 24 * 60 * 60;
/// Renewal is due earlier than this before the end.
const SOON: u64 = 30 * DAY;

pub(super) fn certificates(raw: &File, reader: &mut Reader<'_>) -> Named<Arc<Identity>> {
    let mut named = Named::new("certificate");
    for (table, scope) in reader.tables("certificate", &raw.certificate, |table| Some(&table.name))
    {
        let name = reader.name(&scope, &table.name);
        reader.demand(&scope, "chain", &table.chain);
        let chain = reader.path(&scope, "chain", &table.chain);
        let chain = chain.and_then(|path| or_report(reader, &path, identity::chain(&path.value)));
        reader.demand(&scope, "key", &table.key);
        let key = reader.path(&scope, "key", &table.key);
        let key = key.and_then(|path| or_report(reader, &path, identity::key(&path.value)));
        if let Some(chain) = &chain {
            judge_chain(reader, chain);
        }
        let identity = match (&name, chain, key) {
            (Some(name), Some(chain), Some(key)) => {
                if let Some(fault) = identity::key_fault(&chain.value.certificates, &key.value) {
                    reader.error(&key.spot, fault);
                }
                Some(Arc::new(Identity {
                    name: name.value.as_str().into(),
                    chain: chain.value.certificates,
                    key: key.value,
                    names: chain.value.names,
                    not_before: chain.value.not_before,
                    not_after: chain.value.not_after,
                }))
            }
            _ => None,
        };
        named.add(reader, name, identity);
    }
    named
}

fn or_report<T>(
    reader: &mut Reader<'_>,
    path: &At<PathBuf>,
    read: Result<T, String>,
) -> Option<At<T>> {
    match read {
        Ok(value) => Some(At {
            value,
            spot: path.spot.clone(),
        }),
        Err(why) => {
            reader.error(&path.spot, why);
            None
        }
    }
}

fn judge_chain(reader: &mut Reader<'_>, chain: &At<identity::Chain>) {
    let (now, spot) = (reader.surroundings.unix_seconds, &chain.spot);
    let chain = &chain.value;
    if now >= chain.not_after {
        let days = (now - chain.not_after) / DAY;
        reader.lapsed(spot, format!("the certificate has expired, {days} days ago: Exchange Online and applications refuse it"));
    } else if now < chain.not_before {
        let days = (chain.not_before - now).div_ceil(DAY);
        reader.lapsed(
            spot,
            format!("the certificate is not valid yet, but in {days} days"),
        );
    } else if chain.not_after - now < SOON {
        reader.warn(
            spot,
            format!(
                "the certificate expires in {} days",
                (chain.not_after - now) / DAY
            ),
        );
    }
    if chain.names.is_empty() {
        reader.error(
            spot,
            "the certificate carries no name: neither a SAN dNSName nor a subject CN",
        );
    }
    if chain.certificates.len() == 1 && chain.next_issuer.is_none() {
        reader.warn(
            spot,
            "the certificate is self-signed: Exchange Online takes only those of a public authority (450 4.4.317, 550 5.7.64)",
        );
    }
    if let Some(disorder) = &chain.disorder {
        reader.error(spot, disorder.clone());
    } else if let Some((issuer, shown)) = &chain.next_issuer {
        let system = (reader.surroundings.system_roots)();
        if !roots::holds(&system, issuer) {
            reader.warn(
                spot,
                format!("the chain ends below \"{shown}\", which is no known root: is an intermediate missing? Exchange Online does not fetch it (450 4.4.317)"),
            );
        }
    }
}
