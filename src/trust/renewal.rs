//! What would break if this certificate took the place of that one?
//!
//! Asked at a reload, before a renewed certificate is taken, and in a rehearsal. Only what was well before and is not
//! afterwards is a loss: who starts with a bad certificate is told by the check, and must be able to mend it by halves.
//! What an administrator changes at the same time is his own will: other accepted domains, another host name.

use super::certificate::Identity;
use super::chain::Chain;
use super::sender_name::{SenderName, is_meant};
use crate::mail::{Domain, DomainSet};
use std::fmt;

/// What the certificate in force gives and the new one does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The new one is not valid now.
    Dates,
    /// The new chain does not lead to a root, and the old one did; the issuer that ends it.
    Chain {
        /// As the last certificate says.
        issuer: String,
    },
    /// The name is lost by which Exchange's inbound connector knows the certificate today.
    Attribution {
        /// What `TlsSenderCertificateName` is taken to be today: what `connector render` writes for the one in force.
        connector_name: String,
        /// The names of the new certificate.
        names: Vec<String>,
    },
    /// The host name is not covered any more.
    Hostname {
        /// It.
        hostname: Domain,
        /// The names of the new certificate.
        names: Vec<String>,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dates => f.write_str("the one in force is valid today, the new one is not"),
            Self::Chain { issuer } => write!(
                f,
                "the chain ends below \"{issuer}\", which is no known root, and the one in force is complete: Exchange Online does not fetch an intermediate, and takes the certificate for nobody's"
            ),
            Self::Attribution {
                connector_name,
                names,
            } => write!(
                f,
                "Exchange takes the tenant's mail by {connector_name}, and the new certificate ({}) does not carry that name: an inbound connector with that TlsSenderCertificateName, as `connector render` writes it, would refuse the mail (550 5.7.64). With another name, add it to accepted_domains in the same reload, and set TlsSenderCertificateName. Where the connector says another name of the new certificate already, a restart takes it",
                names.join(", ")
            ),
            Self::Hostname { hostname, names } => write!(
                f,
                "the one in force covers hostname {hostname}, the new one ({}) does not: an outbound connector with that TlsDomain would keep its mail (450 4.4.317)",
                names.join(", ")
            ),
        }
    }
}

/// Whether the new one is not valid at this time (seconds since 1970) and the old one is.
#[must_use]
pub fn dates(before: &Identity, after: &Identity, unix_seconds: u64) -> Option<Loss> {
    let lost = before.is_valid_at(unix_seconds) && !after.is_valid_at(unix_seconds);
    lost.then_some(Loss::Dates)
}

/// Whether an intermediate went missing: the old chain leads to a root that is known here and the new one does not, or the
/// new one ends below an intermediate that the old one held.
#[must_use]
pub fn chain(before: &Identity, after: &Identity) -> Option<Loss> {
    let (old, new) = (
        Chain::read(&before.chain).ok()?,
        Chain::read(&after.chain).ok()?,
    );
    let torn = |(der, _): (&[u8], _)| old.holds_intermediate(der);
    let lost = before.known_root && !after.known_root || new.beyond().is_some_and(torn);
    let last = new.links.last()?;
    lost.then(|| Loss::Chain {
        issuer: last.issuer.clone(),
    })
}

/// Whether Exchange would not know a tenant by the new certificate any more; each with the accepted domains of its time.
#[must_use]
pub fn attribution(
    before: (&Identity, &DomainSet),
    after: (&Identity, &DomainSet),
) -> Option<Loss> {
    let ((old, accepted_before), (new, accepted)) = (before, after);
    // Of several names a connector has one. Which one, nobody here knows: the first, if nobody has set it by hand, and a domain
    // that the tenant gives up takes its name with it.
    let connector_names = SenderName::of(&old.names, accepted_before).connector_names();
    let connector_name = connector_names.into_iter().find(|name| {
        let domain = name.strip_prefix("*.").unwrap_or(name).parse::<Domain>();
        domain.is_ok_and(|domain| accepted.contains(&domain))
    })?;
    let is_lost = !is_meant(&connector_name, &new.names);
    let moves = match SenderName::of(&new.names, accepted) {
        SenderName::Exact(domains) => domains.iter().any(|own| !accepted_before.contains(own)),
        SenderName::Below { parent, .. } => !accepted_before.contains(&parent),
        SenderName::None => false,
    };
    (is_lost && !moves).then(|| Loss::Attribution {
        connector_name,
        names: new.names.clone(),
    })
}

/// The connector's name that is watched over, before and after, where it becomes another: nothing is lost today, but the
/// connector presumably still says the first, and the next renewal may lose it.
#[must_use]
pub fn moved(
    before: (&Identity, &DomainSet),
    after: (&Identity, &DomainSet),
) -> Option<(String, String)> {
    let name = |(identity, accepted): (&Identity, &DomainSet)| {
        SenderName::of(&identity.names, accepted).connector_name()
    };
    let (old, new) = (name(before)?, name(after)?);
    (old != new).then_some((old, new))
}

/// Whether a connector listener would not be found under the host name any more; each with the host name of its time.
#[must_use]
pub fn hostname(before: (&Identity, &Domain), after: (&Identity, &Domain)) -> Option<Loss> {
    let ((old, hostname_before), (new, hostname)) = (before, after);
    let lost = hostname_before == hostname && old.covers(hostname_before) && !new.covers(hostname);
    lost.then(|| Loss::Hostname {
        hostname: hostname.clone(),
        names: new.names.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::certificates::{Authority, Issued, Leaf};
    use rustls_pki_types::PrivatePkcs8KeyDer;

    fn identity(issued: Issued, known_root: bool) -> Identity {
        let new = Identity::new("contoso".into(), issued.chain, issued.key).unwrap();
        Identity { known_root, ..new }
    }

    fn named(names: &[&str]) -> Identity {
        let authority = Authority::new("Lab").unwrap();
        let leaf = Leaf::named(names[0]);
        let leaf = names[1..].iter().fold(leaf, |leaf, name| leaf.and(name));
        identity(authority.issue(&leaf).unwrap(), false)
    }

    fn domains(list: &[&str]) -> DomainSet {
        DomainSet::new(list.iter().map(|own| own.parse().unwrap()).collect())
    }

    fn lost(before: (&[&str], &[&str]), after: (&[&str], &[&str])) -> bool {
        let (old, new) = (named(before.0), named(after.0));
        let (was, is) = (domains(before.1), domains(after.1));
        attribution((&old, &was), (&new, &is)).is_some()
    }

    #[test]
    fn a_name_that_exchange_goes_by_must_stay() {
        let accepted: &[&str] = &["contoso.com", "contoso.onmicrosoft.com"];
        for (old, new, is_lost) in [
            (
                &["contoso.com"][..],
                &["contoso.com", "x.example"][..],
                false,
            ),
            (&["contoso.com"], &["elsewhere.example"], true),
            (&["contoso.com"], &["mail.contoso.com"], true),
            (&["contoso.com"], &["*.contoso.com"], true),
            (&["contoso.com"], &["contoso.onmicrosoft.com"], true),
            (
                &["contoso.com", "contoso.onmicrosoft.com"],
                &["contoso.com"],
                false,
            ),
            // A connector has one of the names, and the first is what our scripts write.
            (
                &["contoso.com", "contoso.onmicrosoft.com"],
                &["contoso.onmicrosoft.com"],
                true,
            ),
            (
                &["contoso.com", "contoso.onmicrosoft.com"],
                &["contoso.onmicrosoft.com", "contoso.com"],
                false,
            ),
            // By a wildcard on the connector.
            (&["mail.contoso.com"], &["smtp.contoso.com"], false),
            (&["mail.contoso.com"], &["*.contoso.com"], false),
            (&["mail.contoso.com"], &["contoso.com"], true),
            (
                &["mail.contoso.com"],
                &["mail.contoso.onmicrosoft.com"],
                true,
            ),
            // Bad before: the check alone judges it.
            (&["x.example"], &["y.example"], false),
        ] {
            assert_eq!(
                lost((old, accepted), (new, accepted)),
                is_lost,
                "{old:?} {new:?}"
            );
        }
    }

    #[test]
    fn a_name_that_moves_without_a_loss_is_told() {
        let both = domains(&["contoso.com", "contoso.net"]);
        let (one, two) = (
            named(&["contoso.com", "contoso.net"]),
            named(&["contoso.net", "contoso.com"]),
        );
        let told = moved((&one, &both), (&two, &both));
        assert_eq!(
            told,
            Some(("contoso.com".to_owned(), "contoso.net".to_owned()))
        );
        assert_eq!(moved((&one, &both), (&one, &both)), None);
        let (below, own) = (
            named(&["mail.contoso.com"]),
            domains(&["contoso.com", "mail.contoso.com"]),
        );
        let told = moved((&below, &both), (&below, &own));
        assert_eq!(
            told,
            Some(("*.contoso.com".to_owned(), "mail.contoso.com".to_owned()))
        );
    }

    #[test]
    fn who_changes_accepted_domains_at_the_same_time_means_it() {
        let own: &[&str] = &["contoso.com"];
        let with_new: &[&str] = &["contoso.com", "gate.contoso.com"];
        // The new name becomes accepted together with the certificate that carries it.
        assert!(!lost((own, own), (&["gate.contoso.com"], with_new)));
        // The domain of the old name is given up.
        assert!(!lost((own, own), (&["contoso.net"], &["contoso.net"])));
        assert!(!lost(
            (
                &["contoso.com", "contoso.net"],
                &["contoso.com", "contoso.net"]
            ),
            (&["contoso.net"], &["contoso.net"])
        ));
        assert!(lost(
            (
                &["contoso.com", "contoso.net", "contoso.org"],
                &["contoso.com", "contoso.net", "contoso.org"]
            ),
            (&["contoso.org"], &["contoso.net", "contoso.org"])
        ));
        // A domain more is no excuse for a certificate that has to do with neither.
        assert!(lost((own, own), (&["x.example"], with_new)));
        assert!(lost(
            (own, own),
            (&["mail.contoso.com"], &["contoso.com", "contoso.net"])
        ));
    }

    #[test]
    fn a_host_name_that_was_covered_stays_covered_while_it_is_the_same() {
        let (one, two): (Domain, Domain) = (
            "smarthost.contoso.com".parse().unwrap(),
            "other.contoso.com".parse().unwrap(),
        );
        let (exact, wild) = (named(&[one.as_str()]), named(&["*.contoso.com"]));
        let foreign = named(&["contoso.com"]);
        assert_eq!(hostname((&exact, &one), (&wild, &one)), None);
        assert!(hostname((&exact, &one), (&foreign, &one)).is_some());
        assert_eq!(hostname((&exact, &one), (&foreign, &two)), None, "renamed");
        assert_eq!(
            hostname((&foreign, &one), (&foreign, &one)),
            None,
            "bad before"
        );
    }

    #[test]
    fn a_missing_intermediate_is_a_loss_and_another_authority_is_none() {
        let leaf = Leaf::named("contoso.com");
        let (one, two) = (
            Authority::new("One").unwrap(),
            Authority::new("Two").unwrap(),
        );
        let whole = identity(one.issue(&leaf).unwrap(), false);
        let torn = identity(one.issue(&leaf).unwrap().without_intermediate(), false);
        let other = identity(two.issue(&leaf).unwrap(), false);
        assert!(
            matches!(chain(&whole, &torn), Some(Loss::Chain { issuer }) if issuer == "CN=One Issuing CA")
        );
        assert_eq!(chain(&torn, &torn), None, "bad before");
        assert_eq!(chain(&whole, &other), None);
        let public = identity(one.issue(&leaf).unwrap(), true);
        assert!(chain(&public, &other).is_some(), "a public root, then none");
        assert_eq!(chain(&other, &public), None);
        let own = rcgen::generate_simple_self_signed(["contoso.com".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into();
        let own = Identity::new("contoso".into(), vec![own.cert.der().clone()], key).unwrap();
        assert!(matches!(chain(&public, &own), Some(Loss::Chain { .. })));
        assert_eq!(chain(&whole, &own), None, "nobody's root before");
    }

    #[test]
    fn a_lapsed_one_does_not_replace_a_valid_one() {
        let authority = Authority::new("Lab").unwrap();
        let issue = |leaf: Leaf| identity(authority.issue(&leaf).unwrap(), false);
        let (good, bad) = (
            issue(Leaf::named("contoso.com")),
            issue(Leaf::named("contoso.com").expired()),
        );
        const NOW: u64 = 1_795_594_533;
        assert_eq!(dates(&good, &bad, NOW), Some(Loss::Dates));
        assert_eq!(dates(&bad, &bad, NOW), None);
        assert_eq!(dates(&bad, &good, NOW), None);
    }
}
