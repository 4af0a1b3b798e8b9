//! Which field is which, and which leaves? Bytes are sacred (product.md 4).
//!
//! [`Splitter`] finds the end of the header section as bytes arrive; [`examine`] checks its grammar and makes an
//! [`Examined`]; [`rendition`] says for a path what to put on top and which ranges of the arrival bytes to leave out.

use crate::route::Path;
use crate::trust::Verdict;
use std::ops::Range;

/// Most Received fields that a message may carry; more is a loop (RFC 5321 §6.3).
pub const MAX_HOPS: usize = 50;

/// The largest header section, in octets (product.md 4).
pub const MAX_HEADER: usize = 256 * 1024;

/// Finds the end of the header section in a stream of content bytes.
#[derive(Debug, Default)]
pub struct Splitter {}

/// A header section whose grammar was checked; ranges are positions in the arrival bytes.
#[derive(Clone, Debug)]
pub struct Examined {}

/// What is wrong with a header section: 554 5.6.0, or 552 5.3.4 for `TooLarge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// A CR without LF.
    BareCr,
    /// A LF without CR.
    BareLf,
    /// A NUL octet.
    Nul,
    /// A line that is neither field, continuation nor end.
    NoColon,
    /// A field name with an octet outside 33-126.
    BadName,
    /// The first line is a continuation.
    LeadingContinuation,
    /// Over [`MAX_HEADER`].
    TooLarge,
}

/// One form of a message: what stands on top, and which ranges of the arrival bytes are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendition {
    /// Bytes before the first arrival byte: whole fields, each ended by CRLF.
    pub prepend: Vec<u8>,
    /// Ascending, disjoint, not empty.
    pub omit: Vec<Range<u64>>,
}

impl Rendition {
    /// The size of the rendition of a message that arrived with `arrived` octets: what `SIZE=` says.
    #[must_use]
    pub fn size(&self, arrived: u64) -> u64 {
        let omitted: u64 = self.omit.iter().map(|range| range.end - range.start).sum();
        self.prepend.len() as u64 + arrived - omitted
    }
}

/// Facts for our Received field (RFC 5321 §4.4) that the header room cannot know.
#[derive(Clone, Debug)]
pub struct ReceivedFacts<'a> {
    /// Our host name.
    pub by: &'a str,
    /// The name of EHLO, already escaped.
    pub helo: &'a str,
    /// The peer's address; `None` for applications, whose name is given instead.
    pub from_address: Option<std::net::IpAddr>,
    /// `application NAME` in place of the address.
    pub application: Option<&'a str>,
    /// `ESMTP`, `ESMTPS`, `ESMTPSA`, `UTF8SMTPS` ... (RFC 3848, RFC 6531 §4.3).
    pub with: &'a str,
    /// TLS version and suite, e.g. `TLS1.3 TLS_AES_256_GCM_SHA384`.
    pub tls: Option<&'a str>,
    /// Queue id.
    pub id: crate::mail::QueueId,
    /// Seconds since 1970.
    pub unix_seconds: u64,
}

/// Checks the grammar of a whole header section: the bytes up to and with the empty line that ends it, or the whole
/// message where there is none.
///
/// # Errors
/// The first fault.
pub fn examine(_section: &[u8]) -> Result<Examined, HeaderFault> {
    unimplemented!()
}

/// What leaves by `path` (product.md 4, the table): `received` on top, then the loop header towards the tenant's own
/// connector, then the internal stamp where the path is stamped.
#[must_use]
pub fn rendition(
    _examined: &Examined,
    _verdict: &Verdict,
    _tenants: &crate::trust::Tenants,
    _path: &Path,
    _received: &ReceivedFacts<'_>,
) -> Rendition {
    unimplemented!()
}

/// How far the splitter got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The header section goes on.
    More,
    /// It is whole: this many octets, with the empty line.
    Complete {
        /// Octets.
        length: usize,
    },
}

impl Splitter {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// A fault of grammar or size.
    pub fn push(&mut self, _bytes: &[u8]) -> Result<Progress, HeaderFault> {
        unimplemented!()
    }

    /// The message ended without an empty line.
    ///
    /// # Errors
    /// A fault of grammar.
    pub fn finish(self) -> Result<(), HeaderFault> {
        unimplemented!()
    }
}

impl Examined {
    /// Received fields.
    #[must_use]
    pub fn received_count(&self) -> usize {
        unimplemented!()
    }

    /// Message-ID, escaped.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        unimplemented!()
    }

    /// Exchange's network message id.
    #[must_use]
    pub fn network_message_id(&self) -> Option<String> {
        unimplemented!()
    }
}

/// Overwrites values of secrets.
pub fn blank_secrets(
    _examined: &Examined,
    _verdict: &Verdict,
    _tenants: &crate::trust::Tenants,
    _section: &mut [u8],
) {
    unimplemented!()
}

/// Names of removed fields.
#[must_use]
pub fn removed_names(
    _examined: &Examined,
    _verdict: &Verdict,
    _tenants: &crate::trust::Tenants,
) -> Vec<String> {
    unimplemented!()
}
