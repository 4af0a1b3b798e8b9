//! How is a row played, and was it as it must be?
//!
//! Each act sends its message, compares the answer, and looks at what the simulated Exchange received: which tenant,
//! internal or not, which bytes. What was refused must never arrive; that is looked at again when all is over.

mod arrival;

use super::client::{Client, ClientError, Mail, Transaction};
use super::samples::{Act, Expect, Player, Row, Taken};
use super::scene::{Login, Scene, Shown};
use super::{Dialect, Dialogue, LabError, OutboundConnection, Received};
use crate::smtp::reply::{Enhanced, Reply};
use std::fmt;
use std::time::Duration;

/// How long a message may be on its way to Exchange.
const ARRIVAL: Duration = Duration::from_secs(15);

/// How long a row may take, whatever happens.
const ROW: Duration = Duration::from_secs(45);

/// What happened in one row.
#[derive(Clone, Debug)]
pub struct Told {
    /// From 1.
    pub number: usize,
    /// Its name.
    pub name: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What happened in each act.
    pub acts: Vec<ActTold>,
}

impl Told {
    /// Everything went as it must.
    #[must_use]
    pub fn well(&self) -> bool {
        self.acts
            .iter()
            .all(|act| act.faults.is_empty() && act.afterwards.is_empty())
    }
}

/// What happened in one act.
#[derive(Clone, Debug, Default)]
pub struct ActTold {
    /// Which.
    pub token: String,
    /// The smart host's answer, in words.
    pub answer: String,
    /// What Exchange made of it; absent where nothing arrived.
    pub exchange: Option<Seen>,
    /// It arrived in the world outside.
    pub outside: bool,
    /// What went otherwise than it must.
    pub faults: Vec<String>,
    /// What came to light only after the row was told.
    pub afterwards: Vec<String>,
    /// What was said, for a failing row.
    pub dialogue: Vec<String>,
}

/// What Exchange made of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Attributed to this tenant.
    pub tenant: String,
    /// Taken as internal.
    pub internal: bool,
    /// Because of what.
    pub because: String,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({})",
            if self.internal {
                "internal"
            } else {
                "external"
            },
            self.tenant
        )
    }
}

/// Plays the rows in order, telling each as it ends, and returns all with what came to light afterwards.
pub async fn play(scene: &Scene, rows: &[Row], mut tell: impl FnMut(&Told)) -> Vec<Told> {
    let mut story = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let mut told = Told {
            number: index + 1,
            name: row.name,
            why: row.why,
            acts: Vec::new(),
        };
        let play = play_row(scene, row, &mut told.acts);
        if tokio::time::timeout(ROW, play).await.is_err() {
            let fault = format!("not over after {} seconds", ROW.as_secs());
            told.acts.push(ActTold {
                faults: vec![fault],
                ..ActTold::default()
            });
        }
        tell(&told);
        story.push(told);
    }
    look_back(scene, rows, &mut story);
    story
}

/// What came to light after the rows were told, a line each.
#[must_use]
pub fn afterwards(story: &[Told]) -> Vec<String> {
    let late = story
        .iter()
        .flat_map(|told| told.acts.iter().map(move |act| (told, act)));
    late.flat_map(|(told, act)| {
        act.afterwards.iter().map(move |fault| {
            format!(
                "FAILED {:2} {}: {}: {fault}",
                told.number, told.name, act.token
            )
        })
    })
    .collect()
}

/// What was refused and arrived all the same, what arrived twice.
fn look_back(scene: &Scene, rows: &[Row], story: &mut [Told]) {
    for message in scene.exchange.waiting() {
        for (row, told) in rows.iter().zip(story.iter_mut()) {
            for (act, act_told) in row.acts.iter().zip(told.acts.iter_mut()) {
                if arrival::carries(&message.content, &act.token) {
                    let fault = match act.expect {
                        Expect::Taken(_) => "arrived at Exchange more than once",
                        Expect::Abroad(_) => "arrived at Exchange, though it leaves by mx",
                        Expect::Refused { .. } | Expect::Dropped => {
                            "arrived at Exchange, though it was refused"
                        }
                    };
                    act_told.afterwards.push(fault.to_owned());
                    act_told.exchange.get_or_insert_with(|| seen(&message));
                }
            }
        }
    }
    for message in scene.outside.waiting() {
        for (row, told) in rows.iter().zip(story.iter_mut()) {
            for (act, act_told) in row.acts.iter().zip(told.acts.iter_mut()) {
                if arrival::carries(&message.content, &act.token) {
                    let fault = match act.expect {
                        Expect::Abroad(_) => "arrived outside more than once",
                        Expect::Taken(_) => "arrived outside, though it is internal",
                        Expect::Refused { .. } | Expect::Dropped => {
                            "arrived outside, though it was refused"
                        }
                    };
                    act_told.afterwards.push(fault.to_owned());
                    act_told.outside = true;
                }
            }
        }
    }
}

async fn play_row(scene: &Scene, row: &Row, told: &mut Vec<ActTold>) {
    let mut shared: Option<OutboundConnection> = None;
    for act in &row.acts {
        let begun = begin_on(scene, act, &mut shared).await;
        told.push(begun.conclude(scene, act).await);
    }
    if let Some(connection) = shared {
        connection.quit().await;
    }
}

/// An act that was sent and answered, and not yet judged: what must arrive may have to wait for something.
pub struct Begun {
    answer: Result<Answer, String>,
    dialogue: Dialogue,
}

/// Sends an act on a connection of its own.
pub async fn begin(scene: &Scene, act: &Act) -> Begun {
    let mut shared = None;
    let begun = begin_on(scene, act, &mut shared).await;
    if let Some(connection) = shared {
        connection.quit().await;
    }
    begun
}

async fn begin_on(scene: &Scene, act: &Act, shared: &mut Option<OutboundConnection>) -> Begun {
    let mut dialogue = Dialogue::default();
    let answer = send(scene, act, shared, &mut dialogue).await;
    Begun { answer, dialogue }
}

impl Begun {
    /// The queue id of a message that was taken.
    #[must_use]
    pub fn queue_id(&self) -> Option<&str> {
        match &self.answer {
            Ok(Answer::Transaction(answers)) if answers.accepted() => {
                answers.deciding().lines.last()?.rsplit(' ').next()
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// Judges the answer, waits for what must arrive, and judges that.
    pub async fn conclude(self, scene: &Scene, act: &Act) -> ActTold {
        let mut told = ActTold {
            token: act.token.clone(),
            ..ActTold::default()
        };
        match self.answer {
            Ok(answer) => {
                told.answer = answer.words();
                judge(scene, act, &answer, &mut told).await;
            }
            Err(fault) => {
                told.answer.clone_from(&fault);
                told.faults.push(fault);
            }
        }
        if !told.faults.is_empty() {
            told.dialogue = self.dialogue.lines();
        }
        told
    }
}

/// The smart host's answer.
enum Answer {
    Transaction(Transaction),
    /// A refusal in the place where a greeting, TLS or MAIL was hoped for.
    Early(Reply),
    /// A smuggler's content, and what the server said to the QUIT behind it.
    Smuggled {
        content: Reply,
        quit: Reply,
    },
    /// Whether a command in clear text behind STARTTLS was answered under TLS.
    Injected {
        dropped: bool,
    },
}

impl Answer {
    fn words(&self) -> String {
        match self {
            Self::Transaction(answers) => match answers.refused_at() {
                Some(at) => format!("refused at {at}: {}", answers.deciding().summary()),
                None => answers.deciding().summary(),
            },
            Self::Early(reply) => format!("refused: {}", reply.summary()),
            Self::Smuggled { content, .. } if content.class() > 3 => {
                format!("refused: {}", content.summary())
            }
            Self::Smuggled { content, .. } => content.summary(),
            Self::Injected { dropped: true } => "the clear text was dropped".to_owned(),
            Self::Injected { dropped: false } => "the clear text was answered".to_owned(),
        }
    }
}

async fn send(
    scene: &Scene,
    act: &Act,
    shared: &mut Option<OutboundConnection>,
    dialogue: &mut Dialogue,
) -> Result<Answer, String> {
    let sent = match &act.player {
        Player::Exchange {
            shown,
            elsewhere,
            outbound,
        } => {
            let connection = match shared.take() {
                Some(connection) => Ok(connection),
                None => {
                    scene
                        .outbound(*shown, *elsewhere)
                        .map_err(lab)?
                        .connect()
                        .await
                }
            };
            match connection {
                Ok(mut connection) => {
                    *dialogue = connection.dialogue().clone();
                    let answers = connection.send(outbound).await;
                    if answers.is_ok() {
                        *shared = Some(connection);
                    }
                    answers.map(Answer::Transaction)
                }
                Err(error) => Err(error),
            }
        }
        Player::Clear(mail) => in_clear(scene, mail, dialogue).await,
        Player::Application { actor, login, mail } => {
            let client = scene.application(actor, *login).map_err(lab)?;
            match client.send_noted(mail).await {
                Ok((answers, said)) => {
                    *dialogue = said;
                    Ok(Answer::Transaction(answers))
                }
                Err(error) => Err(error),
            }
        }
        Player::Smuggler { actor, outbound } => {
            let mut mail = outbound.mail.clone();
            let client = match actor {
                Some(actor) => {
                    let application = scene
                        .application(actor, Login::Own(Dialect::Plain))
                        .map_err(lab)?;
                    let mut client = application.connect().await.map_err(words)?;
                    application.log_in(&mut client).await.map_err(words)?;
                    Ok(client)
                }
                None => {
                    let connector = scene.outbound(Shown::Exchange, false).map_err(lab)?;
                    let connection = connector.connect().await;
                    connection.map(|connection| {
                        mail = connection.dressed(outbound);
                        connection.into_client()
                    })
                }
            };
            match client {
                Ok(client) => smuggle(client, &mail, dialogue).await,
                Err(error) => Err(error),
            }
        }
        Player::Injector => inject(scene, dialogue).await,
    };
    match sent {
        Ok(answer) => Ok(answer),
        Err(ClientError::Unwilling(reply)) => Ok(Answer::Early(reply)),
        Err(error) => Err(words(error)),
    }
}

fn lab(error: LabError) -> String {
    error.to_string()
}

fn words(error: ClientError) -> String {
    error.to_string()
}

async fn in_clear(
    scene: &Scene,
    mail: &Mail,
    dialogue: &mut Dialogue,
) -> Result<Answer, ClientError> {
    let connector = scene
        .outbound(Shown::Exchange, false)
        .map_err(|_| ClientError::NotAReply)?;
    let mut client = connector.clear().await?;
    *dialogue = client.dialogue().clone();
    client
        .ehlo("AM8PR05CU002.outbound.protection.outlook.com")
        .await?;
    let answers = client.transaction(mail).await?;
    client.quit().await;
    Ok(Answer::Transaction(answers))
}

/// The content goes out as it is, with its false end and the commands behind it, then the true end and QUIT: whoever
/// took the false end for the true one answers the hidden MAIL where the reply to QUIT is due.
async fn smuggle(
    mut client: Client,
    mail: &Mail,
    dialogue: &mut Dialogue,
) -> Result<Answer, ClientError> {
    *dialogue = client.dialogue().clone();
    let mut parameters = mail.parameters.clone();
    parameters.insert(0, format!("MAIL FROM:<{}>", mail.sender));
    for line in [
        parameters.join(" "),
        format!("RCPT TO:<{}>", mail.recipients.join(">, <")),
    ] {
        let reply = client.command(&line).await?;
        if reply.class() != 2 {
            return Ok(Answer::Early(reply));
        }
    }
    let reply = client.command("DATA").await?;
    if reply.class() != 3 {
        return Ok(Answer::Early(reply));
    }
    let bytes = [mail.content.as_slice(), b".\r\n"].concat();
    client.raw(&bytes).await?;
    let content = client.reply().await?;
    let quit = client.command("QUIT").await?;
    Ok(Answer::Smuggled { content, quit })
}

async fn inject(scene: &Scene, dialogue: &mut Dialogue) -> Result<Answer, ClientError> {
    let connector = scene
        .outbound(Shown::Exchange, false)
        .map_err(|_| ClientError::NotAReply)?;
    let mut client = connector.clear().await?;
    *dialogue = client.dialogue().clone();
    client
        .ehlo("AM8PR05CU002.outbound.protection.outlook.com")
        .await?;
    client.say("STARTTLS\r\nNOOP\r\n").await?;
    let reply = client.reply().await?;
    if reply.class() != 2 {
        return Ok(Answer::Early(reply));
    }
    let mut client = connector.encrypt(client).await?;
    client
        .ehlo("AM8PR05CU002.outbound.protection.outlook.com")
        .await?;
    // Where NOOP was answered, every answer comes one too late, and the one to EHLO stands for the one to QUIT.
    let dropped = client.command("QUIT").await?.code == 221;
    Ok(Answer::Injected { dropped })
}

async fn judge(scene: &Scene, act: &Act, answer: &Answer, told: &mut ActTold) {
    match &act.expect {
        Expect::Taken(taken) => {
            if let Answer::Transaction(answers) = answer
                && answers.accepted()
            {
                match scene
                    .exchange
                    .received_within(ARRIVAL, |message| {
                        arrival::carries(&message.content, &act.token)
                    })
                    .await
                {
                    Ok(message) => {
                        told.exchange = Some(seen(&message));
                        told.faults.extend(arrival::faults(
                            &message,
                            taken,
                            act,
                            &scene.cast.hostname,
                        ));
                    }
                    Err(_) => told.faults.push(lost(scene, taken)),
                }
            } else {
                told.faults.push("must be accepted".to_owned());
            }
        }
        Expect::Abroad(abroad) => {
            if !matches!(answer, Answer::Transaction(answers) if answers.accepted()) {
                told.faults.push("must be accepted".to_owned());
                return;
            }
            let arrived = scene.outside.received_within(ARRIVAL, |message| {
                arrival::carries(&message.content, &act.token)
            });
            match arrived.await {
                Ok(message) => {
                    told.outside = true;
                    let hostname = &scene.cast.hostname;
                    let faults = arrival::faults_abroad(&message, abroad, hostname);
                    told.faults.extend(faults);
                }
                Err(_) => told.faults.push(format!(
                    "accepted, but did not arrive outside within {} seconds",
                    ARRIVAL.as_secs()
                )),
            }
        }
        Expect::Refused { at, code, enhanced } => told
            .faults
            .extend(refusal_faults(answer, *at, *code, *enhanced)),
        Expect::Dropped => {
            if !matches!(answer, Answer::Injected { dropped: true }) {
                told.faults
                    .push("clear text behind STARTTLS must be dropped".to_owned());
            }
        }
    }
}

fn lost(scene: &Scene, taken: &Taken) -> String {
    let refusals = scene.exchange.refused();
    match refusals
        .iter()
        .rev()
        .find(|refused| refused.sender == taken.sender)
    {
        Some(refused) => {
            format!(
                "accepted, but did not arrive: Exchange answered {} ({})",
                refused.reply, refused.identity
            )
        }
        None => format!(
            "accepted, but did not arrive at Exchange within {} seconds",
            ARRIVAL.as_secs()
        ),
    }
}

fn refusal_faults(answer: &Answer, at: Option<&str>, code: u16, enhanced: Enhanced) -> Vec<String> {
    let mut faults = Vec::new();
    let (reply, where_) = match answer {
        Answer::Transaction(answers) => (Some(answers.deciding()), answers.refused_at()),
        Answer::Early(reply) => (Some(reply), None),
        Answer::Smuggled { content, quit } => {
            if quit.code != 221 {
                faults.push(format!("a hidden command was obeyed: {}", quit.summary()));
            }
            (Some(content), Some("content"))
        }
        Answer::Injected { .. } => (None, None),
    };
    let (class, subject, detail) = enhanced;
    if reply.is_none_or(|reply| reply.code != code || reply.enhanced != Some(enhanced)) {
        faults.push(format!(
            "must be refused with {code} {class}.{subject}.{detail}"
        ));
    } else if at.is_some() && at != where_ {
        faults.push(format!("must be refused at {}", at.unwrap_or_default()));
    }
    faults
}

fn seen(message: &Received) -> Seen {
    Seen {
        tenant: message.tenant().to_owned(),
        internal: message.is_internal(),
        because: message.entry.because.clone(),
    }
}

#[cfg(test)]
mod double;
#[cfg(test)]
mod tests;
