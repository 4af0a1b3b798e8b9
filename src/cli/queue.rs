//! `gatepost queue`: the queue of the running server, through the admin API.

use super::Trouble;
use crate::admin::{ActAnswer, ActRequest, ClientError};
use crate::config::Settings;
use crate::mail::{QueueId, shown};
use crate::spool::Listed;
use clap::{Args, Subcommand};
use std::io::Write;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List what is queued, oldest first.
    List,
    /// Show one message.
    Show {
        /// Queue id.
        id: String,
    },
    /// Try now.
    Retry(Which),
    /// Keep until released.
    Hold(Which),
    /// Undo a hold and try now.
    Release(Which),
    /// Remove without a report.
    Delete {
        /// Queue id.
        id: String,
    },
}

/// One message, or all of a tenant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Queue id.
    id: Option<String>,
    /// All of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

/// Messages that are asked for at once.
const PAGE: usize = 500;

/// Runs it; false where there is nothing of the kind.
///
/// # Errors
/// The server cannot be reached or refuses.
pub fn run(settings: &Settings, action: &Action, json: bool) -> Result<bool, Trouble> {
    let client = super::client(settings)?;
    let (word, request) = match action {
        Action::List => {
            let more = |after: Option<String>| {
                let mut parameters = vec![("limit", PAGE.to_string())];
                parameters.extend(after.map(|id| ("after", id)));
                client.get("/queue", &parameters)
            };
            list(more, &mut Rows::new(std::io::stdout().lock(), json))?;
            return Ok(true);
        }
        Action::Show { id } => {
            let found = match id.parse::<QueueId>() {
                Ok(id) => client.get(&format!("/queue/{id}"), &[]),
                Err(_) => Ok(Vec::new()),
            };
            let rows: Vec<Listed> = match found {
                Err(ClientError::Refused(404, _)) => Vec::new(),
                found => found?,
            };
            let mut out = Rows::new(std::io::stdout().lock(), json);
            rows.iter().try_for_each(|row| out.row(row))?;
            out.end()?;
            if rows.is_empty() {
                eprintln!("gatepost: {}", not_queued(id));
            }
            return Ok(!rows.is_empty());
        }
        Action::Retry(which) => ("retry", which.request()),
        Action::Hold(which) => ("hold", which.request()),
        Action::Release(which) => ("release", which.request()),
        Action::Delete { id } => (
            "delete",
            ActRequest {
                id: Some(id.clone()),
                tenant: None,
            },
        ),
    };
    let answer: ActAnswer = match client.post(&format!("/queue/{word}"), &request) {
        Err(ClientError::Refused(404, _)) => ActAnswer {
            messages: 0,
            held: 0,
        },
        answer => answer?,
    };
    if json {
        println!("{}", serde_json::json!(answer));
    } else if answer.messages > 0 {
        println!("{word}: {} message(s)", answer.messages);
    }
    if answer.held > 0 {
        eprintln!(
            "gatepost: {} message(s) left alone, for an operator holds them: gatepost queue release lets them go",
            answer.held
        );
    } else if answer.messages == 0 {
        let nothing = match (&request.id, &request.tenant) {
            (Some(id), _) => not_queued(id),
            (None, tenant) => format!(
                "no message of tenant {} is queued",
                shown(tenant.as_deref().unwrap_or_default().as_bytes())
            ),
        };
        eprintln!("gatepost: {nothing}");
    }
    Ok(answer.messages > 0)
}

fn not_queued(id: &str) -> String {
    format!("no message {} is queued", shown(id.as_bytes()))
}

impl Which {
    fn request(&self) -> ActRequest {
        ActRequest {
            id: self.id.clone(),
            tenant: self.tenant.clone(),
        }
    }
}

/// Page after page, each printed before the next is asked for: a queue of any length needs the memory of one page.
fn list<W: Write>(
    mut more: impl FnMut(Option<String>) -> Result<Vec<Listed>, ClientError>,
    out: &mut Rows<W>,
) -> Result<(), Trouble> {
    let mut after = None;
    loop {
        let page = more(after.take())?;
        let messages = page.chunk_by(|one, two| one.id == two.id).count();
        for row in &page {
            out.row(row)?;
        }
        match page.into_iter().next_back() {
            Some(last) if messages == PAGE => after = Some(last.id),
            Some(_) | None => return out.end(),
        }
    }
}

/// Rows as they come, as text or as the elements of one JSON array.
struct Rows<W> {
    out: W,
    json: bool,
    count: usize,
}

impl<W: Write> Rows<W> {
    fn new(out: W, json: bool) -> Self {
        Self {
            out,
            json,
            count: 0,
        }
    }

    fn row(&mut self, row: &Listed) -> Result<(), Trouble> {
        let text = if self.json {
            let open = if self.count == 0 { "[\n " } else { ",\n " };
            format!("{open}{}", serde_json::json!(row))
        } else {
            line(row)
        };
        self.count += 1;
        self.write(&text)
    }

    fn end(&mut self) -> Result<(), Trouble> {
        let text = match (self.json, self.count) {
            (true, 0) => "[]\n".to_owned(),
            (true, _) => "\n]\n".to_owned(),
            (false, count) => format!("{count} row(s)\n"),
        };
        self.write(&text)?;
        self.out.flush().map_err(Trouble::of_output)
    }

    fn write(&mut self, text: &str) -> Result<(), Trouble> {
        self.out
            .write_all(text.as_bytes())
            .map_err(Trouble::of_output)
    }
}

fn line(row: &Listed) -> String {
    let sender = if row.sender.is_empty() {
        "<>"
    } else {
        &row.sender
    };
    let mut text = format!(
        "{}  {:<8}  {}  {}  {sender} -> {}\n",
        row.id,
        row.state,
        row.tenant,
        row.via,
        row.recipients.join(", ")
    );
    if let Some(reply) = &row.last_reply {
        text += &format!("    after {} attempt(s): {reply}\n", row.attempts);
        if let Some(at) = row.next_try {
            text += &format!("    next try {}\n", super::clock(at));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: usize, via: &str) -> Listed {
        Listed {
            id: format!("{id:013}"),
            tenant: "contoso".to_owned(),
            via: via.to_owned(),
            state: "ready".to_owned(),
            sender: String::new(),
            recipients: vec!["bob@contoso.com".to_owned()],
            next_try: None,
            arrived: 1,
            attempts: 0,
            last_reply: None,
        }
    }

    /// A queue of so many messages, each with two rows.
    fn listed(messages: usize, json: bool) -> (String, usize) {
        let (mut out, mut asked) = (Vec::new(), 0);
        let more = |after: Option<String>| {
            asked += 1;
            let from = after.map_or(0, |id| id.parse::<usize>().unwrap() + 1);
            let ids = (from..messages).take(PAGE);
            Ok(ids
                .flat_map(|id| [row(id, "exchange"), row(id, "mx")])
                .collect())
        };
        list(more, &mut Rows::new(&mut out, json)).ok().unwrap();
        (String::from_utf8(out).unwrap(), asked)
    }

    #[test]
    fn a_long_queue_is_listed_page_by_page_as_one_array() {
        for (messages, pages) in [(0, 1), (1, 1), (PAGE - 1, 1), (PAGE, 2), (3 * PAGE + 7, 4)] {
            let (text, asked) = listed(messages, true);
            let array: Vec<Listed> = serde_json::from_str(&text).unwrap();
            assert_eq!((array.len(), asked), (2 * messages, pages));
            let ids = array
                .chunks(2)
                .map(|rows| rows[0].id.parse::<usize>().unwrap());
            assert!(ids.eq(0..messages), "each once, in order");
        }
    }

    #[test]
    fn what_was_tried_says_why_it_waits_and_until_when() {
        let tried = Listed {
            next_try: Some(1_795_617_725_098),
            attempts: 2,
            last_reply: Some("451 4.3.2 later".to_owned()),
            ..row(1, "exchange")
        };
        insta::assert_snapshot!(line(&tried), @r"
        0000000000001  ready     contoso  exchange  <> -> bob@contoso.com
            after 2 attempt(s): 451 4.3.2 later
            next try 2026-11-25T14:42:05.098Z
        ");
        let kept = Listed {
            next_try: None,
            ..tried
        };
        assert!(!line(&kept).contains("next try"), "an operator holds it");
    }

    #[test]
    fn as_text_a_message_is_a_line() {
        insta::assert_snapshot!(listed(1, false).0, @r"
        0000000000000  ready     contoso  exchange  <> -> bob@contoso.com
        0000000000000  ready     contoso  mx  <> -> bob@contoso.com
        2 row(s)
        ");
    }
}
