"""Python's smtplib, which has PLAIN, LOGIN and (not offered by us) CRAM-MD5."""

import platform
import smtplib

import client
from peer import need
from rig import PASSWORD


class Peer(client.Client):
    name = "python"
    version = f"smtplib of Python {platform.python_version()}"

    def hand(self, rig, mechanism, implicit, message):
        address = ("127.0.0.1", client.port(rig, implicit))
        if implicit:
            session = smtplib.SMTP_SSL(*address, timeout=60, context=rig.client_context())
        else:
            session = smtplib.SMTP(*address, timeout=60)
        with session:
            if not implicit:
                session.starttls(context=rig.client_context())
            session.ehlo()
            need(mechanism in session.esmtp_features["auth"].split(), f"offered: {session.esmtp_features}")
            session.user, session.password = client.USER, PASSWORD
            session.auth(mechanism, getattr(session, f"auth_{mechanism.lower()}"))
            session.sendmail(client.SENDER, [client.RECIPIENT], message, mail_options=["BODY=8BITMIME"])
