//! By which name of our certificate does Exchange take a tenant's mail? (exchange-online.md 2.2, 2.3)
//!
//! An inbound connector of Exchange names a domain in `TlsSenderCertificateName`. The certificate that we present must
//! carry that name, and the domain must be an accepted domain of the tenant. A wildcard name in a certificate is no domain:
//! Exchange matches it only with a wildcard on the connector, so it lies *below*.

use crate::mail::{Domain, DomainPattern, DomainSet};

/// How the best of a certificate's names stands to a tenant's accepted domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderName {
    /// These names are accepted domains, in the order of the certificate: each is a good `TlsSenderCertificateName`.
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
        let exact: Vec<Domain> = names
            .iter()
            .filter_map(|name| match name {
                DomainPattern::Exact(domain) => accepted.contains(domain).then(|| domain.clone()),
                DomainPattern::AtOrBelow(_) => None,
            })
            .collect();
        if !exact.is_empty() {
            return Self::Exact(exact);
        }
        let below = names.into_iter().find_map(|name| {
            let mut parents = accepted.iter().map(DomainPattern::domain);
            let parent = parents.find(|parent| name.domain().is_at_or_below(parent))?;
            Some((parent.clone(), name))
        });
        below.map_or(Self::None, |(parent, name)| Self::Below { name, parent })
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
