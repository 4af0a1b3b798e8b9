//! Tenants, peers and envelopes for tests of this room and its neighbours.

use super::certificate::ClientCertificate;
use super::{
    Application, Evidence, Forwarded, Gate, LoopHeader, Peer, SecretHeader, Tenant, Tenants,
    Verdict,
};
use crate::mail::{DomainSet, Envelope, Secret};
use std::sync::Arc;

pub(crate) const CONTOSO_ID: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const FABRIKAM_ID: &str = "b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25";

pub(crate) fn domains(list: &[&str]) -> DomainSet {
    DomainSet::new(list.iter().map(|domain| domain.parse().unwrap()).collect())
}

/// `proofs = 2`, an optional secret `gate-NAME` (previously `old-gate-NAME`), a loop header `loop-NAME`.
pub(crate) fn tenant(name: &str, id: &str) -> Tenant {
    let accepted = domains(&[&format!("{name}.com"), &format!("{name}.onmicrosoft.com")]);
    Tenant {
        name: name.into(),
        id: id.parse().unwrap(),
        accepted_domains: accepted.clone(),
        originator_orgs: accepted,
        gate: Gate::Enforce,
        proofs: 2,
        secret_header: Some(SecretHeader {
            name: format!("X-{name}-Gate").into(),
            values: vec![
                Secret::new(format!("gate-{name}")),
                Secret::new(format!("old-gate-{name}")),
            ],
            required: false,
        }),
        forwarded_senders: Forwarded::Refuse,
        loop_header: Some(LoopHeader {
            name: "X-Gatepost-Processed".into(),
            value: Secret::new(format!("loop-{name}")),
            previous: vec![Secret::new(format!("old-loop-{name}"))],
        }),
    }
}

pub(crate) fn contoso() -> Tenant {
    tenant("contoso", CONTOSO_ID)
}

pub(crate) fn fabrikam() -> Tenant {
    tenant("fabrikam", FABRIKAM_ID)
}

pub(crate) fn tenants(list: impl IntoIterator<Item = Tenant>) -> Tenants {
    Tenants::new(list.into_iter().map(Arc::new).collect())
}

pub(crate) fn proven_peer() -> Peer {
    let name = "mail.protection.outlook.com".into();
    Peer {
        network: true,
        certificate: ClientCertificate::Verified { name },
    }
}

pub(crate) fn envelope(sender: &str) -> Envelope {
    Envelope {
        reverse_path: sender.parse().unwrap(),
        recipients: Vec::new(),
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        xoorg: None,
    }
}

pub(crate) fn application(
    tenant: &Arc<Tenant>,
    senders: &[&str],
    internal: bool,
) -> Arc<Application> {
    Arc::new(Application {
        name: "erp".into(),
        username: None,
        tenant: Arc::clone(tenant),
        senders: senders
            .iter()
            .map(|sender| sender.parse().unwrap())
            .collect(),
        internal,
        stream: None,
        bounces_to: None,
    })
}

/// A verdict of any class, for rooms that take one.
pub(crate) fn verdict(tenant: &Arc<Tenant>, class: super::Class) -> Verdict {
    let sender_domain = tenant
        .accepted_domains
        .iter()
        .next()
        .map(|pattern| pattern.domain().clone());
    Verdict {
        tenant: Arc::clone(tenant),
        class,
        sender_domain,
        evidence: Evidence::default(),
    }
}
