//! How is a connection encrypted, and what is its server asked to prove?
//!
//! Exchange must have a chain to the configured roots and be valid for `host`, or carry a listed name. A relay with
//! `tls = "verify"` is proven as everywhere. Mail exchangers and the other relays prove nothing: encryption without proof is
//! better than none (RFC 7435), and nothing is concluded from it. Handshake signatures are verified by the provider always.

use super::lane::lock;
use super::settings::ServerTrust;
use crate::mail::TenantName;
use crate::message_trace::TlsFacts;
use crate::trust::certificate::{Identity, Roots};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, HandshakeKind,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webpki::{EndEntityCert, KeyUsage};

/// Sessions remembered for resumption, towards one connector.
const SESSIONS: usize = 64;
/// The same outside, of one tenant, towards all hosts that one configuration meets.
const SESSIONS_OUTSIDE: usize = 256;

/// TLS towards one host.
#[derive(Clone, Debug)]
pub(super) struct Encryption {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    proof: Proof,
}

/// By which names a server that passed the handshake is the right one.
#[derive(Clone, Debug)]
enum Proof {
    /// Its host name, or one of these.
    Names(Arc<[String]>),
    /// Nothing was proven.
    None,
}

impl Encryption {
    /// Towards Exchange, with a tenant's certificate, or as anyone.
    ///
    /// # Errors
    /// The certificate does not fit its key; for people.
    pub(super) fn exchange(
        server_name: ServerName<'static>,
        trust: &ServerTrust,
        identity: Option<&Identity>,
    ) -> Result<Self, String> {
        let names: Arc<[String]> = trust
            .names
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let wanted = Wanted::Exchange {
            roots: Arc::clone(&trust.roots),
            names: Arc::clone(&names),
        };
        let config = judging(wanted)?;
        let mut config = match identity {
            Some(identity) => config
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|error| format!("certificate {}: {error}", identity.name))?,
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            config: Arc::new(config),
            server_name,
            proof: Proof::Names(names),
        })
    }

    /// Towards a host with this configuration, which [`Outside::of`] has given.
    pub(super) fn outside(
        config: &Arc<ClientConfig>,
        server_name: ServerName<'static>,
        is_verified: bool,
    ) -> Self {
        Self {
            config: Arc::clone(config),
            server_name,
            proof: if is_verified {
                Proof::Names(Arc::new([]))
            } else {
                Proof::None
            },
        }
    }

    /// The handshake.
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
            .map_err(|error| format!("{}: {error}", self.server_name.to_str()))?;
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
        match &self.proof {
            Proof::Names(names) => proven_name(&leaf, &self.server_name, names),
            Proof::None => None,
        }
    }
}

const VERSIONS: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// One configuration, with sessions for each tenant: none is resumed for the mail of another (product.md 6). There are as
/// many as tenants whose mail has gone this way since the settings were read.
#[derive(Debug)]
pub(super) struct Outside {
    config: ClientConfig,
    tenants: Mutex<HashMap<TenantName, Arc<ClientConfig>>>,
}

impl Outside {
    /// From a configuration that [`verified`] or [`unverified`] has made.
    pub(super) fn new(config: ClientConfig) -> Self {
        Self {
            config,
            tenants: Mutex::default(),
        }
    }

    /// The configuration with this tenant's sessions.
    pub(super) fn of(&self, tenant: &TenantName) -> Arc<ClientConfig> {
        let mut tenants = lock(&self.tenants);
        let own = tenants.entry(Arc::clone(tenant)).or_insert_with(|| {
            let mut config = self.config.clone();
            config.resumption = Resumption::in_memory_sessions(SESSIONS_OUTSIDE);
            Arc::new(config)
        });
        Arc::clone(own)
    }
}

/// No certificate of ours, and a server with a chain to these roots and the right name.
///
/// # Errors
/// For people.
pub(super) fn verified(roots: &Roots) -> Result<ClientConfig, String> {
    let roots = RootCertStore {
        roots: roots.anchors.clone(),
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// No certificate of ours, and any server.
///
/// # Errors
/// For people.
pub(super) fn unverified() -> Result<ClientConfig, String> {
    Ok(judging(Wanted::Any)?.with_no_client_auth())
}

fn judging(wanted: Wanted) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = provider();
    let verifier = Verifier {
        wanted,
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)
        .map_err(|error| error.to_string())?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

/// What a server's certificate has to be.
#[derive(Debug)]
enum Wanted {
    /// Exchange's: a chain to these roots, and the host's name or one of these.
    Exchange {
        roots: Arc<Roots>,
        names: Arc<[String]>,
    },
    /// Any. Nothing is concluded from it (RFC 7435), also where a relay is configured so and its password follows.
    Any,
}

/// Judges a server's certificate; its key must have signed the handshake in any case.
#[derive(Debug)]
struct Verifier {
    wanted: Wanted,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the file that has verified chain and name, where they are wanted"
    )]
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Wanted::Exchange { roots, names } = &self.wanted else {
            return Ok(ServerCertVerified::assertion());
        };
        let leaf =
            EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        leaf.verify_for_usage(
            self.algorithms.all,
            &roots.anchors,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            None,
        )
        .map_err(certificate_error)?;
        if proven_name(&leaf, server_name, names).is_none() {
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
