//! Is a property what it must be? If not: what it is, what it must be, and the line that sets it, all without a secret.

use super::certificate_name::{Fit, Said};
use super::desired::{Property, Want, is_marked};
use super::diff::seen;
use super::export::{flag, list, text};
use super::literal::{literal, literals};
use super::objects::Kind;
use super::plan::Header;
use super::tenancy::TenantDomains;
use super::told;
use super::{MARK, SECRETS_FILE};
use serde_json::Value;

/// What came of a comparison.
pub(super) enum Judged {
    Fits,
    Note(String),
    Differs(String),
    /// Differs, and what is told of it is its own.
    Said(String, Said),
}

/// What a property is judged by beside itself.
pub(super) struct Around<'a> {
    /// The name of the object that holds it.
    pub(super) name: &'a str,
    /// Every name of our outbound connector.
    pub(super) outbound: &'a [String],
    /// The tenant's domains, where they were exported.
    pub(super) domains: Option<&'a TenantDomains>,
}

/// Whether a word of an enumeration was written as its number, as `ConvertTo-Json` does where an object was not serialised on
/// its way.
pub(super) fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok()
}

pub(super) fn judge(want: &Want, value: &Value, around: &Around<'_>) -> Judged {
    let is = text(value);
    let differs = || Judged::Differs(seen(&is));
    let same = |other: &str| is.eq_ignore_ascii_case(other);
    let fits = match want {
        Want::Mark => is_marked(&is),
        Want::Flag(wanted) => flag(value) == Some(*wanted),
        Want::Word(_) | Want::OneOf(..) if is_number(&is) => {
            return Judged::Note(
                "is written as a number, and which word that is stands nowhere: export it by Export-GatepostState.ps1".to_owned(),
            );
        }
        Want::Word(word) => same(word),
        Want::Text(wanted) => same(wanted),
        Want::OneOf([usual, others @ ..], told) => {
            if others.iter().any(|other| same(other)) {
                return Judged::Note(format!("is {is}, not {usual}: {told}"));
            }
            same(usual)
        }
        Want::OneOf([], _) => true,
        Want::CertificateName(wanted) => match wanted.judge(&is, around.name, around.domains) {
            Fit::Fits => true,
            Fit::Wider => {
                let shown = seen(&is);
                return Judged::Note(format!(
                    "is {shown}, which covers {}, and every other certificate of that domain as well: Microsoft discourages it, and Repair sets it back",
                    wanted.connector_name
                ));
            }
            Fit::Unknown(said) | Fit::Otherwise(said) => return Judged::Said(seen(&is), said),
            Fit::Foreign => false,
        },
        Want::Hosts(wanted) => {
            let mut own: Vec<String> = list(value).iter().map(|host| host_of(host)).collect();
            own.sort();
            own.dedup();
            let mut wanted: Vec<String> = wanted.iter().map(|host| host_of(host)).collect();
            wanted.sort();
            if own != wanted {
                return Judged::Differs(seen(&list(value).join(", ")));
            }
            true
        }
        Want::Unset => {
            let own = list(value);
            if own.is_empty() {
                return Judged::Fits;
            }
            return Judged::Differs(seen(&own.join(", ")));
        }
        Want::OutboundConnector => around.outbound.iter().any(|name| same(name)),
        Want::Secret(header) => return judge_secret(header, &is),
        Want::Words(header) => return judge_words(header, value, &is),
    };
    if fits { Judged::Fits } else { differs() }
}

/// A host name or address space without its type and cost: `smtp:*;1` is `*`.
pub(super) fn host_of(written: &str) -> String {
    let lower = written.to_ascii_lowercase();
    let bare = lower.strip_prefix("smtp:").unwrap_or(&lower);
    let bare = bare.split(';').next().unwrap_or(bare);
    bare.trim_matches(['[', ']'])
        .trim_end_matches('.')
        .to_owned()
}

fn judge_secret(header: &Header, is: &str) -> Judged {
    if header.value.matches(is.as_bytes()) {
        Judged::Fits
    } else if header
        .previous
        .iter()
        .any(|previous| previous.matches(is.as_bytes()))
    {
        Judged::Note("is still a previous value, which Gatepost takes; Update-GatepostSecret.ps1 -Stage Both sets the present one".to_owned())
    } else if is.is_empty() {
        Judged::Differs("not set".to_owned())
    } else {
        Judged::Differs("differs".to_owned())
    }
}

fn judge_words(header: &Header, value: &Value, whole: &str) -> Judged {
    let known = |word: &str| {
        let previous = header
            .previous
            .iter()
            .any(|previous| previous.matches(word.as_bytes()));
        let present = header.value.matches(word.as_bytes());
        (present, previous)
    };
    // A list of one that -Depth made a text may hold blanks.
    let words = if known(whole) == (false, false) {
        list(value)
    } else {
        vec![whole.to_owned()]
    };
    let judged: Vec<(bool, bool)> = words.iter().map(|word| known(word)).collect();
    let present = judged.iter().any(|(present, _)| *present);
    let previous = judged.iter().filter(|(_, previous)| *previous).count();
    let outdated = judged
        .iter()
        .filter(|known| **known == (false, false))
        .count();
    let values = |count: usize, what: &str| match count {
        1 => format!("one {what} value"),
        count => format!("{count} {what} values"),
    };
    match (present, previous, outdated) {
        (true, 0, 0) if !header.previous.is_empty() => Judged::Note(
            "holds the present value only, not `previous` of the configuration: Update-GatepostSecret.ps1 -Stage Both adds it; after -Stage NewOnly it can go from there".to_owned(),
        ),
        (true, _, 0) => Judged::Fits,
        (true, _, outdated) => Judged::Differs(format!(
            "the present value, and {}",
            values(outdated, "outdated")
        )),
        (false, 0, 0) => Judged::Differs("not set".to_owned()),
        (false, previous, 0) => Judged::Differs(format!(
            "{}, not the present one",
            values(previous, "previous")
        )),
        (false, 0, outdated) => Judged::Differs(format!(
            "{}, not the present one",
            values(outdated, "outdated")
        )),
        (false, _, _) => {
            Judged::Differs("previous and outdated values, not the present one".to_owned())
        }
    }
}

/// What a property must be, in words; never a secret.
pub(super) fn should(want: &Want) -> String {
    match want {
        Want::Mark => format!("begins with \"{MARK}\""),
        Want::Flag(true) => "True".to_owned(),
        Want::Flag(false) => "False".to_owned(),
        Want::Word(word) => (*word).to_owned(),
        Want::OneOf(words, _) => words.join(" or "),
        Want::Text(text) => text.clone(),
        Want::CertificateName(wanted) => wanted.connector_name.clone(),
        Want::Hosts(hosts) => hosts.join(", "),
        Want::Unset => "not set".to_owned(),
        Want::OutboundConnector => Kind::Outbound.name().to_owned(),
        Want::Secret(_) => format!("SecretHeaderValue of {SECRETS_FILE}"),
        Want::Words(header) if header.previous.is_empty() => {
            format!("LoopHeaderValue of {SECRETS_FILE}")
        }
        Want::Words(_) => format!("LoopHeaderValue and LoopHeaderPrevious of {SECRETS_FILE}"),
    }
}

/// The line that sets a property, with the others that belong into the same call.
pub(super) fn mend(kind: Kind, name: &str, property: &Property, all: &[Property]) -> String {
    let name = told::literal(name);
    if let ("State", Want::Word(_)) = (property.name, &property.want) {
        return format!("Enable-TransportRule -Identity {name}");
    }
    let together = std::iter::once(property.name).chain(property.with.iter().copied());
    let together: Vec<&Property> = all
        .iter()
        .filter(|other| together.clone().any(|name| name == other.name))
        .collect();
    let arguments: String = together
        .iter()
        .map(|property| format!(" -{} {}", property.name, argument(&property.want)))
        .collect();
    let line = format!("{} -Identity {name}{arguments}", kind.setter());
    if together
        .iter()
        .any(|property| matches!(property.want, Want::Secret(_) | Want::Words(_)))
    {
        format!(
            "$s = Get-Content -Raw -Path {} | ConvertFrom-Json; {line}",
            literal(&format!(".\\{SECRETS_FILE}"))
        )
    } else {
        line
    }
}

fn argument(want: &Want) -> String {
    match want {
        Want::Mark => literal(MARK),
        Want::Flag(true) => "$true".to_owned(),
        Want::Flag(false) => "$false".to_owned(),
        Want::Word(word) => (*word).to_owned(),
        Want::OneOf(words, _) => words.first().map(|word| literal(word)).unwrap_or_default(),
        Want::Text(text) => literal(text),
        Want::CertificateName(wanted) => literal(&wanted.connector_name),
        Want::Hosts(hosts) => literals(hosts),
        Want::Unset => "$null".to_owned(),
        Want::OutboundConnector => literal(Kind::Outbound.name()),
        Want::Secret(_) => "$s.SecretHeaderValue".to_owned(),
        Want::Words(header) if header.previous.is_empty() => "$s.LoopHeaderValue".to_owned(),
        Want::Words(_) => "(@($s.LoopHeaderValue) + @($s.LoopHeaderPrevious))".to_owned(),
    }
}
