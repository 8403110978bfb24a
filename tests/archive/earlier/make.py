"""Make an archive with the code of this commit: `python -m tests.archive.earlier.make URL`.

The file it leaves (or what `pg_dump --no-owner` says) is kept beside this one, with gzip. The archives of
earlier commits were made by what stood here then.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

from ingestor.archive import runs
from ingestor.archive.engine import open_engine
from ingestor.archive.items import Action, CursorMove, Item, Payload, Pending, Position, Submission
from ingestor.archive.mailbox_state import note_source, take_lease
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.payloads import pack, unpack, usable_dictionary
from ingestor.archive.quarantine import Kept
from ingestor.archive.rows import mail_content_key
from ingestor.archive.store import Store
from ingestor.cli import main as main_of_ingestor
from ingestor.intake import retry
from ingestor.providers import mail_reader, post_reader
from ingestor.providers.contract import NotOurs, Post, Reading, Report, Rules, Unreadable
from ingestor.record import Channel
from ingestor.replies.opt_outs import hearing_store
from ingestor.settings import OptOut
from tests.archive.earlier import given
from tests.servers.agile import ScriptedAgile

RULES = Rules(zone=ZoneInfo("Europe/Rome"))


def _payload(raw: bytes, size: int | None = None, content_type: str | None = None) -> Payload:
    return pack(raw, content_type)._replace(size=len(raw) if size is None else size)


def _mail(number: int, channel: Channel) -> Item:
    raw = given.MAILS[number]
    if channel is Channel.IMPORT:
        raw = raw.replace(b"\r\n", b"\n")
        path, member, offset = given.PLACES[number]
        place, source = Position(input=path, member=member, offset=offset, length=len(raw)), path
    else:
        place, source = Position(folder="INBOX", uidvalidity=7, uid=number + 1), "main"
    reading = mail_reader("agile").read_mail(raw, RULES)
    assert not isinstance(reading, NotOurs)
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
    assert not any(isinstance(reading, Report) for reading in readings)
    return [
        Item(
            reading, Channel.WEBHOOK, provider, given.identity(number, version), given.arrived(number),
            None if at else _payload(body, content_type=content_type), number=at, peer="192.0.2.7",
        )
        for at, reading in enumerate(readings)
    ]  # fmt: skip


def _retry(store: Store) -> None:
    """Read the quarantine again: one mail becomes an SMS, the others stay."""
    rules = {"agile": RULES, "infobip": RULES, "ip1": RULES}
    run = runs.begin_run(store.engine, "quarantine retry", {}, given.NOW)
    usual = retry.todays_reader(rules.__getitem__)

    def reader(kept: Kept) -> Sequence[Reading]:
        if kept.channel is Channel.MAILBOX and kept.whole:
            kept = replace(kept, raw=(kept.raw or b"").replace(b"Towards:", b"To:"))
        return usual(kept)

    list(retry.retry(store, reader, run, given.NOW))
    runs.end_run(store.engine, run, given.NOW)


def _calls(url: str, folder: Path) -> None:
    """Leave what commands leave: opt-outs, a hold, an erasure, a message that was sent."""
    with ScriptedAgile() as agile:
        (folder / "api.key").write_text("secret")
        (folder / "api.key").chmod(0o600)
        (folder / "ingestor.toml").write_text(
            f'[agile]\nnumbers = ["+393331234333"]\n[agile.api]\nbase_url = "{agile.base_url}"\n'
            f'api_key_file = "{folder / "api.key"}"\n'
        )
        for words in given.CALLS:
            arguments = [word.replace("PLAN", str(folder / "plan.json")) for word in words]
            config = str(folder / "ingestor.toml")
            code = main_of_ingestor(["--config", config, "--database-url", url, *arguments])
            if code not in (0, None):
                raise SystemExit(f"{arguments}: {code}")


def main(url: str) -> None:
    """Fill the archive at `url`."""
    engine = open_engine(url)
    ensure_schema(engine, auto_upgrade=True)
    store = hearing_store(engine, OptOut())
    run = runs.begin_run(engine, "run", {"mailboxes": ["main"]}, given.NOW)
    work = ((1, Action.SEEN), (50, Action.FETCH))
    to_do = tuple(Pending("main", "INBOX", 7, uid, action) for uid, action in work)
    mails = [_mail(number, Channel.MAILBOX) for number in given.BY_MAILBOX]
    move = CursorMove("main", "INBOX", 7, 99)
    store.write([Submission(run, (*mails, _long_mail()), ignored=3, cursor=move, to_do=to_do)], given.NOW)
    for number in range(len(given.POSTS)):
        store.write([Submission(run, tuple(_post(number, 7)))], given.NOW)
    note_source(engine, "main", "mailbox", "watching", None, 60, given.NOW, success=True)
    runs.end_run(engine, run, given.NOW)
    run = runs.begin_run(engine, "import", {"paths": ["old.mbox"]}, given.NOW)
    runs.begin_input(engine, run, "old.mbox", None)
    dictionary = usable_dictionary(engine)
    imported = [_mail(number, Channel.IMPORT) for number in given.BY_IMPORT]
    packed = tuple(
        one._replace(payload=pack(unpack(one.payload.compressed), None, dictionary))
        for one in imported
        if one.payload
    )
    look_alikes = (("old.mbox", "sender", 2),)
    store.write([Submission(run, packed, ignored=1, look_alikes=look_alikes)], given.NOW)
    runs.end_run(engine, run, given.NOW)
    _retry(store)
    take_lease(engine, "mailbox main", "a daemon", 60)
    engine.dispose()
    with TemporaryDirectory() as folder:
        _calls(url, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
