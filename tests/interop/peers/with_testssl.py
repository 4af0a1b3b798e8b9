"""testssl.sh on every listener: no finding of severity HIGH or CRITICAL, but for the exceptions named here."""

import json
import os
import re
import shutil

import peer
from peer import need
from tools import UNPACKED, either, installed, unpacked, version

# What is no fault here, most of it for want of a public authority on loopback; each by testssl.sh's own id, with the reason.
EXCEPTIONS = {
    "cipher_order": "every suite that we have is an AEAD with forward secrecy; the client may choose, e.g. ChaCha20 without AES hardware",
    "cert_revocation": "the test authority publishes neither CRL nor OCSP",
}

LISTENERS = (("exchange", True), ("apps", True), ("smtps", False), ("devices", True))


class Peer(peer.Peer):
    name = "testssl"

    def find(self):
        installed("openssl")
        installed("hexdump")
        self.program = either("testssl", "usr/bin/testssl", "testssl.sh")
        # Its data lie in /etc; unpacked, it must be told.
        self.environment = dict(os.environ, TERM="dumb")
        if str(UNPACKED) in self.program:
            self.environment["TESTSSL_INSTALL_DIR"] = str(UNPACKED / "etc" / "testssl")
        if not any(shutil.which(name) for name in ("dig", "host", "drill", "nslookup")):
            # It insists on one, and never calls it under --nodns none.
            self.environment["PATH"] += f":{unpacked('usr/bin/host', 'bind9-host').parent}"
        self.version = re.sub(r"\x1b\[[\d;]*m", "", version([self.program, "--version"], self.environment))

    def start(self, rig):
        # A scan mostly waits: all of them at once.
        self.scans = {listener: self.begin(rig, listener, starttls) for listener, starttls in LISTENERS}

    def begin(self, rig, listener, starttls):
        result = rig.folder / f"testssl-{listener}.json"
        command = [self.program, "--quiet", "--warnings", "batch", "--nodns", "none", "--color", "0", "--jsonfile", result]
        command += ["--add-ca", rig.authority, *(("--starttls", "smtp") if starttls else ()), f"127.0.0.1:{rig.ports[listener]}"]
        return rig.run_until_end(command, rig.folder / f"testssl-{listener}.log", env=self.environment)

    def checks(self):
        for listener, starttls in LISTENERS:
            yield f"scan of {listener}", lambda rig, row, listener=listener, starttls=starttls: self.judge(rig, row, listener, starttls)

    def judge(self, rig, row, listener, starttls):
        result = rig.folder / f"testssl-{listener}.json"
        self.scans[listener].wait(900)
        need(result.exists(), f"testssl.sh wrote no result: {(rig.folder / f'testssl-{listener}.log').read_text(errors='replace')[-300:]}")
        findings = json.loads(result.read_text())
        grave = [one for one in findings if one["severity"] in ("HIGH", "CRITICAL", "FATAL")]
        left = [f"{one['id']}: {one['severity']} {one['finding']}" for one in grave if one["id"].partition(" ")[0] not in EXCEPTIONS]
        offered = {one["id"]: one["finding"] for one in findings}
        need("TLS1_2" in offered and "TLS1_3" in offered, f"the scan did not get far: {list(offered)[-5:]}")
        need(not left, "; ".join(left))
        for old in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
            need(offered[old].startswith("not offered"), f"{old} {offered[old]}")
        excepted = sorted({one["id"].partition(" ")[0] for one in grave})
        row.saw("STARTTLS" if starttls else "implicit TLS", "TLS1.2", "TLS1.3", f"{len(findings)} findings", *(f"excepted {one}" for one in excepted))
