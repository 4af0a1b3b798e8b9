//! The TLS handshake of a client, within bounds, and what is known of one that fails.

use super::hello;
use crate::message_trace::Offered;
use rustls::{Error, ServerConfig};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A handshake that does not end.
const DEADLINE: Duration = Duration::from_secs(30);
/// Octets of the client that are kept for the trace of a failure: a ClientHello with post-quantum key shares has about 2 KiB.
const KEPT: usize = 8 * 1024;

/// A handshake that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The `result` of `gatepost_tls_handshakes_total`.
    pub(super) result: &'static str,
    /// What rustls or the socket said.
    pub(super) error: String,
    /// What the client offered, where it could be read.
    pub(super) offered: Option<Offered>,
}

/// Answers a client's handshake.
///
/// # Errors
/// It failed.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: Arc<ServerConfig>,
) -> Result<TlsStream<Overheard<S>>, Failure> {
    let heard: Heard = Arc::default();
    let stream = Overheard {
        stream,
        heard: Some(Arc::clone(&heard)),
    };
    let error = match timeout(DEADLINE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().0.heard = None;
            return Ok(stream);
        }
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let octets = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
    let offered = hello::offered(&octets);
    let result = match &error {
        None => "failed_timeout",
        Some(error) => classify(error, offered.as_ref()),
    };
    let error = match (error, result) {
        (None, _) => "the handshake took too long".to_owned(),
        // rustls names the first thing that it misses in so old a hello, which is seldom the version.
        (Some(_), "failed_version") => {
            "no version in common: TLS 1.2 and TLS 1.3 are spoken here".to_owned()
        }
        (Some(error), _) => error.to_string(),
    };
    Err(Failure {
        result,
        error,
        offered,
    })
}

/// One of few words for why.
fn classify(error: &io::Error, offered: Option<&Offered>) -> &'static str {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let Some(tls) = tls else {
        // The client went away, or the network did.
        return "failed_closed";
    };
    let knows = |version: &str| {
        offered.is_some_and(|offered| offered.versions.iter().any(|own| own == version))
    };
    match tls {
        _ if offered.is_none() => "failed_not_tls",
        Error::PeerIncompatible(_) if !knows("TLS1.2") && !knows("TLS1.3") => "failed_version",
        Error::PeerIncompatible(_) => "failed_suite",
        Error::AlertReceived(_) => "failed_alert",
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => "failed_certificate",
        _ => "failed_protocol",
    }
}

type Heard = Arc<Mutex<Vec<u8>>>;

/// A stream that keeps the first octets it carries to us, until it is told not to.
#[derive(Debug)]
pub(super) struct Overheard<S> {
    stream: S,
    heard: Option<Heard>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut own.stream).poll_read(context, buffer);
        if let Some(heard) = &own.heard {
            let fresh = buffer.filled().get(before..).unwrap_or_default();
            let mut kept = heard.lock().unwrap_or_else(PoisonError::into_inner);
            let room = KEPT.saturating_sub(kept.len()).min(fresh.len());
            kept.extend_from_slice(fresh.get(..room).unwrap_or_default());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::certificates::{Authority, Leaf};
    use tokio::io::AsyncWriteExt as _;

    fn config() -> Arc<ServerConfig> {
        let issued = Authority::new("handshake")
            .unwrap()
            .issue(&Leaf::named("mx.example"))
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.pem");
        std::fs::write(&path, format!("{}{}", issued.chain_pem(), issued.key_pem())).unwrap();
        use rustls_pki_types::pem::PemObject as _;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer};
        let chain = CertificateDer::pem_file_iter(&path).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let config = builder
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                chain.map(Result::unwrap).collect(),
                PrivateKeyDer::from_pem_file(&path).unwrap(),
            );
        Arc::new(config.unwrap())
    }

    async fn failure(octets: &[u8]) -> Failure {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(octets).await.unwrap();
        theirs.shutdown().await.unwrap();
        accept(ours, config()).await.unwrap_err()
    }

    #[tokio::test]
    async fn each_failure_has_its_word_and_the_offer() {
        let old = failure(&hello::tests::tls_1_0()).await;
        assert_eq!(old.result, "failed_version", "{old:?}");
        assert!(old.error.contains("no version in common"), "{old:?}");
        assert_eq!(old.offered.unwrap().versions, ["TLS1.0"]);
        let rsa = failure(&hello::tests::rsa_only()).await;
        assert_eq!(rsa.result, "failed_suite", "{rsa:?}");
        let offered = rsa.offered.unwrap();
        assert_eq!(offered.versions, ["TLS1.2"]);
        assert_eq!(offered.suites[0], "TLS_RSA_WITH_AES_256_GCM_SHA384");
        let garbage = failure(b"MAIL FROM:<x@y.example>\r\n").await;
        assert_eq!(garbage.result, "failed_not_tls", "{garbage:?}");
        assert_eq!(garbage.offered, None);
        let hello = hello::tests::rsa_only();
        let gone = failure(&hello[..hello.len() / 2]).await;
        assert_eq!(gone.result, "failed_closed", "{gone:?}");
        let nothing = failure(b"").await;
        assert_eq!(nothing.result, "failed_closed", "{nothing:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_thirty_seconds_however_it_spends_them() {
        let hello = hello::tests::rsa_only();
        let config = config();
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let begun = tokio::time::Instant::now();
        let dripping = tokio::spawn(async move {
            for octet in hello {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if theirs.write_all(&[octet]).await.is_err() {
                    return;
                }
            }
        });
        let failure = accept(ours, config).await.unwrap_err();
        assert_eq!(failure.result, "failed_timeout");
        assert_eq!(begun.elapsed(), DEADLINE);
        dripping.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_kept_of_a_flood_is_bounded() {
        let heard: Heard = Arc::default();
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut stream = Overheard {
            stream: ours,
            heard: Some(Arc::clone(&heard)),
        };
        theirs.write_all(&vec![b'x'; 100_000]).await.unwrap();
        drop(theirs);
        let mut all = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all)
            .await
            .unwrap();
        assert_eq!(all.len(), 100_000);
        assert_eq!(heard.lock().unwrap().len(), KEPT);
    }
}
