//! What would break if this certificate took the place of that one?
//!
//! Asked at a reload, before a renewed certificate is taken, and in a rehearsal. Only what was well before and is not
//! afterwards is a loss: who starts with a bad certificate is told by the check, and must be able to mend it by halves.
//! What an administrator changes at the same time is his own will: other accepted domains, another host name.
//!
//! Each use is judged as its other side does: a connector's as that of a client, a listener's as that of a server. A chain
//! to a root that nobody knows (an own authority, a self-signed certificate in a lab) is held against what it says itself.

use super::certificate::{Identity, Role, Roots, WhyAbsent, holds};
use super::chain::{Chain, Link};
use super::sender_name::{SenderName, is_meant};
use crate::mail::{Domain, DomainSet, printable};
use std::fmt;

/// What the certificate in force gives and the new one does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The new one is not valid now.
    Dates {
        /// Not it itself, but this certificate of its chain, and what is the matter with it.
        above: Option<String>,
    },
    /// An extended key usage of the new chain does not allow what it is shown for.
    Usage {
        /// What for.
        role: Role,
        /// Whose usage.
        whose: String,
    },
    /// The new chain does not hold for another reason (signature, constraints, depth).
    Broken {
        /// It.
        why: WhyAbsent,
    },
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
    /// The name is not covered any more by which a listener is found.
    Hostname {
        /// It: the host name, or where the one in force does not cover that, the first name that it has.
        name: String,
        /// Whether it is the host name.
        is_hostname: bool,
        /// Whether Exchange connects there, and not applications.
        is_connector: bool,
        /// The names of the new certificate.
        names: Vec<String>,
        /// The new one says it, but in its subject CN alone.
        in_common_name: bool,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dates { above } => {
                f.write_str("the one in force is valid today, the new one is not")?;
                above.iter().try_for_each(|above| write!(f, ": {above}"))
            }
            Self::Usage { role, whose } => {
                let fails = match role {
                    Role::Client => {
                        "allows neither client nor server authentication, which the one in force does: Exchange Online would not know the tenant by it (550 5.7.64)"
                    }
                    Role::Server => {
                        "does not allow server authentication, which the one in force does: on a listener whoever looks refuses it, Exchange Online (450 4.4.317) and applications"
                    }
                };
                write!(f, "the extended key usage of {whose} {fails}")
            }
            Self::Broken { why } => write!(
                f,
                "{why}, and that of the one in force does: whoever looks refuses it (450 4.4.317, 550 5.7.64)"
            ),
            Self::Chain { issuer } => write!(
                f,
                "the chain ends below \"{issuer}\" and leads to no known root, and the one in force is complete: Exchange Online does not fetch an intermediate, and takes the certificate for nobody's"
            ),
            Self::Attribution {
                connector_name,
                names,
            } => write!(
                f,
                "Exchange takes the tenant's mail by {connector_name}, and the new certificate ({}) does not carry that name: an inbound connector with that TlsSenderCertificateName, as `connector render` writes it, would refuse the mail (550 5.7.64). With another name, add it to accepted_domains in the same reload, and set TlsSenderCertificateName. Where the connector says another name of the new certificate already, a restart takes it",
                list(names)
            ),
            Self::Hostname {
                name,
                is_hostname,
                is_connector,
                names,
                in_common_name,
            } => {
                let (name, names) = (printable(name), list(names));
                if *is_hostname {
                    write!(f, "the one in force covers hostname {name}, ")?;
                } else {
                    write!(f, "the one in force has the name {name}, ")?;
                }
                if *in_common_name {
                    f.write_str("the new one has it in its subject CN alone, where whoever looks at the SAN does not find it: ")?;
                } else {
                    write!(f, "the new one ({names}) does not: ")?;
                }
                f.write_str(if *is_connector {
                    "an outbound connector with that TlsDomain would keep its mail (450 4.4.317)"
                } else {
                    "applications that look for it would refuse it"
                })?;
                if *is_hostname {
                    Ok(())
                } else {
                    f.write_str(". Where they look for another name of the new one already, a restart takes it")
                }
            }
        }
    }
}

fn list(names: &[String]) -> String {
    printable(&names.join(", "))
}

/// Whether the new one does not hold where the old one does, shown so, at this time (seconds since 1970). `roots` are those
/// that a known root is one of.
#[must_use]
pub fn soundness(
    before: &Identity,
    after: &Identity,
    role: Role,
    roots: &Roots,
    unix_seconds: u64,
) -> Option<Loss> {
    dates(before, after, unix_seconds)
        .or_else(|| chain(before, after))
        .or_else(|| {
            let fault = |own| fault(own, role, roots, unix_seconds);
            fault(after).filter(|_| fault(before).is_none())
        })
}

/// Why a chain does not hold, shown so. That its root is unknown is not asked here.
fn fault(own: &Identity, role: Role, roots: &Roots, unix_seconds: u64) -> Option<Loss> {
    let chain = Chain::read(&own.chain).ok()?;
    let dates = || {
        let (number, link) = chain.outside_dates(unix_seconds)?;
        let above = (number > 1).then(|| {
            let what = if link.not_before > unix_seconds {
                "is not valid yet"
            } else {
                "has expired"
            };
            format!("{} {what}", whose(number, link))
        });
        Some(Loss::Dates { above })
    };
    let usage = || {
        let (number, link) = chain.forbids(role)?;
        let whose = whose(number, link);
        Some(Loss::Usage { role, whose })
    };
    let why = if own.known_root {
        holds(&own.chain, roots, unix_seconds, role).err()?
    } else {
        if let Some(fault) = dates().or_else(usage) {
            return Some(fault);
        }
        // A lone one has nobody to vouch for it.
        let end = own.chain.iter().skip(1).last()?;
        let (end, _) = Roots::from_certificates([end]);
        holds(&own.chain, &end, unix_seconds, role).err()?
    };
    let told = match why {
        WhyAbsent::Expired | WhyAbsent::NotYetValid => dates(),
        WhyAbsent::WrongKeyUsage => usage(),
        WhyAbsent::NoTls
        | WhyAbsent::NotPresented
        | WhyAbsent::Malformed
        | WhyAbsent::UnknownIssuer
        | WhyAbsent::BadChain
        | WhyAbsent::NameMismatch { .. } => None,
    };
    Some(told.unwrap_or(Loss::Broken { why }))
}

fn whose(number: usize, link: &Link) -> String {
    match number {
        1 => "the certificate".to_owned(),
        number => format!("certificate {number} of its chain ({})", link.subject),
    }
}

/// Whether the new one is not valid at this time (seconds since 1970) and the old one is.
#[must_use]
pub fn dates(before: &Identity, after: &Identity, unix_seconds: u64) -> Option<Loss> {
    let lost = before.is_valid_at(unix_seconds) && !after.is_valid_at(unix_seconds);
    lost.then_some(Loss::Dates { above: None })
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

/// The name that whoever connects to a listener with this certificate is taken to look for, and whether it is the host
/// name: that one where the certificate covers it, else the first that it has.
#[must_use]
pub fn looked_for(identity: Option<&Identity>, hostname: &Domain) -> (String, bool) {
    let first = identity
        .filter(|own| !own.covers(hostname))
        .and_then(|own| own.names.first());
    match first {
        Some(first) => (first.replacen("*.", "smarthost.", 1), false),
        None => (hostname.as_str().to_owned(), true),
    }
}

/// Whether a listener would not be found under its name any more; each with the host name of its time.
#[must_use]
pub fn hostname(
    before: (&Identity, &Domain),
    after: (&Identity, &Domain),
    is_connector: bool,
) -> Option<Loss> {
    let ((old, hostname_before), (new, hostname)) = (before, after);
    let (name, is_hostname) = looked_for(Some(old), hostname_before);
    let lost = hostname_before == hostname && old.serves(&name) && !new.serves(&name);
    let domain = name.parse::<Domain>();
    lost.then(|| Loss::Hostname {
        name,
        is_hostname,
        is_connector,
        names: new.names.clone(),
        in_common_name: domain.is_ok_and(|domain| new.covers(&domain)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::certificates::{Above, Authority, Issued, Leaf};
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
        let hostname = |before, after| hostname(before, after, true);
        assert_eq!(hostname((&exact, &one), (&wild, &one)), None);
        assert!(hostname((&exact, &one), (&foreign, &one)).is_some());
        assert_eq!(hostname((&exact, &one), (&foreign, &two)), None, "renamed");
        assert_eq!(
            hostname((&foreign, &one), (&foreign, &one)),
            None,
            "bad before"
        );
        // Found by another name today: TlsDomain says that one.
        let told = hostname((&foreign, &one), (&exact, &one)).unwrap();
        let told = told.to_string();
        assert!(told.starts_with("the one in force has the name contoso.com, the new one (smarthost.contoso.com) does not: an outbound"), "{told}");
        assert!(told.ends_with("a restart takes it"), "{told}");
    }

    #[test]
    fn a_host_name_in_the_common_name_alone_is_not_found_and_names_are_told_harmlessly() {
        let host: Domain = "smarthost.contoso.com".parse().unwrap();
        let exact = named(&[host.as_str()]);
        let bare = Leaf::named(host.as_str()).without_alternative_names();
        let bare = identity(Authority::new("Lab").unwrap().issue(&bare).unwrap(), false);
        assert!(bare.covers(&host), "as Exchange counts names");
        let told = hostname((&exact, &host), (&bare, &host), false).unwrap();
        let told = told.to_string();
        for part in ["in its subject CN alone", "applications that look for it"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(hostname((&bare, &host), (&bare, &host), false), None);
        let hostile = Identity {
            names: vec!["\u{1b}[31mred.example".to_owned(), "x".repeat(400)],
            ..named(&["elsewhere.example"])
        };
        let own = domains(&["contoso.com"]);
        let contoso = named(&["contoso.com"]);
        for loss in [
            hostname((&exact, &host), (&hostile, &host), true),
            attribution((&contoso, &own), (&hostile, &own)),
        ] {
            let told = loss.unwrap().to_string();
            assert!(
                !told.contains('\u{1b}') && told.contains("\\u{1b}[31mred"),
                "{told}"
            );
            assert!(!told.contains(&"x".repeat(200)), "{told}");
        }
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
        assert_eq!(dates(&good, &bad, NOW), Some(Loss::Dates { above: None }));
        assert_eq!(dates(&bad, &bad, NOW), None);
        assert_eq!(dates(&bad, &good, NOW), None);
    }

    const NOW: u64 = 1_795_594_533;

    /// What is lost, shown so, where the authority's root is known, and where it is not.
    fn told(before: &Issued, after: &Issued, role: Role, authority: &Authority) -> [String; 2] {
        let roots = Roots {
            anchors: authority.roots().unwrap().roots,
        };
        [true, false].map(|known| {
            let (old, new) = (
                identity(before.clone(), known),
                identity(after.clone(), known),
            );
            let loss = soundness(&old, &new, role, &roots, NOW);
            loss.map_or_else(String::new, |loss| loss.to_string())
        })
    }

    #[test]
    fn what_the_other_side_would_refuse_is_lost_whoever_the_authority_is() {
        let authority = Authority::new("Lab").unwrap();
        let leaf = || Leaf::named("contoso.com");
        let issue = |leaf: &Leaf| authority.issue(leaf).unwrap();
        let below = |above: Above| authority.issue_below(&leaf(), above).unwrap();
        let good = issue(&leaf());
        let neither = "neither client nor server authentication";
        let no_server = "does not allow server authentication";
        let (leafs, above) = (
            "usage of the certificate ",
            "usage of certificate 2 of its chain (CN=Lab Issuing CA) ",
        );
        for (new, client, server) in [
            (issue(&leaf()), "", ""),
            (issue(&leaf().server_auth_only()), "", ""),
            (
                issue(&leaf().code_signing_only()),
                &*format!("{leafs}allows {neither}"),
                &*format!("{leafs}{no_server}"),
            ),
            (issue(&leaf().client_auth_only()), "", no_server),
            (
                below(Above::ForEmail),
                &format!("{above}allows {neither}"),
                &format!("{above}{no_server}"),
            ),
            (
                below(Above::Until(NOW - 1)),
                "not: certificate 2 of its chain (CN=Lab Issuing CA) has expired",
                "not: certificate 2 of its chain (CN=Lab Issuing CA) has expired",
            ),
            (below(Above::Until(NOW + 1)), "", ""),
        ] {
            for (role, part) in [(Role::Client, client), (Role::Server, server)] {
                for told in told(&good, &new, role, &authority) {
                    assert_eq!(told.is_empty(), part.is_empty(), "{role:?} {told}");
                    assert!(told.contains(part), "{part}: {told}");
                }
                // Bad before: another of the same kind, and every mended one, goes in.
                for then in [&new, &good] {
                    let told = told(&new, then, role, &authority);
                    assert_eq!(told, ["", ""], "{role:?} {part}");
                }
            }
        }
    }

    #[test]
    fn a_chain_that_does_not_hold_for_what_is_above_it_is_lost_too() {
        let authority = Authority::new("Lab").unwrap();
        let leaf = Leaf::named("contoso.com");
        let good = authority.issue(&leaf).unwrap();
        let bad = authority.issue_below(&leaf, Above::ForElsewhere).unwrap();
        for told in told(&good, &bad, Role::Server, &authority) {
            assert!(
                told.starts_with("the chain does not hold, and that"),
                "{told}"
            );
        }
        assert_eq!(told(&bad, &bad, Role::Client, &authority), ["", ""]);
    }

    /// As `openssl req -x509` makes them, with CA:TRUE, and without it: who has one in force may have another.
    #[test]
    fn a_self_signed_one_takes_the_place_of_another() {
        let own = |is_ca: rcgen::IsCa| {
            let mut params = rcgen::CertificateParams::new(["contoso.com".to_owned()]).unwrap();
            params.is_ca = is_ca;
            let key = rcgen::KeyPair::generate().unwrap();
            let signed = params.self_signed(&key).unwrap();
            let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            Identity::new("contoso".into(), vec![signed.der().clone()], key).unwrap()
        };
        let ca = own(rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        let leaf = own(rcgen::IsCa::NoCa);
        let authority = Authority::new("Lab").unwrap();
        let private = identity(authority.issue(&Leaf::named("contoso.com")).unwrap(), false);
        for role in [Role::Client, Role::Server] {
            for (before, after) in [(&ca, &leaf), (&leaf, &ca), (&private, &ca), (&ca, &private)] {
                let loss = soundness(before, after, role, &Roots::default(), NOW);
                assert_eq!(loss, None);
            }
        }
    }
}
