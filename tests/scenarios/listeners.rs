//! How connections come in: overlapping addresses, balancers, handshakes that fail.

use crate::harness::{Changes, Surroundings, World, free_port};
use gatepost::app::Server;
use gatepost::lab::Client;
use std::net::SocketAddr;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_on_one_address_stands_beside_one_on_all() {
    let port = free_port();
    let mut changes = Changes::replace(
        "name = \"exchange\"\naddress = \"127.0.0.1:0\"",
        &format!("name = \"exchange\"\naddress = \"0.0.0.0:{port}\""),
    );
    changes.replace.push((
        "name = \"printers\"\naddress = \"127.0.0.1:0\"",
        format!("name = \"printers\"\naddress = \"127.0.0.5:{port}\""),
    ));
    let world = World::with(changes).await;
    let from = Some("127.0.7.7".parse().unwrap());
    let printers = SocketAddr::from(([127, 0, 0, 5], port));
    for _ in 0..8 {
        let mut client = Client::connect(printers, from).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("scanner").await.unwrap();
        let reply = client
            .command("MAIL FROM:<scanner@contoso.com>")
            .await
            .unwrap();
        assert_eq!(reply.code, 250, "submission, by address: {reply}");
        let elsewhere = SocketAddr::from(([127, 0, 0, 6], port));
        let mut client = Client::connect(elsewhere, from).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("scanner").await.unwrap();
        let reply = client
            .command("MAIL FROM:<scanner@contoso.com>")
            .await
            .unwrap();
        assert_eq!(
            reply.code, 530,
            "a connector, which insists on TLS: {reply}"
        );
    }
    // A second server, with a queue of its own, on the same addresses.
    let second = Surroundings::new().await;
    let mut settings = second.settings(&Changes::default());
    let own = world.around.folder.path().join("gatepost.toml");
    let first = gatepost::config::load(&own).unwrap().settings.unwrap();
    settings.listeners = first.listeners;
    let error = Server::start(settings).await.unwrap_err();
    assert!(error.contains("listener exchange"), "{error}");
    assert!(error.contains(&port.to_string()), "{error}");
    world.host.stop().await;
}
