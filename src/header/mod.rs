//! Which field is which, and which leaves? Bytes are sacred (product.md 4).
//!
//! [`Splitter`] finds the end of the header section as bytes arrive; [`examine`] checks its grammar and makes an
//! [`Examined`]; [`rendition()`] says for a path what to put on top and which ranges of the arrival bytes to leave out.

mod address;
mod examined;
mod internal;
mod missing;
mod pasted;
mod protected;
mod readable;
mod received;
mod rendition;
mod returned;
mod section;
mod told;

pub use examined::{Examined, Field, Malformed};
pub use internal::{internal_stamp, without_stamp};
pub use missing::{message_id_on_arrival, missing_fields};
pub use pasted::{MAX_PASTED, pasted, unquoted, utf8};
pub use readable::{MAX_READABLE, mail_text, page_text};
pub use received::{ReceivedFacts, rfc5322_date};
pub use rendition::{Rendition, Source, blank_secrets, removed_names, rendition};
pub use returned::returned;
pub use section::{Progress, Splitter, examine};
pub use told::{KEPT_BACK, told};

use std::fmt;

/// The largest header section, in octets (product.md 4).
pub const MAX_HEADER: usize = 256 * 1024;

/// The most `Received:` fields that a message may carry; one more is a loop, 554 5.4.6 (RFC 5321 §6.3).
pub const MAX_RECEIVED: usize = 50;

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
    /// A field name that is empty or has an octet outside 33-126.
    BadName,
    /// The first line is a continuation.
    LeadingContinuation,
    /// Over [`MAX_HEADER`].
    TooLarge,
}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BareCr => "a CR without LF in the header section",
            Self::BareLf => "a LF without CR in the header section",
            Self::Nul => "a NUL octet in the header section",
            Self::NoColon => "a header line without colon",
            Self::BadName => "a header field name that is none",
            Self::LeadingContinuation => "the first header line is a continuation",
            Self::TooLarge => "a header section over 256 KiB",
        })
    }
}

impl std::error::Error for HeaderFault {}
