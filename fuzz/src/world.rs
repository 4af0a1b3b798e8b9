//! One smart host's settings, for the targets that need tenants, applications and routes: made once per process.

use gatepost::config::{self, Settings, Surroundings};
use gatepost::lab::certificates::{Authority, Leaf};
use gatepost::spool::Spool;
use gatepost::trust::certificate::Roots;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

pub const CONTOSO: &str = "11111111-2222-3333-4444-555555555555";
pub const FABRIKAM: &str = "b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25";
pub const HOSTNAME: &str = "smarthost.contoso.com";
/// 2026-11-25 08:00:00 UTC.
pub const NOW_SECONDS: u64 = 1_795_593_600;

/// Contoso is strict; fabrikam takes forwarded mail. Addresses are those of the transcripts.
const CONFIGURATION: &str = r#"
hostname = "smarthost.contoso.com"
data_directory = "data"
[[certificate]]
name = "host"
chain = "host.pem"
key = "host.key"
[[certificate]]
name = "fabrikam"
chain = "fabrikam.pem"
key = "fabrikam.key"
[[listener]]
name = "exchange"
address = "127.0.0.1:0"
service = "connector"
tls = "starttls"
certificate = "host"
[exchange_online]
client_certificate_roots = "ca.pem"
server_certificate_roots = "ca.pem"
networks = ["127.0.40.0/24"]
[[tenant]]
name = "contoso"
tenant_id = "11111111-2222-3333-4444-555555555555"
accepted_domains = ["contoso.com", "*.contoso.com"]
secret_header = { name = "X-contoso-Gate", value = "contoso-secret" }
loop_header = { name = "X-Gatepost-Processed", value = "contoso-loop" }
[tenant.inbound_connector]
host = "127.0.0.1"
certificate = "host"
cloud_services_mail_enabled = true
[[tenant]]
name = "fabrikam"
tenant_id = "b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25"
accepted_domains = ["fabrikam.com"]
forwarded_senders = "allow"
secret_header = { name = "X-fabrikam-Gate", value = "fabrikam-secret" }
loop_header = { name = "X-Gatepost-Processed", value = "fabrikam-loop" }
[tenant.inbound_connector]
host = "127.0.0.1"
certificate = "fabrikam"
cloud_services_mail_enabled = true
[[application]]
name = "erp"
tenant = "contoso"
username = "erp"
password_hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$7hM0ZcmT6dJ2bE3VJwDDZ9cgPYk4pEoMsy1Yv1tJH1w"
senders = ["*@contoso.com"]
internal = true
[[application]]
name = "scanner"
tenant = "contoso"
networks = ["127.0.7.7/32"]
senders = ["scanner@contoso.com", "<>"]
[[route]]
recipients = "accepted"
via = "exchange"
[[route]]
recipients = "any"
via = "mx"
[admin]
address = "127.0.0.1:0"
"#;

/// Settings and the folder of their files.
pub struct World {
    pub settings: Settings,
    pub folder: PathBuf,
}

const SCRATCH: &str = "gatepost-fuzz-";

/// In memory where the machine has it: the targets write a lot.
fn root() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// A new folder of this process. A fuzzer ends without saying so: what processes that are gone have left is removed first.
pub fn scratch() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        let left = std::fs::read_dir(root()).expect("a folder").flatten();
        for entry in left {
            let name = entry.file_name();
            let process = name.to_str().and_then(|name| name.strip_prefix(SCRATCH));
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                let _gone = std::fs::remove_dir_all(entry.path());
            }
        }
    }
    let own = root().join(format!("{SCRATCH}{}", std::process::id()));
    let folder = own.join(number.to_string());
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Removes what this process has written; nothing may be asked of it afterwards.
pub fn leave() {
    let _gone = std::fs::remove_dir_all(root().join(format!("{SCRATCH}{}", std::process::id())));
}

pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = scratch();
        let authority = Authority::new("fuzz").expect("an authority");
        let write =
            |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
        for (file, name) in [("host", HOSTNAME), ("fabrikam", "fabrikam.com")] {
            let issued = authority.issue(&Leaf::named(name)).expect("a certificate");
            write(&format!("{file}.pem"), issued.chain_pem());
            write(&format!("{file}.key"), issued.key_pem());
        }
        let exchange = authority.issue(&Leaf::exchange()).expect("a certificate");
        write("exchange.pem", exchange.chain_pem());
        write("ca.pem", &authority.pem());
        let loaded = check(&folder.join("gatepost.toml"), CONFIGURATION).expect("it reads");
        let settings = loaded
            .settings
            .unwrap_or_else(|| panic!("{:?}", loaded.problems));
        World { settings, folder }
    })
}

/// Checks a configuration in surroundings that never change.
pub fn check(path: &Path, text: &str) -> Result<config::Loaded, config::Unreadable> {
    static NO_ROOTS: OnceLock<Arc<Roots>> = OnceLock::new();
    let surroundings = Surroundings {
        environment: &|name| (name == "SECRET").then(|| ENVIRONMENT.into()),
        system_roots: &|| Arc::clone(NO_ROOTS.get_or_init(|| Arc::new(config::system_roots()))),
        unix_seconds: now_seconds(),
        endpoints_in_force: None,
        candidate: None,
    };
    config::parse(path, text, &surroundings)
}

/// What `${SECRET}` is, and what no message may show.
pub const ENVIRONMENT: &str = "hunter2-out-of-the-environment";

/// The certificates are made now, so the clock is read once; nothing else depends on it.
fn now_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

pub fn now_of_certificates() -> u64 {
    now_seconds()
}

/// A store for sessions to keep mail in, and the runtime that drives it.
pub struct Desk {
    pub runtime: tokio::runtime::Runtime,
    pub spool: Spool,
}

pub fn desk() -> &'static Desk {
    static DESK: OnceLock<Desk> = OnceLock::new();
    DESK.get_or_init(|| {
        let folder = scratch();
        let metrics = gatepost::metrics::Metrics::new().expect("metrics");
        let store: PathBuf = folder.join("queue");
        Desk {
            runtime: runtime(),
            spool: Spool::open(&store, &metrics).expect("a store"),
        }
    })
}

pub fn runtime() -> tokio::runtime::Runtime {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    built.expect("a runtime")
}
