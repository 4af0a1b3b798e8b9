//! Which addresses does a next hop have, and who takes a domain's mail?
//!
//! Behind `trait Resolve`, so that a scenario or the lab can hand in a fixed [`Zone`]. With `[dns] servers = "system"` host names
//! of connectors and relays are asked of the system (so that `/etc/hosts` and its kin count, as an administrator expects);
//! MX records and the hosts that they name are asked of the system's name servers. Configured servers are asked directly.
//! Answers of name servers are cached as long as their TTL says; where none comes any more, connectors and relays are where
//! they were ([`Remembering`]). [`exchangers`] makes an order of tries of it.

mod exchangers;
mod known;
mod zone;

pub use exchangers::{NoWay, exchanger_addresses, exchangers};
pub use known::{Known, Remembering};
pub use zone::Zone;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

/// How long one look-up may take in all.
const PATIENCE: Duration = Duration::from_secs(20);
/// Answers that are remembered at most.
const CACHED: u64 = 8192;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsError {
    /// The name has no such record. Where the system is asked, it may also not exist.
    NotFound,
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// Nobody answered in time, or the answer was an error.
    Unavailable(String),
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such host, or it has no address"),
            Self::NoSuchName => f.write_str("no such name"),
            Self::Unavailable(why) => write!(f, "DNS: {why}"),
        }
    }
}

impl std::error::Error for DnsError {}

/// The future of a look-up.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, DnsError>> + Send + 'a>>;

/// One MX record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxRecord {
    /// The lower, the sooner it is tried.
    pub preference: u16,
    /// The host, without the final dot; empty is the root, which makes a null MX (RFC 7505).
    pub exchange: String,
}

/// What a room may ask of DNS.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// The addresses of a host (A and AAAA; an address literal is its own answer), IPv4 first: Exchange Online takes mail over
    /// IPv6 only where SPF or DKIM passes (450 4.7.26). Within a family the order of the answer is kept, which rotates.
    fn addresses<'a>(&'a self, host: &'a str) -> Answer<'a, Vec<IpAddr>>;

    /// The MX records of a domain, as DNS has them; [`DnsError::NotFound`] where it has none and exists.
    fn mail_exchangers<'a>(&'a self, domain: &'a str) -> Answer<'a, Vec<MxRecord>>;

    /// The A and AAAA records of a name, as DNS has them.
    fn host_records<'a>(&'a self, host: &'a str) -> Answer<'a, Vec<IpAddr>>;

    /// The TXT records of a name, the strings of each joined (RFC 6376 §3.6.2.2).
    fn texts<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Vec<u8>>>;
}

/// The real DNS.
pub struct Dns(Source);

enum Source {
    /// And its name servers, or why there are none.
    System(Result<Box<TokioResolver>, String>),
    Servers(Box<TokioResolver>),
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System(_) => "Dns(system)",
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
            // A machine without name servers can still deliver to its connectors.
            let system = TokioResolver::builder_tokio().and_then(|mut builder| {
                set(builder.options_mut());
                builder.build()
            });
            let system = system.map(Box::new).map_err(|error| error.to_string());
            return Ok(Self(Source::System(system)));
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
        set(&mut options);
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self(Source::Servers(Box::new(resolver))))
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        match &self.0 {
            Source::System(_) => {
                let found = tokio::net::lookup_host((host, 0)).await;
                // getaddrinfo does not tell "no such host" from "no answer" reliably: both are tried again.
                let found = found.map_err(|error| DnsError::Unavailable(error.to_string()))?;
                Ok(found.map(|address| address.ip()).collect())
            }
            Source::Servers(resolver) => match resolver.lookup_ip(absolute(host)).await {
                Ok(found) => Ok(found.iter().collect()),
                Err(error) if error.is_no_records_found() => Err(DnsError::NotFound),
                Err(error) => Err(DnsError::Unavailable(error.to_string())),
            },
        }
    }

    /// Asks name servers for records of one type; CNAMEs are followed.
    async fn ask(&self, name: &str, what: RecordType) -> Result<Vec<RData>, DnsError> {
        let resolver = match &self.0 {
            Source::System(Ok(resolver)) | Source::Servers(resolver) => resolver,
            Source::System(Err(why)) => return Err(DnsError::Unavailable(why.clone())),
        };
        let asked = tokio::time::timeout(PATIENCE, resolver.lookup(absolute(name), what));
        let found = asked
            .await
            .map_err(|_| DnsError::Unavailable("no answer in time".to_owned()))?
            .map_err(|error| fault(&error))?;
        let records = found.answers().iter();
        let records = records.filter(|record| record.record_type() == what);
        Ok(records.map(|record| record.data.clone()).collect())
    }
}

fn set(options: &mut ResolverOpts) {
    options.timeout = Duration::from_secs(5);
    options.attempts = 2;
    options.cache_size = CACHED;
}

/// A trailing dot keeps search domains out.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn fault(error: &NetError) -> DnsError {
    if error.is_nx_domain() {
        DnsError::NoSuchName
    } else if error.is_no_records_found() {
        DnsError::NotFound
    } else {
        DnsError::Unavailable(error.to_string())
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

    fn mail_exchangers<'a>(&'a self, domain: &'a str) -> Answer<'a, Vec<MxRecord>> {
        Box::pin(async move {
            let records: Vec<MxRecord> = self
                .ask(domain, RecordType::MX)
                .await?
                .iter()
                .filter_map(|record| match record {
                    RData::MX(mx) => Some(MxRecord {
                        preference: mx.preference,
                        exchange: mx.exchange.to_ascii().trim_end_matches('.').to_owned(),
                    }),
                    _ => None,
                })
                .collect();
            // A CNAME without MX behind it.
            if records.is_empty() {
                return Err(DnsError::NotFound);
            }
            Ok(records)
        })
    }

    fn host_records<'a>(&'a self, host: &'a str) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(async move {
            let both = tokio::join!(
                self.ask(host, RecordType::A),
                self.ask(host, RecordType::AAAA)
            );
            let mut found = Vec::new();
            let mut why = None;
            for family in [both.0, both.1] {
                match family {
                    Ok(records) => found.extend(records.iter().filter_map(RData::ip_addr)),
                    // One family that nobody answers for must not make the other's absence final.
                    Err(error @ DnsError::Unavailable(_)) => why = Some(error),
                    Err(error) => why = why.or(Some(error)),
                }
            }
            if found.is_empty() {
                return Err(why.unwrap_or(DnsError::NotFound));
            }
            Ok(found)
        })
    }

    fn texts<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(async move {
            let records = self.ask(name, RecordType::TXT).await?;
            let text = |record: &RData| match record {
                RData::TXT(text) => Some(text.txt_data.concat()),
                _ => None,
            };
            Ok(records.iter().filter_map(text).collect())
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
    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, SOA};
    use hickory_resolver::proto::rr::{Name, Record};
    use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinEncodable as _};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    fn name(text: &str) -> Name {
        Name::from_ascii(format!("{text}.")).unwrap()
    }

    /// The records of a small zone; `Err` is the code of an answer that is none.
    fn zone(asked: &str, what: RecordType) -> Result<Vec<(&str, RData)>, ResponseCode> {
        let mx = |preference, host: &str| {
            let host = if host.is_empty() {
                Name::root()
            } else {
                name(host)
            };
            (asked, RData::MX(MX::new(preference, host)))
        };
        match (asked, what) {
            ("known.example" | "mx.known.example", RecordType::A) => {
                Ok(vec![(asked, RData::A(A::new(127, 0, 7, 7)))])
            }
            ("mx.known.example", RecordType::AAAA) => Ok(vec![(
                asked,
                RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1)),
            )]),
            ("known.example", RecordType::MX) => Ok(vec![
                mx(20, "Backup.known.example"),
                mx(10, "mx.known.example"),
            ]),
            ("null.example", RecordType::MX) => Ok(vec![mx(0, "")]),
            ("alias.example", RecordType::MX) => Ok(vec![
                ("alias.example", RData::CNAME(CNAME(name("known.example")))),
                (
                    "known.example",
                    RData::MX(MX::new(10, name("mx.known.example"))),
                ),
            ]),
            ("half.example", RecordType::AAAA) | ("broken.example", _) => {
                Err(ResponseCode::ServFail)
            }
            ("half.example" | "known.example" | "mx.known.example" | "null.example", _) => {
                Ok(Vec::new())
            }
            _ => Err(ResponseCode::NXDomain),
        }
    }

    /// A name server for [`zone`] on a free port, and how many questions it was asked.
    async fn tiny_server() -> (SocketAddr, Arc<AtomicUsize>) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut packet = [0u8; 1024];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut message = Message::from_bytes(&packet[..length]).unwrap();
                let query = message.queries[0].clone();
                let owner = query.name().to_ascii().to_lowercase();
                let found = zone(owner.trim_end_matches('.'), query.query_type());
                message.metadata.message_type = MessageType::Response;
                message.metadata.recursion_available = true;
                match found {
                    Ok(records) if !records.is_empty() => {
                        for (owner, data) in records {
                            message.add_answer(Record::from_rdata(name(owner), 60, data));
                        }
                    }
                    other => {
                        let soa = SOA::new(name("example"), name("example"), 1, 60, 60, 60, 60);
                        message.add_authority(Record::from_rdata(
                            name("example"),
                            60,
                            RData::SOA(soa),
                        ));
                        message.metadata.response_code =
                            other.err().unwrap_or(ResponseCode::NoError);
                    }
                }
                socket
                    .send_to(&message.to_bytes().unwrap(), peer)
                    .await
                    .unwrap();
            }
        });
        (address, asked)
    }

    async fn dns() -> (Dns, Arc<AtomicUsize>) {
        let (address, asked) = tiny_server().await;
        (Dns::new(Some(&[address])).unwrap(), asked)
    }

    #[tokio::test]
    async fn configured_servers_are_asked() {
        let (dns, _) = dns().await;
        assert_eq!(
            dns.addresses("known.example").await,
            Ok(vec!["127.0.7.7".parse().unwrap()])
        );
        assert_eq!(
            dns.addresses("other.example").await,
            Err(DnsError::NotFound)
        );
    }

    #[tokio::test]
    async fn no_such_name_no_such_record_and_no_answer_are_three_things() {
        let (dns, _) = dns().await;
        let exchangers = async |name: &'static str| dns.mail_exchangers(name).await;
        let record = |preference, exchange: &str| MxRecord {
            preference,
            exchange: exchange.to_owned(),
        };
        let known = exchangers("known.example").await.unwrap();
        assert_eq!(
            known,
            [
                record(20, "Backup.known.example"),
                record(10, "mx.known.example")
            ]
        );
        assert_eq!(exchangers("null.example").await.unwrap(), [record(0, "")]);
        assert_eq!(
            exchangers("mx.known.example").await,
            Err(DnsError::NotFound)
        );
        assert_eq!(
            exchangers("nowhere.example").await,
            Err(DnsError::NoSuchName)
        );
        let broken = exchangers("broken.example").await;
        assert!(
            matches!(broken, Err(DnsError::Unavailable(_))),
            "{broken:?}"
        );
        assert_eq!(
            exchangers("alias.example").await.unwrap(),
            [record(10, "mx.known.example")]
        );
    }

    #[tokio::test]
    async fn both_families_are_asked_and_half_an_answer_is_not_final() {
        let (dns, _) = dns().await;
        let both: Vec<IpAddr> = vec!["127.0.7.7".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(dns.host_records("mx.known.example").await, Ok(both));
        let half = dns.host_records("half.example").await;
        assert!(matches!(half, Err(DnsError::Unavailable(_))), "{half:?}");
        assert_eq!(
            dns.host_records("null.example").await,
            Err(DnsError::NotFound)
        );
    }

    #[tokio::test]
    async fn answers_are_remembered_as_long_as_they_say() {
        let (dns, asked) = dns().await;
        dns.mail_exchangers("known.example").await.unwrap();
        let before = asked.load(Ordering::SeqCst);
        dns.mail_exchangers("known.example").await.unwrap();
        assert_eq!(
            dns.mail_exchangers("nowhere.example").await,
            Err(DnsError::NoSuchName)
        );
        let negative = asked.load(Ordering::SeqCst);
        assert_eq!(
            dns.mail_exchangers("nowhere.example").await,
            Err(DnsError::NoSuchName)
        );
        assert!(before < negative && negative == asked.load(Ordering::SeqCst));
    }
}
