//! Who plays, by the settings: tenants become organisations of the simulated Exchange, accounts become actors.

use super::Stopped;
use super::folder::random_word;
use crate::config::{Outside, Settings};
use crate::credentials::Account;
use crate::deliver::InboundConnector;
use crate::dns::Zone;
use crate::lab::dkim::Signer;
use crate::lab::scene::{Actor, Cast, Connector, Door, Terms};
use crate::lab::{Inbound, Organization, Security};
use crate::mail::{Mailbox, MailboxPattern, Secret};
use crate::receive::{BareNewlines, ListenerSettings, Service, TlsMode};
use crate::route::{From, Recipients, Routes, Via};
use crate::trust::renewal::looked_for;
use crate::trust::{Forwarded, HalfProven, Tenant, sender_name};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Passwords made up for a run of the lab, with their hashes.
#[derive(Default)]
pub(super) struct Passwords(HashMap<String, (Secret, String)>);

impl Passwords {
    /// Makes a password for this application.
    pub(super) fn make(&mut self, application: &str) -> io::Result<()> {
        let password = random_word()?;
        let hash = password_auth::generate_hash(&password);
        self.0
            .insert(application.to_owned(), (Secret::new(password), hash));
        Ok(())
    }

    /// The PHC string; empty where none was made.
    pub(super) fn hash(&self, application: &str) -> &str {
        self.0
            .get(application)
            .map_or("", |(_, hash)| hash.as_str())
    }

    fn password(&self, application: &str) -> Option<Secret> {
        self.0
            .get(application)
            .map(|(password, _)| password.clone())
    }
}

/// The first listener that Exchange can connect to: it speaks STARTTLS and nothing else.
pub(super) fn connector_listener(settings: &Settings) -> Option<&ListenerSettings> {
    settings.listeners.iter().find(|listener| {
        listener.service == Service::Connector && listener.tls == TlsMode::StartTls
    })
}

/// Whether a listener offers this extension.
fn offers(listener: &ListenerSettings, keyword: &str) -> bool {
    let withheld = |own: &String| own.eq_ignore_ascii_case(keyword);
    !listener.ehlo_discard.iter().any(withheld)
}

/// Points every inbound connector at the simulated Exchange.
pub(in crate::cli) fn deliver_to(settings: &mut Settings, exchange: SocketAddr) {
    for connector in &mut settings.inbound_connectors {
        *connector = Arc::new(InboundConnector {
            host: exchange.ip().to_string().into(),
            port: exchange.port(),
            ..InboundConnector::clone(connector)
        });
    }
}

/// Everybody that the samples need; Exchange signs for all tenants with `signer`.
pub(super) fn of(
    settings: &Settings,
    passwords: &Passwords,
    signer: &Arc<Signer>,
) -> Result<Cast, Stopped> {
    let mut organizations: Vec<Organization> = settings
        .tenants
        .iter()
        .map(|tenant| {
            organization(
                tenant,
                settings
                    .inbound_connectors
                    .iter()
                    .find(|one| one.tenant == tenant.name),
            )
        })
        .collect();
    if organizations.is_empty() {
        return Err(Stopped::Unusable(
            "there is no [[tenant]] to play".to_owned(),
        ));
    }
    for organization in &mut organizations {
        organization.signer = Some(Arc::clone(signer));
    }
    let actors = settings
        .accounts
        .iter()
        .filter_map(|account| actor(settings, passwords, account))
        .collect();
    let listener = connector_listener(settings);
    let terms = settings.tenants.iter().zip(&organizations);
    let terms = terms.map(|(tenant, organization)| Terms {
        returns: returns(settings, tenant, organization),
        needs_signature: listener
            .is_some_and(|listener| unsigned_items(tenant, listener) < tenant.proofs),
        forwards: false,
    });
    let mut cast = Cast {
        hostname: settings.hostname.to_string(),
        connector: listener.map(|listener| Connector {
            withheld: listener
                .ehlo_discard
                .iter()
                .map(|keyword| keyword.to_ascii_uppercase())
                .collect(),
            max_message_size: listener.max_message_size,
        }),
        terms: terms.collect(),
        organizations,
        actors,
        half_proven_refuses: settings.exchange_online.half_proven == HalfProven::Refuse,
        outside: None,
    };
    if let Some((position, organization)) = cast.main() {
        let victim = organization.address("bob");
        cast.outside = settings
            .tenants
            .iter()
            .nth(position)
            .and_then(|tenant| outside(settings, tenant));
        let tenants = settings.tenants.iter().zip(&mut cast.terms);
        for (tenant, terms) in tenants {
            terms.forwards = forwards(settings, tenant, &victim);
        }
    }
    Ok(cast)
}

/// The items of evidence that Exchange's mail of a tenant brings to this listener beside a DKIM signature.
pub(super) fn unsigned_items(tenant: &Tenant, listener: &ListenerSettings) -> usize {
    let stamps = 2 + usize::from(offers(listener, "XOORG"));
    stamps + usize::from(tenant.secret_header.is_some())
}

/// Whether what its users write to its own recipients goes back to Exchange.
fn returns(settings: &Settings, tenant: &Tenant, organization: &Organization) -> bool {
    let people = ["ada", "bob", "carol", "dave", "erin"];
    let back = |local: &&str| {
        let recipient = organization.address(local).parse();
        recipient.is_ok_and(|recipient| {
            settings
                .routes
                .way(tenant, From::Connector, None, &recipient)
                == Some(&Via::Exchange)
        })
    };
    organization.inbound.is_some() && people.iter().all(back)
}

/// Whether what others wrote goes to this recipient as the tenant's own mail: such mail takes no route by mx or relay
/// (product.md 3).
fn forwards(settings: &Settings, tenant: &Tenant, recipient: &str) -> bool {
    let inward = settings.routes.iter();
    let inward = inward.filter(|route| route.via == Via::Exchange).cloned();
    let inward = Routes::new(inward.collect());
    let taken = recipient.parse().is_ok_and(|recipient| {
        let way = inward.way(tenant, From::Connector, None, &recipient);
        way.is_some()
    });
    tenant.forwarded_senders == Forwarded::Allow && taken
}

/// An address for which Exchange's mail of this tenant leaves by mx.
fn outside(settings: &Settings, tenant: &Tenant) -> Option<String> {
    let leaves = |recipient: &Mailbox| {
        let way = settings
            .routes
            .way(tenant, From::Connector, None, recipient);
        way == Some(&Via::Mx)
    };
    let examples = settings
        .routes
        .iter()
        .flat_map(|route| match &route.recipients {
            Recipients::Any => "reader@outside.example".parse().into_iter().collect(),
            Recipients::Listed(list) => list.iter().filter_map(example).collect(),
            Recipients::Accepted => Vec::new(),
        });
    let found = examples.into_iter().find(leaves);
    found.map(|recipient| recipient.to_string())
}

/// Puts the simulated world outside in the place of the real one: every domain's mail is taken there, and the keys of the
/// tenants' signatures are known.
pub(super) fn leave_to(settings: &mut Settings, outside: SocketAddr, cast: &Cast) {
    let mut zone = Zone::new().otherwise(outside.ip());
    for organization in &cast.organizations {
        if let Some(signer) = &organization.signer {
            let name = Signer::key_name(organization.domain());
            zone = zone.text(&name, &signer.record());
        }
    }
    settings.outside = Some(Outside {
        resolver: Arc::new(zone),
        mx_port: outside.port(),
    });
}

/// A tenant of the simulated Exchange, its inbound connector set as an administrator would for this certificate.
pub(in crate::cli) fn organization(
    tenant: &Tenant,
    connector: Option<&Arc<InboundConnector>>,
) -> Organization {
    let flag = connector.is_some_and(|connector| connector.cloud_services_mail_enabled);
    Organization {
        name: tenant.name.to_string(),
        id: tenant.id,
        accepted_domains: tenant.accepted_domains.clone(),
        originator_orgs: tenant.originator_orgs.clone(),
        signer: None,
        inbound: connector.map(|connector| Inbound {
            tls_sender_certificate_name: sender_name::assumed(
                &connector.identity.names,
                &tenant.accepted_domains,
            )
            .unwrap_or_default(),
            cloud_services_mail_enabled: flag,
            enabled: true,
        }),
        outbound_cloud_services_mail_enabled: flag,
        secret_header: tenant
            .secret_header
            .as_ref()
            .and_then(|header| Some((header.name.to_string(), header.values.first()?.clone()))),
        loop_header: tenant
            .loop_header
            .as_ref()
            .map(|header| (header.name.to_string(), header.value.clone())),
        reject_direct_send: false,
    }
}

fn actor(settings: &Settings, passwords: &Passwords, account: &Account) -> Option<Actor> {
    let application = &account.application;
    let tenant = settings
        .tenants
        .iter()
        .position(|tenant| tenant.name == application.tenant.name)?;
    let login = match &account.application.username {
        Some(name) => Some((name.clone(), passwords.password(&application.name)?)),
        None => None,
    };
    let accepted = &application.tenant.accepted_domains;
    let addresses = || application.senders.iter().filter_map(example);
    let sender = addresses()
        .find(|address| accepted.contains(address.domain()))
        .or_else(|| addresses().next())?;
    let domain = sender.domain();
    let strangers = [
        format!("ceo@{domain}"),
        format!("ceo@not-ours.{domain}"),
        "ceo@attacker.example".to_owned(),
    ];
    let organization = organization(&application.tenant, None);
    let colleague = organization.address("bob").parse();
    let way = |recipient: &Mailbox| {
        let (routes, stream) = (&settings.routes, application.stream.as_deref());
        routes.way(&application.tenant, From::Submission, stream, recipient)
    };
    let returns = colleague.is_ok_and(|recipient| way(&recipient) == Some(&Via::Exchange));
    let not_its_own = strangers.into_iter().find(|address| {
        address
            .parse()
            .is_ok_and(|mailbox| !application.may_write_as(&mailbox))
    })?;
    Some(Actor {
        name: application.name.to_string(),
        tenant,
        sender: sender.to_string(),
        not_its_own,
        internal: application.internal && accepted.contains(domain),
        returns,
        source: source(account),
        door: door(settings, login.is_some())?,
        login,
    })
}

/// An address that the pattern allows.
fn example(pattern: &MailboxPattern) -> Option<Mailbox> {
    match pattern {
        MailboxPattern::NullSender => None,
        MailboxPattern::Mailbox(mailbox) => Some(mailbox.clone()),
        MailboxPattern::Domain(pattern) => format!("scanner@{}", pattern.domain()).parse().ok(),
    }
}

/// An address of the account's first block that is not the block's own name.
fn source(account: &Account) -> Option<IpAddr> {
    account.networks.first()?.hosts().next()
}

/// The listener that such an application would use: with a login one with TLS, without one for devices where there is one.
fn door(settings: &Settings, login: bool) -> Option<Door> {
    let submission = || {
        settings.listeners.iter().filter(|listener| {
            listener.service == Service::Submission && (!login || offers(listener, "AUTH"))
        })
    };
    let upgrades = |listener: &ListenerSettings| offers(listener, "STARTTLS");
    let wanted = |listener: &&ListenerSettings| {
        if login {
            matches!(listener.tls, TlsMode::StartTls | TlsMode::Implicit)
        } else {
            matches!(listener.tls, TlsMode::Optional | TlsMode::None)
        }
    };
    let second = |listener: &&ListenerSettings| match listener.tls {
        TlsMode::StartTls | TlsMode::Implicit => true,
        TlsMode::Optional => upgrades(listener) || listener.auth_without_tls,
        TlsMode::None => listener.auth_without_tls,
    };
    // A device that needs its line feeds repaired was given such a listener.
    let repairs = |listener: &&ListenerSettings| {
        !login && wanted(listener) && listener.bare_newlines == BareNewlines::Repair
    };
    let listener = submission()
        .find(repairs)
        .or_else(|| submission().find(wanted))
        .or_else(|| submission().find(second))?;
    let security = match listener.tls {
        TlsMode::Implicit => Security::Implicit,
        TlsMode::StartTls => Security::StartTls,
        TlsMode::Optional if login && upgrades(listener) => Security::StartTls,
        TlsMode::Optional | TlsMode::None => Security::Clear,
    };
    Some(Door {
        name: listener.name.to_string(),
        address: listener.address,
        security,
        repairs: listener.bare_newlines == BareNewlines::Repair,
        max_message_size: listener.max_message_size,
        server_name: server_name(settings, listener).0,
    })
}

/// The name by which a listener's certificate is checked, and whether it is the host name.
pub(in crate::cli) fn server_name(
    settings: &Settings,
    listener: &ListenerSettings,
) -> (String, bool) {
    looked_for(listener.identity.as_deref(), &settings.hostname)
}
