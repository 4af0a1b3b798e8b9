//! Names and values of the secret and loop header fields.

use super::super::raw::{LoopHeader as RawLoop, SecretHeader as RawSecret};
use super::super::reader::{At, Reader, Scope};
use super::super::value::Table;
use crate::trust::{LoopHeader, SecretHeader};

/// Shorter values can be guessed or met by chance.
pub(super) const LONG_ENOUGH: usize = 16;

/// Fields with a meaning of their own: Exchange's, which are protected (product.md 4), and those of mail itself
/// (RFC 5322 §3.6, RFC 2045 §3 and what filters add). A secret or loop field of such a name would be lost or mistaken.
const PREFIXES: [&str; 10] = [
    "x-ms-",
    "x-crosspremises",
    "x-forefront-",
    "x-microsoft-",
    "x-eop",
    "x-exchange-",
    "arc-",
    "resent-",
    "content-",
    "list-",
];
const NAMES: [&str; 30] = [
    "x-originatororg",
    "x-organizationheaderspreserved",
    "date",
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "message-id",
    "in-reply-to",
    "references",
    "subject",
    "comments",
    "keywords",
    "received",
    "return-path",
    "mime-version",
    "dkim-signature",
    "authentication-results",
    "received-spf",
    "auto-submitted",
    "delivered-to",
    "errors-to",
    "precedence",
    "importance",
    "thread-index",
    "thread-topic",
    "disposition-notification-to",
    "return-receipt-to",
];

/// A field with its name's place, for comparisons.
pub(super) struct Field<T> {
    pub(super) name: At<String>,
    pub(super) header: T,
}

pub(super) fn secret(
    reader: &mut Reader<'_>,
    scope: &Scope,
    key: &Table<RawSecret>,
) -> Option<Field<SecretHeader>> {
    let (table, scope) = reader.table(scope, "secret_header", key)?;
    let name = reader.required(&scope, "name", &table.name, field_name);
    reader.demand(&scope, "value", &table.value);
    let value = reader.secret(&scope, "value", &table.value, field_value);
    let previous = reader.secrets(&scope, "previous", &table.previous, field_value);
    let required = reader.flag(&scope, "required", &table.required);
    let value = value?;
    warn_if_short(reader, &value);
    let values = std::iter::once(value)
        .chain(previous)
        .map(|at| at.value)
        .collect();
    let name = name?;
    let header = SecretHeader {
        name: name.value.as_str().into(),
        values,
        required: required.is_some_and(|at| at.value),
    };
    Some(Field { name, header })
}

pub(super) fn looped(
    reader: &mut Reader<'_>,
    scope: &Scope,
    key: &Table<RawLoop>,
) -> Option<Field<LoopHeader>> {
    let (table, scope) = reader.table(scope, "loop_header", key)?;
    let name = reader.required(&scope, "name", &table.name, field_name);
    reader.demand(&scope, "value", &table.value);
    let value = reader.secret(&scope, "value", &table.value, field_value);
    let previous = reader.secrets(&scope, "previous", &table.previous, field_value);
    let value = value?;
    warn_if_short(reader, &value);
    let name = name?;
    let header = LoopHeader {
        name: name.value.as_str().into(),
        value: value.value,
        previous: previous.into_iter().map(|at| at.value).collect(),
    };
    Some(Field { name, header })
}

fn warn_if_short(reader: &mut Reader<'_>, value: &At<crate::mail::Secret>) {
    if value.value.expose().len() < LONG_ENOUGH {
        reader.warn(
            &value.spot,
            format!("shorter than {LONG_ENOUGH} characters, and can be guessed"),
        );
    }
}

/// RFC 5322 §3.6.8, and nobody else's name.
fn field_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 76
        && text
            .bytes()
            .all(|octet| matches!(octet, 33..=126) && octet != b':');
    if !fits {
        return Err("not a header field name".to_owned());
    }
    if text.len() > 2 && text.starts_with('@') && text.ends_with('@') {
        // `connector-templates/` would take it for a value that was not filled in.
        return Err(
            "begins and ends with @, as the place holders of the connector scripts do".to_owned(),
        );
    }
    let lower = text.to_ascii_lowercase();
    if NAMES.contains(&lower.as_str()) || PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err("a field that Exchange or mail itself uses: choose a name of your own, such as X-Contoso-Gate".to_owned());
    }
    Ok(text.to_owned())
}

/// A value that comes through every hop as it was set: printable ASCII, no blank at its ends, one line.
fn field_value(text: &str) -> Result<(), &'static str> {
    if text.len() > 900 {
        Err("longer than 900 characters, and would be folded on its way")
    } else if !text.bytes().all(|octet| matches!(octet, 32..=126)) {
        Err("must be printable ASCII on one line")
    } else if text.starts_with(' ') || text.ends_with(' ') {
        Err("must not begin or end with a blank")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protected_or_common_field_name_is_refused() {
        assert_eq!(
            field_name("X-Contoso-Gate").as_deref(),
            Ok("X-Contoso-Gate")
        );
        for bad in [
            "",
            "X Gate",
            "X-Gate:",
            "X-Gäte",
            "x-ms-exchange-organization-scl",
            "X-OriginatorOrg",
            "Subject",
            "RECEIVED",
            "X-CrossPremises-Foo",
            "ARC-Seal",
            "X-EOPAttributedMessage",
            "X-Forefront-PRVS",
            "@SecretHeaderName@",
        ] {
            assert!(field_name(bad).is_err(), "{bad}");
        }
        assert!(field_name(&"x".repeat(77)).is_err());
        // RFC 5322 §3.6.8 takes every printable octet but the colon; tests/powershell asks the scripts for the same.
        let longest = "x".repeat(76);
        for good in ["X_Contoso.Gate", "X!#$%&'*+-.^_`{|}~", &longest] {
            assert_eq!(field_name(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn a_value_survives_every_hop_as_it_is() {
        assert_eq!(field_value("s3cret with blanks"), Ok(()));
        for bad in [" x", "x ", "a\nb", "ä", "a\tb", &"x".repeat(901)] {
            assert!(field_value(bad).is_err(), "{bad:?}");
        }
    }
}
