//! Why? What the `explain` commands answer for a server, a queue and mailboxes that are really there.

use crate::harness::{Changes, LETTER, Surroundings, World, get, last_word};
use gatepost::lab::certificates::{Authority, Leaf};
use gatepost::lab::{Action, Mail, Outbound, Phase, Step};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the program in a folder with this standard input; status and standard output.
fn ask(folder: &Path, arguments: &[&str], input: &[u8]) -> (Option<i32>, String) {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("GATEPOST_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have ended.
    drop(child.stdin.take().unwrap().write_all(input));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn trust_counts_what_the_connector_listeners_of_the_configuration_take() {
    let around = Surroundings::new().await;
    let folder = around.folder.path();
    let pem = around.exchange_identity.chain_pem();
    std::fs::write(folder.join("peer.pem"), pem).unwrap();
    let line = "explain trust --message mail.eml --from 127.0.40.25 --certificate peer.pem --mail-from ada@contoso.com";
    let told = |listener: &str, more: &str| {
        let listener = format!("name = \"exchange\"\n{listener}");
        let changes = Changes::replace("name = \"exchange\"", &listener);
        around.configuration([0; 3], &changes);
        let mail = Mail::new("ada@contoso.com", "bob@contoso.com", LETTER);
        let outbound = Outbound::stamped(&around.contoso, mail, "1-2").unwrap();
        let content = [&outbound.mail.content, more.as_bytes()].concat();
        std::fs::write(folder.join("mail.eml"), content).unwrap();
        ask(folder, &words(line), b"")
    };
    let large = "x".repeat(70 * 1024);
    let bare = "a\nb\r\n";
    for (listener, more, status, needle) in [
        ("", "", 0, "verdict: proven (contoso)"),
        ("", &*large, 0, "verdict: proven (contoso)"),
        ("", bare, 0, "verdict: proven (contoso)"),
        ("max_message_size = \"64KiB\"", "", 0, "verdict: proven"),
        // The applications' listener takes as much.
        ("max_message_size = \"64KiB\"", &large, 1, "552 5.3.4"),
        ("ehlo_discard = [\"CHUNKING\"]", "", 0, "verdict: proven"),
        ("ehlo_discard = [\"CHUNKING\"]", bare, 1, "554 5.6.0"),
    ] {
        let (ended, text) = told(listener, more);
        assert_eq!(ended, Some(status), "{listener}: {text}");
        assert!(text.contains(needle), "{listener}: {text}");
    }
}

/// The commonest mistake is a domain that the configuration lacks: both commands say so of the same file.
#[tokio::test]
async fn headers_and_trust_say_the_same_of_mail_that_gatepost_refuses() {
    let around = Surroundings::new().await;
    let folder = around.folder.path();
    let pem = around.exchange_identity.chain_pem();
    std::fs::write(folder.join("peer.pem"), pem).unwrap();
    around.configuration([0; 3], &Changes::default());
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com", LETTER);
    let outbound = Outbound::stamped(&around.contoso, mail, "1-2").unwrap();
    let content = String::from_utf8(outbound.mail.content).unwrap();
    for (change, status, needle) in [
        (None, 0, "Internal: "),
        (
            Some("X-OriginatorOrg: branch.example"),
            1,
            "add branch.example to accepted_domains",
        ),
        (
            Some("X-OriginatorOrg: fabrikam.com"),
            1,
            "move fabrikam.com from fabrikam",
        ),
        (
            Some("X-OriginatorOrg: no domain"),
            1,
            "let X-OriginatorOrg through",
        ),
    ] {
        let stamp = "X-OriginatorOrg: contoso.com";
        assert!(content.contains(stamp), "{content}");
        let content = content.replace(stamp, change.unwrap_or(stamp));
        std::fs::write(folder.join("mail.eml"), content).unwrap();
        let trust = "explain trust --message mail.eml --from 127.0.40.25 --certificate peer.pem --mail-from ada@contoso.com";
        let (ended, text) = ask(folder, &words(trust), b"");
        assert_eq!(ended, Some(status), "{change:?}: {text}");
        assert!(change.is_none() || text.contains(needle), "{text}");
        let headers = "explain headers --message mail.eml --roots ca.pem";
        let (ended, text) = ask(folder, &words(headers), b"");
        assert_eq!(ended, Some(status), "{change:?}: {text}");
        assert!(text.contains(needle), "{text}");
    }
}

#[tokio::test]
async fn attribution_is_told_from_the_configuration_alone() {
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
    let folder = config.parent().unwrap();
    let told = |more: &str| {
        let line = format!("explain attribution {more}");
        ask(folder, &words(&line), b"")
    };
    let (status, text) = told("--roots ca.pem");
    assert_eq!(status, Some(0), "every tenant: {text}");
    for tenant in ["contoso", "fabrikam"] {
        let line = format!("verdict: attributed: tenant {tenant}, by the certificate's name");
        assert!(text.contains(&line), "{text}");
    }
    let (status, text) = told("");
    assert_eq!(status, Some(1), "no public authority: {text}");
    assert!(text.contains("does not lead to a public root"), "{text}");
    let (status, text) =
        told("--roots ca.pem --tenant contoso --mail-from <> --to x@elsewhere.example");
    assert_eq!(
        status,
        Some(0),
        "the certificate carries the null sender: {text}"
    );
    let (status, text) =
        told("--roots ca.pem --mail-from a@contoso.com --certificate fabrikam.pem");
    assert_eq!(status, Some(1));
    assert!(
        text.contains("verdict: misattributed: tenant fabrikam"),
        "{text}"
    );
    let (_, text) = told("--tenant contoso --no-certificate --to x@elsewhere.example");
    assert!(text.contains("550 5.7.64 TenantAttribution"), "{text}");
    let (_, text) = told("--tenant contoso --no-certificate --reject-direct-send on");
    assert!(
        text.contains("550 5.7.68 TenantInboundAttribution"),
        "{text}"
    );
    let (_, text) =
        told("--roots ca.pem --tenant contoso --connector-name gate.contoso.com --to x@y.example");
    assert!(
        text.contains("do not fit TlsSenderCertificateName gate.contoso.com"),
        "{text}"
    );
    let (_, text) = told("--roots ca.pem --tenant contoso --connector-type partner");
    assert!(text.contains("of type Partner"), "{text}");
    let (_, text) =
        told("--roots ca.pem --tenant contoso --host fabrikam-com.mail.protection.outlook.com");
    assert!(text.contains("451 4.4.62"), "{text}");
    let (_, text) = told("--roots ca.pem --json");
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows[1]["verdict"], "attributed");
    assert_eq!(rows[1]["tenant"], "fabrikam");
    for wrong in [
        "--tenant nobody",
        "--mail-from nonsense",
        "--to <>",
        "--certificate none.pem",
        "--roots contoso.key",
    ] {
        assert_eq!(told(wrong).0, Some(2), "{wrong}");
    }
}

#[tokio::test]
async fn a_certificate_of_no_public_authority_is_told_with_its_remedy() {
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
    let folder = config.parent().unwrap();
    let other = Authority::new("private").unwrap();
    let issued = other.issue(&Leaf::named("contoso.com")).unwrap();
    crate::harness::write_identity(folder, "private", &issued);
    let line = "explain attribution --roots ca.pem --tenant contoso --certificate private.pem";
    let (status, text) = ask(folder, &words(line), b"");
    assert_eq!(status, Some(1));
    assert!(text.contains("does not lead to a public root"), "{text}");
    assert!(text.contains("mended by: put every intermediate"), "{text}");
}

#[test]
fn replies_are_explained_from_arguments_and_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let reply = |arguments: &[&str], input: &[u8]| {
        let all = [&["explain", "reply"], arguments].concat();
        ask(folder.path(), &all, input)
    };
    let wrapped = b"Reason: [{LED=550 5.7.64 TenantAttribution; Relay Access Denied};{MSG=};{FQDN=x};{IP=192.0.2.1}]";
    let (status, text) = reply(&[], wrapped);
    assert_eq!(status, Some(1));
    assert!(text.contains("connector or certificate"), "{text}");
    let (status, text) = reply(&["451 4.7.0 Temporary server error. PRX2"], b"");
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = reply(
        &["--via", "mx", "--json", "550", "5.1.1", "no such user"],
        b"",
    );
    assert_eq!(status, Some(1));
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&told["via"], &told["outcome"]),
        (&"mx".into(), &"failed".into())
    );
    assert_eq!(reply(&["hello"], b"").0, Some(2));
    assert_eq!(reply(&["354 go on"], b"").0, Some(2));
    assert_eq!(reply(&["--via", "fax", "550"], b"").0, Some(2));
}

/// The lab's Exchange, which judges with code of its own, and `explain headers` say the same of the same message: on its
/// way, and as the mailbox shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_judged_as_the_simulated_exchange_judges_them() {
    let world = World::start().await;
    let config = world.command_line();
    let folder = config.parent().unwrap().to_owned();
    let letter = b"From: erp@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", &letter[..]);
    assert!(world.erp().send(&mail).await.unwrap().accepted());
    let outbound = world.outbound(
        &world.around.contoso,
        Mail::new("ada@contoso.com", "bob@contoso.com", LETTER),
    );
    let mut flagless = world.around.contoso.clone();
    flagless.outbound_cloud_services_mail_enabled = false;
    let bare = world.outbound(
        &flagless,
        Mail::new("ada@contoso.com", "bob@contoso.com", LETTER),
    );
    let mut connection = world.exchange_out().connect().await.unwrap();
    assert!(connection.send(&outbound).await.unwrap().accepted());
    assert!(connection.send(&bare).await.unwrap().accepted());
    let mut verdicts = Vec::new();
    for _ in 0..3 {
        let received = world.received().await;
        let status = if received.is_internal() { 0 } else { 1 };
        verdicts.push(status);
        for (name, content, reading) in [
            ("wire.eml", &received.content, "on its way"),
            (
                "mailbox.eml",
                &received.entry.content,
                "as a mailbox shows it",
            ),
        ] {
            std::fs::write(folder.join(name), content).unwrap();
            let line =
                format!("explain headers --message {name} --roots ca.pem --config commands.toml");
            let (told, text) = tokio::task::block_in_place(|| ask(&folder, &words(&line), b""));
            assert!(text.contains(reading), "{name}: {text}");
            assert_eq!(told, Some(status), "{name}: {text}");
            assert!(!text.contains("contoso-loop"), "{text}");
            // The same as somebody pastes it.
            let text = String::from_utf8_lossy(content);
            let pasted: String = text.lines().map(|line| format!("  {line}\n")).collect();
            let line = "explain headers --roots ca.pem --config commands.toml";
            let (told, text) = ask(&folder, &words(line), pasted.as_bytes());
            assert_eq!(told, Some(status), "pasted {name}: {text}");
        }
    }
    verdicts.sort_unstable();
    assert_eq!(verdicts, [0, 0, 1]);
    connection.quit().await;
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_message_is_judged_as_it_will_leave_and_tells_no_secret() {
    let world = World::start().await;
    let later = Action::Reply("451 4.3.2 later".to_owned());
    world
        .around
        .exchange
        .script(Step::new(Phase::EndOfData, later).always());
    let letter = b"From: erp@contoso.com\r\nSubject: the secret plan\r\n\r\nbody\r\n";
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", &letter[..]);
    let answer = world.erp().send(&mail).await.unwrap();
    let id = last_word(answer.deciding());
    let config = world.command_line();
    let folder = config.parent().unwrap().to_owned();
    let line = format!("explain headers {id} --roots ca.pem --config commands.toml");
    let (status, text) = tokio::task::block_in_place(|| ask(&folder, &words(&line), b""));
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("AuthSource smarthost.contoso.com"), "{text}");
    assert!(
        !text.contains("contoso-loop") && !text.contains("secret plan"),
        "{text}"
    );
    let json = format!("{line} --json");
    let (_, text) = tokio::task::block_in_place(|| ask(&folder, &words(&json), b""));
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&rows[0]["via"], &rows[0]["internal"]),
        (&"exchange".into(), &true.into())
    );
    let gone = "explain headers 0000000000001 --config commands.toml";
    let (status, text) = tokio::task::block_in_place(|| ask(&folder, &words(gone), b""));
    assert_eq!(status, Some(1), "{text}");
    // What the API hands over holds no loop value either.
    let token = format!("Bearer {}", world.token());
    let path = format!("/api/queue/{id}/header");
    let admin = world.host.admin_address();
    let (status, body) = get(admin, &path, &[("Authorization", &token)]).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("X-Gatepost-Processed: (not shown)"), "{body}");
    assert!(
        !body.contains("contoso-loop") && !body.contains("secret plan"),
        "{body}"
    );
    world.host.stop().await;
}
