//! `gatepost explain headers`: would Exchange treat this as internal, and if not, because of what?
//!
//! A file, a pasted block, or a message of the running server's queue; ends with one sentence.

use super::explain_attribution::{self, RootsOption};
use super::message::Message;
use super::{Trouble, client, explain_trust};
use crate::admin::ClientError;
use crate::config::Settings;
use crate::exchange::promotion::{Facts, Judgement, Reading, judge, sender_of, tenant_of};
use crate::header::{self, Examined, MAX_HEADER, MAX_PASTED, Progress, Splitter, examine};
use crate::mail::{QueueId, shown};
use crate::session::Rejection;
use crate::spool::Told;
use crate::trust::Tenant;
use clap::{Args, ValueEnum};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

/// What is asked.
#[derive(Debug, Default, Args)]
pub struct Arguments {
    /// A message in the queue of the running server, as it will leave.
    #[arg(value_name = "QUEUE-ID", conflicts_with = "message")]
    id: Option<String>,
    /// The message, or a saved header; without either, it is read from standard input.
    #[arg(long, value_name = "FILE.eml")]
    message: Option<PathBuf>,
    /// The tenant by whose connector it goes; without, the one that the header names.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Which of the two it is; without, what it looks like.
    #[arg(long = "as", value_enum, value_name = "READING")]
    reading: Option<As>,
    #[command(flatten)]
    roots: RootsOption,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum As {
    /// Before Exchange has taken it (again).
    OnItsWay,
    /// As a mailbox shows it.
    Mailbox,
}

impl From<Reading> for As {
    fn from(reading: Reading) -> Self {
        match reading {
            Reading::OnItsWay => Self::OnItsWay,
            Reading::Mailbox => Self::Mailbox,
        }
    }
}

impl As {
    /// As it is written behind `--as`.
    fn word(self) -> &'static str {
        match self {
            Self::OnItsWay => "on-its-way",
            Self::Mailbox => "mailbox",
        }
    }
}

/// A judgement, with the way by which it leaves where it is of the queue.
struct Row {
    via: Option<String>,
    tenant: Option<String>,
    judgement: Option<Judgement>,
}

/// What to print, and whether it is internal.
///
/// # Errors
/// A file that cannot be read, no header in it, or no server that answers.
pub fn answer(
    settings: Option<&Settings>,
    arguments: &Arguments,
    json: bool,
    now: u64,
) -> Result<(bool, String), Trouble> {
    let rows = match (&arguments.id, settings) {
        (Some(id), Some(settings)) => queued(settings, arguments, id, now)?,
        (Some(_), None) => {
            let why = "a queue id asks the running server: which configuration? (--config)";
            return Err(Trouble::Use(why.to_owned()));
        }
        (None, settings) => {
            let text = read(arguments)?;
            let mut row = of_text(&text, settings, arguments, now)?;
            if arguments.message.is_some() {
                row.judge_form(text);
            }
            vec![row]
        }
    };
    told(&rows, json).map_err(Trouble::Use)
}

/// [`answer`] to a text, without configuration.
///
/// # Errors
/// There is no header in it.
pub fn answer_to(text: &[u8], json: bool) -> Result<(bool, String), String> {
    let row = of_text(text, None, &Arguments::default(), 0)?;
    told(&[row], json)
}

fn told(rows: &[Row], json: bool) -> Result<(bool, String), String> {
    let good = rows.iter().all(Row::is_internal);
    let text = if json {
        let rows: Vec<serde_json::Value> = rows.iter().map(Row::as_json).collect();
        serde_json::to_string_pretty(&rows).map_err(|error| error.to_string())? + "\n"
    } else {
        let texts: Vec<String> = rows.iter().map(Row::as_text).collect();
        texts.join("\n")
    };
    Ok((good, text))
}

fn read(arguments: &Arguments) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    match &arguments.message {
        Some(path) => File::open(path)
            .and_then(|file| file.take(MAX_PASTED as u64).read_to_end(&mut text))
            .map_err(|error| format!("{}: {error}", path.display()))?,
        None => std::io::stdin()
            .lock()
            .take(MAX_PASTED as u64)
            .read_to_end(&mut text)
            .map_err(|error| format!("standard input: {error}"))?,
    };
    Ok(text)
}

/// A header section as it was on the wire, else as somebody copied it; `None` where there is no field.
#[must_use]
pub fn examined(text: &[u8]) -> Option<Examined> {
    let on_the_wire = || {
        let mut splitter = Splitter::default();
        let length = match splitter.push(text).ok()? {
            Progress::Complete { length } => length,
            Progress::More => splitter.finish().ok()?,
        };
        let examined = examine(text.get(..length)?).ok()?;
        let any = examined.fields().next().is_some();
        any.then_some(examined)
    };
    on_the_wire().or_else(|| examine(&header::pasted(text)?).ok())
}

fn of_text(
    text: &[u8],
    settings: Option<&Settings>,
    arguments: &Arguments,
    now: u64,
) -> Result<Row, String> {
    let header = examined(text).ok_or_else(|| why_none(text))?;
    let reading = arguments.reading.map(|reading| match reading {
        As::OnItsWay => Reading::OnItsWay,
        As::Mailbox => Reading::Mailbox,
    });
    judged(&header, settings, arguments, reading, false, now)
}

/// Why there is no field in a text.
fn why_none(text: &[u8]) -> &'static str {
    let ends = |section: &[u8]| {
        let holds = |end: &[u8]| section.windows(end.len()).any(|octets| octets == end);
        holds(b"\n\n") || holds(b"\n\r\n")
    };
    if text.get(..MAX_HEADER).is_some_and(|start| !ends(start)) {
        "a header section over 256 KiB, which Gatepost refuses (552 5.3.4) and nobody else has to take"
    } else if text.contains(&0) {
        "no header field in it that can be read, but NUL octets: save it as UTF-8 (UTF-16 is read where it begins with a field's name)"
    } else {
        "no header field in it: \"Name: value\" lines"
    }
}

fn judged(
    header: &Examined,
    settings: Option<&Settings>,
    arguments: &Arguments,
    reading: Option<Reading>,
    as_delivered: bool,
    now: u64,
) -> Result<Row, String> {
    let tenant = tenant(header, settings, arguments)?;
    let attribution = match (settings, &tenant) {
        (Some(settings), Some(tenant)) => {
            let roots = arguments.roots.load()?;
            let sender = sender_of(header);
            explain_attribution::of_tenant(settings, &roots, tenant, sender.as_ref(), now)
        }
        _ => None,
    };
    let connector = settings
        .zip(tenant.as_ref())
        .and_then(|(settings, tenant)| explain_attribution::connector_of(settings, &tenant.name));
    let facts = Facts {
        tenants: settings.map(|settings| &settings.tenants),
        hostname: settings.map(|settings| &settings.hostname),
        tenant: tenant.as_deref(),
        attribution: attribution.as_ref(),
        promotes: connector.map(|connector| connector.cloud_services_mail_enabled),
        as_delivered,
        now,
    };
    Ok(Row {
        via: None,
        judgement: Some(judge(header, reading, &facts)),
        tenant: tenant.map(|tenant| tenant.name.to_string()),
    })
}

fn tenant(
    header: &Examined,
    settings: Option<&Settings>,
    arguments: &Arguments,
) -> Result<Option<Arc<Tenant>>, String> {
    match (settings, &arguments.tenant) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("--tenant: there is no configuration (--config)".to_owned()),
        (Some(settings), None) => Ok(tenant_of(header, &settings.tenants)),
        (Some(settings), Some(name)) => match settings.tenants.named(name) {
            Some(tenant) => Ok(Some(Arc::clone(tenant))),
            None => Err(format!("--tenant: no tenant {}", shown(name.as_bytes()))),
        },
    }
}

fn queued(
    settings: &Settings,
    arguments: &Arguments,
    id: &str,
    now: u64,
) -> Result<Vec<Row>, Trouble> {
    let not_queued = || {
        let id = shown(id.as_bytes());
        Trouble::Server(format!(
            "no message {id} is queued: gatepost trace {id} tells what became of it; its header is in the recipient's mailbox"
        ))
    };
    let parsed: QueueId = id.parse().map_err(|_| {
        let id = shown(id.as_bytes());
        Trouble::Use(format!(
            "{id} is no queue id; a file is given with --message"
        ))
    })?;
    let told: Vec<Told> = match client(settings)?.get(&format!("/queue/{parsed}/header"), &[]) {
        Err(ClientError::Refused(404, _)) => return Err(not_queued()),
        told => told?,
    };
    let mut rows = Vec::new();
    for told in told {
        if told.via == "exchange" {
            let header = examined(told.header.as_bytes())
                .ok_or_else(|| Trouble::Server(format!("message {id} has no header section")))?;
            let arguments = Arguments {
                tenant: Some(told.tenant.clone()),
                roots: RootsOption::clone(&arguments.roots),
                ..Arguments::default()
            };
            let row = judged(&header, Some(settings), &arguments, None, true, now)?;
            rows.push(Row {
                via: Some(told.via),
                ..row
            });
        } else {
            rows.push(Row {
                via: Some(told.via),
                tenant: Some(told.tenant),
                judgement: None,
            });
        }
    }
    Ok(rows)
}

impl Row {
    /// A file that is a message on its way is refused where its header section is malformed, whatever else it says. What was
    /// copied out of a window may have any form: it is read from standard input.
    fn judge_form(&mut self, octets: Vec<u8>) {
        let Some(judgement) = &mut self.judgement else {
            return;
        };
        let message = Message::of(octets);
        if let (Reading::OnItsWay, Err(fault)) = (judgement.reading, message.section()) {
            let reply = explain_trust::reply_of(&Rejection::Header(fault));
            let (explanation, hint) = message.tell(fault);
            judgement.internal = Some(false);
            judgement.because =
                format!("Gatepost refuses it as it stands in the file: {reply}, {explanation}");
            judgement.mended_by = Some(format!(
                "{hint}; a header that was copied is read from standard input"
            ));
        }
    }

    fn is_internal(&self) -> bool {
        let judgement = self.judgement.as_ref();
        judgement.is_some_and(|judgement| judgement.internal == Some(true))
    }

    fn sentence(&self) -> String {
        match (&self.judgement, &self.via) {
            (Some(judgement), _) => judgement.sentence(),
            (None, via) => format!(
                "External because it leaves by {} and not to Exchange, as mail to the outside does; where its recipients are the tenant's own, mended by this: a [[route]] with via = \"exchange\" that takes them first.",
                via.as_deref().unwrap_or("another way")
            ),
        }
    }

    fn as_text(&self) -> String {
        let mut text = String::new();
        if let Some(judgement) = &self.judgement {
            let reading = judgement.reading.word();
            let guessed = judgement.otherwise.map_or_else(String::new, |other| {
                format!(
                    " (a guess, for nothing there says which it is: --as {} reads it {}, and the answer is another)",
                    As::from(other).word(),
                    other.word()
                )
            });
            text += &format!("reading: {reading}{guessed}\n");
            if let Some(tenant) = &self.tenant {
                text += &format!("tenant:  {tenant}\n");
            }
            text += &format!("\n{:<9} FIELD\n", "SPEAKS");
            for row in &judgement.rows {
                let value = match row.value.as_str() {
                    "" => String::new(),
                    value => format!(": {value}"),
                };
                text += &format!(
                    "{:<9} {}{value}\n          {} [{}]\n",
                    row.bears.word(),
                    row.field,
                    row.says,
                    row.mark
                );
            }
            text.push('\n');
        }
        text + &self.sentence() + "\n"
    }

    fn as_json(&self) -> serde_json::Value {
        let judgement = self.judgement.as_ref();
        let fields: Vec<_> = judgement
            .map(|judgement| judgement.rows.as_slice())
            .unwrap_or_default()
            .iter()
            .map(|row| {
                serde_json::json!({
                    "field": row.field, "value": row.value, "speaks": row.bears.word(), "says": row.says,
                    "mark": row.mark.word(),
                })
            })
            .collect();
        serde_json::json!({
            "via": self.via,
            "tenant": self.tenant,
            "reading": judgement.map(|judgement| judgement.reading.word()),
            "otherwise": judgement.and_then(|judgement| judgement.otherwise).map(|other| As::from(other).word()),
            "internal": match judgement {
                Some(judgement) => judgement.internal,
                None => Some(false),
            },
            "because": judgement.map(|judgement| &judgement.because),
            "mended_by": judgement.and_then(|judgement| judgement.mended_by.as_ref()),
            "fields": fields,
            "sentence": self.sentence(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAILBOX: &str = "Received: from smarthost.contoso.com (192.0.2.1) by\n AMS.mail.protection.outlook.com with Microsoft SMTP Server id 1\nFrom: a@contoso.com\n\
        X-EOPAttributedMessage: 0\nX-MS-Exchange-Organization-MessageDirectionality: Originating\n\
        X-MS-Exchange-Organization-AuthAs: Anonymous\nX-OrganizationHeadersPreserved: AM8.prod.outlook.com\n";

    #[test]
    fn a_header_section_that_is_too_large_is_told_from_a_text_without_one() {
        let fields = "X-Long: 0123456789\n".repeat(MAX_HEADER / 19 + 1);
        for large in [fields.replace('\n', "\r\n"), fields] {
            let why = answer_to(large.as_bytes(), false).unwrap_err();
            assert!(why.starts_with("a header section over 256 KiB"), "{why}");
        }
        for none in [
            "no field\n".to_owned(),
            format!("no field\r\n\r\n{}", "body\r\n".repeat(MAX_HEADER / 6 + 1)),
        ] {
            let why = answer_to(none.as_bytes(), false).unwrap_err();
            assert!(why.starts_with("no header field in it"), "{why}");
        }
    }

    #[test]
    fn a_file_that_the_server_would_refuse_for_its_form_is_external() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mail.eml");
        let ask = |text: &str, reading: Option<As>| {
            std::fs::write(&path, text).unwrap();
            let arguments = Arguments {
                message: Some(path.clone()),
                reading,
                ..Arguments::default()
            };
            answer(None, &arguments, false, 0).unwrap().1
        };
        let fields = "From: a@contoso.com\r\nX-MS-Exchange-Organization-AuthAs: Internal\r\n";
        for (text, why) in [
            (format!("no field\r\n{fields}\r\n"), "line 1: "),
            (
                format!("{fields}Subject: a\nTo: b@contoso.com\r\n\r\n"),
                "line 3: ",
            ),
            (format!("{fields}Subject: a\0b\r\n\r\n"), "line 3: "),
            (format!("Subject : \r{fields}\r\n"), "line 1: "),
        ] {
            let told = ask(&text, Some(As::OnItsWay));
            let sentence = told.lines().last().unwrap();
            assert!(
                sentence.starts_with(
                    "External because Gatepost refuses it as it stands in the file: 554 5.6.0, "
                ) && sentence.contains(why),
                "{sentence}"
            );
            // A copy may have any form, and so may what a mailbox shows.
            let copied = answer_to(text.as_bytes(), false);
            assert!(copied.is_ok_and(|(_, told)| !told.contains("5.6.0")));
            assert!(!ask(&text, Some(As::Mailbox)).contains("5.6.0"));
        }
        // A tool of Unix saved it.
        let saved = fields.replace("\r\n", "\n");
        assert!(!ask(&saved, Some(As::OnItsWay)).contains("5.6.0"));
    }

    #[test]
    fn a_pasted_block_is_judged_field_by_field_and_ends_with_the_sentence() {
        let (good, text) = answer_to(MAILBOX.as_bytes(), false).unwrap();
        assert!(!good);
        insta::assert_snapshot!(text, @r"
        reading: as a mailbox shows it

        SPEAKS    FIELD
        external  X-MS-Exchange-Organization-AuthAs: Anonymous
                  Exchange's verdict: not authenticated [documented]
        internal  X-MS-Exchange-Organization-MessageDirectionality: Originating
                  attributed to the tenant: from inside, or by an inbound connector that fitted [documented]
        internal  X-OrganizationHeadersPreserved: AM8.prod.outlook.com
                  the outbound connector had CloudServicesMailEnabled: the message left with CrossPremises fields [observed]
        -         X-EOPAttributedMessage: 0
                  Exchange's front end has attributed it; to whom, others say [observed]

        External because it was attributed but not promoted: the CrossPremises fields left Exchange and were dropped where they came in; mended by this: CloudServicesMailEnabled on the inbound connector: Set-InboundConnector -CloudServicesMailEnabled $true.
        ");
    }

    #[test]
    fn a_guess_is_told_with_the_option_that_reads_it_otherwise() {
        let text = "Received: from a.example (192.0.2.1) by b.example; now\nFrom: a@contoso.com\nX-MS-Exchange-Organization-AuthAs: Internal\n";
        let (_, told) = answer_to(text.as_bytes(), false).unwrap();
        let first = told.lines().next().unwrap();
        assert!(
            first.starts_with("reading: on its way to Exchange (a guess")
                && first.contains("--as mailbox"),
            "{first}"
        );
        let (_, json) = answer_to(text.as_bytes(), true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value[0]["otherwise"], "mailbox");
        let (_, sure) = answer_to(MAILBOX.as_bytes(), false).unwrap();
        assert!(!sure.contains("guess"), "{sure}");
    }

    #[test]
    fn json_holds_the_same_and_no_header_is_said() {
        let (good, text) = answer_to(MAILBOX.as_bytes(), true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(!good);
        assert_eq!(value[0]["internal"], false);
        assert_eq!(value[0]["fields"].as_array().unwrap().len(), 4);
        assert!(
            value[0]["sentence"]
                .as_str()
                .unwrap()
                .starts_with("External because")
        );
        for (text, why) in [
            (&b"hello"[..], "\"Name: value\" lines"),
            (
                b"\0\0\0F\0\0\0r\0\0\0o\0\0\0m\0\0\0:\0\0\0 ",
                "NUL octets: save it as UTF-8",
            ),
        ] {
            let said = answer_to(text, false).unwrap_err();
            assert!(
                said.contains("no header field") && said.contains(why),
                "{said}"
            );
        }
    }

    #[test]
    fn utf_16_without_its_mark_is_the_same_answer() {
        let told = answer_to(MAILBOX.as_bytes(), false).unwrap();
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            let octets: Vec<u8> = MAILBOX.encode_utf16().flat_map(unit).collect();
            assert_eq!(answer_to(&octets, false).unwrap(), told);
        }
    }
}
