//! Content framing.

/// What the content holds, as far as the choice of transfer depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContentFacts {
    /// Octets as stored.
    pub size: u64,
    /// A CR without LF.
    pub bare_cr: bool,
    /// A LF without CR.
    pub bare_lf: bool,
    /// A NUL octet.
    pub nul: bool,
    /// An octet over 127.
    pub eight_bit: bool,
    /// The last two octets are CRLF.
    pub ends_with_crlf: bool,
}

impl ContentFacts {
    /// Whether only BDAT can carry the content unchanged.
    #[must_use]
    pub fn needs_bdat(&self) -> bool {
        self.bare_cr || self.bare_lf || self.nul
    }
}
