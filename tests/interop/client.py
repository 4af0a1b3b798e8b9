"""What mail programs share: a login over a submission listener, a message without Date and Message-ID, its arrival at Exchange."""

import subprocess
from collections.abc import Callable

from peer import Peer, Row, arrived, need, unchanged
from rig import BODY, Rig, field, token

SENDER, RECIPIENT, USER = "app@contoso.com", "user@contoso.com", "app-contoso"

# (row, rig, mechanism, implicit TLS, message) hands the message over.
Hand = Callable[[Row, Rig, str, bool, bytes], None]


class Client(Peer):
    """A program that logs in and submits: each mechanism, under STARTTLS and under implicit TLS."""

    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")
    adds = b""  # what the program itself puts at the end of the content
    tls12: tuple[str, ...] = ()  # the options that hold it to TLS 1.2, where it has any
    options: tuple[str, ...] = ()  # of the row that runs, for `hand`

    def checks(self):
        for implicit in (False, True):
            for mechanism in self.mechanisms:
                yield "client", lambda rig, row, mechanism=mechanism, implicit=implicit: self.submits(rig, row, mechanism, implicit)
        if self.tls12:
            yield "client, TLS 1.2", self.submits_over_tls12

    def submits_over_tls12(self, rig: Rig, row: Row) -> None:
        self.options = self.tls12
        try:
            self.submits(rig, row, "PLAIN", False)
        finally:
            self.options = ()
        need("TLS1.2" in row.seen, f"TLS 1.2 was asked for: {row.seen}")

    def submits(self, rig: Rig, row: Row, mechanism: str, implicit: bool) -> None:
        word = token()
        self.hand(rig, mechanism, implicit, bare_message(word))
        message = arrived(rig.exchange.wait(word), 1)
        message.content = message.content.removesuffix(self.adds)
        unchanged(message)
        need(field(message, "Date"), "no Date was added")
        identifier = (field(message, "Message-ID") or "").strip("<>")
        need("@" in identifier, "no Message-ID was added")
        need(field(message, "X-MS-Exchange-CrossPremises-AuthAs") == "Internal", "not stamped as internal")
        facts = rig.events(identifier, "received")[0]
        need(facts["application"] == "contoso", f"taken as {facts.get('application')}")
        row.saw("implicit TLS" if implicit else "STARTTLS", facts["tls"]["version"], f"AUTH {mechanism}", "Date and Message-ID added")
        self.also(row)

    def hand(self, rig: Rig, mechanism: str, implicit: bool, message: bytes) -> None:
        """Submits the message."""
        raise NotImplementedError

    def also(self, row: Row) -> None:
        """What else was exercised."""


def bare_message(word: str) -> bytes:
    """Without Date and Message-ID, as devices write."""
    return (
        f"From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: {word}\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    ).encode() + BODY


def port(rig: Rig, implicit: bool) -> int:
    return rig.ports["smtps" if implicit else "apps"]


def succeed(command: list[object], **more: object) -> str:
    """Runs a program that must succeed; its output."""
    run = subprocess.run(
        [str(part) for part in command], capture_output=True, timeout=120, check=False, **{"stdin": subprocess.DEVNULL, **more}
    )
    output = (run.stdout + run.stderr).decode("utf-8", "replace")
    need(run.returncode == 0, f"status {run.returncode}: {output[-1500:]}")
    return output
