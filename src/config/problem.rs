//! What is wrong with a configuration, where, and how it is said.

use crate::mail::plain;
use serde::{Serialize, Serializer};
use serde_spanned::Spanned;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeString, DeTable, DeValue};

/// One finding of the check. Never holds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The configuration file.
    #[serde(serialize_with = "as_shown")]
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Dotted with the table's name (`tenant.contoso.proofs`), or its index where it has none (`route[1].via`).
    pub key: String,
    /// Whether the configuration can be used all the same.
    pub severity: Severity,
    /// What is wrong, and where it helps, what to do.
    pub text: String,
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// Right but for its hour: `check` fails, and yet the server starts. Whoever restarts it while a certificate has lapsed
    /// must not lose the applications' mail as well; what the certificate proves is held meanwhile.
    Lapsed,
    /// It works, and something about it deserves a look.
    Warning,
}

impl Severity {
    /// Whether `check` fails for it.
    #[must_use]
    pub fn is_bad(self) -> bool {
        self != Self::Warning
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.severity {
            Severity::Error | Severity::Lapsed => "",
            Severity::Warning => "warning: ",
        };
        write!(
            f,
            "{}:{}: {}: {mark}{}",
            plain(&self.file.to_string_lossy()),
            self.line,
            plain(&self.key),
            plain(&self.text)
        )
    }
}

/// The file cannot be read or is not TOML: there is nothing to check yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The configuration file.
    #[serde(serialize_with = "as_shown")]
    pub file: PathBuf,
    /// Where it stops being readable.
    pub line: Option<usize>,
    /// Why. Never an excerpt of the file, which may hold a secret.
    pub text: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", plain(&self.file.to_string_lossy()))?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", plain(&self.text))
    }
}

impl std::error::Error for Unreadable {}

fn as_shown<S: Serializer>(file: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&file.display())
}

impl Unreadable {
    /// What `toml` says about `source`, without its excerpt of the source.
    pub(super) fn from_toml(file: &Path, source: &str, error: &toml::de::Error) -> Self {
        Self {
            file: file.to_owned(),
            line: error.span().map(|span| line_of(source, span.start)),
            text: format!("not TOML: {}", error.message().replace('\n', " ")),
        }
    }
}

impl Problem {
    /// The unknown key that `toml` has come upon, with where it is written; `None` where the error is another.
    pub(super) fn unknown_key(
        file: &Path,
        source: &str,
        error: &toml::de::Error,
    ) -> Option<(Self, usize)> {
        // serde's words for an unknown field.
        let known = error.message().strip_prefix("unknown field")?;
        let offset = error.span()?.start;
        let text = match known.split_once(", expected ") {
            Some((_, known)) => format!(
                "unknown key; known here: {}",
                known.trim_start_matches("one of ")
            ),
            None => "unknown key".to_owned(),
        };
        let problem = Self {
            file: file.to_owned(),
            line: line_of(source, offset),
            key: key_at(source, offset)?,
            severity: Severity::Error,
            text,
        };
        Some((problem, offset))
    }
}

/// Takes the key out of the table that is written at `offset`; whether it was there.
pub(super) fn take_out(table: &mut DeTable<'_>, offset: usize) -> bool {
    let here = |key: &Spanned<DeString<'_>>| key.span().contains(&offset);
    if let Some(key) = table.keys().find(|key| here(key)).cloned() {
        return table.remove(&key).is_some();
    }
    table.iter_mut().any(|(_, value)| match value.get_mut() {
        DeValue::Table(inner) => take_out(inner, offset),
        DeValue::Array(items) => items.iter_mut().any(|item| match item.get_mut() {
            DeValue::Table(inner) => take_out(inner, offset),
            _ => false,
        }),
        _ => false,
    })
}

/// The line, counted from 1, of a byte of `source`.
pub(super) fn line_of(source: &str, offset: usize) -> usize {
    1 + source
        .as_bytes()
        .iter()
        .take(offset)
        .filter(|&&octet| octet == b'\n')
        .count()
}

/// The dotted name of the key that is written at `offset`.
fn key_at(source: &str, offset: usize) -> Option<String> {
    let table = DeTable::parse(source).ok()?;
    key_within(table.get_ref(), "", offset)
}

fn key_within(table: &DeTable<'_>, path: &str, offset: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let here = if path.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{path}.{}", key.get_ref())
        };
        if key.span().contains(&offset) {
            return Some(here);
        }
        match value.get_ref() {
            DeValue::Table(inner) => key_within(inner, &here, offset),
            DeValue::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
                let DeValue::Table(inner) = item.get_ref() else {
                    return None;
                };
                key_within(inner, &item_path(inner, &here, index), offset)
            }),
            _ => None,
        }
    })
}

/// The line of a key, dotted as in [`Problem::key`]; of the innermost table on its way that is there, where it is not.
pub(super) fn line_of_key(source: &str, key: &str) -> usize {
    let Ok(table) = DeTable::parse(source) else {
        return 1;
    };
    let mut places = Vec::new();
    places_within(table.get_ref(), "", &mut places);
    let on_the_way = |path: &str| {
        key.strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let deepest = places
        .iter()
        .filter(|(path, _)| on_the_way(path))
        .max_by_key(|(path, _)| path.len());
    deepest.map_or(1, |(_, offset)| line_of(source, *offset))
}

/// Every key with its dotted name and where it stands.
fn places_within(table: &DeTable<'_>, path: &str, places: &mut Vec<(String, usize)>) {
    for (key, value) in table.iter() {
        let here = if path.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{path}.{}", key.get_ref())
        };
        places.push((here.clone(), key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => places_within(inner, &here, places),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        let path = item_path(inner, &here, index);
                        places.push((path.clone(), item.span().start));
                        places_within(inner, &path, places);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The dotted name of a table in a list: by its name, else by its index.
fn item_path(table: &DeTable<'_>, list: &str, index: usize) -> String {
    let name = table.iter().find(|(key, _)| key.get_ref() == "name");
    let name = name
        .and_then(|(_, value)| value.get_ref().as_str())
        .filter(|name| is_name(name));
    name.map_or_else(
        || format!("{list}[{index}]"),
        |name| format!("{list}.{name}"),
    )
}

/// Whether `text` may name a table: it becomes part of keys, metric labels, `Received:` fields and commands.
pub(super) fn is_name(text: &str) -> bool {
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_prints_file_line_key_and_text() {
        let mut problem = Problem {
            file: "g.toml".into(),
            line: 7,
            key: "tenant.contoso.proofs".to_owned(),
            severity: Severity::Error,
            text: "0 proves nothing".to_owned(),
        };
        assert_eq!(
            problem.to_string(),
            "g.toml:7: tenant.contoso.proofs: 0 proves nothing"
        );
        problem.severity = Severity::Warning;
        assert_eq!(
            problem.to_string(),
            "g.toml:7: tenant.contoso.proofs: warning: 0 proves nothing"
        );
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["severity"], "warning");
        assert_eq!(json["file"], "g.toml");
    }

    #[test]
    fn places_are_found_by_their_key() {
        let source = "a = 1\n[[tenant]]\nname = \"x\"\n[tenant.inbound_connector]\nhost = 1\n[[tenant]]\nname = \"x.y\"\nb = 1\n";
        for (key, line) in [
            ("a", 1),
            ("tenant.x", 2),
            ("tenant.x.secret_header", 2),
            ("tenant.x.inbound_connector", 4),
            ("tenant.x.inbound_connector.host", 5),
            ("tenant.x.inbound_connector.port", 4),
            ("tenant.x.y.b", 8),
            ("listener", 1),
        ] {
            assert_eq!(line_of_key(source, key), line, "{key}");
        }
        assert_eq!(line_of_key("= no TOML", "a"), 1);
    }

    #[test]
    fn keys_are_found_by_their_place() {
        let source = "a = 1\n[[tenant]]\nname = \"x\"\n[tenant.inbound_connector]\nhots = 1\n[[tenant]]\nb = { c = 2 }\n";
        let at = |text: &str| key_at(source, source.find(text).unwrap());
        assert_eq!(at("a = 1").as_deref(), Some("a"));
        assert_eq!(
            at("hots").as_deref(),
            Some("tenant.x.inbound_connector.hots")
        );
        assert_eq!(at("c = 2").as_deref(), Some("tenant[1].b.c"));
        assert_eq!(line_of(source, source.find("hots").unwrap()), 5);
    }
}
