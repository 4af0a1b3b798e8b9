//! Certificates that come by themselves: the first one, renewal, and everything that keeps one from coming.

use crate::acme_authority::{AcmeAuthority, Trouble};
use crate::harness::{
    Changes, LETTER, Process, Said, Surroundings, free_port, gatepost, scrape, until,
    write_identity,
};
use gatepost::lab::certificates::{Authority, Leaf};
use gatepost::lab::{Mail, Outbound};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Surroundings with an ACME authority that signs as the scenario's authority does.
pub struct World {
    pub around: Surroundings,
    authority: AcmeAuthority,
    pub challenges: SocketAddr,
    ports: [u16; 3],
    admin: SocketAddr,
}

impl World {
    pub async fn new() -> Self {
        Self::looking_at(None).await
    }

    /// The authority fetches tokens here instead of where they are shown.
    async fn looking_at(elsewhere: Option<SocketAddr>) -> Self {
        let around = Surroundings::new().await;
        let challenges = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let signer = Arc::new(Authority::new("acme").unwrap());
        let authority = AcmeAuthority::start(signer, elsewhere.unwrap_or(challenges), None).await;
        Self {
            around,
            authority,
            challenges,
            ports: [free_port(), free_port(), free_port()],
            admin: SocketAddr::from(([127, 0, 0, 1], free_port())),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.around.folder.path().join(name)
    }

    /// Contoso's certificate is ordered, from this directory.
    pub fn configuration_for(&self, directory: &str) -> PathBuf {
        let mut changes = Changes::replace(
            "key = \"contoso.key\"",
            "key = \"contoso.key\"\nacme = true\nnames = [\"contoso.com\", \"gate.contoso.com\"]",
        );
        changes.replace.push((
            "[admin]\naddress = \"127.0.0.1:0\"",
            format!("[admin]\naddress = \"{}\"", self.admin),
        ));
        changes.append = format!(
            "[acme]\ndirectory = \"{directory}\"\ncontact = [\"ops@contoso.com\"]\nterms_of_service_agreed = true\n\
             challenge_address = \"{}\"\nroots = \"ca.pem\"\n",
            self.challenges
        );
        self.around.configuration(self.ports, &changes)
    }

    fn configuration(&self) -> PathBuf {
        self.configuration_for(&self.authority.directory)
    }

    /// No certificate of contoso is there yet.
    pub fn without_certificate(&self) {
        std::fs::remove_file(self.file("contoso.pem")).unwrap();
        std::fs::remove_file(self.file("contoso.key")).unwrap();
    }

    async fn obtain(&self, more: &[&str]) -> Said {
        let arguments = [&["certificate", "obtain", "contoso"], more].concat();
        gatepost(&self.configuration(), &arguments).await
    }
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_certificate_is_ordered_and_the_next_keeps_its_key_and_account() {
    let world = World::new().await;
    world.without_certificate();
    let config = world.configuration();
    let said = gatepost(&config, &["check"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.out
            .contains("the first one is ordered by `gatepost certificate obtain`"),
        "{said:?}"
    );
    // The authority refuses each nonce once, as it may at any time.
    world.authority.set(Trouble::BadNonces);
    let said = world.obtain(&[]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("contoso.pem: in its place"), "{said:?}");
    world.authority.set(Trouble::None);
    assert_eq!(mode(&world.file("contoso.key")), 0o600);
    let data = world.file("data");
    let account = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let account = account.filter(|path| path.display().to_string().contains("acme-account-"));
    let account: Vec<PathBuf> = account.collect();
    assert_eq!(account.len(), 1);
    assert_eq!((mode(&account[0]), mode(&data)), (0o600, 0o700));
    assert!(!world.file("contoso.pem.new").exists());
    let said = gatepost(&config, &["certificate", "show", "contoso"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(
        said.out.contains("names     contoso.com, gate.contoso.com"),
        "{said:?}"
    );
    assert!(said.out.contains("signed by 2, verified"), "{said:?}");
    let first = std::fs::read(world.file("contoso.pem")).unwrap();
    let key = std::fs::read(world.file("contoso.key")).unwrap();
    // Nobody is bothered while it is not due.
    let said = world.obtain(&[]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("is not due before 20"), "{said:?}");
    assert_eq!(world.authority.seen(), (1, 1));
    let said = world.obtain(&["--now", "--json"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(said.json()["result"], "in_place");
    assert_eq!(world.authority.seen(), (1, 2), "the same account");
    assert_ne!(std::fs::read(world.file("contoso.pem")).unwrap(), first);
    assert_eq!(std::fs::read(world.file("contoso.key")).unwrap(), key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_certificate_from_coming_is_said_and_changes_nothing() {
    // Somebody else answers where the authority looks.
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let unproven = World::looking_at(Some(nobody)).await;
    let before = std::fs::read(unproven.file("contoso.pem")).unwrap();
    let said = unproven.obtain(&["--now"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.err
            .contains("the authority refuses: contoso.com: Fetching the token: "),
        "{said:?}"
    );
    assert!(
        said.err.contains("gate.contoso.com: Fetching the token"),
        "{said:?}"
    );
    assert_eq!(std::fs::read(unproven.file("contoso.pem")).unwrap(), before);

    let world = World::new().await;
    let before = std::fs::read(world.file("contoso.pem")).unwrap();
    for (trouble, words) in [
        (
            Trouble::RateLimited,
            "the authority limits the rate: the order: ",
        ),
        (Trouble::Broken, "certificate contoso: the order: "),
        // Signed, and yet: Exchange knows the tenant by another name.
        (
            Trouble::SignsFor("mail.contoso.com".to_owned()),
            "contoso.pem.new: signed, and not put in its place: certificate.contoso.chain:",
        ),
    ] {
        world.authority.set(trouble.clone());
        let said = world.obtain(&["--now"]).await;
        assert_eq!(said.status, 1, "{said:?}");
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains(words), "{trouble:?}: {said:?}");
        assert_eq!(
            std::fs::read(world.file("contoso.pem")).unwrap(),
            before,
            "{trouble:?}"
        );
    }
    world.authority.set(Trouble::None);
    // The place for tokens is taken.
    let taken = std::net::TcpListener::bind(world.challenges).unwrap();
    let said = world.obtain(&["--now"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.err.contains("acme.challenge_address 127.0.0.1:"),
        "{said:?}"
    );
    drop(taken);
    // The authority is away.
    let away = format!("http://127.0.0.1:{}/directory", free_port());
    let config = world.configuration_for(&away);
    let said = gatepost(&config, &["certificate", "obtain", "contoso", "--now"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.err.contains(&away), "{said:?}");
    let said = gatepost(&config, &["certificate", "obtain", "fabrikam"]).await;
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.err.contains("has no acme = true"), "{said:?}");
    assert_eq!(std::fs::read(world.file("contoso.pem")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_itself_is_verified() {
    let world = World::new().await;
    let localhost = Leaf::named("localhost");
    let strange = Authority::new("strange").unwrap();
    for (issued, well) in [
        (world.around.authority.issue(&localhost).unwrap(), true),
        (
            world
                .around
                .authority
                .issue(&Leaf::named("other.example"))
                .unwrap(),
            false,
        ),
        (strange.issue(&localhost).unwrap(), false),
    ] {
        let signer = Arc::new(Authority::new("acme").unwrap());
        let authority = AcmeAuthority::start(signer, world.challenges, Some(&issued)).await;
        let config = world.configuration_for(&authority.directory);
        let said = gatepost(&config, &["certificate", "obtain", "contoso", "--now"]).await;
        assert_eq!(said.status == 0, well, "{said:?}");
        assert_eq!(authority.seen().0, usize::from(well));
        if !well {
            assert!(said.err.contains("invalid peer certificate"), "{said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_renews_what_is_due_and_takes_it_without_a_restart() {
    let world = World::new().await;
    let around = &world.around;
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
    let leaf = Leaf::named("contoso.com").until(soon.as_secs());
    let old = around.authority.issue(&leaf).unwrap();
    write_identity(around.folder.path(), "contoso", &old);
    let before = std::fs::read(world.file("contoso.pem")).unwrap();
    // First it fails, and the old one stays in use.
    world.authority.set(Trouble::RateLimited);
    let log = world.file("log");
    let process = Process::logging(&world.configuration(), &log);
    let counted = |result: &str, times: usize| {
        format!("gatepost_acme_orders_total{{name=\"contoso\",result=\"{result}\"}} {times}\n")
    };
    until("the failed order", async || {
        Some(scrape(world.admin).await).filter(|text| text.contains(&counted("failed", 1)))
    })
    .await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("not renewed, the old certificate stays"),
        "{text}"
    );
    assert!(text.contains("limits the rate"), "{text}");
    assert_eq!(std::fs::read(world.file("contoso.pem")).unwrap(), before);
    assert!(process.terminate().success());

    world.authority.set(Trouble::None);
    let process = Process::logging(&world.configuration(), &log);
    until("the renewal and the reload", async || {
        let text = scrape(world.admin).await;
        let taken = "gatepost_reloads_total{result=\"ok\"} 1\n";
        (text.contains(&counted("ok", 1)) && text.contains(taken)).then_some(())
    })
    .await;
    // The simulated Exchange does not trust the ACME authority; what it saw tells which certificate was shown.
    let listener = SocketAddr::from(([127, 0, 0, 1], world.ports[0]));
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com", LETTER);
    let id = "0d6f9b1c-0000-4000-8000-000000000001";
    let outbound = Outbound::stamped(&around.contoso, mail, id).unwrap();
    let answer = around.exchange_out(listener).send(&outbound).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let seen = around.exchange.received().await.unwrap();
    let names = seen.tls.as_ref().unwrap().names.all();
    assert_eq!(names, ["contoso.com", "gate.contoso.com"]);
    assert!(process.terminate().success());
}

#[tokio::test]
async fn an_order_that_could_never_be_well_is_told_by_the_check() {
    let world = World::new().await;
    let config = world.configuration();
    let text = std::fs::read_to_string(&config).unwrap();
    let said = gatepost(&config, &["check"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    for (from, to, problem) in [
        (
            "terms_of_service_agreed = true\n",
            "terms_of_service_agreed = false\n",
            "acme.terms_of_service_agreed: must be true",
        ),
        (
            "terms_of_service_agreed = true\n",
            "",
            "acme.terms_of_service_agreed: required",
        ),
        (
            "directory = \"http://127.0.0.1",
            "directory = \"http://192.0.2.1",
            "acme.directory: ",
        ),
        (
            "\"gate.contoso.com\"]",
            "\"*.contoso.com\"]",
            "certificate.contoso.names[1]: ",
        ),
        (
            "names = [\"contoso.com\", \"gate.contoso.com\"]\n",
            "",
            "certificate.contoso.names: required",
        ),
        (
            "acme = true\n",
            "",
            "certificate.contoso.names[0]: warning: has no effect",
        ),
        (
            "key = \"fabrikam.key\"\n",
            "key = \"fabrikam.key\"\nacme = true\nnames = [\"gate.contoso.com\"]\n",
            "certificate.fabrikam.names[0]: a second certificate that is ordered for this name",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&config, text.replace(from, to)).unwrap();
        let said = gatepost(&config, &["check"]).await;
        assert!(said.out.contains(problem), "{problem}: {said:?}");
    }
    let without = text.split("[acme]").next().unwrap();
    std::fs::write(&config, without).unwrap();
    let said = gatepost(&config, &["check"]).await;
    assert!(
        said.out
            .contains("certificate.contoso.acme: needs an [acme] table"),
        "{said:?}"
    );
}
