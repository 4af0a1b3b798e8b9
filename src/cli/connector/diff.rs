//! `gatepost connector diff`: exports of the tenant against the configuration.

use super::age::{self, Taken};
use super::{Configuration, Wishes};
use crate::cli::{Trouble, unix_millis};
use crate::connector::{Exported, Exports, Mend, Report, SECRETS_FILE, diff};
use clap::Args;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// An export is never larger; one octet more is read, so that a larger one is told.
const LARGEST: u64 = 64 * 1024 * 1024;

/// What is asked for.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Whose exports; not needed where the configuration has one tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// What Export-GatepostState.ps1 wrote.
    #[arg(long, value_name = "FOLDER")]
    exports: Option<PathBuf>,
    /// Get-InboundConnector | ConvertTo-Json -Depth 6
    #[arg(long, value_name = "FILE")]
    inbound: Option<PathBuf>,
    /// Get-OutboundConnector -IncludeTestModeConnectors $true | ConvertTo-Json -Depth 6
    #[arg(long, value_name = "FILE")]
    outbound: Option<PathBuf>,
    /// Get-TransportRule | ConvertTo-Json -Depth 6
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Get-ArcConfig | ConvertTo-Json -Depth 6
    #[arg(long, value_name = "FILE")]
    arc: Option<PathBuf>,
    /// Get-AcceptedDomain | ConvertTo-Json -Depth 6
    #[arg(long, value_name = "FILE")]
    domains: Option<PathBuf>,
}

pub(super) fn answer(
    configuration: &Configuration,
    arguments: &Arguments,
    json: bool,
) -> Result<(bool, String), Trouble> {
    let tenant = configuration.tenant(arguments.tenant.as_deref())?;
    let single = [
        &arguments.inbound,
        &arguments.outbound,
        &arguments.rules,
        &arguments.arc,
        &arguments.domains,
    ];
    if arguments.exports.is_none() && single.iter().all(|file| file.is_none()) {
        return Err(Trouble::Use(
            "--exports FOLDER, or --inbound, --outbound, --rules, --arc or --domains FILE"
                .to_owned(),
        ));
    }
    let said = read(arguments, &None, age::FILE, false)?.unwrap_or_default();
    let exports = Exports {
        inbound: read(arguments, &arguments.inbound, "InboundConnector.json", true)?,
        outbound: read(
            arguments,
            &arguments.outbound,
            "OutboundConnector.json",
            true,
        )?,
        rules: read(arguments, &arguments.rules, "TransportRule.json", true)?,
        domains: read(arguments, &arguments.domains, "AcceptedDomain.json", true)?,
        arc: read(arguments, &arguments.arc, "ArcConfig.json", false)?,
        organization: read(arguments, &None, "OrganizationConfig.json", false)?,
        now: i64::try_from(unix_millis() / 1000)
            .ok()
            .and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok()),
    };
    let wishes = Wishes {
        pilot_group: None,
        environment: None,
        spare: None,
    };
    let Some(plan) = configuration.plan(tenant, &wishes) else {
        return Err(Trouble::Use(
            "the configuration makes no connector set to compare with".to_owned(),
        ));
    };
    let taken = Taken::read(&said, &files(arguments), plan.tenant_id())?;
    let mut report = diff(&plan, &exports);
    let aged = taken.map(|taken| {
        let age = taken.age();
        let told = taken.told(age);
        if taken.deserves_a_look(age) {
            eprintln!("gatepost: warning: {told}");
        }
        report.note("export", told);
        (taken.moment(), age)
    });
    let answer = if json {
        let mut value = serde_json::to_value(&report).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.insert("tenant".to_owned(), plan.tenant().into());
            if let Some((moment, age)) = aged {
                map.insert("exported_at".to_owned(), moment.into());
                map.insert("export_age_seconds".to_owned(), age.into());
            }
        }
        format!("{value}\n")
    } else {
        told(plan.tenant(), &report)
    };
    Ok((report.drift.is_empty(), answer))
}

/// The files that are compared, as far as they are there.
fn files(arguments: &Arguments) -> Vec<PathBuf> {
    let named = [
        (&arguments.inbound, "InboundConnector.json"),
        (&arguments.outbound, "OutboundConnector.json"),
        (&arguments.rules, "TransportRule.json"),
        (&arguments.domains, "AcceptedDomain.json"),
        (&arguments.arc, "ArcConfig.json"),
    ];
    let path = |(named, usual): (&Option<PathBuf>, &str)| {
        let in_folder = || arguments.exports.as_ref().map(|folder| folder.join(usual));
        named.clone().or_else(in_folder)
    };
    named.into_iter().filter_map(path).collect()
}

/// One export: the file that is named, else the one in the folder.
fn read(
    arguments: &Arguments,
    named: &Option<PathBuf>,
    usual: &str,
    required: bool,
) -> Result<Option<Vec<Exported>>, Trouble> {
    let in_folder = || arguments.exports.as_ref().map(|folder| folder.join(usual));
    let Some(path) = named.clone().or_else(in_folder) else {
        return Ok(None);
    };
    let bytes = match bounded(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() && !required => {
            return Ok(None);
        }
        Err(error) => return Err(Trouble::Use(format!("{}: {error}", path.display()))),
    };
    let objects =
        Exported::read(&bytes).map_err(|why| Trouble::Use(format!("{}: {why}", path.display())))?;
    Ok(Some(objects))
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn told(tenant: &str, report: &Report) -> String {
    let mut out = String::new();
    for (number, drift) in report.drift.iter().enumerate() {
        let property = match drift.property.as_str() {
            "" => String::new(),
            property => format!(": {property}"),
        };
        let (how, mend) = match &drift.mend {
            Mend::Line(line) => ("PS>", line),
            Mend::Step(step) => ("do", step),
        };
        // Writing to a String does not fail.
        write!(
            out,
            "{}. {} \"{}\"{property}\n   is      {}\n   should  {}\n   breaks  {}\n   {how:<7} {mend}\n\n",
            number + 1,
            drift.object,
            drift.name,
            drift.is,
            drift.should,
            drift.breaks,
        )
        .unwrap_or_default();
    }
    for note in &report.notes {
        writeln!(out, "note: {}: {}", note.object, note.text).unwrap_or_default();
    }
    let lines = |needle: &str| {
        let mut mends = report.drift.iter().map(|drift| &drift.mend);
        mends.any(|mend| matches!(mend, Mend::Line(line) if line.contains(needle)))
    };
    if lines("") {
        let file = match lines(SECRETS_FILE) {
            true => format!(", whose {SECRETS_FILE} must be of the last rendering"),
            false => String::new(),
        };
        writeln!(
            out,
            "The lines run from top to bottom, in the rendered folder{file}, and in a session (Connect-ExchangeOnline)."
        )
        .unwrap_or_default();
    }
    writeln!(
        out,
        "tenant {tenant}: {} drift(s), {} note(s) in {}",
        report.drift.len(),
        report.notes.len(),
        report.compared.join(", ")
    )
    .unwrap_or_default();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::fixtures::{Tenancy, plan};
    use serde_json::json;

    #[test]
    fn drift_is_told_with_what_it_breaks_and_what_mends_it() {
        let plan = plan();
        let mut tenancy = Tenancy::of(&plan);
        tenancy.inbound[0]["TlsSenderCertificateName"] = json!("old.contoso.com");
        tenancy.outbound[0]["UseMXRecord"] = json!(true);
        tenancy.rules[0]["SetHeaderValue"] = json!("a guess");
        tenancy.rules[0]["State"] = json!("Disabled");
        tenancy.rules.remove(1);
        tenancy.domains.push(json!({ "DomainName": "contoso.de" }));
        insta::assert_snapshot!(told("contoso", &diff(&plan, &tenancy.exports())), @r#"
        1. inbound connector "From Gatepost": TlsSenderCertificateName
           is      old.contoso.com
           should  smarthost.contoso.com
           breaks  the certificate that Gatepost shows does not match: 550 5.7.64 TenantAttribution (ATTR36), or 451 4.4.62 (ATTR35); Gatepost parks the tenant's queue
           PS>     Set-InboundConnector -Identity 'From Gatepost' -TlsSenderCertificateName 'smarthost.contoso.com'

        2. outbound connector "To Gatepost": UseMXRecord
           is      True
           should  False
           breaks  Exchange delivers by the recipient's MX and passes Gatepost by
           PS>     Set-OutboundConnector -Identity 'To Gatepost' -UseMXRecord $false -SmartHosts 'smarthost.contoso.com' -IsValidated $false

        3. transport rule "Route to Gatepost": SetHeaderValue
           is      differs
           should  SecretHeaderValue of gatepost-secrets.json
           breaks  a secret header with a wrong value contradicts the tenant: Gatepost refuses all of its mail, 550 5.7.1
           PS>     $s = Get-Content -Raw -Path '.\gatepost-secrets.json' | ConvertFrom-Json; Set-TransportRule -Identity 'Route to Gatepost' -SetHeaderName 'X-Contoso-Gate' -SetHeaderValue $s.SecretHeaderValue

        4. accepted domain "contoso.de": DomainName
           is      absent in the configuration
           should  in accepted_domains of tenant contoso
           breaks  mail whose envelope sender or From: lies there is refused by Gatepost, 550 5.7.1, and mail to it counts as mail to the outside
           do      Add "contoso.de" to accepted_domains of [[tenant]] contoso in the configuration, then reload; or keep its senders out of the rule.

        5. transport rule "Back from Gatepost"
           is      absent
           should  there
           breaks  the loop header, with its value, stays on mail that leaves the tenant
           PS>     .\Install-GatepostConnector.ps1

        note: outbound connector To Gatepost: IsValidated is True of another way, and the lines take it off: .\Confirm-GatepostConnector.ps1 -Recipient 'you@contoso.com' before the rule sends mail
        note: transport rule: the routing rule is disabled and sends nothing to Gatepost; enabled, it would take everyone's mail (Set-GatepostRollout.ps1 -Stage Audit begins)
        The lines run from top to bottom, in the rendered folder, whose gatepost-secrets.json must be of the last rendering, and in a session (Connect-ExchangeOnline).
        tenant contoso: 5 drift(s), 2 note(s) in InboundConnector, OutboundConnector, TransportRule, AcceptedDomain
        "#);
    }
}
