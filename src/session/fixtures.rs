//! A session under test, with what plays the shell and the rest of the house.

use super::*;
use crate::route::{From, Recipients, Route, Routes, Via};
use crate::trust::fixtures::{CONTOSO_ID, application, contoso, fabrikam, tenants};
use crate::trust::{HalfProven, SignatureFact};
use std::net::IpAddr;

/// The rest of the house, with what is wrong in it.
#[derive(Clone, Copy, Default)]
pub(super) struct House {
    pub(super) held: bool,
    pub(super) full: bool,
    pub(super) over_rate: bool,
    pub(super) over_validation_rate: bool,
    /// The application was taken out of the configuration.
    pub(super) gone: bool,
}

impl Conditions for House {
    fn next_id(&self, _: Now) -> QueueId {
        QueueId::from_u64(1)
    }
    fn store_ready(&self) -> bool {
        !self.full
    }
    fn connector_fault(&self, tenant: &str, _: Now) -> Option<String> {
        (self.held && tenant == "contoso").then(|| "certificate expired".to_owned())
    }
    fn by_address(&self, _: IpAddr, _: &crate::mail::ReversePath) -> ByAddress {
        if self.gone {
            return ByAddress::Unknown;
        }
        ByAddress::Application(application(
            &Arc::new(contoso()),
            &["erp@contoso.com", "<>"],
            false,
        ))
    }
    fn renewed(&self, _: &Arc<Application>) -> Option<Arc<Application>> {
        let renewed = application(&Arc::new(contoso()), &["new@contoso.com"], false);
        (!self.gone).then_some(renewed)
    }
    fn within_rate(&self, _: &str, _: Now) -> bool {
        !self.over_rate
    }
    fn within_validation_rate(&self, _: &str, _: Now) -> bool {
        !self.over_validation_rate
    }
}

pub(super) const NOW: Now = Now {
    unix_millis: 1_795_593_600_000,
    ticks: 0,
};

pub(super) fn policy(service: Service) -> Policy {
    let accepted = Route {
        tenant: None,
        recipients: Recipients::Accepted,
        from: None,
        stream: None,
        via: Via::Exchange,
    };
    let outside = Route {
        tenant: Some("fabrikam".into()),
        recipients: Recipients::Any,
        from: Some(From::Connector),
        stream: None,
        via: Via::Mx,
    };
    Policy {
        hostname: "mx.example".parse().unwrap(),
        listener: "listener".into(),
        service,
        tls: match service {
            Service::Connector => TlsMode::StartTls,
            Service::Submission => TlsMode::Optional,
        },
        max_message_size: 1 << 20,
        ehlo_discard: Vec::new(),
        bare_newlines: BareNewlines::Refuse,
        auth_without_tls: false,
        half_proven: HalfProven::Defer,
        tenants: tenants([contoso(), fabrikam()]),
        routes: Routes::new(vec![accepted, outside]),
    }
}

/// A session, and whether its shell keeps a draft.
pub(super) struct Played {
    pub(super) session: Session,
    draft: bool,
}

impl Played {
    pub(super) fn clear(policy: Policy, house: House, network: bool) -> Self {
        let peer = ([10, 0, 0, 1], 4000).into();
        let mut own = Self {
            session: Session::new(Arc::new(policy), Arc::new(house), peer, network, NOW),
            draft: false,
        };
        own.said();
        own
    }

    /// Under TLS, behind EHLO.
    pub(super) fn secured(policy: Policy, house: House, network: bool, certificate: bool) -> Self {
        let mut own = Self::clear(policy, house, network);
        own.tell("EHLO x\r\nSTARTTLS\r\n");
        let facts = TlsFacts {
            version: "TLS1.3".to_owned(),
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            peer_name: None,
            resumed: false,
        };
        let certificate = if certificate {
            ClientCertificate::Verified {
                name: "mail.protection.outlook.com".into(),
            }
        } else {
            ClientCertificate::Absent(WhyAbsent::NotPresented)
        };
        own.session.handle(NOW, Input::Secured(facts, certificate));
        own.tell("EHLO x\r\n");
        own
    }

    /// Exchange, proven.
    pub(super) fn exchange(house: House) -> Self {
        Self::secured(policy(Service::Connector), house, true, true)
    }

    /// Replies, and in brackets what is done; every signature holds, storing fails.
    pub(super) fn said(&mut self) -> String {
        let mut said = String::new();
        while let Some(output) = self.session.next_output() {
            match output {
                Output::Send(bytes) => said.push_str(&String::from_utf8(bytes).unwrap()),
                Output::Append(_) => {
                    self.draft = true;
                    self.session.handle(NOW, Input::Appended(Ok(())));
                }
                Output::Store(message, _) => {
                    self.draft = false;
                    said.push_str("[store");
                    for leg in &message.legs {
                        said.push_str(&format!(" {}", leg.via));
                    }
                    said.push_str("]\r\n");
                    self.session
                        .handle(NOW, Input::Stored(Err(SpoolError::Full)));
                }
                Output::StartTls | Output::CheckCredentials(_) | Output::Trace(_) => {}
                Output::CheckSignatures(check) => {
                    let facts = check.signatures.iter().map(|_| SignatureFact::Verified);
                    let facts = DkimFacts(facts.collect());
                    self.session.handle(NOW, Input::Signatures(Ok(facts)));
                }
                Output::Abandon => self.draft = false,
                Output::Close => said.push_str("[closed]"),
            }
        }
        // Else the next message would begin with this one's octets.
        let idle = self.session.is_between_transactions();
        assert!(!(idle && self.draft), "a draft is left: {said}");
        said
    }

    pub(super) fn tell(&mut self, text: &str) -> String {
        self.session.handle(NOW, Input::Bytes(text.as_bytes()));
        self.said()
    }

    /// What follows 354 in answer to this message.
    pub(super) fn send(&mut self, sender: &str, recipients: &[&str], content: &str) -> String {
        let mut dialogue = format!("MAIL FROM:<{sender}>\r\n");
        for recipient in recipients {
            dialogue.push_str(&format!("RCPT TO:<{recipient}>\r\n"));
        }
        dialogue.push_str("DATA\r\n");
        let opened = self.tell(&dialogue);
        assert!(
            opened.lines().last().unwrap().starts_with("354 "),
            "{opened}"
        );
        self.tell(&format!("{content}\r\n.\r\n"))
    }
}

pub(super) fn starts(reply: &str, with: &str) {
    assert!(reply.starts_with(with), "expected {with:?}: {reply}");
}

pub(super) const ADA: &str = "ada@contoso.com";
pub(super) const BOB: &[&str] = &["bob@contoso.com"];

pub(super) fn stamped(fields: &str) -> String {
    format!(
        "From: {ADA}\r\nX-OriginatorOrg: contoso.com\r\nX-MS-Exchange-CrossTenant-Id: {CONTOSO_ID}\r\n{fields}\r\nbody"
    )
}
