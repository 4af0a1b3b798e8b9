//! From a raw key to a value: replaces `${…}`, parses, and notes each problem at its key and line.
//!
//! A getter that finds a fault reports it and answers `None`; the check goes on with a default, so that one look shows
//! every problem. Messages quote what is *written* in the file (`"${TOKEN}"`), never what it was replaced by.

use super::Surroundings;
use super::expand::expand;
use super::exposed::exposed;
use super::problem::{Problem, Severity, is_name, line_of};
use super::value::{Date, Key, Kind, Lenient, List, Shape, Table, Tables, Value, WordOrList};
use crate::mail::Secret;
use serde_spanned::Spanned;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Where a problem stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) key: String,
    pub(super) line: usize,
}

/// A table that is being read: the path of its keys, and its line.
#[derive(Clone, Debug)]
pub(super) struct Scope(Spot);

impl Scope {
    /// The top of the file.
    pub(super) fn top() -> Self {
        Self(Spot {
            key: String::new(),
            line: 1,
        })
    }

    fn join(&self, name: &str) -> String {
        if self.0.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.0.key)
        }
    }

    /// The table itself.
    pub(super) fn spot(&self) -> &Spot {
        &self.0
    }

    /// A key that is not there: its name, the table's line.
    pub(super) fn missing(&self, name: &str) -> Spot {
        Spot {
            key: self.join(name),
            line: self.0.line,
        }
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) spot: Spot,
}

/// The reader of one file.
pub(super) struct Reader<'a> {
    file: &'a Path,
    source: &'a str,
    pub(super) surroundings: &'a Surroundings<'a>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// The configuration file.
    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    pub(super) fn new(file: &'a Path, source: &'a str, surroundings: &'a Surroundings<'a>) -> Self {
        Self {
            file,
            source,
            surroundings,
            problems: Vec::new(),
        }
    }

    pub(super) fn error(&mut self, spot: &Spot, text: impl Into<String>) {
        self.note(spot, Severity::Error, text.into());
    }

    pub(super) fn lapsed(&mut self, spot: &Spot, text: impl Into<String>) {
        self.note(spot, Severity::Lapsed, text.into());
    }

    pub(super) fn warn(&mut self, spot: &Spot, text: impl Into<String>) {
        self.note(spot, Severity::Warning, text.into());
    }

    fn note(&mut self, spot: &Spot, severity: Severity, text: String) {
        let (key, line) = (spot.key.clone(), spot.line);
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            key,
            severity,
            text,
        });
    }

    /// The place of a key, given or not.
    pub(super) fn spot<T>(&self, scope: &Scope, name: &str, key: &Key<T>) -> Spot {
        let line = key
            .offset()
            .map_or(scope.0.line, |offset| line_of(self.source, offset));
        Spot {
            key: scope.join(name),
            line,
        }
    }

    /// The value of a key if it has the right type.
    fn given<'k, T: Kind>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &'k Key<T>,
    ) -> Option<At<&'k T>> {
        let spot = self.spot(scope, name, key);
        match key {
            Key::Absent => None,
            Key::Given(value) => Some(At {
                value: value.get_ref(),
                spot,
            }),
            Key::Wrong(found) => {
                self.error(
                    &spot,
                    format!("must be {}, not {}", T::EXPECTED, found.get_ref()),
                );
                None
            }
        }
    }

    fn expanded(&mut self, spot: &Spot, written: &str) -> Option<String> {
        let base = base_of(self.file);
        let mut open = Vec::new();
        let mut look = |file: &Path| open.extend(exposed(file));
        let value = expand(written, self.surroundings.environment, base, &mut look);
        for told in open {
            self.warn(spot, told);
        }
        match value {
            Ok(value) => Some(value),
            Err(why) => {
                self.error(spot, why);
                None
            }
        }
    }

    fn parsed<T>(
        &mut self,
        spot: Spot,
        written: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let value = self.expanded(&spot, written)?;
        match parse(&value) {
            Ok(value) => Some(At { value, spot }),
            Err(why) => {
                self.error(&spot, format!("{}: {why}", quoted(written)));
                None
            }
        }
    }

    /// A string, parsed.
    pub(super) fn parse<T>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let At { value, spot } = self.given(scope, name, key)?;
        self.parsed(spot, value, parse)
    }

    /// A string that must be there, parsed.
    pub(super) fn required<T>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        self.demand(scope, name, key);
        self.parse(scope, name, key, parse)
    }

    /// Reports a key that is absent.
    pub(super) fn demand<T>(&mut self, scope: &Scope, name: &str, key: &Key<T>) {
        if key.is_absent() {
            self.error(&scope.missing(name), "required, and missing");
        }
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<String>,
        words: &[(&str, T)],
    ) -> Option<At<T>> {
        self.parse(scope, name, key, |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, meaning)| *meaning)
                .ok_or_else(|| {
                    let known: Vec<String> = words
                        .iter()
                        .map(|(word, _)| format!("\"{word}\""))
                        .collect();
                    format!("must be {}", known.join(" or "))
                })
        })
    }

    /// A date, as a string or bare.
    pub(super) fn date(&mut self, scope: &Scope, name: &str, key: &Key<Date>) -> Option<At<u64>> {
        let At { value, spot } = self.given(scope, name, key)?;
        self.parsed(spot, &value.0, super::units::date)
    }

    /// A whole number within limits.
    pub(super) fn whole<T: TryFrom<i64>>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<i64>,
        range: RangeInclusive<i64>,
    ) -> Option<At<T>> {
        let At { value, spot } = self.given(scope, name, key)?;
        match T::try_from(*value) {
            Ok(number) if range.contains(value) => Some(At {
                value: number,
                spot,
            }),
            _ => {
                self.error(
                    &spot,
                    format!(
                        "{value}: must be between {} and {}",
                        range.start(),
                        range.end()
                    ),
                );
                None
            }
        }
    }

    /// A boolean.
    pub(super) fn flag(&mut self, scope: &Scope, name: &str, key: &Key<bool>) -> Option<At<bool>> {
        let At { value, spot } = self.given(scope, name, key)?;
        Some(At {
            value: *value,
            spot,
        })
    }

    /// A path, relative to the configuration file.
    pub(super) fn path(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<String>,
    ) -> Option<At<PathBuf>> {
        let base = base_of(self.file);
        self.parse(scope, name, key, |text| {
            if text.is_empty() {
                Err("names no file".to_owned())
            } else {
                Ok(base.join(text))
            }
        })
    }

    /// A secret: not empty, and never quoted in a message. Whoever reads it has what it opens.
    pub(super) fn secret(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<String>,
        fit: impl FnOnce(&str) -> Result<(), &'static str>,
    ) -> Option<At<Secret>> {
        let At { value, spot } = self.given(scope, name, key)?;
        self.warn_of_literal(&spot, value);
        self.fit_secret(spot, value, fit)
    }

    /// What a secret is proven by: never quoted either, and of no use to who reads it.
    pub(super) fn hash(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<String>,
        fit: impl FnOnce(&str) -> Result<(), &'static str>,
    ) -> Option<At<Secret>> {
        let At { value, spot } = self.given(scope, name, key)?;
        self.fit_secret(spot, value, fit)
    }

    /// Tells where a secret stands in the configuration file itself, which others may read.
    fn warn_of_literal(&mut self, spot: &Spot, written: &str) {
        if written.is_empty() || written.contains("${") {
            return; // told by the getter, or where it is read from
        }
        if let Some(told) = exposed(self.file) {
            let text = format!("a secret that stands in the file itself, and {told}");
            self.warn(spot, text);
        }
    }

    fn fit_secret(
        &mut self,
        spot: Spot,
        written: &str,
        fit: impl FnOnce(&str) -> Result<(), &'static str>,
    ) -> Option<At<Secret>> {
        let value = self.expanded(&spot, written)?;
        let verdict = if value.is_empty() {
            Err("empty")
        } else {
            fit(&value)
        };
        match verdict {
            Ok(()) => Some(At {
                value: Secret::new(value),
                spot,
            }),
            Err(why) => {
                self.error(&spot, why);
                None
            }
        }
    }

    /// One secret or several.
    pub(super) fn secrets(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<WordOrList>,
        fit: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Vec<At<Secret>> {
        match self.given(scope, name, key) {
            None => Vec::new(),
            Some(At {
                value: WordOrList::Word(word),
                spot,
            }) => {
                self.warn_of_literal(&spot, word);
                self.fit_secret(spot, word, fit).into_iter().collect()
            }
            Some(At {
                value: WordOrList::List(list),
                spot,
            }) => {
                let words = self.words(&spot, list);
                words
                    .into_iter()
                    .filter_map(|(spot, word)| {
                        self.warn_of_literal(&spot, word);
                        self.fit_secret(spot, word, &fit)
                    })
                    .collect()
            }
        }
    }

    /// A list, each item parsed and reported by its index.
    pub(super) fn list<T>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<List>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<At<T>>> {
        let At { value, spot } = self.given(scope, name, key)?;
        Some(self.items(&spot, value, parse))
    }

    /// A list of at least one item.
    pub(super) fn some_list<T>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &Key<List>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<At<T>>> {
        let At { value, spot } = self.given(scope, name, key)?;
        if value.0.is_empty() {
            self.error(&spot, "empty: at least one is needed");
            return None;
        }
        Some(self.items(&spot, value, parse))
    }

    /// One word, or a list.
    pub(super) fn word_or_list<'k>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &'k Key<WordOrList>,
    ) -> Option<At<&'k WordOrList>> {
        self.given(scope, name, key)
    }

    /// Lists by label.
    pub(super) fn by_label<'k>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &'k Key<super::value::ByLabel>,
    ) -> Option<At<&'k super::value::ByLabel>> {
        self.given(scope, name, key)
    }

    /// The items of a list that was taken out of its key.
    pub(super) fn items<T>(
        &mut self,
        spot: &Spot,
        list: &List,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<At<T>> {
        let words = self.words(spot, list);
        words
            .into_iter()
            .filter_map(|(spot, word)| self.parsed(spot, word, &parse))
            .collect()
    }

    /// The strings of a list with their places; other types are reported.
    fn words<'k>(&mut self, spot: &Spot, list: &'k List) -> Vec<(Spot, &'k str)> {
        let mut words = Vec::with_capacity(list.0.len());
        for (index, item) in list.0.iter().enumerate() {
            let here = self.inside(spot, &format!("[{index}]"), item);
            match item.get_ref() {
                Value::Text(word) => words.push((here, word.as_str())),
                other => self.error(&here, format!("must be a string, not {}", other.found())),
            }
        }
        words
    }

    /// The place of something inside the value at `spot`.
    pub(super) fn inside<T>(&self, spot: &Spot, suffix: &str, value: &Spanned<T>) -> Spot {
        Spot {
            key: format!("{}{suffix}", spot.key),
            line: line_of(self.source, value.span().start),
        }
    }

    /// A word that was taken out of its key.
    pub(super) fn word<T>(
        &mut self,
        spot: &Spot,
        word: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        self.parsed(spot.clone(), word, parse)
    }

    /// A sub-table with the scope of its keys.
    pub(super) fn table<'k, T>(
        &mut self,
        scope: &Scope,
        name: &str,
        key: &'k Table<T>,
    ) -> Option<(&'k T, Scope)> {
        let spot = self.spot(scope, name, key);
        match key {
            Key::Absent => None,
            Key::Given(table) => {
                let Shape(inner) = table.get_ref();
                Some((inner, Scope(spot)))
            }
            Key::Wrong(found) => {
                self.error(&spot, format!("must be a table, not {}", found.get_ref()));
                None
            }
        }
    }

    /// The tables of `[[name]]`, each with the scope of its keys: by its own name, else by its index.
    pub(super) fn tables<'k, T>(
        &mut self,
        name: &str,
        tables: &'k Tables<T>,
        name_of: impl Fn(&T) -> Option<&Key<String>>,
    ) -> Vec<(&'k T, Scope)> {
        let list = match tables {
            Tables::Given(list) => list,
            Tables::Wrong(found) => {
                let spot = Spot {
                    key: name.to_owned(),
                    line: line_of(self.source, found.span().start),
                };
                self.error(
                    &spot,
                    format!(
                        "must be a list of tables, each under [[{name}]], not {}",
                        found.get_ref()
                    ),
                );
                return Vec::new();
            }
        };
        let mut scopes = Vec::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            let line = line_of(self.source, entry.span().start);
            match entry.get_ref() {
                Lenient::Table(table) => {
                    let own = name_of(table).and_then(|key| match key {
                        Key::Given(own) if is_name(own.get_ref()) => Some(own.get_ref()),
                        Key::Given(_) | Key::Absent | Key::Wrong(_) => None,
                    });
                    let key = own
                        .map_or_else(|| format!("{name}[{index}]"), |own| format!("{name}.{own}"));
                    scopes.push((table, Scope(Spot { key, line })));
                }
                Lenient::Other(found) => {
                    let spot = Spot {
                        key: format!("{name}[{index}]"),
                        line,
                    };
                    self.error(&spot, format!("must be a table, not {found}"));
                }
            }
        }
        scopes
    }

    /// The name of a table.
    pub(super) fn name(&mut self, scope: &Scope, key: &Key<String>) -> Option<At<String>> {
        self.required(scope, "name", key, label)
    }
}

/// A name or label as it may stand in keys, metric labels and `Received:` fields.
pub(super) fn label(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits, -, _ and .".to_owned())
    }
}

/// The folder that relative paths start from.
pub(super) fn base_of(file: &Path) -> &Path {
    file.parent().unwrap_or_else(|| Path::new(""))
}

/// What the file says, fit for one line of a terminal.
pub(super) fn quoted(written: &str) -> String {
    let cut: String = written.chars().take(120).collect();
    let more = if cut.len() < written.len() { "..." } else { "" };
    format!("\"{}{more}\"", cut.escape_debug())
}
