//! Which addresses does one entry of a list hold, seen from another?

use crate::mail::{DomainPattern, MailboxPattern};
use crate::route::Recipients;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Whether every domain that `inner` means is meant by one of `outer`.
pub(super) fn domain_within<'p>(
    inner: &DomainPattern,
    mut outer: impl Iterator<Item = &'p DomainPattern>,
) -> bool {
    outer.any(|outer| match (inner, outer) {
        (DomainPattern::AtOrBelow(_), DomainPattern::Exact(_)) => false,
        (DomainPattern::AtOrBelow(domain) | DomainPattern::Exact(domain), outer) => {
            outer.matches(domain)
        }
    })
}

/// Whether every mailbox that `inner` means lies in one of these domains. The null sender lies in none.
pub(super) fn mailboxes_within<'p>(
    inner: &MailboxPattern,
    mut outer: impl Iterator<Item = &'p DomainPattern>,
) -> bool {
    match inner {
        MailboxPattern::NullSender => false,
        MailboxPattern::Mailbox(mailbox) => outer.any(|outer| outer.matches(mailbox.domain())),
        MailboxPattern::Domain(domain) => domain_within(domain, outer),
    }
}

/// Whether every recipient of `inner` is one of `outer`, for a tenant with these accepted domains.
pub(super) fn recipients_within(
    inner: &Recipients,
    outer: &Recipients,
    accepted: &[&DomainPattern],
) -> bool {
    let domains = |list: &[MailboxPattern]| -> Vec<DomainPattern> {
        let domain = |pattern: &MailboxPattern| match pattern {
            MailboxPattern::Domain(domain) => Some(domain.clone()),
            MailboxPattern::Mailbox(_) | MailboxPattern::NullSender => None,
        };
        list.iter().filter_map(domain).collect()
    };
    match (inner, outer) {
        (_, Recipients::Any) | (Recipients::Accepted, Recipients::Accepted) => true,
        (Recipients::Any, Recipients::Accepted | Recipients::Listed(_)) => false,
        (Recipients::Listed(inner), Recipients::Accepted) => inner
            .iter()
            .all(|pattern| mailboxes_within(pattern, accepted.iter().copied())),
        (Recipients::Accepted, Recipients::Listed(outer)) => {
            let outer = domains(outer);
            !accepted.is_empty()
                && accepted
                    .iter()
                    .all(|domain| domain_within(domain, outer.iter()))
        }
        (Recipients::Listed(inner), Recipients::Listed(outer)) => {
            let outer_domains = domains(outer);
            inner.iter().all(|pattern| {
                mailboxes_within(pattern, outer_domains.iter())
                    || matches!(pattern, MailboxPattern::Mailbox(own) if outer.iter().any(|outer| outer.matches(own)))
            })
        }
    }
}

/// Whether a block lies in address space that the Internet does not route: private, shared, link-local, loopback.
pub(super) fn is_private(block: &IpNet) -> bool {
    let within_v4 = |own: &Ipv4Net, outer: [u8; 4], prefix| {
        Ipv4Net::new(outer.into(), prefix).is_ok_and(|outer| outer.contains(own))
    };
    let within_v6 = |own: &Ipv6Net, first: u16, prefix| {
        Ipv6Net::new([first, 0, 0, 0, 0, 0, 0, 0].into(), prefix)
            .is_ok_and(|outer| outer.contains(own))
    };
    match block {
        IpNet::V4(own) => [
            ([10, 0, 0, 0], 8),
            ([172, 16, 0, 0], 12),
            ([192, 168, 0, 0], 16),
            ([100, 64, 0, 0], 10),
            ([169, 254, 0, 0], 16),
            ([127, 0, 0, 0], 8),
        ]
        .into_iter()
        .any(|(outer, prefix)| within_v4(own, outer, prefix)),
        IpNet::V6(own) => {
            within_v6(own, 0xfc00, 7)
                || within_v6(own, 0xfe80, 10)
                || (own.prefix_len() == 128 && own.addr().is_loopback())
        }
    }
}

/// Whether a block holds more than sixteen addresses (a /28 of IPv4).
pub(super) fn is_wide(block: &IpNet) -> bool {
    block.max_prefix_len() - block.prefix_len() > 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(patterns: &[&str]) -> Recipients {
        Recipients::Listed(
            patterns
                .iter()
                .map(|pattern| pattern.parse().unwrap())
                .collect(),
        )
    }

    #[test]
    fn recipients_of_one_route_may_all_be_anothers() {
        let patterns: [DomainPattern; 2] = [
            "contoso.com".parse().unwrap(),
            "*.contoso.net".parse().unwrap(),
        ];
        let accepted: Vec<&DomainPattern> = patterns.iter().collect();
        let within =
            |inner: &Recipients, outer: &Recipients| recipients_within(inner, outer, &accepted);
        assert!(within(&listed(&["x@y.example"]), &Recipients::Any));
        assert!(within(
            &listed(&["x@contoso.com", "*.contoso.net"]),
            &Recipients::Accepted
        ));
        assert!(!within(
            &listed(&["x@contoso.com", "*.contoso.com"]),
            &Recipients::Accepted
        ));
        assert!(within(
            &Recipients::Accepted,
            &listed(&["*.contoso.com", "*.contoso.net"])
        ));
        assert!(!within(
            &Recipients::Accepted,
            &listed(&["contoso.com", "contoso.net"])
        ));
        assert!(within(
            &listed(&["X@y.example", "a.b.example"]),
            &listed(&["x@y.example", "*.b.example"])
        ));
        assert!(!within(&listed(&["*.b.example"]), &listed(&["b.example"])));
        assert!(!within(&Recipients::Any, &Recipients::Accepted));
        assert!(!within(&Recipients::Any, &listed(&["*.com"])));
    }

    #[test]
    fn private_and_wide_blocks() {
        for (block, private, wide) in [
            ("10.0.0.0/28", true, false),
            ("10.0.0.0/8", true, true),
            ("172.16.0.1/32", true, false),
            ("172.32.0.1/32", false, false),
            ("8.0.0.0/6", false, true),
            ("192.0.2.0/27", false, true),
            ("100.64.0.0/30", true, false),
            ("fd00::/124", true, false),
            ("2001:db8::/64", false, true),
            ("::1/128", true, false),
        ] {
            let block: IpNet = block.parse().unwrap();
            assert_eq!(
                (is_private(&block), is_wide(&block)),
                (private, wide),
                "{block}"
            );
        }
    }
}
