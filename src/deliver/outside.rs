//! How is a next hop outside reached: which hosts, in which order, how secured?
//!
//! Mail exchangers are strangers: TLS where they offer it, in clear text where it fails, and never with a tenant's
//! certificate. A relay is met as it is configured. Whoever answers first gets the mail (RFC 5321 §5.1); where nobody does,
//! one that may answer later counts more than one that never will.

use super::dial::{connect, server_name};
use super::pump::Connection;
use super::report::Attempt;
use super::settings::{DeliverSettings, Relay, RelayTls};
use super::tls::{self, Encryption};
use crate::dialogue::{Answer, Broken, Dialogue, Manners, NextHop, Outcome, Phase, Tls};
use crate::dns::{DnsError, NoWay, exchanger_addresses, exchangers};
use crate::mail::{TenantName, shown};
use crate::smtp::sasl::Login;
use crate::spool::Destination;
use rustls_pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connections to one domain by mx.
const MX_CONNECTIONS: usize = 5;
/// Connections to one relay, of one tenant.
const RELAY_CONNECTIONS: usize = 10;
/// Messages on one connection.
const MESSAGES: usize = 100;
/// Addresses that one attempt tries.
const ADDRESSES: usize = 10;
/// How long an attempt looks for somebody who answers.
const SEARCH: Duration = Duration::from_secs(300);
/// The port where TLS comes first (RFC 8314 §3.3).
const SUBMISSIONS: u16 = 465;

/// The way to mail exchangers, or to a relay.
#[derive(Debug)]
pub(super) struct Outside {
    relay: Option<Arc<Relay>>,
    tls: tls::Outside,
    is_verified: bool,
    manners: Manners,
}

/// A connection and where it leads.
pub(super) struct Reached {
    pub(super) connection: Connection<TcpStream>,
    pub(super) host: String,
    pub(super) address: SocketAddr,
}

impl Outside {
    /// To mail exchangers.
    ///
    /// # Errors
    /// For people.
    pub(super) fn mx() -> Result<Self, String> {
        Ok(Self {
            relay: None,
            tls: tls::Outside::new(tls::unverified()?),
            is_verified: false,
            manners: Manners {
                tls: Tls::WhereOffered,
                login: None,
                old_hello: true,
            },
        })
    }

    /// To a relay.
    ///
    /// # Errors
    /// For people.
    pub(super) fn relay(relay: &Arc<Relay>) -> Result<Self, String> {
        let is_verified = relay.tls == RelayTls::Verify;
        let tls = match relay.tls {
            RelayTls::Verify => tls::verified(&relay.roots)?,
            RelayTls::Encrypt | RelayTls::Opportunistic => tls::unverified()?,
        };
        let login = relay.credentials.as_ref();
        let manners = Manners {
            tls: match relay.tls {
                _ if relay.port == SUBMISSIONS => Tls::FromTheStart,
                RelayTls::Verify | RelayTls::Encrypt => Tls::Required,
                RelayTls::Opportunistic => Tls::WhereOffered,
            },
            login: login.map(|(username, password)| Login {
                username: username.clone(),
                password: password.clone(),
            }),
            old_hello: true,
        };
        Ok(Self {
            relay: Some(Arc::clone(relay)),
            tls: tls::Outside::new(tls),
            is_verified,
            manners,
        })
    }

    /// Whose answers are to be judged.
    fn next_hop(&self) -> NextHop {
        match self.relay {
            Some(_) => NextHop::Relay,
            None => NextHop::Mx,
        }
    }

    /// Connections of one queue.
    pub(super) fn most_connections(&self) -> usize {
        match self.relay {
            Some(_) => RELAY_CONNECTIONS,
            None => MX_CONNECTIONS,
        }
    }

    /// Messages on one connection.
    pub(super) fn most_messages(&self) -> usize {
        MESSAGES
    }

    /// Looks for somebody who takes mail of this queue now; what was tried last is noted.
    ///
    /// # Errors
    /// Nobody does.
    pub(super) async fn reach(
        &self,
        settings: &DeliverSettings,
        queue: &Destination,
        sources: &[IpAddr],
        noted: &mut Attempt,
    ) -> Result<Reached, Answer> {
        let mut met = Met::new(self.next_hop());
        match timeout(
            SEARCH,
            self.search(settings, queue, sources, noted, &mut met),
        )
        .await
        {
            Ok(Some(reached)) => Ok(reached),
            Ok(None) => Err(met.conclude()),
            Err(_) => {
                met.note(Answer::Unreachable("nobody answered in time".to_owned()));
                Err(met.conclude())
            }
        }
    }

    async fn search(
        &self,
        settings: &DeliverSettings,
        queue: &Destination,
        sources: &[IpAddr],
        noted: &mut Attempt,
        met: &mut Met,
    ) -> Option<Reached> {
        let random = random();
        let hosts = match (&self.relay, &queue.domain) {
            (Some(relay), _) => vec![relay.host.to_string()],
            (None, Some(domain)) => {
                let dns = &*settings.resolver;
                match exchangers(dns, domain, &settings.hostname, random).await {
                    Ok(hosts) => hosts,
                    Err(why) => {
                        met.note(no_way(&why, domain.as_str()));
                        return None;
                    }
                }
            }
            (None, None) => return None,
        };
        let mut left = ADDRESSES;
        for host in hosts {
            noted.host.clone_from(&host);
            let addresses = match self.addresses(settings, &host).await {
                Ok(addresses) => addresses,
                Err(answer) => {
                    met.note(answer);
                    continue;
                }
            };
            for address in addresses {
                if left == 0 {
                    return None;
                }
                left -= 1;
                noted.address = Some(address.to_string());
                let Some(source) = source(sources, address.ip(), random) else {
                    let why = format!("{address}: source_addresses has none of this family");
                    met.note(Answer::Unreachable(why));
                    continue;
                };
                let to = (&*host, address);
                match self.meet(settings, &queue.tenant, to, source).await {
                    Ok(connection) => {
                        return Some(Reached {
                            connection,
                            host,
                            address,
                        });
                    }
                    Err(answer) => met.note(answer),
                }
            }
        }
        None
    }

    async fn addresses(
        &self,
        settings: &DeliverSettings,
        host: &str,
    ) -> Result<Vec<SocketAddr>, Answer> {
        let dns = &*settings.resolver;
        let (found, port) = match &self.relay {
            Some(relay) => (dns.addresses(host).await, relay.port),
            None => (exchanger_addresses(dns, host).await, settings.mx_port),
        };
        let found = found.map_err(|error| match (&self.relay, error) {
            (None, DnsError::NotFound | DnsError::NoSuchName) => no_way(&NoWay::NoAddress, host),
            (_, error) => Answer::Unreachable(format!("451 4.4.3 {host}: {error}")),
        })?;
        let addresses = found.into_iter();
        Ok(addresses.map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// Connects and greets. Where only TLS goes wrong, and was offered to be nice, once more in clear text (RFC 7435): also
    /// where STARTTLS has no answer, or none that is a reply, which whoever is in between can have as well.
    async fn meet(
        &self,
        settings: &DeliverSettings,
        tenant: &TenantName,
        (host, address): (&str, SocketAddr),
        source: Option<IpAddr>,
    ) -> Result<Connection<TcpStream>, Answer> {
        let name = match server_name(host) {
            Ok(name) => name,
            // Only what is verified needs the very name.
            Err(_) if !self.is_verified => ServerName::IpAddress(address.ip().into()),
            Err(why) => return Err(Answer::NoTls(why)),
        };
        let encryption = Encryption::outside(&self.tls.of(tenant), name, self.is_verified);
        let hostname = settings.hostname.as_str();
        let open = async |manners: Manners| {
            let stream = connect(address, source).await;
            let stream = stream.map_err(Answer::Unreachable)?;
            let dialogue = Dialogue::with(hostname, manners);
            Connection::open(stream, dialogue, &encryption).await
        };
        let opened = match open(self.manners.clone()).await {
            Err(Answer::Broken {
                phase: Phase::StartTls,
                why: why @ (Broken::Closed | Broken::Deadline | Broken::Nonsense(_)),
            }) if self.manners.tls == Tls::WhereOffered => {
                Err(Answer::NoTls(format!("{why} (after STARTTLS)")))
            }
            other => other,
        };
        match opened {
            Err(Answer::NoTls(why)) if self.manners.tls == Tls::WhereOffered => {
                if self.manners.login.is_some() {
                    let why = format!("TLS: {why}; the password is not sent in clear text");
                    return Err(Answer::NoLogin(why));
                }
                let manners = Manners {
                    tls: Tls::Never,
                    ..self.manners.clone()
                };
                let why = shown(why.as_bytes());
                tracing::debug!(host, %address, why, "TLS failed: once more in clear text");
                open(manners).await
            }
            other => other,
        }
    }
}

fn no_way(why: &NoWay, name: &str) -> Answer {
    let text = format!("{why} ({name})");
    if why.is_permanent() {
        Answer::NoWay(text)
    } else {
        Answer::Unreachable(text)
    }
}

/// The address to send from: one of the family, at random; `None` inside where the system may choose.
fn source(sources: &[IpAddr], target: IpAddr, random: u64) -> Option<Option<IpAddr>> {
    if sources.is_empty() {
        return Some(None);
    }
    let fits = |source: &&IpAddr| source.is_ipv4() == target.is_ipv4();
    let count = sources.iter().filter(fits).count() as u64;
    let nth = usize::try_from(random.checked_rem(count)?).ok()?;
    sources.iter().filter(fits).nth(nth).copied().map(Some)
}

/// Without random numbers the order is the same each time, which is no reason to stop.
fn random() -> u64 {
    let mut octets = [0; 8];
    match getrandom::fill(&mut octets) {
        Ok(()) => u64::from_le_bytes(octets),
        Err(_) => 0,
    }
}

/// The answers that were met on the way.
struct Met {
    next_hop: NextHop,
    later: Option<Answer>,
    never: Option<Answer>,
}

impl Met {
    fn new(next_hop: NextHop) -> Self {
        Self {
            next_hop,
            later: None,
            never: None,
        }
    }

    fn note(&mut self, answer: Answer) {
        let failed = answer.judge(self.next_hop).outcome == Outcome::Failed;
        let place = if failed {
            &mut self.never
        } else {
            &mut self.later
        };
        *place = Some(answer);
    }

    /// The last one that may do better another time, else the last.
    fn conclude(self) -> Answer {
        let nothing = || Answer::Unreachable("there is nobody to ask".to_owned());
        self.later.or(self.never).unwrap_or_else(nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_answer_later_counts_more_than_who_never_will() {
        let never = || Answer::NoWay("550 5.4.4 x".to_owned());
        let later = || Answer::Unreachable("refused".to_owned());
        for (answers, expected) in [
            (vec![never(), never()], never()),
            (vec![later(), never()], later()),
            (vec![never(), later()], later()),
        ] {
            let mut met = Met::new(NextHop::Mx);
            answers.into_iter().for_each(|answer| met.note(answer));
            assert_eq!(met.conclude(), expected);
        }
    }

    #[test]
    fn the_family_of_the_source_is_that_of_the_target() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let sources = [
            address("192.0.2.1"),
            address("2001:db8::1"),
            address("192.0.2.2"),
        ];
        let six = address("2001:db8::9");
        assert_eq!(source(&[], six, 5), Some(None));
        assert_eq!(source(&sources, six, 5), Some(Some(sources[1])));
        assert_eq!(source(&sources[..1], six, 5), None);
        let used: std::collections::BTreeSet<_> = (0..9)
            .map(|random| {
                source(&sources, address("192.0.2.9"), random)
                    .unwrap()
                    .unwrap()
            })
            .collect();
        assert_eq!(used.len(), 2);
    }
}
