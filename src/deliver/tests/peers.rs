//! One connection and the peer at its other end: deadlines, writes, answers that come early.

use super::*;

/// What a peer in memory does once it has accepted the recipient.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Stall,
    Take,
}

/// A peer in memory with STARTTLS, PIPELINING and CHUNKING, for one message to one recipient.
async fn peer<T>(transport: T, config: rustls::ServerConfig, then: Then)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut plain = BufReader::new(transport);
    let mut line = String::new();
    plain.write_all(b"220 ready\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"250-x\r\n250 STARTTLS\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"220 go\r\n").await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    // A handshake that this side refuses ends with its alert.
    let Ok(secure) = acceptor.accept(plain.into_inner()).await else {
        return;
    };
    let mut secure = BufReader::new(secure);
    let mut say = async |line: &mut String, lines: usize, reply: &[u8]| {
        for _ in 0..lines {
            line.clear();
            secure.read_line(line).await.unwrap();
        }
        if let Some(size) = line.strip_prefix("BDAT ") {
            let size: usize = size.split(' ').next().unwrap().parse().unwrap();
            secure.read_exact(&mut vec![0; size]).await.unwrap();
        }
        secure.write_all(reply).await.unwrap();
        secure.flush().await.unwrap();
    };
    say(&mut line, 1, b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n").await;
    say(&mut line, 2, b"250 ok\r\n250 ok\r\n").await;
    if then == Then::Take {
        say(&mut line, 1, b"250 2.6.0 Queued\r\n").await;
    }
    std::future::pending::<()>().await;
}

fn server(authority: &Authority, clients: Option<&Authority>) -> rustls::ServerConfig {
    let issued = authority.issue(&Leaf::exchange()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        Some(clients) => {
            let roots = Arc::new(clients.roots().unwrap());
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => config.with_no_client_auth(),
    };
    config.with_single_cert(issued.chain, issued.key).unwrap()
}

fn client(authority: &Authority) -> Client {
    let settings = settings(authority, 25, |leaf| leaf);
    Client::new(
        &settings.connectors[0],
        &DomainSet::default(),
        &settings.server_trust,
    )
    .unwrap()
}

fn in_hand(content: &[u8]) -> (Fake, FakeWork) {
    let fake = Fake::default();
    fake.put(
        message(1, "contoso", &["bob@contoso.com"], content, START),
        content,
    );
    let destination = Destination {
        via: Via::Exchange,
        tenant: "contoso".into(),
        domain: None,
    };
    let work = fake.next_due(&destination, START).unwrap();
    (fake, work)
}

#[tokio::test(start_paused = true)]
async fn a_stall_hits_the_deadline() {
    let authority = Authority::new("Lab").unwrap();
    let client = client(&authority);
    let (ours, _theirs) = tokio::io::duplex(64);
    let Err(answer) = Connection::open(ours, Dialogue::new("h"), client.encryption()).await else {
        panic!()
    };
    assert_eq!(
        answer,
        Answer::Broken {
            phase: At::Greeting,
            why: Broken::Deadline
        }
    );

    for (content, phase) in [
        (vec![b'x'; 2_000_000], At::Content),
        (b"small\r\n".to_vec(), At::End),
    ] {
        let (fake, work) = in_hand(&content);
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let peer = tokio::spawn(peer(theirs, server(&authority, None), Then::Stall));
        let mut connection = Connection::open(ours, Dialogue::new("h"), client.encryption())
            .await
            .unwrap();
        let before = tokio::time::Instant::now();
        let answers = connection.transact(&fake, &work, &[0]).await;
        assert_eq!(
            answers,
            [(
                0,
                Answer::Broken {
                    phase,
                    why: Broken::Deadline
                }
            )]
        );
        let waited = before.elapsed().as_secs();
        let expected = if phase == At::Content { 180 } else { 600 };
        assert!((expected..=expected + 1).contains(&waited), "{waited} s");
        assert!(!connection.is_usable());
        peer.abort();
    }
}

/// Says these lines, one each `pause`, then takes the content a piece each `pause`, a little more than the sender must be
/// heard of within each wait; counts what it took.
async fn sip<T>(
    transport: T,
    config: rustls::ServerConfig,
    replies: usize,
    pause: Duration,
    took: Arc<AtomicU64>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut plain = BufReader::new(transport);
    let mut line = String::new();
    plain.write_all(b"220 ready\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"250-x\r\n250 STARTTLS\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"220 go\r\n").await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut secure = acceptor.accept(plain.into_inner()).await.unwrap();
    let hello = b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    secure.write_all(hello).await.unwrap();
    secure.flush().await.unwrap();
    for _ in 0..replies {
        tokio::time::sleep(pause).await;
        if secure.write_all(b"250 ok\r\n").await.is_err() || secure.flush().await.is_err() {
            return;
        }
    }
    let mut piece = vec![0; 64 * 1024];
    loop {
        match secure.read(&mut piece).await {
            Ok(length) if length > 0 => took.fetch_add(length as u64, Ordering::SeqCst),
            _ => return,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Recipients of one message, each answered at the last moment.
#[tokio::test(start_paused = true)]
async fn a_next_hop_that_answers_each_recipient_at_the_last_moment_is_left_after_twenty_minutes() {
    let authority = Authority::new("Lab").unwrap();
    let client = client(&authority);
    let fake = Fake::default();
    let names: Vec<String> = (0..100).map(|n| format!("r{n}@contoso.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    fake.put(message(1, "contoso", &names, MAIL, START), MAIL);
    let destination = Destination {
        via: Via::Exchange,
        tenant: "contoso".into(),
        domain: None,
    };
    let work = fake.next_due(&destination, START).unwrap();
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let pause = Duration::from_secs(290);
    let took = Arc::new(AtomicU64::new(0));
    let peer = tokio::spawn(sip(theirs, server(&authority, None), 101, pause, took));
    let mut connection = Connection::open(ours, Dialogue::new("h"), client.encryption())
        .await
        .unwrap();
    let before = tokio::time::Instant::now();
    let all: Vec<usize> = (0..100).collect();
    let answers = connection.transact(&fake, &work, &all).await;
    assert_eq!(answers.len(), 100);
    let late = Answer::Broken {
        phase: At::Recipient,
        why: Broken::Deadline,
    };
    assert!(
        answers.iter().all(|(_, answer)| *answer == late),
        "{answers:?}"
    );
    assert_eq!(before.elapsed().as_secs(), 20 * 60);
    assert!(!connection.is_usable());
    peer.abort();
}

#[tokio::test(start_paused = true)]
async fn a_next_hop_that_takes_content_by_drops_is_left_when_the_time_for_the_whole_is_over() {
    let authority = Authority::new("Lab").unwrap();
    let client = client(&authority);
    // A TLS record each 25 s: quick enough for every piece of 64 KiB, and too slow for 4 MiB.
    let content = vec![b'x'; 4 << 20];
    let (fake, work) = in_hand(&content);
    let size = 4 << 20;
    for (pause, done) in [(25, false), (1, true)] {
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let took = Arc::new(AtomicU64::new(0));
        let pause = Duration::from_secs(pause);
        let sipping = sip(
            theirs,
            server(&authority, None),
            2,
            pause,
            Arc::clone(&took),
        );
        let peer = tokio::spawn(sipping);
        let mut connection = Connection::open(ours, Dialogue::new("h"), client.encryption())
            .await
            .unwrap();
        let before = tokio::time::Instant::now();
        let answers = connection.transact(&fake, &work, &[0]).await;
        // Whoever is quick enough is waited for at the end, ten minutes.
        let phase = if done { At::End } else { At::Content };
        let why = Broken::Deadline;
        assert_eq!(answers, [(0, Answer::Broken { phase, why })]);
        let allowed = Dialogue::patience_for_all(size).as_secs();
        let waited = before.elapsed().as_secs();
        let took = took.load(Ordering::SeqCst);
        if done {
            assert!(took > size, "{took}");
        } else {
            assert!(
                (allowed..=allowed + 2).contains(&waited),
                "{waited} of {allowed}"
            );
            assert!(took < size, "{took}");
        }
        peer.abort();
    }
}

#[tokio::test]
async fn a_refused_client_certificate_is_a_fault_of_the_connector() {
    let authority = Authority::new("Lab").unwrap();
    let stranger = Authority::new("Stranger").unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(peer(
        theirs,
        server(&authority, Some(&stranger)),
        Then::Take,
    ));
    // Under TLS 1.3 the alert comes only after our side of the handshake is done.
    let Err(answer) =
        Connection::open(ours, Dialogue::new("h"), client(&authority).encryption()).await
    else {
        panic!()
    };
    assert!(
        matches!(&answer, Answer::NoTls(why) if why.contains("UnknownCA")),
        "{answer:?}"
    );
}

/// Counts the writes that reach the transport.
struct Counting<T>(T, Arc<AtomicU64>);

impl<T: AsyncRead + Unpin> AsyncRead for Counting<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counting<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test]
async fn a_small_message_takes_two_writes() {
    let authority = Authority::new("Lab").unwrap();
    let (fake, work) = in_hand(&[b'x'; 2048]);
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(peer(theirs, server(&authority, None), Then::Take));
    let writes = Arc::new(AtomicU64::new(0));
    let ours = Counting(ours, Arc::clone(&writes));
    let mut connection =
        Connection::open(ours, Dialogue::new("h"), client(&authority).encryption())
            .await
            .unwrap();
    let before = writes.load(Ordering::SeqCst);
    let answers = connection.transact(&fake, &work, &[0]).await;
    assert!(matches!(&answers[0].1, Answer::Taken(_)), "{answers:?}");
    assert_eq!(
        writes.load(Ordering::SeqCst) - before,
        2,
        "MAIL and RCPT; BDAT and content"
    );
}

/// Reads up to the first `end`; with what came before it.
async fn up_to(stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(stream.read_u8().await.unwrap());
    }
    read
}

/// What a next hop has not yet read when it answers is still owed to it, before anything else is said.
#[tokio::test]
async fn an_answer_before_the_end_of_the_content_mixes_nothing_into_it() {
    let authority = Authority::new("Lab").unwrap();
    let content: Vec<u8> = (0..120_000u32).map(|number| number as u8).collect();
    let (fake, work) = in_hand(&content);
    let whole = [&work.message().legs[0].rendition.prepend, &content[..]].concat();
    let (ours, mut theirs) = tokio::io::duplex(4 * 1024);
    let owed = whole.clone();
    let peer = tokio::spawn(async move {
        theirs.write_all(b"220 ready\r\n").await.unwrap();
        up_to(&mut theirs, b"\r\n").await;
        theirs
            .write_all(b"250-x\r\n250-8BITMIME\r\n250 CHUNKING\r\n")
            .await
            .unwrap();
        for _ in 0..2 {
            let mail = up_to(&mut theirs, b"\r\n").await;
            assert!(mail.starts_with(b"MAIL FROM:"), "{mail:?}");
            theirs.write_all(b"250 ok\r\n").await.unwrap();
            up_to(&mut theirs, b"\r\n").await;
            theirs.write_all(b"250 ok\r\n").await.unwrap();
            let chunk = up_to(&mut theirs, b"\r\n").await;
            let expected = format!("BDAT {} LAST\r\n", owed.len());
            assert_eq!(String::from_utf8(chunk).unwrap(), expected);
            let mut read = vec![0; owed.len() - 10_000];
            theirs.read_exact(&mut read).await.unwrap();
            theirs.write_all(b"250 already\r\n").await.unwrap();
            let mut rest = vec![0; 10_000];
            theirs.read_exact(&mut rest).await.unwrap();
            read.append(&mut rest);
            assert!(read == owed, "the content arrives as it is");
        }
    });
    let manners = Manners {
        tls: Tls::WhereOffered,
        ..Manners::default()
    };
    let mut connection = Connection::open(
        ours,
        Dialogue::with("h", manners),
        client(&authority).encryption(),
    )
    .await
    .unwrap();
    for _ in 0..2 {
        let answers = connection.transact(&fake, &work, &[0]).await;
        assert!(matches!(&answers[0].1, Answer::Taken(_)), "{answers:?}");
    }
    connection.quit().await;
    peer.await.unwrap();
}
