//! MAIL: everything that is known before the content.

use super::rejection::Rejection;
use super::state::Transaction;
use super::{Account, ByAddress, Core, Now, Service};
use crate::mail::{Envelope, Mailbox, QueueId, ReversePath, shown};
use crate::smtp::command::{CommandFault, Mail, Xoorg};
use crate::smtp::extension::Extension;
use crate::trust::{self, Application, Candidates, Reason, Refusal};
use std::sync::Arc;

/// A refusal with the id it is told under.
pub(super) struct Refused {
    pub(super) id: QueueId,
    pub(super) rejection: Rejection,
    pub(super) account: Account,
}

/// Why MAIL is not accepted.
enum NotCandidate {
    Plain(Rejection),
    Trust(Refusal),
}

impl Core {
    /// MAIL: everything that is known before the content.
    pub(super) fn mail(&mut self, mail: Mail, now: Now) -> Result<Transaction, Box<Refused>> {
        let id = self.conditions.next_id(now);
        let sender = Some(shown(mail.reverse_path.to_string().as_bytes()));
        let refused = |rejection| {
            let account = Account {
                sender: sender.clone(),
                ..Account::default()
            };
            Box::new(Refused {
                id,
                rejection,
                account,
            })
        };
        if self.must_start_tls() {
            return Err(refused(Rejection::StartTlsRequired));
        }
        if self.greeted.is_none() {
            return Err(refused(Rejection::BadSequence {
                expected: "EHLO first",
            }));
        }
        // A login outlives a reload; what it may do does not.
        self.application = (self.application.as_ref())
            .and_then(|application| self.conditions.renewed(application));
        let judged = match self.policy.service {
            Service::Connector => self.judge_connector(&mail, now),
            Service::Submission => self.judge_application(&mail.reverse_path),
        };
        self.by_address |= self.policy.service == Service::Submission
            && !matches!(judged, Err(NotCandidate::Plain(_)));
        let candidates = judged.map_err(|why| match why {
            NotCandidate::Plain(rejection) => refused(rejection),
            NotCandidate::Trust(refusal) => Box::new(Refused {
                id,
                rejection: refusal.reason.into(),
                account: Account {
                    sender: sender.clone(),
                    tenant: refusal.tenant.map(|tenant| tenant.name.to_string()),
                    evidence: refusal.evidence,
                    ..Account::default()
                },
            }),
        })?;
        self.check_parameters(&mail).map_err(refused)?;
        if let Some(application) = candidates.application()
            && !self.conditions.within_rate(&application.name, now)
        {
            return Err(refused(Rejection::RateExceeded));
        }
        Ok(Transaction {
            id,
            envelope: Envelope {
                reverse_path: mail.reverse_path,
                recipients: Vec::new(),
                body: mail.body,
                smtputf8: mail.smtputf8,
                ret: mail.ret,
                envid: mail.envid,
                xoorg: match mail.xoorg {
                    Some(Xoorg::Domain(org)) => Some(org),
                    Some(Xoorg::Unreadable) | None => None,
                },
            },
            candidates,
            announced: mail.size,
        })
    }

    fn judge_connector(&self, mail: &Mail, now: Now) -> Result<Candidates, NotCandidate> {
        let standing = self.trust.standing();
        if let Some(reason) = Reason::of_standing(standing, self.policy.half_proven) {
            let evidence = self.trust.evidence();
            return Err(NotCandidate::Trust(Refusal {
                reason,
                tenant: None,
                evidence,
            }));
        }
        if mail.xoorg.is_some() && !self.offers(Extension::Xoorg) {
            return Err(NotCandidate::Plain(Rejection::Syntax(
                CommandFault::Parameter,
            )));
        }
        let xoorg = match &mail.xoorg {
            Some(Xoorg::Unreadable) => return Err(NotCandidate::Trust(trust::unreadable_xoorg())),
            Some(Xoorg::Domain(org)) => Some(org),
            None => None,
        };
        let (tenants, sender) = (&self.policy.tenants, &mail.reverse_path);
        trust::candidates(tenants, sender, xoorg, now.unix_seconds()).map_err(NotCandidate::Trust)
    }

    fn judge_application(&self, sender: &ReversePath) -> Result<Candidates, NotCandidate> {
        let application: Arc<Application> = match &self.application {
            Some(application) => Arc::clone(application),
            None if !self.address_proves => {
                return Err(NotCandidate::Plain(Rejection::AuthenticationRequired));
            }
            None => match self.conditions.by_address(self.peer_address.ip(), sender) {
                ByAddress::Application(application) | ByAddress::SenderNotAllowed(application) => {
                    application
                }
                ByAddress::Unknown => {
                    return Err(NotCandidate::Plain(Rejection::AuthenticationRequired));
                }
            },
        };
        trust::submission_candidates(&application, sender).map_err(NotCandidate::Trust)
    }

    /// Parameters of extensions that are not offered here, size, addresses, store.
    fn check_parameters(&self, mail: &Mail) -> Result<(), Rejection> {
        let used = [
            (mail.size.is_some(), Extension::Size),
            (mail.body.is_some(), Extension::EightBitMime),
            (mail.smtputf8, Extension::SmtpUtf8),
            (mail.ret.is_some() || mail.envid.is_some(), Extension::Dsn),
            (mail.auth, Extension::Auth),
            (mail.xoorg.is_some(), Extension::Xoorg),
        ];
        if used
            .iter()
            .any(|(given, extension)| *given && !self.offers(*extension))
        {
            return Err(Rejection::Syntax(CommandFault::Parameter));
        }
        if mail
            .size
            .is_some_and(|size| size > self.policy.max_message_size)
        {
            return Err(Rejection::MessageTooLarge);
        }
        if !mail.smtputf8
            && mail
                .reverse_path
                .mailbox()
                .is_some_and(Mailbox::needs_smtputf8)
        {
            return Err(Rejection::NeedsSmtpUtf8);
        }
        if !self.conditions.store_ready() {
            return Err(Rejection::StoreUnavailable);
        }
        Ok(())
    }
}
