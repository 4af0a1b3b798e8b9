"""Gatepost, throw-away certificates and two recording next hops: what every peer is tried against."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time
import uuid

from sink import Message, Sink
from tools import ROOT

PASSWORD = "pass word, 1%+:'x"
EXCHANGE = "mail.protection.outlook.com"
SMARTHOST = "smarthost.interop.example"
GATE = "only-for-interoperation"
# What mail servers and clients like to change: dots, blanks at the end, 8-bit octets, long and empty lines.
BODY = (
    b"First line\r\n.\r\n..two dots\r\n.one dot\r\nFrom the start\r\nblanks \t \r\n\tindented =20 =\r\n\r\n"
    + "gr\u00fc\u00dfe, \u4f60\u597d".encode()
    + b"\r\n"
    + b"long " * 180
    + b"\r\n-- \r\nend\r\n\r\n\r\n"
)


class Fault(Exception):
    """Something is not as it must be."""


def need(holds: object, what: str) -> None:
    """Fails the row unless it holds."""
    if not holds:
        raise Fault(what)


# Below those that the system gives away by itself (ip_local_port_range): an outgoing connection or another program's
# port 0 cannot take one between the moment it was found free and the moment its server binds it.
PORTS = itertools.cycle(range(12_000, 20_000))
for _ in range(os.getpid() * 37 % 8_000):
    next(PORTS)


def free_port() -> int:
    for port in PORTS:
        with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", port)):
            return port
    raise AssertionError("a cycle has no end")


def token() -> str:
    """A word that stands in one message only."""
    return "interop-" + uuid.uuid4().hex


@dataclasses.dataclass
class Tenant:
    """A tenant whose inbound connector is one of the peers, and its application."""

    name: str
    domain: str
    port: int
    certificate: str


class Rig:
    """Everything in one temporary folder, stopped and removed at the end."""

    def __init__(self, keep: bool):
        self.keep = keep
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gatepost-interop."))
        self.folder.chmod(0o755)
        self.stack = contextlib.ExitStack()
        self.tenants: list[Tenant] = []
        self.relays: list[tuple[str, int, str, str]] = []
        self.ports = {name: free_port() for name in ("exchange", "apps", "smtps", "devices", "admin")}
        self._authority()
        self.smarthost = self.certificate("smarthost", SMARTHOST, "127.0.0.1")
        self.exchange_identity = self.certificate("exchange", EXCHANGE)
        self.wrong_identity = self.certificate("wrong", "mail.wrong.example")
        self.exchange = Sink(self._exchange_context())  # where contoso's internal mail goes
        self.mailbox = Sink()  # where the mail servers under test send what Gatepost gave them
        self.stack.callback(self.exchange.close)
        self.stack.callback(self.mailbox.close)
        self.tenant("contoso", "contoso.com", self.exchange.port)

    # ---- certificates ----

    def _openssl(self, *arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=self.folder)

    def _authority(self) -> None:
        self._openssl(
            *"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -keyout ca.key -out ca.pem -subj".split(),
            "/CN=Interoperation authority",
        )
        self.authority = self.folder / "ca.pem"

    def certificate(self, file: str, *names: str, kind: str = "ec -pkeyopt ec_paramgen_curve:P-256") -> tuple[pathlib.Path, pathlib.Path]:
        """Chain and key for these names; the first is the CN. Throw-away, so readable by every user that a peer runs as."""
        chain, key = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        types = ("IP" if name.replace(".", "").isdigit() else "DNS" for name in names)
        alternative = ",".join(f"{type_}:{name}" for type_, name in zip(types, names))
        extensions = self.folder / f"{file}.ext"
        extensions.write_text(
            f"subjectAltName={alternative}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n"
            "basicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        )
        self._openssl(
            *f"req -newkey {kind} -nodes -keyout".split(), key, "-out", f"{file}.csr", "-subj", f"/CN={names[0]}"
        )
        self._openssl(
            *"x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -in".split(), f"{file}.csr", "-extfile", extensions, "-out", chain
        )
        key.chmod(0o644)
        return chain, key

    def _exchange_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.exchange_identity)
        context.load_verify_locations(self.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """What a client that verifies us uses; our certificate also carries 127.0.0.1."""
        return ssl.create_default_context(cafile=str(self.authority))

    # ---- Gatepost ----

    def tenant(self, name: str, domain: str, port: int) -> Tenant:
        """A tenant whose inbound connector listens on that port. Before `start`."""
        self.certificate(f"tenant-{name}", domain)
        self.tenants.append(Tenant(name, domain, port, f"tenant-{name}"))
        return self.tenants[-1]

    def relay(self, name: str, port: int, username: str, password: str) -> str:
        """A relay with AUTH; the address that is routed to it. Before `start`."""
        self.relays.append((name, port, username, password))
        return f"someone@{name}.relayed.example"

    def _gatepost(self, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.program, *arguments], capture_output=True, text=True, check=False, timeout=60, **more)

    def build(self) -> None:
        """Builds the server and finds its program (or takes GATEPOST)."""
        self.program = os.environ.get("GATEPOST", "")
        if not self.program:
            subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT, check=True)
            self.program = str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "gatepost")

    def start(self) -> None:
        """Writes the configuration and starts the server."""
        hashed = self._gatepost("hash-password", input=PASSWORD).stdout.strip()
        self.configuration = self.folder / "gatepost.toml"
        self.configuration.write_text(self._configuration(hashed))
        with (self.folder / "gatepost.log").open("wb") as log:
            server = subprocess.Popen(
                [self.program, "serve", "--config", str(self.configuration)], stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.stack.callback(stop, server)
        for line in server.stdout:
            if line.strip() == "gatepost ready":
                return
        raise Fault("Gatepost did not start: " + (self.folder / "gatepost.log").read_text()[-2000:])

    def _configuration(self, hashed: str) -> str:
        parts = [
            f"""
hostname = "{SMARTHOST}"
data_directory = "data"
[[certificate]]
name = "smarthost"
chain = "smarthost.pem"
key = "smarthost.key"
[exchange_online]
client_certificate_names = ["{EXCHANGE}"]
client_certificate_roots = "ca.pem"
server_certificate_names = ["{EXCHANGE}", "*.interop.example"]
server_certificate_roots = "ca.pem"
networks = ["127.0.40.0/24"]
[admin]
address = "127.0.0.1:{self.ports["admin"]}"
[dns]
servers = ["127.0.0.1:{free_port()}"]
[log]
level = "debug"
"""
        ]
        for name, service, tls in (
            ("exchange", "connector", "starttls"),
            ("apps", "submission", "starttls"),
            ("smtps", "submission", "implicit"),
            ("devices", "submission", "optional"),
        ):
            parts.append(
                f'[[listener]]\nname = "{name}"\naddress = "127.0.0.1:{self.ports[name]}"\nservice = "{service}"\n'
                f'tls = "{tls}"\ncertificate = "smarthost"\n'
            )
        for number, tenant in enumerate(self.tenants, 1):
            parts.append(
                f"""
[[certificate]]
name = "{tenant.name}"
chain = "{tenant.certificate}.pem"
key = "{tenant.certificate}.key"
[[tenant]]
name = "{tenant.name}"
tenant_id = "{tenant_id(number)}"
accepted_domains = ["{tenant.domain}"]
secret_header = {{ name = "X-Interop-Gate", value = "{GATE}-{tenant.name}", required = true }}
loop_header = {{ name = "X-Interop-Loop", value = "loop-{tenant.name}" }}
[tenant.inbound_connector]
host = "127.0.0.1"
port = {tenant.port}
certificate = "{tenant.name}"
cloud_services_mail_enabled = true
[[application]]
name = "{tenant.name}"
tenant = "{tenant.name}"
username = "app-{tenant.name}"
password_hash = "{hashed}"
senders = ["app@{tenant.domain}"]
internal = true
"""
            )
        for name, port, username, password in self.relays:
            parts.append(
                f'[[relay]]\nname = "{name}"\nhost = "127.0.0.1"\nport = {port}\ntls = "verify"\n'
                f'server_certificate_roots = "ca.pem"\nusername = "{username}"\npassword = "{password}"\n'
                f'[[route]]\nrecipients = ["someone@{name}.relayed.example"]\nvia = "relay:{name}"\n'
            )
        parts.append('[[route]]\nrecipients = "accepted"\nvia = "exchange"\n')
        return "\n".join(parts)

    def trace(self, text: str, seconds: float = 0, event: str = "") -> list[dict]:
        """The trace events of a message, once one of that kind is there."""
        end = time.monotonic() + seconds
        while True:
            run = self._gatepost("--config", str(self.configuration), "--json", "trace", text)
            events = json.loads(run.stdout or "[]")
            if not event or any(one["event"] == event for one in events) or time.monotonic() > end:
                return events
            time.sleep(0.2)

    def events(self, text: str, event: str) -> list[dict]:
        """Those of one kind, waited for."""
        return [one for one in self.trace(text, 20, event) if one["event"] == event]

    # ---- mail ----

    def stamped(self, word: str, secret: str = GATE + "-contoso", recipient: str = "user@contoso.com") -> bytes:
        """What Exchange would send: stamps, organisation headers with odd folding, the secret header."""
        return (
            f"X-MS-Exchange-Organization-SCL: -1\r\nX-MS-Exchange-Organization-Odd:\r\n\t folded\r\n  twice \r\n"
            f"X-OriginatorOrg: contoso.com\r\nX-MS-Exchange-CrossTenant-Id: {tenant_id(1)}\r\nX-Interop-Gate: {secret}\r\n"
            f"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nFrom: app@contoso.com\r\nTo: {recipient}\r\nSubject: {word}\r\n"
            f"Message-ID: <{word}@contoso.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: 8bit\r\n\r\n"
        ).encode() + BODY

    def plain(self, word: str, sender: str, recipient: str) -> bytes:
        """What an application would send, with Date and Message-ID."""
        return (
            f"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nFrom: {sender}\r\nTo: {recipient}\r\nSubject: {word}\r\n"
            f"Message-ID: <{word}@app.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: 8bit\r\n\r\n"
        ).encode() + BODY

    def submit(self, tenant: str, recipients: list[str], message: bytes, mail: tuple[str, ...] = (), rcpt: tuple[str, ...] = ()) -> None:
        """Hands a message to Gatepost as that tenant's application."""
        domain = next(one.domain for one in self.tenants if one.name == tenant)
        with smtplib.SMTP("127.0.0.1", self.ports["apps"], local_hostname="app.example", timeout=60) as client:
            client.starttls(context=self.client_context())
            client.ehlo()
            client.login(f"app-{tenant}", PASSWORD)
            transact(client, f"app@{domain}", recipients, message, mail, rcpt)

    def inject(self, port: int, sender: str, recipients: list[str], message: bytes, mail: tuple[str, ...] = (), rcpt: tuple[str, ...] = ()) -> None:
        """Hands a message to the mail server under test, in clear text."""
        with smtplib.SMTP("127.0.0.1", port, local_hostname="mailbox.example", timeout=60) as client:
            client.ehlo()
            transact(client, sender, recipients, message, mail, rcpt)

    # ---- processes ----

    def run_until_end(self, command: list[object], log: pathlib.Path, **more: object) -> subprocess.Popen:
        """Starts a server that is stopped at the end, with all that it started."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command], stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True, **more
            )
        self.stack.callback(stop_group, process)
        return process

    def close(self) -> None:
        self.stack.close()
        if not self.keep:
            subprocess.run(["rm", "-rf", "--", self.folder], check=False)


def tenant_id(number: int) -> str:
    return f"{number:08d}-2222-3333-4444-555555555555"


def transact(client: smtplib.SMTP, sender: str, recipients: list[str], message: bytes, mail: tuple[str, ...], rcpt: tuple[str, ...]) -> None:
    """One transaction, octets as they are."""
    client.command_encoding = "utf-8"
    code, text = client.mail(sender, list(mail))
    need(code == 250, f"MAIL: {code} {text!r}")
    for recipient in recipients:
        code, text = client.rcpt(recipient, list(rcpt))
        need(code in (250, 251), f"RCPT: {code} {text!r}")
    code, text = client.data(message)
    need(code == 250, f"DATA: {code} {text!r}")


def wait_for_port(port: int, log: pathlib.Path | None = None) -> None:
    for _ in range(150):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise Fault(f"nothing listens on port {port}" + (f": {log.read_text(errors='replace')[-800:]}" if log and log.exists() else ""))


def stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stop_group(process: subprocess.Popen) -> None:
    """Ends a server and its children, which share its session."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            if sign == signal.SIGKILL:
                return
            time.sleep(0.3)


def field(message: Message, name: str) -> str | None:
    """The value of the first field of that name, unfolded."""
    found = re.search(rb"(?im)^" + re.escape(name.encode()) + rb"[ \t]*:((?:.*\r\n)(?:[ \t].*\r\n)*)", message.header)
    return re.sub(r"\r\n[ \t]+", " ", found[1].decode("utf-8", "replace")).strip() if found else None
