//! What Prometheus sees: every family of the contract, moving as it should, in a text that `promtool` takes.

use crate::harness::{Changes, LETTER, Surroundings, World, get, scrape, until};
use gatepost::lab::{Dialect, Mail, Outbound, Phase, Step};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// The contract's list: name, type, labels in the order of the alphabet.
const CONTRACT: &[(&str, &str, &str)] = &[
    ("connections_total", "counter", "listener,result"),
    ("tls_handshakes_total", "counter", "listener,result"),
    ("trust_verdicts_total", "counter", "reason,tenant,verdict"),
    ("messages_received_total", "counter", "listener,tenant"),
    ("messages_refused_total", "counter", "listener,reason"),
    ("deliveries_total", "counter", "outcome,stream,tenant,via"),
    ("delivery_duration_seconds", "histogram", "tenant,via"),
    ("queue_messages", "gauge", "state,tenant,via"),
    ("queue_oldest_seconds", "gauge", "tenant,via"),
    ("bounces_total", "counter", "class,tenant"),
    ("certificate_expiry_seconds", "gauge", "name"),
    ("endpoints_age_seconds", "gauge", ""),
    ("store_sync_duration_seconds", "histogram", ""),
    ("build_info", "gauge", "version"),
];

/// A scrape, taken apart: types by name, values by series as it is written, without the prefix.
struct Scrape {
    text: String,
    types: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Scrape {
    async fn of(world: &World) -> Self {
        let text = scrape(world.host.admin_address()).await;
        let (mut types, mut values) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(told) = line.strip_prefix("# TYPE gatepost_") {
                let (name, kind) = told.split_once(' ').unwrap();
                types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let line = line.strip_prefix("gatepost_").expect(line);
                let (series, value) = line.rsplit_once(' ').unwrap();
                values.insert(series.to_owned(), value.parse().unwrap());
            }
        }
        Self {
            text,
            types,
            values,
        }
    }

    fn value(&self, series: &str) -> f64 {
        let value = self.values.get(series);
        *value.unwrap_or_else(|| panic!("no {series} in {}", self.text))
    }
}

/// Whether these values are reached, in bounds.
async fn reaches(world: &World, expected: &[(&str, f64)]) -> Scrape {
    let last = std::cell::RefCell::new(String::new());
    let probe = async || {
        let scrape = Scrape::of(world).await;
        let wrong = expected
            .iter()
            .find(|(series, value)| scrape.values.get(*series) != Some(value));
        if let Some((series, _)) = wrong {
            *last.borrow_mut() = format!("{series}: {:?}", scrape.values.get(*series));
        }
        wrong.is_none().then_some(scrape)
    };
    let reached = tokio::time::timeout(std::time::Duration::from_secs(15), until("x", probe)).await;
    reached.unwrap_or_else(|_| panic!("{}", last.borrow()))
}

const ERP: &[u8] = b"From: erp@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";
const SCAN: &[u8] = b"From: scanner@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";
const ENDPOINTS: &str = r#"[{"id":10,"serviceArea":"Exchange","ips":["127.0.40.0/24"]}]"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_family_of_the_contract_moves_as_the_mail_does() {
    let around = Surroundings::new().await;
    std::fs::write(around.folder.path().join("endpoints.json"), ENDPOINTS).unwrap();
    let mut changes = Changes::replace(
        "networks = [\"127.0.40.0/24\"]",
        "networks = [\"published\"]\nendpoints = \"endpoints.json\"",
    );
    let slowly = ("retry = [\"1s\"]", "retry = [\"30m\"]".to_owned());
    changes.replace.push(slowly);
    let world = World::within(around, changes).await;
    let admin = world.host.admin_address();

    // Before anything has happened all of it is there, with exactly its labels.
    let start = Scrape::of(&world).await;
    for (name, kind, labels) in CONTRACT {
        assert_eq!(
            start.types.get(*name).map(String::as_str),
            Some(*kind),
            "{name}"
        );
        let series: Vec<_> = start
            .values
            .keys()
            .filter(|series| {
                series
                    .split('{')
                    .next()
                    .unwrap()
                    .trim_end_matches("_bucket")
                    == *name
            })
            .collect();
        assert!(!series.is_empty(), "{name}: {}", start.text);
        for one in series {
            let own = one
                .split_once('{')
                .map_or("", |(_, rest)| rest.trim_end_matches('}'));
            let own: Vec<_> = own
                .split("\",")
                .map(|label| label.split('=').next().unwrap())
                .collect();
            let own: Vec<_> = own.into_iter().filter(|label| *label != "le").collect();
            assert_eq!(own.join(","), *labels, "{one}");
        }
    }
    assert_eq!(
        start.value(&format!(
            "build_info{{version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        )),
        1.0
    );
    let left = start.value("certificate_expiry_seconds{name=\"contoso\"}");
    assert!(
        (86_400.0..1e9).contains(&left),
        "seconds left, not a date: {left}"
    );
    let age = start.value("endpoints_age_seconds");
    assert!((0.0..86_400.0).contains(&age), "seconds, not a date: {age}");

    // Proven mail, an application's, a wrong password, half a proof, no proof.
    let outbound = |mail| world.outbound(&world.around.contoso, mail);
    let sent = world
        .exchange_out()
        .send(&outbound(Mail::new(
            "ada@contoso.com",
            "bob@contoso.com",
            LETTER,
        )))
        .await;
    assert!(sent.unwrap().accepted());
    let sent = world
        .erp()
        .send(&Mail::new("erp@contoso.com", "bob@contoso.com", ERP))
        .await;
    assert!(sent.unwrap().accepted());
    let guess = world
        .application("apps")
        .login("erp", "wrong", Dialect::Login);
    assert!(
        !guess
            .send(&Mail::new("erp@contoso.com", "bob@contoso.com", ERP))
            .await
            .unwrap()
            .accepted()
    );
    let elsewhere = world
        .exchange_out()
        .from_address("127.0.41.1".parse().unwrap());
    let half = elsewhere
        .send(&outbound(Mail::new(
            "ada@contoso.com",
            "bob@contoso.com",
            LETTER,
        )))
        .await;
    assert_eq!(half.unwrap().deciding().code, 451);
    let bare = Outbound::bare(Mail::new("ada@contoso.com", "bob@contoso.com", LETTER));
    assert!(!world.exchange_out().send(&bare).await.unwrap().accepted());
    for _ in 0..2 {
        world.received().await;
    }
    let scrape = reaches(
        &world,
        &[
            ("messages_received_total{listener=\"exchange\",tenant=\"contoso\"}", 1.0),
            ("messages_received_total{listener=\"apps\",tenant=\"contoso\"}", 1.0),
            ("trust_verdicts_total{reason=\"\",tenant=\"contoso\",verdict=\"proven\"}", 1.0),
            ("trust_verdicts_total{reason=\"\",tenant=\"contoso\",verdict=\"application\"}", 1.0),
            ("trust_verdicts_total{reason=\"no_tenant\",tenant=\"none\",verdict=\"refused\"}", 1.0),
            ("messages_refused_total{listener=\"exchange\",reason=\"no_tenant\"}", 1.0),
            ("messages_refused_total{listener=\"exchange\",reason=\"half_proven_defer\"}", 1.0),
            ("half_proven_total{holds=\"certificate\",listener=\"exchange\"}", 1.0),
            ("authentications_total{listener=\"apps\",result=\"accepted\"}", 1.0),
            ("authentications_total{listener=\"apps\",result=\"rejected\"}", 1.0),
            ("connections_total{listener=\"exchange\",result=\"accepted\"}", 3.0),
            ("connections_total{listener=\"apps\",result=\"accepted\"}", 2.0),
            ("connections_open{listener=\"apps\"}", 0.0),
            ("deliveries_total{outcome=\"delivered\",stream=\"\",tenant=\"contoso\",via=\"exchange\"}", 2.0),
            ("delivery_duration_seconds_count{tenant=\"contoso\",via=\"exchange\"}", 2.0),
            ("queue_messages{state=\"ready\",tenant=\"contoso\",via=\"exchange\"}", 0.0),
            ("queue_messages{state=\"active\",tenant=\"contoso\",via=\"exchange\"}", 0.0),
            ("queue_oldest_seconds{tenant=\"contoso\",via=\"exchange\"}", 0.0),
        ],
    )
    .await;
    let handshakes = ["full", "resumed"].map(|result| {
        let series = format!("tls_handshakes_total{{listener=\"exchange\",result=\"{result}\"}}");
        scrape.values.get(&series).copied().unwrap_or_default()
    });
    assert_eq!(handshakes.iter().sum::<f64>(), 3.0);
    let took = scrape.value("delivery_duration_seconds_sum{tenant=\"contoso\",via=\"exchange\"}");
    assert!(took < 20.0, "seconds, not milliseconds: {took}");
    // Each of the two lies on disk because of a sync that was measured.
    let syncs = scrape.value("store_sync_duration_seconds_count");
    assert!(
        syncs > start.value("store_sync_duration_seconds_count"),
        "{syncs}"
    );
    assert!(scrape.value("store_sync_duration_seconds_sum") < 20.0);

    // What Exchange puts off waits, and grows old; what an operator holds is held; a null sender's failure is untold.
    let exchange = &world.around.exchange;
    exchange.script(Step::reply(Phase::Rcpt, "451 4.3.2 later").always());
    for to in ["bob@contoso.com", "eve@contoso.com"] {
        let sent = world
            .erp()
            .send(&Mail::new("erp@contoso.com", to, ERP))
            .await;
        assert!(sent.unwrap().accepted());
    }
    let deferred = "queue_messages{state=\"deferred\",tenant=\"contoso\",via=\"exchange\"}";
    let held = "queue_messages{state=\"held\",tenant=\"contoso\",via=\"exchange\"}";
    reaches(&world, &[(deferred, 2.0), (held, 0.0)]).await;
    let id = world.host.spool().scan(1, 0)[0].id.parse().unwrap();
    let hold = gatepost::spool::QueueAction::Hold;
    assert_eq!(world.host.spool().act(Some(id), None, hold, 0), 1);
    let oldest = "queue_oldest_seconds{tenant=\"contoso\",via=\"exchange\"}";
    let first = reaches(&world, &[(deferred, 1.0), (held, 1.0)])
        .await
        .value(oldest);
    let later = until("an older queue", async || {
        Some(Scrape::of(&world).await.value(oldest)).filter(|later| *later > first)
    });
    assert!(later.await < 20.0, "seconds");
    exchange.forget_script();
    exchange.script(Step::reply(
        Phase::Rcpt,
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found",
    ));
    let scan = Mail::new("", "gone@contoso.com", SCAN);
    assert!(world.scanner().send(&scan).await.unwrap().accepted());
    reaches(
        &world,
        &[
            ("deliveries_total{outcome=\"failed\",stream=\"\",tenant=\"contoso\",via=\"exchange\"}", 1.0),
            ("deliveries_total{outcome=\"deferred\",stream=\"\",tenant=\"contoso\",via=\"exchange\"}", 2.0),
            ("bounces_total{class=\"untold\",tenant=\"contoso\"}", 1.0),
            ("bounces_total{class=\"failure\",tenant=\"contoso\"}", 0.0),
            ("connections_total{listener=\"printers\",result=\"accepted\"}", 1.0),
            (deferred, 1.0),
        ],
    )
    .await;
    // And a certificate that is not configured any more is not counted down.
    let text = scrape_after_reload(&world).await;
    assert!(
        !text.contains("name=\"fabrikam\"")
            && text.contains("certificate_expiry_seconds{name=\"contoso\"}")
    );

    promtool(&["check", "metrics"], Path::new("."), &text);
    let (status, ready) = get(admin, "/readyz", &[]).await;
    assert_eq!((status, ready.as_str()), (200, "ready\n"));
    world.host.stop().await;
}

/// `/metrics` once the certificate of fabrikam is gone from the configuration.
async fn scrape_after_reload(world: &World) -> String {
    let path = world.around.configuration([0; 3], &Changes::default());
    let text = std::fs::read_to_string(&path).unwrap();
    let certificate =
        "[[certificate]]\nname = \"fabrikam\"\nchain = \"fabrikam.pem\"\nkey = \"fabrikam.key\"\n";
    let start = text.find("[[tenant]]\nname = \"fabrikam\"").unwrap();
    let end = text.find("[[application]]").unwrap();
    let text = [&text[..start], &text[end..]]
        .concat()
        .replace(certificate, "");
    std::fs::write(&path, text).unwrap();
    let loaded = gatepost::config::load(&path).unwrap();
    let settings = loaded
        .settings
        .unwrap_or_else(|| panic!("{:?}", loaded.problems));
    world.host.reload(settings).unwrap();
    scrape(world.host.admin_address()).await
}

/// Runs `promtool` where it is there, as in CI; its complaints are failures.
fn promtool(arguments: &[&str], folder: &Path, input: &str) {
    use std::io::Write as _;
    let started = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            eprintln!(
                "SKIPPED: promtool {arguments:?} was not run: {error}; it is in the package prometheus"
            );
            return;
        }
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn the_alert_rules_are_rules_and_fire_when_they_must() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    promtool(&["check", "rules", "alerts.yml"], &folder, "");
    promtool(&["test", "rules", "alerts-test.yml"], &folder, "");
}
