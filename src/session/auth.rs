//! AUTH: the exchange of RFC 4954, up to the credentials that somebody else checks.

use super::rejection::Rejection;
use super::state::{Ready, State};
use super::{Core, Now, Output, Service};
use crate::mail::Secret;
use crate::smtp::extension::Extension;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{self, Login, Mechanism};

/// What AUTH still wants.
pub(crate) enum Authenticating {
    Plain,
    LoginName,
    LoginPassword { username: String },
}

impl Authenticating {
    pub(super) fn on(self, core: &mut Core, line: &[u8], now: Now) -> State {
        // RFC 4954 §4: the client gives up.
        if line.trim_ascii() == b"*" {
            core.refuse(Rejection::AuthenticationCancelled, now);
            return State::ready();
        }
        match sasl::decode(line) {
            Some(message) => self.message(core, &message, now),
            None => {
                core.refuse(Rejection::AuthenticationMalformed, now);
                State::ready()
            }
        }
    }

    fn message(self, core: &mut Core, message: &[u8], now: Now) -> State {
        let login = match self {
            Self::Plain => sasl::plain(message),
            Self::LoginName => {
                let Ok(username) = String::from_utf8(message.to_vec()) else {
                    core.refuse(Rejection::AuthenticationMalformed, now);
                    return State::ready();
                };
                // "Password:"
                core.reply(&Reply::plain(334, vec!["UGFzc3dvcmQ6".into()]));
                return State::Authenticating(Self::LoginPassword { username });
            }
            Self::LoginPassword { username } => Some(Login {
                username,
                password: Secret::new(message),
            }),
        };
        match login {
            Some(login) => {
                core.outputs.push_back(Output::CheckCredentials(login));
                State::Checking
            }
            None => {
                core.refuse(Rejection::AuthenticationMalformed, now);
                State::ready()
            }
        }
    }
}

impl Core {
    pub(super) fn auth(
        &mut self,
        mechanism: Option<Mechanism>,
        initial: Option<Vec<u8>>,
        ready: Ready,
        now: Now,
    ) -> State {
        let rejection = if self.policy.service == Service::Connector {
            Some(Rejection::NotImplemented)
        } else if !self.policy.allows(Extension::Auth) {
            Some(Rejection::AuthNotAvailable)
        } else if !self.offers_auth() && self.offers_starttls() {
            Some(Rejection::StartTlsRequired)
        } else if !self.offers_auth() {
            Some(Rejection::AuthNotAvailable)
        } else if self.greeted.is_none() {
            Some(Rejection::BadSequence {
                expected: "EHLO first",
            })
        } else if self.application.is_some() {
            Some(Rejection::BadSequence {
                expected: "authenticated already",
            })
        } else {
            None
        };
        if let Some(rejection) = rejection {
            self.refuse(rejection, now);
            return State::Ready(ready);
        }
        let (next, prompt) = match mechanism {
            Some(Mechanism::Plain) => (Authenticating::Plain, ""),
            // "Username:"
            Some(Mechanism::Login) => (Authenticating::LoginName, "VXNlcm5hbWU6"),
            None => {
                self.refuse(Rejection::UnknownMechanism, now);
                return State::Ready(ready);
            }
        };
        match initial {
            Some(response) => next.on(self, &response, now),
            None => {
                self.reply(&Reply::plain(334, vec![prompt.into()]));
                State::Authenticating(next)
            }
        }
    }
}
