//! EHLO and HELO: who is there, and what is offered to whom.

use super::rejection::Rejection;
use super::{Core, Greeted, MAX_RECIPIENTS, Now, Service};
use crate::smtp::extension::Extension;
use crate::smtp::reply::Reply;
use crate::trust::Standing;
use std::borrow::Cow;

impl Core {
    pub(super) fn ehlo(&mut self, name: String) {
        let mut lines: Vec<Cow<'static, str>> = vec![
            format!(
                "{} Hello [{}]",
                self.policy.hostname,
                self.peer_address.ip().to_canonical()
            )
            .into(),
        ];
        for extension in Extension::ALL {
            if !self.offers(extension) {
                continue;
            }
            match extension {
                Extension::Size => {
                    lines.push(format!("SIZE {}", self.policy.max_message_size).into())
                }
                Extension::Limits => lines.push(format!("LIMITS RCPTMAX={MAX_RECIPIENTS}").into()),
                Extension::Auth => {
                    lines.push("AUTH PLAIN LOGIN".into());
                    // The form of servers before RFC 2554, which old devices look for.
                    lines.push("AUTH=PLAIN LOGIN".into());
                }
                Extension::Pipelining
                | Extension::Dsn
                | Extension::EnhancedStatusCodes
                | Extension::StartTls
                | Extension::EightBitMime
                | Extension::Chunking
                | Extension::SmtpUtf8
                | Extension::Xoorg => lines.push(extension.keyword().into()),
            }
        }
        self.reply(&Reply::plain(250, lines));
        self.greeted = Some(Greeted {
            name,
            extended: true,
        });
    }

    pub(super) fn helo(&mut self, name: String) {
        let hello = format!(
            "{} Hello [{}]",
            self.policy.hostname,
            self.peer_address.ip().to_canonical()
        );
        self.reply(&Reply::plain(250, vec![hello.into()]));
        self.greeted = Some(Greeted {
            name,
            extended: false,
        });
    }

    pub(super) fn offers(&self, extension: Extension) -> bool {
        self.policy.allows(extension)
            && match extension {
                Extension::StartTls => self.offers_starttls(),
                Extension::Auth => self.offers_auth(),
                Extension::Xoorg => self.offers_xoorg(),
                Extension::Pipelining
                | Extension::Size
                | Extension::Dsn
                | Extension::EnhancedStatusCodes
                | Extension::EightBitMime
                | Extension::Chunking
                | Extension::SmtpUtf8
                | Extension::Limits => true,
            }
    }

    pub(super) fn offers_auth(&self) -> bool {
        self.policy.service == Service::Submission
            && (self.tls.is_some() || self.policy.auth_without_tls)
    }

    /// Only to a peer that passed network and certificate (product.md 5).
    fn offers_xoorg(&self) -> bool {
        self.is_connector() && self.trust.standing() == Standing::Proven
    }

    pub(super) fn refuse_starttls(&mut self, now: Now) {
        let rejection = if self.tls.is_some() {
            Rejection::BadSequence {
                expected: "TLS is active already",
            }
        } else if self.offers_starttls() {
            Rejection::BadSequence {
                expected: "a transaction is open",
            }
        } else {
            Rejection::StartTlsNotAvailable
        };
        self.refuse(rejection, now);
    }
}
