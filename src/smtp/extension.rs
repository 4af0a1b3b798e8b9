//! EHLO keywords: what we offer, and what a next hop offers (RFC 5321 §4.1.1.1).

use crate::smtp::reply::Reply;

/// The extensions that a session can offer (product.md 5). BINARYMIME is never among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// RFC 2920.
    Pipelining,
    /// RFC 1870.
    Size,
    /// RFC 3461.
    Dsn,
    /// RFC 2034.
    EnhancedStatusCodes,
    /// RFC 3207.
    StartTls,
    /// RFC 6152.
    EightBitMime,
    /// RFC 3030.
    Chunking,
    /// RFC 6531.
    SmtpUtf8,
    /// RFC 9422.
    Limits,
    /// Exchange's originator organisation on MAIL.
    Xoorg,
    /// RFC 4954.
    Auth,
}

/// Whether keywords that are not to be offered (`ehlo_discard`) name an extension.
#[must_use]
pub fn discards(keywords: &[String], extension: Extension) -> bool {
    keywords
        .iter()
        .any(|keyword| keyword.eq_ignore_ascii_case(extension.keyword()))
}

impl Extension {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 11] = [
        Self::Size,
        Self::Pipelining,
        Self::Dsn,
        Self::EnhancedStatusCodes,
        Self::StartTls,
        Self::Auth,
        Self::EightBitMime,
        Self::Chunking,
        Self::SmtpUtf8,
        Self::Limits,
        Self::Xoorg,
    ];

    /// The keyword.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Size => "SIZE",
            Self::Dsn => "DSN",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::StartTls => "STARTTLS",
            Self::EightBitMime => "8BITMIME",
            Self::Chunking => "CHUNKING",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Limits => "LIMITS",
            Self::Xoorg => "XOORG",
            Self::Auth => "AUTH",
        }
    }
}

/// What a next hop offers, from its reply to EHLO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one keyword of the EHLO reply"
)]
pub struct Offered {
    /// `SIZE`: `Some(0)` where no limit is said.
    pub size: Option<u64>,
    /// `PIPELINING`
    pub pipelining: bool,
    /// `DSN`
    pub dsn: bool,
    /// `ENHANCEDSTATUSCODES`
    pub enhanced_status_codes: bool,
    /// `STARTTLS`
    pub starttls: bool,
    /// `8BITMIME`
    pub eight_bit_mime: bool,
    /// `CHUNKING`
    pub chunking: bool,
    /// `SMTPUTF8`
    pub smtputf8: bool,
    /// `XOORG`
    pub xoorg: bool,
    /// `AUTH` mechanisms, upper case.
    pub auth: Vec<String>,
}

impl Offered {
    /// Reads the reply to EHLO; the first line is the greeting, unknown keywords are passed over.
    #[must_use]
    pub fn read(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "SIZE" => {
                    offered.size =
                        Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0))
                }
                "PIPELINING" => offered.pipelining = true,
                "DSN" => offered.dsn = true,
                "ENHANCEDSTATUSCODES" => offered.enhanced_status_codes = true,
                "STARTTLS" => offered.starttls = true,
                "8BITMIME" => offered.eight_bit_mime = true,
                "CHUNKING" => offered.chunking = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "XOORG" => offered.xoorg = true,
                "AUTH" => offered.auth.extend(words.map(str::to_ascii_uppercase)),
                other => {
                    // "AUTH=LOGIN": the form of old Microsoft servers.
                    if let Some(mechanism) = other.strip_prefix("AUTH=") {
                        offered.auth.push(mechanism.to_owned());
                        offered.auth.extend(words.map(str::to_ascii_uppercase));
                    }
                }
            }
        }
        offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply;

    #[test]
    fn keywords_are_read_without_case() {
        let wire = b"250-x Hello [127.0.0.1]\r\n250-size 157286400\r\n250-8BitMime\r\n250-AUTH=LOGIN\r\n250-AUTH PLAIN login\r\n250-XODD\r\n250 CHUNKING\r\n";
        let (reply, _) = reply::parse(wire).unwrap().unwrap();
        let offered = Offered::read(&reply);
        assert_eq!(offered.size, Some(157_286_400));
        assert!(offered.eight_bit_mime && offered.chunking && !offered.starttls);
        assert_eq!(offered.auth, ["LOGIN", "PLAIN", "LOGIN"]);
    }
}
