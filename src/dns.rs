//! Which addresses does a next hop have?
//!
//! Behind `trait Resolve`, so that a test or scenario can hand in a fixed zone. With `[dns] servers = "system"` host names are
//! asked of the system (so that `/etc/hosts` and its kin count, as an administrator expects); configured servers are
//! asked directly, with a cache that honours TTLs.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

/// How long one look-up may take in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsError {
    /// The name does not exist, or has no address.
    NotFound,
    /// Nobody answered in time, or the answer was an error.
    Unavailable(String),
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such host, or it has no address"),
            Self::Unavailable(why) => write!(f, "DNS: {why}"),
        }
    }
}

impl std::error::Error for DnsError {}

/// The future of a look-up.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, DnsError>> + Send + 'a>>;

/// What a room may ask of DNS.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// The addresses of a host (A and AAAA; an address literal is its own answer), IPv4 first: Exchange Online takes mail over
    /// IPv6 only where SPF or DKIM passes (450 4.7.26). Within a family the order of the answer is kept, which rotates.
    fn addresses<'a>(&'a self, host: &'a str) -> Answer<'a, Vec<IpAddr>>;
}

/// The real DNS.
pub struct Dns(Source);

enum Source {
    System,
    Servers(Box<TokioResolver>),
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Dns(system)",
            Source::Servers(_) => "Dns(servers)",
        })
    }
}

impl Dns {
    /// The resolver for `[dns] servers`; `None` is the system's.
    ///
    /// # Errors
    /// The resolver could not be made, with the reason.
    pub fn new(servers: Option<&[SocketAddr]>) -> Result<Self, String> {
        let Some(servers) = servers else {
            return Ok(Self(Source::System));
        };
        let mut config = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        for server in servers {
            let mut entry = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut entry.connections {
                connection.port = server.port();
            }
            config.add_name_server(entry);
        }
        let mut options = ResolverOpts::default();
        options.timeout = Duration::from_secs(5);
        options.attempts = 2;
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self(Source::Servers(Box::new(resolver))))
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        match &self.0 {
            Source::System => {
                let found = tokio::net::lookup_host((host, 0)).await;
                // getaddrinfo does not tell "no such host" from "no answer" reliably: both are tried again.
                let found = found.map_err(|error| DnsError::Unavailable(error.to_string()))?;
                Ok(found.map(|address| address.ip()).collect())
            }
            Source::Servers(resolver) => {
                // A trailing dot keeps search domains out.
                let name = format!("{}.", host.trim_end_matches('.'));
                match resolver.lookup_ip(name).await {
                    Ok(found) => Ok(found.iter().collect()),
                    Err(error) if error.is_no_records_found() => Err(DnsError::NotFound),
                    Err(error) => Err(DnsError::Unavailable(error.to_string())),
                }
            }
        }
    }
}

impl Resolve for Dns {
    fn addresses<'a>(&'a self, host: &'a str) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(async move {
            if let Some(address) = literal(host) {
                return Ok(vec![address]);
            }
            let found = tokio::time::timeout(PATIENCE, self.look_up(host))
                .await
                .map_err(|_| DnsError::Unavailable("no answer in time".to_owned()))??;
            if found.is_empty() {
                return Err(DnsError::NotFound);
            }
            Ok(ipv4_first(found))
        })
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

fn ipv4_first(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_by_key(IpAddr::is_ipv6);
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_tried_first_and_no_address_twice() {
        let given = ["2001:db8::1", "192.0.2.2", "192.0.2.1", "192.0.2.2"];
        let sorted = ipv4_first(given.map(|text| text.parse().unwrap()).to_vec());
        let text: Vec<_> = sorted.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["192.0.2.2", "192.0.2.1", "2001:db8::1"]);
    }

    #[tokio::test]
    async fn an_address_needs_no_dns() {
        let dns = Dns::new(Some(&["127.0.0.1:9".parse().unwrap()])).unwrap();
        assert_eq!(
            dns.addresses("127.0.0.9").await,
            Ok(vec!["127.0.0.9".parse().unwrap()])
        );
        assert_eq!(
            dns.addresses("[::1]").await,
            Ok(vec!["::1".parse().unwrap()])
        );
    }

    /// A server that answers one A record for every A question and no record for the rest.
    async fn tiny_server() -> SocketAddr {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0u8; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                let query = &packet[..length];
                let mut end = 12;
                while query[end] != 0 {
                    end += 1 + usize::from(query[end]);
                }
                end += 5;
                let wants_a = query[end - 3] == 1;
                let exists = query[13..].starts_with(b"known");
                let mut answer = query[..end].to_vec();
                answer[2] = 0x85;
                answer[3] = if exists { 0x80 } else { 0x83 };
                answer[6..12].copy_from_slice(&[0, u8::from(wants_a && exists), 0, 0, 0, 0]);
                if wants_a && exists {
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 7, 7]);
                }
                socket.send_to(&answer, peer).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn configured_servers_are_asked() {
        let dns = Dns::new(Some(&[tiny_server().await])).unwrap();
        assert_eq!(
            dns.addresses("known.example").await,
            Ok(vec!["127.0.7.7".parse().unwrap()])
        );
        assert_eq!(
            dns.addresses("other.example").await,
            Err(DnsError::NotFound)
        );
    }
}
