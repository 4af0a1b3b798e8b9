//! Which tenants does the simulated Exchange Online hold, how are their connectors set, and whose is a message?
//!
//! Attribution follows exchange-online.md 2.3: the certificate first, then the envelope sender, then the recipient; the
//! accepted-domain rule of 2017 and 2023; RejectDirectSend of 2025.

use super::dkim::Signer;
use super::x509;
use crate::mail::{Domain, DomainPattern, DomainSet, Secret, TenantId, printable};
use std::fmt;
use std::sync::Arc;

/// A tenant of Microsoft 365 with its pair of connectors and its transport rule.
#[derive(Clone, Debug)]
pub struct Organization {
    /// A label.
    pub name: String,
    /// Its GUID.
    pub id: TenantId,
    /// Its accepted domains; the first is the default domain.
    pub accepted_domains: DomainSet,
    /// What its mail is stamped with: X-OriginatorOrg and XOORG name one of these.
    pub originator_orgs: DomainSet,
    /// Signs what leaves; without, nothing is signed.
    pub signer: Option<Arc<Signer>>,
    /// Its OnPremises inbound connector.
    pub inbound: Option<Inbound>,
    /// `CloudServicesMailEnabled` of its outbound connector.
    pub outbound_cloud_services_mail_enabled: bool,
    /// Its transport rule sets this header on what it routes to the smart host.
    pub secret_header: Option<(String, Secret)>,
    /// Its transport rule leaves alone what carries this header already.
    pub loop_header: Option<(String, Secret)>,
    /// `Set-OrganizationConfig -RejectDirectSend`.
    pub reject_direct_send: bool,
}

/// An inbound connector of type OnPremises.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// `TlsSenderCertificateName`.
    pub tls_sender_certificate_name: String,
    /// `CloudServicesMailEnabled`.
    pub cloud_services_mail_enabled: bool,
    /// `Enabled`.
    pub enabled: bool,
}

impl Organization {
    /// A tenant with one accepted domain, and both connectors as the product's scripts make them.
    #[must_use]
    pub fn new(name: &str, id: TenantId, domain: Domain) -> Self {
        Self {
            name: name.to_owned(),
            id,
            inbound: Some(Inbound {
                tls_sender_certificate_name: domain.as_str().to_owned(),
                cloud_services_mail_enabled: true,
                enabled: true,
            }),
            accepted_domains: DomainSet::new(vec![DomainPattern::Exact(domain.clone())]),
            originator_orgs: DomainSet::new(vec![DomainPattern::Exact(domain)]),
            signer: None,
            outbound_cloud_services_mail_enabled: true,
            secret_header: None,
            loop_header: None,
            reject_direct_send: false,
        }
    }

    /// The default domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.accepted_domains
            .iter()
            .next()
            .map_or("invalid", |pattern| pattern.domain().as_str())
    }

    /// An address in the default domain.
    #[must_use]
    pub fn address(&self, local: &str) -> String {
        format!("{local}@{}", self.domain())
    }

    /// Whether the domain is one of its accepted domains.
    #[must_use]
    pub fn accepts(&self, domain: &Domain) -> bool {
        self.accepted_domains.contains(domain)
    }

    /// What Exchange stamps on mail of this sender: its domain where that is an originator organisation, else the first one.
    #[must_use]
    pub fn stamp_for(&self, sender: Option<&Domain>) -> String {
        let own = sender.filter(|domain| self.originator_orgs.contains(domain));
        let first = || {
            self.originator_orgs
                .iter()
                .next()
                .map(DomainPattern::domain)
        };
        own.or_else(first).map_or_else(
            || self.domain().to_owned(),
            |domain| domain.as_str().to_owned(),
        )
    }

    /// Whether the certificate name of the connector is an accepted domain (RELAY17): itself, or for `*.x` what it is below.
    fn owns_certificate_domain(&self, name: &str) -> bool {
        name.trim_start_matches("*.")
            .parse()
            .is_ok_and(|domain| self.accepts(&domain))
    }
}

/// The client certificate, as Exchange judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIdentity {
    /// No TLS, or no certificate shown.
    None,
    /// Shown, and worth nothing.
    Untrusted {
        /// Its names.
        names: Vec<String>,
        /// Why.
        why: String,
    },
    /// The chain holds.
    Trusted {
        /// Its names.
        names: Vec<String>,
    },
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no certificate"),
            Self::Untrusted { names, why } => {
                let names = printable(&names.join(", "));
                write!(f, "certificate {names} (not trusted: {why})")
            }
            Self::Trusted { names } => write!(f, "certificate {}", printable(&names.join(", "))),
        }
    }
}

/// By what a message was attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The certificate matched the inbound connector: originating mail of the tenant.
    Certificate,
    /// The domain of the envelope sender: unauthenticated.
    Sender,
    /// The domain of the recipient: incoming mail from anyone.
    Recipient,
}

/// Whose a message is.
#[derive(Clone, Debug)]
pub struct Attribution {
    /// The tenant.
    pub organization: Arc<Organization>,
    /// By what.
    pub by: By,
}

impl Attribution {
    /// The inbound connector that matched.
    #[must_use]
    pub fn connector(&self) -> Option<&Inbound> {
        match self.by {
            By::Certificate => self.organization.inbound.as_ref(),
            By::Sender | By::Recipient => None,
        }
    }
}

/// 5.7.64: nothing lets this peer relay.
pub const RELAY_DENIED: &str = "550 5.7.64 TenantAttribution; Relay Access Denied [ATTR36]";
/// 5.7.68: RejectDirectSend.
pub const DIRECT_SEND_REFUSED: &str = "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources";

/// Whose message this recipient's copy is.
///
/// # Errors
/// The reply that refuses it.
pub fn attribute(
    organizations: &[Arc<Organization>],
    identity: &ClientIdentity,
    sender: Option<&Domain>,
    recipient: &Domain,
) -> Result<Attribution, &'static str> {
    if let Some(organization) = by_certificate(organizations, identity, sender) {
        return Ok(Attribution {
            organization,
            by: By::Certificate,
        });
    }
    let Some(target) = organizations
        .iter()
        .find(|organization| organization.accepts(recipient))
    else {
        return Err(RELAY_DENIED);
    };
    let from_itself = sender.is_some_and(|domain| target.accepts(domain));
    if from_itself && target.reject_direct_send {
        return Err(DIRECT_SEND_REFUSED);
    }
    let by = if from_itself {
        By::Sender
    } else {
        By::Recipient
    };
    Ok(Attribution {
        organization: Arc::clone(target),
        by,
    })
}

fn by_certificate(
    organizations: &[Arc<Organization>],
    identity: &ClientIdentity,
    sender: Option<&Domain>,
) -> Option<Arc<Organization>> {
    let ClientIdentity::Trusted { names } = identity else {
        return None;
    };
    let matches = |organization: &&Arc<Organization>| {
        organization.inbound.as_ref().is_some_and(|connector| {
            let wanted = connector.tls_sender_certificate_name.as_str();
            connector.enabled
                && x509::connector_name_matches(wanted, names)
                && (organization.owns_certificate_domain(wanted)
                    || sender.is_some_and(|domain| organization.accepts(domain)))
        })
    };
    organizations.iter().find(matches).cloned()
}

/// Whether the peer's certificate matches some connector: to such a peer XOORG is offered.
#[must_use]
pub fn has_connector(organizations: &[Arc<Organization>], identity: &ClientIdentity) -> bool {
    let ClientIdentity::Trusted { names } = identity else {
        return false;
    };
    organizations
        .iter()
        .filter_map(|organization| organization.inbound.as_ref())
        .any(|connector| {
            connector.enabled
                && x509::connector_name_matches(&connector.tls_sender_certificate_name, names)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organization(name: &str) -> Arc<Organization> {
        let id = "3f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c10".parse().unwrap();
        Arc::new(Organization::new(name, id, domain(&format!("{name}.com"))))
    }

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    fn trusted(name: &str) -> ClientIdentity {
        ClientIdentity::Trusted {
            names: vec![name.to_owned()],
        }
    }

    #[test]
    fn certificate_comes_before_sender_and_recipient() {
        let all = [organization("contoso"), organization("fabrikam")];
        let to = domain("fabrikam.com");
        let found = attribute(&all, &trusted("contoso.com"), Some(&to), &to).unwrap();
        assert_eq!(
            (found.organization.name.as_str(), found.by),
            ("contoso", By::Certificate)
        );
        // Null senders and foreign recipients pass by the certificate alone.
        let found = attribute(
            &all,
            &trusted("contoso.com"),
            None,
            &domain("elsewhere.example"),
        )
        .unwrap();
        assert_eq!(found.by, By::Certificate);
        assert!(has_connector(&all, &trusted("contoso.com")));
        assert!(!has_connector(&all, &trusted("elsewhere.example")));
    }

    #[test]
    fn without_a_connector_only_the_recipients_tenant_takes_mail() {
        let all = [organization("contoso")];
        let own = domain("contoso.com");
        let outside = domain("elsewhere.example");
        let untrusted = ClientIdentity::Untrusted {
            names: vec!["contoso.com".to_owned()],
            why: "x".to_owned(),
        };
        assert_eq!(
            attribute(&all, &untrusted, Some(&own), &own).unwrap().by,
            By::Sender
        );
        assert_eq!(
            attribute(&all, &ClientIdentity::None, Some(&outside), &own)
                .unwrap()
                .by,
            By::Recipient
        );
        assert_eq!(
            attribute(&all, &ClientIdentity::None, Some(&own), &outside).unwrap_err(),
            RELAY_DENIED
        );
    }

    #[test]
    fn direct_send_is_refused_where_the_tenant_says_so() {
        let mut contoso = Arc::unwrap_or_clone(organization("contoso"));
        contoso.reject_direct_send = true;
        let own = domain("contoso.com");
        let all = [Arc::new(contoso)];
        assert_eq!(
            attribute(&all, &ClientIdentity::None, Some(&own), &own).unwrap_err(),
            DIRECT_SEND_REFUSED
        );
        assert!(
            attribute(
                &all,
                &ClientIdentity::None,
                Some(&domain("x.example")),
                &own
            )
            .is_ok()
        );
        assert!(attribute(&all, &trusted("contoso.com"), Some(&own), &own).is_ok());
    }

    #[test]
    fn certificate_domain_that_is_not_accepted_needs_an_accepted_sender() {
        let mut contoso = Arc::unwrap_or_clone(organization("contoso"));
        contoso
            .inbound
            .as_mut()
            .unwrap()
            .tls_sender_certificate_name = "relay.example".to_owned();
        let all = [Arc::new(contoso)];
        let (own, outside) = (domain("contoso.com"), domain("elsewhere.example"));
        assert!(attribute(&all, &trusted("relay.example"), Some(&own), &outside).is_ok());
        assert_eq!(
            attribute(&all, &trusted("relay.example"), None, &outside).unwrap_err(),
            RELAY_DENIED
        );
    }
}
