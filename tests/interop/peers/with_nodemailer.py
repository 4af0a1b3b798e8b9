"""nodemailer, installed from npm into target/interop."""

import base64
import json
import subprocess

import client
from rig import PASSWORD
from tools import ROOT, Missing, installed

SCRIPT = """
const [options, envelope, raw] = JSON.parse(require('fs').readFileSync(0, 'utf8'));
options.tls = { ca: require('fs').readFileSync(options.ca) };
require('nodemailer').createTransport(options).sendMail({ envelope, raw: Buffer.from(raw, 'base64') })
  .catch((error) => { console.error(error); process.exit(1); });
"""


class Peer(client.Client):
    name = "nodemailer"

    def find(self):
        self.node = installed("node")
        self.folder = ROOT / "target" / "interop" / "node"
        manifest = self.folder / "node_modules" / "nodemailer" / "package.json"
        if not manifest.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            command = [installed("npm"), "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", self.folder, "nodemailer"]
            if subprocess.run(command, capture_output=True, check=False, timeout=120).returncode:
                raise Missing("npm cannot fetch nodemailer")
        self.version = "nodemailer " + json.loads(manifest.read_text())["version"]

    def hand(self, rig, mechanism, implicit, message):
        options = {
            "host": "127.0.0.1",
            "port": client.port(rig, implicit),
            "secure": implicit,
            "requireTLS": True,
            "authMethod": mechanism,
            "auth": {"user": client.USER, "pass": PASSWORD},
            "ca": str(rig.authority),
        }
        envelope = {"from": client.SENDER, "to": [client.RECIPIENT]}
        given = json.dumps([options, envelope, base64.b64encode(message).decode()])
        file = rig.folder / "nodemailer.json"
        file.write_text(given)
        with file.open("rb") as content:
            client.succeed([self.node, "-e", SCRIPT], stdin=content, cwd=self.folder)
