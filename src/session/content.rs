//! DATA and BDAT: framing, judgement of the header section, and the last reply.

use super::intake::{Intake, Keep};
use super::judgement::{Opinion, Verifying, judge};
use super::rejection::Rejection;
use super::state::{State, Transaction};
use super::{Account, CONTENT_MILLIS, Core, Now, Output};
use crate::smtp::command::{Bdat, Command};
use crate::smtp::data::{DotDecoder, Progress};
use crate::smtp::extension::Extension;
use crate::smtp::reply::Reply;
use crate::spool::SpoolError;

/// What is read and dropped of a message beyond its limit before the connection is closed, octets.
const MAX_DROPPED: u64 = 64 * 1024 * 1024;

/// Content is arriving, or chunks of a message are between one another.
pub(crate) struct Content {
    framing: Framing,
    purpose: Purpose,
    /// An append has not been answered yet.
    appending: bool,
    /// A draft exists.
    drafted: bool,
    /// The framing has met its end.
    ended: bool,
    dropped: u64,
}

/// How bytes arrive.
enum Framing {
    Dot(DotDecoder),
    Chunk { size: u64, left: u64, last: bool },
}

/// What becomes of them.
enum Purpose {
    Message {
        transaction: Box<Transaction>,
        intake: Box<Intake<Opinion>>,
        refusal: Account,
    },
    /// A chunk outside a transaction: read, dropped, 503 (RFC 3030 §3).
    Unwanted(Unwanted),
}

/// Why a chunk is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// A chunk of its message was refused and was not the last (RFC 3030 §3).
    AfterRefusal,
    /// Something is not as it must be before a chunk.
    Because(&'static str),
}

impl Unwanted {
    /// That BDAT is not offered at all comes before what is missing. The transaction is over in either case (RFC 3030 §3).
    pub(super) fn of(core: &Core, otherwise: &'static str) -> Self {
        if core.policy.allows(Extension::Chunking) {
            Self::Because(otherwise)
        } else {
            Self::Because("BDAT is not offered here, begin anew with MAIL and use DATA")
        }
    }
}

impl Content {
    pub(super) fn data(core: &Core, transaction: Transaction) -> Self {
        Self::message(core, transaction, Framing::Dot(DotDecoder::default()))
    }

    pub(super) fn bdat(core: &Core, transaction: Transaction, chunk: Bdat) -> Self {
        Self::message(core, transaction, Framing::chunk(chunk))
    }

    fn message(core: &Core, transaction: Transaction, framing: Framing) -> Self {
        let chunked = matches!(framing, Framing::Chunk { .. });
        let intake = core.policy.terms().intake(chunked);
        let refusal = transaction.account();
        Self {
            framing,
            purpose: Purpose::Message {
                transaction: Box::new(transaction),
                intake: Box::new(intake),
                refusal,
            },
            appending: false,
            drafted: false,
            ended: false,
            dropped: 0,
        }
    }

    pub(super) fn unwanted_chunk(chunk: Bdat, why: Unwanted) -> State {
        State::Content(Box::new(Self {
            framing: Framing::chunk(chunk),
            purpose: Purpose::Unwanted(why),
            appending: false,
            drafted: false,
            ended: false,
            dropped: 0,
        }))
    }

    /// What MAIL announced of the message, or else its chunk: said by whoever sends it.
    pub(super) fn announced_size(&self) -> u64 {
        match (&self.purpose, &self.framing) {
            (Purpose::Unwanted(_), _) => 0,
            (Purpose::Message { transaction, .. }, framing) => {
                transaction.announced.unwrap_or(match framing {
                    Framing::Dot(_) => 0,
                    Framing::Chunk { size, .. } => *size,
                })
            }
        }
    }

    pub(super) fn waits_for_append(&self) -> bool {
        self.appending
    }

    /// Whether there is something to do without further input.
    pub(super) fn is_complete(&self) -> bool {
        self.ended || matches!(self.framing, Framing::Chunk { left: 0, .. })
    }

    pub(super) fn appended(&mut self, core: &mut Core, result: Result<(), SpoolError>) {
        self.appending = false;
        if result.is_err() {
            self.abandon(core, Rejection::StoreUnavailable);
        }
    }

    fn abandon(&mut self, core: &mut Core, rejection: Rejection) {
        if let Purpose::Message { intake, .. } = &mut self.purpose {
            intake.discard(rejection);
        }
        self.drop_draft(core);
    }

    fn drop_draft(&mut self, core: &mut Core) {
        if std::mem::take(&mut self.drafted) {
            core.outputs.push_back(Output::Abandon);
        }
    }

    /// Consumes input up to the end of the content, of the chunk, or up to an append.
    pub(super) fn take(
        mut self: Box<Self>,
        core: &mut Core,
        input: &[u8],
        taken: &mut usize,
        now: Now,
    ) -> State {
        if !self.ended {
            match &mut self.framing {
                Framing::Dot(decoder) => {
                    let mut content = Vec::with_capacity(input.len());
                    match decoder.decode(input, &mut content) {
                        Progress::More => *taken = input.len(),
                        Progress::End(length) => {
                            *taken = length;
                            self.ended = true;
                        }
                    }
                    self.push(core, content, now);
                }
                Framing::Chunk { left, .. } => {
                    let length = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(input.len());
                    *left -= length as u64;
                    self.ended = *left == 0;
                    *taken = length;
                    self.push(core, input.get(..length).unwrap_or_default().to_vec(), now);
                }
            }
            if self.dropped > core.policy.max_message_size.saturating_add(MAX_DROPPED) {
                core.refuse(Rejection::TooManyErrors, now);
                return State::Closed;
            }
            if self.appending || !self.ended {
                return State::Content(self);
            }
        }
        self.end(core, now)
    }

    fn push(&mut self, core: &mut Core, bytes: Vec<u8>, now: Now) {
        let length = bytes.len() as u64;
        let Purpose::Message {
            transaction,
            intake,
            refusal,
        } = &mut self.purpose
        else {
            self.dropped += length;
            return;
        };
        let keep = intake.push(bytes, &mut |buffer, length| {
            judge(core, transaction, refusal, buffer, length, now)
        });
        if intake.refusal().is_some() {
            self.dropped += length;
            self.drop_draft(core);
            return;
        }
        if let Keep::Bytes(kept) = keep
            && !kept.is_empty()
        {
            core.outputs.push_back(Output::Append(kept));
            self.appending = true;
            self.drafted = true;
        }
    }

    /// The end of the content or of a chunk: the answer.
    fn end(mut self: Box<Self>, core: &mut Core, now: Now) -> State {
        core.wait_for_command(now);
        let last = match self.framing {
            Framing::Dot(_) => true,
            Framing::Chunk { last, .. } => last,
        };
        let (transaction, intake, mut refusal) = match self.purpose {
            Purpose::Unwanted(why) => {
                let (expected, next) = match why {
                    Unwanted::AfterRefusal => {
                        let expected = "this message is refused, RSET first";
                        (expected, State::after_refused_chunk())
                    }
                    Unwanted::Because(expected) => (expected, State::ready()),
                };
                core.refuse(Rejection::BadSequence { expected }, now);
                return next;
            }
            Purpose::Message {
                transaction,
                intake,
                refusal,
            } => (transaction, intake, refusal),
        };
        if let Some(rejection) = intake.refusal() {
            core.refuse_as(transaction.id, rejection.clone(), refusal, now);
            return if last {
                State::ready()
            } else {
                State::after_refused_chunk()
            };
        }
        if !last {
            let Framing::Chunk { size, .. } = self.framing else {
                return State::ready();
            };
            core.reply(&Reply::new(
                250,
                (2, 0, 0),
                format!("{size} octets received"),
            ));
            self.purpose = Purpose::Message {
                transaction,
                intake,
                refusal,
            };
            return State::Chunks(self);
        }
        let transfer = self.framing.transfer();
        let (keep, result) = intake.finish(&mut |buffer, length| {
            judge(core, &transaction, &mut refusal, buffer, length, now)
        });
        match result {
            Ok((opinion, facts)) => {
                if let Keep::Bytes(bytes) = keep {
                    core.outputs.push_back(Output::Append(bytes));
                }
                match opinion {
                    Opinion::Settled(judgement) => {
                        judgement.store(core, transaction, facts, transfer, now)
                    }
                    Opinion::Waits(waiting) => Verifying {
                        transaction,
                        waiting,
                        facts,
                        transfer,
                        refusal,
                    }
                    .begin(core, now),
                }
            }
            Err(rejection) => {
                if self.drafted {
                    core.outputs.push_back(Output::Abandon);
                }
                core.refuse_as(transaction.id, rejection, refusal, now);
                State::ready()
            }
        }
    }

    /// A command between chunks (RFC 3030 §2).
    pub(super) fn between(
        mut self: Box<Self>,
        core: &mut Core,
        command: Command,
        now: Now,
    ) -> State {
        match command {
            Command::Bdat(chunk) => {
                core.wait_for_content(now);
                self.framing = Framing::chunk(chunk);
                self.ended = false;
                State::Content(self)
            }
            Command::Rset => {
                self.drop_draft(core);
                core.reply(&Reply::new(250, (2, 0, 0), "Reset"));
                State::ready()
            }
            Command::Ehlo(name) => {
                self.drop_draft(core);
                core.ehlo(name);
                State::ready()
            }
            Command::Helo(name) => {
                self.drop_draft(core);
                core.helo(name);
                State::ready()
            }
            Command::StartTls
            | Command::Auth(..)
            | Command::Mail(_)
            | Command::Rcpt(_)
            | Command::Data => {
                core.refuse(
                    Rejection::BadSequence {
                        expected: "BDAT or RSET",
                    },
                    now,
                );
                State::Chunks(self)
            }
            Command::Noop | Command::Quit | Command::Vrfy | Command::Expn | Command::Help => {
                core.anywhere(&command, now);
                State::Chunks(self)
            }
        }
    }
}

impl Framing {
    fn chunk(chunk: Bdat) -> Self {
        Self::Chunk {
            size: chunk.size,
            left: chunk.size,
            last: chunk.last,
        }
    }

    fn transfer(&self) -> &'static str {
        match self {
            Self::Dot(_) => "DATA",
            Self::Chunk { .. } => "BDAT",
        }
    }
}

impl Core {
    pub(super) fn wait_for_content(&mut self, now: Now) {
        self.progress = 0;
        self.wait_until(now.ticks + CONTENT_MILLIS);
    }
}
