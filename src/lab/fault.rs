//! Why a certificate was not taken, in words: the library's own are for who writes programs.

use crate::mail::printable;
use rustls::{CertificateError, Error};
use std::io;

/// A failed handshake, as a client tells it.
pub(super) fn of_handshake(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.map_or_else(|| error.to_string(), of_tls)
}

/// The same of the error itself.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not said here is said as the library says it"
)]
pub(super) fn of_tls(error: &Error) -> String {
    let Error::InvalidCertificate(fault) = error else {
        return error.to_string();
    };
    match fault {
        CertificateError::UnknownIssuer => {
            "its chain leads to no authority that is trusted: an intermediate is missing, or the authority is not a public one".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName => "it is not valid for that name".to_owned(),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            let names = match names.as_slice() {
                [] => "no name at all".to_owned(),
                names => printable(&names.join(", ")),
            };
            format!("it is not valid for {}, but for {names}", expected.to_str())
        }
        CertificateError::BadSignature => "a signature of its chain does not hold".to_owned(),
        CertificateError::BadEncoding => "it cannot be read as X.509".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its extended key usage does not allow this use".to_owned()
        }
        CertificateError::Revoked => "it has been revoked".to_owned(),
        _ => error.to_string(),
    }
}

/// webpki shows a name as `DnsName("contoso.com")`.
fn bare(name: &str) -> &str {
    let quoted = name.split_once('"').map(|(_, rest)| rest);
    quoted
        .and_then(|rest| rest.rsplit_once('"'))
        .map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::{ServerName, UnixTime};
    use std::time::Duration;

    #[test]
    fn the_common_faults_are_told_in_words() {
        let then = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let name = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("smarthost.contoso.com").unwrap(),
            presented: vec!["DnsName(\"other.example\")".to_owned(), "odd".to_owned()],
        };
        let nothing = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.example").unwrap(),
            presented: Vec::new(),
        };
        let expired = CertificateError::ExpiredContext {
            time: then(2),
            not_after: then(1),
        };
        for (fault, told) in [
            (
                CertificateError::UnknownIssuer,
                "its chain leads to no authority that is trusted: an intermediate is missing, or the authority is not a public one",
            ),
            (expired, "the certificate has expired"),
            (
                name,
                "it is not valid for smarthost.contoso.com, but for other.example, odd",
            ),
            (
                nothing,
                "it is not valid for a.example, but for no name at all",
            ),
            (
                CertificateError::BadSignature,
                "a signature of its chain does not hold",
            ),
        ] {
            let error = Error::InvalidCertificate(fault);
            assert_eq!(of_tls(&error), told);
            assert_eq!(of_handshake(&io::Error::other(error)), told);
        }
        let other = io::Error::other("broken pipe");
        assert_eq!(of_handshake(&other), "broken pipe");
    }
}
