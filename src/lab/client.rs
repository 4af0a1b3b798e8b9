//! How does a lab client speak? One connection, from raw octets up to a whole transaction.
//!
//! The level below [`super::ExchangeOut`] and [`super::ApplicationClient`], and the one that hostile rows use directly:
//! nothing is checked or repaired on the way out.

use super::fault;
use super::wire::{self, Dialogue, Stream, TlsSeen, Wire};
use crate::smtp::reply::{self, Reply};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// How long a client waits for each answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The size of a chunk where nothing else is said.
const CHUNK: usize = 64 * 1024;

/// Why a client could not go on.
#[derive(Debug)]
pub enum ClientError {
    /// The connection failed.
    Io(io::Error),
    /// TLS failed: to Exchange a reason to queue.
    Tls(io::Error),
    /// The server closed where an answer was due.
    Closed,
    /// The answer was none.
    NotAReply,
    /// The server would not go on: this was its answer.
    Unwilling(Reply),
    /// STARTTLS is demanded and not offered.
    NoStartTls,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "connection: {error}"),
            Self::Tls(error) => write!(f, "TLS: {}", fault::of_handshake(error)),
            Self::Closed => f.write_str("closed without an answer"),
            Self::NotAReply => f.write_str("the answer was no SMTP reply"),
            Self::Unwilling(reply) => f.write_str(&reply.summary()),
            Self::NoStartTls => f.write_str("STARTTLS is not offered"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How content goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Transfer {
    /// BDAT where it is offered, else DATA.
    #[default]
    Best,
    /// BDAT in chunks of this size.
    Chunks(usize),
    /// DATA.
    Data,
}

/// One transaction to be sent.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    /// Envelope sender; empty is null.
    pub sender: String,
    /// Envelope recipients, each with its parameters: `bob@contoso.com`, `bob@contoso.com> NOTIFY=NEVER`.
    pub recipients: Vec<String>,
    /// Parameters of MAIL.
    pub parameters: Vec<String>,
    /// The content, unstuffed.
    pub content: Vec<u8>,
    /// How it goes.
    pub transfer: Transfer,
}

impl Mail {
    /// A message from one to one.
    #[must_use]
    pub fn new(sender: &str, recipient: &str, content: impl Into<Vec<u8>>) -> Self {
        Self {
            sender: sender.to_owned(),
            recipients: vec![recipient.to_owned()],
            content: content.into(),
            ..Self::default()
        }
    }

    /// A further recipient.
    #[must_use]
    pub fn and_to(mut self, recipient: &str) -> Self {
        self.recipients.push(recipient.to_owned());
        self
    }

    /// A parameter of MAIL.
    #[must_use]
    pub fn parameter(mut self, parameter: &str) -> Self {
        self.parameters.push(parameter.to_owned());
        self
    }

    /// How the content goes.
    #[must_use]
    pub fn by(mut self, transfer: Transfer) -> Self {
        self.transfer = transfer;
        self
    }
}

/// The answers to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// To MAIL.
    pub mail: Reply,
    /// To each RCPT; empty where MAIL was refused.
    pub recipients: Vec<Reply>,
    /// To DATA where it was refused, to the dot, or to the last BDAT that was sent; absent where it did not come to that.
    pub content: Option<Reply>,
}

impl Transaction {
    /// The reply that decided: the first refusal, else the one to the content.
    #[must_use]
    pub fn deciding(&self) -> &Reply {
        let refused = |reply: &&Reply| reply.class() > 3;
        let every = std::iter::once(&self.mail)
            .chain(&self.recipients)
            .chain(&self.content);
        every
            .clone()
            .find(refused)
            .or_else(|| every.last())
            .unwrap_or(&self.mail)
    }

    /// Where the refusal came: `MAIL`, `RCPT`, `content`; `None` where all was accepted.
    #[must_use]
    pub fn refused_at(&self) -> Option<&'static str> {
        let refused = |reply: &Reply| reply.class() > 3;
        if refused(&self.mail) {
            Some("MAIL")
        } else if self.recipients.iter().any(refused) {
            Some("RCPT")
        } else if self.content.as_ref().is_some_and(refused) {
            Some("content")
        } else {
            None
        }
    }

    /// Whether the content was accepted for every recipient.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.refused_at().is_none() && self.content.is_some()
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    /// The extensions of the last EHLO, upper case, with their parameters.
    pub offers: Vec<String>,
    /// TLS, once there is some.
    pub tls: Option<TlsSeen>,
}

impl Client {
    /// Connects, from a chosen address where one is given. The greeting is not read yet.
    ///
    /// # Errors
    /// The address cannot be had, or nobody listens.
    pub async fn connect(to: SocketAddr, from: Option<IpAddr>) -> Result<Self, ClientError> {
        let tcp = match tokio::time::timeout(PATIENCE, dial(to, from)).await {
            Ok(tcp) => tcp?,
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "connecting").into()),
        };
        tcp.set_nodelay(true)?;
        let wire = Wire::client(Stream::Clear(tcp), PATIENCE);
        Ok(Self {
            wire,
            offers: Vec::new(),
            tls: None,
        })
    }

    /// What was said so far.
    #[must_use]
    pub fn dialogue(&self) -> &Dialogue {
        self.wire.dialogue()
    }

    /// Notes a remark in the dialogue.
    pub(super) fn remark(&self, text: &str) {
        self.wire.remark(text);
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// The server closed, or said something that is no reply.
    pub async fn reply(&mut self) -> Result<Reply, ClientError> {
        let mut text = Vec::new();
        loop {
            let line = self.wire.line().await?.ok_or(ClientError::Closed)?;
            text.extend_from_slice(&line);
            if line.get(3) != Some(&b'-') {
                break;
            }
        }
        match reply::parse(&text) {
            Ok(Some((reply, _))) => Ok(reply),
            Ok(None) | Err(_) => Err(ClientError::NotAReply),
        }
    }

    /// Sends a command and reads its reply.
    ///
    /// # Errors
    /// As [`Client::reply`].
    pub async fn command(&mut self, line: &str) -> Result<Reply, ClientError> {
        self.wire.say(&format!("{line}\r\n")).await?;
        self.reply().await
    }

    /// Sends text that is noted line by line.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn say(&mut self, text: &str) -> Result<(), ClientError> {
        Ok(self.wire.say(text).await?)
    }

    /// Sends octets as they are; the dialogue notes their number only.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn raw(&mut self, octets: &[u8]) -> Result<(), ClientError> {
        Ok(self.wire.send_content(octets).await?)
    }

    /// Sends a line of credentials: the dialogue says so and no more.
    pub(super) async fn secret(&mut self, line: &str) -> Result<Reply, ClientError> {
        self.wire.remark("C: (credentials)");
        self.wire.send(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Says EHLO and notes the offers.
    ///
    /// # Errors
    /// The server would not have it.
    pub async fn ehlo(&mut self, name: &str) -> Result<(), ClientError> {
        let reply = self.command(&format!("EHLO {name}")).await?;
        if reply.class() != 2 {
            return Err(ClientError::Unwilling(reply));
        }
        self.offers = reply
            .lines
            .iter()
            .skip(1)
            .map(|line| line.to_ascii_uppercase())
            .collect();
        Ok(())
    }

    /// Whether the server offers this extension.
    #[must_use]
    pub fn offers(&self, keyword: &str) -> bool {
        self.offers
            .iter()
            .any(|offer| offer.split(' ').next() == Some(keyword))
    }

    /// STARTTLS and the handshake; EHLO must follow.
    ///
    /// # Errors
    /// Not offered, refused, or the handshake failed.
    pub async fn starttls(
        self,
        tls: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, ClientError> {
        let mut client = self;
        if !client.offers("STARTTLS") {
            return Err(ClientError::NoStartTls);
        }
        let reply = client.command("STARTTLS").await?;
        if reply.class() != 2 {
            return Err(ClientError::Unwilling(reply));
        }
        if client.wire.unread() > 0 {
            return Err(ClientError::NotAReply);
        }
        client.tls(tls, name).await
    }

    /// The handshake alone.
    ///
    /// # Errors
    /// It failed.
    pub async fn tls(
        self,
        tls: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, ClientError> {
        let (wire, seen) = self
            .wire
            .connect_tls(tls, name)
            .await
            .map_err(ClientError::Tls)?;
        Ok(Self {
            wire,
            offers: Vec::new(),
            tls: Some(seen),
        })
    }

    /// One transaction: MAIL and RCPTs in one write where PIPELINING is offered, then the content. After a refusal RSET.
    ///
    /// # Errors
    /// The connection failed, or an answer was none.
    pub async fn transaction(&mut self, mail: &Mail) -> Result<Transaction, ClientError> {
        let mut from = format!("MAIL FROM:<{}>", mail.sender);
        for parameter in &mail.parameters {
            from = from + " " + parameter;
        }
        let forward = |recipient: &String| match recipient.split_once("> ") {
            Some((address, parameters)) => format!("RCPT TO:<{address}> {parameters}"),
            None => format!("RCPT TO:<{recipient}>"),
        };
        let recipients: Vec<String> = mail.recipients.iter().map(forward).collect();
        let mut answers = Transaction {
            mail: if self.offers("PIPELINING") {
                self.wire
                    .say(&format!("{from}\r\n{}\r\n", recipients.join("\r\n")))
                    .await?;
                self.reply().await?
            } else {
                self.command(&from).await?
            },
            recipients: Vec::new(),
            content: None,
        };
        if self.offers("PIPELINING") {
            for _ in &recipients {
                answers.recipients.push(self.reply().await?);
            }
        } else if answers.mail.class() == 2 {
            for recipient in &recipients {
                answers.recipients.push(self.command(recipient).await?);
            }
        }
        if answers.mail.class() != 2 {
            answers.recipients.clear();
        }
        if answers.recipients.iter().any(|reply| reply.class() == 2) {
            answers.content = Some(self.content(mail).await?);
        }
        if !answers.accepted() {
            let mended = self.command("RSET").await?;
            if mended.class() != 2 {
                return Err(ClientError::Unwilling(mended));
            }
        }
        Ok(answers)
    }

    async fn content(&mut self, mail: &Mail) -> Result<Reply, ClientError> {
        match mail.transfer {
            Transfer::Best if self.offers("CHUNKING") => self.bdat(&mail.content, CHUNK).await,
            Transfer::Chunks(size) => self.bdat(&mail.content, size).await,
            Transfer::Best | Transfer::Data => self.data(&mail.content).await,
        }
    }

    /// The content in chunks (RFC 3030); the first refusal ends it.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn bdat(&mut self, content: &[u8], size: usize) -> Result<Reply, ClientError> {
        let mut left = content;
        loop {
            let (chunk, rest) = left.split_at_checked(size.max(1)).unwrap_or((left, &[]));
            let last = if rest.is_empty() { " LAST" } else { "" };
            self.wire
                .say(&format!("BDAT {}{last}\r\n", chunk.len()))
                .await?;
            self.wire.send_content(chunk).await?;
            let reply = self.reply().await?;
            if reply.class() != 2 || rest.is_empty() {
                return Ok(reply);
            }
            left = rest;
        }
    }

    /// The content with its dots stuffed, and the dot. A missing CRLF at the end is added.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn data(&mut self, content: &[u8]) -> Result<Reply, ClientError> {
        let reply = self.command("DATA").await?;
        if reply.class() != 3 {
            return Ok(reply);
        }
        self.raw(&stuffed(content)).await?;
        self.reply().await
    }

    /// QUIT, as far as the server still listens.
    pub async fn quit(mut self) {
        if let Err(error) = self.command("QUIT").await {
            self.remark(&format!("after QUIT: {error}"));
        }
        self.wire.close().await;
    }
}

async fn dial(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(to).await
}

/// Dot-stuffing at CRLF only, and the end of content (RFC 5321 §4.5.2); bare newlines stay what they are.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + content.len() / 64 + 8);
    let mut at_start = true;
    let mut previous = 0;
    for &octet in content {
        if at_start && octet == b'.' {
            out.push(b'.');
        }
        out.push(octet);
        at_start = previous == b'\r' && octet == b'\n';
        previous = octet;
    }
    if !at_start {
        out.extend(b"\r\n");
    }
    out.extend(b".\r\n");
    out
}

/// What a TLS client of the lab is told.
pub(super) fn tls_for(
    roots: &rustls::RootCertStore,
    identity: Option<&super::certificates::Issued>,
) -> Result<Arc<ClientConfig>, super::LabError> {
    wire::client_config(roots, identity)
        .map_err(|error| super::LabError::Certificate(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_stuffed_at_crlf_only() {
        assert_eq!(stuffed(b".\r\n..a\n.b\r\n"), b"..\r\n...a\n.b\r\n.\r\n");
        assert_eq!(stuffed(b"no end"), b"no end\r\n.\r\n");
        assert_eq!(stuffed(b""), b".\r\n");
    }
}
