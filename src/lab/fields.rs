//! Where do the header fields of a message lie? The lab's own reading, shared with nobody.
//!
//! Deliberately plainer than the product's: a field begins at a line that starts with neither blank nor tab, the section
//! ends at the first empty line, names compare without case. Nothing is decoded or repaired.

use std::ops::Range;

/// The header section of a message.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    content: &'a [u8],
    fields: Vec<Field>,
    end: usize,
}

/// One field, as positions in the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// All of it, with its line end.
    pub whole: Range<usize>,
    /// Its name; empty where the line has no colon.
    pub name: String,
}

impl Field {
    /// Whether it has this name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether its name begins so.
    #[must_use]
    pub fn begins(&self, prefix: &str) -> bool {
        self.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    }
}

impl<'a> Section<'a> {
    /// Finds the fields of a message.
    #[must_use]
    pub fn of(content: &'a [u8]) -> Self {
        let mut fields: Vec<Field> = Vec::new();
        let mut at = 0;
        while let Some(rest) = content.get(at..).filter(|rest| !rest.is_empty()) {
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |position| position + 1);
            let line = rest.get(..length).unwrap_or_default();
            if line == b"\r\n" || line == b"\n" {
                break;
            }
            match fields.last_mut() {
                Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => last.whole.end = at + length,
                _ => {
                    let name = memchr::memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or_default();
                    let name = String::from_utf8_lossy(name).trim_end_matches([' ', '\t']).to_owned();
                    fields.push(Field { whole: at..at + length, name });
                }
            }
            at += length;
        }
        Self { content, fields, end: at }
    }

    /// The fields in order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The fields with this name.
    pub fn named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Field> + 's {
        self.fields.iter().filter(move |field| field.is(name))
    }

    /// The bytes of a field, with its line end.
    #[must_use]
    pub fn bytes(&self, field: &Field) -> &'a [u8] {
        self.content.get(field.whole.clone()).unwrap_or_default()
    }

    /// What stands behind the colon, unfolded and trimmed.
    #[must_use]
    pub fn value(&self, field: &Field) -> String {
        let bytes = self.bytes(field);
        let start = memchr::memchr(b':', bytes).map_or(0, |colon| colon + 1);
        let text = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default());
        text.replace(['\r', '\n'], "").trim().to_owned()
    }

    /// The value of the first field with this name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<String> {
        self.named(name).next().map(|field| self.value(field))
    }

    /// What follows the fields: the empty line and the body.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.content.get(self.end..).unwrap_or_default()
    }

    /// The message again, with each field as `keep` says: `None` leaves it out, bytes replace it.
    pub fn rewrite(&self, mut keep: impl FnMut(&Field, &'a [u8]) -> Option<Vec<u8>>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.content.len() + 1024);
        for field in &self.fields {
            out.extend(keep(field, self.bytes(field)).unwrap_or_default());
        }
        out.extend_from_slice(self.rest());
        out
    }
}

/// A field's bytes under another name.
#[must_use]
pub fn renamed(bytes: &[u8], name: &str) -> Vec<u8> {
    let colon = memchr::memchr(b':', bytes).unwrap_or(0);
    [name.as_bytes(), bytes.get(colon..).unwrap_or_default()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"Received: a\r\n\tb\r\nX-Empty:\r\nFROM : x\r\n no colon here\r\n\r\nBody: no\r\n";

    #[test]
    fn fields_end_at_the_first_empty_line() {
        let section = Section::of(MESSAGE);
        let names: Vec<_> = section.fields().iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["Received", "X-Empty", "FROM"]);
        assert_eq!(section.first("received").as_deref(), Some("a\tb"));
        assert_eq!(section.first("x-empty").as_deref(), Some(""));
        assert_eq!(section.first("Body"), None);
        assert_eq!(section.rest(), b"\r\nBody: no\r\n");
    }

    #[test]
    fn rewriting_nothing_changes_nothing() {
        let section = Section::of(MESSAGE);
        assert_eq!(section.rewrite(|_, bytes| Some(bytes.to_vec())), MESSAGE);
        let without = section.rewrite(|field, bytes| (!field.is("from")).then(|| bytes.to_vec()));
        assert_eq!(without, b"Received: a\r\n\tb\r\nX-Empty:\r\n\r\nBody: no\r\n");
        assert_eq!(renamed(b"A: b\r\n c\r\n", "Long"), b"Long: b\r\n c\r\n");
    }
}
