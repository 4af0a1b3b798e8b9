//! One struct per phase; each lists every command.

use super::content::{Content, Storing, Unwanted, Verifying};
use super::rejection::Rejection;
use super::{Account, ByAddress, Core, Credentials, Greeted, MAX_RECIPIENTS, Now, Output, Service};
use crate::mail::{Envelope, QueueId, Recipient, ReversePath, shown};
use crate::smtp::command::{Bdat, Command, CommandFault, ForwardPath, Mail, Rcpt, Xoorg};
use crate::smtp::extension::Extension;
use crate::smtp::line::{MAX_AUTH, MAX_COMMAND};
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{self, Login, Mechanism};
use crate::spool::{SpoolError, Stored};
use crate::trust::{self, Application, Candidates, DkimFacts, Reason, Refusal, Standing};
use std::borrow::Cow;
use std::sync::Arc;

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

/// What AUTH still wants.
pub(crate) enum Authenticating {
    Plain,
    LoginName,
    LoginPassword { username: String },
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
                        core.refuse_as(self.refusal_id(core, now), rejection, account, now);
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

    /// One id for the transaction; a refused recipient gets the same one, since it is the same story.
    fn refusal_id(&self, _core: &Core, _now: Now) -> QueueId {
        self.id
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

impl Authenticating {
    fn on(self, core: &mut Core, line: &[u8], now: Now) -> State {
        // RFC 4954 §4: the client gives up.
        if line.trim_ascii() == b"*" {
            core.refuse(Rejection::AuthenticationCancelled, now);
            return State::ready();
        }
        match sasl::decode(line) {
            Some(message) => self.message(core, &message, now),
            None => {
                core.refuse(Rejection::AuthenticationMalformed, now);
                State::ready()
            }
        }
    }

    fn message(self, core: &mut Core, message: &[u8], now: Now) -> State {
        let login = match self {
            Self::Plain => sasl::plain(message),
            Self::LoginName => {
                let Ok(username) = String::from_utf8(message.to_vec()) else {
                    core.refuse(Rejection::AuthenticationMalformed, now);
                    return State::ready();
                };
                // "Password:"
                core.reply(&Reply::plain(334, vec!["UGFzc3dvcmQ6".into()]));
                return State::Authenticating(Self::LoginPassword { username });
            }
            Self::LoginPassword { username } => Some(Login {
                username,
                password: crate::mail::Secret::new(message),
            }),
        };
        match login {
            Some(login) => {
                core.outputs.push_back(Output::CheckCredentials(login));
                State::Checking
            }
            None => {
                core.refuse(Rejection::AuthenticationMalformed, now);
                State::ready()
            }
        }
    }
}

/// A refusal with the id it is told under.
pub(super) struct Refused {
    id: QueueId,
    rejection: Rejection,
    account: Account,
}

impl Core {
    pub(super) fn ehlo(&mut self, name: String) {
        let mut lines: Vec<Cow<'static, str>> = vec![
            format!(
                "{} Hello [{}]",
                self.policy.hostname,
                self.peer_address.ip().to_canonical()
            )
            .into(),
        ];
        for extension in Extension::ALL {
            if !self.offers(extension) {
                continue;
            }
            match extension {
                Extension::Size => {
                    lines.push(format!("SIZE {}", self.policy.max_message_size).into())
                }
                Extension::Limits => lines.push(format!("LIMITS RCPTMAX={MAX_RECIPIENTS}").into()),
                Extension::Auth => {
                    lines.push("AUTH PLAIN LOGIN".into());
                    // The form of servers before RFC 2554, which old devices look for.
                    lines.push("AUTH=PLAIN LOGIN".into());
                }
                Extension::Pipelining
                | Extension::Dsn
                | Extension::EnhancedStatusCodes
                | Extension::StartTls
                | Extension::EightBitMime
                | Extension::Chunking
                | Extension::SmtpUtf8
                | Extension::Xoorg => lines.push(extension.keyword().into()),
            }
        }
        self.reply(&Reply::plain(250, lines));
        self.greeted = Some(Greeted {
            name,
            extended: true,
        });
    }

    pub(super) fn helo(&mut self, name: String) {
        let hello = format!(
            "{} Hello [{}]",
            self.policy.hostname,
            self.peer_address.ip().to_canonical()
        );
        self.reply(&Reply::plain(250, vec![hello.into()]));
        self.greeted = Some(Greeted {
            name,
            extended: false,
        });
    }

    fn offers(&self, extension: Extension) -> bool {
        self.policy.allows(extension)
            && match extension {
                Extension::StartTls => self.offers_starttls(),
                Extension::Auth => self.offers_auth(),
                Extension::Xoorg => self.offers_xoorg(),
                Extension::Pipelining
                | Extension::Size
                | Extension::Dsn
                | Extension::EnhancedStatusCodes
                | Extension::EightBitMime
                | Extension::Chunking
                | Extension::SmtpUtf8
                | Extension::Limits => true,
            }
    }

    fn offers_auth(&self) -> bool {
        self.policy.service == Service::Submission
            && (self.tls.is_some() || self.policy.auth_without_tls)
    }

    /// Only to a peer that passed network and certificate (product.md 5).
    fn offers_xoorg(&self) -> bool {
        self.is_connector() && self.trust.standing() == Standing::Proven
    }

    fn refuse_starttls(&mut self, now: Now) {
        let rejection = if self.tls.is_some() {
            Rejection::BadSequence {
                expected: "TLS is active already",
            }
        } else if self.offers_starttls() {
            Rejection::BadSequence {
                expected: "a transaction is open",
            }
        } else {
            Rejection::StartTlsNotAvailable
        };
        self.refuse(rejection, now);
    }

    fn auth(
        &mut self,
        mechanism: Option<Mechanism>,
        initial: Option<Vec<u8>>,
        ready: Ready,
        now: Now,
    ) -> State {
        let rejection = if self.policy.service == Service::Connector {
            Some(Rejection::NotImplemented)
        } else if !self.policy.allows(Extension::Auth) {
            Some(Rejection::AuthNotAvailable)
        } else if !self.offers_auth() && self.offers_starttls() {
            Some(Rejection::StartTlsRequired)
        } else if !self.offers_auth() {
            Some(Rejection::AuthNotAvailable)
        } else if self.greeted.is_none() {
            Some(Rejection::BadSequence {
                expected: "EHLO first",
            })
        } else if self.application.is_some() {
            Some(Rejection::BadSequence {
                expected: "authenticated already",
            })
        } else {
            None
        };
        if let Some(rejection) = rejection {
            self.refuse(rejection, now);
            return State::Ready(ready);
        }
        let (next, prompt) = match mechanism {
            Some(Mechanism::Plain) => (Authenticating::Plain, ""),
            // "Username:"
            Some(Mechanism::Login) => (Authenticating::LoginName, "VXNlcm5hbWU6"),
            None => {
                self.refuse(Rejection::UnknownMechanism, now);
                return State::Ready(ready);
            }
        };
        match initial {
            Some(response) => next.on(self, &response, now),
            None => {
                self.reply(&Reply::plain(334, vec![prompt.into()]));
                State::Authenticating(next)
            }
        }
    }

    /// MAIL: everything that is known before the content.
    fn mail(&mut self, mail: Mail, now: Now) -> Result<Transaction, Box<Refused>> {
        let id = self.conditions.next_id(now);
        let sender = Some(shown(mail.reverse_path.to_string().as_bytes()));
        let refused = |rejection| {
            let account = Account {
                sender: sender.clone(),
                ..Account::default()
            };
            Box::new(Refused {
                id,
                rejection,
                account,
            })
        };
        if self.must_start_tls() {
            return Err(refused(Rejection::StartTlsRequired));
        }
        if self.greeted.is_none() {
            return Err(refused(Rejection::BadSequence {
                expected: "EHLO first",
            }));
        }
        // A login outlives a reload; what it may do does not.
        self.application = (self.application.as_ref())
            .and_then(|application| self.conditions.renewed(application));
        let judged = match self.policy.service {
            Service::Connector => self.judge_connector(&mail, now),
            Service::Submission => self.judge_application(&mail.reverse_path),
        };
        self.by_address |= self.policy.service == Service::Submission
            && !matches!(judged, Err(NotCandidate::Plain(_)));
        let candidates = judged.map_err(|why| match why {
            NotCandidate::Plain(rejection) => refused(rejection),
            NotCandidate::Trust(refusal) => Box::new(Refused {
                id,
                rejection: refusal.reason.into(),
                account: Account {
                    sender: sender.clone(),
                    tenant: refusal.tenant.map(|tenant| tenant.name.to_string()),
                    evidence: refusal.evidence,
                    ..Account::default()
                },
            }),
        })?;
        self.check_parameters(&mail).map_err(refused)?;
        if let Some(application) = candidates.application()
            && !self.conditions.within_rate(&application.name, now)
        {
            return Err(refused(Rejection::RateExceeded));
        }
        Ok(Transaction {
            id,
            envelope: Envelope {
                reverse_path: mail.reverse_path,
                recipients: Vec::new(),
                body: mail.body,
                smtputf8: mail.smtputf8,
                ret: mail.ret,
                envid: mail.envid,
                xoorg: match mail.xoorg {
                    Some(Xoorg::Domain(org)) => Some(org),
                    Some(Xoorg::Unreadable) | None => None,
                },
            },
            candidates,
            announced: mail.size,
        })
    }

    fn judge_connector(&self, mail: &Mail, now: Now) -> Result<Candidates, NotCandidate> {
        let standing = self.trust.standing();
        if let Some(reason) = Reason::of_standing(standing, self.policy.half_proven) {
            let evidence = self.trust.evidence();
            return Err(NotCandidate::Trust(Refusal {
                reason,
                tenant: None,
                evidence,
            }));
        }
        if mail.xoorg.is_some() && !self.offers(Extension::Xoorg) {
            return Err(NotCandidate::Plain(Rejection::Syntax(
                CommandFault::Parameter,
            )));
        }
        let xoorg = match &mail.xoorg {
            Some(Xoorg::Unreadable) => return Err(NotCandidate::Trust(trust::unreadable_xoorg())),
            Some(Xoorg::Domain(org)) => Some(org),
            None => None,
        };
        let (tenants, sender) = (&self.policy.tenants, &mail.reverse_path);
        trust::candidates(tenants, sender, xoorg, now.unix_seconds()).map_err(NotCandidate::Trust)
    }

    fn judge_application(&self, sender: &ReversePath) -> Result<Candidates, NotCandidate> {
        let application: Arc<Application> = match &self.application {
            Some(application) => Arc::clone(application),
            None if !self.address_proves => {
                return Err(NotCandidate::Plain(Rejection::AuthenticationRequired));
            }
            None => match self.conditions.by_address(self.peer_address.ip(), sender) {
                ByAddress::Application(application) | ByAddress::SenderNotAllowed(application) => {
                    application
                }
                ByAddress::Unknown => {
                    return Err(NotCandidate::Plain(Rejection::AuthenticationRequired));
                }
            },
        };
        trust::submission_candidates(&application, sender).map_err(NotCandidate::Trust)
    }

    /// Parameters of extensions that are not offered here, size, addresses, store.
    fn check_parameters(&self, mail: &Mail) -> Result<(), Rejection> {
        let used = [
            (mail.size.is_some(), Extension::Size),
            (mail.body.is_some(), Extension::EightBitMime),
            (mail.smtputf8, Extension::SmtpUtf8),
            (mail.ret.is_some() || mail.envid.is_some(), Extension::Dsn),
            (mail.auth, Extension::Auth),
            (mail.xoorg.is_some(), Extension::Xoorg),
        ];
        if used
            .iter()
            .any(|(given, extension)| *given && !self.offers(*extension))
        {
            return Err(Rejection::Syntax(CommandFault::Parameter));
        }
        if mail
            .size
            .is_some_and(|size| size > self.policy.max_message_size)
        {
            return Err(Rejection::MessageTooLarge);
        }
        if !mail.smtputf8
            && mail
                .reverse_path
                .mailbox()
                .is_some_and(crate::mail::Mailbox::needs_smtputf8)
        {
            return Err(Rejection::NeedsSmtpUtf8);
        }
        if !self.conditions.store_ready() {
            return Err(Rejection::StoreUnavailable);
        }
        Ok(())
    }

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

/// Why MAIL is not accepted.
enum NotCandidate {
    Plain(Rejection),
    Trust(Refusal),
}
