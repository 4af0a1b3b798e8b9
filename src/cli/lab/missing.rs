//! What of a configuration is not at hand where it is rehearsed, and what stands in for it?
//!
//! A configuration is often tried on another machine than its own, or as another user: certificate and secret files lie
//! elsewhere or may not be read, variables are not set. Missing certificates are made by the lab's authority with the names
//! that they would have (for a tenant its first accepted domain, else the host name); secret files and unset variables get a
//! made-up value. Everything that was replaced is said. What is there but wrong stays wrong: finding that is the point of a rehearsal.

use super::Stopped;
use super::folder::Folder;
use crate::lab::certificates::{Authority, Leaf};
use crate::mail::Domain;
use serde::Deserialize;
use serde_spanned::Spanned;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The little of a configuration that is needed to know which files it wants and for what.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shape {
    hostname: String,
    certificate: Vec<CertificateShape>,
    tenant: Vec<TenantShape>,
    exchange_online: ExchangeOnlineShape,
    acme: AcmeShape,
    relay: Vec<RelayShape>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CertificateShape {
    name: String,
    chain: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TenantShape {
    accepted_domains: Vec<String>,
    inbound_connector: ConnectorShape,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConnectorShape {
    certificate: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExchangeOnlineShape {
    client_certificate_roots: Option<Spanned<String>>,
    server_certificate_roots: Option<Spanned<String>>,
    endpoints: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AcmeShape {
    roots: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RelayShape {
    server_certificate_roots: Option<Spanned<String>>,
}

/// Endpoint data in Microsoft's form that names the lab's own block.
const ENDPOINTS: &str = r#"[{"id":10,"serviceArea":"Exchange","ips":["127.0.40.0/24"],"tcpPorts":"25","required":true}]"#;

/// The text of a configuration with stand-ins for what is missing, and what was replaced.
#[derive(Debug)]
pub(super) struct StandIn {
    pub(super) source: String,
    pub(super) remarks: Vec<String>,
}

/// Looks for the files that `source` names and puts others in the place of those that are not there. Text that cannot be
/// read as TOML comes back as it is: the configuration room says what is wrong with it.
pub(super) fn stand_in(
    path: &Path,
    source: &str,
    authority: &Authority,
    folder: &Folder,
) -> Result<StandIn, Stopped> {
    let Ok(shape) = toml::from_str::<Shape>(source) else {
        return Ok(StandIn {
            source: source.to_owned(),
            remarks: Vec::new(),
        });
    };
    let beside = path.parent().unwrap_or_else(|| Path::new("."));
    let missing = |value: &Spanned<String>| {
        let text = value.get_ref();
        !text.contains("${") && std::fs::File::open(beside.join(text)).is_err()
    };
    let mut replaced: Vec<(Range<usize>, PathBuf)> = Vec::new();
    let mut remarks = Vec::new();
    for (index, certificate) in shape.certificate.iter().enumerate() {
        let (Some(chain), Some(key)) = (&certificate.chain, &certificate.key) else {
            continue;
        };
        if !missing(chain) && !missing(key) {
            continue;
        }
        let name = stand_in_name(&shape, &certificate.name);
        let issued = authority.issue(&Leaf::named(&name).and(&shape.hostname))?;
        replaced.push((
            chain.span(),
            keep(folder, &format!("stand-in-{index}.pem"), issued.chain_pem())?,
        ));
        replaced.push((
            key.span(),
            keep(folder, &format!("stand-in-{index}.key"), issued.key_pem())?,
        ));
        remarks.push(format!(
            "note: certificate {} is not at hand; the lab made one for {name}",
            certificate.name
        ));
    }
    let roots = [
        &shape.exchange_online.client_certificate_roots,
        &shape.exchange_online.server_certificate_roots,
        &shape.acme.roots,
    ];
    let relays = shape.relay.iter();
    let relays = relays.map(|relay| &relay.server_certificate_roots);
    for (index, value) in roots.into_iter().chain(relays).enumerate() {
        if let Some(value) = value
            .as_ref()
            .filter(|value| value.get_ref() != "system" && missing(value))
        {
            replaced.push((
                value.span(),
                keep(folder, &format!("roots-{index}.pem"), &authority.pem())?,
            ));
        }
    }
    if let Some(value) = shape
        .exchange_online
        .endpoints
        .as_ref()
        .filter(|value| missing(value))
    {
        replaced.push((value.span(), keep(folder, "endpoints.json", ENDPOINTS)?));
        remarks.push(
            "note: the endpoint data is not at hand; the lab has networks of its own".to_owned(),
        );
    }
    // From the end, so that earlier positions stay true.
    replaced.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut text = source.to_owned();
    for (span, file) in replaced {
        text.replace_range(span, &format!("{:?}", file.display().to_string()));
    }
    let (text, told) = secret_files(&text, beside, folder)?;
    remarks.extend(told);
    Ok(StandIn {
        source: text,
        remarks,
    })
}

/// What a `${file:PATH}` that cannot be read is made up to: a password hash is also a good enough value for a header.
fn secret_files(
    source: &str,
    beside: &Path,
    folder: &Folder,
) -> Result<(String, Vec<String>), Stopped> {
    let mut named = BTreeSet::new();
    if let Ok(table) = toml::from_str(source) {
        file_names(&toml::Value::Table(table), &mut named);
    }
    let mut text = source.to_owned();
    let mut remarks = Vec::new();
    let unreadable = |name: &String| std::fs::File::open(beside.join(name)).is_err();
    for (index, name) in named.into_iter().filter(unreadable).enumerate() {
        let made_up = password_auth::generate_hash(&name);
        let file = keep(folder, &format!("secret-{index}"), &made_up)?;
        let stand_in = format!("${{file:{}}}", file.display());
        text = text.replace(&format!("${{file:{name}}}"), &stand_in);
        remarks.push(format!(
            "note: ${{file:{name}}} cannot be read; a made-up value stands in its place"
        ));
    }
    Ok((text, remarks))
}

/// The PATHs of every `${file:PATH}` in a value.
fn file_names(value: &toml::Value, named: &mut BTreeSet<String>) {
    match value {
        toml::Value::String(text) => {
            let written = text.split("${file:").skip(1);
            named.extend(written.filter_map(|rest| Some(rest.split_once('}')?.0.to_owned())));
        }
        toml::Value::Array(values) => values.iter().for_each(|value| file_names(value, named)),
        toml::Value::Table(table) => table.values().for_each(|value| file_names(value, named)),
        toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => {}
    }
}

/// The name that a certificate needs where it is used: as a tenant's on its inbound connector, else the host name.
fn stand_in_name(shape: &Shape, certificate: &str) -> String {
    let used = |tenant: &&TenantShape| tenant.inbound_connector.certificate == certificate;
    let domain = shape
        .tenant
        .iter()
        .find(used)
        .and_then(|tenant| tenant.accepted_domains.first());
    let name = domain.map_or(shape.hostname.as_str(), |domain| {
        domain.trim_start_matches("*.")
    });
    // A certificate carries A-labels.
    let parsed: Result<Domain, _> = name.parse();
    parsed.map_or_else(|_| name.to_owned(), |domain| domain.as_str().to_owned())
}

fn keep(folder: &Folder, name: &str, text: &str) -> Result<PathBuf, Stopped> {
    folder
        .write(name, text)
        .map_err(|error| Stopped::Broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "hostname = \"mx.contoso.com\"\n[[certificate]]\nname = \"a\"\nchain = \"no/such.pem\" # leaf\n\
        key = \"no/such.key\"\n[exchange_online]\nclient_certificate_roots = \"system\"\nendpoints = \"gone.json\"\n[[tenant]]\n\
        accepted_domains = [\"contoso.com\"]\n[tenant.inbound_connector]\ncertificate = \"a\"\n";

    #[test]
    fn missing_certificates_are_replaced_by_some_with_the_right_name() {
        let folder = Folder::make().unwrap();
        let authority = Authority::new("Lab").unwrap();
        let stood = stand_in(
            Path::new("/nowhere/gatepost.toml"),
            SOURCE,
            &authority,
            &folder,
        )
        .unwrap();
        let shape: Shape = toml::from_str(&stood.source).unwrap();
        let chain = shape.certificate[0].chain.as_ref().unwrap().get_ref();
        assert!(
            std::fs::read_to_string(chain)
                .unwrap()
                .contains("BEGIN CERTIFICATE")
        );
        let key = shape.certificate[0].key.as_ref().unwrap().get_ref();
        assert!(
            std::fs::read_to_string(key)
                .unwrap()
                .contains("PRIVATE KEY")
        );
        assert!(stood.source.contains(" # leaf\n") && stood.source.contains("\"system\""));
        assert!(!stood.source.contains("gone.json"));
        assert_eq!(
            stood.remarks.first().map(String::as_str),
            Some("note: certificate a is not at hand; the lab made one for contoso.com")
        );
    }

    #[test]
    fn what_is_there_or_unreadable_stays_as_it_is() {
        let folder = Folder::make().unwrap();
        let authority = Authority::new("Lab").unwrap();
        let file = folder.write("there.pem", "not a certificate").unwrap();
        let there = SOURCE
            .replace("no/such.pem", &file.display().to_string())
            .replace("no/such.key", &file.display().to_string())
            .replace("gone.json", &file.display().to_string());
        assert_eq!(
            stand_in(Path::new("x.toml"), &there, &authority, &folder)
                .unwrap()
                .source,
            there
        );
        assert_eq!(
            stand_in(Path::new("x.toml"), "not [ toml", &authority, &folder)
                .unwrap()
                .source,
            "not [ toml"
        );
    }
}
