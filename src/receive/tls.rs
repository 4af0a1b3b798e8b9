//! TLS as a server: a client certificate is asked for and never required (product.md 3).
//!
//! The handshake never fails for trust: the verifier lets every chain through, with the provider's check of the handshake
//! signature, and the verdict is made afterwards by `trust::certificate` and answered at MAIL. No issuer hints are sent:
//! long lists break Schannel.

use crate::trust::certificate::Identity;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ServerSessionMemoryCache;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;

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
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
