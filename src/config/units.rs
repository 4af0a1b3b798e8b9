//! How are durations, sizes, rates, dates and blocks of addresses written? (contract, Fine print)

use crate::credentials::Rate;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use time::macros::format_description;

/// A whole number and s, m, h or d.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let why = "not a duration: a whole number and s, m, h or d, such as \"15m\"";
    let (digits, unit) = split_number(text).ok_or(why)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(why.to_owned()),
    };
    // A century is beyond every use, and keeps sums of moments and durations from overflowing.
    let seconds = digits
        .checked_mul(factor)
        .filter(|&seconds| seconds <= 100 * 365 * 24 * 60 * 60);
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "longer than a century".to_owned())
}

/// A duration that is not zero.
pub(super) fn some_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() {
        Err("zero, and must not be".to_owned())
    } else {
        Ok(duration)
    }
}

/// A whole number and KiB, MiB or GiB, in octets.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let why = "not a size: a whole number and KiB, MiB or GiB, such as \"150MiB\"";
    let (digits, unit) = split_number(text).ok_or(why)?;
    let factor: u64 = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(why.to_owned()),
    };
    match digits.checked_mul(factor) {
        Some(0) => Err("zero, and must not be".to_owned()),
        Some(octets) if octets <= i64::MAX as u64 => Ok(octets),
        _ => Err("too large".to_owned()),
    }
}

/// `N/unit`: N messages may come at once, and N in each unit.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let why = "not a rate: a whole number, / and second, minute, hour or day, such as \"600/hour\"";
    let (messages, unit) = text.split_once('/').ok_or(why)?;
    let seconds = match unit {
        "second" => 1,
        "minute" => 60,
        "hour" => 60 * 60,
        "day" => 24 * 60 * 60,
        _ => return Err(why.to_owned()),
    };
    let all_digits = !messages.is_empty() && messages.bytes().all(|octet| octet.is_ascii_digit());
    match messages.parse() {
        Ok(0) => Err("zero, and must not be".to_owned()),
        Ok(messages) if all_digits => Ok(Rate {
            messages,
            per: Duration::from_secs(seconds),
        }),
        _ => Err(why.to_owned()),
    }
}

/// A day (ISO 8601) as the seconds since 1970 of its start in UTC.
pub(super) fn date(text: &str) -> Result<u64, String> {
    let format = format_description!("[year]-[month]-[day]");
    let date = time::Date::parse(text, format).map_err(|_| "not a date such as \"2026-12-15\"")?;
    u64::try_from(date.midnight().assume_utc().unix_timestamp())
        .map_err(|_| "before 1970".to_owned())
}

/// A CIDR block, or one address.
pub(super) fn block(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let block: IpNet = text
        .parse()
        .map_err(|_| "not a CIDR block such as \"10.0.0.0/8\"".to_owned())?;
    if block.trunc() == block {
        Ok(block)
    } else {
        // 10.0.0.5/8 may mean the host or the whole net; the difference is sixteen million addresses of trust.
        Err(format!(
            "has bits beyond its prefix: write {} or {}",
            block.trunc(),
            IpNet::from(block.addr())
        ))
    }
}

/// An address with a port; `default_port` where one may be left out.
pub(super) fn socket(text: &str, default_port: Option<u16>) -> Result<SocketAddr, String> {
    if let (Some(port), Ok(address)) = (default_port, text.parse::<IpAddr>()) {
        return Ok(SocketAddr::new(address, port));
    }
    text.parse().map_err(|_| {
        "not an IP address with a port, such as \"127.0.0.1:25\" or \"[::1]:25\"".to_owned()
    })
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|octet| !octet.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("1m", 60),
            ("48h", 172_800),
            ("30d", 2_592_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "5",
            "m",
            "1.5h",
            "-1m",
            "1 m",
            "1M",
            "1ms",
            "1h30m",
            "+1m",
            "1w",
            "99999999999999999999d",
            "9999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(some_duration("0h").is_err());
    }

    #[test]
    fn sizes_are_a_whole_number_and_a_binary_unit() {
        assert_eq!(size("150MiB"), Ok(157_286_400));
        assert_eq!(size("1KiB"), Ok(1024));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        for bad in [
            "150MB",
            "150",
            "0MiB",
            "150 MiB",
            "150mib",
            "1.5MiB",
            "99999999999GiB",
            "18446744073709551616KiB",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_messages_in_a_unit() {
        let hour = Duration::from_secs(3600);
        assert_eq!(
            rate("600/hour"),
            Ok(Rate {
                messages: 600,
                per: hour
            })
        );
        assert_eq!(rate("1/second").unwrap().per, Duration::from_secs(1));
        assert_eq!(rate("1/minute").unwrap().per, Duration::from_secs(60));
        assert_eq!(rate("1/day").unwrap().per, Duration::from_secs(86_400));
        for bad in [
            "600",
            "600/h",
            "/hour",
            "0/hour",
            "-1/hour",
            "+1/hour",
            "1.5/hour",
            "600/week",
            "4294967296/day",
        ] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_date_is_the_start_of_its_day_in_utc() {
        assert_eq!(date("2026-12-15"), Ok(1_797_292_800));
        for bad in [
            "2026-13-01",
            "2026-02-30",
            "15.12.2026",
            "2026-12-15T00:00:00Z",
            "",
            "1969-12-31",
        ] {
            assert!(date(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_block_with_bits_beyond_its_prefix_is_refused() {
        assert_eq!(block("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(block("10.0.0.5").unwrap().to_string(), "10.0.0.5/32");
        assert_eq!(block("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(
            block("10.0.0.5/8")
                .unwrap_err()
                .contains("write 10.0.0.0/8 or 10.0.0.5/32")
        );
        for bad in ["10.0.0.0/33", "10.0.0/8", "published", ""] {
            assert!(block(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_may_be_left_out_only_where_there_is_a_default() {
        assert_eq!(socket("127.0.0.1:5353", None).unwrap().port(), 5353);
        assert_eq!(socket("[::1]:25", None).unwrap().port(), 25);
        assert_eq!(socket("127.0.0.1", Some(53)).unwrap().port(), 53);
        for bad in ["127.0.0.1", "localhost:25", ":25", "127.0.0.1:99999"] {
            assert!(socket(bad, None).is_err(), "{bad}");
        }
    }
}
