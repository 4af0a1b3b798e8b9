//! How do applications and devices submit? With passwords in the dialects that they really speak, or without.

use super::client::{Client, ClientError, Mail, Transaction, tls_for};
use super::{Dialogue, LabError};
use crate::smtp::reply::Reply;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How an application comes to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// STARTTLS.
    StartTls,
    /// TLS from the first octet.
    Implicit,
    /// None: old devices.
    Clear,
}

/// How a device logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `AUTH PLAIN` with the initial response.
    Plain,
    /// `AUTH PLAIN`, then the response on a line of its own.
    PlainOnRequest,
    /// `AUTH LOGIN`, then name and password on request.
    Login,
    /// `AUTH LOGIN` with the name at once.
    LoginWithName,
    /// `auth login`, in lower case.
    LowerCaseLogin,
}

/// An application or device.
#[derive(Clone, Debug)]
pub struct ApplicationClient {
    to: SocketAddr,
    source: Option<IpAddr>,
    helo: String,
    security: Security,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    login: Option<(String, String, Dialect)>,
}

impl ApplicationClient {
    /// An application that connects with STARTTLS and checks that the certificate holds by `roots` and carries `name`.
    ///
    /// # Errors
    /// The name is none.
    pub fn new(to: SocketAddr, name: &str, roots: &RootCertStore) -> Result<Self, LabError> {
        Ok(Self {
            to,
            source: None,
            helo: "printer-3.office.contoso.com".to_owned(),
            security: Security::StartTls,
            server_name: ServerName::try_from(name.to_owned())
                .map_err(|_| LabError::Certificate(format!("{name} is no server name")))?,
            tls: tls_for(roots, None)?,
            login: None,
        })
    }

    /// Another way to TLS, or none.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// Comes from this address.
    #[must_use]
    pub fn from_address(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Says this at EHLO.
    #[must_use]
    pub fn helo(mut self, name: &str) -> Self {
        self.helo = name.to_owned();
        self
    }

    /// Logs in.
    #[must_use]
    pub fn login(mut self, username: &str, password: &str, dialect: Dialect) -> Self {
        self.login = Some((username.to_owned(), password.to_owned(), dialect));
        self
    }

    /// Connects, as far as EHLO under the wanted security.
    ///
    /// # Errors
    /// Anything that would make the application give up.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        let mut client = Client::connect(self.to, self.source).await?;
        if self.security == Security::Implicit {
            client = client.tls(Arc::clone(&self.tls), self.server_name.clone()).await?;
        }
        let banner = client.reply().await?;
        if banner.class() != 2 {
            return Err(ClientError::Unwilling(banner));
        }
        client.ehlo(&self.helo).await?;
        if self.security == Security::StartTls {
            client = client.starttls(Arc::clone(&self.tls), self.server_name.clone()).await?;
            client.ehlo(&self.helo).await?;
        }
        Ok(client)
    }

    /// Logs in on a connection.
    ///
    /// # Errors
    /// The connection failed; a refusal is no error.
    pub async fn log_in(&self, client: &mut Client) -> Result<Option<Reply>, ClientError> {
        let Some((username, password, dialect)) = &self.login else { return Ok(None) };
        let plain = STANDARD.encode(format!("\0{username}\0{password}"));
        let (name, word) = (STANDARD.encode(username), STANDARD.encode(password));
        let first = match dialect {
            Dialect::Plain => format!("AUTH PLAIN {plain}"),
            Dialect::PlainOnRequest => "AUTH PLAIN".to_owned(),
            Dialect::Login => "AUTH LOGIN".to_owned(),
            Dialect::LoginWithName => format!("AUTH LOGIN {name}"),
            Dialect::LowerCaseLogin => "auth login".to_owned(),
        };
        let rest: &[&String] = match dialect {
            Dialect::Plain => &[],
            Dialect::PlainOnRequest => &[&plain],
            Dialect::LoginWithName => &[&word],
            Dialect::Login | Dialect::LowerCaseLogin => &[&name, &word],
        };
        let mut reply = client.command(&first).await?;
        for line in rest {
            if reply.code != 334 {
                break;
            }
            reply = client.secret(line).await?;
        }
        Ok(Some(reply))
    }

    /// Connects, logs in, sends one message, quits. A refused login stands in the place of the reply to MAIL.
    ///
    /// # Errors
    /// The connection failed; a refusal is no error.
    pub async fn send(&self, mail: &Mail) -> Result<Transaction, ClientError> {
        Ok(self.send_noted(mail).await?.0)
    }

    /// The same, with what was said.
    ///
    /// # Errors
    /// As [`ApplicationClient::send`].
    pub async fn send_noted(&self, mail: &Mail) -> Result<(Transaction, Dialogue), ClientError> {
        let mut client = self.connect().await?;
        let dialogue = client.dialogue().clone();
        let answers = match self.log_in(&mut client).await? {
            Some(refusal) if refusal.class() != 2 => {
                Transaction { mail: refusal, recipients: Vec::new(), content: None }
            }
            _ => client.transaction(mail).await?,
        };
        client.quit().await;
        Ok((answers, dialogue))
    }
}
