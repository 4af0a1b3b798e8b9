"""Exim (GnuTLS): as sender, as next hop, and as a relay with AUTH. Unpacked, never installed, as a
user of a mount namespace, with a configuration of its own (`-C`)."""

import os
import re

import peer
from peer import need
from rig import PASSWORD, free_port, wait_for_port
from tools import UNPACKED, libraries, namespace, namespace_possible, unpacked

DOMAIN = "exim.example"
USER, NUMBER = "Debian-exim", 64003
PACKAGES = ("exim4-daemon-heavy", "exim4-base", "libmariadb3", "libidn12", "libspf2-2")


class Peer(peer.Peer):
    name = "exim"

    def find(self):
        self.program = unpacked("usr/sbin/exim4", *PACKAGES)
        namespace_possible()
        package = next(UNPACKED.glob("packages/exim4-daemon-heavy_*.deb"))
        self.version = f"Exim {package.name.split('_')[1]}"

    def plan(self, rig):
        self.inject, self.hop, self.login = free_port(), free_port(), free_port()
        rig.tenant("exim", DOMAIN, self.hop)
        self.relayed = rig.relay("exim", self.login, "gatepost", PASSWORD)

    def start(self, rig):
        self.folder = rig.folder / "exim"
        self.folder.mkdir()
        own = rig.certificate("exim", "exim.interop.example", "127.0.0.1")
        configuration = self.folder / "exim.conf"
        configuration.write_text(self.configuration(rig, own))
        os.chown(self.folder, NUMBER, NUMBER)
        command = [
            *namespace(self.folder, {USER: NUMBER}),
            *("setpriv", f"--reuid={NUMBER}", f"--regid={NUMBER}", "--clear-groups"),
            *(self.program, "-C", configuration, "-bdf", "-q10s"),
        ]
        rig.run_until_end(command, self.folder / "output", env=libraries())
        for port in (self.inject, self.hop, self.login):
            wait_for_port(port, self.folder / "output")

    def configuration(self, rig, own):
        return f"""
primary_hostname = exim.interop.example
exim_user = {NUMBER}
exim_group = {NUMBER}
deliver_drop_privilege
never_users =
trusted_users = {NUMBER}
spool_directory = {self.folder}/spool
log_file_path = {self.folder}/%slog
pid_file_path = {self.folder}/pid
disable_ipv6
daemon_smtp_ports = {self.inject} : {self.hop} : {self.login}
local_interfaces = 127.0.0.1
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
log_selector = +tls_certificate_verified +tls_peerdn +tls_cipher +pipelining +smtp_protocol_error +incoming_port +outgoing_port
smtp_accept_max_per_connection = 200
tls_advertise_hosts = ${{if eq{{$received_port}}{{{self.inject}}}{{}}{{*}}}}
tls_certificate = {own[0]}
tls_privatekey = {own[1]}
tls_verify_certificates = {rig.authority}
tls_verify_hosts = ${{if eq{{$received_port}}{{{self.hop}}}{{*}}{{}}}}
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
begin acl
rcpt:
  accept condition = ${{if eq{{$received_port}}{{{self.inject}}}}}
  accept condition = ${{if eq{{$received_port}}{{{self.hop}}}}}
         verify = certificate
         condition = ${{if eq{{$tls_in_peerdn}}{{CN={DOMAIN}}}}}
  accept condition = ${{if eq{{$received_port}}{{{self.login}}}}}
         authenticated = *
  deny
begin routers
gatepost:
  driver = manualroute
  domains = contoso.com
  transport = gatepost
  route_list = * 127.0.0.1 byname
  self = send
wrong:
  driver = manualroute
  domains = {peer.WRONG}
  transport = wrong
  route_list = * 127.0.0.1 byname
  self = send
mailbox:
  driver = manualroute
  transport = mailbox
  route_list = * 127.0.0.1 byname
  self = send
begin transports
gatepost:
  driver = smtp
  port = {rig.ports["exchange"]}
  allow_localhost
  interface = 127.0.40.2
  hosts_require_tls = *
  tls_certificate = {rig.exchange_identity[0]}
  tls_privatekey = {rig.exchange_identity[1]}
  tls_verify_certificates = {rig.authority}
  tls_verify_hosts = *
  tls_verify_cert_hostnames =
wrong:
  driver = smtp
  port = {rig.ports["exchange"]}
  allow_localhost
  interface = 127.0.40.2
  hosts_require_tls = *
  tls_certificate = {rig.wrong_identity[0]}
  tls_privatekey = {rig.wrong_identity[1]}
  tls_verify_certificates = {rig.authority}
  tls_verify_hosts = *
  tls_verify_cert_hostnames =
mailbox:
  driver = smtp
  port = {rig.mailbox.port}
  allow_localhost
begin retry
* * F,10m,10s
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = ${{if def:tls_in_cipher}}
  server_condition = ${{if and{{{{eq{{$auth2}}{{gatepost}}}}{{eq{{$auth3}}{{{PASSWORD}}}}}}}}}
  server_set_id = $auth2
"""

    def log(self):
        return "\n".join(file.read_text(errors="replace")[-2500:] for file in sorted(self.folder.glob("*log")) + [self.folder / "output"])

    def lines(self, mark):
        lines = (self.folder / "mainlog").read_text(errors="replace").splitlines()
        return [line for line in lines if f" {mark} " in line]

    def checks(self):
        yield "sender", self.sends
        yield "next hop", self.receives
        yield "relay", self.relays

    def sends(self, rig, row):
        peer.sends(rig, row, self.inject, "127.0.40.2:", "BDAT")
        peer.sends_large_to_many(rig, row, self.inject)
        peer.sends_smtputf8(rig, row, self.inject)
        peer.refused_without_secret(rig, row, self.inject)
        peer.refused_with_another_certificate(rig, row, self.inject)
        sent = [line for line in self.lines("=>") if "T=gatepost" in line]
        need(all(re.search(r" L\b", line) for line in sent), f"no pipelining: {sent}")
        need(all("CV=yes" in line for line in sent), f"our certificate was not verified: {sent}")
        row.saw("PIPELINING")

    def receives(self, rig, row):
        peer.receives(rig, row, "exim", f"user@{DOMAIN}")
        peer.receives_many(rig, row, "exim", DOMAIN)
        peer.receives_smtputf8(rig, row, "exim", DOMAIN)
        taken = [line for line in self.lines("<=") if f"<= app@{DOMAIN}" in line]
        need(taken and all("CV=yes" in line and f'DN="CN={DOMAIN}"' in line for line in taken), f"certificate: {taken}")
        need(all(re.search(r" K\b", line) for line in taken), f"no BDAT: {taken}")
        need(all(re.search(r" L\b", line) for line in taken), f"no pipelining: {taken}")
        row.saw("client certificate", "BDAT", "PIPELINING")

    def relays(self, rig, row):
        peer.receives_as_relay(rig, row, "exim", self.relayed)
        need(any("A=plain:gatepost" in line for line in self.lines("<=")), "no login in Exim's log")
