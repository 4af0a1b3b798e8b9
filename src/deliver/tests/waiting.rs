//! Notices of delay, reports of what was handed on, and our own mail beside a parked queue.

use super::*;
use crate::lab::vocabulary;

const HOUR: u64 = 60 * MINUTE;
const BUSY: &str = "451 4.7.500 Server busy. Please try again later";
const FAULT: &str = "550 5.7.64 TenantAttribution; Relay Access Denied";

async fn patient(hours: u64) -> Stage {
    let change = |mut settings: DeliverSettings| {
        settings.exchange_law.delay_notice = Some(Duration::from_secs(hours * 3600));
        settings
    };
    Stage::with(|options| options, change, |leaf| leaf).await
}

fn bounces(stage: &Stage, class: &str) -> u64 {
    let family = &stage.metrics.bounces;
    family.with_label_values(&["contoso", class]).get()
}

/// The warnings of this thread, as `field=value` in a row.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_reply_that_may_pass_by_itself_is_told_an_administrator_after_an_hour() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let told = || {
        let all = warnings.0.lock().unwrap();
        let ours = all
            .iter()
            .filter(|line| line.contains("an administrator should see"));
        ours.cloned().collect::<Vec<_>>()
    };
    let stage = patient(12).await;
    let routing = Step::reply(
        Phase::Rcpt,
        "451 4.4.4 Mail received as unauthenticated. ATTR5",
    );
    stage.exchange.script(routing.always());
    stage.put(1, "contoso", &["bob@contoso.com"], MAIL);
    stage.settled(1).await;
    stage.advance(HOUR - 1);
    stage.settled(2).await;
    assert_eq!(told(), Vec::<String>::new());
    stage.advance(HOUR);
    stage.settled(3).await;
    let told = told();
    assert!(told.len() == 1 && told[0].contains("451 4.4.4"), "{told:?}");
}

#[tokio::test]
async fn who_sent_mail_that_waits_is_told_once() {
    let stage = patient(4).await;
    let busy = Step::reply(Phase::Rcpt, BUSY).always();
    stage.exchange.script(busy.for_recipient("bob@contoso.com"));
    let recipients = ["bob@contoso.com", "eve@contoso.com"];
    stage.put(1, "contoso", &recipients, MAIL);
    stage.settled(2).await;
    stage.advance(4 * HOUR - 1);
    stage.settled(3).await;
    assert!(stage.fake.accepted().is_empty(), "not yet");
    stage.advance(1);
    stage.fake.until(1, |told, _| told).await;
    let accepted = stage.fake.accepted();
    let [(report, text)] = accepted.as_slice() else {
        panic!("{accepted:?}");
    };
    assert_eq!(report.envelope.reverse_path, ReversePath::Null);
    assert_eq!(
        report.envelope.recipients[0].mailbox.as_str(),
        "printer@contoso.com"
    );
    for part in [
        "Final-Recipient: rfc822; bob@contoso.com\r\nAction: delayed\r\nStatus: 4.7.500\r\n\
         Remote-MTA: dns; [127.0.0.1]\r\nDiagnostic-Code: smtp; 451 4.7.500 Server busy",
        "Will-Retry-Until: ",
        "Content-Type: text/rfc822-headers\r\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(
        !text.contains("eve@contoso.com\r\nAction") && !text.contains("Last-Attempt-Date"),
        "{text}"
    );
    let story = stage.trace.lock().unwrap().clone();
    let named = story.iter().any(|event| {
        matches!(&event.event, Event::Report { class, report: id, .. }
            if class == "delay" && *id == report.id.to_string())
    });
    assert!(named, "{story:?}");
    // Never again, however long it takes.
    for hour in 1..=8 {
        let before = stage.fake.log().len();
        stage.advance(HOUR);
        stage.settled(before + 1).await;
        assert_eq!(stage.fake.accepted().len(), 1, "hour {hour}");
    }
    assert_eq!(bounces(&stage, "delay"), 1);
    assert_eq!(bounces(&stage, "untold"), 0);
}

#[tokio::test]
async fn mail_in_a_parked_queue_is_told_of_though_nobody_tries_it() {
    let stage = patient(4).await;
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, FAULT).always());
    for id in 1..=3 {
        stage.simple(id);
        stage.settled(usize::try_from(id).unwrap()).await;
    }
    assert_eq!(stage.queue_states(), ["parked"]);
    // More than one batch of them, and none of them is ever tried.
    for id in 4..=80 {
        stage.simple(id);
    }
    stage.advance(4 * HOUR);
    for id in [1, 4, 40, 80] {
        stage.fake.until(id, |told, _| told).await;
    }
    assert_eq!(stage.fake.accepted().len(), 80);
    let (_, text) = &stage.fake.accepted()[79];
    assert!(
        text.contains("Status: 4.7.64\r\n") && text.contains(FAULT),
        "why the queue is parked: {text}"
    );
}

#[tokio::test]
async fn a_notice_goes_to_whoever_wants_it_and_never_answers_nobody() {
    let on = |failure, delay| {
        Some(Notify::On {
            success: false,
            failure,
            delay,
        })
    };
    let cases: [(&str, Option<Notify>, bool, bool); 6] = [
        ("without NOTIFY", None, false, true),
        ("NEVER", Some(Notify::Never), false, false),
        ("FAILURE", on(true, false), false, false),
        ("DELAY", on(false, true), false, true),
        ("FAILURE,DELAY", on(true, true), false, true),
        ("from nobody", on(true, true), true, false),
    ];
    let stage = patient(4).await;
    let later = "432 4.3.2 STOREDRV.Deliver; thread limit";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, later).always());
    for (id, (_, notify, null, _)) in cases.iter().enumerate() {
        let name = format!("r{id}@contoso.com");
        let mut sent = message(id as u64 + 1, "contoso", &[&name], MAIL, START);
        sent.envelope.recipients[0].notify = *notify;
        if *null {
            sent.envelope.reverse_path = ReversePath::Null;
        }
        stage.fake.put(sent, MAIL);
    }
    let owner = "owner@contoso.com";
    let mut sent = message(9, "contoso", &["r9@contoso.com"], MAIL, START);
    sent.bounces_to = Some(owner.parse().unwrap());
    stage.fake.put(sent, MAIL);
    stage.settled(7).await;
    // Nobody is on its way meanwhile, so that they are told in order.
    stage.fake.put_off(100 * HOUR);
    stage.advance(4 * HOUR);
    stage.fake.until(9, |told, _| told).await;
    let accepted = stage.fake.accepted();
    for (id, (name, .., told)) in cases.iter().enumerate() {
        let line = format!("Final-Recipient: rfc822; r{id}@contoso.com\r\nAction: delayed\r\n");
        let count = accepted.iter().filter(|(_, text)| text.contains(&line));
        assert_eq!(count.count(), usize::from(*told), "{name} in {accepted:?}");
    }
    let (report, _) = accepted.last().unwrap();
    assert_eq!(report.envelope.recipients[0].mailbox.as_str(), owner);
}

#[tokio::test]
async fn a_notice_that_cannot_be_kept_is_written_later() {
    let stage = patient(4).await;
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, BUSY).always());
    stage.simple(1);
    stage.settled(1).await;
    stage.fake.full(true);
    stage.advance(4 * HOUR);
    stage.settled(2).await;
    stage.fake.put_back_once().await;
    stage.fake.full(false);
    stage.advance(5 * MINUTE);
    stage.fake.until(1, |told, _| told).await;
    assert_eq!(stage.fake.accepted().len(), 1);
}

#[tokio::test]
async fn without_a_delay_notice_nobody_is_told() {
    let stage = Stage::new().await;
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, BUSY).always());
    stage.simple(1);
    stage.settled(1).await;
    stage.advance(40 * HOUR);
    stage.settled(2).await;
    assert!(stage.fake.accepted().is_empty());
}

async fn handed_on(
    hide: bool,
    full: bool,
) -> (Stage, Vec<(crate::spool::Message, String)>, Vec<String>) {
    let options = |options: ExchangeOptions| {
        if hide { options.hide("DSN") } else { options }
    };
    let stage = Stage::with(options, |settings| settings, |leaf| leaf).await;
    stage.fake.full(full);
    let people = ["bob@contoso.com", "eve@contoso.com", "kim@contoso.com"];
    let mut sent = message(1, "contoso", &people, MAIL, START);
    sent.bounces_to = Some("owner@contoso.com".parse().unwrap());
    sent.envelope.envid = Some("order-7".into());
    sent.envelope.recipients[0].notify = Some(Notify::On {
        success: true,
        failure: true,
        delay: false,
    });
    sent.envelope.recipients[1].notify = Some(Notify::Never);
    stage.fake.put(sent, MAIL);
    let log = stage.settled(3).await;
    assert!(
        log.iter()
            .all(|(_, _, what)| *what == Disposition::Delivered),
        "{log:?}"
    );
    let received = stage.exchange.received().await.unwrap();
    let mut said = received.parameters.clone();
    for recipient in &received.recipients {
        said.extend(recipient.parameters.iter().cloned());
    }
    let accepted = stage.fake.accepted();
    (stage, accepted, said)
}

#[tokio::test]
async fn a_next_hop_without_dsn_makes_us_say_that_mail_was_handed_on() {
    let (stage, accepted, said) = handed_on(true, false).await;
    let [(report, text)] = accepted.as_slice() else {
        panic!("{accepted:?}");
    };
    assert!(
        !said.iter().any(|parameter| {
            ["NOTIFY", "RET", "ENVID", "ORCPT"]
                .iter()
                .any(|name| parameter.starts_with(name))
        }),
        "{said:?}"
    );
    assert_eq!(
        report.envelope.recipients[0].mailbox.as_str(),
        "printer@contoso.com",
        "who asked for it"
    );
    assert!(
        text.contains(
            "Final-Recipient: rfc822; bob@contoso.com\r\nAction: relayed\r\nStatus: 2.6.0\r\n"
        ) && text.contains("Original-Envelope-Id: order-7\r\n"),
        "{text}"
    );
    assert!(!text.contains("eve@contoso.com\r\n") && !text.contains("kim@contoso.com\r\n"));
    assert_eq!(bounces(&stage, "relayed"), 1);
    let before = stage.fake.recorded_before();
    assert_eq!(before, [0], "durable before anything is recorded");
}

#[tokio::test]
async fn a_next_hop_with_dsn_is_asked_to_report_itself() {
    let (stage, accepted, said) = handed_on(false, false).await;
    assert!(accepted.is_empty(), "{accepted:?}");
    for word in ["ENVID=order-7", "NOTIFY=SUCCESS,FAILURE", "NOTIFY=NEVER"] {
        assert!(
            said.iter().any(|parameter| parameter == word),
            "{word} in {said:?}"
        );
    }
    assert_eq!(bounces(&stage, "relayed"), 0);
}

#[tokio::test]
async fn what_was_handed_on_is_delivered_though_its_report_cannot_be_kept() {
    let (stage, accepted, _) = handed_on(true, true).await;
    assert!(accepted.is_empty());
    assert_eq!(bounces(&stage, "untold"), 1);
    assert_eq!(stage.exchange.taken(), 1, "no second copy");
}

/// Mail of our own.
fn own(stage: &Stage, id: u64) {
    let arrived = stage.clock.load(Ordering::SeqCst);
    let mut report = message(id, "contoso", &["printer@contoso.com"], MAIL, arrived);
    report.envelope.reverse_path = ReversePath::Null;
    report.envelope.recipients[0].notify = Some(Notify::Never);
    stage.fake.put(report, MAIL);
}

/// A queue that is parked because our certificate has lapsed.
async fn lapsed() -> Stage {
    let stage = Stage::with(|options| options, |settings| settings, Leaf::expired).await;
    stage.simple(1);
    stage.settled(1).await;
    assert_eq!(stage.queue_states(), ["parked"]);
    assert_eq!(stage.exchange.connections(), 0);
    stage
}

#[tokio::test]
async fn our_own_mail_goes_past_a_parked_queue_without_certificate() {
    let stage = lapsed().await;
    own(&stage, 2);
    own(&stage, 3);
    stage.delivered(2).await;
    for _ in 0..2 {
        let received = stage.exchange.received().await.unwrap();
        assert_eq!(received.identity, ClientIdentity::None);
        assert_eq!(received.sender, "");
        assert!(received.tls.is_some());
        assert!(!received.is_internal());
    }
    assert_eq!(stage.exchange.connections(), 1, "one for all of it");
    assert_eq!(stage.queue_states(), ["parked"], "that proved nothing");
    let holds = stage.dispatcher.holds();
    assert!(
        holds
            .fault_older_than("contoso", u64::MAX, Duration::ZERO)
            .is_some()
    );
    let story = stage.trace.lock().unwrap().clone();
    let marked = story.iter().filter(|event| {
        matches!(&event.event, Event::Attempt { uncertified: true, results, .. }
            if results[0].outcome == "delivered")
    });
    assert_eq!(marked.count(), 2);
}

#[tokio::test]
async fn our_own_mail_that_is_not_taken_without_certificate_waits_and_is_not_tried_so_again() {
    for refusal in [
        vocabulary("direct-send").unwrap(),
        "451 4.7.1 Please try again later",
    ] {
        let stage = lapsed().await;
        stage
            .exchange
            .script(Step::reply(Phase::Rcpt, refusal).always());
        own(&stage, 2);
        stage.fake.until(2, |_, uncertified| uncertified).await;
        assert_eq!(stage.fake.state(2), Some((0, false)), "no attempt, waiting");
        assert_eq!(
            stage.queue_states(),
            ["parked"],
            "no fault of the connector"
        );
        // The probe goes on meeting the certificate; the report is not offered again.
        stage.advance(MINUTE);
        stage.settled(2).await;
        own(&stage, 3);
        stage.fake.until(3, |_, uncertified| uncertified).await;
        let tried = stage.exchange.refused();
        assert_eq!(tried.len(), 2, "each once: {tried:?}");
    }
}

#[tokio::test]
async fn a_host_that_asks_for_less_is_left_alone_for_a_while() {
    let stage = lapsed().await;
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, BUSY).times(1));
    own(&stage, 2);
    stage.fake.until(2, |_, uncertified| uncertified).await;
    own(&stage, 3);
    stage.advance(MINUTE);
    // The probe: the queue was looked at again.
    stage.settled(2).await;
    assert_eq!(stage.exchange.taken(), 0);
    stage.advance(4 * MINUTE);
    stage
        .fake
        .log_when(|log| log.iter().any(|(id, ..)| *id == QueueId::from_u64(3)))
        .await;
    assert_eq!(stage.exchange.taken(), 1);
    assert_eq!(stage.fake.state(2), Some((0, false)), "once for ever");
}

#[tokio::test]
async fn an_impostor_gets_no_mail_of_ours_without_certificate_either() {
    let stage = lapsed().await;
    let stranger = Authority::new("Stranger").unwrap();
    let identity = stranger.issue(&Leaf::exchange()).unwrap();
    stage.exchange.show_certificate(&identity).unwrap();
    own(&stage, 2);
    stage.fake.until(2, |_, uncertified| uncertified).await;
    assert_eq!(stage.exchange.taken(), 0);
    // Nobody was reached: the next one is not tried until a while has passed.
    own(&stage, 3);
    stage
        .exchange
        .show_certificate(&stage.authority.issue(&Leaf::exchange()).unwrap())
        .unwrap();
    stage.advance(5 * MINUTE);
    stage.delivered(1).await;
    let received = stage.exchange.received().await.unwrap();
    assert_eq!(received.identity, ClientIdentity::None);
    assert_eq!(stage.fake.state(3), None);
}
