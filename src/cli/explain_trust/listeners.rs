//! Which connector listeners would take the content of a message that the gates let in?

use super::Answer;
use crate::cli::message::Message;
use crate::config::Settings;
use crate::session::{Rejection, Service, Terms};
use crate::smtp::command::CommandFault;
use crate::trust::Verdict;
use serde::Serialize;
use std::sync::Arc;

/// A connector listener, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) name: Arc<str>,
    pub(super) max_message_size: u64,
    pub(super) terms: Terms,
}

/// A listener that does not take the content.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RefusedBy {
    /// Its name.
    pub(super) listener: Arc<str>,
    /// Code and enhanced code.
    pub(super) reply: String,
    /// In words.
    pub(super) why: String,
}

/// The connector listeners of a configuration.
pub(super) fn of(settings: &Settings) -> Vec<Listener> {
    let own = settings.listeners.iter();
    own.filter(|listener| listener.service == Service::Connector)
        .map(|listener| Listener {
            name: Arc::clone(&listener.name),
            max_message_size: listener.max_message_size,
            terms: Terms::new(
                listener.service,
                listener.bare_newlines,
                listener.max_message_size,
                &listener.ehlo_discard,
            ),
        })
        .collect()
}

/// The answer to a message that the gates let in, whose MAIL had XOORG or not: what becomes of it on these listeners.
pub(super) fn answer(
    verdict: &Verdict,
    listeners: &[Listener],
    message: &Message,
    xoorg: bool,
) -> Answer {
    let mut refusals = Vec::new();
    for listener in listeners {
        let terms = &listener.terms;
        let of_mail = if xoorg {
            terms.refusal_of_xoorg()
        } else {
            None
        };
        let refusal = of_mail.or_else(|| terms.refusal(verdict.class(), &message.octets));
        if let Some(rejection) = refusal {
            let told = RefusedBy {
                listener: Arc::clone(&listener.name),
                reply: super::reply_of(&rejection),
                why: why(&rejection, listener, verdict, message),
            };
            refusals.push((rejection, told));
        }
    }
    let first = refusals.first().map(|(rejection, told)| {
        let hint = hint(rejection).map(str::to_owned);
        (rejection.clone(), told.why.clone(), hint)
    });
    let taken = refusals.len() < listeners.len();
    let refused_by: Vec<RefusedBy> = refusals.into_iter().map(|(_, told)| told).collect();
    match first {
        _ if listeners.is_empty() => Answer {
            accepted: false,
            verdict: "refused",
            reason: Some("no_listener"),
            explanation: "no listener has service = \"connector\": nobody takes mail of Exchange"
                .to_owned(),
            ..Answer::of_verdict(verdict)
        },
        Some((rejection, why, hint)) if !taken => Answer {
            reason: Some(rejection.label()),
            explanation: if refused_by.len() == 1 {
                why
            } else {
                "no connector listener takes it, see each below".to_owned()
            },
            hint,
            refused_by,
            ..Answer::refused(
                &rejection,
                Some(verdict.tenant()),
                verdict.evidence().clone(),
            )
        },
        _ => Answer {
            refused_by,
            ..Answer::of_verdict(verdict)
        },
    }
}

fn why(rejection: &Rejection, listener: &Listener, verdict: &Verdict, message: &Message) -> String {
    let size = message.octets.len();
    let limit = listener.terms.limit(verdict.class());
    match rejection {
        Rejection::MessageTooLarge => {
            format!("the message is larger than max_message_size, {limit} octets")
        }
        Rejection::ValidationTooLarge => {
            format!("connector validation mail may have {limit} octets, this has {size}")
        }
        Rejection::BareNewline => {
            "the body has a bare CR or LF, which DATA does not carry, and ehlo_discard has CHUNKING"
                .to_owned()
        }
        Rejection::Syntax(CommandFault::Parameter) => {
            "MAIL has XOORG, which this listener does not offer: ehlo_discard has it".to_owned()
        }
        other => other.wording(),
    }
}

/// What lets larger mail in.
pub(in crate::cli) const RAISE_SIZE: &str =
    "raise max_message_size of the listener, if such mail is to pass";

/// What lets a body with bare newlines in.
pub(in crate::cli) const OFFER_CHUNKING: &str =
    "take CHUNKING out of ehlo_discard: by BDAT such a body passes as it is";

fn hint(rejection: &Rejection) -> Option<&'static str> {
    match rejection {
        Rejection::MessageTooLarge => Some(RAISE_SIZE),
        Rejection::BareNewline => Some(OFFER_CHUNKING),
        Rejection::Syntax(CommandFault::Parameter) => {
            Some("leave --xoorg out: who is not offered XOORG does not send it")
        }
        _ => None,
    }
}
