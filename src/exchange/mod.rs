//! What would Exchange Online make of our mail? Its side as the documentation and those who watched it have it.
//!
//! Nothing here decides about mail in hand: it explains (`explain attribution`, `explain headers`). Attribution says whose
//! mail it is ([`attribution`]), promotion whether it is internal ([`promotion`]); they are two gates, and passing the
//! first without the second makes the mail external. Each statement carries its [`Mark`].

pub mod attribution;
pub mod promotion;

use std::fmt;

/// How well something is known of Exchange Online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Microsoft says so.
    Documented,
    /// Seen in real mail, or told by others.
    Observed,
    /// Our conclusion.
    Inferred,
    /// No statement about Exchange: it stands in the configuration or in the question.
    Given,
}

impl Mark {
    /// For people and scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::Observed => "observed",
            Self::Inferred => "inferred",
            Self::Given => "given",
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
