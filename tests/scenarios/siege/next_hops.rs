//! Next hops that mean harm, in the siege: a host of strangers, and one that has a good certificate.

use super::{Attack, Siege, moment};
use crate::resolver::name_server;
use gatepost::lab::certificates::Issued;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A next hop that lies, stalls and talks nonsense, each connection in another way.
pub async fn hostile_next_hop(siege: Siege, attack: Attack, socket: TcpListener) {
    let mut guests = JoinSet::new();
    let mut turn = 0;
    while siege.goes_on() {
        let accepted = tokio::time::timeout(Duration::from_millis(100), socket.accept()).await;
        let Ok(Ok((mut stream, _))) = accepted else {
            continue;
        };
        turn += 1;
        siege.count(attack);
        let siege = siege.clone();
        guests.spawn(async move {
            let hello = b"220 x\r\n250-x\r\n250 PIPELINING\r\n";
            let endless = b"220-more\r\n".repeat(5000);
            let said = match turn % 8 {
                0 => Vec::new(),
                1 => endless,
                2 => vec![b'2'; 100_000],
                3 => b"\0\0\0\r\n\xff".repeat(1000),
                4 => [&hello[..], b"250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n"].concat(),
                5 => [&hello[..], b"250 ok\r\n250 ok\r\n"].concat(),
                6 => [&hello[..], b"421 4.7.0 later\r\n"].concat(),
                _ => b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250 injected\r\n".to_vec(),
            };
            let _said = stream.write_all(&said).await;
            // Half of them take what they are told, by drops; the others nothing. None ends it.
            let mut drop_of_it = [0; 1];
            while siege.goes_on() {
                if turn % 2 == 0 {
                    moment(200).await;
                } else if !matches!(stream.read(&mut drop_of_it).await, Ok(1..)) {
                    return;
                }
                moment(20).await;
            }
        });
    }
    guests.abort_all();
}

/// A tenant's host that has a good certificate and no good intention, each connection in another way.
pub async fn hostile_exchange(siege: Siege, socket: TcpListener, identity: Issued) {
    let tls = TlsAcceptor::from(server_tls(&identity));
    let mut guests = JoinSet::new();
    let mut turn = 0;
    while siege.goes_on() {
        let accepted = tokio::time::timeout(Duration::from_millis(100), socket.accept()).await;
        let Ok(Ok((stream, _))) = accepted else {
            continue;
        };
        turn += 1;
        siege.count(Attack::Exchange);
        let (siege, tls) = (siege.clone(), tls.clone());
        guests.spawn(async move {
            // An error is the other side's: it has had enough.
            let _ended = misbehave(&siege, turn, stream, tls).await;
        });
    }
    guests.abort_all();
}

async fn misbehave(
    siege: &Siege,
    turn: u64,
    mut stream: TcpStream,
    tls: TlsAcceptor,
) -> std::io::Result<()> {
    stream.write_all(b"220 x\r\n").await?;
    line(&mut stream).await?;
    stream.write_all(b"250-x\r\n250 STARTTLS\r\n").await?;
    line(&mut stream).await?;
    stream.write_all(b"220 go\r\n").await?;
    if turn.is_multiple_of(8) {
        // Garbage in the place of a handshake.
        stream.write_all(&[0x16; 5000]).await?;
        return Ok(());
    }
    let mut stream = tls.accept(stream).await?;
    if turn % 8 == 1 {
        return Ok(());
    }
    line(&mut stream).await?;
    let hello = b"250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 8BITMIME\r\n";
    stream.write_all(hello).await?;
    line(&mut stream).await?;
    let envelope = b"250 ok\r\n250 ok\r\n";
    match turn % 8 {
        // Octet by octet, and never the end of a line.
        2 => {
            while siege.goes_on() {
                stream.write_all(b"2").await?;
                stream.flush().await?;
                moment(200).await;
            }
        }
        // Without end.
        3 => {
            while siege.goes_on() {
                stream.write_all(&b"250-more\r\n".repeat(500)).await?;
            }
        }
        // Takes the envelope, an octet of the content, and goes.
        4 => {
            stream.write_all(envelope).await?;
            line(&mut stream).await?;
            let mut octet = [0; 1];
            stream.read_exact(&mut octet).await?;
        }
        // Takes all of it and says nothing.
        5 => {
            stream.write_all(envelope).await?;
            let mut all = [0; 4096];
            while siege.goes_on() && stream.read(&mut all).await? > 0 {}
        }
        // Says that it has taken what was not sent yet, twice.
        6 => {
            stream.write_all(envelope).await?;
            stream.write_all(b"250 ok\r\n250 ok\r\n").await?;
            moment(1_000).await;
        }
        // Garbage, NULs, replies in two minds.
        _ => {
            stream
                .write_all(b"250-a\r\n550 b\r\n\0\xff\xfe\r\n999 \r\n")
                .await?;
            moment(1_000).await;
        }
    }
    Ok(())
}

/// Reads up to the end of a line.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    while stream.read_u8().await? != b'\n' {}
    Ok(())
}

fn server_tls(identity: &Issued) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(identity.chain_pem().as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key);
    Arc::new(config.unwrap())
}

/// A name server for whom every domain's mail is taken at one address, where port 25 is for everybody to bind; else none.
pub async fn exchanger() -> Option<(SocketAddr, TcpListener)> {
    let address = Ipv4Addr::new(127, 0, 99, 1);
    let socket = TcpListener::bind((address, 25)).await.ok()?;
    let server = name_server(Arc::default(), address, address).await;
    Some((server, socket))
}
