//! What does the lab play on where nothing is configured? Two tenants, a connector, and two doors for applications.
//!
//! The configuration is written as a file and loaded as any other, so that the first thing a newcomer sees is the real
//! path; the file stays readable in the folder while the lab is up.

use super::cast::{self, Passwords};
use super::folder::{Folder, random_word};
use super::{HostRoots, Prepared, Stopped};
use crate::config;
use crate::lab::certificates::{Authority, EXCHANGE_NAME, Leaf};
use crate::lab::dkim::Signer;
use crate::lab::{ExchangeOptions, NETWORK};
use std::sync::Arc;

/// Prepares the default stage.
pub(super) fn prepare(folder: &Folder) -> Result<Prepared, Stopped> {
    let broken = |error: std::io::Error| Stopped::Broken(error.to_string());
    let authority = Authority::new("Gatepost Lab")?;
    folder.write("ca.pem", authority.pem()).map_err(broken)?;
    let host = Leaf::named("smarthost.contoso.com")
        .and("localhost")
        .and("127.0.0.1");
    for (file, leaf) in [
        ("smarthost", host),
        ("contoso", Leaf::named("contoso.com")),
        ("fabrikam", Leaf::named("fabrikam.com")),
    ] {
        let issued = authority.issue(&leaf)?;
        folder
            .write(&format!("{file}.pem"), issued.chain_pem())
            .map_err(broken)?;
        folder
            .write(&format!("{file}.key"), issued.key_pem())
            .map_err(broken)?;
    }
    let mut passwords = Passwords::default();
    for name in ["printer", "crm"] {
        passwords.make(name).map_err(broken)?;
    }
    let word = || random_word().map_err(broken);
    let text = configuration(&passwords, [word()?, word()?, word()?, word()?]);
    let path = folder.write("gatepost.toml", text).map_err(broken)?;
    let loaded = config::load(&path).map_err(|error| Stopped::Broken(error.to_string()))?;
    let Some(settings) = loaded.settings else {
        let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        return Err(Stopped::Broken(format!(
            "the lab's own configuration is refused:\n{}",
            problems.join("\n")
        )));
    };
    let signer = Arc::new(Signer::new()?);
    let cast = cast::of(&settings, &passwords, &signer)?;
    let exchange = ExchangeOptions::new(&authority, cast.organizations.clone())?;
    Ok(Prepared {
        exchange,
        cast,
        settings,
        server_name: Some("smarthost.contoso.com".to_owned()),
        roots_of_host: HostRoots::default(),
        client_name: EXCHANGE_NAME.to_owned(),
        remarks: vec![
            "A smart host and a simulated Exchange Online, on loopback, with throw-away certificates.".to_owned(),
            format!("Configuration: {}", path.display()),
            String::new(),
        ],
        own_authority: true,
        authority,
    })
}

/// The contract's form, small: the keys that are left out have the contract's defaults.
fn configuration(passwords: &Passwords, [gate1, loop1, gate2, loop2]: [String; 4]) -> String {
    let hash = |name: &str| passwords.hash(name);
    let tenant = |name: &str, id: &str, gate: &str, round: &str| {
        format!(
            r#"
[[tenant]]
name = "{name}"
tenant_id = "{id}"
accepted_domains = ["{name}.com", "{name}.onmicrosoft.com"]
secret_header = {{ name = "X-Lab-Gate", value = "{gate}" }}
loop_header = {{ name = "X-Gatepost-Processed", value = "{round}" }}

[tenant.inbound_connector]
host = "127.0.0.1"                          # the simulated Exchange Online; the lab puts its port in
port = 25
certificate = "{name}"
cloud_services_mail_enabled = true
"#
        )
    };
    format!(
        r#"# Written by `gatepost lab`, for as long as it is up.
hostname = "smarthost.contoso.com"
data_directory = "data"

[[certificate]]
name = "smarthost"
chain = "smarthost.pem"
key = "smarthost.key"

[[certificate]]
name = "contoso"
chain = "contoso.pem"
key = "contoso.key"

[[certificate]]
name = "fabrikam"
chain = "fabrikam.pem"
key = "fabrikam.key"

[[listener]]
name = "exchange"
address = "127.0.0.1:0"
service = "connector"
tls = "starttls"
certificate = "smarthost"

[[listener]]
name = "apps"
address = "127.0.0.1:0"
service = "submission"
tls = "starttls"
certificate = "smarthost"

[[listener]]
name = "printers"
address = "127.0.0.1:0"
service = "submission"
tls = "optional"
certificate = "smarthost"
bare_newlines = "repair"

[exchange_online]
client_certificate_names = ["{EXCHANGE_NAME}"]
client_certificate_roots = "ca.pem"
server_certificate_roots = "ca.pem"
networks = ["{NETWORK}"]
{contoso}{fabrikam}
[[application]]
name = "printer"
tenant = "contoso"
username = "printer"
password_hash = "{printer}"
senders = ["printer@contoso.com"]
internal = true

[[application]]
name = "scanner"
tenant = "contoso"
senders = ["scanner@contoso.com"]
networks = ["127.0.50.0/28"]
internal = true

[[application]]
name = "crm"
tenant = "contoso"
username = "crm"
password_hash = "{crm}"
senders = ["crm@contoso.com"]

[[route]]
recipients = "accepted"
via = "exchange"

[[route]]
recipients = ["*.partner.example"]          # selected mail leaves by itself; here to a simulated world outside
via = "mx"

[[route]]
from = "connector"
recipients = "any"
via = "exchange"

[admin]
address = "127.0.0.1:0"

[log]
level = "error"
"#,
        contoso = tenant(
            "contoso",
            "3f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c10",
            &gate1,
            &loop1
        ),
        fabrikam = tenant(
            "fabrikam",
            "b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25",
            &gate2,
            &loop2
        ),
        printer = hash("printer"),
        crm = hash("crm"),
    )
}
