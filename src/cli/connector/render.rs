//! `gatepost connector render`: a folder of scripts, filled in.

use super::folder::{self, Placed};
use super::{Configuration, Wishes};
use crate::cli::Trouble;
use crate::config;
use crate::connector::{
    ENVIRONMENTS, Plan, SCRIPTS, SECRETS_FILE, Spare, Token, read_secrets, render, value_file,
};
use crate::mail::{Mailbox, Secret};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Octets of a value that is made: twice as many hexadecimal digits.
const RANDOM: usize = 16;

/// What is asked for.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Whose connectors; not needed where the configuration has one tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// The folder to write: new, empty, or an earlier rendering of the same tenant.
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// The group whose mail goes through Gatepost first.
    #[arg(long, value_name = "ADDRESS")]
    pilot_group: Option<Mailbox>,
    /// Microsoft's cloud that the tenant is in.
    #[arg(long, value_name = "NAME", default_value = ENVIRONMENTS[0], value_parser = clap::builder::PossibleValuesParser::new(ENVIRONMENTS))]
    environment: String,
    /// Write also into a folder that holds something else, and over files that were changed by hand.
    #[arg(long)]
    force: bool,
}

pub(super) fn answer(
    configuration: &Configuration,
    arguments: &Arguments,
    json: bool,
) -> Result<(bool, String), Trouble> {
    let tenant = configuration.tenant(arguments.tenant.as_deref())?;
    let output = folder::no_link(&arguments.output)?;
    let before = output.join(SECRETS_FILE);
    let kept = std::fs::read(&before).ok();
    let kept = kept.as_deref().and_then(read_secrets);
    let kept = kept.filter(|kept| kept.tenant_id.eq_ignore_ascii_case(&tenant.id.to_string()));
    let fresh = Spare {
        secret: random()?,
        looped: random()?,
    };
    let spare = Spare::kept_or(kept.as_ref(), fresh);
    let wishes = Wishes {
        pilot_group: arguments.pilot_group.as_ref(),
        environment: Some(&arguments.environment),
        spare: Some(&spare),
    };
    let Some(plan) = configuration.plan(tenant, &wishes) else {
        eprintln!("gatepost: nothing was written");
        return Ok((false, String::new()));
    };
    // What the configuration lacks is taken from there: from a folder that others could prepare they would know it.
    if kept.is_some()
        && plan.made().next().is_some()
        && let Some(why) = config::foreign(&output).or_else(|| config::foreign(&before))
    {
        return Err(Trouble::Use(format!(
            "{}: not taken for what the configuration lacks: {why}; give a new folder, or make this one yours alone",
            before.display()
        )));
    }
    let rendering = render(&plan, SCRIPTS).map_err(|error| Trouble::Use(error.to_string()))?;
    let placed = folder::place(&output, &rendering, plan.tenant_id(), arguments.force)?;
    let answer = if json {
        format!("{}\n", facts(&plan, &output, &placed))
    } else {
        told(&plan, &configuration.path, &output, &placed)
    };
    Ok((true, answer))
}

fn random() -> Result<Secret, Trouble> {
    let mut octets = [0; RANDOM];
    getrandom::fill(&mut octets)
        .map_err(|error| Trouble::Server(format!("no random numbers: {error}")))?;
    let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    Ok(Secret::new(digits))
}

fn facts(plan: &Plan, folder: &Path, placed: &[Placed]) -> Value {
    let values: serde_json::Map<String, Value> = plan
        .tokens()
        .into_iter()
        .map(|(name, token)| {
            let value = match token {
                Token::Text(text) => json!(text),
                Token::List(texts) => json!(texts),
            };
            (name.to_owned(), value)
        })
        .collect();
    let files: Vec<Value> = placed
        .iter()
        .map(|file| json!({ "name": file.name, "state": file.state, "sha256": file.sum, "secret": file.sum.is_none() && file.state != "removed" }))
        .collect();
    let made: Vec<Value> = plan
        .made()
        .map(|(key, header)| json!({ "key": key, "name": header.name, "file": value_file(key) }))
        .collect();
    json!({
        "tenant": plan.tenant(),
        "folder": folder.display().to_string(),
        "inbound_alone": !plan.is_sent_to(),
        "values": values,
        "files": files,
        "missing_in_configuration": made,
    })
}

fn told(plan: &Plan, config: &Path, folder: &Path, placed: &[Placed]) -> String {
    let count = |state: &str| placed.iter().filter(|file| file.state == state).count();
    let mut out = format!(
        "tenant {}: {} file(s) written, {} unchanged, {} removed in {}\n",
        plan.tenant(),
        count("written"),
        count("unchanged"),
        count("removed"),
        folder.display()
    );
    for (name, token) in plan.tokens() {
        let value = match token {
            Token::Text(text) => text,
            Token::List(texts) => texts.join(", "),
        };
        let value = if value.is_empty() { "-" } else { &value };
        // Writing to a String does not fail.
        writeln!(out, "  {name:<25} {value}").unwrap_or_default();
    }
    if !plan.is_sent_to() {
        writeln!(out, "\nNo listener has service = \"connector\", or no route takes this tenant's mail from there: the set is the inbound connector alone, without outbound connector and rules").unwrap_or_default();
    }
    let made: Vec<_> = plan.made().collect();
    if !made.is_empty() {
        let secrets = config
            .parent()
            .unwrap_or_else(|| Path::new(""))
            .join("secrets");
        writeln!(out, "\nThe configuration lacks what the rules need. Copy the value(s), which nobody else must read:\n").unwrap_or_default();
        for (key, _) in &made {
            writeln!(
                out,
                "    sudo install -g gatepost -m 640 {} {}",
                quoted(&folder.join(value_file(key))),
                quoted(&secrets.join(format!("{}.{key}", plan.tenant())))
            )
            .unwrap_or_default();
        }
        writeln!(
            out,
            "\nand add under [[tenant]] {}, above its sub-tables, then reload:\n",
            plan.tenant()
        )
        .unwrap_or_default();
        for (key, header) in &made {
            writeln!(
                out,
                "    {key} = {{ name = \"{}\", value = \"${{file:secrets/{}.{key}}}\" }}",
                header.name,
                plan.tenant()
            )
            .unwrap_or_default();
        }
        writeln!(out, "\nWhere Exchange is to send nothing of this tenant here, give its [[route]]s from = \"submission\" instead: then the set is the inbound connector alone").unwrap_or_default();
    }
    writeln!(
        out,
        "\nNext: the steps in {}",
        quoted(&folder.join("README.md"))
    )
    .unwrap_or_default();
    out
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"/._-+:@".contains(&octet);
    if text.bytes().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
