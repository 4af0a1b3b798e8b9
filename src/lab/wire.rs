//! How do the lab's servers and clients read and write? Lines and counted octets over a clear or a TLS stream, every wait
//! bounded, every line noted, so that a failing row can show its dialogue.

use super::x509::{self, Names};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::certificates::Issued;

/// The longest line that the lab reads, in octets.
const LONGEST_LINE: usize = 64 * 1024;

/// The lines of dialogue that are kept.
const LONGEST_DIALOGUE: usize = 400;

/// A clear or an encrypted connection.
#[derive(Debug)]
pub(super) enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// What was said on a connection, line by line; cheap to clone, cut at the front.
#[derive(Clone, Debug, Default)]
pub struct Dialogue(Arc<Mutex<VecDeque<String>>>);

impl Dialogue {
    /// Notes a line, escaped and cut; what follows AUTH is not shown.
    pub(super) fn note(&self, who: &str, line: &[u8]) {
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        let secret = line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"AUTH "));
        let shown = match line.iter().skip(5).position(|octet| *octet == b' ') {
            Some(space) if secret => format!("{} ...", crate::mail::shown(line.get(..5 + space).unwrap_or_default())),
            _ => crate::mail::shown(line),
        };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LONGEST_DIALOGUE {
            lines.pop_front();
        }
        lines.push_back(format!("{who} {shown}"));
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    input: Vec<u8>,
    dialogue: Dialogue,
    patience: Duration,
    us: &'static str,
    them: &'static str,
}

impl Wire {
    pub(super) fn server(stream: Stream, patience: Duration) -> Self {
        Self { stream, input: Vec::new(), dialogue: Dialogue::default(), patience, us: "S:", them: "C:" }
    }

    pub(super) fn client(stream: Stream, patience: Duration) -> Self {
        Self { stream, input: Vec::new(), dialogue: Dialogue::default(), patience, us: "C:", them: "S:" }
    }

    pub(super) fn dialogue(&self) -> &Dialogue {
        &self.dialogue
    }

    /// Remarks on the connection itself.
    pub(super) fn remark(&self, text: &str) {
        self.dialogue.note("  ", text.as_bytes());
    }

    /// The next line with its end; `None` where the peer has closed.
    pub(super) async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            let fresh = self.input.get(searched..).unwrap_or_default();
            if let Some(found) = memchr::memchr(b'\n', fresh) {
                let line: Vec<u8> = self.input.drain(..=searched + found).collect();
                self.dialogue.note(self.them, &line);
                return Ok(Some(line));
            }
            searched = self.input.len();
            if searched > LONGEST_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Exactly so many octets.
    pub(super) async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < count {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.dialogue.note(self.them, format!("({count} octets)").as_bytes());
        Ok(self.input.drain(..count).collect())
    }

    /// Content up to CRLF.CRLF and nothing else (RFC 5321 §4.1.1.4), dots still stuffed; over `limit` octets the rest
    /// is dropped and `None` returned.
    pub(super) async fn dotted(&mut self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let finder = memchr::memmem::Finder::new(b"\r\n.\r\n");
        // The CRLF of the DATA line counts as the one before a first dot.
        let mut content = b"\r\n".to_vec();
        let mut over = false;
        let mut searched = 0;
        loop {
            content.append(&mut self.input);
            let from = searched.min(content.len());
            if let Some(found) = finder.find(content.get(from..).unwrap_or_default()) {
                let end = from + found;
                self.input = content.split_off(end + 5);
                content.truncate(end + 2);
                content.drain(..2);
                self.dialogue.note(self.them, format!("({} octets and the dot)", content.len()).as_bytes());
                return Ok((!over).then_some(content));
            }
            if content.len() > limit + 2 {
                over = true;
                content.drain(..content.len() - 4);
            }
            searched = content.len().saturating_sub(4);
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.input.reserve(64 * 1024);
        match tokio::time::timeout(self.patience, self.stream.read_buf(&mut self.input)).await {
            Ok(read) => read,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer said nothing in time")),
        }
    }

    /// Octets that came before they were asked for.
    pub(super) fn unread(&self) -> usize {
        self.input.len()
    }

    /// Sends lines, noting each.
    pub(super) async fn say(&mut self, text: &str) -> io::Result<()> {
        for line in text.split_inclusive("\r\n") {
            self.dialogue.note(self.us, line.as_bytes());
        }
        self.send(text.as_bytes()).await
    }

    /// Sends content, noting its size.
    pub(super) async fn send_content(&mut self, content: &[u8]) -> io::Result<()> {
        self.dialogue.note(self.us, format!("({} octets)", content.len()).as_bytes());
        self.send(content).await
    }

    /// Sends octets that are not noted.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(self.patience, write).await {
            Ok(written) => written,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")),
        }
    }

    /// Closes in order, as far as the peer lets us.
    pub(super) async fn close(&mut self) {
        if let Ok(Err(error)) = tokio::time::timeout(self.patience, self.stream.shutdown()).await {
            self.remark(&format!("closing: {error}"));
        }
    }

    /// The server's side of the handshake. What came in clear text behind STARTTLS is dropped (RFC 3207 §4.2).
    pub(super) async fn accept_tls(self, config: Arc<ServerConfig>) -> io::Result<(Self, TlsSeen)> {
        self.handshake(|tcp| async move { Ok(TlsAcceptor::from(config).accept(tcp).await?.into()) }).await
    }

    /// The client's side of the handshake.
    pub(super) async fn connect_tls(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<(Self, TlsSeen)> {
        self.handshake(|tcp| async move { Ok(TlsConnector::from(config).connect(name, tcp).await?.into()) }).await
    }

    async fn handshake<F, H>(mut self, shake: F) -> io::Result<(Self, TlsSeen)>
    where
        F: FnOnce(TcpStream) -> H,
        H: Future<Output = io::Result<TlsStream<TcpStream>>>,
    {
        self.input.clear();
        let Stream::Clear(tcp) = self.stream else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "already encrypted"));
        };
        let tls = match tokio::time::timeout(self.patience, shake(tcp)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                self.dialogue.note("  ", format!("TLS failed: {error}").as_bytes());
                return Err(error);
            }
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "TLS handshake")),
        };
        let seen = TlsSeen::of(&tls);
        self.dialogue.note("  ", format!("TLS: {seen}").as_bytes());
        Ok((Self { stream: Stream::Tls(Box::new(tls)), ..self }, seen))
    }
}

/// What a handshake agreed, and what the peer showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSeen {
    /// `TLSv1_3`.
    pub version: String,
    /// Suite.
    pub cipher: String,
    /// An older session was resumed, and with it an older identity.
    pub resumed: bool,
    /// The peer's chain, leaf first; empty where it showed none.
    pub chain: Vec<CertificateDer<'static>>,
    /// The names of the peer's leaf.
    pub names: Names,
}

impl TlsSeen {
    fn of(tls: &TlsStream<TcpStream>) -> Self {
        let (_, connection) = tls.get_ref();
        let chain: Vec<_> = connection
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let names = chain.first().and_then(|leaf| x509::names(leaf)).unwrap_or_default();
        Self {
            version: connection.protocol_version().map_or_else(String::new, |version| format!("{version:?}")),
            cipher: connection
                .negotiated_cipher_suite()
                .map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            chain,
            names,
        }
    }
}

impl std::fmt::Display for TlsSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.version, self.cipher)?;
        match self.names.all().first() {
            Some(name) => write!(f, ", peer certificate {name}")?,
            None if self.chain.is_empty() => f.write_str(", no peer certificate")?,
            None => f.write_str(", peer certificate without a name")?,
        }
        if self.resumed { f.write_str(", resumed") } else { Ok(()) }
    }
}

/// A server that asks for a client certificate, requires none, and lets every chain through the handshake: what it is
/// worth is judged afterwards, as Exchange does. Signatures are verified by the provider.
pub(super) fn server_config(identity: &Issued) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let asks = AsksForCertificate(provider.signature_verification_algorithms);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(asks))
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    Ok(Arc::new(config))
}

/// A client that trusts `roots` and shows `identity` where it is asked.
pub(super) fn client_config(roots: &RootCertStore, identity: Option<&Issued>) -> Result<Arc<ClientConfig>, Error> {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone());
    let config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AsksForCertificate(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AsksForCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
