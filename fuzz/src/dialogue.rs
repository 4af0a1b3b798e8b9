//! The client's side of whole connections to a next hop that says anything.
//!
//! ```text
//!  octet 0      manners: see `manners`
//!  octet 1      the message: see `Mail::of`
//!  octet 2      how the peer's octets are cut the second time
//!  the rest     what the peer says; 0xff begins an event: N a new segment, W the content is written, D the deadline,
//!               C the peer closes, F TLS fails
//! ```
//!
//! Held to: each transaction is finished once and names each recipient once; content is sent only after somebody was
//! accepted, and taken only after the content; no password in clear text; what is sent is whole lines, one command each;
//! nothing happens after the close; and the pieces in which a segment comes change nothing.

use super::naive;
use gatepost::dialogue::{Answer, Dialogue, Input, Manners, NextHop, Output, Phase, Request, Tls};
use gatepost::mail::{BodyType, Envelope, Notify, Recipient, Ret, Secret};
use gatepost::smtp::data::ContentFacts;
use gatepost::smtp::sasl::Login;

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

#[derive(Default)]
struct Watch {
    /// In the order in which it came.
    log: Vec<String>,
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
    let mut watch = Watch::default();
    watch.settle(&mut dialogue, mail, &manners);
    let mut rest = script;
    loop {
        let end = rest
            .windows(2)
            .position(|pair| pair[0] == 0xff && b"NWDCF".contains(&pair[1]));
        let (segment, event) = match end {
            Some(end) => (&rest[..end], Some(rest[end + 1])),
            None => (rest, None),
        };
        for piece in naive::pieces(segment, seed) {
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
        let Some(end) = end else { break };
        rest = &rest[end + 2..];
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

impl Watch {
    fn settle(&mut self, dialogue: &mut Dialogue, mail: &Mail, manners: &Manners) {
        while let Some(output) = dialogue.next_output() {
            assert!(!self.closed, "after the close: {output:?}");
            self.log.push(format!("{output:?}"));
            match output {
                Output::Send(bytes) => self.assert_sent(&bytes),
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
                Output::Content(_) => self.content = true,
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
                    for (_, answer) in &results {
                        self.assert_answer(answer);
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
