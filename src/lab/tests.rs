//! The lab against itself: both directions of the simulated Exchange, with a relay of a few lines between.

use super::certificates::{Authority, EXCHANGE_NAME, Issued, Leaf};
use super::*;
use crate::mail::Secret;
use rustls::RootCertStore;
use std::net::SocketAddr;

const MESSAGE: &[u8] = b"From: ada@contoso.com\r\nTo: bob@contoso.com\r\nMessage-ID: <1@contoso.com>\r\n\
    X-MS-Exchange-Organization-AuthAs: Internal\r\nX-MS-Exchange-Organization-AuthSource: host\r\n\
    X-MS-Exchange-Organization-AuthMechanism: 04\r\nX-Empty:\r\n\r\nFirst\r\n.\r\n..two\r\nbare \n lf and \0 nul, no end";

struct Stage {
    authority: Authority,
    exchange: ExchangeIn,
}

fn contoso() -> Organization {
    let id = "3f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c10".parse().unwrap();
    Organization::new("contoso", id, "contoso.com".parse().unwrap())
}

fn fabrikam() -> Organization {
    let id = "b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25".parse().unwrap();
    Organization::new("fabrikam", id, "fabrikam.com".parse().unwrap())
}

impl Stage {
    async fn with(change: impl FnOnce(ExchangeOptions) -> ExchangeOptions) -> Self {
        let authority = Authority::new("Lab").unwrap();
        let options = ExchangeOptions::new(&authority, vec![contoso(), fabrikam()]).unwrap();
        let exchange = ExchangeIn::start(change(options)).await.unwrap();
        Self { authority, exchange }
    }

    async fn new() -> Self {
        Self::with(|options| options).await
    }

    fn roots(&self) -> RootCertStore {
        self.authority.roots().unwrap()
    }

    fn certificate(&self, name: &str) -> Issued {
        self.authority.issue(&Leaf::named(name)).unwrap()
    }

    async fn deliver_as(&self, identity: Option<&Issued>) -> Client {
        let to = ExchangeOut::new(self.exchange.address(), EXCHANGE_NAME, &self.roots(), identity).unwrap();
        let client = to.clear().await.unwrap();
        let mut client = client;
        client.ehlo("smarthost.contoso.com").await.unwrap();
        assert!(client.offers("STARTTLS") && !client.offers("XOORG"));
        assert_eq!(client.command("STARTTLS").await.unwrap().code, 220);
        let mut client = to.encrypt(client).await.unwrap();
        client.ehlo("smarthost.contoso.com").await.unwrap();
        client
    }
}

#[tokio::test]
async fn mail_leaves_exchange_comes_back_and_is_internal_byte_for_byte() {
    // A second simulated Exchange plays the smart host: it takes mail from anyone whose certificate is Exchange's.
    let stage = Stage::new().await;
    let mut host = contoso();
    host.inbound.as_mut().unwrap().tls_sender_certificate_name = EXCHANGE_NAME.to_owned();
    let relay = ExchangeIn::start(ExchangeOptions::new(&stage.authority, vec![host]).unwrap()).await.unwrap();

    let mut tenant = contoso();
    tenant.secret_header = Some(("X-Gate".to_owned(), Secret::new("open sesame")));
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com> NOTIFY=FAILURE ORCPT=rfc822;bob@contoso.com", MESSAGE)
        .by(Transfer::Chunks(100));
    let outbound = Outbound::stamped(&tenant, mail, "f3c95789-ace1-4954-9c5d-6baed2eac902").unwrap();
    let exchange = stage.authority.issue(&Leaf::exchange()).unwrap();
    let connector = ExchangeOut::new(relay.address(), EXCHANGE_NAME, &stage.roots(), Some(&exchange)).unwrap();
    let answers = connector.send(&outbound).await.unwrap();
    assert!(answers.accepted(), "{answers:?}");
    let passed = relay.received().await.unwrap();
    assert_eq!(passed.peer.ip().to_string(), "127.0.40.25");
    assert_eq!(passed.content, outbound.mail.content);
    assert_eq!(passed.header("X-Gate").as_deref(), Some("open sesame"));
    assert_eq!(passed.parameter("XOORG"), Some("contoso.com"));
    assert_eq!(passed.parameter("SIZE"), Some(outbound.mail.content.len().to_string().as_str()));
    assert_eq!(passed.recipients[0].parameters, ["NOTIFY=FAILURE", "ORCPT=rfc822;bob@contoso.com"]);
    assert!(matches!(passed.transfer, Transfer::Chunks(chunks) if chunks > 5));

    let mut client = stage.deliver_as(Some(&stage.certificate("contoso.com"))).await;
    assert!(client.offers("XOORG") && !client.offers("STARTTLS"));
    let back = Mail::new("ada@contoso.com", "bob@contoso.com", passed.content.clone());
    let answers = client.transaction(&back).await.unwrap();
    assert!(answers.deciding().summary().contains("Queued mail for delivery"), "{answers:?}");
    let received = stage.exchange.received().await.unwrap();
    assert!(received.is_internal(), "{}", received.entry.because);
    assert_eq!(received.tenant(), "contoso");
    assert_eq!(received.content, outbound.mail.content);
    assert_eq!(received.mailbox_header("X-MS-Exchange-Organization-AuthAs").as_deref(), Some("Internal"));
    assert_eq!(received.mailbox_header("X-OriginatorOrg"), None);
}

#[tokio::test]
async fn unproven_peers_cannot_relay_and_are_never_internal() {
    let stage = Stage::new().await;
    let outside = Mail::new("ada@contoso.com", "x@elsewhere.example", MESSAGE).by(Transfer::Chunks(9));
    let inside = Mail::new("ada@contoso.com", "bob@contoso.com", MESSAGE);
    let stranger = Authority::new("Lab").unwrap().issue(&Leaf::named("contoso.com")).unwrap();
    let incomplete = stage.certificate("contoso.com").without_intermediate();
    let expired = stage.authority.issue(&Leaf::named("contoso.com").expired()).unwrap();
    for identity in [None, Some(&stranger), Some(&incomplete), Some(&expired)] {
        let mut client = stage.deliver_as(identity).await;
        let answers = client.transaction(&outside).await.unwrap();
        assert_eq!(answers.deciding().enhanced, Some((5, 7, 64)), "{identity:?}");
        assert!(client.transaction(&inside).await.unwrap().accepted());
        let received = stage.exchange.received().await.unwrap();
        assert!(!received.is_internal());
        assert_eq!(received.mailbox_header("X-MS-Exchange-Organization-AuthAs").as_deref(), Some("Anonymous"));
    }
    assert_eq!(stage.exchange.refused().len(), 4);
}

#[tokio::test]
async fn the_script_answers_on_demand() {
    let stage = Stage::new().await;
    let identity = stage.certificate("contoso.com");
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com", MESSAGE).and_to("eve@contoso.com");
    let mut client = stage.deliver_as(Some(&identity)).await;

    stage.exchange.script(Step::reply(Phase::Rcpt, "550 5.1.10 gone").for_recipient("eve@contoso.com"));
    stage.exchange.script(Step::reply(Phase::EndOfData, vocabulary("wrong-region").unwrap()).after(1));
    let answers = client.transaction(&mail).await.unwrap();
    assert_eq!((answers.refused_at(), answers.content.as_ref().map(|reply| reply.code)), (Some("RCPT"), Some(250)));
    assert_eq!(stage.exchange.received().await.unwrap().addresses(), ["bob@contoso.com"]);
    let answers = client.transaction(&mail).await.unwrap();
    assert_eq!(answers.deciding().enhanced, Some((4, 4, 62)));
    assert_eq!(stage.exchange.taken(), 1);

    stage.exchange.script(Step::reply(Phase::Data, "452 4.3.1 Insufficient system resources"));
    assert_eq!(client.transaction(&mail).await.unwrap().deciding().code, 452);

    stage.exchange.script(Step::new(Phase::EndOfData, Action::Drop));
    assert!(matches!(client.transaction(&mail).await, Err(ClientError::Closed | ClientError::Io(_))));
    assert_eq!(stage.exchange.taken(), 1);

    stage.exchange.close_after(2);
    let mut client = stage.deliver_as(Some(&identity)).await;
    assert!(client.transaction(&mail).await.unwrap().accepted());
    assert!(client.transaction(&mail).await.unwrap().accepted());
    assert!(client.command("NOOP").await.is_err());
    let (first, second) = (stage.exchange.received().await.unwrap(), stage.exchange.received().await.unwrap());
    assert_eq!((first.connection, first.position), (second.connection, second.position - 1));

    stage.exchange.script(Step::new(Phase::Connect, Action::ReplyAndClose("421 4.3.2 Service not active".to_owned())));
    let plain = ExchangeOut::new(stage.exchange.address(), EXCHANGE_NAME, &stage.roots(), None).unwrap();
    assert!(matches!(plain.clear().await, Err(ClientError::Unwilling(reply)) if reply.code == 421));
}

#[tokio::test]
async fn data_keeps_bytes_and_refuses_bare_newlines() {
    let stage = Stage::with(|options| options.hide("CHUNKING")).await;
    let mut client = stage.deliver_as(Some(&stage.certificate("contoso.com"))).await;
    assert!(!client.offers("CHUNKING"));
    let content = b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n";
    let mail = Mail::new("", "bob@contoso.com", content.as_slice());
    assert!(client.transaction(&mail).await.unwrap().accepted());
    let received = stage.exchange.received().await.unwrap();
    assert_eq!((received.content.as_slice(), received.sender.as_str()), (content.as_slice(), ""));
    let bare = Mail::new("", "bob@contoso.com", b"Subject: x\r\n\r\na\n.\nb\r\n".as_slice());
    assert_eq!(client.transaction(&bare).await.unwrap().deciding().enhanced, Some((5, 6, 11)));
    // The first message's end was CRLF.CRLF, the second's too: nothing else was taken for one.
    assert_eq!(stage.exchange.taken(), 1);
}

#[tokio::test]
async fn large_content_passes_and_too_large_is_refused() {
    let stage = Stage::new().await;
    let mut client = stage.deliver_as(Some(&stage.certificate("fabrikam.com"))).await;
    let mut content = b"Subject: big\r\n\r\n".to_vec();
    content.resize(5_000_000, b'.');
    let mail = Mail::new("a@fabrikam.com", "b@fabrikam.com", content.clone());
    assert!(client.transaction(&mail).await.unwrap().accepted());
    let mail = mail.by(Transfer::Data);
    assert!(client.transaction(&mail).await.unwrap().accepted());
    assert_eq!(stage.exchange.received().await.unwrap().content, content);
    content.extend(b"\r\n");
    assert_eq!(stage.exchange.received().await.unwrap().content, content);
    let announced = Mail::new("a@fabrikam.com", "b@fabrikam.com", MESSAGE).parameter("SIZE=157286401");
    assert_eq!(client.transaction(&announced).await.unwrap().deciding().enhanced, Some((5, 3, 4)));
}

#[tokio::test]
async fn a_certificate_may_lapse_and_come_back() {
    let stage = Stage::new().await;
    let expired = stage.authority.issue(&Leaf::exchange().expired()).unwrap();
    stage.exchange.show_certificate(&expired).unwrap();
    let to = |address: SocketAddr| ExchangeOut::new(address, EXCHANGE_NAME, &stage.roots(), None).unwrap();
    assert!(matches!(to(stage.exchange.address()).connect().await, Err(ClientError::Tls(_))));
    stage.exchange.show_certificate(&stage.authority.issue(&Leaf::exchange()).unwrap()).unwrap();
    assert!(to(stage.exchange.address()).connect().await.is_ok());
}

#[tokio::test]
async fn messages_are_watched_as_they_come() {
    let stage = Stage::new().await;
    let mut watch = stage.exchange.watch();
    let mut client = stage.deliver_as(None).await;
    assert!(client.transaction(&Mail::new("x@y.example", "bob@contoso.com", MESSAGE)).await.unwrap().accepted());
    assert_eq!(watch.recv().await.unwrap().sender, "x@y.example");
    let dialogue = stage.exchange.received().await.unwrap().dialogue.lines().join("\n");
    assert!(dialogue.contains("C: RCPT TO:<bob@contoso.com>") && dialogue.contains("S: 250 2.1.5"), "{dialogue}");
}
