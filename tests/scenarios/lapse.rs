//! The journey of a lapsed certificate, from the first failure to the release: nothing bounces, nothing is lost.

use crate::harness::{
    Changes, HOSTNAME, LETTER, Process, Surroundings, World, gatepost, last_word, scrape, until,
    write_identity,
};
use gatepost::app::Server;
use gatepost::lab::certificates::Leaf;
use gatepost::lab::{Mail, Phase, Step};
use gatepost::message_trace::{Event, TraceEvent};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const FAULT: &str = "our certificate: certificate contoso has expired";

/// The law of the contract's example, which a rehearsed clock makes bearable.
fn lawful() -> Changes {
    Changes::replace(
        "retry = [\"1s\"]\nexpire = \"1h\"",
        "retry = [\"1m\", \"1m\", \"5m\", \"10m\", \"15m\"]\nexpire = \"48h\"\nhold_on_connector_fault = \"24h\"",
    )
}

/// Contoso's certificate runs out an hour from now.
async fn about_to_lapse() -> World {
    let around = Surroundings::new().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let leaf = Leaf::named("contoso.com").until((now + HOUR).as_secs());
    let issued = around.authority.issue(&leaf).unwrap();
    write_identity(around.folder.path(), "contoso", &issued);
    World::within(around, lawful()).await
}

fn renew(around: &Surroundings) {
    let issued = around.authority.issue(&Leaf::named("contoso.com"));
    write_identity(around.folder.path(), "contoso", &issued.unwrap());
}

impl World {
    fn renew(&self) {
        renew(&self.around);
        let renewed = self.around.settings(&lawful());
        self.host.reload(renewed).unwrap();
    }

    /// Mail of the application `erp`; its queue id.
    async fn mail_of_erp(&self, subject: &str) -> String {
        let content = format!("From: erp@contoso.com\r\nSubject: {subject}\r\n\r\nbody\r\n");
        let mail = Mail::new("erp@contoso.com", "bob@contoso.com", content.into_bytes());
        let answer = self.erp().send(&mail).await.unwrap();
        assert!(answer.accepted(), "{subject}: {answer:?}");
        last_word(answer.deciding())
    }

    /// Mail of Exchange for `name`, from `name`'s own user; the answer that decides.
    async fn mail_of_exchange(&self, name: &str) -> gatepost::smtp::reply::Reply {
        let organization = match name {
            "contoso" => &self.around.contoso,
            _ => &self.around.fabrikam,
        };
        let content = String::from_utf8(LETTER.to_vec()).unwrap();
        let content = content.replace("contoso", name).into_bytes();
        let (from, to) = (format!("ada@{name}.com"), format!("bob@{name}.com"));
        let outbound = self.outbound(organization, Mail::new(&from, &to, content));
        let answer = self.exchange_out().send(&outbound).await.unwrap();
        answer.deciding().clone()
    }

    /// The events of contoso's queue, each as state and reason.
    async fn queue_story(&self) -> Vec<(String, String)> {
        let all = gatepost::message_trace::Query::default();
        self.host.tracer().flush().await;
        let events = self.host.tracer().find(all).await.unwrap();
        let queue = |event: TraceEvent| match event.event {
            Event::Queue {
                tenant,
                state,
                reason,
                ..
            } => (tenant == "contoso").then_some((state, reason)),
            _ => None,
        };
        events.into_iter().filter_map(queue).collect()
    }

    async fn queue_reaches(&self, state: &str, times: usize) {
        until(&format!("{state} for the {times}th time"), async || {
            let story = self.queue_story().await;
            let seen = story.iter().filter(|(seen, _)| seen == state).count();
            (seen >= times).then_some(())
        })
        .await;
    }

    fn gauge(&self, line: &str) -> bool {
        self.metrics().lines().any(|shown| shown == line)
    }

    async fn restarted(self) -> Self {
        self.restarted_after(|_| ()).await
    }

    async fn renewed_at_rest(self) -> Self {
        self.restarted_after(renew).await
    }

    async fn restarted_after(self, meanwhile: impl FnOnce(&Surroundings)) -> Self {
        let Self { around, host } = self;
        host.stop().await;
        meanwhile(&around);
        let loaded = gatepost::config::load(&around.configuration([0; 3], &lawful())).unwrap();
        let host = Server::start(
            loaded
                .settings
                .expect("a lapsed certificate stops no start"),
        );
        Self {
            host: host.await.unwrap(),
            around,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_certificate_parks_the_queue_and_its_renewal_releases_everything() {
    let world = about_to_lapse().await;
    let exchange = &world.around.exchange;
    world.mail_of_erp("before").await;
    assert!(exchange.received().await.unwrap().is_internal());
    assert_eq!(world.mail_of_exchange("contoso").await.code, 250);
    exchange.received().await.unwrap();

    // It runs out, while a connection that it opened may still be up.
    world.host.set_clock_forward(2 * HOUR);
    let first = world.mail_of_erp("mail 0").await;
    world.queue_reaches("parked", 1).await;
    let story = until("the attempt in the trace", async || {
        let story = world.trace(&first).await;

        story.iter().find_map(|event| match &event.event {
            Event::Attempt { results, .. } => results.first().cloned(),
            _ => None,
        })
    })
    .await;
    assert_eq!(story.outcome, "held", "{story:?}");
    assert!(story.reply.contains(FAULT), "{story:?}");
    let (state, reason) = world.queue_story().await.remove(0);
    assert_eq!((&*state, &*reason), ("parked", FAULT));
    let parked = "gatepost_queue_parked{tenant=\"contoso\",via=\"exchange\"}";
    assert!(world.gauge(&format!("{parked} 1")), "{}", world.metrics());
    let scraped = scrape(world.host.admin_address()).await;
    let expiry = "gatepost_certificate_expiry_seconds{name=\"contoso\"} -";
    assert!(scraped.contains(expiry), "{scraped}");

    // For a quarter of an hour Exchange's own mail is taken; the other tenant's flows all the while.
    assert_eq!(world.mail_of_exchange("contoso").await.code, 250);
    assert_eq!(world.mail_of_exchange("fabrikam").await.code, 250);
    let other = exchange.received().await.unwrap();
    assert_eq!(other.tenant(), "fabrikam");

    // Then Exchange is asked to keep it; applications are still served. The probe meets the fault again.
    world.host.set_clock_forward(16 * MINUTE);
    world.queue_reaches("probe_failed", 1).await;
    let answer = world.mail_of_exchange("contoso").await;
    assert_eq!(
        (answer.code, answer.enhanced),
        (451, Some((4, 4, 0))),
        "{answer}"
    );
    assert!(answer.lines[0].starts_with(HOSTNAME), "{answer}");
    assert!(answer.to_string().contains(FAULT), "{answer}");
    assert_eq!(world.mail_of_exchange("fabrikam").await.code, 250);
    exchange.received().await.unwrap();
    for number in 1..30 {
        world.mail_of_erp(&format!("mail {number}")).await;
    }
    assert!(exchange.waiting().is_empty(), "nothing of contoso's left");
    let connections = exchange.connections();

    // Renewed: the reload probes at once, one success releases all, with a ramp.
    world.renew();
    world.queue_reaches("released", 1).await;
    for _ in 0..31 {
        let message = exchange.received().await.unwrap();
        assert_eq!(message.tenant(), "contoso");
        assert!(message.is_internal(), "{:?}", message.entry);
    }
    // The ramp gives the second connection 30 s / 9 after the first; without it ten would have been opened at once.
    let opened = exchange.connections() - connections;
    assert!(opened <= 3, "{opened} connections at the release");
    let answer = until("Exchange's mail is taken again", async || {
        let answer = world.mail_of_exchange("contoso").await;
        (answer.code == 250).then_some(answer)
    });
    answer.await;
    assert!(exchange.received().await.unwrap().is_internal());
    until("the queue to be empty", async || {
        let metrics = scrape(world.host.admin_address()).await;
        let open = |line: &&str| line.starts_with("gatepost_queue_messages{");
        let empty = metrics
            .lines()
            .filter(open)
            .all(|line| line.ends_with(" 0"));
        (empty && metrics.contains(&format!("{parked} 0"))).then_some(())
    })
    .await;
    let metrics = world.metrics();
    let bounces = |line: &&str| line.starts_with("gatepost_bounces_total{");
    assert!(
        metrics
            .lines()
            .filter(bounces)
            .all(|line| line.ends_with(" 0"))
    );
    assert!(exchange.waiting().is_empty(), "nothing came twice");
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_of_a_lapse_forgets_nothing_and_takes_mail() {
    let around = Surroundings::new().await;
    let expired = Leaf::named("contoso.com").expired();
    let issued = around.authority.issue(&expired).unwrap();
    write_identity(around.folder.path(), "contoso", &issued);
    let world = World::within(around, lawful()).await;
    world.mail_of_erp("one").await;
    world.queue_reaches("parked", 1).await;
    // Another key can be changed meanwhile: the one in force is no better.
    let changed = world.around.settings(&lawful());
    world.host.reload(changed).unwrap();
    world.host.set_clock_forward(10 * MINUTE);
    let held = "gatepost_queue_messages{state=\"held\",tenant=\"contoso\",via=\"exchange\"} 1";
    until("the message to be held", async || {
        let metrics = scrape(world.host.admin_address()).await;
        metrics.lines().any(|line| line == held).then_some(())
    })
    .await;
    // The lapse goes on across the restart, and mail is taken: the new clock starts where the old one began.
    let world = world.restarted().await;
    world.queue_reaches("parked", 2).await;
    world.mail_of_erp("two").await;
    assert_eq!(world.mail_of_exchange("contoso").await.code, 250);
    // A quarter of an hour from the first message that met the fault, not from the restart.
    world.host.set_clock_forward(15 * MINUTE);
    let answer = world.mail_of_exchange("contoso").await;
    assert_eq!(answer.code, 451, "{answer}");
    // What was mended while nobody ran is found at the start.
    let world = world.renewed_at_rest().await;
    for _ in 0..3 {
        let message = world.received().await;
        assert!(message.is_internal(), "{:?}", message.entry);
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_certificate_fails_the_check_and_stops_no_start() {
    let around = Surroundings::new().await;
    let expired = Leaf::named("contoso.com").expired();
    let issued = around.authority.issue(&expired).unwrap();
    write_identity(around.folder.path(), "contoso", &issued);
    let config = around.configuration([0; 3], &lawful());
    let checked = gatepost(&config, &["check"]).await;
    assert_eq!(checked.status, 1, "{checked:?}");
    let problem = "certificate.contoso.chain: the certificate has expired";
    assert!(checked.out.contains(problem), "{checked:?}");
    // It says that it is ready, or this panics.
    assert!(Process::start(&config).terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_refusals_of_attribution_park_the_queue_until_a_probe_passes_by_itself() {
    let around = Surroundings::new().await;
    let world = World::within(around, lawful()).await;
    let exchange = &world.around.exchange;
    let refusal = "550 5.7.64 TenantAttribution; Relay Access Denied";
    exchange.script(Step::reply(Phase::Rcpt, refusal).always());
    let held = |subject: &'static str| {
        let world = &world;
        async move {
            let id = world.mail_of_erp(subject).await;
            until("the hold", async || {
                let story = world.trace(&id).await;
                let held = story.iter().any(|event| {
                    matches!(&event.event, Event::Attempt { results, .. } if results[0].outcome == "held")
                });
                held.then_some(())
            })
            .await;
        }
    };
    held("one").await;
    held("two").await;
    assert!(world.queue_story().await.is_empty(), "two are no pattern");
    held("three").await;
    world.queue_reaches("parked", 1).await;
    let connections = exchange.connections();
    world.mail_of_erp("four").await;
    // A probe a minute, no more: however many wait, one asks.
    world.host.set_clock_forward(MINUTE);
    world.queue_reaches("probe_failed", 1).await;
    assert_eq!(exchange.connections() - connections, 1);
    exchange.forget_script();
    world.host.set_clock_forward(MINUTE);
    world.queue_reaches("released", 1).await;
    for _ in 0..4 {
        exchange.received().await.unwrap();
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_of_a_hold_mail_is_tried_as_usual_until_it_expires_and_then_its_sender_is_told()
{
    let world = about_to_lapse().await;
    let exchange = &world.around.exchange;
    world.host.set_clock_forward(2 * HOUR);
    world.mail_of_erp("late").await;
    world.queue_reaches("parked", 1).await;
    world.host.set_clock_forward(24 * HOUR);
    world.queue_reaches("released", 1).await;
    // Who is given up is not told any more that he is late.
    let late = "gatepost_bounces_total{class=\"delay\",tenant=\"contoso\"} 1";
    until("the delay to be reported", async || {
        world.gauge(late).then_some(())
    })
    .await;
    world.host.set_clock_forward(25 * HOUR);
    let bounced = "gatepost_bounces_total{class=\"failure\",tenant=\"contoso\"} 1";
    until("the failure to be reported", async || {
        world.gauge(bounced).then_some(())
    })
    .await;
    // The hold is spent: the report waits its turn like any mail.
    world.renew();
    // That it was late went out before, past the held connector; that it failed goes by the renewed one.
    let reports = async {
        for action in ["Action: delayed", "Action: failed"] {
            let report = exchange.received_where(|message| {
                message.sender.is_empty()
                    && String::from_utf8_lossy(&message.content).contains(action)
            });
            let report = report.await.unwrap();
            assert_eq!(report.addresses(), ["erp@contoso.com"]);
        }
    };
    // An attempt that began before the renewal may end behind it: then it is a minute's wait once more.
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    tokio::select! {
        () = reports => {}
        () = async { loop { ticks.tick().await; world.host.set_clock_forward(MINUTE); } } => {}
    }
    world.host.stop().await;
}
