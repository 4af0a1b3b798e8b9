//! A next hop over TLS that answers as its mood and a draw say, and tells the reference what it heard and said.

use super::book::{Book, Door, Said, address_of, own_name};
use super::*;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// How a tenant's Exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Anything may happen to a message, or to one of its recipients.
    Mixed,
    /// What [`Hop::will_say`] was told of each recipient, else all is well.
    Told,
    /// The connector is at fault.
    Faulty,
    Busy,
}

#[derive(Clone)]
pub(super) struct Hop(Arc<Inner>);

struct Inner {
    port: u16,
    /// Whether it reports what was asked of it (RFC 3461): said with each new connection.
    dsn: AtomicBool,
    tls: TlsAcceptor,
    book: Book,
    seed: u64,
    moods: Mutex<[Mood; 3]>,
    told: Mutex<HashMap<String, VecDeque<Said>>>,
    /// How often something was asked: the next time the draw is another.
    asked: Mutex<HashMap<String, u64>>,
    open: AtomicUsize,
    /// Moves on when connections without a message are to be closed.
    closing: watch::Sender<u64>,
}

/// Octets of a connection before and under TLS.
type Lines = BufReader<Box<dyn Both>>;

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A message under way.
#[derive(Default)]
struct Transaction {
    /// Of a message that is no report, from its sender or recipients.
    id: Option<u64>,
    recipients: Vec<String>,
}

impl Hop {
    pub(super) async fn start(issued: &Issued, book: Book, seed: u64) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(issued.chain.clone(), issued.key.clone_key())
            .unwrap();
        let listeners = listeners().await;
        let hop = Self(Arc::new(Inner {
            port: listeners[0].local_addr().unwrap().port(),
            dsn: AtomicBool::new(false),
            tls: TlsAcceptor::from(Arc::new(config)),
            book,
            seed,
            moods: Mutex::new([Mood::Mixed; 3]),
            told: Mutex::default(),
            asked: Mutex::default(),
            open: AtomicUsize::new(0),
            closing: watch::Sender::new(0),
        }));
        for (which, listener) in listeners.into_iter().enumerate() {
            let serving = hop.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let hop = serving.clone();
                    hop.0.open.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(async move {
                        // An error is the end of the connection, from whichever side.
                        let _ended = hop.serve(stream, which).await;
                        hop.0.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        }
        hop
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    pub(super) fn dsn(&self, dsn: bool) {
        self.0.dsn.store(dsn, Ordering::SeqCst);
    }

    pub(super) fn mood(&self, which: usize, mood: Mood) {
        self.0.moods.lock().unwrap()[which] = mood;
    }

    /// What this recipient is answered, time after time, in [`Mood::Told`].
    pub(super) fn will_say(&self, address: &str, said: impl IntoIterator<Item = Said>) {
        let said = said.into_iter().collect();
        self.0.told.lock().unwrap().insert(address.to_owned(), said);
    }

    /// Closes the connections that carry nothing, as time would, and waits until nobody is there.
    pub(super) async fn close_idle(&self) {
        self.0.closing.send_modify(|times| *times += 1);
        let nobody = async {
            while self.0.open.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), nobody).await;
        waited.expect("a connection stays open");
    }

    async fn serve(&self, stream: TcpStream, which: usize) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut lines: Lines = BufReader::new(Box::new(stream));
        let door = self.0.book.door_is(which);
        match door {
            Door::Lost | Door::Busy | Door::NoMail | Door::Clear => self.0.book.knocks(which),
            Door::Open | Door::Refused => {}
        }
        match door {
            Door::Lost => return Ok(()),
            Door::Busy => return say(&mut lines, "421 4.3.2 Service not available").await,
            Door::NoMail => return say(&mut lines, "554 no mail here").await,
            Door::Open | Door::Refused | Door::Clear => say(&mut lines, "220 hop").await?,
        }
        let mut line = String::new();
        loop {
            if read(&mut lines, &mut line).await? == 0 {
                return Ok(());
            }
            match line.split_whitespace().next().unwrap_or_default() {
                "EHLO" if door == Door::Clear => {
                    let reports = self.greets(&mut lines).await?;
                    return self.mail(lines, reports).await;
                }
                "EHLO" => say(&mut lines, "250-hop\r\n250 STARTTLS").await?,
                "STARTTLS" => {
                    say(&mut lines, "220 go ahead").await?;
                    let secure = self.0.tls.accept(lines.into_inner()).await?;
                    return self.mail(BufReader::new(Box::new(secure)), false).await;
                }
                _ => return say(&mut lines, "221 bye").await,
            }
        }
    }

    /// Answers EHLO; whether it offers DSN.
    async fn greets(&self, lines: &mut Lines) -> std::io::Result<bool> {
        let reports = self.0.dsn.load(Ordering::SeqCst);
        let offers = if reports {
            "250-hop\r\n250 DSN"
        } else {
            "250 hop"
        };
        say(lines, offers).await.map(|()| reports)
    }

    async fn mail(&self, mut lines: Lines, mut reports: bool) -> std::io::Result<()> {
        let mut closing = self.0.closing.subscribe();
        let mut line = String::new();
        let (mut begun, mut now) = (0, Transaction::default());
        loop {
            let length = tokio::select! {
                length = read(&mut lines, &mut line) => length?,
                // Only where nothing is on its way, or its sender is gone.
                _ = closing.changed() => {
                    lines.get_mut().shutdown().await?;
                    // Until the other side is gone, too.
                    while read(&mut lines, &mut line).await? > 0 {}
                    return Ok(());
                }
            };
            if length == 0 {
                return Ok(());
            }
            let argument = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            match line.get(..4).unwrap_or_default() {
                "EHLO" => reports = self.greets(&mut lines).await?,
                "MAIL" => {
                    let sender = argument.strip_prefix("s.m");
                    let id = sender.and_then(|rest| rest.split('@').next()?.parse().ok());
                    now = Transaction {
                        id,
                        recipients: Vec::new(),
                    };
                    if let Some(id) = id
                        // Else nobody knows whose connection that was.
                        && self.0.book.has_one_way(id)
                        && self.draw(&argument, 12)
                    {
                        if begun == 0 {
                            self.0.book.breaks_at_mail(id);
                        }
                        return Ok(());
                    }
                    begun += 1;
                    say(&mut lines, "250 sender").await?;
                }
                "RCPT" => {
                    now.id = now.id.or_else(|| address_of(&argument).map(|(id, _)| id));
                    if reports && now.id.is_some() {
                        self.0.book.is_asked(&argument, line.contains(" NOTIFY="));
                    }
                    let (reply, said) = self.recipient(&argument, &now);
                    match said {
                        Some(said) => self.0.book.hears(&argument, said),
                        None => now.recipients.push(argument),
                    }
                    say(&mut lines, reply).await?;
                }
                "DATA" if now.recipients.is_empty() => say(&mut lines, "503 nobody").await?,
                "DATA" => {
                    let done = std::mem::take(&mut now);
                    if !self.content(&mut lines, &done, reports).await? {
                        return Ok(());
                    }
                }
                "RSET" => {
                    now = Transaction::default();
                    say(&mut lines, "250 reset").await?;
                }
                _ => return say(&mut lines, "221 bye").await,
            }
        }
    }

    fn recipient(&self, address: &str, now: &Transaction) -> (&'static str, Option<Said>) {
        let inside = self.mood_of(address);
        if inside == Mood::Faulty {
            // Nobody outside knows our tenants: there it is a refusal as any other.
            let said = if is_internal(address) {
                Said::Fault
            } else {
                Said::Never
            };
            return (FAULT, Some(said));
        }
        let outside = !is_internal(address);
        let said = match inside {
            _ if now.id.is_none() => None,
            Mood::Mixed => match self.number(address, 100) {
                0..6 => Some(Said::Never),
                6..14 => Some(Said::Later),
                14..22 if !outside => Some(Said::Restricted),
                22..24 if !outside => Some(Said::Fault),
                24..32 if !now.recipients.is_empty() => Some(Said::TooMany),
                _ => None,
            },
            Mood::Told => {
                let mut told = self.0.told.lock().unwrap();
                told.get_mut(address).and_then(VecDeque::pop_front)
            }
            Mood::Well | Mood::Faulty | Mood::Busy => None,
        };
        let reply = match said {
            Some(Said::Never) => "550 5.1.10 RESOLVER.ADR.RecipientNotFound",
            Some(Said::Later) => "451 4.7.0 Temporary server error. PRX2",
            Some(Said::Restricted) => "550 5.7.133 SenderNotAuthenticatedForGroup",
            Some(Said::Fault) => FAULT,
            Some(Said::TooMany) => "452 4.5.3 Too many recipients",
            _ => "250 recipient",
        };
        (reply, said)
    }

    /// Takes content, or not; whether the connection goes on.
    async fn content(
        &self,
        lines: &mut Lines,
        now: &Transaction,
        reports: bool,
    ) -> std::io::Result<bool> {
        self.0.book.grants(&now.recipients[0]);
        say(lines, "354 go on").await?;
        let (mut content, mut line) = (String::new(), String::new());
        loop {
            if read(lines, &mut line).await? == 0 {
                return Ok(false);
            }
            if line == ".\r\n" {
                break;
            }
            content.push_str(&line);
        }
        let first = &now.recipients[0];
        let mood = self.mood_of(first);
        let end = match (now.id, mood) {
            (_, Mood::Busy) => 90,
            (Some(_), Mood::Mixed) => self.number(&format!("end of {first}"), 100),
            _ => 50,
        };
        let (said, reply) = match end {
            // The end of content crossed the end of the connection.
            0..5 => (Said::Broke, None),
            5..10 => (Said::Unsaid, None),
            10..14 => (Said::Later, Some("451 4.7.0 Temporary server error. PRX2")),
            14..16 => (
                Said::Never,
                Some("550 5.1.10 RESOLVER.ADR.RecipientNotFound"),
            ),
            90 if is_internal(first) => (Said::Busy, Some("451 4.7.500 Server busy")),
            _ => (Said::Taken, Some("250 2.6.0 taken")),
        };
        for address in &now.recipients {
            let who = match now.id {
                Some(id) => {
                    let mark = format!("X-Id: {id}\r\n");
                    assert!(content.contains(&mark), "the content of another message");
                    address_of(address)
                        .filter(|(other, _)| *other == id)
                        .unwrap()
                }
                None => (own_id(&content), 0),
            };
            // Several reports may go to one address.
            let own = own_name(who.0);
            let address = if now.id.is_none() { &own } else { address };
            match said {
                Said::Taken | Said::Unsaid => self.0.book.takes(who, address, said, reports),
                _ => self.0.book.hears(address, said),
            }
        }
        match reply {
            Some(reply) => say(lines, reply).await.map(|()| true),
            None => Ok(false),
        }
    }

    fn mood_of(&self, address: &str) -> Mood {
        let which = match address.split('@').nth(1).unwrap() {
            "contoso.com" => 0,
            "fabrikam-ag.com" => 1,
            _ => 2,
        };
        self.0.moods.lock().unwrap()[which]
    }

    fn number(&self, what: &str, below: u64) -> u64 {
        let mut asked = self.0.asked.lock().unwrap();
        let times = asked.entry(what.to_owned()).or_default();
        *times += 1;
        let mut hasher = DefaultHasher::new();
        (self.0.seed, what, *times).hash(&mut hasher);
        hasher.finish() % below
    }

    fn draw(&self, what: &str, one_in: u64) -> bool {
        let mixed = self.mood_of(what) == Mood::Mixed;
        mixed && self.number(&format!("close at {what}"), one_in) == 0
    }
}

/// One address for each next hop, and one port for all.
async fn listeners() -> Vec<TcpListener> {
    for _ in 0..50 {
        let mut all = vec![TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let port = all[0].local_addr().unwrap().port();
        for last in 2..=5 {
            let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
            all.extend(TcpListener::bind(address).await);
        }
        if all.len() == 5 {
            return all;
        }
    }
    panic!("no port is free on five addresses");
}

/// The names of the next hops, which know whether somebody listens.
#[derive(Debug)]
pub(super) struct Names(pub(super) Book);

impl Names {
    fn look(&self, name: &str) -> Vec<IpAddr> {
        let known = [
            "contoso.in",
            "fabrikam-ag.in",
            "a.example",
            "b.example",
            "partner.in",
        ];
        let which = known.iter().position(|known| *known == name).unwrap();
        let last = if self.0.door_is(which) == Door::Refused {
            self.0.knocks(which);
            99
        } else {
            u8::try_from(which).unwrap() + 1
        };
        vec![Ipv4Addr::new(127, 0, 0, last).into()]
    }
}

impl crate::dns::Resolve for Names {
    fn addresses<'a>(&'a self, host: &'a str) -> crate::dns::Answer<'a, Vec<IpAddr>> {
        Box::pin(std::future::ready(Ok(self.look(host))))
    }

    fn mail_exchangers<'a>(
        &'a self,
        _: &'a str,
    ) -> crate::dns::Answer<'a, Vec<crate::dns::MxRecord>> {
        Box::pin(std::future::ready(Err(crate::dns::DnsError::NotFound)))
    }

    fn host_records<'a>(&'a self, host: &'a str) -> crate::dns::Answer<'a, Vec<IpAddr>> {
        self.addresses(host)
    }

    fn texts<'a>(&'a self, _: &'a str) -> crate::dns::Answer<'a, Vec<Vec<u8>>> {
        Box::pin(std::future::ready(Err(crate::dns::DnsError::NotFound)))
    }
}

const FAULT: &str = "550 5.7.64 TenantAttribution; Relay Access Denied";

fn is_internal(address: &str) -> bool {
    address.ends_with("@contoso.com") || address.ends_with("@fabrikam-ag.com")
}

/// A report's id, which its Message-ID names.
fn own_id(content: &str) -> u64 {
    let id = content.split("Message-ID: <").nth(1).unwrap();
    let id: QueueId = id.split('@').next().unwrap().parse().unwrap();
    id.as_u64()
}

async fn read(lines: &mut Lines, line: &mut String) -> std::io::Result<usize> {
    line.clear();
    lines.read_line(line).await
}

async fn say(lines: &mut Lines, reply: &str) -> std::io::Result<()> {
    let whole = format!("{reply}\r\n");
    lines.get_mut().write_all(whole.as_bytes()).await?;
    lines.get_mut().flush().await
}
