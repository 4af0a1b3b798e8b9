//! No secret is told by anything that the server or a command says, at any level of the log (product.md 10): whether it is
//! ours, a right one that a peer brought, or a wrong one, which may be right elsewhere or lack a letter.

use crate::harness::{
    Changes, LETTER, PASSWORD, Surroundings, gatepost, get, http, last_word, until,
};
use crate::logs::Told;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost::lab::certificates::Leaf;
use gatepost::lab::{
    ApplicationClient, Client, Dialect, Mail, Outbound, Outside, OutsideOptions, Phase, Security,
    Step,
};
use std::path::Path;

const TOKEN: &str = "token-of-the-admin-api-4711";
const OLD_GATE: &str = "contoso-older-gate-value";
const OLD_LOOP: &str = "contoso-older-loop-value";
const RELAY: &str = "relay-sesame-0815";
/// What a peer tries.
const GUESSES: [&str; 5] = [
    "guessed-gate-value-17",
    "guessed-password-18",
    "guessed-token-of-the-api-19",
    "guessed-loop-value-20",
    "tiny-token-21",
];

/// What must not stand anywhere, in the forms in which it might.
fn needles(folder: &Path) -> Vec<String> {
    let gates = [
        "contoso-secret",
        "contoso-loop",
        "fabrikam-secret",
        "fabrikam-loop",
    ];
    let own = [TOKEN, OLD_GATE, OLD_LOOP, RELAY, PASSWORD];
    let mut needles = Vec::new();
    for secret in gates.iter().chain(&own).chain(&GUESSES) {
        needles.push((*secret).to_owned());
        needles.push(STANDARD.encode(secret).trim_end_matches('=').to_owned());
        // As Rust prints octets.
        let octets = format!("{:?}", secret.as_bytes());
        needles.push(octets.trim_matches(['[', ']']).to_owned());
    }
    for (user, password) in [("erp", PASSWORD), ("erp", GUESSES[1]), ("gatepost", RELAY)] {
        let message = STANDARD.encode(format!("\0{user}\0{password}"));
        needles.push(message.trim_end_matches('=').to_owned());
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            let pem = std::fs::read_to_string(path).unwrap();
            let lines = pem
                .lines()
                .filter(|line| !line.starts_with("-----") && line.len() > 20);
            needles.extend(lines.map(str::to_owned));
        }
    }
    let config = std::fs::read_to_string(folder.join("gatepost.toml")).unwrap();
    let hash = config.split("password_hash = \"").nth(1).unwrap();
    needles.push(
        hash.split('"')
            .next()
            .unwrap()
            .rsplit('$')
            .next()
            .unwrap()
            .to_owned(),
    );
    needles
}

struct Search {
    needles: Vec<String>,
    looked: usize,
}

impl Search {
    fn look(&mut self, what: &str, text: &[u8]) {
        self.looked += text.len();
        let text = String::from_utf8_lossy(text);
        for needle in &self.needles {
            let found = text.find(needle.as_str());
            let around = found.map(|at| text[..at].chars().rev().take(120).collect::<Vec<_>>());
            let around = around.map(|letters| letters.into_iter().rev().collect::<String>());
            assert!(found.is_none(), "{what} tells {needle:?} behind {around:?}");
        }
    }

    fn look_into(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.look_into(&path);
            } else {
                self.look(&path.display().to_string(), &std::fs::read(&path).unwrap());
            }
        }
    }
}

fn changes(relay: &Outside) -> Changes {
    let mut changes = Changes::replace(
        "\n[[route]]\nrecipients = \"any\"\nvia = \"exchange\"\n",
        "\n[[route]]\nrecipients = \"accepted\"\nvia = \"exchange\"\n[[route]]\nrecipients = \"any\"\nvia = \"relay:upstream\"\n",
    );
    changes.replace.push((
        "value = \"contoso-secret\"",
        format!("value = \"contoso-secret\", previous = \"{OLD_GATE}\""),
    ));
    changes.replace.push((
        "value = \"contoso-loop\"",
        format!("value = \"contoso-loop\", previous = \"{OLD_LOOP}\""),
    ));
    let slowly = ("retry = [\"1s\"]", "retry = [\"30m\"]".to_owned());
    changes.replace.push(slowly);
    let port = relay.address().port();
    changes.append = format!(
        "token = \"${{file:token}}\"\n[log]\nlevel = \"trace\"\n[[relay]]\nname = \"upstream\"\nhost = \"{}\"\nport = {port}\n\
         tls = \"encrypt\"\nusername = \"gatepost\"\npassword = \"{RELAY}\"\n",
        relay.address().ip()
    );
    changes
}

/// Logins, right and wrong, in the forms in which they come, and such as are none.
async fn log_in(told: &Told) {
    let roots = told.around.authority.roots().unwrap();
    let apps =
        || ApplicationClient::new(told.listener(1), crate::harness::HOSTNAME, &roots).unwrap();
    let content = b"From: erp@contoso.com\r\nSubject: s\r\nX-contoso-Gate: contoso-secret\r\n\
        X-Gatepost-Processed: contoso-loop\r\n\r\nbody\r\n";
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", &content[..]);
    for dialect in [
        Dialect::Plain,
        Dialect::PlainOnRequest,
        Dialect::Login,
        Dialect::LoginWithName,
    ] {
        let good = apps().login("erp", PASSWORD, dialect).send(&mail).await;
        assert!(good.unwrap().accepted());
    }
    for (name, dialect) in [
        ("erp", Dialect::Plain),
        ("erp", Dialect::Login),
        ("nobody", Dialect::LoginWithName),
    ] {
        let bad = apps().login(name, GUESSES[1], dialect).send(&mail).await;
        assert!(!bad.unwrap().accepted());
    }
    let clear = apps()
        .security(Security::Clear)
        .login("erp", PASSWORD, Dialect::Plain);
    assert!(clear.send(&mail).await.is_err() || !clear.send(&mail).await.unwrap().accepted());
    let mut client = Client::connect(told.listener(2), None).await.unwrap();
    client.reply().await.unwrap();
    client.ehlo("x").await.unwrap();
    let plain = STANDARD.encode(format!("\0erp\0{PASSWORD}"));
    for line in [
        format!("AUTH PLAIN {plain}"),
        format!("AUTH PLAIN !{PASSWORD}!"),
        format!("AUTH SECRET {plain}"),
        format!("AUTH {plain}"),
        plain.clone(),
        PASSWORD.to_owned(),
        format!("MAIL FROM:<erp@contoso.com> AUTH={plain}"),
        format!("VRFY {PASSWORD}"),
    ] {
        assert!(client.command(&line).await.unwrap().code >= 250, "{line}");
    }
}

/// Exchange's mail with the right gate, a former one, a wrong one, and a loop.
async fn pass_the_gate(told: &Told) -> String {
    let around = &told.around;
    let id = "0d6f9b1c-0000-4000-8000-000000000001";
    let outbound = |organization: &gatepost::lab::Organization, to: &str, content: Vec<u8>| {
        Outbound::stamped(organization, Mail::new("ada@contoso.com", to, content), id).unwrap()
    };
    let out = around.exchange_out(told.listener(0));
    let out = async |outbound: &Outbound| out.send(outbound).await.unwrap();
    let gated = |value: &str| {
        let mut organization = around.contoso.clone();
        let value = gatepost::mail::Secret::new(value);
        organization.secret_header = Some(("X-contoso-Gate".to_owned(), value));
        organization
    };
    let sent = out(&outbound(
        &around.contoso,
        "r@partner.example",
        LETTER.to_vec(),
    ))
    .await;
    assert!(sent.accepted(), "{sent:?}");
    let by_relay = last_word(sent.deciding());
    let sent = out(&outbound(
        &gated(OLD_GATE),
        "bob@contoso.com",
        LETTER.to_vec(),
    ))
    .await;
    assert!(sent.accepted(), "{sent:?}");
    let sent = out(&outbound(
        &gated(GUESSES[0]),
        "bob@contoso.com",
        LETTER.to_vec(),
    ))
    .await;
    assert_eq!(sent.deciding().enhanced, Some((5, 7, 1)), "{sent:?}");
    for value in ["contoso-loop", OLD_LOOP] {
        let looped = [
            format!("X-Gatepost-Processed: {value}\r\n").as_bytes(),
            LETTER,
        ]
        .concat();
        let sent = out(&Outbound::bare(Mail::new(
            "ada@contoso.com",
            "bob@contoso.com",
            looped.clone(),
        )))
        .await;
        assert!(!sent.accepted(), "{sent:?}");
        let mut organization = around.contoso.clone();
        organization.loop_header = None;
        if let Some(outbound) = Outbound::stamped(
            &organization,
            Mail::new("ada@contoso.com", "bob@contoso.com", looped),
            id,
        ) {
            assert!(!out(&outbound).await.accepted());
        }
    }
    let other = [
        format!("X-Gatepost-Processed: {}\r\n", GUESSES[3]).as_bytes(),
        LETTER,
    ]
    .concat();
    let sent = out(&Outbound::bare(Mail::new(
        "ada@contoso.com",
        "bob@contoso.com",
        other,
    )))
    .await;
    assert!(!sent.accepted());
    by_relay
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_told_by_anything_at_any_level() {
    let around = Surroundings::new().await;
    let relay = Outside::start(OutsideOptions {
        identity: Some(
            around
                .authority
                .issue(&Leaf::named("relay.example.net"))
                .unwrap(),
        ),
        login: Some(("gatepost".to_owned(), RELAY.to_owned())),
        mechanisms: "PLAIN LOGIN".to_owned(),
        ..OutsideOptions::default()
    })
    .await
    .unwrap();
    let token = around.folder.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    // What Exchange puts off stays in the queue, so that there is something on disk to look at.
    around
        .exchange
        .script(Step::reply(Phase::Rcpt, "451 4.3.2 later").always());
    let told = Told::start(around, changes(&relay)).await;
    let folder = told.around.folder.path().to_owned();
    let mut search = Search {
        needles: needles(&folder),
        looked: 0,
    };

    log_in(&told).await;
    let by_relay = pass_the_gate(&told).await;
    let carried = relay.received().await.unwrap();
    assert_eq!(
        carried.login.as_deref(),
        Some("gatepost"),
        "AUTH was spoken"
    );
    let config = told.config.clone();
    until("the story of the relay", async || {
        let said = gatepost(&config, &["trace", &by_relay]).await;
        said.out.contains("delivered").then_some(())
    })
    .await;

    // The admin API, with and without its token, and reloads.
    let text = std::fs::read_to_string(&config).unwrap();
    let admin = text.rsplit_once("[admin]\naddress = \"").unwrap().1;
    let admin = admin.split('"').next().unwrap().parse().unwrap();
    let right = format!("Bearer {TOKEN}");
    let wrong = format!("Bearer {}", GUESSES[2]);
    for (bearer, status) in [(&right, 200), (&wrong, 401)] {
        for path in ["/api/queue", "/api/trace?since=0", "/metrics", "/readyz"] {
            let (answer, body) = get(admin, path, &[("Authorization", bearer)]).await;
            assert!(
                answer == status || !path.starts_with("/api"),
                "{path}: {answer}"
            );
            search.look(path, body.as_bytes());
        }
        let act = format!("{{\"tenant\":\"{TOKEN}\",\"odd\":1}}");
        let headers = [("Authorization", bearer.as_str())];
        let answer = http(admin, "POST", "/api/queue/retry", &headers, &act).await;
        let (_, body) = answer.unwrap();
        let unknown_key_alone = body.replace(TOKEN, "");
        search.look("POST", unknown_key_alone.as_bytes());
    }
    // One that is warned of, one that is refused, and the right one again.
    for (round, (value, told_of)) in [
        (GUESSES[4], "can be guessed"),
        ("", "not reloaded"),
        (TOKEN, "reloaded"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = told.read("stderr").matches(told_of).count();
        std::fs::write(&token, value).unwrap();
        told.signal("-HUP");
        until(&format!("reload {round}"), async || {
            let log = told.read("stderr");
            (log.matches(told_of).count() > before).then_some(())
        })
        .await;
    }

    // The commands.
    let letter = folder.join("letter.eml");
    let gate = |value: &str| {
        format!(
            "X-contoso-Gate: {value}\r\nX-Gatepost-Processed: {}\r\n",
            GUESSES[3]
        )
    };
    let certificate = folder.join("peer.pem");
    std::fs::write(&certificate, told.around.exchange_identity.chain_pem()).unwrap();
    for value in ["contoso-secret", OLD_GATE, GUESSES[0]] {
        std::fs::write(&letter, [gate(value).as_bytes(), LETTER].concat()).unwrap();
        let question = [
            "explain",
            "trust",
            "--message",
            letter.to_str().unwrap(),
            "--from",
            "127.0.40.1",
            "--mail-from",
            "ada@contoso.com",
            "--certificate",
            certificate.to_str().unwrap(),
        ];
        for words in [question.to_vec(), [&question[..], &["--json"]].concat()] {
            let said = gatepost(&config, &words).await;
            assert!(
                said.out.contains("secret"),
                "the evidence is told: {said:?}"
            );
            search.look("explain trust", format!("{said:?}").as_bytes());
        }
    }
    for words in [
        &["check"][..],
        &["check", "--json"],
        &["queue", "list"],
        &["queue", "list", "--json"],
        &["trace", "--since", "1h"],
        &["trace", "--since", "1h", "--json"],
        &["queue", "hold", "--tenant", "contoso"],
    ] {
        let said = gatepost(&config, words).await;
        assert!(!said.out.is_empty(), "{words:?}: {said:?}");
        search.look(
            &words.join(" "),
            format!("{}\n{}", said.out, said.err).as_bytes(),
        );
    }
    // A configuration with faults in the very lines of secrets.
    let broken = folder.join("broken.toml");
    for (from, to) in [
        (
            format!("password = \"{RELAY}\""),
            format!("passwort = \"{RELAY}\""),
        ),
        (
            format!("password = \"{RELAY}\""),
            format!("password = \"{RELAY}"),
        ),
        (
            format!("password = \"{RELAY}\""),
            format!("password = [\"{RELAY}\"]"),
        ),
        (
            "value = \"contoso-secret\"".to_owned(),
            "value = \"contoso-secret \"".to_owned(),
        ),
        (
            "value = \"contoso-secret\"".to_owned(),
            "value = \"${contoso-secret\"".to_owned(),
        ),
        (
            "password_hash = \"".to_owned(),
            "password_hash = \"x".to_owned(),
        ),
        ("${file:token}".to_owned(), format!("{}${{", GUESSES[4])),
    ] {
        assert!(text.contains(&from), "{from}");
        std::fs::write(&broken, text.replace(&from, &to)).unwrap();
        for words in [
            &["check"][..],
            &["check", "--json"],
            &["queue", "list"],
            &["serve"],
        ] {
            let said = gatepost(&broken, words).await;
            assert!(said.status > 0, "{to}: {said:?}");
            search.look(
                &format!("{words:?} of {to}"),
                format!("{}\n{}", said.out, said.err).as_bytes(),
            );
        }
    }

    let (around, _) = told.stop().await;
    let data = around.folder.path().join("data");
    search.look(
        "standard output",
        &std::fs::read(folder.join("stdout")).unwrap(),
    );
    let log = std::fs::read(folder.join("stderr")).unwrap();
    assert!(
        String::from_utf8_lossy(&log).contains("bad_credentials"),
        "it was told what happened"
    );
    search.look("standard error", &log);
    search.look_into(&data.join("trace"));
    assert!(search.looked > 20_000, "{} octets", search.looked);
    // In the queue the gate's value is blanked as well (product.md 4); our own loop header waits there to go on top.
    search
        .needles
        .retain(|needle| needle.contains("gate-value") || needle.contains("contoso-secret"));
    assert_eq!(search.needles.len(), 3);
    search.look_into(&data.join("spool"));
    assert!(
        !data.join("admin.token").exists(),
        "the configured token is written nowhere"
    );
}
