"""curl."""

import client
from rig import PASSWORD
from tools import installed, version


class Peer(client.Client):
    name = "curl"
    tls12 = ("--tls-max", "1.2")

    def find(self):
        self.program = installed("curl")
        self.version = version([self.program, "--version"])

    def hand(self, rig, mechanism, implicit, message):
        file = rig.folder / "curl.eml"
        file.write_bytes(message)
        client.succeed(
            [
                *(self.program, "--silent", "--show-error", "--max-time", "60", "--ssl-reqd", "--cacert", rig.authority),
                *self.options,
                f"{'smtps' if implicit else 'smtp'}://127.0.0.1:{client.port(rig, implicit)}/app.example",
                *("--user", f"{client.USER}:{PASSWORD}", "--login-options", f"AUTH={mechanism}"),
                *("--mail-from", client.SENDER, "--mail-rcpt", client.RECIPIENT, "--upload-file", file),
            ]
        )
