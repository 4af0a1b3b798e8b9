//! TLS as a server: a client certificate is asked for and never required (product.md 3).
//!
//! The handshake never fails for trust: the verifier lets every chain through, with the provider's check of the handshake
//! signature, and the verdict is made afterwards by `trust::certificate` and answered at MAIL. No issuer hints are sent:
//! long lists break Schannel.

use crate::trust::certificate::{Identity, key_of_unreadable};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::server::ServerSessionMemoryCache;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use std::sync::Arc;
use webpki::RawPublicKeyEntity;

/// Sessions that can be resumed, for one listener; storage is not shared between listeners.
const SESSIONS: usize = 4096;

/// The TLS configuration of a listener. `ask` is whether it asks for a client certificate (connector listeners do).
///
/// # Errors
/// The key does not fit the certificate, or the provider does not know its kind.
pub fn server_config(identity: &Identity, ask: bool) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if ask {
        builder.with_client_cert_verifier(Arc::new(AskOnly(provider)))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Whether the private key belongs to the leaf certificate and the provider can sign with it.
///
/// # Errors
/// It does not, or cannot.
pub fn check_identity(identity: &Identity) -> Result<(), Error> {
    let provider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), &provider)?
        .keys_match()
}

/// Asks for a certificate and records what comes; judges nothing but the handshake signature.
#[derive(Debug)]
struct AskOnly(Arc<CryptoProvider>);

impl ClientCertVerifier for AskOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        match key_of_unreadable(certificate) {
            Some(key) => verify_by_key(message, &key, signature, algorithms),
            None => verify_tls12_signature(message, certificate, signature, algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        match key_of_unreadable(certificate) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, signature, algorithms),
            None => verify_tls13_signature(message, certificate, signature, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// As rustls does for TLS 1.2, where it asks for a certificate that webpki can read.
#[expect(
    clippy::disallowed_methods,
    reason = "said where the provider has just verified the signature"
)]
fn verify_by_key(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let bad = || Error::from(CertificateError::BadSignature);
    let (_, candidates) = (algorithms.mapping.iter())
        .find(|(scheme, _)| *scheme == signature.scheme)
        .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let key = RawPublicKeyEntity::try_from(key).map_err(|_| bad())?;
    // A scheme of ECDSA names no curve in TLS 1.2.
    candidates
        .iter()
        .any(|algorithm| {
            key.verify_signature(*algorithm, message, signature.signature())
                .is_ok()
        })
        .then(HandshakeSignatureValid::assertion)
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
    use rustls::client::{ClientSessionMemoryCache, ResolvesClientCert, Resumption};
    use rustls::crypto::SupportedKxGroup;
    use rustls::version::{TLS12, TLS13};
    use rustls::{
        ClientConfig, ClientConnection, HandshakeKind, ServerConnection, SupportedProtocolVersion,
    };
    use rustls_pki_types::{PrivateKeyDer, ServerName};

    /// A certificate that no root knows, with its key.
    fn issued(name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        (own.cert.der().clone(), key)
    }

    fn listener(ask: bool) -> Arc<ServerConfig> {
        let (certificate, key) = issued("mx.example");
        let identity = Identity::new("own".into(), vec![certificate], key).unwrap();
        server_config(&identity, ask).unwrap()
    }

    /// Presents this, and insists that nobody hints at issuers.
    #[derive(Debug)]
    struct Presents(Option<Arc<CertifiedKey>>);

    impl Presents {
        /// The certificate of one and the key of another, where they differ.
        fn pair(certificate: CertificateDer<'static>, key: &PrivateKeyDer<'static>) -> Self {
            let key = aws_lc_rs::sign::any_supported_type(key).unwrap();
            Self(Some(Arc::new(CertifiedKey::new(vec![certificate], key))))
        }
    }

    impl ResolvesClientCert for Presents {
        fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            assert!(hints.is_empty(), "issuer hints break Schannel");
            self.0.clone()
        }

        fn has_certs(&self) -> bool {
            self.0.is_some()
        }
    }

    #[derive(Debug)]
    struct TakesAny(Arc<CryptoProvider>);

    impl ServerCertVerifier for TakesAny {
        #[expect(
            clippy::disallowed_methods,
            reason = "a client of these tests, which are about the other side"
        )]
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let known = &self.0.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, known)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let known = &self.0.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, known)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }

    /// A client that remembers its sessions.
    fn client(
        version: &'static SupportedProtocolVersion,
        groups: &[&'static dyn SupportedKxGroup],
        presents: Presents,
    ) -> Arc<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = groups.to_vec();
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakesAny(provider)))
            .with_client_cert_resolver(Arc::new(presents));
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
        Arc::new(config)
    }

    const GROUPS: &[&dyn SupportedKxGroup] = aws_lc_rs::ALL_KX_GROUPS;

    /// The server's side of a handshake, tickets delivered.
    fn shake(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
    ) -> Result<ServerConnection, Error> {
        let name = ServerName::try_from("mx.example").unwrap();
        let mut theirs = ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut ours = ServerConnection::new(Arc::clone(server)).unwrap();
        for _ in 0..8 {
            let mut wire = Vec::new();
            while theirs.wants_write() {
                theirs.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                ours.read_tls(&mut wire).unwrap();
                ours.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while ours.wants_write() {
                ours.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                theirs.read_tls(&mut wire).unwrap();
                theirs.process_new_packets()?;
            }
        }
        assert!(!ours.is_handshaking());
        Ok(ours)
    }

    #[test]
    fn the_handshake_never_fails_for_trust() {
        for version in [&TLS12, &TLS13] {
            let none = client(version, GROUPS, Presents(None));
            let server = shake(&listener(true), &none).unwrap();
            assert!(server.peer_certificates().is_none());
            let (certificate, key) = issued("anybody.example");
            let anybody = client(version, GROUPS, Presents::pair(certificate.clone(), &key));
            let server = shake(&listener(true), &anybody).unwrap();
            assert_eq!(server.peer_certificates(), Some(&[certificate][..]));
            let server = shake(&listener(false), &anybody).unwrap();
            assert!(server.peer_certificates().is_none(), "not asked");
        }
    }

    /// With an extension that is critical and nobody knows: webpki does not read it.
    fn unreadable() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters =
            rcgen::CertificateParams::new(["mail.protection.outlook.com".to_owned()]).unwrap();
        let mut unknown = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        unknown.set_criticality(true);
        parameters.custom_extensions.push(unknown);
        let certificate = parameters.self_signed(&key).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        (certificate.der().clone(), key)
    }

    #[test]
    fn a_certificate_that_cannot_be_read_fails_no_handshake_and_needs_its_key_all_the_same() {
        for version in [&TLS12, &TLS13] {
            let (certificate, key) = unreadable();
            assert!(key_of_unreadable(&certificate).is_some());
            let pair = Presents::pair(certificate.clone(), &key);
            let server = shake(&listener(true), &client(version, GROUPS, pair)).unwrap();
            assert_eq!(server.peer_certificates(), Some(&[certificate.clone()][..]));
            let (readable, own) = issued("evil.example");
            assert!(key_of_unreadable(&readable).is_none());
            let thief = client(version, GROUPS, Presents::pair(certificate, &own));
            let error = shake(&listener(true), &thief).unwrap_err();
            assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
        }
    }

    #[test]
    fn a_certificate_without_its_key_proves_nothing() {
        for version in [&TLS12, &TLS13] {
            let (stolen, _) = issued("mail.protection.outlook.com");
            let (_, own) = issued("evil.example");
            let thief = client(version, GROUPS, Presents::pair(stolen, &own));
            let error = shake(&listener(true), &thief).unwrap_err();
            assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
        }
    }

    #[test]
    fn a_session_is_resumed_with_its_old_identity_and_at_its_listener_only() {
        for version in [&TLS12, &TLS13] {
            let (certificate, key) = issued("mail.protection.outlook.com");
            let exchange = client(version, GROUPS, Presents::pair(certificate.clone(), &key));
            let (one, two) = (listener(true), listener(true));
            let first = shake(&one, &exchange).unwrap();
            assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
            let second = shake(&one, &exchange).unwrap();
            assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed));
            assert_eq!(second.peer_certificates(), Some(&[certificate][..]));
            let elsewhere = shake(&two, &exchange).unwrap();
            assert_eq!(elsewhere.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn secp384r1_is_spoken() {
        for version in [&TLS12, &TLS13] {
            let only: &[&dyn SupportedKxGroup] = &[aws_lc_rs::kx_group::SECP384R1];
            assert!(shake(&listener(true), &client(version, only, Presents(None))).is_ok());
        }
    }
}
