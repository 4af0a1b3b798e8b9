"""Postfix: its smtp client as sender, its smtpd as next hop, twice (with and without SMTPUTF8), and as a relay with AUTH. One
instance of its own (`-c`)."""

import hashlib
import os
import re
import shutil
import ssl
import subprocess

import peer
from peer import need
from logins import Logins
from rig import PASSWORD, SMARTHOST, free_port, wait_for_port
from tools import installed, root_needed, version

DOMAIN, ASCII_DOMAIN = "postfix.example", "postfix-ascii.example"


class Peer(peer.Peer):
    name = "postfix"

    def find(self):
        self.program = installed("postfix")
        root_needed("Postfix")
        self.version = "Postfix " + version([installed("postconf"), "-d", "-h", "mail_version"])

    def plan(self, rig):
        self.inject, self.hop, self.ascii_hop, self.login = (free_port() for _ in range(4))
        self.tenants = [rig.tenant("postfix", DOMAIN, self.hop), rig.tenant("postfix-ascii", ASCII_DOMAIN, self.ascii_hop)]
        self.relayed = rig.relay("postfix", self.login, "gatepost", PASSWORD)

    def start(self, rig):
        self.folder = rig.folder / "postfix"
        for name in ("etc", "spool", "lib"):
            (self.folder / name).mkdir(parents=True)
        shutil.chown(self.folder / "lib", "postfix")
        etc = self.folder / "etc"
        for file in ("post-install", "postfix-files", "postfix-script"):
            if os.path.exists(f"/etc/postfix/{file}"):
                shutil.copy(f"/etc/postfix/{file}", etc)
        if os.path.isdir("/etc/postfix/postfix-files.d"):
            shutil.copytree("/etc/postfix/postfix-files.d", etc / "postfix-files.d")
        chain, key = rig.certificate("postfix", "postfix.interop.example", "127.0.0.1")
        self.logins = Logins(self.folder / "logins", "gatepost", PASSWORD)
        rig.stack.callback(self.logins.close)
        (etc / "main.cf").write_text(self.main_cf(rig, chain, key))
        (etc / "master.cf").write_text(self.master_cf(rig))
        rig.stack.callback(self.stop)
        run = subprocess.run([self.program, "-c", etc, "start"], capture_output=True, text=True, check=False, timeout=60)
        need(run.returncode == 0, f"postfix start: {run.stderr[-800:]}")
        for port in (self.inject, self.hop, self.ascii_hop, self.login):
            wait_for_port(port, self.folder / "log")

    def stop(self):
        subprocess.run([self.program, "-c", self.folder / "etc", "stop"], capture_output=True, check=False, timeout=60)

    def main_cf(self, rig, chain, key):
        prints = (fingerprint(rig.folder / f"{tenant.certificate}.pem") for tenant in self.tenants)
        allowed = " ".join(f"{{{one} = ok}}" for one in prints)
        return f"""
compatibility_level = 3.6
queue_directory = {self.folder}/spool
data_directory = {self.folder}/lib
maillog_file = {self.folder}/log
maillog_file_prefixes = {rig.folder}
myhostname = postfix.interop.example
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:{rig.mailbox.port}
transport_maps = inline:{{ {{contoso.com = gatepost:[127.0.0.1]:{rig.ports["exchange"]}}},
 {{{peer.WRONG} = wrong:[127.0.0.1]:{rig.ports["exchange"]}}} }}
alias_maps =
local_recipient_maps =
smtpd_tls_chain_files = {key}, {chain}
smtpd_tls_CAfile = {rig.authority}
smtpd_tls_fingerprint_digest = sha256
smtpd_tls_received_header = yes
smtpd_client_event_limit_exceptions = 127.0.0.0/8
relay_clientcerts = inline:{{ {allowed} }}
smtpd_relay_restrictions = permit_tls_clientcerts, reject
smtp_tls_CAfile = {rig.authority}
"""

    def master_cf(self, rig):
        gate = "-o smtpd_tls_security_level=encrypt -o smtpd_tls_req_ccert=yes -v"
        login = (
            "-o smtpd_tls_security_level=encrypt -o smtpd_tls_auth_only=yes -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_type=dovecot "
            f"-o smtpd_sasl_path={self.folder}/logins -o smtpd_relay_restrictions=permit_sasl_authenticated,reject"
        )
        client, wrong = (
            f"-o smtp_bind_address=127.0.40.1 -o smtp_tls_security_level=secure -o {{smtp_tls_secure_cert_match={SMARTHOST}}} "
            f"-o {{smtp_tls_chain_files={key}, {chain}}} -v"
            for chain, key in (rig.exchange_identity, rig.wrong_identity)
        )
        return f"""
127.0.0.1:{self.inject} inet n - n - - smtpd -o mynetworks=127.0.0.0/8 -o smtpd_relay_restrictions=permit_mynetworks,reject
127.0.0.1:{self.hop} inet n - n - - smtpd {gate}
127.0.0.1:{self.ascii_hop} inet n - n - - smtpd {gate} -o smtpd_discard_ehlo_keywords=smtputf8,chunking
127.0.0.1:{self.login} inet n - n - - smtpd {login}
gatepost unix - - n - - smtp {client}
wrong unix - - n - - smtp {wrong}
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

    def log(self):
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if re.search(r" [<>] |reject|warning|status=|fatal", line))[-4000:]

    def commands(self, daemon, direction):
        """The commands of a verbose daemon, and replies between them, in order."""
        found = []
        for line in (self.folder / "log").read_text(errors="replace").splitlines():
            if match := re.search(rf"/{daemon}\[\d+\]: ([<>]) \S+: (.*)", line):
                found.append((match[1] == direction, match[2]))
        return found

    def checks(self):
        yield "sender", self.sends
        yield "next hop", self.receives
        yield "next hop without SMTPUTF8 and CHUNKING", self.receives_ascii
        yield "relay", self.relays

    def sends(self, rig, row):
        peer.sends(rig, row, self.inject, "127.0.40.1:", "DATA")
        peer.sends_large_to_many(rig, row, self.inject)
        peer.sends_smtputf8(rig, row, self.inject)
        peer.refused_without_secret(rig, row, self.inject)
        peer.refused_with_another_certificate(rig, row, self.inject)
        said = self.commands("smtp", ">")
        need(
            any(
                ours and text.startswith("MAIL") and next_ours and next_text.startswith("RCPT")
                for (ours, text), (next_ours, next_text) in zip(said, said[1:])
            ),
            "Postfix did not pipeline",
        )
        row.saw("PIPELINING")

    def receives(self, rig, row):
        peer.receives(rig, row, "postfix", f"user@{DOMAIN}")
        peer.receives_many(rig, row, "postfix", DOMAIN)
        peer.receives_smtputf8(rig, row, "postfix", DOMAIN)
        message = next(one for one in rig.mailbox.messages if one.sender == f"app@{DOMAIN}")
        need(b'(Client CN "postfix.example", Issuer "Interoperation authority" (verified OK))' in message.header, "no verified certificate")
        row.saw("client certificate (fingerprint)")
        said = [text for theirs, text in self.commands("smtpd", "<") if theirs]
        need(any(text.startswith("BDAT ") for text in said), "BDAT was not used")
        row.saw("BDAT")

    def receives_ascii(self, rig, row):
        peer.receives(rig, row, "postfix-ascii", f"user@{ASCII_DOMAIN}")
        said = [text for theirs, text in self.commands("smtpd", "<") if theirs]
        need("DATA" in said, "DATA was not used")
        row.saw("client certificate (fingerprint)", "DATA")
        peer.bounces_smtputf8(rig, row, "postfix-ascii", ASCII_DOMAIN)

    def relays(self, rig, row):
        peer.receives_as_relay(rig, row, "postfix", self.relayed)
        need(self.logins.granted, "nobody logged in")
        need("sasl_method=PLAIN, sasl_username=gatepost" in (self.folder / "log").read_text(errors="replace"), "no login in Postfix's log")


def fingerprint(chain):
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain.read_text())).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
