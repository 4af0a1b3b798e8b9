"""msmtp, told to add no Date and no Message-ID of its own."""

import client
from rig import PASSWORD
from tools import either, libraries, version


class Peer(client.Client):
    name = "msmtp"

    def find(self):
        packages = ("msmtp", "libidn12", "libgsasl18", "libntlm0", "libgssglue1", "libsecret-1-0")
        self.program = either("msmtp", "usr/bin/msmtp", *packages)
        self.version = version([self.program, "--version"], libraries())

    def hand(self, rig, mechanism, implicit, message):
        configuration = rig.folder / "msmtprc"
        configuration.write_text(
            f"account default\nhost 127.0.0.1\nport {client.port(rig, implicit)}\ntls on\ntls_starttls {'off' if implicit else 'on'}\n"
            f"tls_trust_file {rig.authority}\nauth {mechanism.lower()}\nuser {client.USER}\npassword \"{PASSWORD}\"\n"
            f"from {client.SENDER}\nset_date_header off\nset_msgid_header off\n"
        )
        configuration.chmod(0o600)
        file = rig.folder / "msmtp.eml"
        file.write_bytes(message.replace(b"\r\n", b"\n"))
        with file.open("rb") as content:
            client.succeed([self.program, f"--file={configuration}", client.RECIPIENT], stdin=content, env=libraries())
