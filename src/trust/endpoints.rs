//! The published Microsoft 365 endpoint data: which addresses does Exchange Online send from (endpoint id 10)?
//!
//! Microsoft publishes the list as JSON; a copy of version 2022072800 (28 July 2022) is shipped with this server, and a
//! file may replace it. New data is taken only where it is plausible: a truncated or forged file must neither lock
//! Exchange out nor let everybody in.

use super::network::parse_block;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use std::fmt;
use time::{Date, Month, Time};

/// The part of the endpoint data that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The blocks of endpoint id 10, in the order of the data.
    pub smtp_networks: Vec<IpNet>,
    /// When it was made, from its version (seconds since 1970). Microsoft's bare array carries none: there the time of
    /// the file has to do.
    pub made: Option<u64>,
}

/// Why endpoint data is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointsError {
    /// Not JSON of Microsoft's form.
    NotReadable(String),
    /// A member of `ips` of endpoint id 10 is no block.
    NotABlock(String),
    /// The data cannot be true.
    Implausible(Implausible),
}

/// Why endpoint data cannot be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Implausible {
    /// Exchange's endpoint id 10 is missing or has no addresses.
    Empty,
    /// A block wider than any mail service has.
    TooWide(IpNet),
    /// More than half of the addresses of the old data, of one family, are gone.
    Shrunk {
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
}

impl fmt::Display for EndpointsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReadable(why) => {
                write!(f, "not endpoint data in Microsoft's JSON form: {why}")
            }
            Self::NotABlock(text) => write!(f, "endpoint id 10: {text}: not a CIDR block"),
            Self::Implausible(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for EndpointsError {}

impl fmt::Display for Implausible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Exchange's endpoint id 10 has no addresses"),
            Self::TooWide(block) => write!(f, "{block} is wider than any mail service"),
            Self::Shrunk { family } => {
                write!(f, "more than half of the {family} addresses would be gone")
            }
        }
    }
}

impl std::error::Error for Implausible {}

const SHIPPED: &str = include_str!("endpoints.json");

/// The copy shipped with this version: Microsoft's 2022072800, of 28 July 2022.
#[must_use]
pub fn shipped() -> Published {
    // A test holds that the copy reads; nothing at run time can change it.
    parse(SHIPPED).unwrap_or(Published {
        smtp_networks: Vec::new(),
        made: None,
    })
}

/// Reads Microsoft's JSON: the array of endpoint sets that the service gives, or `{"version": "YYYYMMDDNN", "endpoints":
/// [...]}`, which keeps the version with it.
///
/// # Errors
/// Not readable, or not plausible on its own.
pub fn parse(json: &str) -> Result<Published, EndpointsError> {
    let unreadable = |error: serde_json::Error| EndpointsError::NotReadable(error.to_string());
    let (version, sets) = if json.trim_start().starts_with('[') {
        (
            None,
            serde_json::from_str::<Vec<EndpointSet>>(json).map_err(unreadable)?,
        )
    } else {
        let versioned: Versioned = serde_json::from_str(json).map_err(unreadable)?;
        (versioned.version, versioned.endpoints)
    };
    let mut smtp_networks = Vec::new();
    for set in sets.iter().filter(|set| set.is_exchange_smtp()) {
        for text in &set.ips {
            let block = parse_block(text)
                .map_err(|_| EndpointsError::NotABlock(crate::mail::shown(text.as_bytes())))?;
            if !smtp_networks.contains(&block) {
                smtp_networks.push(block);
            }
        }
    }
    let made =
        match version {
            Some(version) => Some(made(&version).ok_or_else(|| {
                EndpointsError::NotReadable("version is not YYYYMMDDNN".to_owned())
            })?),
            None => None,
        };
    let published = Published {
        smtp_networks,
        made,
    };
    plausible(&published).map_err(EndpointsError::Implausible)?;
    Ok(published)
}

/// Takes `new` in the place of `old`, where that is plausible: not empty, no absurd block, at least half of the addresses of
/// each family still there.
///
/// # Errors
/// Why not; the old data stays in force.
pub fn replace(old: &Published, new: Published) -> Result<Published, Implausible> {
    plausible(&new)?;
    let (old_v4, old_v6) = families(&old.smtp_networks);
    let (new_v4, new_v6) = families(&new.smtp_networks);
    if covered_by_both(&old_v4, &new_v4) < covered(&old_v4).div_ceil(2) {
        return Err(Implausible::Shrunk { family: "IPv4" });
    }
    if covered_by_both(&old_v6, &new_v6) < covered(&old_v6).div_ceil(2) {
        return Err(Implausible::Shrunk { family: "IPv6" });
    }
    Ok(new)
}

/// The widest block that is believed. No mail service fills more than an IPv4 /8, the widest block ever given to one
/// holder (id 10's widest is a /14); an IPv6 /24 is 256 times the /32 that Microsoft sends from.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 24;

fn plausible(published: &Published) -> Result<(), Implausible> {
    if published.smtp_networks.is_empty() {
        return Err(Implausible::Empty);
    }
    let wide = |block: &&IpNet| match block {
        IpNet::V4(v4) => v4.prefix_len() < WIDEST_V4,
        IpNet::V6(v6) => v6.prefix_len() < WIDEST_V6,
    };
    match published.smtp_networks.iter().find(wide) {
        Some(block) => Err(Implausible::TooWide(*block)),
        None => Ok(()),
    }
}

/// The blocks of each family, none within another.
fn families(blocks: &[IpNet]) -> (Vec<IpNet>, Vec<IpNet>) {
    let v4: Vec<Ipv4Net> = blocks
        .iter()
        .filter_map(|block| {
            if let IpNet::V4(v4) = block {
                Some(*v4)
            } else {
                None
            }
        })
        .collect();
    let v6: Vec<Ipv6Net> = blocks
        .iter()
        .filter_map(|block| {
            if let IpNet::V6(v6) = block {
                Some(*v6)
            } else {
                None
            }
        })
        .collect();
    (
        Ipv4Net::aggregate(&v4).into_iter().map(IpNet::V4).collect(),
        Ipv6Net::aggregate(&v6).into_iter().map(IpNet::V6).collect(),
    )
}

/// How many addresses disjoint blocks hold; blocks no wider than [`WIDEST_V6`] cannot overflow it in any real number.
fn covered(blocks: &[IpNet]) -> u128 {
    blocks
        .iter()
        .fold(0, |sum: u128, block| sum.saturating_add(size(block)))
}

fn covered_by_both(one: &[IpNet], other: &[IpNet]) -> u128 {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    // Two blocks are disjoint or one lies within the other.
    pairs.fold(0, |sum: u128, (a, b)| {
        let common = if a.contains(b) {
            size(b)
        } else if b.contains(a) {
            size(a)
        } else {
            0
        };
        sum.saturating_add(common)
    })
}

fn size(block: &IpNet) -> u128 {
    let host_bits = u32::from(block.max_prefix_len().saturating_sub(block.prefix_len()));
    1_u128.checked_shl(host_bits).unwrap_or(u128::MAX)
}

/// The day of a version `YYYYMMDDNN`, in seconds since 1970.
fn made(version: &str) -> Option<u64> {
    if version.len() != 10 || !version.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    let year: i32 = version.get(..4)?.parse().ok()?;
    let month: u8 = version.get(4..6)?.parse().ok()?;
    let day: u8 = version.get(6..8)?.parse().ok()?;
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    u64::try_from(date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp()).ok()
}

#[derive(Deserialize)]
struct Versioned {
    version: Option<String>,
    endpoints: Vec<EndpointSet>,
}

/// One endpoint set; empty members are omitted by the service, and new ones may come.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointSet {
    id: u64,
    service_area: String,
    #[serde(default)]
    ips: Vec<String>,
}

impl EndpointSet {
    fn is_exchange_smtp(&self) -> bool {
        self.id == 10 && self.service_area.eq_ignore_ascii_case("Exchange")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(ips: &str) -> String {
        format!(
            r#"[{{"id":9,"serviceArea":"Exchange","ips":["203.0.113.0/24"]}},
                {{"id":10,"serviceArea":"Exchange","ips":[{ips}],"tcpPorts":"25","new":{{}}}},
                {{"id":10,"serviceArea":"Common","ips":["198.51.100.0/24"]}}, {{"id":56,"serviceArea":"Common"}}]"#
        )
    }

    fn published(blocks: &[&str]) -> Published {
        let smtp_networks = blocks.iter().map(|block| block.parse().unwrap()).collect();
        Published {
            smtp_networks,
            made: None,
        }
    }

    #[test]
    fn the_shipped_copy_reads_and_says_its_date() {
        let shipped = shipped();
        assert_eq!(shipped.made, Some(1_658_966_400), "28 July 2022");
        let blocks: Vec<String> = shipped
            .smtp_networks
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            blocks,
            [
                "40.92.0.0/15",
                "40.107.0.0/16",
                "52.100.0.0/14",
                "104.47.0.0/17",
                "2a01:111:f400::/48",
                "2a01:111:f403::/48"
            ]
        );
        assert_eq!(replace(&shipped, shipped.clone()), Ok(shipped));
    }

    #[test]
    fn only_exchanges_endpoint_10_counts() {
        let published = parse(&array(r#""192.0.2.0/24","192.0.2.0/24","2001:db8::/32""#)).unwrap();
        assert_eq!(
            published
                .smtp_networks
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["192.0.2.0/24", "2001:db8::/32"]
        );
        assert_eq!(published.made, None);
    }

    #[test]
    fn unreadable_data_is_refused() {
        for json in [
            "",
            "{}",
            "null",
            "[{}]",
            r#"{"version":"1","endpoints":[]}"#,
            r#"[{"id":10,"serviceArea":"Exchange","ips":"x"}]"#,
        ] {
            assert!(
                matches!(
                    parse(json),
                    Err(EndpointsError::NotReadable(_) | EndpointsError::Implausible(_))
                ),
                "{json}"
            );
        }
        assert_eq!(
            parse(&array(r#""192.0.2.0/24","nonsense""#)),
            Err(EndpointsError::NotABlock("nonsense".to_owned()))
        );
        let json = format!(
            r#"{{"version":"2026023000","endpoints":{}}}"#,
            array(r#""192.0.2.0/24""#)
        );
        assert!(
            matches!(parse(&json), Err(EndpointsError::NotReadable(_))),
            "30 February"
        );
    }

    #[test]
    fn empty_or_absurdly_wide_data_is_refused() {
        assert_eq!(
            parse("[]"),
            Err(EndpointsError::Implausible(Implausible::Empty))
        );
        assert_eq!(
            parse(&array("")),
            Err(EndpointsError::Implausible(Implausible::Empty))
        );
        for wide in [
            "0.0.0.0/0",
            "64.0.0.0/7",
            "::/0",
            "2a00::/12",
            "2a01:100::/23",
            "::ffff:0.0.0.0/96",
        ] {
            let answer = parse(&array(&format!(r#""192.0.2.0/24","{wide}""#)));
            assert!(
                matches!(
                    answer,
                    Err(EndpointsError::Implausible(Implausible::TooWide(_)))
                ),
                "{wide}"
            );
        }
        let old = published(&["192.0.2.0/24"]);
        assert_eq!(replace(&old, published(&[])), Err(Implausible::Empty));
        assert!(matches!(
            replace(&old, published(&["192.0.2.0/24", "0.0.0.0/1"])),
            Err(Implausible::TooWide(_))
        ));
    }

    #[test]
    fn more_than_half_of_a_family_may_not_go() {
        let old = published(&["10.0.0.0/24", "10.0.2.0/24", "2001:db8::/32"]);
        let fits = |blocks: &[&str]| replace(&old, published(blocks)).map(|_| ());
        assert_eq!(
            fits(&["10.0.0.0/24", "2001:db8::/32"]),
            Ok(()),
            "half of it"
        );
        assert_eq!(fits(&["10.0.0.0/8", "2001:db8::/32"]), Ok(()), "grown");
        assert_eq!(
            fits(&["10.0.0.0/25", "10.0.0.0/24", "2001:db8::/33"]),
            Ok(()),
            "overlapping blocks count once"
        );
        assert_eq!(
            fits(&[
                "10.0.0.0/25",
                "10.0.0.0/26",
                "10.0.0.64/26",
                "192.0.2.0/24",
                "2001:db8::/32"
            ]),
            Err(Implausible::Shrunk { family: "IPv4" })
        );
        assert_eq!(
            fits(&["10.0.0.0/22"]),
            Err(Implausible::Shrunk { family: "IPv6" })
        );
        assert_eq!(
            fits(&["2001:db8::/32"]),
            Err(Implausible::Shrunk { family: "IPv4" })
        );
    }
}
