//! Which hosts take a domain's mail, and in which order are they tried?
//!
//! RFC 5321 §5.1 with RFC 7505: MX records by preference and shuffled within one, the domain itself where it has none, and
//! nobody behind our own place in the list, for there mail would go round in circles.

use super::{DnsError, MxRecord, Resolve};
use crate::mail::Domain;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Exchangers of one domain that are tried at most; a longer list is a mistake or a trap.
const MOST: usize = 16;

/// Why a domain's mail has nowhere to go. Shown as a reply, so that code and enhanced code (RFC 3463) are told with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoWay {
    /// A null MX: the domain takes no mail (RFC 7505 §3).
    NullMx,
    /// The domain does not exist.
    NoSuchDomain,
    /// The domain exists, and neither it nor an exchanger has an address.
    NoAddress,
    /// We are the best exchanger ourselves (RFC 5321 §5.1).
    Loop,
    /// DNS does not answer now.
    Unavailable(String),
}

impl NoWay {
    /// Whether trying again is of no use.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NullMx | Self::NoSuchDomain | Self::NoAddress | Self::Loop => true,
            Self::Unavailable(_) => false,
        }
    }
}

impl fmt::Display for NoWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NullMx => f.write_str("556 5.1.10 not sent: the domain takes no mail (null MX)"),
            Self::NoSuchDomain => f.write_str("550 5.1.2 not sent: no such domain"),
            Self::NoAddress => {
                f.write_str("550 5.4.4 not sent: no host that takes the domain's mail has an address")
            }
            Self::Loop => f.write_str(
                "554 5.4.6 not sent: this host is the domain's best mail exchanger itself, mail would go in circles",
            ),
            Self::Unavailable(why) => write!(f, "451 4.4.3 {why}"),
        }
    }
}

/// The hosts that take mail for `domain`, in the order in which they are to be tried; `own` is our host name, `random`
/// decides among equals.
///
/// # Errors
/// None is to be tried.
pub async fn exchangers(
    dns: &dyn Resolve,
    domain: &Domain,
    own: &Domain,
    random: u64,
) -> Result<Vec<String>, NoWay> {
    if domain.as_str().starts_with('[') {
        return Ok(vec![domain.as_str().to_owned()]);
    }
    match dns.mail_exchangers(domain.as_str()).await {
        Ok(records) => in_order(records, own, random),
        // The implicit MX (RFC 5321 §5.1).
        Err(DnsError::NotFound) if domain == own => Err(NoWay::Loop),
        Err(DnsError::NotFound) => Ok(vec![domain.as_str().to_owned()]),
        Err(DnsError::NoSuchName) => Err(NoWay::NoSuchDomain),
        Err(error @ DnsError::Unavailable(_)) => Err(NoWay::Unavailable(error.to_string())),
    }
}

fn in_order(mut records: Vec<MxRecord>, own: &Domain, random: u64) -> Result<Vec<String>, NoWay> {
    let is_null = |record: &MxRecord| record.exchange.is_empty();
    if !records.is_empty() && records.iter().all(is_null) {
        return Err(NoWay::NullMx);
    }
    // Beside others a null MX means nothing (RFC 7505 §3).
    records.retain(|record| !is_null(record));
    let is_own = |record: &&MxRecord| record.exchange.eq_ignore_ascii_case(own.as_str());
    if let Some(ours) = records
        .iter()
        .filter(is_own)
        .map(|own| own.preference)
        .min()
    {
        records.retain(|record| record.preference < ours);
        if records.is_empty() {
            return Err(NoWay::Loop);
        }
    }
    shuffle(&mut records, random);
    records.sort_by_key(|record| record.preference);
    records.truncate(MOST);
    if records.is_empty() {
        return Err(NoWay::NoAddress);
    }
    Ok(records.into_iter().map(|record| record.exchange).collect())
}

/// Fisher and Yates, with the numbers of splitmix64.
fn shuffle<T>(list: &mut [T], random: u64) {
    let mut state = random;
    for index in (1..list.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let other = mixed % (index as u64 + 1);
        list.swap(index, usize::try_from(other).unwrap_or(index));
    }
}

/// The addresses of an exchanger: both families in turn, IPv4 first, so that one family that leads nowhere costs one
/// try and not all of them. An address literal (RFC 5321 §4.1.3) is its own answer.
///
/// # Errors
/// There is none, or DNS does not answer.
pub async fn exchanger_addresses(dns: &dyn Resolve, host: &str) -> Result<Vec<IpAddr>, DnsError> {
    if let Some(address) = address_literal(host) {
        return Ok(vec![address]);
    }
    let found = dns.host_records(host).await?;
    let (four, six): (Vec<IpAddr>, Vec<IpAddr>) = found.into_iter().partition(IpAddr::is_ipv4);
    let longest = four.len().max(six.len());
    let (mut four, mut six) = (four.into_iter(), six.into_iter());
    Ok((0..longest)
        .flat_map(|_| [four.next(), six.next()])
        .flatten()
        .collect())
}

fn address_literal(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            inner.get(5..)?.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Zone;
    use std::collections::BTreeSet;

    fn record(preference: u16, exchange: &str) -> MxRecord {
        MxRecord {
            preference,
            exchange: exchange.to_owned(),
        }
    }

    fn own() -> Domain {
        "smarthost.contoso.com".parse().unwrap()
    }

    fn ordered(records: &[(u16, &str)], random: u64) -> Result<Vec<String>, NoWay> {
        let records = records
            .iter()
            .map(|(preference, host)| record(*preference, host));
        in_order(records.collect(), &own(), random)
    }

    #[test]
    fn exchangers_go_by_preference_and_are_shuffled_within_one() {
        let records = [(20, "d"), (10, "a"), (10, "b"), (10, "c"), (30, "e")];
        let mut firsts = BTreeSet::new();
        for random in 0..64 {
            let order = ordered(&records, random).unwrap();
            assert_eq!(order[3..], ["d", "e"]);
            assert_eq!(order[..3].iter().collect::<BTreeSet<_>>().len(), 3);
            firsts.insert(order[0].clone());
        }
        assert_eq!(firsts.len(), 3, "each of the equals comes first at times");
    }

    #[test]
    fn a_null_mx_takes_no_mail_and_is_nothing_beside_others() {
        assert_eq!(ordered(&[(0, "")], 1), Err(NoWay::NullMx));
        assert_eq!(ordered(&[(0, ""), (5, "a")], 1).unwrap(), ["a"]);
    }

    #[test]
    fn our_own_name_cuts_the_list_at_its_preference() {
        let records = [
            (10, "a"),
            (20, "SmartHost.contoso.com"),
            (20, "b"),
            (30, "c"),
        ];
        assert_eq!(ordered(&records, 1).unwrap(), ["a"]);
        assert_eq!(ordered(&records[1..], 1), Err(NoWay::Loop));
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let names: Vec<String> = (0..500).map(|index| format!("mx{index}")).collect();
        let records: Vec<_> = names.iter().map(|name| (1, name.as_str())).collect();
        assert_eq!(ordered(&records, 1).unwrap().len(), MOST);
    }

    #[tokio::test]
    async fn what_dns_says_decides_between_now_later_and_never() {
        let zone = Zone::new()
            .host("implicit.example", "192.0.2.1".parse().unwrap())
            .host("smarthost.contoso.com", "192.0.2.2".parse().unwrap())
            .null_mx("null.example")
            .broken("broken.example");
        let ask = async |domain: &str| {
            let domain = domain.parse().unwrap();
            exchangers(&zone, &domain, &own(), 7).await
        };
        assert_eq!(ask("implicit.example").await.unwrap(), ["implicit.example"]);
        assert_eq!(ask("null.example").await, Err(NoWay::NullMx));
        assert_eq!(ask("nowhere.example").await, Err(NoWay::NoSuchDomain));
        assert_eq!(ask("smarthost.contoso.com").await, Err(NoWay::Loop));
        assert_eq!(ask("[192.0.2.9]").await.unwrap(), ["[192.0.2.9]"]);
        let broken = ask("broken.example").await.unwrap_err();
        assert!(!broken.is_permanent() && broken.to_string().starts_with("451 4.4.3 "));
    }

    #[tokio::test]
    async fn the_families_take_turns() {
        let mut zone = Zone::new();
        for address in [
            "2001:db8::1",
            "2001:db8::2",
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
        ] {
            zone = zone.host("mx.example", address.parse().unwrap());
        }
        let found = exchanger_addresses(&zone, "mx.example").await.unwrap();
        let text: Vec<_> = found.iter().map(ToString::to_string).collect();
        let turns = [
            "192.0.2.1",
            "2001:db8::1",
            "192.0.2.2",
            "2001:db8::2",
            "192.0.2.3",
        ];
        assert_eq!(text, turns);
        let literal = exchanger_addresses(&zone, "[ipv6:2001:db8::7]")
            .await
            .unwrap();
        assert_eq!(literal, ["2001:db8::7".parse::<IpAddr>().unwrap()]);
    }
}
