//! SASL PLAIN (RFC 4616) and LOGIN, in the dialects of devices.

use crate::mail::Secret;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

/// Devices leave padding out, or add it where none belongs.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A mechanism that we offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// User name and password, each asked for.
    Login,
}

impl Mechanism {
    /// Reads the name, without case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("PLAIN") {
            Some(Self::Plain)
        } else if name.eq_ignore_ascii_case("LOGIN") {
            Some(Self::Login)
        } else {
            None
        }
    }
}

/// A user name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// As UTF-8.
    pub username: String,
    /// As it came.
    pub password: Secret,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Decodes one response line; `=` is the empty response (RFC 4954 §4). Nothing where it is not base64.
#[must_use]
pub fn decode(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.trim_ascii();
    if line == b"=" {
        return Some(Vec::new());
    }
    LENIENT.decode(line).ok()
}

/// Reads the message of PLAIN: `[authzid] NUL authcid NUL password`. The authorisation identity, where given, must be
/// the user: nobody acts for another.
#[must_use]
pub fn plain(message: &[u8]) -> Option<Login> {
    let mut parts = message.splitn(3, |&octet| octet == 0);
    let (authorise, username, password) = (parts.next()?, parts.next()?, parts.next()?);
    if username.is_empty()
        || !(authorise.is_empty() || authorise == username)
        || password.contains(&0)
    {
        return None;
    }
    Some(Login {
        username: String::from_utf8(username.to_vec()).ok()?,
        password: Secret::new(password),
    })
}

/// The message of PLAIN for this login, in base64: what a client says.
#[must_use]
pub fn plain_message(login: &Login) -> String {
    let message = [b"", login.username.as_bytes(), login.password.expose()].join(&0);
    encode(&message)
}

/// One response line of a client.
#[must_use]
pub fn encode(response: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_read_in_the_dialects_of_devices() {
        let expected = Some(Login {
            username: "erp".to_owned(),
            password: Secret::new("pw"),
        });
        assert_eq!(plain(b"\0erp\0pw"), expected);
        assert_eq!(plain(b"erp\0erp\0pw"), expected);
        assert_eq!(plain(b"other\0erp\0pw"), None);
        assert_eq!(plain(b"erp\0pw"), None);
        assert_eq!(plain(b"\0\0pw"), None);
        assert_eq!(plain(b"\0erp\0p\0w"), None);
    }

    #[test]
    fn base64_with_or_without_padding() {
        assert_eq!(decode(b"ZXJw"), Some(b"erp".to_vec()));
        assert_eq!(decode(b"cHc="), Some(b"pw".to_vec()));
        assert_eq!(decode(b"cHc"), Some(b"pw".to_vec()));
        assert_eq!(decode(b" cHc=  "), Some(b"pw".to_vec()));
        assert_eq!(decode(b"="), Some(vec![]));
        assert_eq!(decode(b"!!"), None);
    }

    #[test]
    fn what_a_client_says_is_what_a_server_reads() {
        let login = Login {
            username: "gatepost".to_owned(),
            password: Secret::new("a b\u{fc}"),
        };
        let said = decode(plain_message(&login).as_bytes()).unwrap();
        assert_eq!(plain(&said), Some(login));
    }

    #[test]
    fn a_login_never_prints_its_password() {
        let login = Login {
            username: "erp".to_owned(),
            password: Secret::new("hunter2"),
        };
        assert!(!format!("{login:?}").contains("104"));
        assert!(!format!("{login:?}").contains("hunter2"));
    }
}
