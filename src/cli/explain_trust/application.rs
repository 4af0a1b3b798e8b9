//! Is the address an application's, and would a submission listener take the mail as that application's?
//!
//! What is refused as a stranger's on a connector listener may be a printer's that is known by its address (`networks` of an
//! [[application]] without username). The judgement is the server's own: which application by address and sender, then its
//! `senders` in envelope and From:.

use super::reply_of;
use crate::cli::message::Message;
use crate::config::Settings;
use crate::credentials::Accounts;
use crate::header;
use crate::mail::Envelope;
use crate::session::{ByAddress, Rejection, Service};
use crate::trust::{self, Evidence, Reason, Settlement};
use serde::Serialize;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The applications of a configuration, and where they are served.
pub(super) struct Submission {
    pub(super) accounts: Accounts,
    /// Names of the submission listeners.
    pub(super) listeners: Vec<Arc<str>>,
}

/// What a submission listener makes of the mail.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OfApplication {
    /// The application's name.
    name: Arc<str>,
    /// The address that is its own.
    address: IpAddr,
    /// Whether its `senders` hold the envelope sender.
    pub(super) senders_hold: bool,
    /// Taken as its mail.
    accepted: bool,
    /// What it is answered with, where it is refused.
    reply: Option<String>,
    /// The reason label, where it is refused.
    reason: Option<&'static str>,
    /// The submission listeners.
    listeners: Vec<Arc<str>>,
    #[serde(skip)]
    why: String,
}

/// Applications that may use the envelope sender once they have logged in.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Logins {
    names: Vec<Arc<str>>,
    /// The submission listeners.
    listeners: Vec<Arc<str>>,
}

impl Submission {
    pub(super) fn of(settings: &Settings) -> Self {
        let own = settings.listeners.iter();
        Self {
            // Nobody logs in here, so that the key of what is remembered of logins guards nothing.
            accounts: Accounts::new(settings.accounts.clone(), [0; 32]),
            listeners: own
                .filter(|listener| listener.service == Service::Submission)
                .map(|listener| Arc::clone(&listener.name))
                .collect(),
        }
    }

    /// The judgement, where the address is an application's and there is a listener for it.
    pub(super) fn judge(
        &self,
        address: IpAddr,
        envelope: &Envelope,
        message: &Message,
    ) -> Option<OfApplication> {
        if self.listeners.is_empty() {
            return None;
        }
        let (application, refusal) = match self.accounts.by_address(address, &envelope.reverse_path)
        {
            ByAddress::Unknown => return None,
            ByAddress::SenderNotAllowed(application) => {
                let refusal = Some(Rejection::Trust(Reason::SenderNotAllowed));
                (application, refusal)
            }
            ByAddress::Application(application) => {
                let refusal = match message.section().and_then(header::examine) {
                    Err(fault) => Some(Rejection::Header(fault)),
                    Ok(header) if header.is_over_hop_limit() => Some(Rejection::TooManyHops),
                    Ok(header) => match trust::application(&application, envelope, &header) {
                        Settlement::Refused(refusal) => Some(Rejection::Trust(refusal.reason)),
                        Settlement::Settled(_) | Settlement::NeedsSignature(_) => None,
                    },
                };
                (application, refusal)
            }
        };
        Some(OfApplication {
            name: Arc::clone(&application.name),
            address: address.to_canonical(),
            senders_hold: application.may_send_as(&envelope.reverse_path),
            accepted: refusal.is_none(),
            reply: refusal.as_ref().map(reply_of),
            reason: refusal.as_ref().map(Rejection::label),
            listeners: self.listeners.clone(),
            why: refusal.as_ref().map_or_else(String::new, why),
        })
    }
}

impl Submission {
    /// Who may send so from this address, having logged in; `None` where nobody may.
    pub(super) fn logins(&self, address: IpAddr, envelope: &Envelope) -> Option<Logins> {
        let accounts = self.accounts.iter().filter(|account| {
            account.application.username.is_some()
                && account.allows_login_from(Some(address))
                && account.application.may_send_as(&envelope.reverse_path)
        });
        let names: Vec<_> = accounts
            .map(|account| Arc::clone(&account.application.name))
            .collect();
        (!names.is_empty() && !self.listeners.is_empty()).then(|| Logins {
            names,
            listeners: self.listeners.clone(),
        })
    }
}

impl fmt::Display for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.join(", ");
        let listeners = self.listeners.join(", ");
        write!(
            f,
            "on a submission listener ({listeners}) this envelope sender is in the `senders` of {names}, which may use it once logged in"
        )
    }
}

fn why(rejection: &Rejection) -> String {
    match rejection {
        Rejection::Trust(reason) => {
            let mends = trust::advice(*reason, &Evidence::default());
            format!("{}; {mends}", reason.describe())
        }
        Rejection::Header(fault) => fault.to_string(),
        other => other.wording(),
    }
}

impl fmt::Display for OfApplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, address, .. } = self;
        let listeners = self.listeners.join(", ");
        let holds = if self.senders_hold {
            "hold"
        } else {
            "do not hold"
        };
        write!(
            f,
            "connector listeners are judged here, and {address} is application {name}'s (networks), whose `senders` {holds} --mail-from: a submission listener ({listeners}) "
        )?;
        match &self.reply {
            None => f.write_str("takes this mail as the application's"),
            Some(reply) => write!(f, "answers {reply}: {}", self.why),
        }
    }
}
