"""The server that Postfix's smtpd asks about logins: the part of Dovecot's authentication protocol (version 1) that PLAIN needs."""

import base64
import pathlib
import socket
import threading


class Logins:
    """Listens on a socket in the file system; knows one name and its password."""

    def __init__(self, path: pathlib.Path, name: str, password: str):
        self.expected = f"\0{name}\0{password}".encode()
        self.name, self.granted = name, 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        path.chmod(0o666)
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            number += 1
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rw", encoding="utf-8", newline="\n") as lines:
            hello = ("VERSION\t1\t1", "MECH\tPLAIN\tplaintext", "SPID\t1", f"CUID\t{number}", f"COOKIE\t{number:032x}", "DONE")
            lines.write("".join(f"{line}\n" for line in hello))
            lines.flush()
            for line in lines:
                word, _, rest = line.rstrip("\n").partition("\t")
                if word != "AUTH":
                    continue
                request, mechanism, *parameters = rest.split("\t")
                response = next((one[5:] for one in parameters if one.startswith("resp=")), "")
                if mechanism == "PLAIN" and base64.b64decode(response) == self.expected:
                    self.granted += 1
                    lines.write(f"OK\t{request}\tuser={self.name}\n")
                else:
                    lines.write(f"FAIL\t{request}\n")
                lines.flush()
