//! The steps where mail goes from applications into Exchange, and Exchange sends nothing to Gatepost.

use super::{FAILING, before, compare, environment, machine, somebody, written};
use crate::connector::SECRETS_FILE;
use crate::connector::objects::Kind;
use crate::connector::plan::Plan;

pub(super) fn write(plan: &Plan) -> String {
    let parts = [
        head(plan),
        before(plan),
        machine(),
        install(plan),
        checking(plan),
        failing(),
        changing(plan),
        removal(),
    ];
    parts.join("\n")
}

fn head(plan: &Plan) -> String {
    let accepted: Vec<String> = plan.accepted.iter().map(ToString::to_string).collect();
    format!(
        "# Exchange's side of Gatepost: tenant {}, applications alone

{}
| object | what it does |
| --- | --- |
| inbound connector `{}` | mail that shows a certificate for `{}` is this tenant's |

The configuration has no listener with `service = \"connector\"`, or no route that takes this tenant's mail from there: mail goes from
applications and devices into Exchange, and Exchange sends nothing to Gatepost. So there is no outbound connector and no rule, the scripts
leave both out, and no field with a secret value is needed. With such a listener and route, render again: the rest is added.

| value | |
| --- | --- |
| CloudServicesMailEnabled | {} |
| accepted domains that Gatepost knows | {} |
| cloud | {} |

`{SECRETS_FILE}` holds no value, only whose folder this is.
",
        plan.tenant,
        written(plan),
        Kind::Inbound.name(),
        plan.certificate.connector_name,
        if plan.cloud { "True" } else { "False" },
        accepted.join(", "),
        plan.environment,
    )
}

fn install(plan: &Plan) -> String {
    let you = somebody(plan, "you");
    format!("## 3. Look, install, prove

    .\\Test-GatepostPreflight.ps1
    .\\Install-GatepostConnector.ps1 -WhatIf
    .\\Install-GatepostConnector.ps1

The first changes nothing and says what stands in the way. Install makes the inbound connector, and keeps what was there before as JSON. Exchange
takes some minutes until it knows a new one. Then send a mail through Gatepost to {you}, and

    gatepost trace {you}
    .\\Confirm-GatepostConnector.ps1 -MessageId '<...>'

the first where Gatepost runs, the second here, with the Message-ID of the mail: both say delivered. In its header stands
`X-MS-Exchange-Organization-AuthAs: Internal` where the application is `internal`.
")
}

fn checking(plan: &Plan) -> String {
    format!(
        "## 4. Check, now and then

{}",
        compare(plan)
    )
}

fn failing() -> String {
    format!(
        "## 5. When it fails

{FAILING}| mail arrives as external | `internal = true` of the application, CloudServicesMailEnabled: `gatepost connector diff` |
"
    )
}

fn changing(plan: &Plan) -> String {
    format!(
        "## 6. Changes

**A certificate is renewed.** With the same names nothing changes here. With others: render, run `.\\Repair-GatepostConnector.ps1`, and reload at once;
what comes between is held, not lost.

**User mail as well:** with a listener for Exchange in the configuration, and a route for this tenant's mail from there,

    sudo gatepost connector render --config /etc/gatepost/gatepost.toml --tenant {}{} --output FOLDER

writes the scripts and steps for the outbound connector and the rules too; Install then adds them. Give `loop_header` another value first where
the configuration has had one: no rule has taken it off mail that left the tenant.

**Only where asked:** `.\\Set-GatepostArcSealer.ps1` and `.\\Set-GatepostEnhancedFiltering.ps1`; their help says for whom.
",
        plan.tenant,
        environment(plan)
    )
}

fn removal() -> String {
    "## 7. Removal

    .\\Remove-GatepostConnector.ps1 -WhatIf
    .\\Remove-GatepostConnector.ps1

when no application sends any more and `gatepost queue list` is empty. An object without Gatepost's mark stays.
"
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::{LOOPED, SECRET, inward};
    use super::super::super::templates;
    use super::*;

    #[test]
    fn the_steps_name_every_script_of_the_folder_and_no_other() {
        let text = write(&inward());
        for (name, _) in super::super::super::SCRIPTS {
            let named = text.contains(&format!(".\\{name}"));
            assert_eq!(named, templates::is_for(name, &inward()), "{name}");
        }
    }

    #[test]
    fn the_steps_are_ascii_and_hold_no_secret_and_nothing_of_the_way_out() {
        let text = write(&inward());
        assert!(text.is_ascii());
        for word in [
            SECRET,
            LOOPED,
            "To Gatepost",
            "Rollout",
            "TCP 25 in",
            "TLSA",
        ] {
            assert!(!text.contains(word), "{word}");
        }
        let lines = text.lines().filter(|line| !line.starts_with('|'));
        assert!(lines.map(str::len).max().unwrap() < 165);
    }
}
