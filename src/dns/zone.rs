//! A fixed zone in the place of DNS: for the lab, which must not ask the world, and for scenarios.

use super::{Answer, DnsError, MxRecord, Resolve, literal};
use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::net::IpAddr;

/// Names and their records; what is not in it does not exist.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    hosts: HashMap<String, Vec<IpAddr>>,
    exchangers: HashMap<String, Vec<MxRecord>>,
    texts: HashMap<String, Vec<Vec<u8>>>,
    broken: HashSet<String>,
    otherwise: Option<IpAddr>,
}

impl Zone {
    /// An empty zone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more A or AAAA record.
    #[must_use]
    pub fn host(mut self, name: &str, address: IpAddr) -> Self {
        self.hosts.entry(key(name)).or_default().push(address);
        self
    }

    /// One more MX record.
    #[must_use]
    pub fn mx(mut self, domain: &str, preference: u16, exchange: &str) -> Self {
        let record = MxRecord {
            preference,
            exchange: exchange.to_owned(),
        };
        self.exchangers.entry(key(domain)).or_default().push(record);
        self
    }

    /// A null MX (RFC 7505).
    #[must_use]
    pub fn null_mx(self, domain: &str) -> Self {
        self.mx(domain, 0, "")
    }

    /// One more TXT record.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Self {
        let record = text.as_bytes().to_vec();
        self.texts.entry(key(name)).or_default().push(record);
        self
    }

    /// Nobody answers for this name.
    #[must_use]
    pub fn broken(mut self, name: &str) -> Self {
        self.broken.insert(key(name));
        self
    }

    /// Every other name is a host with this address.
    #[must_use]
    pub fn otherwise(mut self, address: IpAddr) -> Self {
        self.otherwise = Some(address);
        self
    }

    fn look(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let name = key(name);
        if self.broken.contains(&name) {
            return Err(DnsError::Unavailable("no answer".to_owned()));
        }
        match (self.hosts.get(&name), self.otherwise) {
            (Some(addresses), _) => Ok(addresses.clone()),
            (None, _) if self.exchangers.contains_key(&name) => Err(DnsError::NotFound),
            (None, Some(address)) => Ok(vec![address]),
            (None, None) => Err(DnsError::NoSuchName),
        }
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

impl Resolve for Zone {
    fn addresses<'a>(&'a self, host: &'a str) -> Answer<'a, Vec<IpAddr>> {
        let found = literal(host).map_or_else(|| self.look(host), |address| Ok(vec![address]));
        Box::pin(ready(found))
    }

    fn mail_exchangers<'a>(&'a self, domain: &'a str) -> Answer<'a, Vec<MxRecord>> {
        let found = match self.exchangers.get(&key(domain)) {
            Some(records) => Ok(records.clone()),
            None => self.look(domain).and(Err(DnsError::NotFound)),
        };
        Box::pin(ready(found))
    }

    fn host_records<'a>(&'a self, host: &'a str) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(ready(self.look(host)))
    }

    fn texts<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        let found = match self.texts.get(&key(name)) {
            Some(records) => Ok(records.clone()),
            None => self.look(name).and(Err(DnsError::NotFound)),
        };
        Box::pin(ready(found))
    }
}
