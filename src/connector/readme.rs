//! The steps in order, for this tenant: what an administrator reads beside the scripts.

mod inward;

use super::literal::literal;
use super::objects::Kind;
use super::plan::cloud::{self, WORLDWIDE};
use super::plan::{Outward, Plan};
use super::render::value_file;
use super::{ENVIRONMENTS, SECRETS_FILE};
use crate::mail::DomainPattern;

/// The text; US-ASCII, no secret in it.
pub(super) fn write(plan: &Plan) -> String {
    let Some(outward) = &plan.outward else {
        return inward::write(plan);
    };
    let parts = [
        head(plan, outward),
        before(plan),
        machine(),
        install(plan),
        rollout(plan, outward),
        checking(plan),
        failing(),
        changing(plan, outward),
        removal(),
    ];
    parts.join("\n")
}

fn head(plan: &Plan, outward: &Outward) -> String {
    let Plan {
        tenant,
        hostname,
        environment,
        ..
    } = plan;
    let Outward {
        tls_domain,
        secret,
        looped,
        ..
    } = outward;
    let certificate_name = &plan.certificate.connector_name;
    let cloud = if plan.cloud { "True" } else { "False" };
    let pilot = outward
        .pilot_group
        .as_deref()
        .unwrap_or("none: -Stage Pilot asks for -PilotGroup");
    let accepted: Vec<String> = plan.accepted.iter().map(ToString::to_string).collect();
    format!(
        "# Exchange's side of Gatepost: tenant {tenant}

{}
| object | what it does |
| --- | --- |
| inbound connector `{}` | mail that shows a certificate for `{certificate_name}` is this tenant's |
| outbound connector `{}` | brings mail to `{hostname}`, port 25, and asks for the name `{tls_domain}` in its certificate |
| transport rule `{}` | sends mail of the tenant's own senders there with the field `{}`; not what carries `{}` already |
| transport rule `{}` | directly behind it: takes `{}` off what has come back |

| value | |
| --- | --- |
| CloudServicesMailEnabled, on both connectors | {cloud} |
| accepted domains that Gatepost knows | {} |
| pilot group | {pilot} |
| cloud | {environment} |

`{SECRETS_FILE}` holds the values of the two fields. Whoever reads it can pass for Exchange or keep mail away from Gatepost: leave it with
the scripts, for yourself alone, and delete it where you do not need it any more; `render` writes it again.
",
        written(plan),
        Kind::Inbound.name(),
        Kind::Outbound.name(),
        Kind::Route.name(),
        secret.name,
        looped.name,
        Kind::CleanUp.name(),
        looped.name,
        accepted.join(", "),
    )
}

fn before(plan: &Plan) -> String {
    let mut steps = Vec::new();
    let (host, port) = &plan.exchange;
    if plan.is_sent_to() {
        steps.push(format!(
            "**DNS.** `{}` has an address record that the Internet sees. Publish no TLSA record for it, or keep it exact.",
            plan.hostname
        ));
        steps.push(format!(
            "**Firewall.** TCP 25 in from the networks of Exchange Online (`https://endpoints.office.com`{}, id 10); TCP {port} out to `{host}`.",
            cloud::of(&plan.environment).map_or_else(String::new, |cloud| match cloud.instance {
                WORLDWIDE => String::new(),
                instance => format!(", instance `{instance}`"),
            })
        ));
    } else {
        steps.push(format!("**Firewall.** TCP {port} out to `{host}`."));
    }
    steps.push(domain(plan));
    steps.push(
        "**SPF.** Mail that Gatepost sends by `mx`, and mail of applications that are not `internal`, needs Gatepost's address in the
   SPF record of its sender's domain."
            .to_owned(),
    );
    let made: Vec<String> = plan
        .made()
        .map(|(key, header)| {
            format!(
                "`{key}` (field `{}`, value in `{}`)",
                header.name,
                value_file(key)
            )
        })
        .collect();
    if !made.is_empty() {
        steps.push(format!(
            "**Configuration.** It lacks {}. Add the lines that `render` printed, reload Gatepost, and
   render again: until then every mail that the rule sends would go round or be refused.",
            made.join(" and ")
        ));
    }
    let steps: String = steps
        .iter()
        .enumerate()
        .map(|(index, step)| format!("{}. {step}\n", index + 1))
        .collect();
    format!("## 1. Before\n\n{steps}")
}

/// The certificate's name as an accepted domain of the tenant.
fn domain(plan: &Plan) -> String {
    let name = &plan.certificate.connector_name;
    let told = |pattern: &DomainPattern| pattern.to_string() == *name;
    match &plan.certificate.sub_domain {
        Some(own) => format!(
            "**Accepted domain.** The certificate's name `{own}` lies below an accepted domain and is none itself. Safer than `{name}`,
   which every other certificate of that domain fits too: add and verify `{own}` in the admin centre (Settings, Domains; it needs
   no mailboxes), add it to `accepted_domains` in the configuration, reload, and render again. Without that, `{name}` does."
        ),
        None if name.starts_with("*.") => format!(
            "**Accepted domain.** The certificate carries `{name}` only. Exchange takes it where the domain below the star is an accepted
   domain; a certificate with a name of its own, as an accepted domain of its own, is safer."
        ),
        None if plan.accepted.iter().any(told) => format!(
            "**Accepted domain.** `{name}` is one of the tenant's: `Get-AcceptedDomain` lists it. If not, add and verify it in the admin
   centre (Settings, Domains); a sub-domain needs no mailboxes."
        ),
        None => format!(
            "**Accepted domain.** `{name}` lies below an accepted domain whose sub-domains count as well (`MatchSubDomains` in
   `Get-AcceptedDomain`). If they do not, add and verify it in the admin centre (Settings, Domains; it needs no mailboxes)."
        ),
    }
}

fn machine() -> String {
    "## 2. A machine with PowerShell

Windows PowerShell 5.1, or PowerShell 7 in the version that the module asks for. Copy this folder there, open PowerShell in it, and
check it:

    Get-Content .\\SHA256SUMS | ForEach-Object { $sum, $name = $_ -split '  ', 2; if ((Get-FileHash -Path $name).Hash -ne $sum) { $name } }

names what was changed on the way (on Linux: `sha256sum -c SHA256SUMS`). On Windows, after a download, `Unblock-File -Path .\\*.ps1`. Where your
policy wants signed scripts, sign them after that check (`Set-AuthenticodeSignature`): a signature changes their sums, so that a later `render`
into the same folder is refused as changed by hand; give it a new folder, or `--force`, and sign again. Then

    Install-Module -Name ExchangeOnlineManagement -Scope CurrentUser

The scripts sign you in where no session of this tenant is open (role: Exchange Administrator). Each has its help, as in
`Get-Help .\\Test-GatepostPreflight.ps1 -Full`. What changes something takes `-WhatIf`, and may be run again: it then changes only what
is missing or differs.
"
    .to_owned()
}

/// An address of the tenant to show in a command: `you@contoso.com`.
pub(super) fn somebody(plan: &Plan, who: &str) -> String {
    let domains = plan.accepted.iter().map(|own| own.domain().as_str());
    let usual = domains.clone().find(|domain| {
        !domain.ends_with(".onmicrosoft.com") && *domain != plan.certificate.domain()
    });
    let domain = usual
        .or_else(|| domains.clone().next())
        .unwrap_or("contoso.com");
    format!("{who}@{domain}")
}

fn install(plan: &Plan) -> String {
    let you = somebody(plan, "you");
    format!("## 3. Look, install, prove

    .\\Test-GatepostPreflight.ps1
    .\\Install-GatepostConnector.ps1 -WhatIf
    .\\Install-GatepostConnector.ps1
    .\\Confirm-GatepostConnector.ps1 -Recipient {you}

The first changes nothing and says what stands in the way. Install makes the two connectors and the two rules, the routing rule disabled, and
keeps what was there before as JSON. Confirm lets Exchange send its own test mail through Gatepost; `gatepost trace` shows it as taken and
delivered. Then export and compare once (section 5): what differs now, such as a domain of the tenant that `accepted_domains` lacks, would
cost mail later. For applications and devices alone you are done here: nothing sends user mail to Gatepost.
")
}

fn rollout(plan: &Plan, outward: &Outward) -> String {
    let pilot = match &outward.pilot_group {
        Some(group) => {
            format!("    .\\Set-GatepostRollout.ps1 -Stage Pilot          # the mail of {group}")
        }
        None => format!(
            "    .\\Set-GatepostRollout.ps1 -Stage Pilot -PilotGroup {}",
            literal(&somebody(plan, "pilot"))
        ),
    };
    format!(
        "## 4. User mail, step by step

Read first in Gatepost's README when not to route user mail through it.

    .\\Set-GatepostRollout.ps1 -Stage Audit          # sends nothing; the message trace shows what the rule would take
{pilot}
    .\\Set-GatepostRollout.ps1 -Stage Everyone

After each, wait some minutes, send a mail, and look: it comes back once, as internal (`X-MS-Exchange-Organization-AuthAs: Internal` in
its header), and `gatepost trace ADDRESS` shows it once.

**Emergency stop:** nothing more is sent to Gatepost; what is there is delivered.

    .\\Set-GatepostRollout.ps1 -Stage Stop

also where somebody has changed the comment of the rule; or the same without the scripts:

    {}
    Disable-TransportRule -Identity '{}'
",
        session(plan),
        Kind::Route.name()
    )
}

fn checking(plan: &Plan) -> String {
    format!(
        "## 5. Check, now and then

{}The export holds the secret values, as the rules do, and so does each `state-before-...` folder that a script has written before its first change:
delete it when it has done its work.
",
        compare(plan)
    )
}

fn failing() -> String {
    format!(
        "## 6. When it fails

{FAILING}| Pending in Exchange's message trace | DNS, firewall, the name in the certificate of the listener; a held connector (451 4.4.0) in `gatepost queue list` |
| 550 5.7.1 from Gatepost | the secret header, or a sender outside `accepted_domains`: `gatepost trace`, `gatepost explain trust` |
| 554 5.4.6 from Gatepost, 5.4.14 from Exchange | the loop value in the rule and in the configuration: `gatepost connector diff` |
| mail comes back external | CloudServicesMailEnabled on both connectors: `gatepost connector diff` |
"
    )
}

/// Whose the folder is, whatever is in it.
fn written(plan: &Plan) -> String {
    format!(
        "Written by `gatepost connector render`, filled in for the tenant {}; the scripts refuse
another one. Exchange names connectors from its own side: its inbound connector is where Gatepost delivers.
",
        plan.tenant_id
    )
}

/// How an export is made and compared.
fn compare(plan: &Plan) -> String {
    format!(
        "    .\\Export-GatepostState.ps1 -Folder \".\\state-$(Get-Date -Format yyyy-MM-dd)\"

into a folder that is new each time (one that is there is refused). Take it to the machine of Gatepost, and there

    sudo gatepost connector diff --config /etc/gatepost/gatepost.toml --tenant {} --exports state-YYYY-MM-DD

It names each drift, what it breaks, and the line that mends it, in the order in which they run; status 0 is none. The lines run in this
folder, in a session:

    {}

{}
",
        plan.tenant,
        session(plan),
        if plan.is_sent_to() {
            "`.\\Repair-GatepostConnector.ps1` sets back what our scripts set, and takes actions off that somebody has added to the two rules, and whatever
narrows the clean-up rule. What narrows the routing rule, and its place, it leaves; so it does all other objects."
        } else {
            "`.\\Repair-GatepostConnector.ps1` sets back what our script sets on the connector, and leaves all other objects."
        }
    )
}

/// The line that opens a session for lines that are no script of ours.
fn session(plan: &Plan) -> String {
    let cloud = if plan.environment == ENVIRONMENTS[0] {
        String::new()
    } else {
        format!(" -ExchangeEnvironmentName {}", plan.environment)
    };
    format!(
        "Connect-ExchangeOnline -UserPrincipalName {}{cloud}",
        somebody(plan, "you")
    )
}

/// Where to look first, whatever the set holds.
const FAILING: &str = "| what you see | where to look |
| --- | --- |
| any reply with a code | `gatepost explain reply`: what it means, whose fault it is, what to do |
| a mail that did not arrive | `gatepost trace ADDRESS`; in Exchange `Get-MessageTraceV2` |
| 550 5.7.64, 5.7.68, 451 4.4.62 when Gatepost delivers | certificate name, accepted domain, inbound connector: `gatepost connector diff` |
";

/// What `render` was told of the cloud.
fn environment(plan: &Plan) -> String {
    if plan.environment == ENVIRONMENTS[0] {
        String::new()
    } else {
        format!(" --environment {}", plan.environment)
    }
}

fn changing(plan: &Plan, outward: &Outward) -> String {
    let environment = environment(plan);
    let pilot = outward
        .pilot_group
        .as_ref()
        .map_or_else(String::new, |group| {
            let group = group.replace('\'', "'\\''");
            format!(" --pilot-group '{group}'")
        });
    format!(
        "## 7. Changes

**A secret is rotated.** A loop value that Exchange does not know yet sends mail round, and a secret that Gatepost does not know yet is refused;
so the two swap in turns. OLD and NEW are the values, each best in a file of its own (`${{file:...}}`):

1. `secret_header`: value NEW, previous OLD. `loop_header`: value OLD, previous NEW. Reload Gatepost: it takes both, and writes the old one.
   Each rendering below writes `gatepost-secrets.json` anew: bring it, or the whole folder, here before the script runs.
2. Render, then let Exchange know both; give it an hour:

       sudo gatepost connector render --config /etc/gatepost/gatepost.toml --tenant {}{pilot}{environment} --output FOLDER
       .\\Update-GatepostSecret.ps1 -Stage Both

3. `loop_header`: value NEW, previous OLD. Reload: Gatepost writes the new one.
4. When `gatepost queue list` shows nothing from before that, render again, and

       .\\Update-GatepostSecret.ps1 -Stage NewOnly

5. Take both `previous` out of the configuration, reload, and render once more.

Given up before step 4: both headers `value` OLD, `previous` NEW; reload, render, `-Stage Both`, and wait as in step 2. When nothing from before is queued,
take both `previous` out, reload, render, and run `.\\Repair-GatepostConnector.ps1`.

**A certificate is renewed.** With the same names nothing changes here. With others: render, run `.\\Repair-GatepostConnector.ps1`, and reload at once;
what comes between is held, not lost. Where Exchange has proven the way with the old name, Repair takes that mark off the outbound connector: run
`.\\Confirm-GatepostConnector.ps1 -Recipient {you}` then.

**Only where asked:** `.\\Set-GatepostArcSealer.ps1` and `.\\Set-GatepostEnhancedFiltering.ps1`; their help says for whom.
",
        plan.tenant,
        you = somebody(plan, "you"),
    )
}

fn removal() -> String {
    "## 8. Removal

    .\\Set-GatepostRollout.ps1 -Stage Stop
    .\\Remove-GatepostConnector.ps1 -WhatIf
    .\\Remove-GatepostConnector.ps1

Let an hour pass after the first, until `gatepost queue list` is empty. Applications and devices need the inbound connector for as long as they
send (`-KeepInboundConnector`). Objects without Gatepost's mark stay.
"
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{LOOPED, SECRET, plan};
    use super::*;

    #[test]
    fn the_steps_stand_in_order_for_the_tenant() {
        insta::assert_snapshot!(write(&plan()), @r##"
        # Exchange's side of Gatepost: tenant contoso

        Written by `gatepost connector render`, filled in for the tenant 11111111-2222-3333-4444-555555555555; the scripts refuse
        another one. Exchange names connectors from its own side: its inbound connector is where Gatepost delivers.

        | object | what it does |
        | --- | --- |
        | inbound connector `From Gatepost` | mail that shows a certificate for `smarthost.contoso.com` is this tenant's |
        | outbound connector `To Gatepost` | brings mail to `smarthost.contoso.com`, port 25, and asks for the name `smarthost.contoso.com` in its certificate |
        | transport rule `Route to Gatepost` | sends mail of the tenant's own senders there with the field `X-Contoso-Gate`; not what carries `X-Gatepost-Processed` already |
        | transport rule `Back from Gatepost` | directly behind it: takes `X-Gatepost-Processed` off what has come back |

        | value | |
        | --- | --- |
        | CloudServicesMailEnabled, on both connectors | True |
        | accepted domains that Gatepost knows | contoso.com, contoso.onmicrosoft.com, smarthost.contoso.com |
        | pilot group | none: -Stage Pilot asks for -PilotGroup |
        | cloud | O365Default |

        `gatepost-secrets.json` holds the values of the two fields. Whoever reads it can pass for Exchange or keep mail away from Gatepost: leave it with
        the scripts, for yourself alone, and delete it where you do not need it any more; `render` writes it again.

        ## 1. Before

        1. **DNS.** `smarthost.contoso.com` has an address record that the Internet sees. Publish no TLSA record for it, or keep it exact.
        2. **Firewall.** TCP 25 in from the networks of Exchange Online (`https://endpoints.office.com`, id 10); TCP 25 out to `contoso-com.mail.protection.outlook.com`.
        3. **Accepted domain.** `smarthost.contoso.com` is one of the tenant's: `Get-AcceptedDomain` lists it. If not, add and verify it in the admin
           centre (Settings, Domains); a sub-domain needs no mailboxes.
        4. **SPF.** Mail that Gatepost sends by `mx`, and mail of applications that are not `internal`, needs Gatepost's address in the
           SPF record of its sender's domain.

        ## 2. A machine with PowerShell

        Windows PowerShell 5.1, or PowerShell 7 in the version that the module asks for. Copy this folder there, open PowerShell in it, and
        check it:

            Get-Content .\SHA256SUMS | ForEach-Object { $sum, $name = $_ -split '  ', 2; if ((Get-FileHash -Path $name).Hash -ne $sum) { $name } }

        names what was changed on the way (on Linux: `sha256sum -c SHA256SUMS`). On Windows, after a download, `Unblock-File -Path .\*.ps1`. Where your
        policy wants signed scripts, sign them after that check (`Set-AuthenticodeSignature`): a signature changes their sums, so that a later `render`
        into the same folder is refused as changed by hand; give it a new folder, or `--force`, and sign again. Then

            Install-Module -Name ExchangeOnlineManagement -Scope CurrentUser

        The scripts sign you in where no session of this tenant is open (role: Exchange Administrator). Each has its help, as in
        `Get-Help .\Test-GatepostPreflight.ps1 -Full`. What changes something takes `-WhatIf`, and may be run again: it then changes only what
        is missing or differs.

        ## 3. Look, install, prove

            .\Test-GatepostPreflight.ps1
            .\Install-GatepostConnector.ps1 -WhatIf
            .\Install-GatepostConnector.ps1
            .\Confirm-GatepostConnector.ps1 -Recipient you@contoso.com

        The first changes nothing and says what stands in the way. Install makes the two connectors and the two rules, the routing rule disabled, and
        keeps what was there before as JSON. Confirm lets Exchange send its own test mail through Gatepost; `gatepost trace` shows it as taken and
        delivered. Then export and compare once (section 5): what differs now, such as a domain of the tenant that `accepted_domains` lacks, would
        cost mail later. For applications and devices alone you are done here: nothing sends user mail to Gatepost.

        ## 4. User mail, step by step

        Read first in Gatepost's README when not to route user mail through it.

            .\Set-GatepostRollout.ps1 -Stage Audit          # sends nothing; the message trace shows what the rule would take
            .\Set-GatepostRollout.ps1 -Stage Pilot -PilotGroup 'pilot@contoso.com'
            .\Set-GatepostRollout.ps1 -Stage Everyone

        After each, wait some minutes, send a mail, and look: it comes back once, as internal (`X-MS-Exchange-Organization-AuthAs: Internal` in
        its header), and `gatepost trace ADDRESS` shows it once.

        **Emergency stop:** nothing more is sent to Gatepost; what is there is delivered.

            .\Set-GatepostRollout.ps1 -Stage Stop

        also where somebody has changed the comment of the rule; or the same without the scripts:

            Connect-ExchangeOnline -UserPrincipalName you@contoso.com
            Disable-TransportRule -Identity 'Route to Gatepost'

        ## 5. Check, now and then

            .\Export-GatepostState.ps1 -Folder ".\state-$(Get-Date -Format yyyy-MM-dd)"

        into a folder that is new each time (one that is there is refused). Take it to the machine of Gatepost, and there

            sudo gatepost connector diff --config /etc/gatepost/gatepost.toml --tenant contoso --exports state-YYYY-MM-DD

        It names each drift, what it breaks, and the line that mends it, in the order in which they run; status 0 is none. The lines run in this
        folder, in a session:

            Connect-ExchangeOnline -UserPrincipalName you@contoso.com

        `.\Repair-GatepostConnector.ps1` sets back what our scripts set, and takes actions off that somebody has added to the two rules, and whatever
        narrows the clean-up rule. What narrows the routing rule, and its place, it leaves; so it does all other objects.
        The export holds the secret values, as the rules do, and so does each `state-before-...` folder that a script has written before its first change:
        delete it when it has done its work.

        ## 6. When it fails

        | what you see | where to look |
        | --- | --- |
        | any reply with a code | `gatepost explain reply`: what it means, whose fault it is, what to do |
        | a mail that did not arrive | `gatepost trace ADDRESS`; in Exchange `Get-MessageTraceV2` |
        | 550 5.7.64, 5.7.68, 451 4.4.62 when Gatepost delivers | certificate name, accepted domain, inbound connector: `gatepost connector diff` |
        | Pending in Exchange's message trace | DNS, firewall, the name in the certificate of the listener; a held connector (451 4.4.0) in `gatepost queue list` |
        | 550 5.7.1 from Gatepost | the secret header, or a sender outside `accepted_domains`: `gatepost trace`, `gatepost explain trust` |
        | 554 5.4.6 from Gatepost, 5.4.14 from Exchange | the loop value in the rule and in the configuration: `gatepost connector diff` |
        | mail comes back external | CloudServicesMailEnabled on both connectors: `gatepost connector diff` |

        ## 7. Changes

        **A secret is rotated.** A loop value that Exchange does not know yet sends mail round, and a secret that Gatepost does not know yet is refused;
        so the two swap in turns. OLD and NEW are the values, each best in a file of its own (`${file:...}`):

        1. `secret_header`: value NEW, previous OLD. `loop_header`: value OLD, previous NEW. Reload Gatepost: it takes both, and writes the old one.
           Each rendering below writes `gatepost-secrets.json` anew: bring it, or the whole folder, here before the script runs.
        2. Render, then let Exchange know both; give it an hour:

               sudo gatepost connector render --config /etc/gatepost/gatepost.toml --tenant contoso --output FOLDER
               .\Update-GatepostSecret.ps1 -Stage Both

        3. `loop_header`: value NEW, previous OLD. Reload: Gatepost writes the new one.
        4. When `gatepost queue list` shows nothing from before that, render again, and

               .\Update-GatepostSecret.ps1 -Stage NewOnly

        5. Take both `previous` out of the configuration, reload, and render once more.

        Given up before step 4: both headers `value` OLD, `previous` NEW; reload, render, `-Stage Both`, and wait as in step 2. When nothing from before is queued,
        take both `previous` out, reload, render, and run `.\Repair-GatepostConnector.ps1`.

        **A certificate is renewed.** With the same names nothing changes here. With others: render, run `.\Repair-GatepostConnector.ps1`, and reload at once;
        what comes between is held, not lost. Where Exchange has proven the way with the old name, Repair takes that mark off the outbound connector: run
        `.\Confirm-GatepostConnector.ps1 -Recipient you@contoso.com` then.

        **Only where asked:** `.\Set-GatepostArcSealer.ps1` and `.\Set-GatepostEnhancedFiltering.ps1`; their help says for whom.

        ## 8. Removal

            .\Set-GatepostRollout.ps1 -Stage Stop
            .\Remove-GatepostConnector.ps1 -WhatIf
            .\Remove-GatepostConnector.ps1

        Let an hour pass after the first, until `gatepost queue list` is empty. Applications and devices need the inbound connector for as long as they
        send (`-KeepInboundConnector`). Objects without Gatepost's mark stay.
        "##);
    }

    #[test]
    fn every_script_has_its_step() {
        let text = write(&plan());
        for (name, _) in super::super::SCRIPTS {
            assert!(text.contains(&format!(".\\{name}")), "{name}");
        }
    }

    #[test]
    fn a_national_cloud_has_its_own_networks_and_sign_in() {
        let mut plan = plan();
        assert!(!write(&plan).contains("instance"));
        plan.environment = "O365USGovDoD".to_owned();
        let text = write(&plan);
        assert!(text.contains("(`https://endpoints.office.com`, instance `USGOVDoD`, id 10)"));
        assert!(text.contains(" -ExchangeEnvironmentName O365USGovDoD"));
    }

    #[test]
    fn the_steps_are_ascii_and_hold_no_secret() {
        let text = write(&plan());
        assert!(text.is_ascii());
        assert!(!text.contains(SECRET) && !text.contains(LOOPED));
        let lines = text.lines().filter(|line| !line.starts_with('|'));
        let longest = lines.map(str::len).max().unwrap();
        assert!(longest < 165, "{longest}");
    }
}
