//! `[[certificate]]`: readable, in order, the key's own, and valid today.

use super::super::exposed::exposed;
use super::super::raw::{Certificate as Raw, File};
use super::super::reader::{At, Reader, Scope, Spot};
use super::super::{Certificate, identity, roots};
use super::named::Named;
use crate::trust::certificate::{Identity, Origin, Role, WhyAbsent, holds};
use crate::trust::chain::Link;
use std::path::PathBuf;
use std::sync::Arc;

const DAY: u64 = 24 * 60 * 60;
/// Renewal is due earlier than this before the end.
const SOON: u64 = 30 * DAY;

/// The tables as settings, and as far as they could be read, for who wants to see them.
pub(super) fn certificates(
    raw: &File,
    reader: &mut Reader<'_>,
) -> (Named<Arc<Identity>>, Vec<Certificate>) {
    let mut named = Named::new("certificate");
    let (mut seen, mut ordered) = (Vec::new(), Vec::new());
    for (table, scope) in reader.tables("certificate", &raw.certificate, |table| Some(&table.name))
    {
        let name = reader.name(&scope, &table.name);
        let names = super::acme::names(raw, reader, &scope, table, &mut ordered);
        let (identity, mut certificate) =
            certificate(reader, &scope, table, name.as_ref(), !names.is_empty());
        certificate.acme_names = names;
        seen.push(certificate);
        named.add(reader, name, identity);
    }
    (named, seen)
}

fn certificate(
    reader: &mut Reader<'_>,
    scope: &Scope,
    table: &Raw,
    name: Option<&At<String>>,
    ordered: bool,
) -> (Option<Arc<Identity>>, Certificate) {
    reader.demand(scope, "chain", &table.chain);
    let mut chain_file = reader.path(scope, "chain", &table.chain);
    reader.demand(scope, "key", &table.key);
    let mut key_file = reader.path(scope, "key", &table.key);
    let candidate = reader.surroundings.candidate;
    if let Some(candidate) = candidate.filter(|own| name.is_some_and(|at| at.value == own.name)) {
        for (file, other) in [
            (&mut chain_file, candidate.chain),
            (&mut key_file, candidate.key),
        ] {
            if let Some(file) = file {
                other.clone_into(&mut file.value);
            }
        }
    }
    let chain = chain_file
        .as_ref()
        .and_then(|path| or_report(reader, path, identity::chain(&path.value), ordered));
    let key = key_file
        .as_ref()
        .and_then(|path| or_report(reader, path, identity::key(&path.value), ordered));
    if let Some(key) = &key
        && let Some(told) = key_file.as_ref().and_then(|file| exposed(&file.value))
    {
        reader.warn(&key.spot, told);
    }
    let known_root = chain
        .as_ref()
        .is_some_and(|chain| judge_chain(reader, chain));
    let mut certificate = Certificate {
        name: name.map(|at| at.value.clone()),
        line: scope.spot().line,
        origin: chain_file.zip(key_file).map(|(chain, key)| Origin {
            chain: chain.value,
            key: key.value,
        }),
        chain: chain.as_ref().map(|at| at.value.chain.clone()),
        names: chain
            .as_ref()
            .map_or_else(Vec::new, |at| at.value.leaf.names.clone()),
        known_root,
        key_fits: None,
        acme_names: Vec::new(),
        listeners: Vec::new(),
        connectors: Vec::new(),
    };
    let (Some(chain), Some(key)) = (chain, key) else {
        return (None, certificate);
    };
    let fault = identity::key_fault(&chain.value.certificates, &key.value);
    certificate.key_fits = Some(fault.is_none());
    if let Some(fault) = fault {
        reader.error(&key.spot, fault);
    }
    let identity = name.map(|name| {
        Arc::new(Identity {
            name: name.value.as_str().into(),
            chain: chain.value.certificates,
            key: key.value,
            names: chain.value.leaf.names,
            not_before: chain.value.leaf.not_before,
            not_after: chain.value.leaf.not_after,
            known_root,
            origin: certificate.origin.clone(),
        })
    });
    (identity, certificate)
}

fn or_report<T>(
    reader: &mut Reader<'_>,
    path: &At<PathBuf>,
    read: Result<T, String>,
    ordered: bool,
) -> Option<At<T>> {
    match read {
        Ok(value) => Some(At {
            value,
            spot: path.spot.clone(),
        }),
        Err(mut why) => {
            if ordered && !path.value.exists() {
                why += ": the first one is ordered by `gatepost certificate obtain`";
            }
            reader.error(&path.spot, why);
            None
        }
    }
}

/// Notes what is wrong with a chain; whether it leads to a known root, as far as names tell.
fn judge_chain(reader: &mut Reader<'_>, chain: &At<identity::Loaded>) -> bool {
    let (now, spot) = (reader.surroundings.unix_seconds, &chain.spot);
    let loaded = &chain.value;
    judge_dates(reader, loaded, spot, now);
    if loaded.leaf.names.is_empty() {
        reader.error(
            spot,
            "the certificate carries no name: neither a SAN dNSName nor a subject CN",
        );
    }
    for (number, link) in (1..).zip(&loaded.chain.links) {
        if !link.usage.allows(Role::Client) {
            let whose = match number {
                1 => "its extended key usage".to_owned(),
                number => format!("the extended key usage of {}", above(number, link)),
            };
            reader.warn(spot, format!("{whose} allows neither server nor client authentication: whoever looks refuses it"));
        }
    }
    if let Some(disorder) = loaded.chain.disorder() {
        reader.error(spot, disorder);
        return false;
    }
    let Some(last) = loaded.chain.links.last() else {
        return false;
    };
    let system = (reader.surroundings.system_roots)();
    let Some((issuer, shown)) = loaded.chain.beyond() else {
        let known = roots::holds(&system, last.subject_der());
        if !known && loaded.chain.links.len() == 1 {
            reader.warn(
                spot,
                "the certificate is self-signed: Exchange Online takes only those of a public authority (450 4.4.317, 550 5.7.64)",
            );
        }
        return known;
    };
    if !roots::holds(&system, issuer) {
        // A root that is known may stand there as an older one has signed it, for clients that know only that.
        if holds(&loaded.certificates, &system, now, Role::Client).is_ok() {
            return true;
        }
        reader.warn(
            spot,
            format!("the chain ends below \"{shown}\", which is no known root: is an intermediate missing? Exchange Online does not fetch it (450 4.4.317)"),
        );
        return false;
    }
    // Dates and key usage are told already, and the names agree: what is left is a signature or a constraint.
    if let Err(why @ (WhyAbsent::BadChain | WhyAbsent::UnknownIssuer)) =
        holds(&loaded.certificates, &system, now, Role::Client)
    {
        reader.warn(
            spot,
            format!("the chain names the known root \"{shown}\", and yet: {why}"),
        );
        return false;
    }
    true
}

fn judge_dates(reader: &mut Reader<'_>, loaded: &identity::Loaded, spot: &Spot, now: u64) {
    let leaf = &loaded.leaf;
    if now >= leaf.not_after {
        let days = (now - leaf.not_after) / DAY;
        reader.lapsed(spot, format!("the certificate has expired, {days} days ago: Exchange Online and applications refuse it"));
    } else if now < leaf.not_before {
        let days = (leaf.not_before - now).div_ceil(DAY);
        reader.lapsed(
            spot,
            format!("the certificate is not valid yet, but in {days} days"),
        );
    } else if leaf.not_after - now < SOON {
        reader.warn(
            spot,
            format!(
                "the certificate expires in {} days",
                (leaf.not_after - now) / DAY
            ),
        );
    }
    for (number, link) in (1..).zip(&loaded.chain.links).skip(1) {
        let which = above(number, link);
        if now >= link.not_after {
            let told = format!("{which} has expired: take the authority's newer one");
            reader.lapsed(spot, told);
        } else if now < link.not_before {
            let days = (link.not_before - now).div_ceil(DAY);
            reader.lapsed(
                spot,
                format!("{which} is not valid yet, but in {days} days"),
            );
        } else if link.not_after - now < SOON && link.not_after < leaf.not_after {
            let days = (link.not_after - now) / DAY;
            let told = format!(
                "{which} expires in {days} days, and with it the chain: take the authority's newer one"
            );
            reader.warn(spot, told);
        }
    }
}

/// A certificate of an authority, as it is told.
fn above(number: usize, link: &Link) -> String {
    format!("certificate {number} of the chain ({})", link.subject)
}
