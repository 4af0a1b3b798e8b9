//! What an operator asks and orders: the admin API and the commands that use it.

use crate::harness::{Changes, LETTER, Said, World, gatepost, get, http, last_word, until};
use gatepost::lab::{Mail, Phase, Step};
use gatepost::message_trace::Event;
use serde_json::json;
use std::path::PathBuf;

const ERP: &[u8] = b"From: erp@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";

/// The application's mail to a recipient whom Exchange puts off; its id.
async fn put_off(world: &World, recipient: &str) -> String {
    let mail = Mail::new("erp@contoso.com", recipient, ERP);
    let answer = world.erp().send(&mail).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let id = last_word(answer.deciding());
    until("a first attempt", async || {
        let events = world.trace(&id).await;
        let attempt = |event: &Event| matches!(event, Event::Attempt { .. });
        events.iter().any(|one| attempt(&one.event)).then_some(())
    })
    .await;
    id
}

/// A world in which Exchange takes nothing for now, and the next attempt is far.
async fn stalled() -> (World, PathBuf) {
    let changes = Changes::replace("retry = [\"1s\"]", "retry = [\"30m\"]");
    let world = World::with(changes).await;
    let later = Step::reply(Phase::Rcpt, "451 4.3.2 later");
    world.around.exchange.script(later.always());
    let config = world.command_line();
    (world, config)
}

async fn state(config: &std::path::Path, id: &str) -> String {
    let shown = gatepost(config, &["queue", "show", id, "--json"]).await;
    assert_eq!(shown.status, 0, "{shown:?}");
    shown.json()[0]["state"].as_str().unwrap().to_owned()
}

fn assert_nothing(said: &Said, id: &str) {
    assert_eq!(said.status, 1, "{said:?}");
    let text = format!("no message {id} is queued");
    assert!(said.err.contains(&text), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_wants_its_token_and_a_host_of_its_own() {
    let changes = Changes {
        append: "hosts = [\"gatepost.contoso.com\"]\n".to_owned(),
        ..Changes::default()
    };
    let world = World::with(changes).await;
    let admin = world.host.admin_address();
    let bearer = format!("Bearer {}", world.token());
    let token = ("Authorization", bearer.as_str());
    for path in [
        "/api/queue",
        "/api/trace?text=x",
        "/api/queue/0000000000001",
        "/api/nothing",
        "/api",
        "/",
        "/nothing",
        "//api/queue",
    ] {
        assert_eq!(get(admin, path, &[]).await.0, 401, "{path}");
        let wrong = ("Authorization", "Bearer 0123456789abcdef");
        assert_eq!(get(admin, path, &[wrong]).await.0, 401, "{path}");
        let basic = ("Authorization", bearer.trim_start_matches("Bearer "));
        assert_eq!(get(admin, path, &[basic]).await.0, 401, "{path}");
        let rebound = get(admin, path, &[token, ("Host", "evil.example")]).await;
        assert_eq!(
            rebound.0, 421,
            "{path}: a page of another name (DNS rebinding)"
        );
    }
    let act = "{\"tenant\":\"contoso\"}";
    let refused = http(admin, "POST", "/api/queue/delete", &[], act).await;
    assert_eq!(refused.unwrap().0, 401);
    for host in [
        "localhost",
        "localhost:8025",
        "gatepost.contoso.com",
        "GATEPOST.contoso.com:80",
        "127.0.0.1",
    ] {
        let answer = get(admin, "/api/queue", &[token, ("Host", host)]).await;
        assert_eq!(answer, (200, "[]".to_owned()), "{host}");
    }
    let twice = [token, ("Host", "localhost"), ("Host", "evil.example")];
    assert!((400..500).contains(&get(admin, "/api/queue", &twice).await.0));
    for path in ["/api/nothing", "/api", "/", "//api/queue"] {
        assert_eq!(get(admin, path, &[token]).await.0, 404, "{path}");
    }
    let lower = bearer.replace("Bearer", "bearer");
    let lower = ("Authorization", lower.as_str());
    assert_eq!(get(admin, "/api/queue", &[lower]).await.0, 200);
    assert_eq!(get(admin, "/api/queue?limit=many", &[token]).await.0, 400);
    assert_eq!(get(admin, "/api/queue?after=there", &[token]).await.0, 400);
    for path in ["/metrics", "/healthz", "/readyz"] {
        let answer = get(admin, path, &[("Host", "evil.example")]).await;
        assert_eq!(answer.0, 200, "{path} is open to everyone");
        assert!(!answer.1.contains(&world.token()), "{path}");
    }
    // A new token and a new name without a restart; the old ones are of the past.
    let changes = Changes {
        append: "hosts = [\"new.contoso.com\"]\ntoken = \"another-token-of-ours\"\n".to_owned(),
        ..Changes::default()
    };
    world.host.reload(world.around.settings(&changes)).unwrap();
    assert_eq!(get(admin, "/api/queue", &[token]).await.0, 401);
    let token = ("Authorization", "Bearer another-token-of-ours");
    for (host, status) in [("new.contoso.com", 200), ("gatepost.contoso.com", 421)] {
        let answer = get(admin, "/api/queue", &[token, ("Host", host)]).await;
        assert_eq!(answer.0, status, "{host}");
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_goes_out_though_exchange_has_asked_for_less() {
    let (world, config) = stalled().await;
    world.around.exchange.forget_script();
    let busy = Step::reply(
        Phase::Rcpt,
        "451 4.7.500 Server busy. Please try again later",
    );
    world.around.exchange.script(busy.times(1));
    let first = put_off(&world, "bob@contoso.com").await;
    let mail = Mail::new("erp@contoso.com", "eve@contoso.com", ERP);
    let answer = world.erp().send(&mail).await.unwrap();
    let second = last_word(answer.deciding());
    // New mail waits with its queue, and the list says until when.
    let row = until("the pause to be told", async || {
        let shown = gatepost(&config, &["queue", "show", &second, "--json"]).await;
        let row = shown.json()[0].clone();
        (row["state"] == "deferred").then_some(row)
    })
    .await;
    let minutes = (row["next_try"].as_u64().unwrap() - row["arrived"].as_u64().unwrap()) / 60_000;
    assert!((25..=30).contains(&minutes), "{row}");
    let said = gatepost(&config, &["queue", "retry", &first]).await;
    assert_eq!((said.status, &*said.out), (0, "retry: 1 message(s)\n"));
    let mut received = Vec::new();
    for _ in 0..2 {
        let message = world.received().await;
        received.push(message.recipients[0].address.clone());
    }
    received.sort();
    assert_eq!(received, ["bob@contoso.com", "eve@contoso.com"]);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_orders_and_each_order_stands_in_the_story() {
    let (world, config) = stalled().await;
    let first = put_off(&world, "bob@contoso.com").await;
    let second = put_off(&world, "eve@contoso.com").await;

    let listed = gatepost(&config, &["queue", "list", "--json"]).await;
    let rows = listed.json();
    assert_eq!((listed.status, rows.as_array().unwrap().len()), (0, 2));
    let row = &rows[0];
    assert!(row["next_try"].as_u64() > row["arrived"].as_u64(), "{row}");
    let part = |key: &str| row[key].clone();
    let told = ["id", "tenant", "via", "state", "sender", "recipients"].map(part);
    let expected = json!([
        first,
        "contoso",
        "exchange",
        "deferred",
        "erp@contoso.com",
        ["bob@contoso.com"]
    ]);
    assert_eq!(json!(told), expected);
    let listed = gatepost(&config, &["queue", "list"]).await;
    assert!(
        listed.out.contains(&format!("{second}  deferred")),
        "{listed:?}"
    );
    let shown = gatepost(&config, &["queue", "show", &first.to_lowercase()]).await;
    assert!(
        shown.out.contains("451 4.3.2 later") && !shown.out.contains(&second),
        "{shown:?}"
    );

    let order = async |words: &[&str]| {
        let said = gatepost(&config, &[&["queue"], words].concat()).await;
        assert_eq!(said.status, 0, "{said:?}");
        said
    };
    order(&["hold", &first]).await;
    assert_eq!(state(&config, &first).await, "held");
    let held = gatepost(&config, &["queue", "show", &first, "--json"]).await;
    assert!(held.json()[0]["next_try"].is_null(), "{held:?}");
    // Exchange takes mail again: what is held stays all the same.
    world.around.exchange.forget_script();
    let said = order(&["retry", "--tenant", "contoso"]).await;
    assert_eq!(said.out, "retry: 1 message(s)\n");
    assert!(
        said.err
            .contains("1 message(s) left alone, for an operator holds them"),
        "{said:?}"
    );
    let said = gatepost(&config, &["queue", "retry", &first, "--json"]).await;
    assert_eq!(
        (said.status, said.json()),
        (1, json!({ "messages": 0, "held": 1 }))
    );
    let received = world.received().await;
    assert_eq!(received.recipients[0].address, "eve@contoso.com");
    order(&["release", &first]).await;
    let received = world.received().await;
    assert_eq!(received.recipients[0].address, "bob@contoso.com");

    let later = Step::reply(Phase::Rcpt, "451 4.3.2 later");
    world.around.exchange.script(later.always());
    let third = put_off(&world, "zoe@contoso.com").await;
    let said = order(&["delete", &third, "--json"]).await;
    assert_eq!(said.json(), json!({ "messages": 1 }));
    let actions = async |id: &str| -> Vec<String> {
        let actions = world.trace(id).await.into_iter();
        let actions = actions.filter_map(|event| match event.event {
            Event::Operator { action } => Some(action),
            _ => None,
        });
        actions.collect()
    };
    assert_eq!(actions(&first).await, ["hold", "release"]);
    assert_eq!(actions(&second).await, ["retry"]);
    assert_eq!(actions(&third).await, ["delete"]);
    let story = gatepost(&config, &["trace", &third]).await;
    assert!(
        story.out.starts_with(&format!("{third}  deleted\n")),
        "{story:?}"
    );
    assert!(story.out.contains("an operator said delete"), "{story:?}");
    let story = gatepost(&config, &["trace", &third, "--json"]).await;
    let words: Vec<_> = story
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].clone())
        .collect();
    assert_eq!(json!(words), json!(["received", "attempt", "operator"]));

    // What is not there.
    for id in [third.as_str(), "0000000000000", "nonsense", "../x?y"] {
        for word in ["show", "retry", "hold", "release", "delete"] {
            assert_nothing(&gatepost(&config, &["queue", word, id]).await, id);
        }
    }
    let nobody = gatepost(&config, &["queue", "show", &third, "--json"]).await;
    assert_eq!((nobody.status, nobody.json()), (1, json!([])));
    let nobody = gatepost(&config, &["queue", "retry", "--tenant", "fabrikam"]).await;
    assert_eq!(nobody.status, 1);
    assert!(
        nobody
            .err
            .contains("no message of tenant fabrikam is queued"),
        "{nobody:?}"
    );
    let nobody = gatepost(&config, &["trace", "nobody@contoso.com"]).await;
    assert_eq!((nobody.status, nobody.out.as_str()), (1, "nothing found\n"));
    assert_eq!(
        gatepost(&config, &["queue", "retry"]).await.status,
        2,
        "which?"
    );

    let admin = world.host.admin_address();
    world.host.stop().await;
    for words in [
        &["queue", "list"][..],
        &["queue", "retry", &third],
        &["trace", &third],
    ] {
        let said = gatepost(&config, words).await;
        assert_eq!((said.status, said.out.as_str()), (1, ""));
        assert!(
            said.err
                .contains(&format!("no running server answers at http://{admin}")),
            "{said:?}"
        );
    }
    std::fs::remove_file(world.around.folder.path().join("data/admin.token")).unwrap();
    let said = gatepost(&config, &["queue", "list"]).await;
    assert!(
        said.status == 1 && said.err.contains("admin.token"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_configuration_is_told_as_such() {
    let world = World::start().await;
    let config = world.command_line();
    let path = world.around.folder.path().join("data/admin.token");
    std::fs::write(path, "0123456789abcdef0123456789abcdef\n").unwrap();
    let said = gatepost(&config, &["queue", "list"]).await;
    assert!(
        said.status == 1 && said.err.contains("does not take the token"),
        "{said:?}"
    );
    assert!(!said.err.contains("0123456789abcdef"), "{said:?}");
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_has_each_step_and_every_name_of_the_message_leads_to_it() {
    let world = World::start().await;
    let config = world.command_line();
    // Put off once, then held for a fault of the connector, then delivered.
    let exchange = &world.around.exchange;
    exchange.script(Step::reply(Phase::Rcpt, "451 4.7.500 Server busy"));
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com", LETTER);
    let outbound = world.outbound(&world.around.contoso, mail);
    let answer = world.exchange_out().send(&outbound).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let id = last_word(answer.deciding());
    until("the first attempt", async || {
        (world.trace(&id).await.len() > 1).then_some(())
    })
    .await;
    exchange.script(Step::reply(
        Phase::Mail,
        "550 5.7.64 TenantAttribution; Relay Access Denied",
    ));
    exchange.received().await.unwrap();
    let story = until("the delivery", async || {
        let said = gatepost(&config, &["trace", &id, "--json"]).await;
        said.out.contains("\"delivered\"").then_some(said)
    })
    .await
    .json();
    let events = story.as_array().unwrap();
    let received = &events[0];
    assert_eq!(
        (
            &received["event"],
            &received["verdict"],
            &received["transfer"]
        ),
        (&json!("received"), &json!("proven"), &json!("BDAT"))
    );
    assert_eq!(
        received["legs"],
        json!([{ "via": "exchange", "stamped": false, "recipients": ["bob@contoso.com"] }])
    );
    let tls = &received["tls"];
    assert!(
        tls["version"] == "TLS1.3" && tls["cipher"].as_str().unwrap().starts_with("TLS_"),
        "{tls}"
    );
    assert_eq!(tls["peer_name"], "mail.protection.outlook.com");
    let kinds: Vec<_> = received["evidence"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            assert!(item["state"].is_string(), "{item}");
            item["kind"].as_str().unwrap()
        })
        .collect();
    for kind in ["network", "certificate", "originator_org"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    let attempts: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "attempt")
        .collect();
    let results: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt["results"][0].clone())
        .collect();
    let outcomes: Vec<_> = results
        .iter()
        .map(|result| result["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["deferred", "held", "delivered"], "{story}");
    assert!(
        results[0]["reply"]
            .as_str()
            .unwrap()
            .starts_with("451 4.7.500 Server busy"),
        "{story}"
    );
    assert!(
        results[1]["reply"]
            .as_str()
            .unwrap()
            .starts_with("550 5.7.64 "),
        "{story}"
    );
    assert!(
        results[0]["next_try"].is_u64()
            && results[1]["next_try"].is_u64()
            && results[2]["next_try"].is_null()
    );
    for attempt in &attempts {
        assert_eq!(
            (&attempt["via"], &attempt["tenant"]),
            (&json!("exchange"), &json!("contoso"))
        );
        assert!(
            attempt["address"].as_str().unwrap().starts_with("127."),
            "{attempt}"
        );
        assert!(
            attempt["took"].is_u64() && attempt["reused"].is_boolean(),
            "{attempt}"
        );
        assert!(
            attempt["tls"]["version"] == "TLS1.3" && attempt["tls"]["peer_name"].is_string(),
            "{attempt}"
        );
    }
    let text = gatepost(&config, &["trace", &id]).await.out;
    assert!(text.starts_with(&format!("{id}  delivered\n")), "{text}");

    // Whatever the mail is known by, and the time alone.
    let network_id = received["network_message_id"].as_str().unwrap().to_owned();
    for key in [
        "<1@contoso.com>",
        "1@contoso.com",
        network_id.as_str(),
        "ADA@contoso.com",
        "bob@contoso.com",
        &id.to_lowercase(),
    ] {
        let said = gatepost(&config, &["trace", key, "--json"]).await;
        assert_eq!(said.json(), story, "{key}");
    }
    let said = gatepost(&config, &["trace", "--since", "1h", "--json"]).await;
    assert_eq!(said.json(), story);
    for late in [
        &["trace", &id, "--until", "2020-01-01"][..],
        &["trace", "--since", "2099-01-01"],
    ] {
        let said = gatepost(&config, late).await;
        assert_eq!(said.status, 1, "{said:?}");
    }
    assert_eq!(
        gatepost(&config, &["trace", "--since", "yesterday"])
            .await
            .status,
        2
    );
    assert_eq!(gatepost(&config, &["trace"]).await.status, 2);
    // Also beyond ASCII.
    let own = String::from_utf8(LETTER.to_vec()).unwrap();
    let own = own.replacen(
        "Message-ID: <1@contoso.com>",
        "Message-ID: <\u{e9}2@contoso.com>",
        1,
    );
    assert!(own.contains("\u{e9}2"), "{own}");
    let accented =
        Mail::new("ada@contoso.com", "j\u{fc}rgen@contoso.com", own).parameter("SMTPUTF8");
    let outbound = world.outbound(&world.around.contoso, accented);
    let answer = world.exchange_out().send(&outbound).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    for (key, shown) in [
        ("j\u{fc}rgen@contoso.com", r"j\xc3\xbcrgen@contoso.com"),
        ("<\u{e9}2@contoso.com>", r"<\xc3\xa92@contoso.com>"),
    ] {
        for key in [key, shown] {
            let said = gatepost(&config, &["trace", key]).await;
            assert_eq!(said.status, 0, "{key}: {said:?}");
            assert!(said.out.contains(r"j\xc3\xbcrgen@contoso.com"), "{said:?}");
        }
    }
    world.host.stop().await;
}
