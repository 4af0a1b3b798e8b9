//! A stop: what is not done is given back, what is in hand is finished, and nobody waits for a look-up.

use super::*;

#[tokio::test]
async fn stopping_gives_back_what_is_not_done() {
    let stage = Stage::new().await;
    stage.exchange.script(Step::new(
        Phase::EndOfData,
        Action::Stall(Duration::from_secs(30)),
    ));
    stage.simple(1);
    stage.fake.leased().await;
    let fake = stage.fake.clone();
    stage.dispatcher.stop(Duration::from_millis(50)).await;
    assert_eq!(
        fake.state(1),
        Some((0, false)),
        "the lease is given back, no attempt counted"
    );
}

/// DNS that never answers.
#[derive(Debug)]
struct Silent(Arc<tokio::sync::Notify>);

impl crate::dns::Resolve for Silent {
    fn addresses<'a>(&'a self, _: &'a str) -> crate::dns::Answer<'a, Vec<std::net::IpAddr>> {
        self.0.notify_one();
        Box::pin(std::future::pending())
    }

    fn mail_exchangers<'a>(
        &'a self,
        _: &'a str,
    ) -> crate::dns::Answer<'a, Vec<crate::dns::MxRecord>> {
        self.0.notify_one();
        Box::pin(std::future::pending())
    }

    fn host_records<'a>(&'a self, _: &'a str) -> crate::dns::Answer<'a, Vec<std::net::IpAddr>> {
        Box::pin(std::future::pending())
    }

    fn texts<'a>(&'a self, _: &'a str) -> crate::dns::Answer<'a, Vec<Vec<u8>>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn stopping_waits_for_no_look_up() {
    for via in [Via::Exchange, Via::Mx] {
        let asked = Arc::new(tokio::sync::Notify::new());
        let resolver = Arc::new(Silent(Arc::clone(&asked)));
        let change = |mut settings: DeliverSettings| {
            settings.resolver = resolver;
            settings
        };
        let stage = Stage::with(|options| options, change, |leaf| leaf).await;
        let mut message = message(1, "contoso", &["bob@contoso.com"], MAIL, START);
        message.legs[0].via = via.clone();
        stage.fake.put(message, MAIL);
        asked.notified().await;
        let fake = stage.fake.clone();
        let begun = tokio::time::Instant::now();
        stage.dispatcher.stop(Duration::from_secs(20)).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{via}");
        assert_eq!(
            fake.state(1),
            Some((0, false)),
            "{via}: as if nobody had tried"
        );
        assert!(fake.log().is_empty(), "{via}");
        assert!(stage.trace.lock().unwrap().is_empty(), "{via}");
    }
}

#[tokio::test]
async fn stopping_finishes_the_message_in_hand() {
    let stage = Stage::new().await;
    // On a connection that is there already: one that is still being made is given up.
    stage.simple(1);
    stage.delivered(1).await;
    stage.fake.leased().await;
    stage.exchange.script(Step::new(
        Phase::EndOfData,
        Action::Stall(Duration::from_millis(200)),
    ));
    stage.simple(2);
    stage.fake.leased().await;
    let fake = stage.fake.clone();
    stage.dispatcher.stop(Duration::from_secs(20)).await;
    assert_eq!(fake.log().len(), 2);
    assert_eq!(fake.log()[1].2, Disposition::Delivered);
}
