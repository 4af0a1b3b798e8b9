"""swaks, with its pipelining."""

import subprocess

import client
from tools import Missing, either, installed, version
from rig import PASSWORD


class Peer(client.Client):
    name = "swaks"
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
        client.succeed(
            [
                *(self.program, "--server", "127.0.0.1", "--port", client.port(rig, implicit), "--pipeline"),
                *("--tls-on-connect" if implicit else "--tls", "--tls-verify", "--tls-ca-path", rig.authority),
                *("--auth", mechanism, "--auth-user", client.USER, "--auth-password", PASSWORD),
                *("--from", client.SENDER, "--to", client.RECIPIENT, "--data", f"@{file}"),
            ]
        )

    def also(self, row):
        row.saw("PIPELINING")
