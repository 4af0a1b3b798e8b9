//! How is a connection to a tenant's inbound connector made and proven, in both directions?
//!
//! Each tenant has its own [`Client`]: its certificate, its TLS configuration, its session cache. Nothing of them is ever
//! shared, since Exchange attributes mail by the certificate of the session (product.md 6). The server must have a chain to
//! the configured roots and be valid for `host`, or carry a listed name.

use super::settings::{InboundConnector, ServerTrust};
use crate::dialogue::Answer;
use crate::dns::Resolve;
use crate::mail::{Domain, DomainSet};
use crate::message_trace::TlsFacts;
use crate::trust::certificate::Roots;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webpki::{EndEntityCert, KeyUsage};

/// How long one address may take to answer. Two or three addresses front hundreds of machines: the next one is soon tried.
const CONNECT: Duration = Duration::from_secs(20);
/// Sessions remembered for resumption, of one tenant.
const SESSIONS: usize = 64;

/// One tenant's way to its inbound connector.
#[derive(Debug)]
pub(super) struct Client {
    connector: Arc<InboundConnector>,
    /// Why no name of our certificate fits the tenant.
    foreign: Option<Answer>,
    server_name: ServerName<'static>,
    names: Arc<[String]>,
    config: Arc<ClientConfig>,
}

impl Client {
    /// Prepares TLS with the tenant's certificate.
    ///
    /// # Errors
    /// The certificate does not fit its key, or the host is no name; for people.
    pub(super) fn new(
        connector: &Arc<InboundConnector>,
        accepted_domains: &DomainSet,
        trust: &ServerTrust,
    ) -> Result<Self, String> {
        let host = connector.host.trim_end_matches('.');
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let server_name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host} is neither a host name nor an address"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let names: Arc<[String]> = trust
            .names
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let verifier = ExchangeServer {
            roots: Arc::clone(&trust.roots),
            names: Arc::clone(&names),
            algorithms: provider.signature_verification_algorithms,
        };
        let identity = &connector.identity;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| format!("certificate {}: {error}", identity.name))?;
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            connector: Arc::clone(connector),
            foreign: foreign(connector, accepted_domains),
            server_name,
            names,
            config: Arc::new(config),
        })
    }

    /// The connector.
    pub(super) fn connector(&self) -> &InboundConnector {
        &self.connector
    }

    /// Why the loaded certificate must not be shown now: mail sent with it would be refused or attributed to nobody.
    pub(super) fn own_fault(&self, unix_seconds: u64) -> Option<Answer> {
        let identity = &self.connector.identity;
        if !identity.is_valid_at(unix_seconds) {
            let when = if unix_seconds < identity.not_before {
                "is not valid yet"
            } else {
                "has expired"
            };
            let text = format!("certificate {} {when}", identity.name);
            return Some(Answer::OwnCertificate(text));
        }
        self.foreign.clone()
    }

    /// Connects to the first address that answers; asked of DNS anew each time.
    pub(super) async fn connect(
        &self,
        resolver: &dyn Resolve,
    ) -> Result<(TcpStream, SocketAddr), Answer> {
        let host = &self.connector.host;
        let addresses = resolver.addresses(host).await;
        let addresses =
            addresses.map_err(|error| Answer::Unreachable(format!("{host}: {error}")))?;
        let mut last = format!("{host}: no address");
        for address in addresses {
            let address = SocketAddr::new(address, self.connector.port);
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Every write is whole: waiting for more (Nagle) only costs a round trip.
                    if let Err(error) = stream.set_nodelay(true) {
                        last = format!("{address}: {error}");
                        continue;
                    }
                    return Ok((stream, address));
                }
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address}: no answer in time"),
            }
        }
        Err(Answer::Unreachable(last))
    }

    /// The handshake, with our certificate.
    ///
    /// # Errors
    /// For people: what rustls said.
    pub(super) async fn handshake<T>(
        &self,
        transport: T,
    ) -> Result<(TlsStream<T>, TlsFacts), String>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector
            .connect(self.server_name.clone(), transport)
            .await
            .map_err(|error| format!("{}: {error}", self.connector.host))?;
        let facts = self.facts(&stream);
        Ok((stream, facts))
    }

    fn facts<T>(&self, stream: &TlsStream<T>) -> TlsFacts {
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLS1.3".to_owned(),
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLS1.2".to_owned(),
            other => format!("{other:?}"),
        };
        let suite = session.negotiated_cipher_suite();
        let suite = suite.map_or_else(String::new, |suite| format!("{:?}", suite.suite()));
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        TlsFacts {
            version,
            cipher: suite.replace("TLS13_", "TLS_"),
            peer_name: leaf.and_then(|leaf| self.proven_name(leaf)),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    fn proven_name(&self, leaf: &CertificateDer<'_>) -> Option<String> {
        let leaf = EndEntityCert::try_from(leaf).ok()?;
        proven_name(&leaf, &self.server_name, &self.names)
    }
}

/// A certificate without a name at or below an accepted domain would be attributed to nobody, or to somebody else. Whether
/// Exchange takes a name below one is the connector's matter (`check` warns).
fn foreign(connector: &InboundConnector, accepted_domains: &DomainSet) -> Option<Answer> {
    let own = |name: &String| {
        let name = name.strip_prefix("*.").unwrap_or(name).parse::<Domain>();
        let below = |name: &Domain| {
            let mut patterns = accepted_domains.iter();
            patterns.any(|pattern| name.is_at_or_below(pattern.domain()))
        };
        name.is_ok_and(|name| below(&name))
    };
    let known = accepted_domains.iter().next().is_some();
    let identity = &connector.identity;
    (known && !identity.names.iter().any(own)).then(|| {
        Answer::OwnCertificate(format!(
            "no name of certificate {} lies in the tenant's accepted domains",
            identity.name
        ))
    })
}

/// Proves Exchange Online's server certificate.
#[derive(Debug)]
struct ExchangeServer {
    roots: Arc<Roots>,
    names: Arc<[String]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ExchangeServer {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the file that has verified chain and name"
    )]
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf =
            EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        leaf.verify_for_usage(
            self.algorithms.all,
            &self.roots.anchors,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            None,
        )
        .map_err(certificate_error)?;
        if proven_name(&leaf, server_name, &self.names).is_none() {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The name by which a leaf is Exchange's: the host asked for, else a listed name that it carries.
fn proven_name(
    leaf: &EndEntityCert<'_>,
    host: &ServerName<'_>,
    listed: &[String],
) -> Option<String> {
    if leaf.verify_is_valid_for_subject_name(host).is_ok() {
        return Some(host.to_str().into_owned());
    }
    let mut carried = leaf.valid_dns_names();
    let found = carried.find(|name| listed.iter().any(|pattern| is_listed(name, pattern)))?;
    Some(found.to_owned())
}

/// Whether a name in a certificate is meant by an entry of `server_certificate_names`; `*.` there stands for any depth,
/// so it also means a wildcard in the certificate.
fn is_listed(name: &str, pattern: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match pattern.strip_prefix('*') {
        Some(parent) => name.len() > parent.len() && name.ends_with(parent),
        None => name == pattern,
    }
}

fn certificate_error(error: webpki::Error) -> rustls::Error {
    let known = match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    };
    known.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_the_list_stands_for_any_depth() {
        for (name, pattern, expected) in [
            (
                "mail.protection.outlook.com",
                "mail.protection.outlook.com",
                true,
            ),
            (
                "MAIL.protection.outlook.com",
                "mail.protection.outlook.com",
                true,
            ),
            (
                "x.mail.protection.outlook.com",
                "mail.protection.outlook.com",
                false,
            ),
            (
                "*.mail.protection.outlook.com",
                "*.mail.protection.outlook.com",
                true,
            ),
            ("contoso.h-v1.mx.microsoft", "*.mx.microsoft", true),
            ("*.h-v1.mx.microsoft", "*.mx.microsoft", true),
            ("mx.microsoft", "*.mx.microsoft", false),
            ("evilmx.microsoft", "*.mx.microsoft", false),
            ("*.microsoft", "*.mx.microsoft", false),
            ("mx.microsoft.evil.example", "*.mx.microsoft", false),
        ] {
            assert_eq!(is_listed(name, pattern), expected, "{name} {pattern}");
        }
    }

    #[test]
    fn secp384r1_stays_among_the_key_exchange_groups() {
        let provider = aws_lc_rs::default_provider();
        let groups: Vec<_> = provider
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect();
        assert!(
            groups.contains(&rustls::NamedGroup::secp384r1),
            "{groups:?}"
        );
    }
}
