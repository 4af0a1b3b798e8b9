"""A next hop that records: what did the last server before the mailbox really send?

It offers everything that Gatepost hands on (PIPELINING, SIZE, DSN, 8BITMIME, CHUNKING, SMTPUTF8), takes everything, and keeps
commands and content octet for octet. With a TLS context it stands for Exchange Online: STARTTLS, then a client certificate.
"""

import dataclasses
import re
import socket
import ssl
import threading
import time

OFFERED = ("PIPELINING", "SIZE 157286400", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "CHUNKING", "SMTPUTF8")


@dataclasses.dataclass
class Message:
    """One transaction."""

    sender: str
    parameters: str
    recipients: list[tuple[str, str]]
    content: bytes
    transfer: str
    pipelined: bool
    tls: str | None
    certificate: str | None

    @property
    def header(self) -> bytes:
        return self.content.partition(b"\r\n\r\n")[0] + b"\r\n"

    @property
    def body(self) -> bytes:
        return self.content.partition(b"\r\n\r\n")[2]


class Sink:
    """Listens on a free port of 127.0.0.1 until it is closed."""

    def __init__(self, context: ssl.SSLContext | None = None):
        self.context = context
        self.messages: list[Message] = []
        self.changed = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def wait(self, token: str, seconds: float = 40, number: int = 1) -> list[Message]:
        """The messages that hold `token`, once there are `number`; fewer when the time is over."""
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                found = [message for message in self.messages if token.encode() in message.content]
                left = end - time.monotonic()
                if len(found) >= number or left <= 0:
                    return found
                self.changed.wait(left)

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(60)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            Dialogue(self, connection).run()
        except (OSError, EOFError, ssl.SSLError):
            pass
        finally:
            connection.close()

    def keep(self, message: Message) -> None:
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()


class Dialogue:
    """One connection."""

    def __init__(self, sink: Sink, connection: socket.socket):
        self.sink, self.connection = sink, connection
        self.buffer = b""
        self.tls: str | None = None
        self.certificate: str | None = None
        self.reset()

    def reset(self) -> None:
        self.sender: str | None = None
        self.parameters = ""
        self.recipients: list[tuple[str, str]] = []
        self.chunks: list[bytes] = []
        self.pipelined = False

    def run(self) -> None:
        self.say("220 sink.interop.example ESMTP")
        while True:
            line = self.line()
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            if verb == "QUIT":
                self.say("221 2.0.0 bye")
                return
            self.command(verb, rest)

    def command(self, verb: str, rest: str) -> None:
        if verb in ("EHLO", "HELO"):
            self.reset()
            offered = OFFERED + (("STARTTLS",) if self.sink.context and not self.tls else ())
            lines = ("sink.interop.example",) + (offered if verb == "EHLO" else ())
            self.say("\r\n".join(f"250{' ' if at + 1 == len(lines) else '-'}{text}" for at, text in enumerate(lines)))
        elif verb == "STARTTLS" and self.sink.context:
            self.starttls()
        elif verb == "MAIL":
            self.reset()
            self.sender, self.parameters = path(rest)
            self.pipelined = bool(self.buffer)
            self.say("250 2.1.0 ok")
        elif verb == "RCPT":
            self.recipients.append(path(rest))
            self.say("250 2.1.5 ok")
        elif verb == "DATA":
            self.say("354 go on")
            self.finish(self.dotted(), "DATA")
        elif verb == "BDAT":
            octets, _, last = rest.partition(" ")
            self.chunks.append(self.exactly(int(octets)))
            if last.upper() == "LAST":
                self.finish(b"".join(self.chunks), "BDAT")
            else:
                self.say("250 2.0.0 chunk")
        else:
            if verb == "RSET":
                self.reset()
            self.say("250 2.0.0 ok")

    def starttls(self) -> None:
        if self.buffer:
            raise EOFError("clear text behind STARTTLS")
        self.say("220 2.0.0 go on")
        self.connection = self.sink.context.wrap_socket(self.connection, server_side=True)
        self.tls = self.connection.version()
        subject = (self.connection.getpeercert() or {}).get("subject", ())
        self.certificate = next((value for part in subject for key, value in part if key == "commonName"), None)

    def finish(self, content: bytes, transfer: str) -> None:
        self.sink.keep(
            Message(
                self.sender or "", self.parameters, self.recipients, content, transfer, self.pipelined, self.tls, self.certificate
            )
        )
        self.reset()
        self.say("250 2.0.0 kept")

    def dotted(self) -> bytes:
        lines = []
        while (line := self.raw_line()) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def line(self) -> str:
        return self.raw_line().decode("utf-8", "surrogateescape").rstrip("\r\n")

    def raw_line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line + b"\r\n"

    def exactly(self, octets: int) -> bytes:
        while len(self.buffer) < octets:
            self.more()
        part, self.buffer = self.buffer[:octets], self.buffer[octets:]
        return part

    def more(self) -> None:
        octets = self.connection.recv(65536)
        if not octets:
            raise EOFError
        self.buffer += octets

    def say(self, text: str) -> None:
        self.connection.sendall(text.encode() + b"\r\n")


def path(text: str) -> tuple[str, str]:
    """`FROM:<a@b> X=1` as address and parameters."""
    found = re.search(r"<(.*?)>\s*(.*)", text)
    return (found[1], found[2]) if found else (text, "")
