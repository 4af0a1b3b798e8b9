//! A smart host of a few lines that plays the samples right, and wrong on demand: it proves the judge, not the product.
//!
//! It knows the cast and keeps nothing: a message is delivered before it is answered.

use super::super::certificates::{Authority, EXCHANGE_NAME, Issued, Leaf};
use super::super::fields::Section;
use super::super::samples::leaks;
use super::super::samples::tests::cast;
use super::super::scene::{Cast, Scene, Wardrobe};
use super::super::wire::{Stream, TlsSeen, Wire, server_config};
use super::super::{
    Client, ExchangeIn, ExchangeOptions, ExchangeOut, Mail, Organization, Outside, OutsideOptions,
    x509,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// What the double does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    KeepsSecret,
    ForgetsStamp,
    StampsEveryone,
    KeepsForgeries,
    OneCertificateForAll,
    OneConnectionForAll,
    TrustsAnyTenant,
    TrustsAnyPeer,
    ReadsBareLineFeeds,
    AnswersInjection,
    DeliversTwice,
    DeliversWhatItRefuses,
    TrimsBody,
    LeaksOutside,
    KeepsOutsideMailInside,
}

struct Host {
    cast: Cast,
    flaw: Flaw,
    exchange: SocketAddr,
    outside: SocketAddr,
    roots: RootCertStore,
    tenants: Vec<Issued>,
    tls: Arc<ServerConfig>,
    shared: tokio::sync::Mutex<Option<Client>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connector,
    Applications,
    Devices,
}

/// A scene with the double in the place of the smart host.
pub(super) async fn scene(flaw: Flaw) -> Scene {
    let authority = Authority::new("Lab").unwrap();
    let mut cast = cast();
    let exchange =
        ExchangeIn::start(ExchangeOptions::new(&authority, cast.organizations.clone()).unwrap());
    let exchange = Arc::new(exchange.await.unwrap());
    let outside = Arc::new(Outside::start(OutsideOptions::default()).await.unwrap());
    let server = authority.issue(&Leaf::named("localhost")).unwrap();
    let issue = |organization: &Organization| {
        authority
            .issue(&Leaf::named(organization.domain()))
            .unwrap()
    };
    let mut addresses = Vec::new();
    let mut listeners = Vec::new();
    for kind in [Kind::Connector, Kind::Applications, Kind::Devices] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        listeners.push((kind, listener));
    }
    for actor in &mut cast.actors {
        actor.door.address = if actor.login.is_some() {
            addresses[1]
        } else {
            addresses[2]
        };
    }
    let host = Arc::new(Host {
        flaw,
        exchange: exchange.address(),
        outside: outside.address(),
        roots: authority.roots().unwrap(),
        tenants: cast.organizations.iter().map(issue).collect(),
        tls: server_config(&server).unwrap(),
        shared: tokio::sync::Mutex::new(None),
        cast: cast.clone(),
    });
    for (kind, listener) in listeners {
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let wire = Wire::server(Stream::Clear(tcp), Duration::from_secs(10));
                tokio::spawn(serve(Arc::clone(&host), kind, wire, peer));
            }
        });
    }
    Scene {
        cast,
        connector: Some(addresses[0]),
        server_name: "localhost".to_owned(),
        roots: authority.roots().unwrap(),
        wardrobe: Wardrobe::new(&authority).unwrap(),
        exchange,
        outside,
    }
}

#[derive(Default)]
struct State {
    tls: Option<TlsSeen>,
    login: Option<String>,
    sender: Option<String>,
    xoorg: Option<String>,
    parameters: Vec<String>,
    recipients: Vec<String>,
    content: Vec<u8>,
}

async fn serve(host: Arc<Host>, kind: Kind, mut wire: Wire, peer: SocketAddr) {
    let mut state = State::default();
    wire.say("220 smarthost.contoso.com\r\n").await.unwrap();
    while let Ok(Some(line)) = wire.line().await {
        let line = String::from_utf8(line).unwrap().trim_end().to_owned();
        let verb = line.split(' ').next().unwrap().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => {
                let last = match (&state.tls, kind) {
                    (None, _) => "STARTTLS",
                    (Some(_), Kind::Connector) => "XOORG",
                    (Some(_), _) => "AUTH PLAIN LOGIN",
                };
                format!(
                    "250-smarthost.contoso.com\r\n250-SIZE 100\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 {last}"
                )
            }
            "STARTTLS" => {
                wire.say("220 2.0.0 go\r\n").await.unwrap();
                let injected = wire.unread() > 0;
                let Ok((encrypted, seen)) = wire.accept_tls(Arc::clone(&host.tls)).await else {
                    return;
                };
                wire = encrypted;
                state = State {
                    tls: Some(seen),
                    ..State::default()
                };
                if injected && host.flaw == Flaw::AnswersInjection {
                    wire.say("250 2.0.0 OK\r\n").await.unwrap();
                }
                continue;
            }
            "AUTH" => authenticate(&mut wire, &mut state, &line).await,
            "MAIL" => host.mail(&mut state, kind, peer, &line),
            "RCPT" => match state.sender {
                Some(_) => {
                    let given = line.strip_prefix("RCPT TO:<").unwrap();
                    let (address, parameters) = given.split_once('>').unwrap();
                    let spaced = if parameters.is_empty() {
                        String::new()
                    } else {
                        format!(">{parameters}")
                    };
                    state.recipients.push(format!("{address}{spaced}"));
                    "250 2.1.5 ok".to_owned()
                }
                None => "503 5.5.1 no".to_owned(),
            },
            "BDAT" => {
                let count = line.split(' ').nth(1).unwrap().parse().unwrap();
                let octets = wire.exactly(count).await.unwrap();
                state.content.extend(octets);
                if line.ends_with("LAST") {
                    host.finish(&mut state, kind, true).await
                } else {
                    "250 2.0.0 more".to_owned()
                }
            }
            "DATA" => {
                wire.say("354 go\r\n").await.unwrap();
                let dotted = if host.flaw == Flaw::ReadsBareLineFeeds {
                    read_badly(&mut wire).await
                } else {
                    wire.dotted(10_000_000).await.unwrap().unwrap()
                };
                state.content = dotted;
                host.finish(&mut state, kind, false).await
            }
            "QUIT" => {
                wire.say("221 2.0.0 bye\r\n").await.unwrap();
                return;
            }
            _ => {
                state = State {
                    tls: state.tls,
                    login: state.login,
                    ..State::default()
                };
                "250 2.0.0 ok".to_owned()
            }
        };
        if wire.say(&format!("{answer}\r\n")).await.is_err() {
            return;
        }
    }
}

/// A line with nothing but a dot ends it, whatever ended the line before.
async fn read_badly(wire: &mut Wire) -> Vec<u8> {
    let mut content = Vec::new();
    while let Ok(Some(line)) = wire.line().await {
        if line.trim_ascii_end() == b"." {
            break;
        }
        content.extend(line.trim_ascii_end());
        content.extend(b"\r\n");
    }
    content
}

async fn authenticate(wire: &mut Wire, state: &mut State, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let plain = words[1].eq_ignore_ascii_case("PLAIN");
    let mut given: Vec<String> = words[2..].iter().map(|word| (*word).to_owned()).collect();
    while given.len() < if plain { 1 } else { 2 } {
        wire.say("334 \r\n").await.unwrap();
        given.push(
            String::from_utf8(wire.line().await.unwrap().unwrap())
                .unwrap()
                .trim()
                .to_owned(),
        );
    }
    let text: Vec<String> = given
        .iter()
        .map(|word| String::from_utf8(STANDARD.decode(word).unwrap()).unwrap())
        .collect();
    let (name, password) = if plain {
        let mut parts = text[0].split('\0').skip(1);
        (
            parts.next().unwrap().to_owned(),
            parts.next().unwrap().to_owned(),
        )
    } else {
        (text[0].clone(), text[1].clone())
    };
    if password == "password" {
        state.login = Some(name);
        "235 2.7.0 ok".to_owned()
    } else {
        "535 5.7.8 no".to_owned()
    }
}

impl Host {
    fn mail(&self, state: &mut State, kind: Kind, peer: SocketAddr, line: &str) -> String {
        let (sender, parameters) = line
            .strip_prefix("MAIL FROM:<")
            .unwrap()
            .split_once('>')
            .unwrap();
        let xoorg = parameters
            .split(' ')
            .find_map(|word| word.strip_prefix("XOORG="));
        let refusal = match kind {
            Kind::Connector => self.connector_refusal(state, peer, xoorg),
            Kind::Applications if state.login.is_none() => Some("530 5.7.0 log in"),
            Kind::Applications | Kind::Devices => {
                let own = |actor: &&super::super::scene::Actor| actor.sender == sender;
                (!self.cast.actors.iter().any(|actor| own(&actor))).then_some("550 5.7.1 not yours")
            }
        };
        if let Some(refusal) = refusal {
            return refusal.to_owned();
        }
        state.sender = Some(sender.to_owned());
        state.xoorg = xoorg.map(str::to_owned);
        let handed_on = |word: &&str| word.starts_with("RET=") || word.starts_with("ENVID=");
        state.parameters = parameters
            .split(' ')
            .filter(handed_on)
            .map(str::to_owned)
            .collect();
        "250 2.1.0 ok".to_owned()
    }

    fn connector_refusal(
        &self,
        state: &State,
        peer: SocketAddr,
        xoorg: Option<&str>,
    ) -> Option<&'static str> {
        let Some(tls) = &state.tls else {
            return Some("530 5.7.0 STARTTLS first");
        };
        let network = peer.ip().to_string().starts_with("127.0.40.");
        let certificate = x509::chain_holds(&tls.chain, &self.roots).is_ok()
            && tls.names.all().iter().any(|name| name == EXCHANGE_NAME);
        let known = |org: &str| {
            self.cast
                .organizations
                .iter()
                .any(|one| one.domain() == org)
        };
        match (network, certificate) {
            _ if self.flaw == Flaw::TrustsAnyPeer => None,
            (true, true) if self.flaw == Flaw::TrustsAnyTenant => None,
            (true, true) => xoorg
                .is_some_and(|org| !known(org))
                .then_some("550 5.7.64 nobody"),
            (false, false) => Some("550 5.7.1 stranger"),
            _ => Some("451 4.7.1 half"),
        }
    }

    async fn finish(&self, state: &mut State, kind: Kind, chunked: bool) -> String {
        let fresh = State {
            tls: state.tls.take(),
            login: state.login.take(),
            ..State::default()
        };
        let State {
            sender,
            xoorg,
            parameters,
            recipients,
            content,
            ..
        } = std::mem::replace(state, fresh);
        let mut mail = Mail {
            sender: sender.unwrap(),
            recipients,
            parameters,
            content,
            ..Mail::default()
        };
        let verdict = match kind {
            Kind::Connector => self.judge_connector(&mut mail, xoorg.as_deref(), chunked),
            Kind::Applications | Kind::Devices => self.judge_application(&mut mail, kind),
        };
        match verdict {
            Ok(tenant) => {
                self.deliver(tenant, &mail).await;
                if self.flaw == Flaw::DeliversTwice {
                    self.deliver(tenant, &mail).await;
                }
                "250 2.0.0 Ok: queued as X".to_owned()
            }
            Err(refusal) => {
                if self.flaw == Flaw::DeliversWhatItRefuses {
                    self.deliver(0, &mail).await;
                }
                refusal.to_owned()
            }
        }
    }

    fn judge_connector(
        &self,
        mail: &mut Mail,
        xoorg: Option<&str>,
        chunked: bool,
    ) -> Result<usize, &'static str> {
        let section = Section::of(&mail.content);
        let header = mail.content.len() - section.rest().len();
        if has_bare(&mail.content[..header]) {
            return Err("554 5.6.0 bare newline");
        }
        let orgs: Vec<String> = section
            .named("X-OriginatorOrg")
            .map(|field| section.value(field))
            .collect();
        let found = |org: &str| {
            self.cast
                .organizations
                .iter()
                .position(|one| one.domain() == org)
        };
        let tenant = match orgs.as_slice() {
            _ if matches!(self.flaw, Flaw::TrustsAnyTenant | Flaw::TrustsAnyPeer) => 0,
            [] => return Err("550 5.7.64 nobody"),
            [org] => found(org).ok_or("550 5.7.64 nobody")?,
            _ => return Err("550 5.7.1 twice"),
        };
        let organization = &self.cast.organizations[tenant];
        let own_domain = mail.sender.is_empty()
            || mail
                .sender
                .ends_with(&format!("@{}", organization.domain()));
        if self.flaw != Flaw::TrustsAnyTenant
            && (!own_domain || xoorg.is_some_and(|org| found(org) != Some(tenant)))
        {
            return Err("550 5.7.1 foreign");
        }
        let (secret, gate) = organization.secret_header.as_ref().unwrap();
        let (name, round) = organization.loop_header.as_ref().unwrap();
        let right = section
            .named(secret)
            .all(|field| gate.matches(section.value(field).as_bytes()));
        if !right && self.flaw != Flaw::TrustsAnyTenant {
            return Err("550 5.7.1 secret");
        }
        if section.named(name).next().is_some() {
            return Err("554 5.4.6 loop");
        }
        if !chunked && has_bare(&mail.content) {
            return Err("554 5.6.0 bare newline");
        }
        let keeps = self.flaw == Flaw::KeepsSecret;
        let mut content =
            section.rewrite(|field, bytes| (keeps || !field.is(secret)).then(|| bytes.to_vec()));
        if self.flaw == Flaw::TrimsBody {
            content = content.trim_ascii_end().to_vec();
        }
        mail.content = [
            format!("{RECEIVED}{name}: {}\r\n", round.expose_str()).as_bytes(),
            &content,
        ]
        .concat();
        Ok(tenant)
    }

    fn judge_application(&self, mail: &mut Mail, kind: Kind) -> Result<usize, &'static str> {
        let actor = self
            .cast
            .actors
            .iter()
            .find(|actor| actor.sender == mail.sender)
            .unwrap();
        let organization = &self.cast.organizations[actor.tenant];
        if kind == Kind::Devices {
            mail.content = String::from_utf8_lossy(&mail.content)
                .replace("\r\n", "\n")
                .replace('\n', "\r\n")
                .into_bytes();
        } else if has_bare(&mail.content) {
            return Err("554 5.6.0 bare newline");
        }
        let section = Section::of(&mail.content);
        if !section.first("From").unwrap().contains(&actor.sender) {
            return Err("550 5.7.1 From");
        }
        let own = [&organization.secret_header, &organization.loop_header];
        let protected = |field: &super::super::fields::Field| {
            [
                "X-MS-Exchange-",
                "X-Organization",
                "X-CrossPremises",
                "X-Forefront-",
                "X-Originator",
                "Bcc",
                "Return-Path",
            ]
            .iter()
            .any(|prefix| field.begins(prefix))
                || own
                    .iter()
                    .any(|header| header.as_ref().is_some_and(|(name, _)| field.is(name)))
        };
        let keeps = self.flaw == Flaw::KeepsForgeries;
        let content =
            section.rewrite(|field, bytes| (keeps || !protected(field)).then(|| bytes.to_vec()));
        let (name, round) = organization.loop_header.as_ref().unwrap();
        let mut top = format!("{RECEIVED}{name}: {}\r\n", round.expose_str());
        if (actor.internal && self.flaw != Flaw::ForgetsStamp) || self.flaw == Flaw::StampsEveryone
        {
            let domain = organization.domain();
            top += &format!(
                "X-MS-Exchange-CrossPremises-AuthAs: Internal\r\nX-MS-Exchange-CrossPremises-AuthMechanism: 10\r\n\
                 X-MS-Exchange-CrossPremises-AuthSource: smarthost.contoso.com\r\nX-OriginatorOrg: {domain}\r\n"
            );
            mail.parameters.push(format!("XOORG={domain}"));
        }
        if section.first("Date").is_none() {
            top += "Date: today\r\nMessage-ID: <x@y>\r\n";
        }
        mail.content = [top.as_bytes(), &content].concat();
        Ok(actor.tenant)
    }

    async fn deliver(&self, tenant: usize, mail: &Mail) {
        let abroad = mail.recipients.first() == self.cast.outside.as_ref();
        if abroad && self.flaw != Flaw::KeepsOutsideMailInside {
            return self.deliver_outside(tenant, mail).await;
        }
        let tenant = if self.flaw == Flaw::OneCertificateForAll {
            0
        } else {
            tenant
        };
        let to = ExchangeOut::new(
            self.exchange,
            EXCHANGE_NAME,
            &self.roots,
            Some(&self.tenants[tenant]),
        )
        .unwrap();
        let mut shared = self.shared.lock().await;
        let mut client = match shared.take() {
            Some(client) => client,
            None => to.connect().await.unwrap().into_client(),
        };
        let answers = client.transaction(mail).await.unwrap();
        drop(answers);
        if self.flaw == Flaw::OneConnectionForAll {
            *shared = Some(client);
        } else {
            client.quit().await;
        }
    }
}

impl Host {
    async fn deliver_outside(&self, tenant: usize, mail: &Mail) {
        let mut mail = mail.clone();
        let leaked = leaks(&mail.content, &self.cast.organizations[tenant]);
        let section = Section::of(&mail.content);
        let keeps = self.flaw == Flaw::LeaksOutside;
        let content = section.rewrite(|field, bytes| {
            (keeps || !leaked.contains(&field.name)).then(|| bytes.to_vec())
        });
        mail.content = content;
        let mut client = Client::connect(self.outside, None).await.unwrap();
        client.reply().await.unwrap();
        client.ehlo("smarthost.contoso.com").await.unwrap();
        let answers = client.transaction(&mail).await.unwrap();
        assert!(answers.accepted(), "{:?}", client.dialogue().lines());
        client.quit().await;
    }
}

const RECEIVED: &str = "Received: from x by smarthost.contoso.com; now\r\n";

fn has_bare(content: &[u8]) -> bool {
    let text: Vec<u8> = content.to_vec();
    let without = String::from_utf8_lossy(&text).replace("\r\n", "");
    without.contains(['\r', '\n'])
}
