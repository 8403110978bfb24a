"""The IMAP server of a case: the small server, which behaves as the case's JSON says."""

import json
from pathlib import Path

from tests.servers.imap.box import Box
from tests.servers.imap.server import ImapServer

_GENERATED = (
    "From: smsin@agiletelecom.com\r\nSubject: Agile Telecom -- SMS received\r\n"
    "Date: Thu, 14 May 2026 10:23:01 +0200\r\nMessage-ID: <{uid}@agiletelecom.com>\r\n\r\n"
    "From: +39335{uid:07d}\r\nTo: +393331234333\r\nDate/Time: 20260514{hour:02d}{minute:02d}{second:02d}\r\n"
    "Body: message {uid}\r\n"
)


def generated(uid: int) -> bytes:
    """Return the mail with number `uid` of a case that generates its mails, each a second after the last."""
    second = 9 * 3600 + uid
    return _GENERATED.format(
        uid=uid, hour=second // 3600, minute=second // 60 % 60, second=second % 60
    ).encode()


def scripted(script: Path) -> ImapServer:
    """Return the server, not running yet, that behaves as `script` says; its mails lie beside it."""
    keys = json.loads(script.read_text())
    boxes = {"INBOX": Box()}
    files = {
        int(path.stem.rpartition("-")[2]): path.read_bytes()
        for path in script.parent.glob(f"{script.stem}-*.eml")
    }
    apart = keys.pop("sms_folder", None)
    if apart is not None:
        boxes["SMS"] = Box(first_uid=apart)
        boxes["SMS"].deliver(files.pop(apart))
    for uid in range(1, keys.pop("generate", 0) + 1):
        boxes["INBOX"].deliver(generated(uid))
    for uid in sorted(files):
        boxes["INBOX"].uidnext = uid
        boxes["INBOX"].deliver(files[uid])
    server = ImapServer(boxes)
    faults = server.faults
    faults.empty_body = {int(uid): times for uid, times in keys.pop("empty_body", {}).items()}
    faults.search_chunk = keys.pop("search_chunk", None)
    faults.listed = tuple(line for line in keys.pop("list", ()) if not line.endswith(" SMS"))
    if "refuse_login" in keys:
        faults.refuse["LOGIN"] = faults.refuse["AUTHENTICATE"] = keys.pop("refuse_login").encode()
    assert not keys, f"{script.name} asks for what this server does not know: {sorted(keys)}"
    return server
