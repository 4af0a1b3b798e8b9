//! Mail on its way to hosts outside: sessions of TLS that are resumed, addresses that are tried.

use super::*;
use crate::lab::{Outside, OutsideOptions};

const RELAY: &str = "partner";

/// A stage, and outside it a host with TLS that ends each connection behind its message: a relay, or an exchanger.
async fn beside(via: &Via) -> (Stage, Outside) {
    let authority = Authority::new("self-made").unwrap();
    let identity = authority.issue(&Leaf::named("relay.example.net")).unwrap();
    let options = OutsideOptions {
        identity: Some(identity),
        ..OutsideOptions::default()
    };
    let host = Outside::start(options).await.unwrap();
    host.script(Step::new(Phase::AfterMessage, Action::Drop).always());
    let address = host.address();
    let zone = crate::dns::Zone::new()
        .host("relay.example.net", address.ip())
        .host("partner.example", address.ip())
        .host("127.0.0.1", address.ip());
    let roots = Arc::new(Roots {
        anchors: authority.roots().unwrap().roots,
    });
    let tls = match via {
        Via::Relay(_) => RelayTls::Verify,
        Via::Exchange | Via::Mx => RelayTls::Encrypt,
    };
    let change = |mut settings: DeliverSettings| {
        settings.resolver = Arc::new(zone);
        settings.mx_port = address.port();
        settings.relays.push(Arc::new(Relay {
            name: RELAY.into(),
            host: "relay.example.net".into(),
            port: address.port(),
            tls,
            roots,
            credentials: None,
        }));
        settings
    };
    (
        Stage::with(|options| options, change, |leaf| leaf).await,
        host,
    )
}

#[tokio::test]
async fn no_session_is_resumed_for_the_mail_of_another_tenant() {
    for via in [Via::Relay(RELAY.into()), Via::Mx] {
        let (stage, host) = beside(&via).await;
        let mut resumed = Vec::new();
        for (id, tenant) in [
            (1, "contoso"),
            (2, "contoso"),
            (3, "fabrikam-ag"),
            (4, "fabrikam-ag"),
            (5, "contoso"),
        ] {
            let mut sent = message(id, tenant, &["r@partner.example"], MAIL, START);
            sent.legs[0].via = via.clone();
            stage.fake.put(sent, MAIL);
            let received = host.received().await.unwrap();
            resumed.push(received.tls.as_ref().unwrap().resumed);
            stage.delivered(usize::try_from(id).unwrap()).await;
        }
        assert_eq!(resumed, [false, true, false, true, true], "{via}");
        assert_eq!(host.connections(), 5);
    }
}

#[tokio::test]
async fn of_a_domain_ten_addresses_are_tried_and_no_more() {
    let host = Outside::start(OutsideOptions::default()).await.unwrap();
    let address = host.address();
    for (closed, reached) in [(9, true), (10, false)] {
        let mut zone = crate::dns::Zone::new();
        for number in 0..=closed {
            let name = format!("mx{number}.partner.example");
            let own = std::net::Ipv4Addr::new(127, 0, 50, 1 + number);
            let ip = if number == closed {
                address.ip()
            } else {
                own.into()
            };
            zone = zone
                .mx("partner.example", number.into(), &name)
                .host(&name, ip);
        }
        let change = |mut settings: DeliverSettings| {
            settings.resolver = Arc::new(zone);
            settings.mx_port = address.port();
            settings
        };
        let stage = Stage::with(|options| options, change, |leaf| leaf).await;
        let mut sent = message(1, "contoso", &["r@partner.example"], MAIL, START);
        sent.legs[0].via = Via::Mx;
        stage.fake.put(sent, MAIL);
        let (_, _, disposition) = stage.settled(1).await.remove(0);
        if reached {
            assert_eq!(disposition, Disposition::Delivered);
        } else {
            assert!(matches!(disposition, Disposition::Deferred { .. }));
        }
        assert_eq!(host.connections(), 1, "{closed}");
    }
}
