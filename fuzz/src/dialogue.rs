//! The client's side of whole connections to a next hop that says anything.
//!
//! ```text
//!  octet 0      manners: see `manners`
//!  octet 1      the message: see `Mail::of`
//!  octet 2      how the peer's octets are cut the second time
//!  the rest     what the peer says; 0xff begins an event: N a new segment, W the content is written, D the deadline,
//!               C the peer closes, F TLS fails, X and a number many octets of the same kind, for what a limit ends
//! ```
//!
//! Held to: each transaction is finished once and names each recipient once; by a reading of the replies of its own, one for
//! each command in the order in which they left, content is sent only after somebody was accepted, and taken only of whom
//! was accepted, after the reply to the content; no password in clear text; what is sent is whole lines, one command each;
//! nothing happens after the close; and the pieces in which a segment comes change nothing.

use super::naive;
use gatepost::dialogue::{
    Answer, Dialogue, Input, Manners, NextHop, Output, Phase, Request, Tls, Transfer,
};
use gatepost::mail::{BodyType, Envelope, Notify, Recipient, Ret, Secret};
use gatepost::smtp::data::ContentFacts;
use gatepost::smtp::sasl::Login;
use std::collections::BTreeSet;

/// Transactions that are begun on one connection.
const MOST: usize = 4;

fn manners(octet: u8) -> Manners {
    let login = Login {
        username: "gatepost".to_owned(),
        password: Secret::new("hunter2"),
    };
    Manners {
        tls: match octet & 3 {
            0 => Tls::Required,
            1 => Tls::FromTheStart,
            2 => Tls::WhereOffered,
            _ => Tls::Never,
        },
        login: (octet & 4 != 0).then_some(login),
        old_hello: octet & 8 != 0,
    }
}

struct Mail {
    envelope: Envelope,
    positions: Vec<usize>,
    facts: ContentFacts,
}

impl Mail {
    fn of(octet: u8) -> Self {
        let mut envelope = Envelope {
            reverse_path: if octet & 1 != 0 { "" } else { "a@contoso.com" }
                .parse()
                .expect("a sender"),
            recipients: Vec::new(),
            body: (octet & 2 != 0).then_some(BodyType::EightBitMime),
            smtputf8: octet & 4 != 0,
            ret: Some(Ret::Headers),
            envid: Some("QQ+3D".into()),
            xoorg: None,
        };
        for number in 0..usize::from(octet >> 6) + 1 {
            let name = if number == 1 {
                "ü".to_owned()
            } else {
                format!("r{number}")
            };
            envelope.recipients.push(Recipient {
                mailbox: format!("{name}@contoso.com").parse().expect("an address"),
                notify: Some(Notify::On {
                    success: true,
                    failure: true,
                    delay: false,
                }),
                orcpt: Some("rfc822;b+2Bx@contoso.com".into()),
            });
        }
        Self {
            positions: (0..envelope.recipients.len()).rev().collect(),
            envelope,
            facts: ContentFacts {
                size: 50,
                eight_bit: octet & 8 != 0,
                nul: octet & 16 != 0,
                ends_with_crlf: true,
                ..ContentFacts::default()
            },
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            envelope: &self.envelope,
            recipients: &self.positions,
            facts: &self.facts,
            size: 50,
            utf8_header: self.envelope.smtputf8 && self.facts.eight_bit,
            xoorg: None,
        }
    }
}

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Rcpt(usize),
    Data,
    End,
    /// The greeting among them.
    Other,
}

#[derive(Default)]
struct Watch {
    /// In the order in which it came.
    log: Vec<String>,
    /// All that the peer said.
    heard: Vec<u8>,
    /// All that a reply is due to, in order, and where in it the transaction begins.
    asked: Vec<Asked>,
    since: usize,
    secure: bool,
    begun: usize,
    finished: usize,
    /// Content was asked for in this transaction.
    content: bool,
    failed: bool,
    closed: bool,
}

/// See the module.
pub fn dialogue(octets: &[u8]) {
    let [how, what, seed, script @ ..] = octets else {
        return;
    };
    let whole = play(manners(*how), &Mail::of(*what), script, 0);
    let cut = play(
        manners(*how),
        &Mail::of(*what),
        script,
        u64::from(*seed) + 1,
    );
    assert_eq!(whole, cut, "cut otherwise");
}

fn play(manners: Manners, mail: &Mail, script: &[u8], seed: u64) -> Vec<String> {
    let mut dialogue = Dialogue::with("host.contoso.com", manners.clone());
    let mut watch = Watch {
        asked: vec![Asked::Other],
        ..Watch::default()
    };
    watch.settle(&mut dialogue, mail, &manners);
    for (segment, event) in naive::segments(script, b"NWDCF") {
        watch.heard.extend_from_slice(&segment);
        for piece in naive::pieces(&segment, seed) {
            dialogue.handle(Input::Bytes(piece));
        }
        watch.settle(&mut dialogue, mail, &manners);
        match event {
            Some(b'W') if dialogue.is_sending() => dialogue.handle(Input::ContentSent),
            Some(b'D') => dialogue.handle(Input::Deadline),
            Some(b'C') => dialogue.handle(Input::Closed),
            Some(b'F') => dialogue.handle(Input::TlsFailed("alert")),
            _ => {}
        }
        watch.settle(&mut dialogue, mail, &manners);
    }
    // The end of the connection ends whatever was under way.
    dialogue.handle(Input::Closed);
    watch.settle(&mut dialogue, mail, &manners);
    assert_eq!(watch.finished, watch.begun, "{:?}", watch.log);
    assert!(watch.closed, "{:?}", watch.log);
    assert!(
        !watch.failed || watch.begun == 0,
        "failed before any transaction, or not at all"
    );
    watch.log
}

/// The codes of the replies in a stream, up to what is none: lines of a code and a blank or hyphen, a hyphen where more follow.
fn codes(stream: &[u8]) -> Vec<u16> {
    let (mut codes, mut open) = (Vec::new(), None);
    let whole = stream.iter().rposition(|octet| *octet == b'\n');
    let lines = stream[..whole.unwrap_or(0)].split(|octet| *octet == b'\n');
    for line in lines.filter(|_| whole.is_some()) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let code = line
            .get(..3)
            .and_then(|code| std::str::from_utf8(code).ok());
        let code = code.filter(|code| code.bytes().all(|digit| digit.is_ascii_digit()));
        let Some(code) = code.and_then(|code| code.parse().ok()) else {
            break;
        };
        if *open.get_or_insert(code) != code {
            break;
        }
        match line.get(3) {
            Some(b'-') => {}
            Some(b' ') | None => {
                codes.push(code);
                open = None;
            }
            Some(_) => break,
        }
    }
    codes
}

impl Watch {
    fn settle(&mut self, dialogue: &mut Dialogue, mail: &Mail, manners: &Manners) {
        while let Some(output) = dialogue.next_output() {
            assert!(!self.closed, "after the close: {output:?}");
            self.log.push(format!("{output:?}"));
            match output {
                Output::Send(bytes) => {
                    self.assert_sent(&bytes);
                    self.ask(&bytes);
                }
                Output::StartTls => {
                    assert!(!self.secure && manners.tls != Tls::Never);
                    self.secure = true;
                    dialogue.handle(Input::TlsDone);
                }
                Output::Ready => {
                    assert!(
                        self.secure || !matches!(manners.tls, Tls::Required | Tls::FromTheStart),
                        "no TLS"
                    );
                    assert!(self.secure || manners.login.is_none(), "no login");
                    self.go_on(dialogue, mail);
                }
                Output::Content(transfer) => {
                    assert!(!self.accepted().is_empty(), "content for nobody");
                    if transfer == Transfer::Dots {
                        assert_eq!(self.last_reply(), (Asked::Data, Some(354)), "no 354");
                        self.asked.push(Asked::End);
                    }
                    self.content = true;
                }
                Output::Finished(results) => {
                    self.finished += 1;
                    assert_eq!(self.finished, self.begun);
                    let mut named: Vec<usize> =
                        results.iter().map(|(position, _)| *position).collect();
                    named.sort_unstable();
                    assert!(
                        named.iter().copied().eq(0..mail.positions.len()),
                        "{named:?}"
                    );
                    for (position, answer) in &results {
                        self.assert_answer(answer);
                        if matches!(answer, Answer::Taken(_)) {
                            assert!(self.accepted().contains(position), "refused at RCPT, taken");
                            let (last, code) = self.last_reply();
                            assert!(last == Asked::End && code.is_some_and(|code| code / 100 == 2));
                        }
                    }
                    self.content = false;
                    if dialogue.is_ready() {
                        self.go_on(dialogue, mail);
                    }
                }
                Output::Failed(answer) => {
                    assert!(!matches!(answer, Answer::Taken(_)));
                    assert!(!self.failed);
                    self.failed = true;
                    self.assert_answer(&answer);
                }
                Output::Close => self.closed = true,
            }
        }
    }

    /// Notes what a reply is due to; content is announced only where somebody was accepted.
    fn ask(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        for line in text.split_terminator("\r\n") {
            if line.starts_with("MAIL ") {
                self.since = self.asked.len();
            }
            let recipient = line
                .strip_prefix("RCPT TO:<")
                .and_then(|rest| rest.split('@').next());
            let asked = match recipient {
                Some("ü") => Asked::Rcpt(1),
                Some(name) => Asked::Rcpt(name[1..].parse().expect("r and a number")),
                None if line.starts_with("BDAT ") => Asked::End,
                None if line == "DATA" => Asked::Data,
                None => Asked::Other,
            };
            assert!(
                !matches!(asked, Asked::Data | Asked::End) || !self.accepted().is_empty(),
                "{line} for nobody"
            );
            self.asked.push(asked);
        }
    }

    /// Whom the peer has accepted in this transaction.
    fn accepted(&self) -> BTreeSet<usize> {
        let pairs = self.asked.iter().zip(codes(&self.heard)).skip(self.since);
        let accepted = pairs.filter_map(|(asked, code)| match asked {
            Asked::Rcpt(position) if code / 100 == 2 => Some(*position),
            _ => None,
        });
        accepted.collect()
    }

    /// What was asked last, and the code that answered it.
    fn last_reply(&self) -> (Asked, Option<u16>) {
        let last = self.asked.len() - 1;
        (self.asked[last], codes(&self.heard).get(last).copied())
    }

    fn go_on(&mut self, dialogue: &mut Dialogue, mail: &Mail) {
        if !dialogue.is_ready() {
            // It has heard the end meanwhile.
            return;
        }
        if self.begun < MOST {
            self.begun += 1;
            dialogue.begin(&mail.request());
        } else {
            dialogue.quit();
        }
    }

    fn assert_sent(&self, bytes: &[u8]) {
        assert!(bytes.ends_with(b"\r\n"), "whole lines");
        let text = std::str::from_utf8(bytes).expect("commands are text");
        for line in text.split_terminator("\r\n") {
            assert!(
                line.len() < 1024 && !line.contains(['\r', '\n', '\0']),
                "{line:?}"
            );
        }
        if !self.secure {
            let message = "AGdhdGVwb3N0AGh1bnRlcjI";
            for secret in ["hunter2", message, "aHVudGVyMg", "AUTH "] {
                assert!(!text.contains(secret), "in clear text: {text}");
            }
        }
    }

    /// Whoever judges it, it comes to something, and what is shown is fit for a person.
    fn assert_answer(&self, answer: &Answer) {
        if let Answer::Taken(reply) = answer {
            assert!(self.content && reply.class() == 2, "taken without content");
        }
        if let Answer::Refused {
            phase: Phase::End | Phase::Content,
            ..
        } = answer
        {
            // Only where there was something to refuse.
            assert!(self.begun > 0);
        }
        for hop in [NextHop::Exchange, NextHop::Mx, NextHop::Relay] {
            let judged = answer.judge(hop);
            assert!(
                judged.reply.is_ascii() && judged.reply.len() <= 300,
                "{}",
                judged.reply
            );
            assert!(
                !judged.reply.contains(|c: char| c.is_ascii_control()),
                "{:?}",
                judged.reply
            );
            let delivered = judged.outcome == gatepost::dialogue::Outcome::Delivered;
            assert_eq!(delivered, matches!(answer, Answer::Taken(_)), "{answer:?}");
        }
    }
}
