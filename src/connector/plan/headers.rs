//! Which header fields do the rules need, with which values? Those of the configuration; what it lacks is made.

use super::Outward;
use super::facts::Facts;
use super::finding::Findings;
use crate::mail::Secret;

/// Field names for a tenant that has none yet.
pub(super) const GATE: &str = "X-Gatepost-Gate";
pub(super) const PROCESSED: &str = "X-Gatepost-Processed";

/// A header field whose value is a secret.
#[derive(Clone, Debug)]
pub struct Header {
    /// Field name.
    pub name: String,
    /// The value in force.
    pub value: Secret,
    /// Values that are still recognised (rotation).
    pub previous: Vec<Secret>,
    /// Not in the configuration yet: the value was made here.
    pub made: bool,
}

pub(super) fn secret_header(facts: &Facts<'_>, findings: &mut Findings) -> Option<Header> {
    let tenant = facts.tenant;
    if let Some(header) = &tenant.secret_header
        && let Some((value, previous)) = header.values.split_first()
    {
        return Some(Header {
            name: header.name.to_string(),
            value: value.clone(),
            previous: previous.to_vec(),
            made: false,
        });
    }
    let key = format!("tenant.{}.secret_header", tenant.name);
    let Some(spare) = facts.spare else {
        findings.error(key, "missing: `gatepost connector render` makes one");
        return None;
    };
    findings.warn(
        key,
        "missing: made one; its lines must stand in the configuration before the scripts run",
    );
    let own = tenant.loop_header.iter().map(|header| &*header.name);
    let others = facts.others.iter().filter_map(|(other, _)| {
        let header = other.loop_header.as_ref()?;
        Some(&*header.name)
    });
    Some(Header {
        name: free_name(GATE, own.chain(others)),
        value: spare.secret.clone(),
        previous: Vec::new(),
        made: true,
    })
}

pub(super) fn loop_header(facts: &Facts<'_>, findings: &mut Findings) -> Option<Header> {
    let tenant = facts.tenant;
    if let Some(header) = &tenant.loop_header {
        return Some(Header {
            name: header.name.to_string(),
            value: header.value.clone(),
            previous: header.previous.clone(),
            made: false,
        });
    }
    let key = format!("tenant.{}.loop_header", tenant.name);
    let Some(spare) = facts.spare else {
        findings.error(key, "missing: `gatepost connector render` makes one");
        return None;
    };
    findings.warn(
        key,
        "missing: made one; until its lines stand in the configuration, mail that the routing rule sends goes round until Exchange breaks the loop (554 5.4.14)",
    );
    let own = tenant.secret_header.iter().map(|header| &*header.name);
    let others = facts.others.iter().filter_map(|(other, _)| {
        let header = other.secret_header.as_ref()?;
        Some(&*header.name)
    });
    Some(Header {
        name: free_name(PROCESSED, own.chain(others)),
        value: spare.looped.clone(),
        previous: Vec::new(),
        made: true,
    })
}

/// The longest word that a condition of a transport rule takes, in characters.
const LONGEST_WORD: usize = 128;

pub(super) fn judge_words(facts: &Facts<'_>, looped: &Header, findings: &mut Findings) {
    let mut all = std::iter::once(&looped.value).chain(&looped.previous);
    if all.any(|value| value.expose().len() > LONGEST_WORD) {
        findings.error(
            format!("tenant.{}.loop_header", facts.tenant.name),
            format!("a value of more than {LONGEST_WORD} characters, which no word list of a transport rule takes"),
        );
    }
}

/// `wanted`, with a number where the name has another fate already.
fn free_name<'a>(wanted: &str, taken: impl Iterator<Item = &'a str>) -> String {
    let taken: Vec<String> = taken.map(str::to_ascii_lowercase).collect();
    let mut name = wanted.to_owned();
    let mut number = 2;
    while taken.contains(&name.to_ascii_lowercase()) {
        name = format!("{wanted}-{number}");
        number += 1;
    }
    name
}

/// Every value of the two fields, present and previous, also of fields that the set does not need, and of other tenants.
pub(super) fn values(facts: &Facts<'_>, outward: Option<&Outward>) -> Vec<Secret> {
    let others = facts.others.iter().map(|(other, _)| *other);
    let mut all = Vec::new();
    for tenant in std::iter::once(facts.tenant).chain(others) {
        let secrets = tenant.secret_header.iter();
        all.extend(secrets.flat_map(|header| header.values.iter().cloned()));
        if let Some(header) = &tenant.loop_header {
            all.push(header.value.clone());
            all.extend(header.previous.iter().cloned());
        }
    }
    if let Some(outward) = outward {
        all.push(outward.secret.value.clone());
        all.push(outward.looped.value.clone());
    }
    all
}
