//! `[[application]]`: who submits, from where, and as whom.

use super::super::raw::{Application as Raw, File};
use super::super::reader::{At, Reader, Scope, label};
use super::super::units;
use super::named::{missing, unique};
use super::reach::{is_private, is_wide, mailboxes_within};
use super::tenants::Facts as TenantFacts;
use crate::credentials::Account;
use crate::mail::{Mailbox, MailboxPattern};
use crate::receive::{ListenerSettings, Service};
use crate::trust::{Application, Tenant};
use ipnet::IpNet;
use std::sync::Arc;

/// An account with where it stands.
pub(super) struct Facts {
    pub(super) account: Arc<Account>,
}

pub(super) fn accounts(
    raw: &File,
    reader: &mut Reader<'_>,
    tenants: &[TenantFacts],
    listeners: &[ListenerSettings],
) -> Vec<Facts> {
    let mut names: Vec<At<String>> = Vec::new();
    let mut users: Vec<At<String>> = Vec::new();
    let mut facts = Vec::new();
    for (table, scope) in reader.tables("application", &raw.application, |table| Some(&table.name))
    {
        let name = reader.name(&scope, &table.name);
        if let Some(name) = &name {
            unique(
                reader,
                "[[application]] with this name",
                name,
                names.iter().find(|other| other.value == name.value),
            );
            names.push(name.clone());
        }
        let username = reader.parse(&scope, "username", &table.username, user);
        if let Some(username) = &username {
            let first = users.iter().find(|other| other.value == username.value);
            unique(
                reader,
                "[[application]] with this username",
                username,
                first,
            );
            users.push(username.clone());
        }
        if let Some(account) = account(reader, &scope, table, name, username, tenants) {
            facts.push(Facts {
                account: Arc::new(account),
            });
        }
    }
    let submission = listeners
        .iter()
        .any(|listener| listener.service == Service::Submission);
    if !facts.is_empty() && !submission {
        reader.warn(
            Scope::top().spot(),
            "there are applications, but no [[listener]] with service = \"submission\"",
        );
    }
    facts
}

fn user(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return Err("must be 1 to 255 printable characters".to_owned());
    }
    Ok(text.to_owned())
}

fn account(
    reader: &mut Reader<'_>,
    scope: &Scope,
    table: &Raw,
    name: Option<At<String>>,
    username: Option<At<String>>,
    tenants: &[TenantFacts],
) -> Option<Account> {
    let tenant = tenant_of(reader, scope, table, tenants);
    let hash = reader.hash(scope, "password_hash", &table.password_hash, phc);
    let networks = reader
        .list(scope, "networks", &table.networks, units::block)
        .unwrap_or_default();
    match (table.username.is_absent(), table.password_hash.is_absent()) {
        (false, true) => reader.error(
            &scope.missing("password_hash"),
            "required with username, and missing",
        ),
        (true, false) => reader.error(
            &scope.missing("username"),
            "required with password_hash, and missing",
        ),
        (true, true) if networks.is_empty() => {
            reader.error(
                scope.spot(),
                "neither username nor networks: nothing would prove it",
            );
        }
        (true, true) | (false, false) => {}
    }
    reader.demand(scope, "senders", &table.senders);
    let senders = reader.some_list(scope, "senders", &table.senders, |text| {
        text.parse::<MailboxPattern>()
            .map_err(|why| why.to_string())
    });
    let internal = reader.flag(scope, "internal", &table.internal);
    let is_internal = internal.as_ref().is_some_and(|at| at.value);
    let bounces_to = reader.parse(scope, "bounces_to", &table.bounces_to, |text| {
        text.parse::<Mailbox>().map_err(|why| why.to_string())
    });
    let stream = reader.parse(scope, "stream", &table.stream, label);
    let rate = reader.parse(scope, "rate", &table.rate, units::rate);
    if let (Some(tenant), Some(senders)) = (&tenant, &senders) {
        judge_senders(reader, tenant, senders, is_internal);
    }
    if table.username.is_absent() && is_internal {
        judge_networks(reader, &networks);
    }
    if !is_internal {
        reader.warn(scope.spot(), "not internal: Exchange takes its mail as coming from outside, so the tenant's SPF record must hold our address");
    }
    Some(Account {
        application: Arc::new(Application {
            name: name?.value.into(),
            username: username.map(|at| at.value),
            tenant: tenant?,
            senders: senders?.into_iter().map(|at| at.value).collect(),
            internal: is_internal,
            stream: stream.map(|at| at.value.into()),
            bounces_to: bounces_to.map(|at| at.value),
        }),
        password_hash: hash.map(|at| at.value),
        networks: networks.into_iter().map(|at| at.value).collect(),
        rate: rate.map(|at| at.value),
    })
}

fn tenant_of(
    reader: &mut Reader<'_>,
    scope: &Scope,
    table: &Raw,
    tenants: &[TenantFacts],
) -> Option<Arc<Tenant>> {
    let name = reader.required(scope, "tenant", &table.tenant, label)?;
    let named = |facts: &&TenantFacts| {
        facts
            .name
            .as_ref()
            .is_some_and(|own| own.value == name.value)
    };
    match tenants.iter().find(named) {
        Some(facts) => facts.tenant.clone(),
        None => {
            let known = tenants
                .iter()
                .flat_map(|facts| &facts.name)
                .map(|name| name.value.as_str());
            missing(reader, "tenant", &name.spot, &name.value, known);
            None
        }
    }
}

/// Algorithms that `password-auth` checks as we build it.
const ALGORITHMS: [&str; 6] = [
    "argon2id",
    "argon2i",
    "argon2d",
    "pbkdf2-sha256",
    "pbkdf2-sha512",
    "scrypt",
];

/// A PHC string that some password can match; what it is stays unsaid.
fn phc(text: &str) -> Result<(), &'static str> {
    let why = "not a PHC string as `gatepost hash-password` prints it";
    password_auth::is_hash_obsolete(text).map_err(|_| why)?;
    // It reads as PHC. `$algorithm[$v=N][$params]$salt$hash`: parameters hold a `=`, salt and hash do not (B64 without
    // padding), and both must be there.
    let mut parts = text.split('$').skip(1);
    let known = parts
        .next()
        .is_some_and(|algorithm| ALGORITHMS.contains(&algorithm));
    if !known {
        return Err("a PHC string of an algorithm that is not known here");
    }
    let values = parts.filter(|part| !part.contains('=')).count();
    if values < 2 {
        return Err("a PHC string without salt or hash: no password could ever match it");
    }
    Ok(())
}

/// Outside the accepted domains an internal application's mail is not stamped (product.md 4) and stays external; any
/// other's is foreign to Exchange. Both may be meant: the application may write as several senders.
fn judge_senders(
    reader: &mut Reader<'_>,
    tenant: &Tenant,
    senders: &[At<MailboxPattern>],
    internal: bool,
) {
    for sender in senders {
        if sender.value == MailboxPattern::NullSender
            || mailboxes_within(&sender.value, tenant.accepted_domains.iter())
        {
            continue;
        }
        let effect = if internal {
            "such mail is not stamped and stays external"
        } else {
            "such mail is foreign to Exchange"
        };
        reader.warn(
            &sender.spot,
            format!(
                "{} lies outside the accepted domains of tenant {}: {effect}",
                sender.value, tenant.name
            ),
        );
    }
}

/// Who shares the address shares the right to write as internal.
fn judge_networks(reader: &mut Reader<'_>, networks: &[At<IpNet>]) {
    for network in networks {
        if !is_private(&network.value) {
            reader.warn(
                &network.spot,
                "a public address is the only proof of an internal application",
            );
        } else if is_wide(&network.value) {
            reader.warn(
                &network.spot,
                "more than 16 addresses may write as internal without login",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_no_password_can_match_is_refused() {
        let good = password_auth::generate_hash(b"secret");
        assert_eq!(phc(&good), Ok(()));
        let (without_hash, _) = good.rsplit_once('$').unwrap();
        let (without_salt, _) = without_hash.rsplit_once('$').unwrap();
        for bad in [
            without_hash,
            without_salt,
            "$argon2id",
            &good.replace("argon2id", "md5"),
            "secret",
            "",
            "{SSHA}c2VjcmV0",
        ] {
            let why = phc(bad).unwrap_err();
            assert!(bad.is_empty() || !why.contains(bad), "{why}");
        }
    }
}
