//! How do we log in at a relay? AUTH PLAIN or LOGIN (RFC 4954), under TLS only.

use super::{Answer, Dialogue, Output, State};
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{self, Login};

/// What of a login the peer asks for next, should it ask.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// PLAIN, said with AUTH already; some servers ask all the same.
    Message,
    /// LOGIN: the user name.
    Name,
    /// LOGIN: the password.
    Password,
    /// Nothing: everything was said.
    Nothing,
}

impl Dialogue {
    /// Logs in where that is wanted. A password never crosses the network in clear text, whatever the peer offers.
    pub(super) fn log_in(&mut self) {
        let Some(login) = &self.manners.login else {
            self.state = State::Ready;
            self.outputs.push_back(Output::Ready);
            return;
        };
        if !self.secure {
            self.fail(Answer::NoLogin(
                "there is no TLS, and the password is not sent in clear text".to_owned(),
            ));
            return;
        }
        let offers = |name: &str| self.offered.auth.iter().any(|own| own == name);
        let (line, asked) = if offers("PLAIN") {
            let message = sasl::plain_message(login);
            (format!("AUTH PLAIN {message}\r\n"), Asked::Message)
        } else if offers("LOGIN") {
            ("AUTH LOGIN\r\n".to_owned(), Asked::Name)
        } else {
            self.fail(Answer::NoLogin(
                "the next hop offers neither AUTH PLAIN nor LOGIN".to_owned(),
            ));
            return;
        };
        self.send(&line);
        self.state = State::Login(asked);
    }

    pub(super) fn on_login(&mut self, asked: Asked, reply: Reply) {
        let answer = |login: &Login| match asked {
            Asked::Message => Some((sasl::plain_message(login), Asked::Nothing)),
            Asked::Name => Some((sasl::encode(login.username.as_bytes()), Asked::Password)),
            Asked::Password => Some((sasl::encode(login.password.expose()), Asked::Nothing)),
            Asked::Nothing => None,
        };
        let answer = self.manners.login.as_ref().and_then(answer);
        match (reply.code, answer) {
            (235, _) => {
                self.state = State::Ready;
                self.outputs.push_back(Output::Ready);
            }
            (334, Some((line, asked))) => {
                self.send(&format!("{line}\r\n"));
                self.state = State::Login(asked);
            }
            _ => {
                let told = match &self.manners.login {
                    Some(login) => without(login, reply),
                    None => reply,
                };
                self.fail(Answer::login_refused(&told));
            }
        }
    }
}

/// The reply, with what we have said of the login taken out: there are servers that repeat a command they refuse, and what
/// they say is shown in trace and log.
fn without(login: &Login, mut reply: Reply) -> Reply {
    let said = [
        sasl::plain_message(login),
        sasl::encode(login.password.expose()),
        login.password.expose_str().to_owned(),
    ];
    for line in &mut reply.lines {
        for secret in said.iter().filter(|secret| !secret.is_empty()) {
            if line.contains(secret.as_str()) {
                *line = line.replace(secret.as_str(), "***").into();
            }
        }
    }
    reply
}
