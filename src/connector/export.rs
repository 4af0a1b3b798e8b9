//! What does an export say? The JSON of `ConvertTo-Json`, in every dress that PowerShell gives it.
//!
//! Windows PowerShell 5.1 writes UTF-16 behind `>`, PowerShell 7 UTF-8; one object stands without a list, and none is an
//! empty file; beyond `-Depth` an object becomes `@{Domain=contoso.com}` and a list one string; an enumeration is a name or
//! a number, and 5.1 wraps lists and enumerations in `{"value": …}`. Names of properties compare without case.

use serde_json::{Map, Value};
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Larger exports are no connectors of one tenant.
pub(super) const LARGEST: usize = 64 * 1024 * 1024;

/// Why bytes are no export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAnExport {
    /// Neither UTF-8 nor UTF-16.
    Encoding,
    /// Larger than 64 MiB.
    TooLarge,
    /// No JSON, at this line and column.
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// JSON, but no object and no list of objects.
    NotObjects,
}

impl fmt::Display for NotAnExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("neither UTF-8 nor UTF-16: export again with Export-GatepostState.ps1, or add -Encoding utf8"),
            Self::TooLarge => f.write_str("larger than 64 MiB: not the objects of one tenant"),
            Self::NotJson { line, column } => write!(f, "no JSON (line {line}, column {column}): end the command with ConvertTo-Json -Depth 6"),
            Self::NotObjects => f.write_str("JSON, but no object and no list of objects"),
        }
    }
}

impl std::error::Error for NotAnExport {}

/// One object of Exchange's, as it was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported(Map<String, Value>);

impl Exported {
    /// The objects of one export; an empty file is none, for that is what PowerShell writes for none.
    ///
    /// # Errors
    /// The bytes are no export.
    pub fn read(bytes: &[u8]) -> Result<Vec<Self>, NotAnExport> {
        if bytes.len() > LARGEST {
            return Err(NotAnExport::TooLarge);
        }
        let text = decode(bytes)?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let value: Value = serde_json::from_str(&text).map_err(|error| NotAnExport::NotJson {
            line: error.line(),
            column: error.column(),
        })?;
        objects(value).ok_or(NotAnExport::NotObjects)
    }

    /// A property; `None` where the export does not have it.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| {
            let mut all = self.0.iter();
            all.find(|(own, _)| own.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        })
    }

    /// A property as text; empty where it is unset or not exported.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.get(name).map(text).unwrap_or_default()
    }

    /// Whether a property is set: not absent, null, empty, false, zero or the nil GUID.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Bool(true) => true,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => {
                let is_nil = text.bytes().all(|octet| matches!(octet, b'0' | b'-'));
                !is_nil && !text.eq_ignore_ascii_case("false")
            }
            Value::Array(_) | Value::Object(_) => !list(value).is_empty(),
        })
    }

    /// The names of all properties.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn decode(bytes: &[u8]) -> Result<String, NotAnExport> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let pairs = bytes.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(NotAnExport::Encoding);
        }
        let units: Vec<u16> = pairs
            .filter_map(|pair| pair.try_into().ok())
            .map(unit)
            .collect();
        String::from_utf16(&units).map_err(|_| NotAnExport::Encoding)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        // JSON begins with an ASCII character: a zero beside it is the other half of a unit.
        [first, 0, ..] if *first != 0 => wide(bytes, u16::from_le_bytes),
        [0, second, ..] if *second != 0 => wide(bytes, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, NotAnExport> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(NotAnExport::Encoding),
    }
}

fn objects(value: Value) -> Option<Vec<Exported>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Object(mut map) => {
            let wrapped = map.len() == 2 && map.contains_key("Count");
            match map.get_mut("value") {
                Some(Value::Array(items)) if wrapped => {
                    objects(Value::Array(std::mem::take(items)))
                }
                _ => Some(vec![Exported(map)]),
            }
        }
        Value::Array(items) => items
            .into_iter()
            .filter(|item| !item.is_null())
            .map(|item| match item {
                Value::Object(map) => Some(Exported(map)),
                _ => None,
            })
            .collect(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Where an object of Exchange's keeps what it stands for, the best first (an address keeps its wildcard, a domain not).
const MEANING: [&str; 7] = [
    "Value",
    "Address",
    "Domain",
    "DomainName",
    "SmtpDomain",
    "Name",
    "RawIdentity",
];

/// The moment that a date names, as 5.1 writes it (`/Date(1700000000000)/`) or as 7 does; one without a zone is UTC, as the
/// service keeps it.
pub(super) fn moment(written: &str) -> Option<OffsetDateTime> {
    let Some(old) = written.strip_prefix("/Date(") else {
        let zoned = OffsetDateTime::parse(written, &Rfc3339);
        return zoned
            .or_else(|_| OffsetDateTime::parse(&format!("{written}Z"), &Rfc3339))
            .ok();
    };
    let digits = old.split([')', '+']).next()?;
    let seconds = digits.parse::<i64>().ok()?.div_euclid(1000);
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

/// A value as one text.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(written) => match written.strip_prefix("@{") {
            Some(inner) => cut_object(inner.strip_suffix('}').unwrap_or(inner)),
            None => written.clone(),
        },
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            items.join(", ")
        }
        Value::Object(map) => {
            let named = |wanted: &str| {
                let mut fitting = map
                    .iter()
                    .filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
                // 5.1 writes an enumeration as its number and its name, `value` and `Value`.
                let value = fitting.clone().find(|(_, value)| value.is_string());
                let (_, value) = value.or_else(|| fitting.find(|(_, value)| !value.is_null()))?;
                Some(text(value)).filter(|text| !text.is_empty())
            };
            MEANING
                .iter()
                .find_map(|wanted| named(wanted))
                .unwrap_or_default()
        }
    }
}

/// What `@{Domain=contoso.com; IsIPAddress=False}` stands for, without its braces.
fn cut_object(inner: &str) -> String {
    let pairs: Vec<(&str, &str)> = inner
        .split("; ")
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let named = |wanted: &&str| {
        let (_, value) = pairs
            .iter()
            .find(|(name, value)| name.eq_ignore_ascii_case(wanted) && !value.is_empty())?;
        Some((*value).to_owned())
    };
    MEANING.iter().find_map(named).unwrap_or_default()
}

/// A value as a list; what is empty is left out.
pub(super) fn list(value: &Value) -> Vec<String> {
    let mut all = match value {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::Object(map) => match map
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("value"))
        {
            Some((_, inner @ Value::Array(_))) => list(inner),
            _ => vec![text(value)],
        },
        Value::String(written) if written.contains("@{") => written
            .split("@{")
            .skip(1)
            .map(|part| cut_object(part.split('}').next().unwrap_or(part)))
            .collect(),
        // Beyond -Depth a list is its elements with blanks between.
        Value::String(written) => written
            .split(|letter: char| letter.is_whitespace() || letter == ',')
            .map(str::to_owned)
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => vec![text(value)],
    };
    all.retain(|text| !text.is_empty());
    all
}

/// A value as yes or no; unset is no. `None` where it is neither.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match text(value).to_ascii_lowercase().as_str() {
        "true" | "1" | "$true" => Some(true),
        "" | "false" | "0" | "$false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn utf16(text: &str, unit: fn(u16) -> [u8; 2], mark: bool) -> Vec<u8> {
        let mark = if mark { "\u{feff}" } else { "" };
        format!("{mark}{text}")
            .encode_utf16()
            .flat_map(unit)
            .collect()
    }

    #[test]
    fn every_encoding_that_powershell_writes_is_read() {
        let text = "[\r\n  {\"Name\": \"Sch\u{f6}n\"}\r\n]\r\n";
        let utf8 = text.as_bytes().to_vec();
        let marked = [b"\xef\xbb\xbf".as_slice(), text.as_bytes()].concat();
        for bytes in [
            utf8,
            marked,
            utf16(text, u16::to_le_bytes, true),
            utf16(text, u16::to_be_bytes, true),
            utf16(text, u16::to_le_bytes, false),
            utf16(text, u16::to_be_bytes, false),
        ] {
            let read = Exported::read(&bytes).unwrap();
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].text("name"), "Sch\u{f6}n");
        }
        for bytes in [
            &b"[{\"Name\": \"Sch\xf6n\"}]"[..],
            b"\xff\xfe[",
            b"\xff\xfe\x00\xd8",
        ] {
            assert_eq!(Exported::read(bytes), Err(NotAnExport::Encoding));
        }
    }

    #[test]
    fn one_object_none_and_a_wrapped_list_are_lists() {
        let count = |text: &str| Exported::read(text.as_bytes()).map(|objects| objects.len());
        assert_eq!(count("{\"Name\": \"a\"}"), Ok(1));
        assert_eq!(count("[{\"Name\": \"a\"}, {\"Name\": \"b\"}]"), Ok(2));
        assert_eq!(
            count("{\"value\": [{\"Name\": \"a\"}], \"Count\": 1}"),
            Ok(1)
        );
        for none in ["", "\r\n", "\u{feff}", "null", "[]", "[null]"] {
            assert_eq!(count(none), Ok(0), "{none:?}");
        }
        assert_eq!(count("[1]"), Err(NotAnExport::NotObjects));
        assert_eq!(count("\"x\""), Err(NotAnExport::NotObjects));
        assert_eq!(
            count("Name : a"),
            Err(NotAnExport::NotJson { line: 1, column: 1 })
        );
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        assert!(matches!(count(&deep), Err(NotAnExport::NotJson { .. })));
    }

    #[test]
    fn a_value_means_the_same_in_every_dress() {
        for dress in [
            json!("contoso.com"),
            json!({"Domain": "contoso.com", "IsIPAddress": false, "Address": null}),
            json!("@{Domain=contoso.com; Address=; IsIPAddress=False}"),
            json!({"value": "contoso.com", "Value": "contoso.com"}),
            json!({"DomainName": {"Domain": "contoso.com"}}),
        ] {
            assert_eq!(text(&dress), "contoso.com", "{dress}");
        }
        assert_eq!(text(&json!({"value": 3, "Value": "Enforce"})), "Enforce");
        assert_eq!(
            text(&json!({"Address": "*.contoso.com", "Domain": "contoso.com"})),
            "*.contoso.com"
        );
        for dress in [
            json!(["a.example", "b.example"]),
            json!("a.example b.example"),
            json!("a.example,b.example"),
            json!([{"Domain": "a.example"}, {"Domain": "b.example"}]),
            json!("@{Domain=a.example; Port=25} @{Domain=b.example; Port=25}"),
            json!({"value": ["a.example", "b.example"], "Count": 2}),
        ] {
            assert_eq!(list(&dress), ["a.example", "b.example"], "{dress}");
        }
        for empty in [
            json!(null),
            json!(""),
            json!([]),
            json!([""]),
            json!([null]),
        ] {
            assert!(list(&empty).is_empty(), "{empty}");
        }
        for (dress, expected) in [
            (json!(true), Some(true)),
            (json!("True"), Some(true)),
            (json!(1), Some(true)),
            (json!(null), Some(false)),
            (json!("False"), Some(false)),
            (json!(0), Some(false)),
            (json!("perhaps"), None),
        ] {
            assert_eq!(flag(&dress), expected, "{dress}");
        }
    }
}
