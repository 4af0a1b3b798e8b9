//! One struct per phase; each lists every command.

use super::auth::Authenticating;
use super::content::{Content, Unwanted};
use super::judgement::{Storing, Verifying};
use super::rejection::Rejection;
use super::{Account, Core, Credentials, MAX_RECIPIENTS, Now};
use crate::mail::{Envelope, QueueId, Recipient, shown};
use crate::smtp::command::{Bdat, Command, CommandFault, ForwardPath, Rcpt};
use crate::smtp::extension::Extension;
use crate::smtp::line::{MAX_AUTH, MAX_COMMAND};
use crate::smtp::reply::Reply;
use crate::spool::{SpoolError, Stored};
use crate::trust::{Candidates, DkimFacts};

/// A chunk came before any recipient was accepted.
const NO_RECIPIENT: &str = "no recipient was accepted, begin anew with MAIL";

/// Where the dialogue is.
pub(crate) enum State {
    /// No transaction.
    Ready(Ready),
    /// Within AUTH, waiting for the client's response.
    Authenticating(Authenticating),
    /// Credentials are being checked; the name is for the trace.
    Checking,
    /// MAIL was accepted.
    Transaction(Box<Transaction>),
    /// Content arrives.
    Content(Box<Content>),
    /// Between two chunks commands are legal (RFC 3030 §2).
    Chunks(Box<Content>),
    /// The content is whole, its DKIM signatures are being verified.
    Verifying(Box<Verifying>),
    /// The message is being stored.
    Storing(Box<Storing>),
    /// The TLS handshake is under way.
    Securing,
    /// Over.
    Closed,
}

/// Outside a transaction there is no sender and nothing to reset.
#[derive(Default)]
pub(crate) struct Ready {
    /// A chunk of a refused message was not the last: until RSET, chunks are dropped (RFC 3030 §3).
    after_refused_chunk: bool,
}

/// MAIL accepted: RFC 5321 §3.3.
pub(crate) struct Transaction {
    pub(super) id: QueueId,
    pub(super) envelope: Envelope,
    pub(super) candidates: Candidates,
    /// What MAIL announced (SIZE=, RFC 1870), where it did.
    pub(super) announced: Option<u64>,
}

impl State {
    pub(super) fn ready() -> Self {
        Self::Ready(Ready::default())
    }

    pub(super) fn after_refused_chunk() -> Self {
        Self::Ready(Ready {
            after_refused_chunk: true,
        })
    }

    /// Octets that were announced of the content in hand; 0 where nothing was.
    pub(super) fn announced_size(&self) -> u64 {
        match self {
            Self::Content(content) => content.announced_size(),
            Self::Ready(_)
            | Self::Authenticating(_)
            | Self::Checking
            | Self::Transaction(_)
            | Self::Chunks(_)
            | Self::Verifying(_)
            | Self::Storing(_)
            | Self::Securing
            | Self::Closed => 0,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ready(_) => "ready",
            Self::Authenticating(_) => "authenticating",
            Self::Checking => "checking credentials",
            Self::Transaction(_) => "transaction",
            Self::Content(_) => "content",
            Self::Chunks(_) => "between chunks",
            Self::Verifying(_) => "verifying",
            Self::Storing(_) => "storing",
            Self::Securing => "securing",
            Self::Closed => "closed",
        }
    }

    pub(super) fn waits_for_us(&self) -> bool {
        match self {
            Self::Checking
            | Self::Verifying(_)
            | Self::Storing(_)
            | Self::Securing
            | Self::Closed => true,
            Self::Content(content) => content.waits_for_append(),
            Self::Ready(_) | Self::Authenticating(_) | Self::Transaction(_) | Self::Chunks(_) => {
                false
            }
        }
    }

    /// Whether the content of a message is under way, or of a chunk.
    pub(super) fn is_within_content(&self) -> bool {
        matches!(self, Self::Content(_) | Self::Chunks(_))
    }

    /// Whether a client's word is awaited and no octet of a message has come.
    pub(super) fn has_no_content(&self) -> bool {
        match self {
            Self::Ready(_) | Self::Authenticating(_) | Self::Transaction(_) => true,
            Self::Checking
            | Self::Content(_)
            | Self::Chunks(_)
            | Self::Verifying(_)
            | Self::Storing(_)
            | Self::Securing
            | Self::Closed => false,
        }
    }

    /// An empty chunk is complete without a byte of input.
    pub(super) fn takes_nothing(&self) -> bool {
        matches!(self, Self::Content(content) if content.is_complete())
    }

    pub(super) fn line_limit(&self) -> usize {
        match self {
            Self::Ready(_) | Self::Authenticating(_) => MAX_AUTH,
            Self::Checking
            | Self::Transaction(_)
            | Self::Content(_)
            | Self::Chunks(_)
            | Self::Verifying(_)
            | Self::Storing(_)
            | Self::Securing
            | Self::Closed => MAX_COMMAND,
        }
    }

    pub(super) fn command(self, core: &mut Core, command: Command, now: Now) -> Self {
        match self {
            Self::Ready(ready) => ready.on(core, command, now),
            Self::Transaction(transaction) => transaction.on(core, command, now),
            Self::Chunks(content) => content.between(core, command, now),
            // No command is read in these.
            Self::Authenticating(_)
            | Self::Checking
            | Self::Content(_)
            | Self::Verifying(_)
            | Self::Storing(_)
            | Self::Securing
            | Self::Closed => self,
        }
    }

    pub(super) fn response(self, core: &mut Core, line: &[u8], now: Now) -> Self {
        match self {
            Self::Authenticating(authenticating) => authenticating.on(core, line, now),
            Self::Ready(_)
            | Self::Checking
            | Self::Transaction(_)
            | Self::Content(_)
            | Self::Chunks(_)
            | Self::Verifying(_)
            | Self::Storing(_)
            | Self::Securing
            | Self::Closed => self,
        }
    }

    pub(super) fn credentials(self, core: &mut Core, credentials: Credentials, now: Now) -> Self {
        if !matches!(self, Self::Checking) {
            return self;
        }
        core.wait_for_command(now);
        match credentials {
            Credentials::Accepted(application) => {
                core.application = Some(application);
                core.reply(&Reply::new(235, (2, 7, 0), "Authentication successful"));
            }
            Credentials::Rejected => core.refuse(Rejection::BadCredentials, now),
            Credentials::Busy => core.refuse(Rejection::AuthenticationBusy, now),
            Credentials::Throttled => core.refuse(Rejection::AuthenticationThrottled, now),
        }
        Self::ready()
    }

    pub(super) fn content(
        self,
        core: &mut Core,
        input: &[u8],
        taken: &mut usize,
        now: Now,
    ) -> Self {
        match self {
            Self::Content(content) => content.take(core, input, taken, now),
            Self::Ready(_)
            | Self::Authenticating(_)
            | Self::Checking
            | Self::Transaction(_)
            | Self::Chunks(_)
            | Self::Verifying(_)
            | Self::Storing(_)
            | Self::Securing
            | Self::Closed => self,
        }
    }

    pub(super) fn appended(self, core: &mut Core, result: Result<(), SpoolError>) -> Self {
        match self {
            Self::Content(mut content) => {
                content.appended(core, result);
                Self::Content(content)
            }
            Self::Ready(_)
            | Self::Authenticating(_)
            | Self::Checking
            | Self::Transaction(_)
            | Self::Chunks(_)
            | Self::Verifying(_)
            | Self::Storing(_)
            | Self::Securing
            | Self::Closed => self,
        }
    }

    pub(super) fn stored(
        self,
        core: &mut Core,
        result: Result<Stored, SpoolError>,
        now: Now,
    ) -> Self {
        match self {
            Self::Storing(storing) => storing.stored(core, result, now),
            Self::Ready(_)
            | Self::Authenticating(_)
            | Self::Checking
            | Self::Transaction(_)
            | Self::Content(_)
            | Self::Chunks(_)
            | Self::Verifying(_)
            | Self::Securing
            | Self::Closed => self,
        }
    }

    pub(super) fn signatures(
        self,
        core: &mut Core,
        result: Result<DkimFacts, SpoolError>,
        now: Now,
    ) -> Self {
        match self {
            Self::Verifying(verifying) => verifying.verified(core, result, now),
            Self::Ready(_)
            | Self::Authenticating(_)
            | Self::Checking
            | Self::Transaction(_)
            | Self::Content(_)
            | Self::Chunks(_)
            | Self::Storing(_)
            | Self::Securing
            | Self::Closed => self,
        }
    }
}

impl Ready {
    fn on(self, core: &mut Core, command: Command, now: Now) -> State {
        match command {
            Command::Ehlo(name) => {
                core.ehlo(name);
                State::ready()
            }
            Command::Helo(name) => {
                core.helo(name);
                State::ready()
            }
            Command::StartTls => {
                core.refuse_starttls(now);
                State::Ready(self)
            }
            Command::Auth(mechanism, initial) => core.auth(mechanism, initial, self, now),
            Command::Mail(_) if self.after_refused_chunk => {
                core.refuse(
                    Rejection::BadSequence {
                        expected: "RSET first",
                    },
                    now,
                );
                State::Ready(self)
            }
            Command::Mail(mail) => match core.mail(mail, now) {
                Ok(transaction) => {
                    core.has_begun_a_message(now);
                    core.reply(&Reply::new(250, (2, 1, 0), "Sender OK"));
                    State::Transaction(Box::new(transaction))
                }
                Err(refused) => {
                    core.refuse_as(refused.id, refused.rejection, refused.account, now);
                    State::Ready(self)
                }
            },
            Command::Rcpt(_) if core.must_start_tls() => {
                core.refuse(Rejection::StartTlsRequired, now);
                State::Ready(self)
            }
            Command::Rcpt(_) | Command::Data => {
                core.refuse(
                    Rejection::BadSequence {
                        expected: "MAIL first",
                    },
                    now,
                );
                State::Ready(self)
            }
            // The octets follow in any case: read, dropped, 503 (RFC 3030 §3).
            Command::Bdat(chunk) => {
                core.begin_content(now);
                let why = if self.after_refused_chunk {
                    Unwanted::AfterRefusal
                } else {
                    Unwanted::of(core, "no transaction is open for this chunk")
                };
                Content::unwanted_chunk(chunk, why)
            }
            Command::Rset => {
                core.reply(&Reply::new(250, (2, 0, 0), "Reset"));
                State::ready()
            }
            Command::Noop | Command::Quit | Command::Vrfy | Command::Expn | Command::Help => {
                core.anywhere(&command, now);
                State::Ready(self)
            }
        }
    }
}

impl Transaction {
    fn on(mut self: Box<Self>, core: &mut Core, command: Command, now: Now) -> State {
        match command {
            Command::Ehlo(name) => {
                core.ehlo(name);
                State::ready()
            }
            Command::Helo(name) => {
                core.helo(name);
                State::ready()
            }
            Command::StartTls => {
                core.refuse_starttls(now);
                State::Transaction(self)
            }
            Command::Auth(..) | Command::Mail(_) => {
                core.refuse(
                    Rejection::BadSequence {
                        expected: "a transaction is open",
                    },
                    now,
                );
                State::Transaction(self)
            }
            Command::Rcpt(rcpt) => {
                match self.admit(core, rcpt) {
                    Ok(recipient) => {
                        self.envelope.recipients.push(recipient);
                        core.reply(&Reply::new(250, (2, 1, 5), "Recipient OK"));
                    }
                    Err((rejection, recipient)) => {
                        // Not those that were accepted: with a thousand of them each refusal would cost as much.
                        let account = Account {
                            sender: Some(self.shown_sender()),
                            recipients: recipient.into_iter().collect(),
                            ..Account::default()
                        };
                        // Under the id of the transaction: it is the same story.
                        core.refuse_as(self.id, rejection, account, now);
                    }
                }
                State::Transaction(self)
            }
            Command::Data if self.envelope.recipients.is_empty() => {
                core.refuse(
                    Rejection::BadSequence {
                        expected: "RCPT first",
                    },
                    now,
                );
                State::Transaction(self)
            }
            Command::Data => {
                core.reply(&Reply::plain(
                    354,
                    vec!["Start mail input; end with <CRLF>.<CRLF>".into()],
                ));
                core.begin_content(now);
                core.wait_for_content(now);
                State::Content(Box::new(Content::data(core, *self)))
            }
            Command::Bdat(chunk)
                if self.envelope.recipients.is_empty()
                    || !core.policy.allows(Extension::Chunking) =>
            {
                core.begin_content(now);
                Content::unwanted_chunk(chunk, Unwanted::of(core, NO_RECIPIENT))
            }
            Command::Bdat(chunk) => {
                core.begin_content(now);
                core.wait_for_content(now);
                State::Content(Box::new(Content::bdat(core, *self, chunk)))
            }
            Command::Rset => {
                core.reply(&Reply::new(250, (2, 0, 0), "Reset"));
                State::ready()
            }
            Command::Noop | Command::Quit | Command::Vrfy | Command::Expn | Command::Help => {
                core.anywhere(&command, now);
                State::Transaction(self)
            }
        }
    }

    fn admit(&self, core: &Core, rcpt: Rcpt) -> Result<Recipient, (Rejection, Option<String>)> {
        let refuse = |rejection, text: &str| Err((rejection, Some(shown(text.as_bytes()))));
        let mailbox = match rcpt.forward_path {
            ForwardPath::Mailbox(mailbox) => mailbox,
            // RFC 5321 §4.5.1: ours.
            ForwardPath::Postmaster => match format!("postmaster@{}", core.policy.hostname).parse()
            {
                Ok(mailbox) => mailbox,
                Err(_) => return refuse(Rejection::Syntax(CommandFault::Recipient), "postmaster"),
            },
        };
        let text = mailbox.as_str().to_owned();
        if self.envelope.recipients.len() >= MAX_RECIPIENTS {
            return refuse(Rejection::TooManyRecipients, &text);
        }
        if mailbox.needs_smtputf8() && !self.envelope.smtputf8 {
            return refuse(Rejection::NeedsSmtpUtf8, &text);
        }
        if (rcpt.notify.is_some() || rcpt.orcpt.is_some()) && !core.policy.allows(Extension::Dsn) {
            return refuse(Rejection::Syntax(CommandFault::Parameter), &text);
        }
        let recipient = Recipient {
            mailbox,
            notify: rcpt.notify,
            orcpt: rcpt.orcpt,
        };
        if core.policy.routes.admits(&self.candidates, &recipient) {
            Ok(recipient)
        } else {
            refuse(Rejection::NoRoute, &text)
        }
    }

    fn shown_sender(&self) -> String {
        shown(self.envelope.reverse_path.to_string().as_bytes())
    }

    /// For the trace of a refusal.
    pub(super) fn account(&self) -> Account {
        let recipients = &self.envelope.recipients;
        Account {
            sender: Some(self.shown_sender()),
            recipients: recipients
                .iter()
                .map(|recipient| shown(recipient.mailbox.as_str().as_bytes()))
                .collect(),
            ..Account::default()
        }
    }
}

impl Core {
    /// Commands that change nothing.
    pub(super) fn anywhere(&mut self, command: &Command, now: Now) {
        match command {
            Command::Noop => self.reply(&Reply::new(250, (2, 0, 0), "OK")),
            Command::Quit => {
                let bye = format!("{} closing", self.policy.hostname);
                self.reply(&Reply::new(221, (2, 0, 0), bye));
                self.close();
            }
            // RFC 5321 §3.5.3: neither confirms nor denies.
            Command::Vrfy => {
                self.reply(&Reply::new(252, (2, 1, 5), "Cannot verify, send some mail"))
            }
            Command::Help => self.reply(&Reply::new(214, (2, 0, 0), "See RFC 5321")),
            Command::Expn => self.refuse(Rejection::NotImplemented, now),
            Command::Ehlo(_)
            | Command::Helo(_)
            | Command::StartTls
            | Command::Auth(..)
            | Command::Mail(_)
            | Command::Rcpt(_)
            | Command::Data
            | Command::Bdat(Bdat { .. })
            | Command::Rset => {}
        }
    }
}
