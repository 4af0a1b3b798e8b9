//! What is written: a message's description and, later, what is left to do for it.
//!
//! JSON, so that a later version can add fields and an older record still opens. A record of a newer version is an error
//! that says so: the server does not start, rather than pass over mail that it was trusted with.

use super::message::{Leg, Message};
use super::queue::{LegState, Tried};
use crate::header::Rendition;
use crate::journal::JournalError;
use crate::journal::large::BodyFile;
use crate::mail::{BodyType, Envelope, Notify, QueueId, Recipient, Ret};
use crate::route::{From, Via};
use crate::smtp::data::ContentFacts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The version that is written. Raised when a released program would misread a record, not when a field is added that it may
/// pass over.
const VERSION: u32 = 1;

/// A record that says which version it is of.
pub(super) trait Versioned {
    /// Its version.
    fn version(&self) -> u32;
}

/// The one field that every version has.
#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    v: u32,
}

impl Versioned for Version {
    fn version(&self) -> u32 {
        self.v
    }
}

impl Versioned for Row {
    fn version(&self) -> u32 {
        self.v
    }
}

impl Versioned for StateRow {
    fn version(&self) -> u32 {
        self.v
    }
}

impl Versioned for Brief<'_> {
    fn version(&self) -> u32 {
        self.v
    }
}

/// Reads a record of any kind of this room.
///
/// # Errors
/// It is of a newer version, or does not read although its checksum holds.
pub(super) fn decode<'a, T: Versioned + Deserialize<'a>>(
    meta: &'a [u8],
) -> Result<T, JournalError> {
    let read = serde_json::from_slice::<T>(meta);
    let version = match &read {
        Ok(row) => row.version(),
        Err(_) => serde_json::from_slice(meta).map_or(0, |version: Version| version.v),
    };
    if version > VERSION {
        return Err(JournalError::Failing(format!(
            "a queued message was written by a newer version of gatepost (record version {version}): start that one"
        )));
    }
    // Where, but not what: the text is a stranger's.
    read.map_err(|error| {
        JournalError::Failing(format!(
            "a record of the journal does not read ({:?} error at {}:{})",
            error.classify(),
            error.line(),
            error.column()
        ))
    })
}

/// A message as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(default)]
    v: u32,
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
    /// Text where it is UTF-8, as our own fields nearly always are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    top: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top_base64: Option<String>,
    omit: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xoorg: Option<String>,
    recipients: Vec<usize>,
}

/// What is left to do for a message: each leg's open recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StateRow {
    #[serde(default)]
    v: u32,
    pub(super) id: u64,
    pub(super) legs: Vec<Vec<Tried>>,
}

impl StateRow {
    pub(super) fn of(id: u64, legs: &[LegState]) -> Self {
        Self {
            v: VERSION,
            id,
            legs: rows(legs),
        }
    }
}

/// The open recipients of each leg of the message, the parts of one put together.
fn rows(legs: &[LegState]) -> Vec<Vec<Tried>> {
    let mut rows: Vec<Vec<Tried>> = Vec::new();
    for leg in legs {
        let row = usize::from(leg.row);
        if rows.len() <= row {
            rows.resize_with(row + 1, Vec::new);
        }
        if let Some(open) = rows.get_mut(row) {
            open.extend(leg.open());
        }
    }
    rows
}

/// What start-up needs of a message: the rest is read when it is due.
#[derive(Debug, Deserialize)]
pub(super) struct Brief<'a> {
    #[serde(default)]
    v: u32,
    pub(super) id: u64,
    pub(super) arrived: u64,
    #[serde(borrow)]
    pub(super) tenant: Cow<'a, str>,
    #[serde(borrow, default)]
    from: Cow<'a, str>,
    #[serde(default)]
    application: Option<IgnoredAny>,
    #[serde(borrow, default)]
    sender: Cow<'a, str>,
    #[serde(borrow)]
    recipients: Vec<BriefRecipient<'a>>,
    #[serde(borrow)]
    legs: Vec<BriefLeg<'a>>,
    #[serde(default)]
    file: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) state: Option<StateRow>,
}

#[derive(Debug, Deserialize)]
struct BriefRecipient<'a> {
    #[serde(borrow)]
    address: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct BriefLeg<'a> {
    #[serde(borrow)]
    via: Cow<'a, str>,
    recipients: Box<[u32]>,
}

/// How one leg leaves, and the positions of its recipients in the envelope.
pub(super) type BriefWay = (Via, Box<[u32]>);

impl Brief<'_> {
    /// As [`Message::is_own`] says of the whole.
    pub(super) fn is_own(&self) -> bool {
        self.from == "submission" && self.application.is_none() && self.sender.is_empty()
    }

    pub(super) fn is_large(&self) -> bool {
        self.file.is_some()
    }

    /// The address of a recipient.
    pub(super) fn address(&self, position: u32) -> Option<&str> {
        let recipient = self.recipients.get(position as usize)?;
        Some(&recipient.address)
    }

    /// The way and the recipients of each leg.
    ///
    /// # Errors
    /// A way that this version does not know.
    pub(super) fn legs(&mut self) -> Result<Vec<BriefWay>, JournalError> {
        let legs = std::mem::take(&mut self.legs).into_iter();
        legs.map(|leg| match via_of(&leg.via) {
            Some(via) => Ok((via, leg.recipients)),
            None => Err(JournalError::Failing(
                "a queued message leaves by a way that this version of gatepost does not know: start a newer one".to_owned(),
            )),
        })
        .collect()
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
            v: VERSION,
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
                .map(|leg| (leg, std::str::from_utf8(&leg.rendition.prepend).ok()))
                .map(|(leg, top)| LegRow {
                    via: leg.via.to_string(),
                    top: top.unwrap_or_default().to_owned(),
                    top_base64: top
                        .is_none()
                        .then(|| STANDARD.encode(&leg.rendition.prepend)),
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
                    prepend: match row.top_base64 {
                        Some(top) => STANDARD.decode(top).ok()?,
                        None => row.top.into_bytes(),
                    },
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
    fn bytes_on_top_that_are_not_utf_8_read_back_unchanged() {
        let mut message = message(7);
        message.legs[0].rendition.prepend = b"Received: \xff\xfe\r\n".to_vec();
        let json = serde_json::to_vec(&Row::of(&message, None)).unwrap();
        assert_eq!(decode::<Row>(&json).unwrap().into_message(), Some(message));
    }

    #[test]
    fn a_record_with_fields_that_are_not_known_still_reads() {
        let json = serde_json::to_string(&Row::of(&message(7), None)).unwrap();
        let json = json.replacen('{', "{\"new_field\":[1,2],", 1);
        let row: Row = decode(json.as_bytes()).unwrap();
        assert!(row.into_message().is_some());
        let mut brief: Brief = decode(json.as_bytes()).unwrap();
        assert_eq!(
            (brief.id, brief.is_large(), &*brief.tenant),
            (7, false, "contoso")
        );
        assert_eq!(
            brief.legs(),
            Ok(vec![(Via::Relay("upstream".into()), [0].into())])
        );
    }

    #[test]
    fn what_was_left_to_do_before_anyone_was_told_of_delays_still_reads() {
        let old = r#"{"v":1,"id":7,"legs":[[{"position":0,"attempts":2,"next_try":5}]]}"#;
        let state: StateRow = decode(old.as_bytes()).unwrap();
        let [tried] = state.legs[0].as_slice() else {
            panic!("{state:?}");
        };
        assert!(!tried.told && !tried.uncertified);
        assert_eq!(
            serde_json::to_string(&state).unwrap(),
            old,
            "and is written as it was"
        );
    }

    #[test]
    fn a_report_of_ours_is_known_at_the_start() {
        let mut report = message(7);
        report.from = From::Submission;
        report.envelope.reverse_path = crate::mail::ReversePath::Null;
        for application in [Some("erp".into()), None] {
            report.application = application;
            let json = serde_json::to_vec(&Row::of(&report, None)).unwrap();
            let brief: Brief = decode(&json).unwrap();
            assert_eq!(brief.is_own(), report.is_own());
        }
        assert!(report.is_own() && !message(7).is_own());
    }

    #[test]
    fn a_record_of_a_newer_version_is_an_error_that_says_so() {
        let json = serde_json::to_string(&Row::of(&message(7), None)).unwrap();
        for newer in [
            json.replacen("\"v\":1", "\"v\":2", 1),
            "{\"v\":2,\"everything\":\"else\"}".to_owned(),
        ] {
            let error = decode::<Row>(newer.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("newer version"), "{error}");
            assert!(decode::<Brief>(newer.as_bytes()).is_err());
        }
        let error = decode::<Row>(b"{\"sender\":\"secret@contoso.com\"}").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
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
