"""Jakarta Mail, where a JDK is installed; the library out of Debian's packages."""

import client
from rig import PASSWORD
from tools import UNPACKED, installed, unpacked

JAVA = """
import jakarta.mail.*;
import jakarta.mail.internet.*;
import java.util.Properties;

public class Send {
    public static void main(String[] given) throws Exception {
        String port = given[0], mechanism = given[1], user = given[3], password = given[4], protocol = given[2].equals("implicit") ? "smtps" : "smtp";
        Properties settings = new Properties();
        String prefix = "mail." + protocol + ".";
        settings.put(prefix + "auth", "true");
        settings.put(prefix + "auth.mechanisms", mechanism);
        settings.put(prefix + "starttls.enable", "true");
        settings.put(prefix + "starttls.required", "true");
        settings.put(prefix + "allow8bitmime", "true");
        Session session = Session.getInstance(settings);
        MimeMessage message = new MimeMessage(session, System.in);
        try (Transport transport = session.getTransport(protocol)) {
            transport.connect("127.0.0.1", Integer.parseInt(port), user, password);
            transport.sendMessage(message, message.getAllRecipients());
        }
    }
}
"""


class Peer(client.Client):
    name = "jakarta"

    def find(self):
        self.java, self.compiler, self.keytool = installed("java"), installed("javac"), installed("keytool")
        jars = [
            unpacked(f"usr/share/java/{jar}.jar", package)
            for jar, package in (("jakarta-mail", "libjakarta-mail-java"), ("jakarta-activation", "libjakarta-activation-java"))
        ]
        self.path = ":".join(map(str, jars))
        names = {file.name.partition("_")[0]: file.name.split("_")[1] for file in (UNPACKED / "packages").glob("libjakarta-*.deb")}
        self.version = f"Jakarta Mail {names['libjakarta-mail-java']} on {client.succeed([self.java, '-version']).splitlines()[0]}"

    def start(self, rig):
        self.folder = rig.folder / "jakarta"
        self.folder.mkdir()
        (self.folder / "Send.java").write_text(JAVA)
        client.succeed([self.compiler, "-cp", self.path, "-d", self.folder, self.folder / "Send.java"])
        self.trust = self.folder / "trust.p12"
        client.succeed(
            [
                *(self.keytool, "-importcert", "-noprompt", "-alias", "interop", "-file", rig.authority, "-keystore", self.trust),
                *("-storetype", "PKCS12", "-storepass", "throw-away"),
            ]
        )

    def hand(self, rig, mechanism, implicit, message):
        file = rig.folder / "jakarta.eml"
        file.write_bytes(message)
        with file.open("rb") as content:
            client.succeed(
                [
                    *(self.java, "-cp", f"{self.path}:{self.folder}", f"-Djavax.net.ssl.trustStore={self.trust}"),
                    *("-Djavax.net.ssl.trustStorePassword=throw-away", "Send", client.port(rig, implicit), mechanism),
                    "implicit" if implicit else "starttls",
                    client.USER,
                    PASSWORD,
                ],
                stdin=content,
            )
