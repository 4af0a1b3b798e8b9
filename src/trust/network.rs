//! Is a source address one of Exchange Online's?

use ipnet::{IpNet, Ipv4Net};
use std::fmt;
use std::net::IpAddr;

/// The blocks of `networks`, `published` resolved.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// These blocks.
    #[must_use]
    pub fn new(blocks: Vec<IpNet>) -> Self {
        Self(blocks)
    }

    /// Whether `address` lies in one; an IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|block| block.contains(&address))
    }

    /// The blocks.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }
}

/// Neither a CIDR block nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotABlock;

impl fmt::Display for NotABlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a CIDR block")
    }
}

impl std::error::Error for NotABlock {}

/// Reads a CIDR block, or one address as the block of itself. Host bits are cut off; an IPv4-mapped IPv6 block (RFC 4291
/// §2.5.5.2) becomes the IPv4 block that it means, because addresses are compared in that form.
///
/// # Errors
/// Neither of the two.
pub fn parse_block(text: &str) -> Result<IpNet, NotABlock> {
    let block: IpNet = match text.parse() {
        Ok(block) => block,
        Err(_) => text.parse::<IpAddr>().map_err(|_| NotABlock)?.into(),
    };
    let block = block.trunc();
    let IpNet::V6(v6) = block else {
        return Ok(block);
    };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix)
            .map(IpNet::V4)
            .map_err(|_| NotABlock),
        _ => Ok(block),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_and_blocks_count_as_ipv4() {
        let networks = Networks::new(vec![
            parse_block("40.92.0.0/15").unwrap(),
            parse_block("::ffff:10.0.0.0/104").unwrap(),
        ]);
        for address in [
            "40.93.214.103",
            "::ffff:40.93.214.103",
            "10.1.2.3",
            "::ffff:10.1.2.3",
        ] {
            assert!(networks.contains(address.parse().unwrap()), "{address}");
        }
        for address in [
            "40.94.0.0",
            "::ffff:11.0.0.1",
            "2a01:111:f400::1",
            "::40.93.214.103",
        ] {
            assert!(!networks.contains(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn blocks_are_read_strictly() {
        assert_eq!(
            parse_block("192.0.2.7").map(|block| block.to_string()),
            Ok("192.0.2.7/32".to_owned())
        );
        assert_eq!(
            parse_block("192.0.2.7/24").map(|block| block.to_string()),
            Ok("192.0.2.0/24".to_owned())
        );
        assert_eq!(
            parse_block("::1").map(|block| block.to_string()),
            Ok("::1/128".to_owned())
        );
        for bad in [
            "",
            "published",
            "192.0.2.0/33",
            "192.0.2",
            "192.0.2.0/",
            "::/129",
            "fe80::1%eth0",
        ] {
            assert_eq!(parse_block(bad), Err(NotABlock), "{bad}");
        }
    }
}
