//! Did a message arrive as it must? Bytes, envelope, tenant, and what the smart host put on top.

use super::super::fields::Section;
use super::super::samples::{Abroad, Act, Player, Taken, leaks};
use super::super::{Carried, Received, Transfer};

/// Whether this is the message with the token in its subject.
pub(super) fn carries(content: &[u8], token: &str) -> bool {
    let marked = format!("({token})");
    memchr::memmem::find(content, marked.as_bytes()).is_some()
}

/// What is not as it must be on a message that has left for the outside.
pub(super) fn faults_abroad(message: &Carried, abroad: &Abroad, hostname: &str) -> Vec<String> {
    let mut faults: Vec<String> = leaks(&message.content, &abroad.organization)
        .iter()
        .map(|name| format!("{} leaked", crate::mail::shown(name.as_bytes())))
        .collect();
    let shown = message.tls.as_ref().map_or(0, |tls| tls.chain.len());
    if shown > 0 {
        faults.push("a certificate was shown to a stranger".to_owned());
    }
    let says = |word: &str| {
        let given = message.parameters.iter();
        given
            .map(|given| given.to_ascii_uppercase())
            .any(|given| given.starts_with(word))
    };
    if says("XOORG") {
        faults.push("XOORG must not be said outside".to_owned());
    }
    let recipients: Vec<&str> = message.addresses();
    if message.sender != abroad.sender || recipients != abroad.recipients {
        faults.push(format!(
            "envelope must be <{}> to {:?}, not <{}> to {recipients:?}",
            abroad.sender, abroad.recipients, message.sender
        ));
    }
    match message.content.strip_suffix(abroad.bytes.as_slice()) {
        Some(top) => {
            let section = Section::of(top);
            let names: Vec<_> = section.fields().iter().map(|field| &field.name).collect();
            let received = section.first("Received").unwrap_or_default();
            if names != ["Received"] || !received.contains(hostname) {
                faults.push(format!(
                    "one Received by {hostname} must stand on top, not {names:?}"
                ));
            }
        }
        None => faults.push(difference(&message.content, &abroad.bytes)),
    }
    faults
}

/// What is not as it must be.
pub(super) fn faults(message: &Received, taken: &Taken, act: &Act, hostname: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut demand = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    demand(
        message.tenant() == taken.tenant,
        format!(
            "must be attributed to {}, not {}",
            taken.tenant,
            message.tenant()
        ),
    );
    if taken.internal {
        demand(
            message.is_internal(),
            format!("must be internal: {}", message.entry.because),
        );
    } else {
        demand(!message.is_internal(), "must not be internal".to_owned());
    }
    demand(
        message.sender == taken.sender,
        format!(
            "envelope sender must be <{}>, not <{}>",
            taken.sender, message.sender
        ),
    );
    let came: Vec<String> = message
        .recipients
        .iter()
        .map(|recipient| match recipient.parameters.join(" ") {
            parameters if parameters.is_empty() => recipient.address.clone(),
            parameters => format!("{}> {parameters}", recipient.address),
        })
        .collect();
    demand(
        same(&came, &taken.recipients),
        format!("recipients must be {:?}, not {came:?}", taken.recipients),
    );
    for parameter in &taken.parameters {
        let there = message
            .parameters
            .iter()
            .any(|given| given.eq_ignore_ascii_case(parameter));
        demand(there, format!("MAIL must carry {parameter}"));
    }
    if let Some(size) = message.parameter("SIZE") {
        let length = message.content.len().to_string();
        demand(
            size == length,
            format!("SIZE= said {size}, {length} octets came"),
        );
    }
    demand(
        !taken.chunked || matches!(message.transfer, Transfer::Chunks(_)),
        "Exchange offers CHUNKING, so the content must come by BDAT".to_owned(),
    );
    match message.content.strip_suffix(taken.bytes.as_slice()) {
        Some(top) => faults.extend(top_faults(top, message, taken, act, hostname)),
        None => faults.push(difference(&message.content, &taken.bytes)),
    }
    faults
}

fn same(one: &[String], other: &[String]) -> bool {
    let sorted = |list: &[String]| {
        let mut list: Vec<String> = list
            .iter()
            .map(|entry| entry.to_ascii_lowercase())
            .collect();
        list.sort();
        list
    };
    sorted(one) == sorted(other)
}

/// The fields on top: one Received, the loop header, the stamp; nothing else.
fn top_faults(
    top: &[u8],
    message: &Received,
    taken: &Taken,
    act: &Act,
    hostname: &str,
) -> Vec<String> {
    let mut faults = Vec::new();
    let section = Section::of(top);
    if !section.rest().is_empty() {
        return vec!["an empty line was put above the message".to_owned()];
    }
    if !section
        .fields()
        .first()
        .is_some_and(|field| field.is("Received"))
    {
        faults.push("Received must stand on top".to_owned());
    }
    let received = section.first("Received").unwrap_or_default();
    if !received.contains(hostname) {
        faults.push(format!("Received must name {hostname}"));
    }
    if let Player::Application { actor, .. } = &act.player
        && actor
            .source
            .is_some_and(|source| received.contains(&source.to_string()))
    {
        faults.push("Received must name the application, not its address".to_owned());
    }
    let mut wanted: Vec<(String, Option<String>)> = vec![("Received".to_owned(), None)];
    if let Some((name, value)) = &taken.loop_header {
        wanted.push((name.clone(), Some(value.expose_str().to_owned())));
    }
    if taken.stamped {
        let domain = taken
            .sender
            .rsplit_once('@')
            .map_or("", |(_, domain)| domain);
        wanted.extend([
            (
                "X-MS-Exchange-CrossPremises-AuthAs".to_owned(),
                Some("Internal".to_owned()),
            ),
            (
                "X-MS-Exchange-CrossPremises-AuthMechanism".to_owned(),
                Some("10".to_owned()),
            ),
            (
                "X-MS-Exchange-CrossPremises-AuthSource".to_owned(),
                Some(hostname.to_owned()),
            ),
            ("X-OriginatorOrg".to_owned(), Some(domain.to_owned())),
        ]);
        if message
            .parameter("XOORG")
            .is_none_or(|xoorg| !xoorg.eq_ignore_ascii_case(domain))
        {
            faults.push(format!("MAIL must carry XOORG={domain}"));
        }
    }
    if taken.completed {
        wanted.extend([("Date".to_owned(), None), ("Message-ID".to_owned(), None)]);
    }
    for (name, value) in &wanted {
        let found: Vec<String> = section
            .named(name)
            .map(|field| section.value(field))
            .collect();
        match (found.as_slice(), value) {
            ([one], Some(value)) if !one.eq_ignore_ascii_case(value) => {
                faults.push(format!("{name} on top has another value than it must"));
            }
            ([_], _) => {}
            ([], _) => faults.push(format!("{name} must be added on top")),
            (several, _) => faults.push(format!("{name} was added {} times", several.len())),
        }
    }
    for field in section.fields() {
        if !wanted.iter().any(|(name, _)| field.is(name)) {
            faults.push(format!(
                "{} was added and must not be",
                crate::mail::shown(field.name.as_bytes())
            ));
        }
    }
    faults
}

/// Where the bytes differ, seen from the end, for the top is the smart host's.
fn difference(came: &[u8], wanted: &[u8]) -> String {
    let equal = came
        .iter()
        .rev()
        .zip(wanted.iter().rev())
        .take_while(|(one, other)| one == other)
        .count();
    let around = |bytes: &[u8]| {
        let at = bytes.len().saturating_sub(equal);
        let piece = bytes
            .get(at.saturating_sub(30)..(at + 10).min(bytes.len()))
            .unwrap_or_default();
        crate::mail::shown(piece)
    };
    let position = wanted.len().saturating_sub(equal);
    format!(
        "bytes differ at octet {position} of the message: must be \"{}\", is \"{}\"",
        around(wanted),
        around(came)
    )
}

#[cfg(test)]
mod tests;
