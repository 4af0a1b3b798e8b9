//! The house: who may read the data directory, who may have it, what a start and a reload refuse, and which keys follow a
//! reload.

use crate::harness::{
    Changes, HOSTNAME, PASSWORD, Process, Surroundings, World, free_port, last_word, until,
};
use gatepost::lab::{ApplicationClient, Dialect, Mail, Phase, Step};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ERP: &[u8] = b"From: erp@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A folder and everything below it.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Runs a command of ours to its end.
fn gatepost(arguments: &[&str], config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_reads_the_data_directory() {
    let around = Surroundings::new().await;
    let data = around.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ports = [free_port(), free_port(), free_port()];
    let config = around.configuration(ports, &Changes::default());
    let process = Process::start(&config);
    // One that stays in the journal and one in a file of its own.
    let step = Step::reply(Phase::Mail, "451 4.7.0 Temporary server error");
    around.exchange.script(step.always());
    let roots = around.authority.roots().unwrap();
    let apps = SocketAddr::from(([127, 0, 0, 1], ports[1]));
    let erp = ApplicationClient::new(apps, HOSTNAME, &roots).unwrap();
    let erp = erp.login("erp", PASSWORD, Dialect::Plain);
    for size in [0, 3 << 20] {
        let mut content = ERP.to_vec();
        content.extend(b"0123456789abcdef0123456789abcdef\r\n".repeat(size / 34));
        let mail = Mail::new("erp@contoso.com", "bob@contoso.com", content);
        let answer = erp.send(&mail).await.unwrap();
        assert!(answer.accepted(), "{answer:?}");
    }
    let found = until("a large body, and the index of the trace", async || {
        let found = everything(&data);
        let large = |path: &PathBuf| path.metadata().is_ok_and(|data| data.len() > 3_000_000);
        let has = |part: &str| found.iter().any(|path| path.ends_with(part));
        (found.iter().any(large) && has("trace/index/db")).then_some(found)
    })
    .await;
    for path in found {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), wanted, "{} {:o}", path.display(), mode(&path));
    }
    assert!(process.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_data_directory_is_refused_and_the_first_goes_on() {
    let around = Surroundings::new().await;
    let world = World::within(around, Changes::default()).await;
    let config = world.around.configuration([0; 3], &Changes::default());
    let second = gatepost(&["serve"], &config);
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert!(second.stdout.is_empty(), "never ready");
    let text = said(&second);
    assert!(
        text.contains("data") && text.contains("another process"),
        "{text}"
    );
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", ERP);
    assert!(world.erp().send(&mail).await.unwrap().accepted());
    assert!(world.received().await.is_internal());
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_port_in_use_names_it_and_begins_nothing() {
    let around = Surroundings::new().await;
    // A message waits in the queue.
    let step = Step::reply(Phase::Mail, "451 4.7.0 Temporary server error");
    around.exchange.script(step);
    let slow = Changes::replace("retry = [\"1s\"]", "retry = [\"1s\", \"1h\"]");
    let world = World::within(around, slow).await;
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", ERP);
    assert!(world.erp().send(&mail).await.unwrap().accepted());
    let World { around, host } = world;
    host.stop().await;
    let (taken, before) = (around.exchange.taken(), around.exchange.connections());

    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = occupied.local_addr().unwrap().port();
    for (ports, admin, named) in [
        ([0, port, 0], "127.0.0.1:0".to_owned(), "listener apps"),
        ([0, 0, 0], format!("127.0.0.1:{port}"), "admin"),
    ] {
        let changes = Changes::replace(
            "[admin]\naddress = \"127.0.0.1:0\"",
            &format!("[admin]\naddress = \"{admin}\""),
        );
        let config = around.configuration(ports, &changes);
        let refused = gatepost(&["serve"], &config);
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        assert!(refused.stdout.is_empty(), "never ready");
        let text = said(&refused);
        assert!(
            text.contains(named) && text.contains(&format!("127.0.0.1:{port}")),
            "{text}"
        );
    }
    assert_eq!(
        (around.exchange.taken(), around.exchange.connections()),
        (taken, before),
        "no delivery was begun and torn off"
    );
}

/// GET of the API; the status.
async fn api(admin: SocketAddr, host: &str, token: &str) -> u16 {
    let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    let request = format!(
        "GET /api/queue HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

fn admin_keys(keys: &str) -> Changes {
    Changes::replace("[admin]\n", &format!("[admin]\n{keys}\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_and_the_hosts_of_the_api_follow_a_reload() {
    let around = Surroundings::new().await;
    let secret = around.folder.path().join("token");
    std::fs::write(&secret, "the-first-token-of-all\n").unwrap();
    let keys = "hosts = [\"gate.contoso.com\"]\ntoken = \"${file:token}\"";
    let world = World::within(around, admin_keys(keys)).await;
    let admin = world.host.admin_address();
    let own = admin.to_string();
    assert_eq!(api(admin, &own, "the-first-token-of-all").await, 200);
    assert_eq!(
        api(admin, "gate.contoso.com", "the-first-token-of-all").await,
        200
    );
    assert_eq!(
        api(admin, "evil.example", "the-first-token-of-all").await,
        421
    );
    assert_eq!(api(admin, &own, "the-second-token-of-all").await, 401);
    let unused = world.around.folder.path().join("data/admin.token");
    assert!(!unused.exists(), "no token is written where one is given");

    std::fs::write(&secret, "the-second-token-of-all\n").unwrap();
    let keys = "hosts = [\"door.contoso.com\"]\ntoken = \"${file:token}\"";
    let settings = world.around.settings(&admin_keys(keys));
    world.host.reload(settings).unwrap();
    assert_eq!(api(admin, &own, "the-second-token-of-all").await, 200);
    assert_eq!(api(admin, &own, "the-first-token-of-all").await, 401);
    assert_eq!(
        api(admin, "door.contoso.com", "the-second-token-of-all").await,
        200
    );
    assert_eq!(
        api(admin, "gate.contoso.com", "the-second-token-of-all").await,
        421
    );

    // Without the key: the file, which the CLI reads.
    let settings = world.around.settings(&Changes::default());
    world.host.reload(settings).unwrap();
    let written = std::fs::read_to_string(unused).unwrap();
    assert_eq!(api(admin, &own, written.trim()).await, 200);
    assert_eq!(api(admin, &own, "the-second-token-of-all").await, 401);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_is_kept_as_long_as_the_key_says_and_the_key_follows_a_reload() {
    let around = Surroundings::new().await;
    let old = around.folder.path().join("data/trace");
    std::fs::create_dir_all(&old).unwrap();
    let day = |days: u64| {
        let now = std::time::SystemTime::now();
        let then = now - std::time::Duration::from_secs(days * 86_400);
        let date = time::OffsetDateTime::from(then).date();
        old.join(format!("{date}.jsonl"))
    };
    let (young, aged) = (day(5), day(20));
    let world = {
        for file in [&young, &aged] {
            std::fs::write(file, "").unwrap();
        }
        let changes = Changes {
            append: "\n[trace]\nkeep = \"10d\"\n".to_owned(),
            ..Changes::default()
        };
        World::within(around, changes).await
    };
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", ERP);
    let answer = world.erp().send(&mail).await.unwrap();
    world.trace(&last_word(answer.deciding())).await;
    assert!(young.exists() && !aged.exists(), "10 days");
    let changes = Changes {
        append: "\n[trace]\nkeep = \"2d\"\n".to_owned(),
        ..Changes::default()
    };
    world.host.reload(world.around.settings(&changes)).unwrap();
    world.trace("nothing").await;
    assert!(!young.exists(), "2 days");
    world.host.stop().await;
}
