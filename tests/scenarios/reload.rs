//! SIGHUP to a server process: what is taken, what is refused, and what stays.

use crate::harness::{
    Changes, HOSTNAME, LETTER, Process, Surroundings, free_port, gatepost, scrape, until,
    write_identity,
};
use gatepost::lab::certificates::{Above, Authority, Leaf};
use gatepost::lab::{Mail, Outbound};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// A server process with its surroundings.
struct Running {
    around: Surroundings,
    ports: [u16; 3],
    admin: SocketAddr,
    process: Process,
}

const ENDPOINTS: &str = r#"[{"id":10,"serviceArea":"Exchange","ips":["127.0.40.0/24"]}]"#;

fn with_endpoints(admin: SocketAddr) -> Changes {
    let mut changes = Changes::replace(
        "networks = [\"127.0.40.0/24\"]",
        "networks = [\"published\"]\nendpoints = \"endpoints.json\"",
    );
    changes.replace.push((
        "[admin]\naddress = \"127.0.0.1:0\"",
        format!("[admin]\naddress = \"{admin}\""),
    ));
    changes
}

impl Running {
    async fn start() -> Self {
        Self::within(Surroundings::new().await, Changes::default())
    }

    /// Where the scenario's authority is a public one.
    async fn public() -> Self {
        let around = Surroundings::new().await;
        let roots = around.folder.path().join("ca.pem");
        Self::started(around, Changes::default(), |config, log| {
            Process::trusting(&roots, config, log)
        })
    }

    fn within(around: Surroundings, further: Changes) -> Self {
        Self::started(around, further, Process::logging)
    }

    fn started(
        around: Surroundings,
        further: Changes,
        start: impl FnOnce(&Path, &Path) -> Process,
    ) -> Self {
        let ports = [free_port(), free_port(), free_port()];
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        std::fs::write(around.folder.path().join("endpoints.json"), ENDPOINTS).unwrap();
        let mut changes = with_endpoints(admin);
        changes.replace.extend(further.replace);
        let config = around.configuration(ports, &changes);
        let process = start(&config, &around.folder.path().join("log"));
        Self {
            around,
            ports,
            admin,
            process,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.around.folder.path().join("log")).unwrap()
    }

    /// Until the log says this as often: its lines are written beside what they tell of.
    async fn logged(&self, text: &str, times: usize) {
        until(text, async || {
            (self.log().matches(text).count() >= times).then_some(())
        })
        .await;
    }

    /// SIGHUP, and until it has come to this end for the `times`-th time.
    async fn reload(&self, result: &str, times: usize) -> String {
        self.process.hang_up();
        let line = format!("gatepost_reloads_total{{result=\"{result}\"}} {times}\n");
        until("the reload", async || {
            Some(scrape(self.admin).await).filter(|metrics| metrics.contains(&line))
        })
        .await
    }

    /// Mail of Exchange to itself; tells what Exchange made of it, on a connection of its own.
    async fn round_trip(&self) -> Arc<gatepost::lab::Received> {
        let listener = SocketAddr::from(([127, 0, 0, 1], self.ports[0]));
        let mail = Mail::new("ada@contoso.com", "bob@contoso.com", LETTER);
        let id = "0d6f9b1c-0000-4000-8000-000000000001";
        let outbound = Outbound::stamped(&self.around.contoso, mail, id).unwrap();
        self.around.exchange.close_after(1);
        let answer = self.around.exchange_out(listener).send(&outbound).await;
        let answer = answer.unwrap();
        assert!(answer.accepted(), "{answer:?}");
        self.around.exchange.received().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_the_endpoint_data_where_the_file_cannot_be_true_and_takes_the_rest() {
    let running = Running::start().await;
    assert!(running.round_trip().await.is_internal());
    let listener = SocketAddr::from(([127, 0, 0, 1], running.ports[0]));
    let file = running.around.folder.path().join("endpoints.json");
    let elsewhere = ENDPOINTS.replace("127.0.40.0", "127.0.41.0");
    let wide = ENDPOINTS.replace("127.0.40.0/24", "0.0.0.0/0");
    for (round, content) in ["", "[]", &elsewhere, &wide].into_iter().enumerate() {
        let round = round + 1;
        std::fs::write(&file, content).unwrap();
        let mut changes = with_endpoints(running.admin);
        changes.replace.push((
            "name = \"exchange\"",
            format!("name = \"exchange\"\nmax_message_size = \"{round}MiB\""),
        ));
        running.around.configuration(running.ports, &changes);
        let metrics = running.reload("ok", round).await;
        let counted = format!("gatepost_endpoints_rejected_total {round}\n");
        assert!(metrics.contains(&counted), "{content}: {metrics}");
        let mut client = running.around.exchange_out(listener).clear().await.unwrap();
        let hello = client.command("EHLO x").await.unwrap();
        let size = format!("SIZE {}", round << 20);
        assert!(
            hello.lines.iter().any(|line| **line == *size),
            "the rest was taken: {hello}"
        );
        assert!(
            running.round_trip().await.is_internal(),
            "Exchange is still let in: {content}"
        );
    }
    running.logged("the endpoint data in force stay", 1).await;
    // What has grown is taken; the address that it adds comes in.
    let grown = ENDPOINTS.replace("127.0.40.0/24", "127.0.40.0/23");
    std::fs::write(&file, grown).unwrap();
    let metrics = running.reload("ok", 5).await;
    assert!(metrics.contains("gatepost_endpoints_rejected_total 4\n"));
    let new = running
        .around
        .exchange_out(listener)
        .from_address("127.0.41.25".parse().unwrap());
    let mut client = new.connect().await.unwrap().into_client();
    let mail = "MAIL FROM:<ada@contoso.com>";
    assert_eq!(client.command(mail).await.unwrap().code, 250);
    drop(client);
    assert!(running.process.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_refused_where_a_certificate_would_break_attribution() {
    let running = Running::start().await;
    let before = running.round_trip().await;
    assert_eq!(before.tenant(), "contoso");
    let folder = running.around.folder.path();
    let issue = |leaf: &Leaf| running.around.authority.issue(leaf).unwrap();
    let foreign_key = Authority::new("other").unwrap();
    let foreign_key = foreign_key.issue(&Leaf::named("contoso.com")).unwrap();
    let cases = [
        (
            issue(&Leaf::named("elsewhere.example")),
            None,
            "no name of the certificate (elsewhere.example) is an accepted domain",
        ),
        (
            issue(&Leaf::named("contoso.com").expired()),
            None,
            "certificate.contoso.chain: the certificate has expired",
        ),
        (
            issue(&Leaf::named("contoso.com")),
            Some(foreign_key.key_pem()),
            "certificate.contoso.key: does not belong to the certificate",
        ),
        // Not foreign, and yet Exchange's connector cannot be set to it today: it is set to contoso.com.
        (
            issue(&Leaf::named("mail.contoso.com")),
            None,
            "contoso.pem: tenant contoso: Exchange takes the tenant's mail by contoso.com, and the new certificate (mail.contoso.com) does not carry that name",
        ),
        (
            issue(&Leaf::named("contoso.com")).without_intermediate(),
            None,
            "contoso.pem: the chain ends below \"CN=scenario Issuing CA\"",
        ),
    ];
    for (round, (issued, key, reason)) in cases.iter().enumerate() {
        write_identity(folder, "contoso", issued);
        if let Some(key) = key {
            std::fs::write(folder.join("contoso.key"), key).unwrap();
        }
        running.reload("failed", round + 1).await;
        running.logged(reason, 1).await;
        let stays = "not reloaded, the old configuration stays";
        running.logged(stays, round + 1).await;
        let after = running.round_trip().await;
        assert_ne!(after.connection, before.connection);
        assert_eq!(after.tenant(), "contoso");
        assert_eq!(
            after.identity, before.identity,
            "the old certificate is still presented"
        );
        assert!(after.is_internal());
    }
    // A good one for contoso, and one for the listener that Exchange's TlsDomain would not find.
    write_identity(folder, "contoso", &issue(&Leaf::named("contoso.com")));
    write_identity(folder, "host", &issue(&Leaf::named("contoso.com")));
    running.reload("failed", cases.len() + 1).await;
    let reason = "host.pem: listener exchange: the one in force covers hostname smarthost.contoso.com, the new one (contoso.com) does not";
    running.logged(reason, 1).await;
    assert!(running.round_trip().await.is_internal());
    write_identity(folder, "host", &issue(&Leaf::named("*.contoso.com")));
    // The good ones are taken.
    write_identity(
        folder,
        "contoso",
        &issue(&Leaf::named("contoso.com").and("new.contoso.com")),
    );
    running.reload("ok", 1).await;
    let after = running.round_trip().await;
    assert!(after.is_internal());
    assert_ne!(after.identity, before.identity, "the new certificate");
    assert!(running.process.terminate().success());
}

/// What a rehearsal fails for, of the same files: each use has its own demands, whoever the authority is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_refused_where_the_other_side_would_refuse_the_handshake() {
    for running in [Running::start().await, Running::public().await] {
        let folder = running.around.folder.path();
        let authority = &running.around.authority;
        let good = |name: &str| authority.issue(&Leaf::named(name)).unwrap();
        let before = running.round_trip().await;
        let below = |above: Above| {
            let leaf = Leaf::named("contoso.com");
            authority.issue_below(&leaf, above).unwrap()
        };
        let host = |leaf: Leaf| authority.issue(&leaf).unwrap();
        for (round, (entry, issued, reason)) in [
            (
                "contoso",
                host(Leaf::named("contoso.com").code_signing_only()),
                "contoso.pem: the extended key usage of the certificate allows neither client nor server authentication",
            ),
            (
                "contoso",
                below(Above::ForEmail),
                "contoso.pem: the extended key usage of certificate 2 of its chain (CN=scenario Issuing CA) allows neither",
            ),
            (
                "contoso",
                below(Above::Until(1_704_067_201)),
                "contoso.pem: the one in force is valid today, the new one is not: certificate 2 of its chain (CN=scenario Issuing CA) has expired",
            ),
            (
                "host",
                host(Leaf::named(HOSTNAME).client_auth_only()),
                "host.pem: the extended key usage of the certificate does not allow server authentication",
            ),
            (
                "host",
                host(Leaf::named(HOSTNAME).without_alternative_names()),
                "host.pem: listener apps, listener printers: the one in force covers hostname smarthost.contoso.com, the new one has it in its subject CN alone",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            write_identity(folder, entry, &issued);
            running.reload("failed", round + 1).await;
            running.logged(reason, 1).await;
            let after = running.round_trip().await;
            assert_eq!(after.identity, before.identity, "the old one is still used");
            assert!(after.is_internal());
            write_identity(folder, "contoso", &good("contoso.com"));
            write_identity(folder, "host", &good(HOSTNAME));
        }
        // A connector alone does not ask for serverAuth, nor a listener for clientAuth.
        let client = host(Leaf::named("contoso.com").client_auth_only());
        write_identity(folder, "contoso", &client);
        let server = host(Leaf::named(HOSTNAME).server_auth_only());
        write_identity(folder, "host", &server);
        running.reload("ok", 1).await;
        assert!(running.round_trip().await.is_internal());
        assert!(running.process.terminate().success());
    }
}

/// A certificate under another name goes in together with the accepted domain that makes it right; a certificate that was
/// bad before does not keep anything else from being reloaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_takes_a_new_name_together_with_its_accepted_domain_and_what_was_bad_before() {
    let running = Running::start().await;
    let folder = running.around.folder.path();
    let issue = |leaf: &Leaf| running.around.authority.issue(leaf).unwrap();
    write_identity(folder, "contoso", &issue(&Leaf::named("gate.contoso.com")));
    running.reload("failed", 1).await;
    let mut changes = with_endpoints(running.admin);
    changes.replace.push((
        "accepted_domains = [\"contoso.com\"]",
        "accepted_domains = [\"contoso.com\", \"gate.contoso.com\"]".to_owned(),
    ));
    running.around.configuration(running.ports, &changes);
    running.reload("ok", 1).await;
    // The domain is given up again, and with it the name is below an accepted domain: bad by the administrator's own will.
    let changes = with_endpoints(running.admin);
    running.around.configuration(running.ports, &changes);
    running.reload("ok", 2).await;
    running.reload("ok", 3).await;
    assert!(running.process.terminate().success());
}

/// Surroundings whose tenant contoso has two domains, a certificate with these names, and this on its inbound connector.
async fn contoso(names: &[&str], connector_name: &str) -> (Surroundings, Changes) {
    let around = Surroundings::with(|mut options| {
        let contoso = Arc::make_mut(&mut options.organizations[0]);
        contoso.accepted_domains = gatepost::mail::DomainSet::new(
            ["contoso.com", "contoso.net"]
                .map(|own| own.parse().unwrap())
                .into(),
        );
        let inbound = contoso.inbound.as_mut().unwrap();
        inbound.tls_sender_certificate_name = connector_name.to_owned();
        options
    })
    .await;
    renew(&around, names);
    let changes = Changes::replace(
        "accepted_domains = [\"contoso.com\"]",
        "accepted_domains = [\"contoso.com\", \"contoso.net\"]",
    );
    (around, changes)
}

fn renew(around: &Surroundings, names: &[&str]) {
    let leaf = names[1..]
        .iter()
        .fold(Leaf::named(names[0]), |leaf, name| leaf.and(name));
    let issued = around.authority.issue(&leaf).unwrap();
    write_identity(around.folder.path(), "contoso", &issued);
}

/// What `connector render` would write into `TlsSenderCertificateName`, and what it says beside that.
async fn rendered(around: &Surroundings) -> (String, String) {
    let folder = around.folder.path();
    let kit = folder.join("kit");
    let words = ["connector", "render", "--tenant", "contoso", "--json"];
    let words = [&words[..], &["--output", kit.to_str().unwrap()]].concat();
    let said = gatepost(&folder.join("gatepost.toml"), &words).await;
    let name = said.json()["values"]["TlsSenderCertificateName"].clone();
    (name.as_str().unwrap().to_owned(), said.err)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_an_accepted_domain_the_wildcard_is_written_taken_and_watched_over() {
    let (around, changes) = contoso(&["mail.contoso.com"], "*.contoso.com").await;
    let running = Running::within(around, changes);
    // What the simulated connector is set to is what our scripts would set.
    let (name, told) = rendered(&running.around).await;
    assert_eq!(name, "*.contoso.com");
    assert!(
        told.contains("Safer: add mail.contoso.com as an accepted domain"),
        "{told}"
    );
    // And what every other command says.
    let config = running.around.folder.path().join("gatepost.toml");
    let roots = running.around.folder.path().join("ca.pem");
    let attribution = ["explain", "attribution", "--tenant", "contoso", "--json"];
    let attribution = [&attribution[..], &["--roots", roots.to_str().unwrap()]].concat();
    let said = gatepost(&config, &attribution).await.json();
    assert_eq!(said[0]["connector_name"], "*.contoso.com");
    assert_eq!(said[0]["verdict"], "attributed");
    let said = gatepost(&config, &["certificate", "show", "contoso"]).await;
    assert!(
        said.out.contains("TlsSenderCertificateName *.contoso.com"),
        "{said:?}"
    );
    let before = running.round_trip().await;
    assert!(before.tenant() == "contoso" && before.is_internal());
    // Another sub-domain is below the same wildcard.
    renew(&running.around, &["smtp.contoso.com"]);
    running.reload("ok", 1).await;
    let renewed = running.round_trip().await;
    assert!(renewed.tenant() == "contoso" && renewed.is_internal());
    assert_ne!(renewed.identity, before.identity);
    // Below another accepted domain the connector does not look.
    renew(&running.around, &["smtp.contoso.net"]);
    running.reload("failed", 1).await;
    let reason = "Exchange takes the tenant's mail by *.contoso.com, and the new certificate (smtp.contoso.net) does not carry that name";
    running.logged(reason, 1).await;
    let after = running.round_trip().await;
    assert!(after.is_internal() && after.identity == renewed.identity);
    assert!(running.process.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_accepted_names_the_first_is_not_lost_silently_and_a_restart_means_it() {
    let both = ["contoso.com", "contoso.net"];
    let (around, changes) = contoso(&both, "contoso.com").await;
    let running = Running::within(around, changes);
    assert_eq!(rendered(&running.around).await.0, "contoso.com");
    let before = running.round_trip().await;
    renew(&running.around, &["contoso.net"]);
    running.reload("failed", 1).await;
    for word in [
        "Exchange takes the tenant's mail by contoso.com, and the new certificate (contoso.net) does not carry that name",
        "Where the connector says another name of the new certificate already, a restart takes it",
    ] {
        running.logged(word, 1).await;
    }
    assert_eq!(running.round_trip().await.identity, before.identity);
    // In another order nothing is lost today, and the name that is watched over becomes another.
    renew(&running.around, &["contoso.net", "contoso.com"]);
    running.reload("ok", 1).await;
    let told = "tenant contoso: a reload watches over TlsSenderCertificateName contoso.net from now on, before it was contoso.com";
    running.logged(told, 1).await;
    renew(&running.around, &both);
    running.reload("ok", 2).await;
    // Without the second nothing is lost.
    renew(&running.around, &["contoso.com"]);
    running.reload("ok", 3).await;
    let Running {
        around,
        ports,
        process,
        ..
    } = running;
    assert!(process.terminate().success());
    renew(&around, &["contoso.net"]);
    let folder = around.folder.path();
    let process = Process::logging(&folder.join("gatepost.toml"), &folder.join("log.2"));
    let listener = SocketAddr::from(([127, 0, 0, 1], ports[0]));
    let client = around.exchange_out(listener).connect().await.unwrap();
    drop(client);
    assert!(process.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_entry_for_the_connector_is_taken_and_the_name_that_goes_is_told() {
    let domains = ["contoso.com", "contoso.net"];
    let (around, changes) = contoso(&["contoso.com"], "contoso.com").await;
    let running = Running::within(around, changes);
    assert!(running.round_trip().await.is_internal());
    let mut changes = with_endpoints(running.admin);
    changes.replace.extend([
        (
            "accepted_domains = [\"contoso.com\"]",
            format!("accepted_domains = {domains:?}"),
        ),
        (
            "[[certificate]]\nname = \"fabrikam\"",
            "[[certificate]]\nname = \"other\"\nchain = \"other.pem\"\nkey = \"other.key\"\n\
             [[certificate]]\nname = \"fabrikam\""
                .to_owned(),
        ),
        (
            "certificate = \"contoso\"",
            "certificate = \"other\"".to_owned(),
        ),
    ]);
    running.around.configuration(running.ports, &changes);
    // The name is the administrator's to decide; a certificate that nobody takes is not meant.
    let issue = |leaf: &Leaf| running.around.authority.issue(leaf).unwrap();
    let folder = running.around.folder.path();
    let lapsed = issue(&Leaf::named("contoso.net").expired());
    write_identity(folder, "other", &lapsed);
    running.reload("failed", 1).await;
    let reason = "other.pem: tenant contoso: the one in force is valid today, the new one is not";
    running.logged(reason, 1).await;
    let torn = issue(&Leaf::named("contoso.net")).without_intermediate();
    write_identity(folder, "other", &torn);
    running.reload("failed", 2).await;
    let reason = "other.pem: tenant contoso: the chain ends below \"CN=scenario Issuing CA\"";
    running.logged(reason, 1).await;
    assert!(running.round_trip().await.is_internal());
    write_identity(folder, "other", &issue(&Leaf::named("contoso.net")));
    running.reload("ok", 1).await;
    let told = "tenant contoso: a reload watches over TlsSenderCertificateName contoso.net from now on, before it was contoso.com";
    running.logged(told, 1).await;
    // Nor is it for a listener.
    write_identity(folder, "lapsed", &lapsed);
    changes.replace.extend([
        (
            "[[certificate]]\nname = \"fabrikam\"",
            "[[certificate]]\nname = \"lapsed\"\nchain = \"lapsed.pem\"\nkey = \"lapsed.key\"\n\
             [[certificate]]\nname = \"fabrikam\""
                .to_owned(),
        ),
        (
            "certificate = \"host\"",
            "certificate = \"lapsed\"".to_owned(),
        ),
    ]);
    running.around.configuration(running.ports, &changes);
    running.reload("failed", 3).await;
    let reason =
        "lapsed.pem: listener exchange: the one in force is valid today, the new one is not";
    running.logged(reason, 1).await;
    assert!(running.process.terminate().success());
}
