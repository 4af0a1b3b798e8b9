//! What leaves by which path? (product.md 4, the table and "Several forms of one message")
//!
//! The journal keeps the arrival bytes once; a [`Rendition`] says for a path what stands on top and which ranges are
//! left out. Nothing else ever changes.

use super::protected::{Row, is_marker, is_submission_only};
use super::{Examined, Field, ReceivedFacts, internal_stamp, missing_fields, received};
use crate::mail::shown;
use crate::route::Path;
use crate::trust::{Class, LoopHeader, Tenants, Verdict};
use std::ops::Range;

/// One form of a message: what stands on top, and which ranges of the arrival bytes are left out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rendition {
    /// Bytes before the first arrival byte: whole fields, each ended by CRLF.
    pub prepend: Vec<u8>,
    /// Ascending, disjoint, not empty.
    pub omit: Vec<Range<u64>>,
}

/// Never the bytes on top: a loop header value is a secret.
impl std::fmt::Debug for Rendition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendition")
            .field("prepend", &format_args!("{} octets", self.prepend.len()))
            .field("omit", &self.omit)
            .finish()
    }
}

impl Rendition {
    /// The size of the rendition of a message that arrived with `arrived` octets: what `SIZE=` says.
    #[must_use]
    pub fn size(&self, arrived: u64) -> u64 {
        let omitted: u64 = self
            .omit
            .iter()
            .map(|range| range.end.saturating_sub(range.start))
            .sum();
        self.prepend.len() as u64 + arrived.saturating_sub(omitted)
    }

    /// The rendition of a message that is at hand whole.
    #[must_use]
    pub fn apply(&self, arrival: &[u8]) -> Vec<u8> {
        let mut out = self.prepend.clone();
        let mut from = 0;
        for range in &self.omit {
            let start = usize::try_from(range.start)
                .unwrap_or(usize::MAX)
                .min(arrival.len());
            out.extend_from_slice(arrival.get(from..start).unwrap_or_default());
            from = usize::try_from(range.end)
                .unwrap_or(usize::MAX)
                .min(arrival.len());
        }
        out.extend_from_slice(arrival.get(from..).unwrap_or_default());
        out
    }
}

/// What leaves by `path`. On top stand, in this order: `received`; towards the tenant's own connector its loop header;
/// the internal stamp where the path is stamped; what an application's message lacks.
#[must_use]
pub fn rendition(
    examined: &Examined,
    verdict: &Verdict,
    tenants: &Tenants,
    path: &Path,
    received: &ReceivedFacts<'_>,
) -> Rendition {
    let internal = path.via.is_internal();
    let mut prepend = received::field(received);
    if internal && let Some(header) = &verdict.tenant().loop_header {
        write_loop_header(&mut prepend, header);
    }
    if internal
        && path.stamped
        && let Some(org) = verdict.stamp_org()
    {
        prepend.extend_from_slice(&internal_stamp(received.by, org));
    }
    if let Class::Application { .. } = verdict.class() {
        prepend.extend_from_slice(&missing_fields(
            examined,
            received.by,
            received.id,
            received.unix_seconds,
        ));
    }
    let row = Row::of(verdict, internal);
    let removed = examined
        .fields()
        .filter(|field| row.removes(field.name(), verdict, tenants));
    Rendition {
        prepend,
        omit: merged(removed.map(|field| field.range())),
    }
}

/// Neighbouring ranges become one.
fn merged(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges.filter(|range| !range.is_empty()) {
        match out.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => out.push(range),
        }
    }
    out
}

/// Control octets, which `check` refuses in a value, are never written: they would start another field.
fn write_loop_header(out: &mut Vec<u8>, header: &LoopHeader) {
    out.extend_from_slice(header.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(
        header
            .value
            .expose()
            .iter()
            .filter(|octet| !octet.is_ascii_control()),
    );
    out.extend_from_slice(b"\r\n");
}

/// Overwrites in `section`, the arrival bytes of the header section, the values of secret and loop headers that leave on
/// every path, so that no secret rests on disk. Length, line ends and blanks stay, and with them every range.
pub fn blank_secrets(
    examined: &Examined,
    verdict: &Verdict,
    tenants: &Tenants,
    section: &mut [u8],
) {
    let (inside, outside) = (Row::of(verdict, true), Row::of(verdict, false));
    let leaves = |field: &Field<'_>| {
        let name = field.name();
        is_marker(name, verdict, tenants)
            && inside.removes(name, verdict, tenants)
            && outside.removes(name, verdict, tenants)
    };
    for field in examined.fields().filter(leaves) {
        let value = section.get_mut(field.value_range()).unwrap_or_default();
        for octet in value
            .iter_mut()
            .filter(|octet| !matches!(octet, b'\r' | b'\n' | b' ' | b'\t'))
        {
            *octet = b'-';
        }
    }
}

/// The names of protected fields that are removed because their source may not set them, each once, as shown to a
/// person; empty for proven mail. An application's Bcc: and Return-Path: leave too, but are no forgery.
#[must_use]
pub fn removed_names(examined: &Examined, verdict: &Verdict, tenants: &Tenants) -> Vec<String> {
    const MOST: usize = 50;
    let mut names: Vec<String> = Vec::new();
    if verdict.is_from_trusted_connector() {
        return names;
    }
    let row = Row::of(verdict, true);
    for field in examined.fields() {
        let name = field.name();
        if row.removes(name, verdict, tenants)
            && (!is_submission_only(name) || is_marker(name, verdict, tenants))
            && !names.iter().any(|own| own.eq_ignore_ascii_case(name))
        {
            names.push(shown(name.as_bytes()));
            if names.len() == MOST {
                break;
            }
        }
    }
    names
}
