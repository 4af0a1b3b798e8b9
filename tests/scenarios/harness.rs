//! A smart host, a simulated Exchange Online and the certificates between them, for one test.

use gatepost::app::Server;
use gatepost::lab::certificates::{Authority, Issued, Leaf};
use gatepost::lab::{
    ApplicationClient, Dialect, ExchangeIn, ExchangeOptions, ExchangeOut, Organization, Outbound,
    Security,
};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const CONTOSO: &str = "11111111-2222-3333-4444-555555555555";
pub const FABRIKAM: &str = "b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25";
pub const HOSTNAME: &str = "smarthost.contoso.com";
/// The password of the application `erp`, and of no one else.
pub const PASSWORD: &str = "correct horse battery staple";

/// The outside of a smart host: folder, certificates, Exchange.
pub struct Surroundings {
    pub folder: tempfile::TempDir,
    pub authority: Authority,
    pub exchange_identity: Issued,
    pub exchange: ExchangeIn,
    pub contoso: Organization,
    pub fabrikam: Organization,
}

/// What a test changes of the usual configuration: text replacements and additions at the end.
#[derive(Default)]
pub struct Changes {
    pub replace: Vec<(&'static str, String)>,
    pub append: String,
}

impl Changes {
    pub fn replace(from: &'static str, to: &str) -> Self {
        Self {
            replace: vec![(from, to.to_owned())],
            append: String::new(),
        }
    }
}

fn organization(name: &str, id: &str) -> Organization {
    let domain = format!("{name}.com").parse().unwrap();
    let mut organization = Organization::new(name, id.parse().unwrap(), domain);
    organization.secret_header = Some((
        format!("X-{name}-Gate"),
        gatepost::mail::Secret::new(format!("{name}-secret")),
    ));
    organization.loop_header = Some((
        "X-Gatepost-Processed".to_owned(),
        gatepost::mail::Secret::new(format!("{name}-loop")),
    ));
    organization
}

impl Surroundings {
    pub async fn new() -> Self {
        Self::with(|options| options).await
    }

    pub async fn with(change: impl FnOnce(ExchangeOptions) -> ExchangeOptions) -> Self {
        let authority = Authority::new("scenario").unwrap();
        let (contoso, fabrikam) = (
            organization("contoso", CONTOSO),
            organization("fabrikam", FABRIKAM),
        );
        let options =
            ExchangeOptions::new(&authority, vec![contoso.clone(), fabrikam.clone()]).unwrap();
        let exchange = ExchangeIn::start(change(options)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, leaf) in [
            ("host", Leaf::named(HOSTNAME)),
            ("contoso", Leaf::named("contoso.com")),
            ("fabrikam", Leaf::named("fabrikam.com")),
        ] {
            write_identity(folder.path(), name, &authority.issue(&leaf).unwrap());
        }
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let exchange_identity = authority.issue(&Leaf::exchange()).unwrap();
        Self {
            folder,
            authority,
            exchange_identity,
            exchange,
            contoso,
            fabrikam,
        }
    }

    /// What opens the admin API, once the server has started.
    pub fn token(&self) -> String {
        let path = self.folder.path().join("data/admin.token");
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// Writes the configuration and tells its path. The ports are `port`s, 0 for free ones.
    pub fn configuration(&self, ports: [u16; 3], changes: &Changes) -> PathBuf {
        let exchange = self.exchange.address();
        let hash = password_hash();
        let mut text = format!(
            r#"
hostname = "{HOSTNAME}"
data_directory = "data"

[[certificate]]
name = "host"
chain = "host.pem"
key = "host.key"
[[certificate]]
name = "contoso"
chain = "contoso.pem"
key = "contoso.key"
[[certificate]]
name = "fabrikam"
chain = "fabrikam.pem"
key = "fabrikam.key"

[[listener]]
name = "exchange"
address = "127.0.0.1:{}"
service = "connector"
tls = "starttls"
certificate = "host"
[[listener]]
name = "apps"
address = "127.0.0.1:{}"
service = "submission"
tls = "starttls"
certificate = "host"
[[listener]]
name = "printers"
address = "127.0.0.1:{}"
service = "submission"
tls = "optional"
certificate = "host"
bare_newlines = "repair"

[exchange_online]
client_certificate_roots = "ca.pem"
server_certificate_roots = "ca.pem"
networks = ["127.0.40.0/24"]

[[tenant]]
name = "contoso"
tenant_id = "{CONTOSO}"
accepted_domains = ["contoso.com"]
secret_header = {{ name = "X-contoso-Gate", value = "contoso-secret" }}
loop_header = {{ name = "X-Gatepost-Processed", value = "contoso-loop" }}
[tenant.inbound_connector]
host = "{}"
port = {}
certificate = "contoso"
cloud_services_mail_enabled = true

[[tenant]]
name = "fabrikam"
tenant_id = "{FABRIKAM}"
accepted_domains = ["fabrikam.com"]
secret_header = {{ name = "X-fabrikam-Gate", value = "fabrikam-secret" }}
loop_header = {{ name = "X-Gatepost-Processed", value = "fabrikam-loop" }}
[tenant.inbound_connector]
host = "{}"
port = {}
certificate = "fabrikam"
cloud_services_mail_enabled = true

[[application]]
name = "erp"
tenant = "contoso"
username = "erp"
password_hash = "{hash}"
senders = ["erp@contoso.com"]
internal = true

[[application]]
name = "scanner"
tenant = "contoso"
networks = ["127.0.7.7/32"]
senders = ["scanner@contoso.com", "<>"]
internal = true

[[route]]
recipients = "any"
via = "exchange"

[delivery.exchange]
retry = ["1s"]
expire = "1h"

[admin]
address = "127.0.0.1:0"
"#,
            ports[0],
            ports[1],
            ports[2],
            exchange.ip(),
            exchange.port(),
            exchange.ip(),
            exchange.port(),
        );
        for (from, to) in &changes.replace {
            assert!(text.contains(from), "the configuration has no {from:?}");
            text = text.replace(from, to);
        }
        text.push_str(&changes.append);
        let path = self.folder.path().join("gatepost.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn settings(&self, changes: &Changes) -> gatepost::config::Settings {
        let loaded = gatepost::config::load(&self.configuration([0; 3], changes)).unwrap();
        loaded
            .settings
            .unwrap_or_else(|| panic!("{:?}", loaded.problems))
    }

    /// Exchange's outbound side towards a connector listener.
    pub fn exchange_out(&self, listener: SocketAddr) -> ExchangeOut {
        let roots = self.authority.roots().unwrap();
        ExchangeOut::new(listener, HOSTNAME, &roots, Some(&self.exchange_identity)).unwrap()
    }
}

pub fn write_identity(folder: &Path, name: &str, issued: &Issued) {
    std::fs::write(folder.join(format!("{name}.pem")), issued.chain_pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), issued.key_pem()).unwrap();
}

/// Made once: a hash takes its time.
fn password_hash() -> &'static str {
    static HASH: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    HASH.get_or_init(|| password_auth::generate_hash(PASSWORD))
}

/// A running smart host with its surroundings.
pub struct World {
    pub around: Surroundings,
    pub host: Server,
}

impl World {
    pub async fn start() -> Self {
        Self::with(Changes::default()).await
    }

    pub async fn with(changes: Changes) -> Self {
        Self::within(Surroundings::new().await, changes).await
    }

    pub async fn within(around: Surroundings, changes: Changes) -> Self {
        let host = Server::start(around.settings(&changes)).await.unwrap();
        Self { around, host }
    }

    /// With a world outside: names out of `zone`, mail exchangers on `mx_port`.
    pub async fn abroad(
        around: Surroundings,
        changes: Changes,
        zone: gatepost::dns::Zone,
        mx_port: u16,
    ) -> Self {
        let mut settings = around.settings(&changes);
        settings.outside = Some(gatepost::config::Outside {
            resolver: std::sync::Arc::new(zone),
            mx_port,
        });
        let host = Server::start(settings).await.unwrap();
        Self { around, host }
    }

    pub fn listener(&self, name: &str) -> SocketAddr {
        self.host.listener_address(name).unwrap()
    }

    /// Exchange's outbound side, ready to send.
    pub fn exchange_out(&self) -> ExchangeOut {
        self.around.exchange_out(self.listener("exchange"))
    }

    /// The application `erp`.
    pub fn erp(&self) -> ApplicationClient {
        self.application("apps")
            .login("erp", PASSWORD, Dialect::Plain)
    }

    /// An application without login, with STARTTLS.
    pub fn application(&self, listener: &str) -> ApplicationClient {
        ApplicationClient::new(
            self.listener(listener),
            HOSTNAME,
            &self.around.authority.roots().unwrap(),
        )
        .unwrap()
    }

    /// The scanner: no TLS, no login, its address is the proof.
    pub fn scanner(&self) -> ApplicationClient {
        self.application("printers")
            .security(Security::Clear)
            .from_address("127.0.7.7".parse().unwrap())
    }

    /// Stamped mail of a tenant.
    pub fn outbound(&self, organization: &Organization, mail: gatepost::lab::Mail) -> Outbound {
        Outbound::stamped(organization, mail, "0d6f9b1c-0000-4000-8000-000000000001")
            .expect("the rule routes it")
    }

    /// The next message that the simulated Exchange took, waited for in bounds.
    pub async fn received(&self) -> std::sync::Arc<gatepost::lab::Received> {
        self.around.exchange.received().await.unwrap()
    }

    /// The trace of one id, waited for in bounds.
    pub async fn trace(&self, text: &str) -> Vec<gatepost::message_trace::TraceEvent> {
        self.host.tracer().flush().await;
        let query = gatepost::message_trace::Query {
            text: Some(text.to_owned()),
            ..Default::default()
        };
        self.host.tracer().find(query).await.unwrap()
    }

    /// The configuration of this very server for commands, which must know where its admin API is.
    pub fn command_line(&self) -> PathBuf {
        let text = std::fs::read_to_string(self.around.folder.path().join("gatepost.toml"));
        let address = format!("[admin]\naddress = \"{}\"", self.host.admin_address());
        let text = text
            .unwrap()
            .replace("[admin]\naddress = \"127.0.0.1:0\"", &address);
        let path = self.around.folder.path().join("commands.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The token that the server has written.
    pub fn token(&self) -> String {
        self.around.token()
    }

    pub fn metrics(&self) -> String {
        String::from_utf8(self.host.metrics().text().unwrap()).unwrap()
    }
}

/// The server as a process of its own.
pub struct Process(Child);

impl Process {
    pub fn start(config: &Path) -> Self {
        Self::with_log(config, Stdio::null())
    }

    /// What is upgraded: the program that `GATEPOST_OLDER` names; without it, this one stands for it.
    pub fn older(config: &Path) -> Self {
        let this = env!("CARGO_BIN_EXE_gatepost");
        let program = std::env::var_os("GATEPOST_OLDER").unwrap_or_else(|| this.into());
        Self::serving(program.as_ref(), config, Stdio::null())
    }

    /// Its log goes to a file.
    pub fn logging(config: &Path, log: &Path) -> Self {
        Self::with_log(config, std::fs::File::create(log).unwrap().into())
    }

    /// [`Process::logging`] on a machine where the authorities of this file are public ones.
    pub fn trusting(roots: &Path, config: &Path, log: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.args(["serve", "--config"]).arg(config);
        command.env("SSL_CERT_FILE", roots);
        Self::spawn(command, std::fs::File::create(log).unwrap().into())
    }

    /// Its log goes into a pipe; who is given its end may read it, or not.
    pub fn unheard(config: &Path) -> (Self, std::process::ChildStderr) {
        let mut process = Self::with_log(config, Stdio::piped());
        let log = process.0.stderr.take().unwrap();
        (process, log)
    }

    /// Under this soft limit of open files.
    pub fn with_few_descriptors(config: &Path, limit: u64) -> Self {
        let mut shell = Command::new("sh");
        shell
            .args([
                "-c",
                "ulimit -Sn \"$2\" && exec \"$0\" serve --config \"$1\"",
            ])
            .arg(env!("CARGO_BIN_EXE_gatepost"))
            .arg(config)
            .arg(limit.to_string());
        Self::spawn(shell, Stdio::null())
    }

    /// Under strace from its start, which lets calls go wrong as these say (`fdatasync:signal=KILL:when=7`, per thread) and
    /// notes them in `calls_log`. Nothing where it did not come as far as being ready.
    pub fn injected(config: &Path, injections: &[String], calls_log: &Path) -> Option<Self> {
        let mut command = Command::new("strace");
        // -D: the server is the child, and strace stands beside it.
        command.args(["-D", "-f", "-qq", "-o"]).arg(calls_log);
        // Slows no other calls; but signals are lost with it.
        if !injections.iter().any(|one| one.contains(":signal")) {
            command.arg("--seccomp-bpf");
        }
        if injections.iter().any(|one| one.starts_with("openat:")) {
            for path in of_the_store(config) {
                command.arg("-P").arg(path);
            }
        }
        command
            .args(expressions(injections))
            .arg(env!("CARGO_BIN_EXE_gatepost"))
            .args(["serve", "--config"])
            .arg(config);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        match lines.next() {
            Some(Ok(line)) if line == "gatepost ready" => Some(Self(child)),
            _ => {
                let _over = (child.kill(), child.wait());
                None
            }
        }
    }

    /// Under strace, which writes down these calls with the names of their files, and lets some go wrong.
    pub fn listened_to(config: &Path, calls: &str, inject: Option<&str>, log: &Path) -> Self {
        let mut command = Command::new("strace");
        command
            .args(["-D", "-f", "-qq", "-yy", "-s", "200", "-o"])
            .arg(log)
            .args(["-e", &format!("trace={calls}")]);
        if let Some(inject) = inject {
            command.args(["-e", &format!("inject={inject}")]);
        }
        command
            .arg(env!("CARGO_BIN_EXE_gatepost"))
            .args(["serve", "--config"])
            .arg(config);
        Self::spawn(command, Stdio::null())
    }

    /// Whether it has ended by itself.
    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn with_log(config: &Path, log: Stdio) -> Self {
        Self::serving(env!("CARGO_BIN_EXE_gatepost").as_ref(), config, log)
    }

    fn serving(program: &Path, config: &Path, log: Stdio) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(config);
        Self::spawn(command, log)
    }

    fn spawn(mut command: Command, log: Stdio) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("a line on standard output").unwrap();
        assert_eq!(first, "gatepost ready");
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// kill -9, where it still lives.
    pub fn kill(mut self) {
        let _perhaps_over = self.0.kill();
        self.0.wait().unwrap();
    }

    pub fn terminate(mut self) -> std::process::ExitStatus {
        self.signal("-TERM");
        self.0.wait().unwrap()
    }

    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill")
            .args([signal, &self.0.id().to_string()])
            .status()
            .unwrap();
        assert!(kill.success());
    }
}

/// What tells strace to trace the calls that it is to let go wrong.
fn expressions(injections: &[String]) -> Vec<String> {
    let calls = injections.iter().filter_map(|one| one.split(':').next());
    let calls: Vec<&str> = calls.collect();
    let mut all = vec!["-e".to_owned(), format!("trace={}", calls.join(","))];
    for one in injections {
        all.extend(["-e".to_owned(), format!("inject={one}")]);
    }
    all
}

/// Folders and files of the store as they are: among hundreds of files that a start opens (libraries, authorities), those whose
/// opens are counted. What is made later is not among them, its folder is.
fn of_the_store(config: &Path) -> Vec<PathBuf> {
    let mut paths = vec![config.with_file_name("data").join("spool")];
    let mut looked_at = 0;
    while let Some(path) = paths.get(looked_at).cloned() {
        looked_at += 1;
        let inside = std::fs::read_dir(path).into_iter().flatten();
        paths.extend(inside.map(|entry| entry.unwrap().path()));
    }
    paths
}

/// strace beside a server; it ends with it.
pub struct Tracer(Child, BufReader<std::process::ChildStderr>);

impl Tracer {
    /// From now on strace lets calls of this process go wrong, as [`Process::injected`] does; nothing where it may not trace.
    pub fn attach(process: u32, injections: &[String], calls_log: &Path) -> Option<Self> {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-o"])
            .arg(calls_log)
            .args(expressions(injections))
            .args(["-p", &process.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Said once all threads are: `strace: Process 7 attached with 9 threads`.
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let tracer = Self(child, said);
        line.contains(" attached").then_some(tracer)
    }

    /// Once the server is over: all that it saw is written.
    pub fn finished(mut self) {
        self.0.wait().unwrap();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let already_over = self.0.kill().is_err();
        let _reaped = (already_over, self.0.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let already_over = self.0.kill().is_err();
        let _reaped = (already_over, self.0.wait());
    }
}

/// What `/metrics` says at the admin address.
pub async fn scrape(admin: SocketAddr) -> String {
    get(admin, "/metrics", &[]).await.1
}

/// GET with these headers (and Host, where there is none among them): status and body.
pub async fn get(admin: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    http(admin, "GET", path, headers, "").await.unwrap()
}

/// A request on a connection of its own, without any client's help.
pub async fn http(
    admin: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<(u16, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(admin).await?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request += &format!("Host: {admin}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        request += &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
    }
    stream
        .write_all(format!("{request}\r\n{body}").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Ok((
        status,
        if chunked {
            unchunked(body)
        } else {
            body.to_owned()
        },
    ))
}

fn unchunked(mut rest: &str) -> String {
    let mut out = String::new();
    while let Some((length, tail)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        out += &tail[..length];
        rest = tail[length..].trim_start_matches("\r\n");
    }
    out
}

/// A command's end.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `gatepost` with this configuration.
pub async fn gatepost(config: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(arguments).arg("--config").arg(config);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = run.await.unwrap();
    Said {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A port that nobody has, below those that the system gives away by itself (ip_local_port_range): another test's port 0
/// or outgoing connection cannot take it before it is bound. Each process begins elsewhere.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(37);
    loop {
        let next = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(20_000 + next % 12_000).unwrap();
        if std::net::TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Waits for something that becomes true by itself, in bounds; the pauses are short and few.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not happen in time"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The id at the end of a reply.
pub fn last_word(reply: &gatepost::smtp::reply::Reply) -> String {
    reply
        .lines
        .last()
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap()
        .to_owned()
}

pub const LETTER: &[u8] = b"From: Ada <ada@contoso.com>\r\nTo: bob@contoso.com\r\nSubject: hello\r\n\
    Date: Tue, 24 Nov 2026 08:15:31 +0000\r\nMessage-ID: <1@contoso.com>\r\nMIME-Version: 1.0\r\n\
    X-MS-Exchange-Organization-AuthAs: Internal\r\nX-MS-Exchange-Organization-AuthMechanism: 04\r\n\
    X-MS-Exchange-Organization-AuthSource: AM8PR05MB0002.eurprd05.prod.outlook.com\r\n\r\nHello.\r\n";
