//! Where does each recipient's copy go? First matching route wins, per recipient and tenant.
//!
//! At RCPT the tenant is not known yet: [`Routes::admits`] asks whether any candidate has a route. With the verdict,
//! [`Routes::plan`] groups the recipients by path; one that no route takes refuses the whole message (product.md 3).

use crate::mail::{Envelope, Mailbox, MailboxPattern, Recipient, TenantName};
use crate::trust::{Candidates, Class, Tenant, Verdict};
use std::fmt;
use std::sync::Arc;

/// How a copy leaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// The tenant's inbound connector.
    Exchange,
    /// The recipient domain's mail exchangers.
    Mx,
    /// A configured relay, by name.
    Relay(Arc<str>),
}

impl Via {
    /// Whether the copy stays within the tenant's Exchange organisation.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Exchange)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange => f.write_str("exchange"),
            Self::Mx => f.write_str("mx"),
            Self::Relay(name) => write!(f, "relay:{name}"),
        }
    }
}

/// Which side mail came in from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Microsoft 365, over an outbound connector.
    Connector,
    /// An application or device.
    Submission,
}

/// `recipients` of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// The tenant's accepted domains.
    Accepted,
    /// Anyone.
    Any,
    /// These addresses and domains.
    Listed(Vec<MailboxPattern>),
}

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Only this tenant's mail.
    pub tenant: Option<TenantName>,
    /// Only to these.
    pub recipients: Recipients,
    /// Only from this side.
    pub from: Option<From>,
    /// Only this stream of applications.
    pub stream: Option<Arc<str>>,
    /// Where to.
    pub via: Via,
}

impl Route {
    fn matches(
        &self,
        tenant: &Tenant,
        from: From,
        stream: Option<&str>,
        mailbox: &Mailbox,
    ) -> bool {
        self.tenant.as_ref().is_none_or(|name| *name == tenant.name)
            && self.from.is_none_or(|side| side == from)
            && self
                .stream
                .as_deref()
                .is_none_or(|label| Some(label) == stream)
            && match &self.recipients {
                Recipients::Accepted => tenant.accepted_domains.contains(mailbox.domain()),
                Recipients::Any => true,
                Recipients::Listed(list) => list.iter().any(|pattern| pattern.matches(mailbox)),
            }
    }
}

/// All `[[route]]` tables, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

/// A path and the recipients (positions in the envelope) that take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// How these copies leave.
    pub via: Via,
    /// Whether they carry the internal stamp of an `internal = true` application (product.md 4).
    pub stamped: bool,
    /// Positions in `Envelope::recipients`.
    pub recipients: Vec<usize>,
}

/// The plan for one message; only [`Routes::plan`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    paths: Vec<Path>,
}

impl Routed {
    /// The paths, each with at least one recipient.
    #[must_use]
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }
}

/// No route takes this recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoute {
    /// Position in the envelope.
    pub recipient: usize,
}

impl Routes {
    /// The table of these routes, first match first.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        Self(routes)
    }

    /// The routes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// The way of a tenant's mail with senders of its own, by the first route that takes it.
    #[must_use]
    pub fn way(
        &self,
        tenant: &Tenant,
        from: From,
        stream: Option<&str>,
        recipient: &Mailbox,
    ) -> Option<&Via> {
        let takes = |route: &&Route| route.matches(tenant, from, stream, recipient);
        self.0.iter().find(takes).map(|route| &route.via)
    }

    /// Whether a route takes mail of this tenant that comes from Exchange; only applications have streams.
    #[must_use]
    pub fn take_from_exchange(&self, tenant: &Tenant) -> bool {
        self.0.iter().any(|route| {
            route
                .tenant
                .as_ref()
                .is_none_or(|name| *name == tenant.name)
                && route.from != Some(From::Submission)
                && route.stream.is_none()
        })
    }

    /// Whether a candidate tenant has a route for `recipient` (asked at RCPT).
    #[must_use]
    pub fn admits(&self, candidates: &Candidates, recipient: &Recipient) -> bool {
        let (from, stream) = (candidates.from(), candidates.stream());
        let mailbox = &recipient.mailbox;
        candidates.tenants().any(|tenant| {
            self.0
                .iter()
                .any(|route| route.matches(tenant, from, stream, mailbox))
        })
    }

    /// Groups the recipients by path.
    ///
    /// Mail with a foreign sender never takes `mx` or `relay`: such routes do not match it. Mail let in by
    /// `gate = "report"` goes to accepted domains by the inbound connector only; connector validation mail to accepted
    /// domains only.
    ///
    /// # Errors
    /// The first recipient that no route takes.
    pub fn plan(&self, verdict: &Verdict, envelope: &Envelope) -> Result<Routed, NoRoute> {
        let tenant = verdict.tenant();
        let mut paths: Vec<Path> = Vec::new();
        for (position, recipient) in envelope.recipients.iter().enumerate() {
            let mailbox = &recipient.mailbox;
            let accepted = tenant.accepted_domains.contains(mailbox.domain());
            let via = match verdict.class() {
                Class::Reported { .. } => accepted.then_some(Via::Exchange),
                Class::Own => Some(Via::Exchange),
                Class::Validation { .. } if !accepted => None,
                Class::Proven {
                    foreign_sender: true,
                }
                | Class::Validation {
                    foreign_sender: true,
                } => self.first(verdict, mailbox, Via::is_internal),
                Class::Proven {
                    foreign_sender: false,
                }
                | Class::Validation {
                    foreign_sender: false,
                }
                | Class::Application { .. } => self.first(verdict, mailbox, |_| true),
            };
            let Some(via) = via else {
                return Err(NoRoute {
                    recipient: position,
                });
            };
            let stamped = via.is_internal() && accepted && verdict.stamps_internal();
            match paths
                .iter_mut()
                .find(|path| path.via == via && path.stamped == stamped)
            {
                Some(path) => path.recipients.push(position),
                None => paths.push(Path {
                    via,
                    stamped,
                    recipients: vec![position],
                }),
            }
        }
        Ok(Routed { paths })
    }

    fn first(
        &self,
        verdict: &Verdict,
        mailbox: &Mailbox,
        usable: impl Fn(&Via) -> bool,
    ) -> Option<Via> {
        let (tenant, from, stream) = (verdict.tenant(), verdict.from(), verdict.stream());
        self.0
            .iter()
            .filter(|route| usable(&route.via))
            .find(|route| route.matches(tenant, from, stream, mailbox))
            .map(|route| route.via.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Reason;
    use crate::trust::fixtures::{contoso, envelope, verdict};

    fn route(recipients: Recipients, via: Via) -> Route {
        Route {
            tenant: None,
            recipients,
            from: None,
            stream: None,
            via,
        }
    }

    /// `via: recipients`, path by path, or the recipient that no route takes.
    fn plan(class: Class, recipients: &[&str]) -> String {
        let upstream = Via::Relay("upstream".into());
        let listed = vec!["partner@relay.example".parse().unwrap()];
        let routes = Routes::new(vec![
            route(Recipients::Listed(listed), upstream),
            route(Recipients::Any, Via::Mx),
            route(Recipients::Any, Via::Exchange),
        ]);
        let mut envelope = envelope("ada@contoso.com");
        envelope.recipients = recipients
            .iter()
            .map(|address| Recipient {
                mailbox: address.parse().unwrap(),
                notify: None,
                orcpt: None,
            })
            .collect();
        match routes.plan(&verdict(&Arc::new(contoso()), class), &envelope) {
            Ok(routed) => {
                let paths = routed.paths().iter();
                let paths = paths.map(|path| format!("{}: {:?}", path.via, path.recipients));
                paths.collect::<Vec<_>>().join(", ")
            }
            Err(NoRoute { recipient }) => format!("no route for {recipient}"),
        }
    }

    const TWO: &[&str] = &["bob@contoso.com", "partner@relay.example"];

    #[test]
    fn a_foreign_sender_never_leaves_by_mx_or_relay() {
        let proven = |foreign_sender| Class::Proven { foreign_sender };
        assert_eq!(plan(proven(false), TWO), "mx: [0], relay:upstream: [1]");
        assert_eq!(plan(proven(true), TWO), "exchange: [0, 1]");
    }

    #[test]
    fn reported_mail_goes_to_accepted_domains_by_the_inbound_connector_only() {
        let reported = || Class::Reported {
            reason: Reason::NoTenant,
        };
        assert_eq!(plan(reported(), &["bob@contoso.com"]), "exchange: [0]");
        assert_eq!(plan(reported(), TWO), "no route for 1");
    }

    #[test]
    fn validation_mail_goes_to_accepted_domains_only() {
        let validation = |foreign_sender| Class::Validation { foreign_sender };
        let to_bob = |foreign_sender| plan(validation(foreign_sender), &["bob@contoso.com"]);
        assert_eq!(to_bob(false), "mx: [0]");
        assert_eq!(to_bob(true), "exchange: [0]");
        assert_eq!(plan(validation(false), TWO), "no route for 1");
        assert_eq!(plan(validation(true), TWO), "no route for 1");
    }

    #[test]
    fn each_condition_of_a_route_keeps_out_what_it_does_not_name() {
        let only = |narrow: &dyn Fn(&mut Route)| {
            let mut route = route(Recipients::Any, Via::Mx);
            narrow(&mut route);
            Routes::new(vec![route])
        };
        let (bob, far): (Mailbox, Mailbox) = (
            "bob@contoso.com".parse().unwrap(),
            "x@partner.example".parse().unwrap(),
        );
        let tenant = contoso();
        let (mail, print) = (Some("mail"), Some("print"));
        let taken =
            |routes: &Routes, from, stream, to| routes.way(&tenant, from, stream, to).is_some();
        let (connector, submission) = (From::Connector, From::Submission);

        let own = only(&|route| route.tenant = Some("contoso".into()));
        let other = only(&|route| route.tenant = Some("fabrikam".into()));
        assert!(taken(&own, connector, None, &bob) && !taken(&other, connector, None, &bob));

        let from = only(&|route| route.from = Some(submission));
        assert!(taken(&from, submission, None, &bob) && !taken(&from, connector, None, &bob));

        let stream = only(&|route| route.stream = Some("print".into()));
        assert!(taken(&stream, submission, print, &bob));
        assert!(!taken(&stream, submission, mail, &bob));
        assert!(!taken(&stream, submission, None, &bob));

        let accepted = only(&|route| route.recipients = Recipients::Accepted);
        assert!(taken(&accepted, submission, None, &bob));
        assert!(!taken(&accepted, submission, None, &far));

        let everyone = only(&|_| {});
        assert!(
            taken(&everyone, connector, mail, &far) && taken(&everyone, submission, None, &bob)
        );
    }
}
