"""Make an archive with the code of another commit: `PYTHONPATH=THAT_COMMIT python make.py URL VERSION`.

VERSION is that of the UUIDs of its POSTs (4 or 7). Every commit so far had these names; a later one may need
its own. The file it leaves (or what `pg_dump --no-owner` says) is kept beside this one, with gzip.
"""

import hashlib
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parent))
import given  # noqa: I001 - beside this file, whatever commit the program is of
from ingestor.archive import cursors, runs
from ingestor.archive.engine import open_engine
from ingestor.archive.items import (
    Action,
    CursorMove,
    Item,
    Payload,
    Pending,
    Position,
    Submission,
    mail_content_key,
)
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.store import Store
from ingestor.providers import mail_reader, post_reader
from ingestor.providers.contract import Post, Rules, Unreadable
from ingestor.record import Channel

RULES = Rules(zone=ZoneInfo("Europe/Rome"))


def _payload(raw: bytes, size: int | None = None, content_type: str | None = None) -> Payload:
    return Payload(raw, len(raw) if size is None else size, hashlib.sha256(raw).digest(), content_type)


def _imported(engine: Any, item: Any) -> Item:
    """Return `item` packed as by an import: against the dictionary that ships with the program."""
    from ingestor.archive.dictionary import usable_dictionary

    from ingestor.archive.payloads import pack

    payload = pack(item.payload.raw, None, usable_dictionary(engine))
    if hasattr(item, "_replace"):
        return item._replace(payload=payload)
    return replace(item, payload=payload)


def _mail(number: int, channel: Channel) -> Item:
    raw = given.MAILS[number]
    if channel is Channel.IMPORT:
        raw = raw.replace(b"\r\n", b"\n")
        path, member, offset = given.PLACES[number]
        place, source = Position(input=path, member=member, offset=offset, length=len(raw)), path
    else:
        place, source = Position(folder="INBOX", uidvalidity=7, uid=number + 1), "main"
    reading: Any = mail_reader("agile").read_mail(raw, RULES)
    return Item(
        reading, channel, source, mail_content_key(raw), given.arrived(number), _payload(raw), place,
        sender_verified=channel is Channel.MAILBOX or None,
    )  # fmt: skip


def _long_mail() -> Item:
    raw = given.LONG_MAIL
    kept = raw[: given.KEPT_OF_LONG_MAIL]
    return Item(
        Unreadable("it is too long", "agile.mail/1"), Channel.MAILBOX, "main", mail_content_key(raw),
        given.NOW, _payload(kept, len(raw)), Position(folder="INBOX", uidvalidity=7, uid=99),
    )  # fmt: skip


def _post(number: int, version: int) -> list[Item]:
    provider, content_type, body = given.POSTS[number]
    post = Post(body, b"", content_type, given.arrived(number))
    readings = post_reader(provider).read_post(post, RULES)
    return [
        Item(
            reading, Channel.WEBHOOK, provider, given.identity(number, version), given.arrived(number),
            None if at else _payload(body, content_type=content_type), number=at, peer="192.0.2.7",
        )
        for at, reading in enumerate(readings)
    ]  # fmt: skip


def _retry(store: Store) -> None:
    """Read the quarantine again: one mail becomes an SMS, the others stay."""
    from ingestor.archive import quarantine

    rules = {"agile": RULES, "infobip": RULES, "ip1": RULES}
    run = runs.begin_run(store.engine, "quarantine retry", {}, given.NOW)
    usual = quarantine.todays_reader(rules.__getitem__)

    def reader(kept: Any) -> Any:
        if kept.channel is Channel.MAILBOX and kept.whole:
            kept = replace(kept, raw=kept.raw.replace(b"Towards:", b"To:"))
        return usual(kept)

    list(quarantine.retry(store, reader, run, given.NOW))
    runs.end_run(store.engine, run, given.NOW)


def main(url: str, version: int) -> None:
    """Fill the archive at `url`."""
    engine = open_engine(url)
    ensure_schema(engine, auto_upgrade=True)
    store = Store(engine)
    run = runs.begin_run(engine, "run", {"mailboxes": ["main"]}, given.NOW)
    work = ((1, Action.SEEN), (50, Action.FETCH))
    to_do = tuple(Pending("main", "INBOX", 7, uid, action) for uid, action in work)
    mails = [_mail(number, Channel.MAILBOX) for number in given.BY_MAILBOX]
    move = CursorMove("main", "INBOX", 7, 99)
    store.write([Submission(run, (*mails, _long_mail()), ignored=3, cursor=move, to_do=to_do)], given.NOW)
    for number in range(len(given.POSTS)):
        store.write([Submission(run, tuple(_post(number, version)))], given.NOW)
    cursors.note_source(engine, "main", "mailbox", "watching", None, 60, given.NOW, success=True)
    runs.end_run(engine, run, given.NOW)
    run = runs.begin_run(engine, "import", {"paths": ["old.mbox"]}, given.NOW)
    runs.begin_input(engine, run, "old.mbox", None, 4000)
    imported = [_mail(number, Channel.IMPORT) for number in given.BY_IMPORT]
    if find_spec("ingestor.archive.dictionary"):
        imported = [_imported(engine, item) for item in imported]
    submission = Submission(run, tuple(imported), ignored=1)
    if hasattr(submission, "look_alikes"):
        submission = replace(submission, look_alikes=(("old.mbox", "sender", 2),))
    store.write([submission], given.NOW)
    runs.end_run(engine, run, given.NOW)
    if hasattr(store, "read_again"):
        _retry(store)
    if find_spec("ingestor.archive.leases"):
        from ingestor.archive.leases import take_lease

        take_lease(engine, "mailbox main", "a daemon", 60)
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
