//! What does the sample mail look like? Header sections as Exchange Online and applications write them, in our own bytes.
//!
//! [`Inside`] is a message as Exchange's transport holds it before it leaves: the exit turns its Organization fields into
//! CrossPremises fields and stamps it ([`crate::lab::border`]). The traps are in it on purpose: empty values, one field
//! twice in different case, lines over 998 octets, folds of several kinds.

use super::super::border::MAILBOX_SERVER;

const DATE: &str = "Tue, 24 Nov 2026 08:15:31 +0000";

/// A message inside Exchange.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    from: String,
    to: String,
    subject: String,
    id: String,
    extra: Vec<u8>,
    kind: Vec<u8>,
    body: Vec<u8>,
    content_type: String,
}

impl Inside {
    pub(super) fn new(from: &str, to: &str, subject: &str, token: &str) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            subject: format!("{subject} ({token})"),
            id: format!("<{token}@{MAILBOX_SERVER}>"),
            extra: Vec::new(),
            kind: Vec::new(),
            body: b"Soup today.\r\n".to_vec(),
            content_type: "text/plain; charset=\"us-ascii\"\r\nContent-Transfer-Encoding: 7bit"
                .to_owned(),
        }
    }

    /// Whole fields of this kind of message.
    pub(super) fn field(mut self, field: impl AsRef<[u8]>) -> Self {
        self.extra.extend_from_slice(field.as_ref());
        self.extra.extend(b"\r\n");
        self
    }

    /// An Organization field of this kind of message.
    pub(super) fn organization(mut self, field: &str) -> Self {
        self.kind
            .extend(format!("X-MS-Exchange-Organization-{field}\r\n").bytes());
        self
    }

    pub(super) fn content_type(mut self, text: &str) -> Self {
        self.content_type = text.to_owned();
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The bytes.
    pub(super) fn build(&self) -> Vec<u8> {
        let blob = "Q7b2mE9xKfT0cZ4uWnR8".repeat(60);
        let top = format!(
            "Received: from {MAILBOX_SERVER} (2603:10a6:150:2cf::21)\r\n by {MAILBOX_SERVER} with Microsoft SMTP\r\n\
             \x20Server (version=TLS1_2, cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) id\r\n 15.21.202.8; {DATE}\r\n\
             Received: from {MAILBOX_SERVER}\r\n\t([fe80::86e3:136c:737e:e29a]) with mapi id 15.21.0202.006; {DATE}\r\n\
             From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\nThread-Topic: {subject}\r\nDate: {DATE}\r\n\
             Message-ID:\r\n {id}\r\nAccept-Language: en-US\r\nX-MS-Has-Attach:\r\nX-MS-TNEF-Correlator:\r\n",
            from = self.from,
            to = self.to,
            subject = self.subject,
            id = self.id,
        );
        let traffic = format!(
            "x-ms-publictraffictype: Email\r\nx-ms-traffictypediagnostic: AM8PR05MB0002:EE_|GV2PR05MB0001:EE_\r\n\
             x-ms-exchange-senderadcheck: 1\r\nx-ms-exchange-antispam-relay: 0\r\n\
             x-microsoft-antispam:\r\n BCL:0;ARA:13230040|1800799024|376014;\r\n\
             x-forefront-antispam-report:\r\n CIP:255.255.255.255;CTRY:;LANG:en;SCL:1;SFV:NSPM;CAT:NONE;SFS:{blob};DIR:OUT;\r\n\
             x-ms-exchange-antispam-messagedata-chunkcount: 1\r\n\
             x-ms-exchange-antispam-messagedata-0:\r\n =?Windows-1252?Q?Bm7iY/JHUhghf0vz9qM7z3gr6jLwmiEdtWnrvKz6noMvPQ1l2V+RppET?=\r\n\
             Content-Type: {}\r\nMIME-Version: 1.0\r\n",
            self.content_type,
        );
        let organization = format!(
            "X-MS-Exchange-Organization-AuthAs: Internal\r\nX-MS-Exchange-Organization-AuthMechanism: 04\r\n\
             X-MS-Exchange-Organization-AuthSource: {MAILBOX_SERVER}\r\n\
             X-MS-Exchange-Organization-TransportTrafficType: Email\r\nX-MS-Exchange-Organization-SCL: 1\r\n\
             X-MS-Exchange-Organization-messagesource: StoreDriver\r\nX-MS-Exchange-Organization-BCC:\r\n\
             X-MS-Exchange-Organization-originalclientipaddress: 192.0.2.45\r\n\
             X-MS-Exchange-Organization-transporttraffictype: Email\r\n\
             X-MS-Exchange-Organization-antispam-scancontext: DIR:Originating;SFV:NSPM;SKIP:0;\r\n\
             X-MS-Exchange-Organization-processed-by-journaling: Journal Agent\r\n\
             X-MS-Exchange-Organization-MessageDirectionality: Originating\r\n"
        );
        let parts: [&[u8]; 7] = [
            top.as_bytes(),
            &self.extra,
            traffic.as_bytes(),
            organization.as_bytes(),
            &self.kind,
            b"\r\n",
            &self.body,
        ];
        parts.concat()
    }
}

/// Every octet, with bare CR, bare LF, NUL and something that looks like the end of data: only BDAT can carry it.
pub(super) fn binary_body() -> Vec<u8> {
    let every: Vec<u8> = (0..=255).collect();
    [
        b"line\r\n".as_slice(),
        &every,
        b"\n.\n\r.\r\r\n.\r\n\r\n",
        &every,
        b"and no newline at the end",
    ]
    .concat()
}

/// Lines that a careless dot-stuffer harms, one of 15,000 octets, and 8-bit text.
pub(super) fn dotty_body() -> Vec<u8> {
    let mut body = b".\r\n..\r\n...leading\r\n.hidden\r\nGr\xc3\xbc\xc3\x9fe, caf\xe9\r\n".to_vec();
    body.resize(body.len() + 15_000, b'x');
    body.extend(b"\r\nFrom: not a field\r\nX-OriginatorOrg: not one either\r\n.");
    body
}

/// A folded field of about 20 KB.
pub(super) fn long_references() -> String {
    let mut field = "References:".to_owned();
    for number in 0..220 {
        field += &format!(
            "\r\n <{number:04}-8C5C203EFA695E7F57DB59CA795D08-8C5C203EFA695E7F57DB59CA795D08@{MAILBOX_SERVER}>"
        );
    }
    field
}

/// What an application writes.
pub(super) fn application(
    from: &str,
    to: &str,
    subject: &str,
    token: &str,
    extra: &str,
) -> Vec<u8> {
    format!(
        "From: \"Scanner 7\" <{from}>\r\nTo: {to}\r\nSubject: {subject} ({token})\r\nDate: {DATE}\r\n\
         Message-ID: <{token}@scanner7.example>\r\n{extra}MIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"utf-8\"\r\n\
         Content-Transfer-Encoding: base64\r\nX-Mailer: ScanDevice 2.1\r\n\r\nSWhyIFNjYW4gaXN0IGZlcnRpZy4NCg==\r\n"
    )
    .into_bytes()
}

/// What an old device writes: bare line feeds, no Date, no Message-ID.
pub(super) fn device(from: &str, to: &str, token: &str) -> Vec<u8> {
    format!(
        "From: {from}\nTo: {to}\nSubject: Scan ({token})\nX-Mailer: MFP\n\nPage 1\nPage 2\r\nPage 3\r\n"
    )
    .into_bytes()
}

/// A meeting request.
pub(super) fn calendar_body() -> String {
    "--b_cal\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n\r\nProject review\r\n\r\n--b_cal\r\n\
     Content-Type: text/calendar; charset=\"utf-8\"; method=REQUEST\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
     BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:Project review\r\nUID:040000008200E00074C5B7101A82E008\r\n\
     DTSTART:20261126T090000Z\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n\r\n--b_cal--\r\n"
        .to_owned()
}

/// A non-delivery report.
pub(super) fn report_body(original: &str) -> String {
    format!(
        "--b_ndr\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n\r\nYour message couldn't be delivered.\r\n\r\n\
         --b_ndr\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns;{MAILBOX_SERVER}\r\n\r\n\
         Final-Recipient: rfc822;{original}\r\nAction: failed\r\nStatus: 5.1.10\r\n\r\n--b_ndr--\r\n"
    )
}
