"""swaks, with its pipelining."""

import re
import subprocess

import client
from peer import need
from tools import Missing, either, installed, version
from rig import PASSWORD


class Peer(client.Client):
    name = "swaks"
    tls12 = ("--tls-protocol", "tlsv1_2")
    adds = b"\r\n"

    def find(self):
        installed("perl")
        self.program = either("swaks", "usr/bin/swaks", "swaks")
        if subprocess.run(["perl", "-MNet::SSLeay", "-e", "1"], capture_output=True, check=False).returncode:
            raise Missing("Perl's Net::SSLeay is not installed (libnet-ssleay-perl)")
        self.version = version([self.program, "--version"])

    def hand(self, rig, mechanism, implicit, message):
        file = rig.folder / "swaks.eml"
        file.write_bytes(message)
        self.said = client.succeed(
            [
                *(self.program, "--server", "127.0.0.1", "--port", client.port(rig, implicit), "--pipeline"),
                *("--tls-on-connect" if implicit else "--tls", "--tls-verify", "--tls-ca-path", rig.authority),
                *("--auth", mechanism, "--auth-user", client.USER, "--auth-password", PASSWORD),
                *("--from", client.SENDER, "--to", client.RECIPIENT, "--data", f"@{file}"),
                *self.options,
            ]
        )

    def also(self, row):
        # Its transcript, in order: ` ~> ` what it sends under TLS, `<~  ` what it is told.
        need(re.search(r"^ ~> MAIL FROM:.*\n ~> RCPT TO:.*\n ~> DATA$", self.said, re.M), f"swaks did not pipeline: {self.said[-1500:]}")
        row.saw("PIPELINING")
