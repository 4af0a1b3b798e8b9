//! An upgrade of a machine that has mail in its queue: this version is started on the store of an older one (tests/data/README.md),
//! and everything in it goes where it was going, or its sender hears why not.

use crate::harness::{Changes, Process, Surroundings, free_port, gatepost, http, until};
use crate::resolver::name_server;
use crate::store_1::{body, id, message, unpack};
use crate::store_2;
use gatepost::lab::{Carried, Outside, OutsideOptions, Phase, Step};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Where mail by mail exchangers goes, if port 25 is there for everybody to bind.
const EXCHANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 99, 2);

/// The octets of a message as its leg sends them.
fn leaving(number: u64, leg: usize) -> Vec<u8> {
    message(number).legs[leg].rendition.apply(&body(number))
}

fn assert_carried(carried: &Carried, recipient: &str) {
    assert_eq!(carried.addresses(), [recipient]);
    assert_eq!(carried.sender, "ada@contoso.com");
    assert!(carried.content == leaving(3, 0), "{recipient}");
}

async fn until_empty(admin: SocketAddr) {
    until("the queue is empty", async || {
        let (_, text) = http(admin, "GET", "/metrics", &[], "").await.ok()?;
        let mut queued = text
            .lines()
            .filter(|line| line.starts_with("gatepost_queue_messages{"));
        queued.all(|line| line.ends_with(" 0")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_started_on_store_2_sends_what_waits_and_not_what_was_torn() {
    let around = Surroundings::new().await;
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let changes = Changes::replace(
        "[admin]\naddress = \"127.0.0.1:0\"",
        &format!("[admin]\naddress = \"{admin}\""),
    );
    let config = around.configuration([free_port(), free_port(), free_port()], &changes);
    store_2::unpack(&around.folder.path().join("data/spool"));
    let process = Process::start(&config);
    until_empty(admin).await;

    let taken = around.exchange.waiting();
    let sent_to = |number: u64| -> Vec<Vec<&str>> {
        let sent = store_2::message(number).legs[0]
            .rendition
            .apply(&store_2::body(number));
        let of_it = taken.iter().filter(|received| received.content == sent);
        of_it.map(|received| received.addresses()).collect()
    };
    assert_eq!(
        sent_to(store_2::TOLD),
        [["carol@contoso.com", "dan@contoso.com"]]
    );
    for number in [
        store_2::UNTOLD,
        store_2::UNCERTIFIED,
        store_2::OWN,
        store_2::AFTER,
    ] {
        assert_eq!(sent_to(number), [["bob@contoso.com"]], "{number}");
    }
    assert!(!taken.iter().any(|received| {
        let subject = format!("Subject: number {}\r\n", store_2::TORN);
        String::from_utf8_lossy(&received.content).contains(&subject)
    }));
    assert!(process.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_started_on_the_store_of_version_1_sends_all_of_it_or_says_that_it_failed() {
    let around = Surroundings::new().await;
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let upstream = Outside::start(OutsideOptions::default()).await.unwrap();
    let unknown = "550 5.1.1 nobody of this name";
    upstream.script(Step::reply(Phase::Rcpt, unknown).always());
    let options = OutsideOptions {
        address: SocketAddr::from((EXCHANGER, 25)),
        ..OutsideOptions::default()
    };
    let exchanger = Outside::start(options).await.ok();
    let server = name_server(Arc::default(), EXCHANGER, EXCHANGER).await;
    let mut changes = Changes::replace(
        "[admin]\naddress = \"127.0.0.1:0\"",
        &format!("[admin]\naddress = \"{admin}\""),
    );
    changes.append = format!(
        "[dns]\nservers = [\"{server}\"]\n[[relay]]\nname = \"upstream\"\nhost = \"127.0.0.1\"\nport = {}\n\
         tls = \"opportunistic\"\n[delivery.mx]\nexpire = \"1h\"\n",
        upstream.address().port()
    );
    let config = around.configuration([free_port(), free_port(), free_port()], &changes);
    let spool = around.folder.path().join("data/spool");
    unpack(&spool);
    let process = Process::start(&config);

    // What an operator holds stays until he lets it go.
    let held = id(5).to_string();
    let released = gatepost(&config, &["queue", "release", &held]).await;
    assert_eq!(released.status, 0, "{released:?}");
    until_empty(admin).await;

    let taken = around.exchange.waiting();
    for number in [1, 2, 4, 5, 7, 8, 10] {
        let sent = leaving(number, 0);
        let mut of_it = taken.iter().filter(|received| received.content == sent);
        let received = of_it.next();
        let received = received.unwrap_or_else(|| panic!("{number} did not arrive"));
        assert!(of_it.next().is_none(), "{number} came twice");
        let envelope = message(number).envelope;
        assert_eq!(
            received.sender,
            envelope.reverse_path.to_string(),
            "{number}"
        );
        let recipients = envelope.recipients.iter();
        let recipients: Vec<String> = recipients.map(|to| to.mailbox.to_string()).collect();
        assert_eq!(received.addresses(), recipients, "{number}");
        assert_eq!(received.tenant(), &*message(number).tenant, "{number}");
    }
    let has_failed = |recipient: &str| {
        let about = format!("Final-Recipient: rfc822; {recipient}\r\n");
        taken.iter().any(|report| {
            let text = String::from_utf8_lossy(&report.content);
            report.sender.is_empty()
                && report.addresses() == ["ada@contoso.com"]
                && text.contains(&about)
                && text.contains("Action: failed\r\n")
        })
    };
    assert!(has_failed("hal@partner.example"), "{unknown}");
    // Who was done with stays so.
    assert!(!has_failed("dan@one.example"), "reported before");
    match exchanger {
        Some(exchanger) => {
            let mut carried = exchanger.waiting();
            carried.sort_by_key(|carried| carried.addresses().join(""));
            assert_eq!(carried.len(), 2);
            assert_carried(&carried[0], "eve@two.example");
            assert_carried(&carried[1], "fay@one.example");
        }
        None => {
            println!("port 25 of {EXCHANGER} cannot be had: mail by mail exchangers fails");
            // Eve's sender has asked for no report of failure.
            assert!(has_failed("fay@one.example"));
        }
    }
    assert!(process.terminate().success());
    assert!(!spool.join("damaged").exists(), "a torn tail is no damage");
}
