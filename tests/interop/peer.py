"""What a peer is to the runner, and the checks that mail servers share."""

from collections.abc import Callable, Iterable

from rig import BODY, EXCHANGE, GATE, Rig, field, need, token
from sink import Message

DSN_MAIL = ("RET=HDRS", "ENVID=interop+2B1")
DSN_RCPT = ("NOTIFY=SUCCESS,FAILURE,DELAY", "ORCPT=rfc822;orig+2Binal@example.org")


class Row:
    """One line of the table."""

    def __init__(self, peer: str, role: str):
        self.peer, self.role = peer, role
        self.seen: list[str] = []
        self.outcome = "ok"

    def saw(self, *what: str) -> None:
        self.seen.extend(one for one in what if one not in self.seen)


# Mail for this domain is handed to Gatepost with a certificate that is not Exchange's.
WRONG = "wrong.example"

Check = tuple[str, Callable[[Rig, Row], None]]


class Peer:
    """A program that Gatepost must get on with. `find` raises `tools.Missing` where it cannot be had."""

    name = ""
    version = ""

    def find(self) -> None:
        """Finds the programs and their version."""

    def plan(self, rig: Rig) -> None:
        """Asks for tenants and relays, before Gatepost starts."""

    def start(self, rig: Rig) -> None:
        """Starts the peer, once Gatepost runs."""

    def checks(self) -> Iterable[Check]:
        """The rows, in order."""
        return ()

    def log(self) -> str:
        """The end of the peer's own log, for a row that failed."""
        return ""


# ---- a mail server in Exchange's place: it sends over the connector listener ----


def sends(rig: Rig, row: Row, inject: int, source: str, transfer: str) -> None:
    """Stamped mail with DSN parameters goes from the server through Gatepost to Exchange, proven by address, certificate, tenant."""
    word = token()
    rig.inject(inject, "app@contoso.com", ["user@contoso.com"], rig.stamped(word), ("BODY=8BITMIME", *DSN_MAIL), DSN_RCPT)
    message = arrived(rig.exchange.wait(word), 1)
    unchanged(message)
    need(b"X-MS-Exchange-Organization-Odd:\r\n\t folded\r\n  twice \r\n" in message.header, "an organisation header was changed")
    need(GATE.encode() not in message.header, "the secret header went on")
    need(field(message, "X-Interop-Loop") == "loop-contoso", "no loop header")
    need(message.certificate == "contoso.com", f"Exchange saw the certificate {message.certificate}")
    need(message.pipelined, "RCPT waited for the answer to MAIL, although Exchange offers PIPELINING")
    received = rig.events(f"{word}@contoso.com", "received")
    need(received, "no trace")
    facts = received[0]
    need(facts["verdict"] == "proven", f"verdict {facts['verdict']}")
    need(facts["peer"].startswith(source), f"came from {facts['peer']}")
    need(facts["tls"]["peer_name"] == EXCHANGE, f"client certificate {facts['tls'].get('peer_name')}")
    need(facts["transfer"] == transfer, f"transfer {facts['transfer']}, not {transfer}")
    row.saw(facts["tls"]["version"], "client certificate", transfer, eight_bit(message), "PIPELINING onwards")
    dsn(message)
    row.saw("DSN")


def sends_large_to_many(rig: Rig, row: Row, inject: int) -> None:
    """3 MiB to three recipients: one transaction, body octet for octet."""
    word = token()
    recipients = [f"user{number}@contoso.com" for number in range(3)]
    large = rig.stamped(word) + b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n" * 50_000
    rig.inject(inject, "app@contoso.com", recipients, large)
    found = rig.exchange.wait(word, 60)
    got = sorted(address for message in found for address, _ in message.recipients)
    need(got == recipients, f"recipients {got}")
    need(all(message.body == large.partition(b"\r\n\r\n")[2] for message in found), "a large body was changed")
    row.saw("3 MiB")


def sends_smtputf8(rig: Rig, row: Row, inject: int) -> None:
    """A recipient beyond ASCII."""
    word = token()
    rig.inject(inject, "app@contoso.com", ["\u00fcser@contoso.com"], rig.stamped(word, recipient="\u00fcser@contoso.com"), ("SMTPUTF8", "BODY=8BITMIME"))
    message = arrived(rig.exchange.wait(word), 1)
    need("SMTPUTF8" in message.parameters, f"MAIL had {message.parameters}")
    need(message.recipients[0][0] == "\u00fcser@contoso.com", f"recipient {message.recipients[0][0]}")
    unchanged(message)
    row.saw("SMTPUTF8")


def refused_without_secret(rig: Rig, row: Row, inject: int) -> None:
    """The same address and certificate, but another secret: not this tenant's mail, 550 5.7.1."""
    word = token()
    rig.inject(inject, "app@contoso.com", ["user@contoso.com"], rig.stamped(word, secret="another"))
    refused = rig.events(f"{word}@contoso.com", "refused")
    need(refused, "a wrong secret was not refused")
    need(refused[0]["reply"].startswith("550 5.7.1 "), f"refused with {refused[0]['reply']}")
    need(not rig.exchange.wait(word, 0.1), "a message with a wrong secret arrived")
    row.saw("wrong secret: 550 5.7.1")


def refused_with_another_certificate(rig: Rig, row: Row, inject: int) -> None:
    """From one of Exchange's addresses, but with a certificate of another name: one of two proofs, so 451 4.7.1 at MAIL."""
    sender = f"{token()}@contoso.com"
    rig.inject(inject, sender, [f"user@{WRONG}"], rig.stamped(sender, recipient=f"user@{WRONG}"))
    refused = rig.events(sender, "refused")
    need(refused, "a certificate of another name was not refused")
    facts = refused[0]
    need(facts["reply"].startswith("451 4.7.1 "), f"refused with {facts['reply']}")
    need(facts["peer"].startswith("127.0.40."), f"came from {facts['peer']}")
    need(not rig.exchange.wait(sender, 0.1), "a message with a wrong certificate arrived")
    row.saw("wrong certificate: 451 4.7.1")


# ---- a mail server as Gatepost's next hop ----


def receives(rig: Rig, row: Row, tenant: str, recipient: str) -> None:
    """An application's mail with DSN parameters goes through Gatepost to the server, and from there to a mailbox."""
    word = token()
    sender = sender_of(rig, tenant)
    rig.submit(tenant, [recipient], rig.plain(word, sender, recipient), ("BODY=8BITMIME", *DSN_MAIL), DSN_RCPT)
    message = arrived(rig.mailbox.wait(word), 1)
    unchanged(message)
    dsn(message)
    row.saw("DSN", eight_bit(message))
    attempts = rig.events(f"{word}@app.example", "attempt")
    need(attempts and attempts[0].get("tls"), f"attempts {attempts}")
    row.saw(attempts[0]["tls"]["version"])


def receives_many(rig: Rig, row: Row, tenant: str, domain: str) -> None:
    """Five messages to three recipients each: all arrive, once."""
    words = [token() for _ in range(5)]
    recipients = [f"user{number}@{domain}" for number in range(3)]
    for word in words:
        rig.submit(tenant, recipients, rig.plain(word, sender_of(rig, tenant), recipients[0]))
    for word in words:
        rig.mailbox.wait(word)
        found = rig.mailbox.wait(word, 2, 3)
        got = sorted(address for message in found for address, _ in message.recipients)
        need(got == recipients, f"recipients {got}")
    row.saw("several recipients")


def receives_smtputf8(rig: Rig, row: Row, tenant: str, domain: str) -> None:
    """A recipient beyond ASCII, to a server that offers SMTPUTF8."""
    word = token()
    recipient = f"\u00fcser@{domain}"
    rig.submit(tenant, [recipient], rig.plain(word, sender_of(rig, tenant), recipient), ("SMTPUTF8", "BODY=8BITMIME"))
    message = arrived(rig.mailbox.wait(word), 1)
    need("SMTPUTF8" in message.parameters, f"MAIL had {message.parameters}")
    need(message.recipients[0][0] == recipient, f"recipient {message.recipients[0][0]}")
    row.saw("SMTPUTF8")


def bounces_smtputf8(rig: Rig, row: Row, tenant: str, domain: str) -> None:
    """The same to a server that does not: the sender is told 5.6.7, over that very server."""
    word = token()
    recipient = f"\u00fcser@{domain}"
    rig.submit(tenant, [recipient], rig.plain(word, sender_of(rig, tenant), recipient), ("SMTPUTF8", "BODY=8BITMIME"))
    message = arrived(rig.mailbox.wait(word), 1)
    need(message.sender == "", f"a report from {message.sender}")
    need(message.recipients[0][0] == sender_of(rig, tenant), f"the report went to {message.recipients}")
    need(b"Status: 5.6.7" in message.body, "the report does not say 5.6.7")
    row.saw("SMTPUTF8 not offered: 5.6.7")


def receives_as_relay(rig: Rig, row: Row, tenant: str, recipient: str) -> None:
    """By `relay:NAME`, logged in."""
    word = token()
    rig.submit(tenant, [recipient], rig.plain(word, sender_of(rig, tenant), recipient))
    unchanged(arrived(rig.mailbox.wait(word), 1))
    attempts = rig.events(f"{word}@app.example", "attempt")
    need(attempts and attempts[0]["via"].startswith("relay:"), f"attempts {attempts}")
    row.saw(attempts[0]["tls"]["version"], "AUTH")


# ---- words of the above ----


def sender_of(rig: Rig, tenant: str) -> str:
    return "app@" + next(one.domain for one in rig.tenants if one.name == tenant)


def eight_bit(message: Message) -> str:
    """The octets are known to be whole; was it also declared, by both servers?"""
    return "8BITMIME" if "BODY=8BITMIME" in message.parameters.split() else "8-bit body undeclared"


def arrived(messages: list[Message], number: int) -> Message:
    need(len(messages) == number, f"{len(messages)} messages arrived, not {number}")
    return messages[0]


def unchanged(message: Message) -> None:
    need(message.body == BODY, f"the body was changed: {first_difference(message.body, BODY)}")


def first_difference(got: bytes, sent: bytes) -> str:
    at = next((at for at, (one, other) in enumerate(zip(got, sent)) if one != other), min(len(got), len(sent)))
    return f"at {at}: {got[at : at + 40]!r} for {sent[at : at + 40]!r}"


def dsn(message: Message) -> None:
    """RET, ENVID, NOTIFY and ORCPT came through both servers."""
    for wanted in DSN_MAIL:
        need(wanted in message.parameters.split(), f"{wanted} lost: MAIL had {message.parameters}")
    given = {key.upper(): value for key, _, value in (one.partition("=") for one in message.recipients[0][1].split())}
    need(set(given.get("NOTIFY", "").split(",")) == {"SUCCESS", "FAILURE", "DELAY"}, f"NOTIFY lost: RCPT had {given}")
    need(given.get("ORCPT", "").lower() == DSN_RCPT[1].partition("=")[2].lower(), f"ORCPT lost: RCPT had {given}")
