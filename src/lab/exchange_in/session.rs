//! One connection to the simulated Exchange Online, command by command.

use super::super::border;
use super::super::fields::Section;
use super::super::organization::{self, Attribution, ClientIdentity};
use super::super::script::{Action, Phase};
use super::super::stand::{Said, act, lock, plain};
use super::super::wire::{Stream, TlsSeen, Wire};
use super::super::x509;
use super::grammar::{has_bare_newline, path, unstuffed};
use super::{Received, RecipientSeen, Refused, Shared, Transfer};
use crate::mail::{Mailbox, ReversePath};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::TcpStream;

/// The host name in banner, EHLO and acceptance.
const HOST: &str = "AMS0EPF0000019A.mail.protection.outlook.com";

/// Exchange Online's own message size.
const MAX_SIZE: usize = 157_286_400;

/// The largest header section.
const MAX_HEADER: usize = 256 * 1024;

/// About 20 passes of five or six Received fields each.
const MAX_HOPS: usize = 120;

/// Recipients of one domain in one transaction, and of all.
const MAX_RECIPIENTS: usize = 200;

const BAD_SEQUENCE: &str = "503 5.5.1 Bad sequence of commands";
const BAD_ARGUMENT: &str = "501 5.5.4 Invalid arguments";

struct Session<'a> {
    shared: &'a Shared,
    peer: SocketAddr,
    number: u64,
    helo: Option<String>,
    tls: Option<TlsSeen>,
    identity: ClientIdentity,
    transaction: Option<Open>,
    messages: usize,
}

struct Open {
    sender: ReversePath,
    parameters: Vec<String>,
    recipients: Vec<RecipientSeen>,
    content: Vec<u8>,
    chunks: usize,
}

pub(super) async fn serve(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
    tcp.set_nodelay(true)?;
    let mut wire = Wire::server(Stream::Clear(tcp), shared.patience);
    let mut session = Session {
        shared: &shared,
        peer,
        number,
        helo: None,
        tls: None,
        identity: ClientIdentity::None,
        transaction: None,
        messages: 0,
    };
    let banner = format!(
        "220 {HOST} Microsoft ESMTP MAIL Service ready at {} [{number:016X}]",
        now()
    );
    if session
        .answer(&mut wire, Phase::Connect, &[], &banner)
        .await?
        == Said::Closed
    {
        return Ok(());
    }
    while let Some(line) = wire.line().await? {
        let line = String::from_utf8_lossy(&line)
            .trim_end_matches(['\r', '\n'])
            .to_owned();
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if verb.eq_ignore_ascii_case("STARTTLS") {
            let allowed =
                session.tls.is_none() && session.helo.is_some() && !shared.hides("STARTTLS");
            let truth = if allowed {
                "220 2.0.0 SMTP server ready"
            } else {
                BAD_SEQUENCE
            };
            match session
                .answer(&mut wire, Phase::StartTls, &[], truth)
                .await?
            {
                Said::Yes => wire = session.encrypt(wire).await?,
                Said::No => {}
                Said::Closed => return Ok(()),
            }
        } else if session
            .command(&mut wire, &verb.to_ascii_uppercase(), rest)
            .await?
            == Said::Closed
        {
            break;
        }
    }
    wire.close().await;
    Ok(())
}

impl Session<'_> {
    async fn encrypt(&mut self, wire: Wire) -> io::Result<Wire> {
        let config = Arc::clone(&lock(&self.shared.tls));
        let (wire, seen) = wire.accept_tls(config).await?;
        self.identity = match x509::chain_holds(&seen.chain, &self.shared.roots) {
            Ok(()) => ClientIdentity::Trusted {
                names: seen.names.all(),
            },
            Err(_) if seen.chain.is_empty() => ClientIdentity::None,
            Err(why) => ClientIdentity::Untrusted {
                names: seen.names.all(),
                why,
            },
        };
        self.tls = Some(seen);
        self.helo = None;
        self.transaction = None;
        Ok(wire)
    }

    async fn command(&mut self, wire: &mut Wire, verb: &str, rest: &str) -> io::Result<Said> {
        match verb {
            "EHLO" => self.ehlo(wire, rest).await,
            "HELO" => {
                self.helo = Some(rest.to_owned());
                self.transaction = None;
                plain(wire, &format!("250 {HOST} Hello [{}]", self.peer.ip())).await
            }
            "MAIL" => self.mail(wire, rest).await,
            "RCPT" => self.rcpt(wire, rest).await,
            "DATA" => self.data(wire).await,
            "BDAT" => self.bdat(wire, rest).await,
            "RSET" => {
                self.transaction = None;
                plain(wire, "250 2.0.0 Resetting").await
            }
            "NOOP" => plain(wire, "250 2.0.0 OK").await,
            "VRFY" => plain(wire, "252 2.1.5 Cannot VRFY user").await,
            "HELP" => {
                plain(
                    wire,
                    "214 This server supports the commands that it announces",
                )
                .await
            }
            "QUIT" => {
                plain(wire, "221 2.0.0 Service closing transmission channel").await?;
                Ok(Said::Closed)
            }
            _ => plain(wire, "500 5.3.3 Unrecognized command").await,
        }
    }

    async fn ehlo(&mut self, wire: &mut Wire, name: &str) -> io::Result<Said> {
        if name.is_empty() {
            return plain(wire, "501 5.0.0 Invalid domain name").await;
        }
        self.transaction = None;
        let mut offers = vec![
            format!("SIZE {MAX_SIZE}"),
            "PIPELINING".into(),
            "DSN".into(),
            "ENHANCEDSTATUSCODES".into(),
        ];
        if self.tls.is_none() {
            offers.push("STARTTLS".into());
        }
        offers.extend(["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"].map(String::from));
        if self.offers_xoorg() {
            offers.push("XOORG".into());
        }
        offers.retain(|offer| {
            !self
                .shared
                .hides(offer.split(' ').next().unwrap_or_default())
        });
        let mut lines = vec![format!("{HOST} Hello [{}]", self.peer.ip())];
        lines.append(&mut offers);
        let last = lines.len() - 1;
        let reply: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(index, line)| format!("250{}{line}", if index == last { ' ' } else { '-' }))
            .collect();
        let said = self
            .answer(wire, Phase::Ehlo, &[], &reply.join("\r\n"))
            .await?;
        if said == Said::Yes {
            self.helo = Some(name.to_owned());
        }
        Ok(said)
    }

    fn offers_xoorg(&self) -> bool {
        organization::has_connector(&self.shared.organizations, &self.identity)
            && !self.shared.hides("XOORG")
    }

    async fn mail(&mut self, wire: &mut Wire, rest: &str) -> io::Result<Said> {
        let (truth, open) = match self.read_mail(rest) {
            Ok(open) => ("250 2.1.0 Sender OK", Some(open)),
            Err(reply) => (reply, None),
        };
        let said = self.answer(wire, Phase::Mail, &[], truth).await?;
        if said == Said::Yes {
            self.transaction = open;
        } else if open.is_some() {
            // The script refused what was well.
            self.note_refusal(rest, None, "(script)");
        }
        Ok(said)
    }

    fn read_mail(&self, rest: &str) -> Result<Open, &'static str> {
        if self.helo.is_none() || self.transaction.is_some() {
            return Err(BAD_SEQUENCE);
        }
        let (path, parameters) = path(rest, "FROM:").ok_or(BAD_ARGUMENT)?;
        let sender: ReversePath = path.parse().map_err(|_| "501 5.1.7 Invalid address")?;
        for parameter in &parameters {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let good = match key.to_ascii_uppercase().as_str() {
                "SIZE" => match value.parse::<usize>() {
                    Ok(size) if size > MAX_SIZE => {
                        return Err("552 5.3.4 Message size exceeds fixed maximum message size");
                    }
                    size => size.is_ok(),
                },
                "BODY" => ["7BIT", "8BITMIME", "BINARYMIME"]
                    .iter()
                    .any(|body| value.eq_ignore_ascii_case(body)),
                "RET" => ["FULL", "HDRS"]
                    .iter()
                    .any(|ret| value.eq_ignore_ascii_case(ret)),
                "ENVID" => !value.is_empty(),
                "SMTPUTF8" => value.is_empty() && !self.shared.hides("SMTPUTF8"),
                "XOORG" => !value.is_empty() && self.offers_xoorg(),
                _ => false,
            };
            if !good {
                return Err(BAD_ARGUMENT);
            }
        }
        Ok(Open {
            sender,
            parameters,
            recipients: Vec::new(),
            content: Vec::new(),
            chunks: 0,
        })
    }

    async fn rcpt(&mut self, wire: &mut Wire, rest: &str) -> io::Result<Said> {
        let found = self.read_rcpt(rest);
        let address = path(rest, "TO:")
            .map(|(address, _)| address)
            .unwrap_or_default();
        let truth = match &found {
            Ok(_) => "250 2.1.5 Recipient OK",
            Err(reply) => reply,
        };
        let said = self.answer(wire, Phase::Rcpt, &[&address], truth).await?;
        match (said, found, self.transaction.as_mut()) {
            (Said::Yes, Ok(recipient), Some(open)) => open.recipients.push(recipient),
            (Said::No, found, open) => {
                let sender = open.map(|open| open.sender.to_string()).unwrap_or_default();
                self.note_refusal(&sender, Some(address), found.err().unwrap_or("(script)"));
            }
            _ => {}
        }
        Ok(said)
    }

    fn read_rcpt(&self, rest: &str) -> Result<RecipientSeen, &'static str> {
        let open = self
            .transaction
            .as_ref()
            .filter(|open| open.chunks == 0)
            .ok_or(BAD_SEQUENCE)?;
        let (address, parameters) = path(rest, "TO:").ok_or(BAD_ARGUMENT)?;
        let known = |parameter: &String| {
            let key = parameter
                .split('=')
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            matches!(key.as_str(), "NOTIFY" | "ORCPT")
        };
        if !parameters.iter().all(known) {
            return Err(BAD_ARGUMENT);
        }
        let mailbox: Mailbox = address.parse().map_err(|_| "501 5.1.3 Invalid address")?;
        let smtputf8 = open
            .parameters
            .iter()
            .any(|parameter| parameter.eq_ignore_ascii_case("SMTPUTF8"));
        if mailbox.needs_smtputf8() && !smtputf8 {
            return Err("553 5.6.7 SMTPUTF8 address without SMTPUTF8");
        }
        let same = |seen: &&RecipientSeen| {
            seen.address
                .rsplit_once('@')
                .is_some_and(|(_, domain)| domain.parse().ok().as_ref() == Some(mailbox.domain()))
        };
        if open.recipients.iter().filter(same).count() >= MAX_RECIPIENTS {
            return Err("452 4.5.3 Too many recipients");
        }
        let sender = open.sender.mailbox().map(Mailbox::domain);
        let attribution: Attribution = organization::attribute(
            &self.shared.organizations,
            &self.identity,
            sender,
            mailbox.domain(),
        )?;
        Ok(RecipientSeen {
            address,
            parameters,
            attribution,
        })
    }

    async fn data(&mut self, wire: &mut Wire) -> io::Result<Said> {
        let Some(open) = self
            .transaction
            .as_ref()
            .filter(|open| !open.recipients.is_empty() && open.chunks == 0)
        else {
            return plain(wire, BAD_SEQUENCE).await;
        };
        if open
            .parameters
            .iter()
            .any(|parameter| parameter.eq_ignore_ascii_case("BODY=BINARYMIME"))
        {
            return plain(wire, BAD_SEQUENCE).await;
        }
        let addresses = open.addresses();
        let said = self
            .answer(
                wire,
                Phase::Data,
                &as_refs(&addresses),
                "354 Start mail input; end with <CRLF>.<CRLF>",
            )
            .await?;
        if said != Said::Yes {
            return Ok(said);
        }
        let Some(stuffed) = wire.dotted(MAX_SIZE).await? else {
            self.transaction = None;
            return plain(
                wire,
                "552 5.3.4 Message size exceeds fixed maximum message size",
            )
            .await;
        };
        let Some(mut open) = self.transaction.take() else {
            return Ok(Said::No);
        };
        if has_bare_newline(&stuffed) {
            self.note_refusal(&open.sender.to_string(), None, "bare newline");
            return plain(
                wire,
                "550 5.6.11 InvalidContent; message contains bare linefeeds",
            )
            .await;
        }
        open.content = unstuffed(&stuffed);
        self.finish(wire, open, Transfer::Data).await
    }

    async fn bdat(&mut self, wire: &mut Wire, rest: &str) -> io::Result<Said> {
        let mut words = rest.split(' ').filter(|word| !word.is_empty());
        let count = words.next().and_then(|word| word.parse::<usize>().ok());
        let last = match words.next() {
            None => Some(false),
            Some(word) => word.eq_ignore_ascii_case("LAST").then_some(true),
        };
        let (Some(count), Some(last), None) = (count, last, words.next()) else {
            return plain(wire, BAD_ARGUMENT).await;
        };
        if count > MAX_SIZE + MAX_HEADER {
            // Too much to read and drop: the connection ends.
            plain(
                wire,
                "552 5.3.4 Message size exceeds fixed maximum message size",
            )
            .await?;
            return Ok(Said::Closed);
        }
        if let Some(open) = self
            .transaction
            .as_ref()
            .filter(|open| open.chunks == 0 && !open.recipients.is_empty())
        {
            let addresses = open.addresses();
            if let Some(action) = self.scripted(Phase::Data, &as_refs(&addresses)) {
                wire.exactly(count).await?;
                self.transaction = None;
                return act(wire, Some(action), "250 2.0.0 OK").await;
            }
        }
        let octets = wire.exactly(count).await?;
        let Some(mut open) = self
            .transaction
            .take()
            .filter(|open| !open.recipients.is_empty())
        else {
            return plain(wire, BAD_SEQUENCE).await;
        };
        open.content.extend_from_slice(&octets);
        open.chunks += 1;
        if open.content.len() > MAX_SIZE {
            return plain(
                wire,
                "552 5.3.4 Message size exceeds fixed maximum message size",
            )
            .await;
        }
        if last {
            let size = open.chunks;
            return self.finish(wire, open, Transfer::Chunks(size)).await;
        }
        self.transaction = Some(open);
        plain(wire, &format!("250 2.0.0 {count} octets received")).await
    }

    async fn finish(
        &mut self,
        wire: &mut Wire,
        open: Open,
        transfer: Transfer,
    ) -> io::Result<Said> {
        let section = Section::of(&open.content);
        let header = open.content.len() - section.rest().len();
        let message_id = section.first("Message-ID").filter(|id| !id.is_empty());
        let message_id =
            message_id.unwrap_or_else(|| format!("<{}@{}>", self.number, border::MAILBOX_SERVER));
        let truth = if header > MAX_HEADER {
            "552 5.3.4 Header size exceeds fixed maximum size".to_owned()
        } else if section.named("Received").count() > MAX_HOPS {
            "554 5.4.14 Hop count exceeded - possible mail loop ATTR34".to_owned()
        } else {
            let internal_id = self.shared.taken.load(Ordering::SeqCst) + 10_000_000;
            format!(
                "250 2.6.0 {message_id} [InternalId={internal_id}, Hostname={}] {} bytes in 0.100, {:.3} KB/sec Queued mail for delivery",
                border::MAILBOX_SERVER,
                open.content.len(),
                open.content.len() as f64 / 102.4,
            )
        };
        let addresses = open.addresses();
        let Some(attribution) = open
            .recipients
            .first()
            .map(|recipient| recipient.attribution.clone())
        else {
            return plain(wire, BAD_SEQUENCE).await;
        };
        let action = self.scripted(Phase::EndOfData, &as_refs(&addresses));
        let reply = match &action {
            Some(Action::Reply(reply) | Action::ReplyAndClose(reply)) => reply.clone(),
            Some(Action::Drop) => "(closed without a word)".to_owned(),
            Some(Action::Stall(_)) | None => truth.clone(),
        };
        if reply.starts_with('2') {
            self.messages += 1;
            // Kept before it is answered: what is acknowledged has been seen.
            self.shared.keep(Received {
                connection: self.number,
                position: self.messages,
                peer: self.peer,
                helo: self.helo.clone().unwrap_or_default(),
                tls: self.tls.clone(),
                identity: self.identity.clone(),
                sender: open.sender.to_string(),
                parameters: open.parameters,
                recipients: open.recipients,
                transfer,
                entry: border::enter(&attribution, &open.content),
                content: open.content,
                reply: reply.clone(),
                dialogue: wire.dialogue().clone(),
            });
        } else {
            self.note_refusal(&open.sender.to_string(), None, &reply);
        }
        let said = match action {
            Some(action) => act(wire, Some(action), &truth).await?,
            None => plain(wire, &truth).await?,
        };
        if said != Said::Yes {
            return Ok(said);
        }
        if self.messages >= self.shared.close_after.load(Ordering::SeqCst) {
            return Ok(Said::Closed);
        }
        match self.scripted(Phase::AfterMessage, &as_refs(&addresses)) {
            Some(Action::Drop) => Ok(Said::Closed),
            Some(action) => act(wire, Some(action), "421 4.3.2 Service not active").await,
            None => Ok(Said::Yes),
        }
    }

    fn note_refusal(&self, sender: &str, recipient: Option<String>, reply: &str) {
        self.shared.keep_refusal(Refused {
            connection: self.number,
            sender: sender.to_owned(),
            recipient,
            identity: self.identity.clone(),
            reply: reply.to_owned(),
        });
    }

    fn scripted(&self, phase: Phase, recipients: &[&str]) -> Option<Action> {
        lock(&self.shared.script).take(phase, recipients)
    }

    /// The true answer, unless the script has another.
    async fn answer(
        &self,
        wire: &mut Wire,
        phase: Phase,
        recipients: &[&str],
        truth: &str,
    ) -> io::Result<Said> {
        act(wire, self.scripted(phase, recipients), truth).await
    }
}

impl Open {
    fn addresses(&self) -> Vec<String> {
        self.recipients
            .iter()
            .map(|recipient| recipient.address.clone())
            .collect()
    }
}

impl Shared {
    fn hides(&self, keyword: &str) -> bool {
        self.hidden.iter().any(|hidden| hidden == keyword)
    }
}

fn as_refs(addresses: &[String]) -> Vec<&str> {
    addresses.iter().map(String::as_str).collect()
}

fn now() -> String {
    let now = time::OffsetDateTime::now_utc();
    let form = time::macros::format_description!(
        "[day] [month repr:short] [year] [hour]:[minute]:[second] +0000"
    );
    now.format(&form).unwrap_or_default()
}
