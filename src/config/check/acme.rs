//! `[acme]` and what a `[[certificate]]` says of it: who signs, and for which names.

use super::super::raw::{Acme as Raw, Certificate as RawCertificate, File, default};
use super::super::reader::{At, Reader, Scope};
use super::super::units;
use super::exchange_online::roots_of;
use super::named::unique;
use crate::acme::Authority;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

/// The authority, where the file has one.
pub(super) fn authority(
    raw: &File,
    reader: &mut Reader<'_>,
    data_directory: &Path,
) -> Option<Authority> {
    let (table, scope) = reader.table(&Scope::top(), "acme", &raw.acme)?;
    let directory = reader.parse(&scope, "directory", &table.directory, directory);
    let contact = reader.list(&scope, "contact", &table.contact, contact);
    let address = reader.parse(
        &scope,
        "challenge_address",
        &table.challenge_address,
        |text| units::socket(text, Some(80)),
    );
    let roots = roots_of(reader, &scope, "roots", &table.roots);
    judge_terms(reader, &scope, table);
    let fallback = || {
        let known = default::ACME_CHALLENGE_ADDRESS.parse();
        known.unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80)))
    };
    Some(Authority {
        directory: directory.map_or_else(|| default::ACME_DIRECTORY.to_owned(), |at| at.value),
        contact: contact
            .unwrap_or_default()
            .into_iter()
            .map(|at| at.value)
            .collect(),
        challenge_address: address.map_or_else(fallback, |at| at.value),
        roots,
        folder: data_directory.to_owned(),
    })
}

fn judge_terms(reader: &mut Reader<'_>, scope: &Scope, table: &Raw) {
    reader.demand(
        scope,
        "terms_of_service_agreed",
        &table.terms_of_service_agreed,
    );
    let agreed = reader.flag(
        scope,
        "terms_of_service_agreed",
        &table.terms_of_service_agreed,
    );
    if let Some(no) = agreed.filter(|agreed| !agreed.value) {
        reader.error(
            &no.spot,
            "must be true: no authority signs for who has not agreed to its terms",
        );
    }
}

/// The names that a certificate is ordered for; empty where it is not ordered. `taken` are those of other certificates.
pub(super) fn names(
    raw: &File,
    reader: &mut Reader<'_>,
    scope: &Scope,
    table: &RawCertificate,
    taken: &mut Vec<At<String>>,
) -> Vec<String> {
    let ordered = reader.flag(scope, "acme", &table.acme);
    let names = reader.some_list(scope, "names", &table.names, name);
    let Some(ordered) = ordered.filter(|ordered| ordered.value) else {
        if let Some(first) = names.and_then(|names| names.into_iter().next()) {
            reader.warn(&first.spot, "has no effect without acme = true");
        }
        return Vec::new();
    };
    if raw.acme.is_absent() {
        reader.error(
            &ordered.spot,
            "needs an [acme] table, which says whom to ask",
        );
    }
    reader.demand(scope, "names", &table.names);
    let names = names.unwrap_or_default();
    for name in &names {
        let first = taken.iter().find(|other| other.value == name.value);
        unique(
            reader,
            "certificate that is ordered for this name (one for each tenant, and no name in two)",
            name,
            first,
        );
    }
    taken.extend(names.iter().cloned());
    names.into_iter().map(|at| at.value).collect()
}

fn name(text: &str) -> Result<String, String> {
    if text.starts_with("*.") {
        return Err(
            "the authority proves names by http-01, which no wildcard can be proven by".to_owned(),
        );
    }
    super::fully_qualified(text).map(|domain| domain.to_string())
}

fn directory(text: &str) -> Result<String, String> {
    let host = |rest: &str| {
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned()
    };
    let well = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => !host(rest).is_empty(),
        (None, Some(rest)) => crate::acme::is_loopback(&host(rest)),
        (None, None) => false,
    };
    well.then(|| text.to_owned())
        .ok_or_else(|| "must be an https:// URL".to_owned())
}

fn contact(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let mailbox: crate::mail::Mailbox = address
        .parse()
        .map_err(|_| "must be a mail address".to_owned())?;
    Ok(format!("mailto:{mailbox}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_https_but_on_this_machine() {
        for good in [
            default::ACME_DIRECTORY,
            "https://ca.example:14000/dir",
            "http://127.0.0.1:4000/dir",
            "http://[::1]:4000/dir",
            "http://localhost:4000/dir",
        ] {
            assert_eq!(directory(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "https://",
            "http://ca.example/dir",
            "ftp://ca.example",
            "ca.example",
        ] {
            assert!(directory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_contact_is_an_address_and_a_name_has_no_wildcard() {
        assert_eq!(
            contact("ops@contoso.com").unwrap(),
            "mailto:ops@contoso.com"
        );
        assert_eq!(
            contact("mailto:ops@contoso.com").unwrap(),
            "mailto:ops@contoso.com"
        );
        assert!(contact("ops").is_err());
        assert_eq!(name("Gate.contoso.com").unwrap(), "gate.contoso.com");
        assert!(
            name("*.contoso.com").is_err()
                && name("contoso").is_err()
                && name("192.0.2.1").is_err()
        );
    }
}
