//! A certificate ordered from Pebble, Let's Encrypt's own test authority: RFC 8555 as somebody else reads it.
//!
//! Debian's package `pebble` has it, and a name server for it (`pebble-challtestsrv`) that finds every name on 127.0.0.1.
//! Where the two are not installed the test says so and is over. Pebble refuses a nonce in twenty (badNonce), and makes an
//! order wait while it signs.

use crate::acme::World;
use crate::harness::{free_port, gatepost, until};
use gatepost::lab::certificates::Leaf;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(program));
    found.find(|file| file.is_file())
}

fn start(program: &Path, arguments: &[&str], log: &Path) -> Running {
    let log = std::fs::File::create(log).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .env("PEBBLE_VA_NOSLEEP", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    Running(child)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pebble_signs_the_first_certificate_and_the_next() {
    let (Some(pebble), Some(names)) = (installed("pebble"), installed("pebble-challtestsrv"))
    else {
        eprintln!("skipped: pebble is not installed (apt-get install pebble)");
        return;
    };
    let world = World::new().await;
    world.without_certificate();
    let [directory, management, resolver, control] = [(); 4].map(|()| free_port());
    let own = world
        .around
        .authority
        .issue(&Leaf::named("127.0.0.1"))
        .unwrap();
    std::fs::write(world.file("pebble.pem"), own.chain_pem()).unwrap();
    std::fs::write(world.file("pebble.key"), own.key_pem()).unwrap();
    let settings = serde_json::json!({ "pebble": {
        "listenAddress": format!("127.0.0.1:{directory}"),
        "managementListenAddress": format!("127.0.0.1:{management}"),
        "certificate": world.file("pebble.pem"),
        "privateKey": world.file("pebble.key"),
        "httpPort": world.challenges.port(),
        "tlsPort": 9,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": false,
    }});
    let path = world.file("pebble.json");
    std::fs::write(&path, settings.to_string()).unwrap();
    let resolver = format!("127.0.0.1:{resolver}");
    let nothing = &["-http01", "", "-https01", "", "-tlsalpn01", ""][..];
    let control = format!("127.0.0.1:{control}");
    let arguments = [
        &[
            "-dns01",
            &resolver,
            "-management",
            &control,
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
        ][..],
        nothing,
    ];
    let _names = start(&names, &arguments.concat(), &world.file("names.log"));
    let config = path.to_str().unwrap();
    let arguments = ["-config", config, "-dnsserver", &resolver, "-strict"];
    let log = world.file("pebble.log");
    let first_pebble = start(&pebble, &arguments, &log);
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    for port in [format!("127.0.0.1:{directory}"), control] {
        until("Pebble and its names", async || {
            TcpStream::connect(&port).ok()
        })
        .await;
    }

    let config = world.configuration_for(&format!("https://127.0.0.1:{directory}/dir"));
    let obtain = ["certificate", "obtain", "contoso"];
    let said = gatepost(&config, &obtain).await;
    assert_eq!(said.status, 0, "{said:?}\n{}", told());
    assert!(said.out.contains("contoso.pem: in its place"), "{said:?}");
    let said = gatepost(&config, &["certificate", "show", "contoso", "--json"]).await;
    let shown = said.json();
    let shown = if shown.is_array() { &shown[0] } else { &shown };
    let expected = serde_json::json!(["contoso.com", "gate.contoso.com"]);
    assert_eq!(shown["names"], expected, "{shown}");
    let issuer = shown["chain"][0]["issuer"].as_str().unwrap();
    assert!(issuer.contains("Pebble"), "{issuer}");
    assert_eq!(shown["chain"][0]["signer"], "next", "{shown}");
    assert_eq!(shown["key_fits"], true);
    // Once more by the same account and key.
    let first = std::fs::read(world.file("contoso.pem")).unwrap();
    let key = std::fs::read(world.file("contoso.key")).unwrap();
    let said = gatepost(&config, &[&obtain[..], &["--now"]].concat()).await;
    assert_eq!(said.status, 0, "{said:?}\n{}", told());
    assert_ne!(std::fs::read(world.file("contoso.pem")).unwrap(), first);
    assert_eq!(std::fs::read(world.file("contoso.key")).unwrap(), key);
    assert!(told().contains("There are now 1 accounts"), "{}", told());
    assert!(!told().contains("There are now 2 accounts"), "{}", told());
    // An authority that has forgotten everything (Pebble, started anew) does not know the account either.
    drop(first_pebble);
    let log = world.file("pebble-2.log");
    let _pebble = start(&pebble, &arguments, &log);
    until("Pebble again", async || {
        TcpStream::connect(format!("127.0.0.1:{directory}")).ok()
    })
    .await;
    let said = gatepost(&config, &[&obtain[..], &["--now"]].concat()).await;
    assert_eq!(said.status, 1, "{said:?}");
    let account = said
        .err
        .split("move ")
        .nth(1)
        .and_then(|rest| rest.split(" away").next());
    std::fs::remove_file(account.unwrap_or_else(|| panic!("{said:?}"))).unwrap();
    let said = gatepost(&config, &[&obtain[..], &["--now"]].concat()).await;
    assert_eq!(said.status, 0, "{said:?}");
}
