//! How the authority is spoken to: HTTP/1.1 over verified TLS, each request bounded in time and its answer in size.

use crate::dns::Resolve;
use crate::trust::certificate::Roots;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One request, from the look-up of the name to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// One address.
const CONNECT: Duration = Duration::from_secs(8);
/// A chain of certificates is far smaller.
const LARGEST_ANSWER: usize = 256 * 1024;

type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// The client of one order.
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    resolver: Arc<dyn Resolve>,
}

impl Client {
    /// A client that trusts these roots.
    pub(super) fn new(roots: &Roots, resolver: Arc<dyn Resolve>) -> Result<Self, String> {
        let roots = RootCertStore {
            roots: roots.anchors.clone(),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: Arc::new(config),
            resolver,
        })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (tls, resolver) = (Arc::clone(&self.tls), Arc::clone(&self.resolver));
        Box::pin(async move {
            let uri = request.uri().clone();
            let asked = tokio::time::timeout(DEADLINE, exchange(tls, &*resolver, request)).await;
            let late = || Trouble::from("no answer in time");
            let answered = asked.unwrap_or_else(|_| Err(late()));
            answered.map_err(|error| Error::Other(format!("{uri}: {error}").into()))
        })
    }
}

async fn exchange(
    tls: Arc<ClientConfig>,
    resolver: &dyn Resolve,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, Trouble> {
    let uri = std::mem::take(request.uri_mut());
    let host = uri.host().ok_or("no host")?.to_owned();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let encrypted = uri.scheme_str() == Some("https");
    if !encrypted && !super::is_loopback(host) {
        return Err("not https".into());
    }
    let authority = uri.authority().ok_or("no host")?.as_str();
    let authority = HeaderValue::from_str(authority)?;
    request.headers_mut().insert(HOST, authority);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>()?;
    let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let tcp = connect(resolver, host, port).await?;
    if encrypted {
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await?;
        send(stream, request).await
    } else {
        send(tcp, request).await
    }
}

async fn connect(resolver: &dyn Resolve, host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let addresses = resolver.addresses(host).await;
    let addresses = addresses.map_err(|error| error.to_string())?;
    let mut last: Trouble = "no address".into();
    for address in addresses {
        let address = SocketAddr::new(address, port);
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("{address}: {error}").into(),
            Err(_) => last = format!("{address}: no answer in time").into(),
        }
    }
    Err(last)
}

async fn send<S>(stream: S, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Trouble>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await?;
        Ok::<_, Trouble>(BytesResponse {
            parts,
            body: Box::new(body.to_bytes()),
        })
    };
    // The connection moves only while it is polled; it may end before the answer is collected.
    let (mut answered, mut connection) = (std::pin::pin!(answered), std::pin::pin!(connection));
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => {
            ended?;
            answered.await
        }
    }
}
