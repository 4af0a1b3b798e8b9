//! Two servers in one process, reload, shutdown.

use crate::harness::{Changes, LETTER, World, until};
use gatepost::lab::Mail;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_run_in_one_process() {
    let (one, two) = tokio::join!(World::start(), World::start());
    let answer = one
        .erp()
        .send(&Mail::new("erp@contoso.com", "bob@contoso.com", ERP))
        .await
        .unwrap();
    assert!(answer.accepted(), "{answer:?}");
    assert!(one.around.exchange.received().await.unwrap().is_internal());
    assert!(
        one.metrics()
            .contains("gatepost_messages_received_total{listener=\"apps\",tenant=\"contoso\"} 1")
    );
    assert!(
        !two.metrics()
            .contains("gatepost_messages_received_total{listener=\"apps\"")
    );
    one.host.stop().await;
    two.host.stop().await;
}

const ERP: &[u8] = b"From: erp@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_rotate_under_an_open_session() {
    let world = World::start().await;
    let mut connection = world.exchange_out().connect().await.unwrap();
    let outbound = world.outbound(
        &world.around.contoso,
        Mail::new("ada@contoso.com", "bob@contoso.com", LETTER),
    );
    assert!(connection.send(&outbound).await.unwrap().accepted());
    let rotated = Changes::replace(
        "value = \"contoso-secret\"",
        "value = \"new-secret\", previous = \"contoso-secret\", required = true",
    );
    world.host.reload(world.around.settings(&rotated)).unwrap();
    assert!(
        connection.send(&outbound).await.unwrap().accepted(),
        "the previous value passes"
    );
    let renewed = Changes::replace(
        "value = \"contoso-secret\"",
        "value = \"new-secret\", required = true",
    );
    world.host.reload(world.around.settings(&renewed)).unwrap();
    let answer = until("the new policy in the open session", async || {
        let answer = connection.send(&outbound).await.unwrap();
        (!answer.accepted()).then_some(answer)
    })
    .await;
    assert_eq!(answer.deciding().enhanced, Some((5, 7, 1)), "{answer:?}");
    connection.quit().await;
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_idle_sessions_with_421() {
    let world = World::start().await;
    let mut client = world.exchange_out().connect().await.unwrap().into_client();
    let stop = tokio::spawn(world.host.stop());
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.code, reply.enhanced), (421, Some((4, 3, 2))));
    tokio::time::timeout(std::time::Duration::from_secs(30), stop)
        .await
        .expect("within 30 s")
        .unwrap();
}
