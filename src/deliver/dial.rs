//! How is a connection to a tenant's inbound connector made and proven, in both directions?
//!
//! Each tenant has its own [`Client`]: its certificate, its TLS configuration, its session cache. Nothing of them is ever
//! shared, since Exchange attributes mail by the certificate of the session (product.md 6).

use super::settings::{InboundConnector, ServerTrust};
use super::tls::Encryption;
use crate::dialogue::Answer;
use crate::dns::Resolve;
use crate::mail::DomainSet;
use crate::trust::sender_name::SenderName;
use rustls_pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long one address may take to answer. Two or three addresses front hundreds of machines: the next one is soon tried.
const CONNECT: Duration = Duration::from_secs(20);

/// One tenant's way to its inbound connector.
#[derive(Debug)]
pub(super) struct Client {
    connector: Arc<InboundConnector>,
    /// Why no name of our certificate fits the tenant.
    foreign: Option<Answer>,
    encryption: Encryption,
    /// No certificate of ours, and sessions of its own: a resumed one would bring the certificate back.
    uncertified: Encryption,
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
        let server_name = server_name(&connector.host)?;
        let identity = Some(&*connector.identity);
        Ok(Self {
            connector: Arc::clone(connector),
            foreign: foreign(connector, accepted_domains),
            encryption: Encryption::exchange(server_name.clone(), trust, identity)?,
            uncertified: Encryption::exchange(server_name, trust, None)?,
        })
    }

    /// The connector.
    pub(super) fn connector(&self) -> &InboundConnector {
        &self.connector
    }

    /// TLS with the tenant's certificate.
    pub(super) fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// TLS to the same host, as anyone: its certificate is verified, and none is shown.
    pub(super) fn uncertified(&self) -> &Encryption {
        &self.uncertified
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
            match connect(address, None).await {
                Ok(stream) => return Ok((stream, address)),
                Err(why) => last = why,
            }
        }
        Err(Answer::Unreachable(last))
    }
}

/// Connects to an address, from one of ours where it matters.
///
/// # Errors
/// For people.
pub(super) async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
) -> Result<TcpStream, String> {
    let connecting = async {
        let stream = match source {
            None => TcpStream::connect(address).await?,
            Some(source) => {
                let socket = match source {
                    IpAddr::V4(_) => TcpSocket::new_v4()?,
                    IpAddr::V6(_) => TcpSocket::new_v6()?,
                };
                socket.bind(SocketAddr::new(source, 0))?;
                socket.connect(address).await?
            }
        };
        // Every write is whole: waiting for more (Nagle) only costs a round trip.
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    };
    let from = source.map_or_else(String::new, |source| format!(" from {source}"));
    match timeout(CONNECT, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("{address}{from}: {error}")),
        Err(_) => Err(format!("{address}{from}: no answer in time")),
    }
}

/// A host as TLS names it.
///
/// # Errors
/// For people.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let host = host.trim_end_matches('.');
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host} is neither a host name nor an address"))
}

/// A certificate without a name at or below an accepted domain would be attributed to nobody, or to somebody else. Whether
/// Exchange takes a name below one is the connector's matter (`check` warns).
fn foreign(connector: &InboundConnector, accepted_domains: &DomainSet) -> Option<Answer> {
    let known = accepted_domains.iter().next().is_some();
    let identity = &connector.identity;
    let fit = SenderName::of(&identity.names, accepted_domains);
    (known && fit == SenderName::None).then(|| {
        Answer::OwnCertificate(format!(
            "no name of certificate {} lies in the tenant's accepted domains",
            identity.name
        ))
    })
}
