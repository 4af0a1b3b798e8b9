//! What is a sender told about mail that failed, waits, or went on to a host that reports nothing? Outcomes become an RFC
//! 3464 report.
//!
//! [`addressee`] says who gets it (nobody, where the sender is null: never a bounce of a bounce), [`is_wanted`] whether the
//! recipient's NOTIFY asks for it, [`Report::write`] makes the message: a text for people, `message/delivery-status` for
//! machines, and what may be shown of the original. Time, ids and the boundary come in as arguments; the finished message
//! goes into the spool as Gatepost's own mail.
//!
//! The MIME frame is ours: mail-builder encodes whatever is not text as base64, which RFC 2046 §5.2.1 forbids for the
//! returned message, and takes its boundaries from the clock.

mod address;
mod status;
mod text;

use crate::header::rfc5322_date;
use crate::mail::{Envelope, Mailbox, Notify, QueueId, Recipient};
use crate::smtp::reply::Enhanced;

/// What a report says of its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Given up.
    Failed,
    /// Not there yet, still being tried.
    Delayed,
    /// Handed to a host that offers no DSN, though NOTIFY=SUCCESS was asked (RFC 3461 §5.2.2).
    Relayed,
}

impl Kind {
    /// The `class` label of metrics and trace.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Failed => "failure",
            Self::Delayed => "delay",
            Self::Relayed => "relayed",
        }
    }

    /// `Action` (RFC 3464 §2.3.3).
    fn action(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Failed => "Undelivered mail returned to sender",
            Self::Delayed => "Delayed mail, still being tried",
            Self::Relayed => "Mail handed on, no notice of delivery will follow",
        }
    }
}

/// Who gets reports on this message; nobody where its sender is null (RFC 5321 §4.5.5).
///
/// `bounces_to` stands in for an application's sender where something went wrong, since nobody reads the mailbox of a
/// printer. That mail went on was asked for by whoever sent it, so that report goes to the sender.
#[must_use]
pub fn addressee<'a>(
    kind: Kind,
    envelope: &'a Envelope,
    bounces_to: Option<&'a Mailbox>,
) -> Option<&'a Mailbox> {
    let sender = envelope.reverse_path.mailbox()?;
    match kind {
        Kind::Failed | Kind::Delayed => Some(bounces_to.unwrap_or(sender)),
        Kind::Relayed => Some(sender),
    }
}

/// Whether NOTIFY asks for such a report (RFC 3461 §4.1). Without NOTIFY failures are reported, and delays as well, which
/// the clause leaves to us.
#[must_use]
pub fn is_wanted(kind: Kind, notify: Option<Notify>) -> bool {
    match (notify, kind) {
        (None, Kind::Failed | Kind::Delayed) => true,
        (None, Kind::Relayed) | (Some(Notify::Never), _) => false,
        (Some(Notify::On { failure, .. }), Kind::Failed) => failure,
        (Some(Notify::On { delay, .. }), Kind::Delayed) => delay,
        (Some(Notify::On { success, .. }), Kind::Relayed) => success,
    }
}

/// Whose word a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A reason of our own.
    Ours,
    /// The next hop said so: this host, where it is known.
    NextHop(Option<&'a str>),
}

/// One recipient of the original and what became of it.
#[derive(Clone, Debug)]
pub struct Fate<'a> {
    /// As it was given to us.
    pub recipient: &'a Recipient,
    /// The code behind it: of the reply, or of our own reason (RFC 3463).
    pub status: Enhanced,
    /// The reply or reason, escaped and cut.
    pub reply: &'a str,
    /// Who said so.
    pub source: Source<'a>,
    /// Its time is over (RFC 3463: 4.4.7).
    pub expired: bool,
    /// Until when it is tried, for a delay: seconds since 1970.
    pub retry_until: Option<u64>,
}

/// What is shown of the original.
#[derive(Clone, Debug, Default)]
pub enum Returned {
    /// Nothing: it could not be read.
    #[default]
    Nothing,
    /// These fields, each with its CRLF.
    Header(Vec<u8>),
    /// The whole of it: fields and body with the empty line between.
    Whole(Vec<u8>),
}

impl Returned {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Header(octets) | Self::Whole(octets) => octets,
        }
    }
}

/// A report that is to be written.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// Which.
    pub kind: Kind,
    /// Our host name.
    pub hostname: &'a str,
    /// Who writes: postmaster of a domain of ours.
    pub from: &'a Mailbox,
    /// Who reads.
    pub to: &'a Mailbox,
    /// Queue id of the report.
    pub id: QueueId,
    /// Queue id of the original.
    pub original: QueueId,
    /// Message-ID of the original as the trace knows it.
    pub message_id: Option<&'a str>,
    /// `ENVID=` of the original, still encoded.
    pub envid: Option<&'a str>,
    /// When the original arrived: seconds since 1970.
    pub arrived: u64,
    /// Seconds since 1970.
    pub now: u64,
    /// Stands in no part: at random, since who wrote the original must not guess it.
    pub boundary: &'a str,
    /// At least one.
    pub fates: &'a [Fate<'a>],
    /// What is shown of the original.
    pub returned: Returned,
}

impl Report<'_> {
    /// Whether the report itself needs SMTPUTF8 to reach its reader: only then may its own fields be UTF-8, so that a
    /// reader with an ASCII address gets his report over any next hop (RFC 6533 §3).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        self.to.needs_smtputf8() || self.from.needs_smtputf8()
    }

    /// The whole message (RFC 3464 §2, RFC 6522 §3), lines ended by CRLF.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let utf8 = self.needs_smtputf8();
        let text = text::human(self);
        let status = status::machine(self, utf8);
        let returned = self.returned.octets();
        let ascii = text.is_ascii() && status.is_ascii() && returned.is_ascii();
        let mut out = Vec::with_capacity(returned.len() + text.len() + status.len() + 2048);
        self.fields(&mut out, ascii);
        let boundary = self.boundary;
        let mut part = |kind: &str, octets: &[u8]| {
            let encoding = encoding(octets);
            let head = format!(
                "--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            );
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(octets);
            // This line end belongs to the delimiter (RFC 2046 §5.1.1), so that the part ends as it ended.
            out.extend_from_slice(b"\r\n");
        };
        let charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
        part(&format!("text/plain; charset={charset}"), text.as_bytes());
        let kind = if utf8 {
            "message/global-delivery-status"
        } else {
            "message/delivery-status"
        };
        part(kind, status.as_bytes());
        // A header in UTF-8 has types of its own (RFC 6533 §5, §6).
        let header_end = memchr::memmem::find(returned, b"\r\n\r\n").unwrap_or(returned.len());
        let header = returned.get(..header_end).unwrap_or_default();
        let global = !header.is_ascii() && std::str::from_utf8(header).is_ok();
        match (&self.returned, global) {
            (Returned::Nothing, _) => {}
            (Returned::Header(octets), false) => part("text/rfc822-headers", octets),
            (Returned::Header(octets), true) => part("message/global-headers", octets),
            (Returned::Whole(octets), false) => part("message/rfc822", octets),
            (Returned::Whole(octets), true) => part("message/global", octets),
        }
        out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        out
    }

    fn fields(&self, out: &mut Vec<u8>, ascii: bool) {
        let mut field = |name: &str, value: &str| {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        };
        field("From", &format!("Mail Delivery System <{}>", self.from));
        field("To", &format!("<{}>", self.to));
        field("Subject", self.kind.subject());
        field("Date", &rfc5322_date(self.now));
        field("Message-ID", &format!("<{}@{}>", self.id, self.hostname));
        if let Some(id) = self.message_id.filter(|id| is_message_id(id)) {
            field("In-Reply-To", id);
        }
        // RFC 3834 §5: nobody answers this by itself.
        field("Auto-Submitted", "auto-replied");
        field("MIME-Version", "1.0");
        field(
            "Content-Type",
            &format!(
                "multipart/report; report-type=delivery-status;\r\n\tboundary=\"{}\"",
                self.boundary
            ),
        );
        let encoding = if ascii { "7bit" } else { "8bit" };
        field("Content-Transfer-Encoding", encoding);
        out.extend_from_slice(b"\r\nThis is a delivery report in MIME format (RFC 3464).\r\n");
    }
}

fn encoding(octets: &[u8]) -> &'static str {
    if octets.is_ascii() { "7bit" } else { "8bit" }
}

/// The trace escapes and cuts what it keeps: only what is whole is named again.
fn is_message_id(text: &str) -> bool {
    let inner = text
        .strip_prefix('<')
        .and_then(|text| text.strip_suffix('>'));
    inner.is_some_and(|inner| {
        inner.contains('@')
            && inner
                .bytes()
                .all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>' | b'\\'))
    })
}

/// Text for a field or a line: printable ASCII only, at most as much as a person is shown of a peer's words.
fn clean(text: &str) -> String {
    let printable = |letter: char| {
        if letter.is_ascii_graphic() || letter == ' ' {
            letter
        } else {
            '?'
        }
    };
    let letters = text.chars().take(crate::mail::SHOWN_TEXT);
    letters.map(printable).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests;
