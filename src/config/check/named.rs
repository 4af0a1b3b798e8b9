//! Tables that others refer to by name: unique, and found.

use super::super::reader::{At, Reader, Spot};

/// What was made of the tables of one kind, by name. A table with errors keeps its name, so that a reference to it is
/// not a second problem.
pub(super) struct Named<T> {
    /// The kind as it stands in the file: `certificate`.
    kind: &'static str,
    entries: Vec<(Option<At<String>>, Option<T>)>,
}

impl<T> Named<T> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            entries: Vec::new(),
        }
    }

    /// Adds a table; a name that stands twice is reported.
    pub(super) fn add(
        &mut self,
        reader: &mut Reader<'_>,
        name: Option<At<String>>,
        value: Option<T>,
    ) {
        if let Some(name) = &name {
            let first = self
                .entries
                .iter()
                .flat_map(|(other, _)| other)
                .find(|other| other.value == name.value);
            unique(
                reader,
                &format!("[[{}]] with this name", self.kind),
                name,
                first,
            );
        }
        self.entries.push((name, value));
    }

    /// What is named so: outer `None` where nothing is, which is reported; inner `None` where it had errors.
    pub(super) fn find(&self, reader: &mut Reader<'_>, name: &At<String>) -> Option<Option<&T>> {
        let found = self
            .entries
            .iter()
            .find(|(own, _)| own.as_ref().is_some_and(|own| own.value == name.value));
        if found.is_none() {
            let known = self
                .entries
                .iter()
                .flat_map(|(name, _)| name)
                .map(|name| name.value.as_str());
            missing(reader, self.kind, &name.spot, &name.value, known);
        }
        found.map(|(_, value)| value.as_ref())
    }

    /// The names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &At<String>> {
        self.entries.iter().flat_map(|(name, _)| name)
    }

    pub(super) fn into_values(self) -> Vec<T> {
        self.entries
            .into_iter()
            .filter_map(|(_, value)| value)
            .collect()
    }
}

/// Reports that nothing of `kind` has the name.
pub(super) fn missing<'n>(
    reader: &mut Reader<'_>,
    kind: &str,
    spot: &Spot,
    name: &str,
    known: impl Iterator<Item = &'n str>,
) {
    let known: Vec<String> = known.map(|name| format!("\"{name}\"")).collect();
    let known = if known.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there is {}", known.join(", "))
    };
    reader.error(
        spot,
        format!(
            "no [[{kind}]] is named \"{}\" ({known})",
            name.escape_debug()
        ),
    );
}

/// Reports the second of two that must differ.
pub(super) fn unique<T>(
    reader: &mut Reader<'_>,
    what: &str,
    second: &At<T>,
    first: Option<&At<T>>,
) {
    if let Some(first) = first {
        reader.error(
            &second.spot,
            format!(
                "a second {what}: the first is {} in line {}",
                first.spot.key, first.spot.line
            ),
        );
    }
}
