//! By which name of our certificate does Exchange take a tenant's mail? (exchange-online.md 2.2, 2.3)
//!
//! An inbound connector of Exchange names a domain in `TlsSenderCertificateName`. The certificate that we present must
//! carry that name, and the domain must be an accepted domain of the tenant. A wildcard name in a certificate is no domain:
//! Exchange matches it only with a wildcard on the connector, so it lies *below*.
//!
//! The answer is given here alone: what `connector render` writes and `diff` wants, what `certificate show` and `explain
//! attribution` say, what the lab sets, and what a reload watches over.

use crate::mail::{Domain, DomainPattern, DomainSet};

/// How the best of a certificate's names stands to a tenant's accepted domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderName {
    /// These names are accepted domains: each is a good `TlsSenderCertificateName`. In the order of the certificate, those
    /// before that are entries of their own and not meant by `*.` and a parent alone.
    Exact(Vec<Domain>),
    /// None is one, but this lies below one: Exchange's connector needs `*.` and the parent, or the tenant the sub-domain.
    Below {
        /// The name.
        name: DomainPattern,
        /// The accepted domain that it is below.
        parent: Domain,
    },
    /// No name has to do with the tenant: Exchange refuses the mail (550 5.7.64), or takes it for somebody else's.
    None,
}

impl SenderName {
    /// How `names`, as a certificate writes them, stand to `accepted`.
    #[must_use]
    pub fn of(names: &[String], accepted: &DomainSet) -> Self {
        let names: Vec<DomainPattern> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let mut exact: Vec<Domain> = names
            .iter()
            .filter_map(|name| match name {
                DomainPattern::Exact(domain) => accepted.contains(domain).then(|| domain.clone()),
                DomainPattern::AtOrBelow(_) => None,
            })
            .collect();
        if !exact.is_empty() {
            let is_entry = |name: &Domain| {
                let entry = DomainPattern::Exact(name.clone());
                accepted.iter().any(|own| *own == entry)
            };
            exact.sort_by_key(|name| !is_entry(name));
            return Self::Exact(exact);
        }
        // A name of its own could become an accepted domain; a wildcard never.
        let is_wildcard = |name: &DomainPattern| matches!(name, DomainPattern::AtOrBelow(_));
        let below = names
            .into_iter()
            .filter_map(|name| Some((nearest(&name, accepted)?, name)));
        let best = below.min_by_key(|(_, name)| is_wildcard(name));
        best.map_or(Self::None, |(parent, name)| Self::Below { name, parent })
    }

    /// What `TlsSenderCertificateName` is to say: `connector render` writes it, and a reload watches over it.
    #[must_use]
    pub fn connector_name(&self) -> Option<String> {
        self.connector_names().into_iter().next()
    }

    /// What deserves a look, with what mends it: neither way is wrong, and the first is safer (exchange-online.md 2.2).
    /// `accepted` is what the names were compared with.
    #[must_use]
    pub fn warning(&self, accepted: &DomainSet) -> Option<String> {
        let (name, parent) = match self {
            Self::Below { name, parent } => (name, parent),
            Self::Exact(names) => return by_pattern(names.first()?, accepted),
            Self::None => return None,
        };
        let safer = match name {
            DomainPattern::Exact(domain) => format!(
                "add {domain} as an accepted domain of the tenant (verified), and to accepted_domains"
            ),
            DomainPattern::AtOrBelow(_) => {
                "take a certificate with a name that is an accepted domain".to_owned()
            }
        };
        Some(format!(
            "its name {name} is below the accepted domain {parent}, not one itself. Safer: {safer}. Or set TlsSenderCertificateName to *.{parent} on Exchange's inbound connector, as `connector render` does until then; that is discouraged, since every other certificate of {parent} fits it too"
        ))
    }

    /// What `TlsSenderCertificateName` may say so that the certificate is matched, best first.
    #[must_use]
    pub fn connector_names(&self) -> Vec<String> {
        match self {
            Self::Exact(domains) => domains.iter().map(ToString::to_string).collect(),
            Self::Below { parent, .. } => vec![format!("*.{parent}")],
            Self::None => Vec::new(),
        }
    }
}

/// What deserves a look where a name is an accepted domain by an entry with sub-domains alone: that this counts for a
/// certificate is our conclusion (exchange-online.md 2.2).
fn by_pattern(name: &Domain, accepted: &DomainSet) -> Option<String> {
    if accepted.iter().any(|own| own.domain() == name) {
        return None;
    }
    let entry = accepted.iter().find(|own| own.matches(name))?.domain();
    Some(format!(
        "its name {name} is an accepted domain by *.{entry} alone, and that Exchange counts this for a certificate is not documented: reports and forwarded mail may be refused (550 5.7.64). Safer: add {name} as an accepted domain of the tenant (verified), and to accepted_domains as an entry of its own"
    ))
}

/// The accepted domain that a name is at or below; among several the nearest, which the fewest other certificates fit.
fn nearest(name: &DomainPattern, accepted: &DomainSet) -> Option<Domain> {
    let parents = accepted.iter().map(DomainPattern::domain);
    let above = parents.filter(|parent| name.domain().is_at_or_below(parent));
    above.max_by_key(|parent| parent.as_str().len()).cloned()
}

/// What somebody would have written into `TlsSenderCertificateName` for a certificate with these names, where nobody has told:
/// [`SenderName::connector_name`], and where no name fits, the first all the same.
#[must_use]
pub fn assumed(names: &[String], accepted: &DomainSet) -> Option<String> {
    let fitting = SenderName::of(names, accepted).connector_name();
    fitting.or_else(|| names.first().cloned())
}

/// Whether a connector whose `TlsSenderCertificateName` is `connector_name` means a certificate with these names: one of them
/// is the same, or lies below what follows `*.`.
#[must_use]
pub fn is_meant(connector_name: &str, names: &[String]) -> bool {
    let Ok(wanted) = connector_name.parse::<DomainPattern>() else {
        return false;
    };
    let mut names = names.iter().filter_map(|name| name.parse().ok());
    names.any(|name| match (&wanted, &name) {
        (DomainPattern::Exact(wanted), DomainPattern::Exact(name)) => wanted == name,
        (DomainPattern::Exact(_), DomainPattern::AtOrBelow(_)) => false,
        (DomainPattern::AtOrBelow(parent), DomainPattern::Exact(name)) => {
            name != parent && name.is_at_or_below(parent)
        }
        (DomainPattern::AtOrBelow(parent), DomainPattern::AtOrBelow(name)) => {
            name.is_at_or_below(parent)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    fn of(list: &[&str], accepted: &[&str]) -> SenderName {
        let accepted = accepted.iter().map(|own| own.parse().unwrap()).collect();
        SenderName::of(&names(list), &DomainSet::new(accepted))
    }

    fn warned(list: &[&str], accepted: &[&str]) -> Option<String> {
        let domains = accepted.iter().map(|own| own.parse().unwrap()).collect();
        of(list, accepted).warning(&DomainSet::new(domains))
    }

    #[test]
    fn a_name_that_is_an_accepted_domain_comes_before_one_below() {
        let accepted = ["contoso.com", "contoso.onmicrosoft.com"];
        let found = of(&["mail.contoso.com", "CONTOSO.com", "x.example"], &accepted);
        assert_eq!(found.connector_names(), ["contoso.com"]);
        let both = of(&["contoso.onmicrosoft.com", "contoso.com"], &accepted);
        assert_eq!(
            both.connector_names(),
            ["contoso.onmicrosoft.com", "contoso.com"]
        );
        let with_sub_domains = of(&["mail.contoso.com"], &["*.contoso.com"]);
        assert_eq!(with_sub_domains.connector_names(), ["mail.contoso.com"]);
        let told = warned(&["mail.contoso.com"], &["*.contoso.com"]).unwrap();
        assert!(
            told.contains("by *.contoso.com alone") && told.contains("Safer: add mail.contoso.com"),
            "{told}"
        );
        for accepted in [
            ["*.contoso.com", "mail.contoso.com"],
            ["*.mail.contoso.com", "x.example"],
        ] {
            assert_eq!(warned(&["mail.contoso.com"], &accepted), None);
        }
    }

    #[test]
    fn a_name_below_and_a_wildcard_need_a_wildcard_on_the_connector() {
        for name in ["mail.contoso.com", "*.contoso.com", "a.b.contoso.com"] {
            let found = of(&["x.example", name], &["contoso.com"]);
            assert_eq!(found.connector_names(), ["*.contoso.com"], "{name}");
            assert!(is_meant("*.contoso.com", &names(&[name])), "{name}");
        }
    }

    #[test]
    fn an_entry_of_its_own_comes_before_one_by_pattern_and_the_order_stays_else() {
        let accepted = ["*.contoso.com", "b.contoso.com", "contoso.net"];
        let found = of(
            &["a.contoso.com", "b.contoso.com", "contoso.net"],
            &accepted,
        );
        assert_eq!(
            found.connector_names(),
            ["b.contoso.com", "contoso.net", "a.contoso.com"]
        );
        assert_eq!(found.connector_name().as_deref(), Some("b.contoso.com"));
        assert_eq!(warned(&["a.contoso.com", "b.contoso.com"], &accepted), None);
    }

    #[test]
    fn below_several_the_nearest_counts_and_a_name_before_a_wildcard() {
        let accepted = ["contoso.com", "eu.contoso.com"];
        let found = of(&["*.contoso.com", "gate.eu.contoso.com"], &accepted);
        assert_eq!(found.connector_name().as_deref(), Some("*.eu.contoso.com"));
        let told = warned(&["*.contoso.com", "gate.eu.contoso.com"], &accepted).unwrap();
        for word in [
            "Safer: add gate.eu.contoso.com as an accepted domain",
            "TlsSenderCertificateName to *.eu.contoso.com",
            "discouraged",
        ] {
            assert!(told.contains(word), "{told}");
        }
        let told = warned(&["*.contoso.com"], &accepted).unwrap();
        assert!(told.contains("Safer: take a certificate"), "{told}");
    }

    #[test]
    fn where_nobody_has_told_the_best_name_is_assumed_else_the_first() {
        let accepted: DomainSet = DomainSet::new(
            ["contoso.com", "gate.contoso.com"]
                .map(|own| own.parse().unwrap())
                .into(),
        );
        for (list, expected) in [
            (
                &["x.example", "mail.contoso.com", "gate.contoso.com"][..],
                Some("gate.contoso.com"),
            ),
            (&["x.example", "a.contoso.com"], Some("*.contoso.com")),
            (&["*.contoso.com"], Some("*.contoso.com")),
            (&["x.example", "y.example"], Some("x.example")),
            (&[], None),
        ] {
            assert_eq!(assumed(&names(list), &accepted).as_deref(), expected);
        }
    }

    #[test]
    fn foreign_and_look_alike_names_are_nobodys() {
        for name in [
            "evilcontoso.com",
            "com",
            "contoso.com.evil.example",
            "not a name",
        ] {
            let found = of(&[name], &["contoso.com"]);
            assert_eq!(found, SenderName::None, "{name}");
            assert!(found.connector_names().is_empty());
        }
        assert_eq!(of(&[], &["contoso.com"]), SenderName::None);
        assert_eq!(of(&["contoso.com"], &[]), SenderName::None);
    }

    #[test]
    fn a_connector_means_the_same_name_or_what_is_below_its_wildcard() {
        let own = names(&["Contoso.com"]);
        assert!(is_meant("contoso.com", &own));
        assert!(!is_meant("*.contoso.com", &own));
        assert!(!is_meant("contoso.com", &names(&["mail.contoso.com"])));
        assert!(!is_meant("contoso.com", &names(&["*.contoso.com"])));
        assert!(!is_meant("", &own));
    }
}
