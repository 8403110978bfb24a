"""What somebody writes first: imaplib, email, sqlite3, one mail at a time and one commit a mail."""

import email
import email.policy
import hashlib
import imaplib
import re
import sqlite3
from pathlib import Path

_BLOCK = re.compile(r"From: *(.*)\s+To: *(.*)\s+Date/Time: *(\d{14})\s+Body: *(.*)", re.DOTALL)


def read_all(port: int, user: str, password: str, file: Path, most: int) -> int:
    """Read up to `most` mails of INBOX into the SQLite `file`; return how many were read."""
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(
        "CREATE TABLE sms (hash BLOB UNIQUE, sender TEXT, receiver TEXT, sent TEXT, text TEXT, raw BLOB)"
    )
    connection = imaplib.IMAP4("127.0.0.1", port)
    connection.login(user, password)
    connection.select("INBOX", readonly=True)
    uids = connection.uid("SEARCH", "ALL")[1][0].split()[:most]
    for uid in uids:
        raw = connection.uid("FETCH", uid, "(BODY.PEEK[])")[1][0][1]
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        if "smsin@agiletelecom.com" not in str(mail["From"]):
            continue
        body = mail.get_body(("plain", "html"))
        found = _BLOCK.search(body.get_content()) if body is not None else None
        if found is None:
            continue
        row = (hashlib.sha256(repr(found.groups()).encode()).digest(), *found.groups(), raw)
        database.execute("INSERT OR IGNORE INTO sms VALUES (?, ?, ?, ?, ?, ?)", row)
        database.commit()
    connection.logout()
    database.close()
    return len(uids)
