"""OpenSMTPD: as sender, as next hop, and as a relay with AUTH. It offers neither CHUNKING nor SMTPUTF8 nor PIPELINING.

Its spool, socket and users are compiled in, so it runs unpacked in a mount namespace of its own, where /var/spool, /var/lib,
/run and the lists of users are ours. It is Debian 13's, with its libraries: Debian 12's (6.8.0p2) cannot sign in TLS with
the OpenSSL 3 that it is built with (OpenSMTPD issues 1171 and 1239).
"""

import hashlib
import re
import shutil
import ssl
import subprocess

import peer
from peer import need
from rig import EXCHANGE, free_port, wait_for_port
from tools import UNPACKED, namespace, namespace_possible, unpacked

DOMAIN = "opensmtpd.example"
# OpenSMTPD's tables know no blanks.
PASSWORD = "relay-password"
USERS = {"opensmtpd": 64001, "opensmtpq": 64002}
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# The libraries come last: after them, no other program of the machine runs in the namespace.
PLACES = ("/var/spool", "/var/lib", "/run", "/etc/passwd", "/etc/group", LIBRARIES)
SUITE = "trixie"
PACKAGES = (
    *("opensmtpd", "libc6", "libcrypt1", "libdb5.3t64", "libevent-2.1-7t64", "libpam0g", "libssl3t64", "zlib1g"),
    *("libzstd1", "libaudit1", "libcap-ng0"),
)


class Peer(peer.Peer):
    name = "opensmtpd"

    def find(self):
        self.program = unpacked("usr/sbin/smtpd", *PACKAGES, suite=SUITE)
        namespace_possible()
        package = next(UNPACKED.with_name(SUITE).glob("packages/opensmtpd_*.deb"))
        self.version = f"OpenSMTPD {package.name.split('_')[1]}"

    def plan(self, rig):
        self.inject, self.hop, self.login = free_port(), free_port(), free_port()
        rig.tenant("opensmtpd", DOMAIN, self.hop)
        self.expected = fingerprint(rig.folder / f"{rig.tenants[-1].certificate}.pem")
        self.relayed = rig.relay("opensmtpd", self.login, "gatepost", PASSWORD)

    def start(self, rig):
        self.folder = rig.folder / "opensmtpd"
        libraries = self.folder / LIBRARIES.lstrip("/")
        libraries.parent.mkdir(parents=True)
        libraries.symlink_to(UNPACKED.with_name(SUITE) / LIBRARIES.lstrip("/"))
        command = namespace(self.folder, USERS, PLACES)
        (self.folder / "var/lib/opensmtpd/empty").mkdir(parents=True)
        # With OpenSSL 3 it cannot sign with EC keys.
        own = rig.certificate("opensmtpd", "opensmtpd.interop.example", "127.0.0.1", kind="rsa:2048")
        exchange = rig.certificate("opensmtpd-exchange", EXCHANGE, kind="rsa:2048")
        wrong = rig.certificate("opensmtpd-wrong", "mail.wrong.example", kind="rsa:2048")
        # It refuses keys that others may read.
        keys = []
        for _, key in (own, exchange, wrong):
            keys.append(self.folder / key.name)
            shutil.copy(key, keys[-1])
            keys[-1].chmod(0o600)
        table = self.folder / "logins"
        hashed = subprocess.run(["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True).stdout.strip()
        table.write_text(f"gatepost {hashed}\n")
        configuration = self.folder / "smtpd.conf"
        configuration.write_text(self.configuration(rig, (own[0], exchange[0], wrong[0]), keys))
        configuration.chmod(0o600)
        rig.run_until_end([*command, self.program, "-d", "-f", configuration, "-T", "smtp"], self.folder / "log")
        for port in (self.inject, self.hop, self.login):
            wait_for_port(port, self.folder / "log")

    def configuration(self, rig, chains, keys):
        names = ("own", "exchange", "wrong")
        pairs = (f'pki {name} cert "{chain}"\npki {name} key "{key}"' for name, chain, key in zip(names, chains, keys))
        own_pairs = "\n".join(pairs)
        return f"""
{own_pairs}
ca interop cert "{rig.authority}"
table logins file:{self.folder}/logins
listen on 127.0.0.1 port {self.inject} tag INJECT
listen on 127.0.0.1 port {self.hop} tls-require verify pki own ca interop tag HOP
listen on 127.0.0.1 port {self.login} tls-require pki own auth <logins> tag LOGIN
action "gatepost" relay host smtp+tls://127.0.0.1:{rig.ports["exchange"]} src 127.0.40.3 pki exchange ca interop
action "wrong" relay host smtp+tls://127.0.0.1:{rig.ports["exchange"]} src 127.0.40.3 pki wrong ca interop
action "mailbox" relay host smtp+notls://127.0.0.1:{rig.mailbox.port}
match from any for domain "contoso.com" action "gatepost"
match from any for domain "{peer.WRONG}" action "wrong"
match from any for any action "mailbox"
"""

    def log(self):
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def checks(self):
        yield "sender", self.sends
        yield "next hop", self.receives
        yield "relay", self.relays

    def sends(self, rig, row):
        peer.sends(rig, row, self.inject, "127.0.40.3:", "DATA")
        peer.sends_large_to_many(rig, row, self.inject)
        peer.refused_without_secret(rig, row, self.inject)
        peer.refused_with_another_certificate(rig, row, self.inject)

    def receives(self, rig, row):
        peer.receives(rig, row, "opensmtpd", f"user@{DOMAIN}")
        peer.receives_many(rig, row, "opensmtpd", DOMAIN)
        # It knows no rule about names: any certificate of the authority may hand mail to it, and its log says which did.
        taken = (self.folder / "log").read_text(errors="replace")
        checked = re.findall(r'smtp cert-check result="(\w+)" fingerprint="SHA256:(\w+)"', taken)
        need(("verified", self.expected) in checked, f"certificates {checked}, not {self.expected}")
        row.saw("client certificate (of the authority; its fingerprint is logged)", "DATA")
        peer.bounces_smtputf8(rig, row, "opensmtpd", DOMAIN)

    def relays(self, rig, row):
        peer.receives_as_relay(rig, row, "opensmtpd", self.relayed)


def fingerprint(chain):
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain.read_text())).hexdigest()
