//! What does a certificate of ours show to who judges it from the other side? (for `explain attribution`)
//!
//! Exchange looks at names in the SAN and in the CN (exchange-online.md 2.2), where we look at the CN only without a SAN;
//! so this takes more names than [`certificate::Leaf`](super::certificate::Leaf), out of what [`Link`] reads, and proves nothing.

use super::certificate::{self, ClientCertificate, Role, Roots, Unreadable, WhyAbsent};
use super::chain::{Chain, Link, Signer, Usage};
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;

/// What its extended key usage allows (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purposes {
    /// No such extension: everything.
    Unrestricted,
    /// Client authentication, with or without others.
    Client,
    /// Server authentication and not client authentication: what public authorities issue since 2026.
    ServerOnly,
    /// Neither.
    Neither,
}

/// A chain as its peer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// SAN dNSNames, as written.
    pub alternative: Vec<String>,
    /// Subject CN, the most specific.
    pub common: Option<String>,
    /// Who issued the leaf, as written.
    pub issuer: String,
    /// The leaf issued itself.
    pub self_issued: bool,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
    /// Its key usage.
    pub purposes: Purposes,
    /// Why the chain does not hold, if it does not; names play no part.
    pub fault: Option<WhyAbsent>,
    /// Whose fault that is, where it is not the leaf's own.
    pub above: Option<Above>,
}

/// A certificate above the leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Above {
    /// In the chain, counted from 1.
    pub number: usize,
    /// Whose it is, printable.
    pub subject: String,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
}

impl Presented {
    /// Reads a chain, leaf first, and judges it against `roots` at `unix_seconds`.
    ///
    /// # Errors
    /// The chain is empty or its leaf is not readable as X.509.
    pub fn read(
        chain: &[CertificateDer<'_>],
        roots: &Roots,
        unix_seconds: u64,
    ) -> Result<Self, Unreadable> {
        let leaf = Link::leaf(chain)?;
        let purposes = match leaf.usage {
            Usage::Absent => Purposes::Unrestricted,
            Usage::Named { client: true, .. } => Purposes::Client,
            Usage::Named { server: true, .. } => Purposes::ServerOnly,
            Usage::Named { .. } => Purposes::Neither,
        };
        // Without a name to look for, what is left to be said is that none matched.
        let fault = match certificate::judge(chain, roots, &[], unix_seconds) {
            ClientCertificate::Verified { .. }
            | ClientCertificate::Absent(WhyAbsent::NameMismatch { .. }) => None,
            ClientCertificate::Absent(why) => Some(why),
        };
        let read = fault.as_ref().and_then(|_| Chain::read(chain).ok());
        let above = read.zip(fault.as_ref()).and_then(|(chain, why)| {
            let (number, link) = match why {
                WhyAbsent::Expired | WhyAbsent::NotYetValid => chain.outside_dates(unix_seconds),
                WhyAbsent::WrongKeyUsage => chain.forbids(Role::Client),
                WhyAbsent::NoTls
                | WhyAbsent::NotPresented
                | WhyAbsent::Malformed
                | WhyAbsent::UnknownIssuer
                | WhyAbsent::BadChain
                | WhyAbsent::NameMismatch { .. } => None,
            }?;
            (number > 1).then(|| Above {
                number,
                subject: link.subject.clone(),
                not_before: link.not_before,
                not_after: link.not_after,
            })
        });
        let mut alternative = leaf.alternative_names;
        alternative.retain(|name| name.parse::<IpAddr>().is_err());
        Ok(Self {
            alternative,
            common: leaf.common_name,
            issuer: leaf.issuer,
            self_issued: leaf.signer == Signer::Itself,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            purposes,
            fault,
            above,
        })
    }

    /// The names that count for Exchange: SAN, then a CN that does not stand there as well.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let common = self.common.as_deref().filter(|common| {
            let repeats = |name: &String| name.eq_ignore_ascii_case(common);
            !self.alternative.iter().any(repeats)
        });
        self.alternative.iter().map(String::as_str).chain(common)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    const NOW: u64 = 1_795_594_533;

    fn leaf(names: &[&str], common: &str, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
        let names = names.iter().map(|name| (*name).to_owned());
        let mut params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = usages.to_vec();
        params
    }

    fn presented(params: &CertificateParams, with_issuer: bool) -> Presented {
        let (key, root_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = leaf(&[], "Root", &[]);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let anchor = root.self_signed(&root_key).unwrap();
        let middle_key = KeyPair::generate().unwrap();
        let mut middle = leaf(&[], "Intermediate", &[]);
        middle.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signed = middle
            .signed_by(&middle_key, &Issuer::new(root, root_key))
            .unwrap();
        let leaf = params
            .signed_by(&key, &Issuer::new(middle, middle_key))
            .unwrap();
        let mut chain = vec![leaf.der().clone()];
        chain.extend(with_issuer.then(|| signed.der().clone()));
        let (roots, _) = Roots::from_certificates([anchor.der()]);
        Presented::read(&chain, &roots, NOW).unwrap()
    }

    #[test]
    fn names_of_san_and_cn_count_once() {
        let both = presented(&leaf(&["a.contoso.com"], "A.contoso.com", &[]), true);
        assert_eq!(both.names().collect::<Vec<_>>(), ["a.contoso.com"]);
        // An address in the SAN is no name to Exchange.
        let names = ["a.contoso.com", "192.0.2.1"];
        let other = presented(&leaf(&names, "b.contoso.com", &[]), true);
        assert_eq!(
            other.names().collect::<Vec<_>>(),
            ["a.contoso.com", "b.contoso.com"]
        );
        assert!(other.issuer.contains("Intermediate") && !other.self_issued);
    }

    #[test]
    fn the_key_usage_is_told_and_judged() {
        use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
        for (usages, purposes, fault) in [
            (&[][..], Purposes::Unrestricted, None),
            (&[ServerAuth], Purposes::ServerOnly, None),
            (&[ServerAuth, ClientAuth], Purposes::Client, None),
            (
                &[CodeSigning],
                Purposes::Neither,
                Some(WhyAbsent::WrongKeyUsage),
            ),
        ] {
            let read = presented(&leaf(&["a.contoso.com"], "a.contoso.com", usages), true);
            assert_eq!((read.purposes, read.fault), (purposes, fault));
        }
    }

    #[test]
    fn a_fault_of_the_intermediate_is_laid_at_its_door() {
        use crate::lab::certificates::{Above as Kind, Authority, Leaf};
        let authority = Authority::new("Lab").unwrap();
        let roots = Roots {
            anchors: authority.roots().unwrap().roots,
        };
        let leaf = Leaf::named("contoso.com");
        for (kind, fault) in [
            (Kind::Until(NOW - 1), WhyAbsent::Expired),
            (Kind::ForEmail, WhyAbsent::WrongKeyUsage),
        ] {
            let issued = authority.issue_below(&leaf, kind).unwrap();
            let read = Presented::read(&issued.chain, &roots, NOW).unwrap();
            let above = read.above.unwrap();
            assert_eq!(read.fault, Some(fault));
            assert_eq!((above.number, &*above.subject), (2, "CN=Lab Issuing CA"));
        }
        let own = authority.issue(&leaf.expired()).unwrap();
        let read = Presented::read(&own.chain, &roots, NOW).unwrap();
        assert_eq!((read.fault, read.above), (Some(WhyAbsent::Expired), None));
    }

    #[test]
    fn a_missing_intermediate_and_a_self_signed_leaf_lead_to_no_root() {
        let params = leaf(&["a.contoso.com"], "a.contoso.com", &[]);
        let lone = presented(&params, false);
        assert_eq!(lone.fault, Some(WhyAbsent::UnknownIssuer));
        let own = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = Presented::read(&[own.der().clone()], &Roots::default(), NOW).unwrap();
        assert!(read.self_issued && read.fault.is_some());
        assert_eq!(
            Presented::read(&[], &Roots::default(), NOW),
            Err(Unreadable)
        );
    }
}
