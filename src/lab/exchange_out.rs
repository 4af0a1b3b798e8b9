//! How does Exchange Online hand mail to a smart host? The simulated outbound side: an outbound connector.
//!
//! One connection carries the mail of several tenants, from one of Exchange's addresses, with the one certificate that all
//! tenants share. The client insists on TLS and on our certificate, pipelines, sends SIZE and BODY, XOORG where it is
//! offered, and chunks. What a message carries is made at the exit ([`super::border::leave`]).

use super::border;
use super::certificates::Issued;
use super::client::{Client, ClientError, Mail, Transaction, tls_for};
use super::organization::Organization;
use super::{LabError, Transfer};
use crate::mail::{Mailbox, ReversePath};
use crate::smtp::encode_xtext;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The block of loopback that plays Exchange Online's published networks.
pub const NETWORK: &str = "127.0.40.0/24";

/// An outbound connector: how to reach the smart host, and as whom.
#[derive(Clone, Debug)]
pub struct ExchangeOut {
    to: SocketAddr,
    source: IpAddr,
    helo: String,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

/// A message on its way through a tenant's outbound connector, stamped as Exchange stamps at the exit.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// What is sent; the content is what the smart host must keep.
    pub mail: Mail,
    /// The value of XOORG where it is offered.
    pub xoorg: Option<String>,
}

impl Outbound {
    /// Sends what a user or system of the tenant wrote over the tenant's outbound connector. `None`: its transport rule
    /// leaves the message alone, since it carries the loop header.
    #[must_use]
    pub fn stamped(organization: &Organization, mail: Mail, network_id: &str) -> Option<Self> {
        let sender: Option<ReversePath> = mail.sender.parse().ok();
        let domain = sender
            .as_ref()
            .and_then(ReversePath::mailbox)
            .map(Mailbox::domain);
        let exit = border::leave(organization, domain, &mail.content, network_id)?;
        let mail = Mail {
            content: exit.content,
            ..mail
        };
        Some(Self {
            mail,
            xoorg: Some(exit.originator_org),
        })
    }

    /// Sends the message as it is: for what a hostile tenant would have to get past Exchange's own stamping.
    #[must_use]
    pub fn bare(mail: Mail) -> Self {
        Self { mail, xoorg: None }
    }

    /// Says another XOORG, or none.
    #[must_use]
    pub fn xoorg(mut self, domain: Option<&str>) -> Self {
        self.xoorg = domain.map(str::to_owned);
        self
    }
}

impl ExchangeOut {
    /// A connector to this smart host, whose certificate must hold by `roots` and carry `name`; `identity` is shown.
    ///
    /// # Errors
    /// The name is none, or the certificate cannot be used.
    pub fn new(
        to: SocketAddr,
        name: &str,
        roots: &RootCertStore,
        identity: Option<&Issued>,
    ) -> Result<Self, LabError> {
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| LabError::Certificate(format!("{name} is no server name")))?;
        Ok(Self {
            to,
            source: IpAddr::V4(Ipv4Addr::new(127, 0, 40, 25)),
            helo: "AM8PR05CU002.outbound.protection.outlook.com".to_owned(),
            server_name,
            tls: tls_for(roots, identity)?,
        })
    }

    /// Comes from this address instead of Exchange's.
    #[must_use]
    pub fn from_address(mut self, source: IpAddr) -> Self {
        self.source = source;
        self
    }

    /// Connects, and goes as far as the second EHLO.
    ///
    /// # Errors
    /// Whatever would make Exchange queue.
    pub async fn connect(&self) -> Result<OutboundConnection, ClientError> {
        let mut client = self.clear().await?;
        client.ehlo(&self.helo).await?;
        let mut client = client
            .starttls(Arc::clone(&self.tls), self.server_name.clone())
            .await?;
        client.ehlo(&self.helo).await?;
        Ok(OutboundConnection { client })
    }

    /// Connects and reads the banner, no more: for rows that go their own way.
    ///
    /// # Errors
    /// Nobody listens, or the banner is a refusal.
    pub async fn clear(&self) -> Result<Client, ClientError> {
        let mut client = Client::connect(self.to, Some(self.source)).await?;
        let banner = client.reply().await?;
        if banner.class() != 2 {
            return Err(ClientError::Unwilling(banner));
        }
        Ok(client)
    }

    /// TLS on a connection of [`ExchangeOut::clear`] on which STARTTLS was accepted.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn encrypt(&self, client: Client) -> Result<Client, ClientError> {
        client
            .tls(Arc::clone(&self.tls), self.server_name.clone())
            .await
    }

    /// Connects, sends one message and quits.
    ///
    /// # Errors
    /// The connection failed; a refusal is no error.
    pub async fn send(&self, outbound: &Outbound) -> Result<Transaction, ClientError> {
        let mut connection = self.connect().await?;
        let answers = connection.send(outbound).await?;
        connection.quit().await;
        Ok(answers)
    }
}

/// A connection from Exchange, ready for MAIL.
#[derive(Debug)]
pub struct OutboundConnection {
    client: Client,
}

impl OutboundConnection {
    /// One transaction, of any tenant.
    ///
    /// # Errors
    /// The connection failed; a refusal is no error.
    pub async fn send(&mut self, outbound: &Outbound) -> Result<Transaction, ClientError> {
        let mail = self.dressed(outbound);
        self.client.transaction(&mail).await
    }

    /// The message with the parameters that Exchange gives where they are offered.
    pub(super) fn dressed(&self, outbound: &Outbound) -> Mail {
        let mut mail = outbound.mail.clone();
        let given = |mail: &Mail, key: &str| {
            mail.parameters
                .iter()
                .any(|parameter| parameter.split('=').next() == Some(key))
        };
        if self.client.offers("SIZE") && !given(&mail, "SIZE") {
            mail.parameters
                .insert(0, format!("SIZE={}", mail.content.len()));
        }
        let eight_bit = mail.content.iter().any(|octet| *octet > 127);
        if self.client.offers("8BITMIME") && !given(&mail, "BODY") {
            mail.parameters.push(format!(
                "BODY={}",
                if eight_bit { "8BITMIME" } else { "7BIT" }
            ));
        }
        if let Some(xoorg) = outbound
            .xoorg
            .as_ref()
            .filter(|_| self.client.offers("XOORG"))
        {
            mail.parameters
                .push(format!("XOORG={}", encode_xtext(xoorg.as_bytes())));
        }
        if !self.client.offers("CHUNKING") && mail.transfer != Transfer::Best {
            mail.transfer = Transfer::Data;
        }
        mail
    }

    /// The client below, for rows that go their own way.
    #[must_use]
    pub fn into_client(self) -> Client {
        self.client
    }

    /// The client below.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What was said.
    #[must_use]
    pub fn dialogue(&self) -> &super::Dialogue {
        self.client.dialogue()
    }

    /// QUIT.
    pub async fn quit(self) {
        self.client.quit().await;
    }
}
