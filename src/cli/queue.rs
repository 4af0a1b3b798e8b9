//! `gatepost queue`: the queue of the running server, through the admin API.

use crate::admin::{ActAnswer, ActRequest};
use crate::config::Settings;
use crate::spool::Listed;
use clap::{Args, Subcommand};

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

/// Runs it; false where there is nothing of the kind.
///
/// # Errors
/// The server cannot be reached or refuses.
pub fn run(settings: &Settings, action: &Action, json: bool) -> Result<bool, String> {
    let client = super::client(settings)?;
    let (word, request) = match action {
        Action::List => {
            let rows: Vec<Listed> = client
                .get("/queue", &[])
                .map_err(|error| error.to_string())?;
            print(&rows, json)?;
            return Ok(true);
        }
        Action::Show { id } => {
            let rows: Vec<Listed> = match client.get(&format!("/queue/{id}"), &[]) {
                Ok(rows) => rows,
                Err(crate::admin::ClientError::Refused(404, _)) => Vec::new(),
                Err(error) => return Err(error.to_string()),
            };
            print(&rows, json)?;
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
    let answer: ActAnswer = client
        .post(&format!("/queue/{word}"), &request)
        .map_err(|error| error.to_string())?;
    if json {
        println!(
            "{}",
            serde_json::to_string(&answer).map_err(|error| error.to_string())?
        );
    } else {
        println!("{word}: {} message(s)", answer.messages);
    }
    Ok(answer.messages > 0)
}

impl Which {
    fn request(&self) -> ActRequest {
        ActRequest {
            id: self.id.clone(),
            tenant: self.tenant.clone(),
        }
    }
}

fn print(rows: &[Listed], json: bool) -> Result<(), String> {
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(rows).map_err(|error| error.to_string())?
        );
        return Ok(());
    }
    for row in rows {
        let sender = if row.sender.is_empty() {
            "<>"
        } else {
            &row.sender
        };
        println!(
            "{}  {:<8}  {}  {}  {sender} -> {}",
            row.id,
            row.state,
            row.tenant,
            row.via,
            row.recipients.join(", ")
        );
        if let Some(reply) = &row.last_reply {
            println!("    after {} attempt(s): {reply}", row.attempts);
        }
    }
    println!("{} message(s)", rows.len());
    Ok(())
}
