//! What is written: a message's description and, later, what is left to do for it.
//!
//! JSON, so that a later version can add fields and an older record still opens. The journal around it carries version and
//! checksum.

use super::message::{Leg, Message};
use super::queue::{LegState, Tried};
use crate::header::Rendition;
use crate::journal::large::BodyFile;
use crate::mail::{BodyType, Envelope, Notify, QueueId, Recipient, Ret};
use crate::route::{From, Via};
use crate::smtp::data::ContentFacts;
use serde::{Deserialize, Serialize};

/// A message as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) arrived: u64,
    tenant: String,
    from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    application: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bounces_to: Option<String>,
    sender: String,
    recipients: Vec<RecipientRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    smtputf8: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ret: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    envid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xoorg: Option<String>,
    facts: ContentFacts,
    legs: Vec<LegRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network_message_id: Option<String>,
    /// The body lies in a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<BodyFile>,
    /// What is left to do, in a record that was copied forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<StateRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RecipientRow {
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notify: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orcpt: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LegRow {
    via: String,
    /// Text where it is UTF-8, as our own fields are.
    top: String,
    omit: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xoorg: Option<String>,
    recipients: Vec<usize>,
}

/// What is left to do for a message: each leg's open recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StateRow {
    pub(super) id: u64,
    pub(super) legs: Vec<Vec<Tried>>,
}

impl StateRow {
    pub(super) fn of(id: u64, legs: &[LegState]) -> Self {
        Self {
            id,
            legs: legs.iter().map(LegState::open).collect(),
        }
    }
}

fn via_of(text: &str) -> Option<Via> {
    match text {
        "exchange" => Some(Via::Exchange),
        "mx" => Some(Via::Mx),
        other => other
            .strip_prefix("relay:")
            .map(|name| Via::Relay(name.into())),
    }
}

fn notify_text(notify: Notify) -> String {
    match notify {
        Notify::Never => "NEVER".to_owned(),
        Notify::On {
            success,
            failure,
            delay,
        } => {
            let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let words: Vec<&str> = words
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, word)| *word)
                .collect();
            words.join(",")
        }
    }
}

fn notify_of(text: &str) -> Notify {
    if text == "NEVER" {
        return Notify::Never;
    }
    let has = |word| text.split(',').any(|own| own == word);
    Notify::On {
        success: has("SUCCESS"),
        failure: has("FAILURE"),
        delay: has("DELAY"),
    }
}

impl Row {
    pub(super) fn of(message: &Message, file: Option<BodyFile>) -> Self {
        let envelope = &message.envelope;
        let text = |text: &std::sync::Arc<str>| text.to_string();
        Self {
            id: message.id.as_u64(),
            arrived: message.arrived,
            tenant: message.tenant.to_string(),
            from: match message.from {
                From::Connector => "connector".to_owned(),
                From::Submission => "submission".to_owned(),
            },
            application: message.application.as_ref().map(text),
            stream: message.stream.as_ref().map(text),
            bounces_to: message.bounces_to.as_ref().map(ToString::to_string),
            sender: envelope.reverse_path.to_string(),
            recipients: envelope
                .recipients
                .iter()
                .map(|recipient| RecipientRow {
                    address: recipient.mailbox.to_string(),
                    notify: recipient.notify.map(notify_text),
                    orcpt: recipient.orcpt.as_deref().map(str::to_owned),
                })
                .collect(),
            body: envelope.body.map(|body| match body {
                BodyType::SevenBit => "7BIT".to_owned(),
                BodyType::EightBitMime => "8BITMIME".to_owned(),
            }),
            smtputf8: envelope.smtputf8,
            ret: envelope.ret.map(|ret| match ret {
                Ret::Full => "FULL".to_owned(),
                Ret::Headers => "HDRS".to_owned(),
            }),
            envid: envelope.envid.as_deref().map(str::to_owned),
            xoorg: envelope.xoorg.as_ref().map(ToString::to_string),
            facts: message.facts,
            legs: message
                .legs
                .iter()
                .map(|leg| LegRow {
                    via: leg.via.to_string(),
                    top: String::from_utf8_lossy(&leg.rendition.prepend).into_owned(),
                    omit: leg
                        .rendition
                        .omit
                        .iter()
                        .map(|range| (range.start, range.end))
                        .collect(),
                    xoorg: leg.xoorg.as_ref().map(ToString::to_string),
                    recipients: leg.recipients.clone(),
                })
                .collect(),
            message_id: message.message_id.clone(),
            network_message_id: message.network_message_id.clone(),
            file,
            state: None,
        }
    }

    /// The queues of its legs and how many recipients each has: what due work needs to know.
    pub(super) fn legs(&self) -> impl Iterator<Item = Option<(Via, Vec<usize>)>> {
        self.legs
            .iter()
            .map(|leg| via_of(&leg.via).map(|via| (via, leg.recipients.clone())))
    }

    pub(super) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The message; nothing where a field does not read back.
    pub(super) fn into_message(self) -> Option<Message> {
        let recipients = self.recipients.into_iter().map(|row| {
            Some(Recipient {
                mailbox: row.address.parse().ok()?,
                notify: row.notify.as_deref().map(notify_of),
                orcpt: row.orcpt.map(Into::into),
            })
        });
        let legs = self.legs.into_iter().map(|row| {
            Some(Leg {
                via: via_of(&row.via)?,
                rendition: Rendition {
                    prepend: row.top.into_bytes(),
                    omit: row
                        .omit
                        .into_iter()
                        .map(|(start, end)| start..end)
                        .collect(),
                },
                xoorg: row.xoorg.and_then(|org| org.parse().ok()),
                recipients: row.recipients,
            })
        });
        Some(Message {
            id: QueueId::from_u64(self.id),
            arrived: self.arrived,
            tenant: self.tenant.into(),
            from: if self.from == "submission" {
                From::Submission
            } else {
                From::Connector
            },
            application: self.application.map(Into::into),
            stream: self.stream.map(Into::into),
            bounces_to: self.bounces_to.and_then(|address| address.parse().ok()),
            envelope: Envelope {
                reverse_path: self.sender.parse().ok()?,
                recipients: recipients.collect::<Option<_>>()?,
                body: self.body.as_deref().map(|body| match body {
                    "8BITMIME" => BodyType::EightBitMime,
                    _ => BodyType::SevenBit,
                }),
                smtputf8: self.smtputf8,
                ret: self.ret.as_deref().map(|ret| {
                    if ret == "FULL" {
                        Ret::Full
                    } else {
                        Ret::Headers
                    }
                }),
                envid: self.envid.map(Into::into),
                xoorg: self.xoorg.and_then(|org| org.parse().ok()),
            },
            facts: self.facts,
            legs: legs.collect::<Option<_>>()?,
            message_id: self.message_id,
            network_message_id: self.network_message_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn message(id: u64) -> Message {
        Message {
            id: QueueId::from_u64(id),
            arrived: 1000,
            tenant: "contoso".into(),
            from: From::Connector,
            application: Some("erp".into()),
            stream: None,
            bounces_to: Some("owner@contoso.com".parse().unwrap()),
            envelope: Envelope {
                reverse_path: "Ädä@contoso.com".parse().unwrap(),
                recipients: vec![Recipient {
                    mailbox: "\"b b\"@Contoso.com".parse().unwrap(),
                    notify: Some(Notify::On {
                        success: true,
                        failure: false,
                        delay: true,
                    }),
                    orcpt: Some("rfc822;b+20b@contoso.com".into()),
                }],
                body: Some(BodyType::EightBitMime),
                smtputf8: true,
                ret: Some(Ret::Headers),
                envid: Some("a+2Bb".into()),
                xoorg: Some("contoso.com".parse().unwrap()),
            },
            facts: ContentFacts {
                size: 10,
                nul: true,
                ..ContentFacts::default()
            },
            legs: vec![Leg {
                via: Via::Relay("upstream".into()),
                rendition: Rendition {
                    prepend: b"Received: x\r\n".to_vec(),
                    omit: vec![3..9, 12..14],
                },
                xoorg: None,
                recipients: vec![0],
            }],
            message_id: Some("<1@x>".to_owned()),
            network_message_id: None,
        }
    }

    #[test]
    fn a_message_reads_back() {
        let message = message(7);
        let json =
            serde_json::to_vec(&Row::of(&message, Some(BodyFile { length: 5, crc: 9 }))).unwrap();
        let row: Row = serde_json::from_slice(&json).unwrap();
        assert_eq!(row.file, Some(BodyFile { length: 5, crc: 9 }));
        assert_eq!(row.into_message(), Some(message));
    }

    #[test]
    fn a_record_of_a_later_version_with_more_fields_still_reads() {
        let json = serde_json::to_string(&Row::of(&message(7), None)).unwrap();
        let json = json.replacen('{', "{\"new_field\":[1,2],", 1);
        assert!(
            serde_json::from_str::<Row>(&json)
                .unwrap()
                .into_message()
                .is_some()
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(row) = serde_json::from_slice::<Row>(&bytes) {
                let _read = row.into_message();
            }
        }
    }
}
