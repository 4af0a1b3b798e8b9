"""The two servers under test, each as an administrator would run it for this job: same certificates, ports, next hop and
number of connections. A test server has: start(), stop(), flush(), cpu(), memory()."""

import os
import pathlib
import shutil
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
IN, OUT, ADMIN = 2525, 2526, 8025
TICKS = os.sysconf("SC_CLK_TCK")


def wait_for_port(port, seconds=60):
    """Until something accepts on the port; how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return time.monotonic() - began
        except OSError:
            time.sleep(0.002)
    raise RuntimeError(f"nothing listens on port {port}")


def proportional_memory(pids):
    """Octets of memory of these processes; what several share counts once."""
    total = 0
    for pid in pids:
        try:
            for line in open(f"/proc/{pid}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass  # it has just ended
    return total


def stat(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return [int(field) for field in fields[11:15]]


class Gatepost:
    name = "gatepost"
    program = pathlib.Path(os.environ.get("GATEPOST", TARGET / "release/gatepost"))

    def __init__(self, work, certificates, clear, connections):
        self.work = work / self.name
        self.work.mkdir()
        self.process = None
        self.config = self.work / "gatepost.toml"
        route = 'via = "relay:sink"' if clear else 'via = "exchange"'
        listener = 'service = "submission"\ntls = "none"' if clear else \
            'service = "connector"\ntls = "starttls"\ncertificate = "contoso"'
        self.config.write_text(f"""
hostname = "smarthost.contoso.com"
data_directory = "{self.work}/data"
[[certificate]]
name = "contoso"
chain = "{certificates}/server.pem"
key = "{certificates}/server.key"
[[listener]]
name = "in"
address = "127.0.0.1:{IN}"
{listener}
[exchange_online]
client_certificate_roots = "{certificates}/ca.pem"
server_certificate_roots = "{certificates}/ca.pem"
networks = ["127.0.0.0/8"]
[[tenant]]
name = "contoso"
tenant_id = "11111111-2222-3333-4444-555555555555"
accepted_domains = ["contoso.com"]
loop_header = {{ name = "X-Gatepost-Processed", value = "a-loop-header-value" }}
[tenant.inbound_connector]
host = "localhost"
port = {OUT}
certificate = "contoso"
max_connections = {connections}
[[application]]
name = "clear"
tenant = "contoso"
senders = ["*@contoso.com"]
networks = ["127.0.0.0/28"]
[[relay]]
name = "sink"
host = "localhost"
port = {OUT}
tls = "opportunistic"
[[route]]
recipients = "any"
{route}
[admin]
address = "127.0.0.1:{ADMIN}"
[log]
level = "error"
""")

    def start(self):
        """Seconds until it says that it is ready."""
        began = time.monotonic()
        log = open(self.work / "log", "a")
        self.process = subprocess.Popen(
            [self.program, "serve", "--config", self.config],
            stdout=subprocess.PIPE, stderr=log, text=True)
        if self.process.stdout.readline() != "gatepost ready\n":
            raise RuntimeError(f"gatepost did not start: {self.work}/log")
        return time.monotonic() - began

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(40)
            self.process = None

    def flush(self):
        subprocess.run(
            [self.program, "queue", "retry", "--tenant", "contoso", "--config", self.config],
            check=True, stdout=subprocess.DEVNULL)

    def cpu(self):
        return sum(stat(self.process.pid)[:2]) / TICKS

    def memory(self):
        return proportional_memory([self.process.pid])

    def queue_folder(self):
        return self.work / "data"


class Before(Gatepost):
    """An older Gatepost, to compare with."""
    name = "before"
    program = pathlib.Path(os.environ.get("BEFORE", "before"))


class Postfix:
    name = "postfix"
    DAEMONS = ("master", "smtpd", "tlsproxy", "cleanup", "qmgr", "smtp", "tlsmgr", "trivial-rewrite", "scache",
               "proxymap", "anvil", "postlogd", "pickup", "bounce", "error")

    def __init__(self, work, certificates, clear, connections):
        self.work = work / "postfix"
        # Apart from the queue: `postfix start` looks at the mode of every file in its configuration folder.
        self.config = self.work / "etc"
        self.config.mkdir(parents=True)
        (self.work / "spool").mkdir()
        (self.work / "lib").mkdir()
        shutil.chown(self.work / "lib", "postfix")
        os.chmod(work, 0o755)
        for name in ("post-install", "postfix-files", "postfix-script"):
            if pathlib.Path("/etc/postfix", name).exists():
                shutil.copy(pathlib.Path("/etc/postfix", name), self.config)
        tls = "" if clear else f"""
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = {certificates}/server.key, {certificates}/server.pem
smtpd_tls_CAfile = {certificates}/ca.pem
smtpd_tls_ask_ccert = yes
smtpd_tls_req_ccert = yes
smtpd_tls_session_cache_database =
smtp_tls_security_level = verify
smtp_tls_verify_cert_match = hostname
smtp_tls_CAfile = {certificates}/ca.pem
smtp_tls_chain_files = {certificates}/server.key, {certificates}/server.pem
smtp_tls_policy_maps = inline:{{ {{[127.0.0.1]:{OUT} = verify match=localhost}} }}
smtp_tls_connection_reuse = yes
tlsproxy_tls_chain_files = {certificates}/server.key, {certificates}/server.pem
"""
        who = "permit_mynetworks" if clear else "permit_tls_all_clientcerts"
        (self.config / "main.cf").write_text(f"""
compatibility_level = 3.6
queue_directory = {self.work}/spool
data_directory = {self.work}/lib
maillog_file = {self.work}/log
maillog_file_prefixes = {self.work}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = smarthost.contoso.com
mydestination =
mynetworks = {"127.0.0.0/8" if clear else ""}
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_relay_restrictions = {who}, reject
smtpd_data_restrictions =
relayhost = [127.0.0.1]:{OUT}
smtp_connection_cache_on_demand = yes
smtp_destination_concurrency_limit = {connections}
initial_destination_concurrency = {connections}
default_process_limit = 200
message_size_limit = 157286400
mailbox_size_limit = 0
in_flow_delay = 0
{tls}""")
        services = """pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsproxy unix - - n - 0 tlsproxy
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"""
        (self.config / "master.cf").write_text(f"127.0.0.1:{IN} inet n - n - - smtpd\n{services}")

    def run(self, *words):
        subprocess.run(["postfix", "-c", self.config, *words], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self):
        """Seconds until it accepts and its queue manager runs."""
        began = time.monotonic()
        self.run("start")
        wait_for_port(IN)
        return time.monotonic() - began

    def stop(self):
        try:
            self.run("stop")
        except subprocess.CalledProcessError:
            pass  # it was not running
        for _ in range(100):
            if not self.pids():
                return
            time.sleep(0.1)

    def flush(self):
        subprocess.run(["postqueue", "-c", self.config, "-f"], check=True)

    def pids(self):
        """Its master and the daemons below it."""
        try:
            master = int((self.work / "spool/pid/master.pid").read_text())
            children = open(f"/proc/{master}/task/{master}/children").read().split()
            return [master, *map(int, children)]
        except (OSError, ValueError):
            return []

    def cpu(self):
        """Of all, with those that have ended: they were the master's children."""
        total = 0
        for at, pid in enumerate(self.pids()):
            try:
                own = stat(pid)
            except OSError:
                continue
            total += sum(own) if at == 0 else sum(own[:2])
        return total / TICKS

    def memory(self):
        return proportional_memory(self.pids())

    def queue_folder(self):
        return self.work / "spool"


def kill_strays():
    """Nothing of an earlier run may answer on our ports."""
    for port in (IN, OUT, ADMIN):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            continue
        raise SystemExit(f"port {port} is taken: an earlier run, or another service")


SERVERS = {"gatepost": Gatepost, "before": Before, "postfix": Postfix}
