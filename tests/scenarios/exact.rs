//! Bytes are sacred: whatever Exchange sends comes back to it, in both transfers, byte for byte.

use crate::harness::World;
use gatepost::lab::{Mail, Outbound, Transfer};

/// A generator of our own, so that a failure names a number that makes it again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn octets(&mut self, length: usize, set: &[u8]) -> Vec<u8> {
        (0..length).map(|_| set[self.roll(set.len())]).collect()
    }
}

const STAMPS: &str = "X-OriginatorOrg: contoso.com\r\nX-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555\r\n";

/// An odd message: header fields of every shape, then a body that tempts every parser.
fn odd_message(number: u64) -> (Vec<u8>, bool) {
    let mut dice = Dice(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut message =
        format!("From: ada@contoso.com\r\nX-Number: {number}\r\n{STAMPS}").into_bytes();
    for _ in 0..dice.roll(30) {
        match dice.roll(9) {
            0 => message.extend_from_slice(b"X-Empty:\r\n"),
            1 => message.extend_from_slice(b"X-Blank: \r\n"),
            2 => message.extend_from_slice(b"X-Twice: a\r\nx-twice: b\r\n"),
            3 => message.extend_from_slice(b"X-Before-Colon : \t v\r\n"),
            4 => message.extend_from_slice(b"X-Only-Blanks: a\r\n \t \r\n\t\r\n"),
            5 => {
                message.extend_from_slice(b"X-Folded:");
                for _ in 0..dice.roll(40) {
                    message.extend_from_slice(b"\r\n ");
                    let length = 1 + dice.roll(500);
                    message.extend(dice.octets(length, b"abcdefgh;=:.\"<>"));
                }
                message.extend_from_slice(b"\r\n");
            }
            6 => {
                message.extend_from_slice(b"X-Raw: ");
                let length = dice.roll(60);
                message.extend(dice.octets(length, &[0xe4, 0xf6, 0xc3, 0xa4, 0x80, 0xff, b' ', 0x01, 0x7f]));
                message.extend_from_slice(b"\r\n");
            }
            7 => message.extend_from_slice(b"X-MS-Exchange-CrossPremises-AuthAs: Internal\r\nX-OrganizationHeadersPreserved: s\r\n"),
            _ => message.extend_from_slice(b"!#$%&'*+-/=?^_`{|}~: printable name\r\n"),
        }
    }
    let chunks_only = dice.roll(3) == 0;
    if dice.roll(20) == 0 {
        // Only a header section, without the empty line.
        return (message, chunks_only);
    }
    message.extend_from_slice(b"\r\n");
    for _ in 0..dice.roll(60) {
        match dice.roll(10) {
            0 => message.extend_from_slice(b".\r\n"),
            1 => message.extend_from_slice(b"..\r\n...x\r\n"),
            2 => message.extend_from_slice(b"X-MS-Exchange-Organization-SCL: -1\r\n"),
            3 => message.extend_from_slice(b"\r\n\r\n"),
            4 => message.extend((0..=255u8).filter(|octet| !matches!(octet, b'\r' | b'\n' | 0))),
            5 if chunks_only => message.extend_from_slice(b"bare\nbare\rnul\0\r\n\n.\n\r\r\n.\r\n"),
            6 => {
                let length = dice.roll(3000);
                message.extend(dice.octets(length, b"abc. \t"));
                message.extend_from_slice(b"\r\n");
            }
            7 => message.extend_from_slice(b"trailing blanks \t \r\n"),
            8 => message.extend_from_slice(b"Received: not a header\r\n"),
            _ => message.extend_from_slice(b"a line\r\n"),
        }
    }
    if chunks_only && dice.roll(2) == 0 {
        message.extend_from_slice(b"no final newline");
    }
    (message, chunks_only)
}

fn without_top(content: &[u8]) -> &[u8] {
    // Our Received and loop header stand on top; what came begins with From:.
    let start = content
        .windows(6)
        .position(|window| window == b"\nFrom:")
        .expect("the message is there")
        + 1;
    &content[start..]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_hundred_odd_messages_come_back_byte_for_byte() {
    let world = World::start().await;
    let mut connection = world.exchange_out().connect().await.unwrap();
    for number in 1..=600 {
        let (message, chunks_only) = odd_message(number);
        let data = !chunks_only && message.ends_with(b"\r\n") && number % 2 == 0;
        let transfer = if data {
            Transfer::Data
        } else {
            Transfer::Chunks(1 + usize::try_from(number).unwrap() * 37)
        };
        let mail = Mail::new("ada@contoso.com", "bob@contoso.com", message.clone()).by(transfer);
        let answer = connection.send(&Outbound::bare(mail)).await.unwrap();
        assert!(answer.accepted(), "message {number}: {answer:?}");
        let marker = format!("X-Number: {number}\r\n").into_bytes();
        let received = world
            .around
            .exchange
            .received_where(|received| {
                received
                    .content
                    .windows(marker.len())
                    .any(|window| window == marker)
            })
            .await
            .unwrap_or_else(|error| panic!("message {number}: {error}"));
        assert!(
            without_top(&received.content) == message,
            "message {number} changed"
        );
    }
    connection.quit().await;
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_megabytes_come_back_byte_for_byte() {
    let world = World::start().await;
    let mut message = format!("From: ada@contoso.com\r\n{STAMPS}\r\n").into_bytes();
    let mut dice = Dice(30);
    while message.len() < 30 * 1024 * 1024 {
        message.extend(dice.octets(64, &[b'a', b'.', b'\r', b'\n', 0, 0xff]));
        message.extend_from_slice(&b"0123456789abcdef".repeat(512));
    }
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com", message.clone())
        .by(Transfer::Chunks(1_000_003));
    let answer = world
        .exchange_out()
        .send(&Outbound::bare(mail))
        .await
        .unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let received = world.received().await;
    assert!(
        without_top(&received.content) == message,
        "the message changed"
    );
    world.host.stop().await;
}

/// The collected Exchange mail beside the repository, where it is at hand; the project does not depend on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collected_exchange_mail_comes_back_byte_for_byte() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/headers");
    if !folder.exists() {
        println!("skipped: {} is not there", folder.display());
        return;
    }
    let mut changes = crate::harness::Changes::replace(
        "accepted_domains = [\"contoso.com\"]",
        "accepted_domains = [\"contoso.com\", \"example.com\"]",
    );
    changes.replace.push((
        crate::harness::CONTOSO,
        "3f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c10".to_owned(),
    ));
    let world = World::with(changes).await;
    for name in ["01", "02", "03", "04", "05", "06", "07"] {
        let file = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with(name)
            })
            .unwrap();
        let message = std::fs::read(&file).unwrap();
        let sender = if matches!(name, "06" | "07") {
            ""
        } else {
            "ada@example.com"
        };
        let mail = Mail::new(sender, "bob@example.com", message.clone());
        let answer = world
            .exchange_out()
            .send(&Outbound::bare(mail))
            .await
            .unwrap();
        assert!(answer.accepted(), "{name}: {answer:?}");
        let received = world.received().await;
        assert!(received.content.ends_with(&message), "{name} changed");
    }
    world.host.stop().await;
}
