"""The unique keys: what they are taken over, and the order that they lie in."""

from datetime import timedelta
from uuid import RFC_4122, UUID

from sqlalchemy import Engine

from ingestor.archive.items import Item, Submission
from ingestor.archive.payloads import pack, shipped
from ingestor.archive.rows import mail_content_key, mail_day, packed_mail
from ingestor.archive.store import Store
from ingestor.intake.listener.posts import new_identity
from ingestor.providers.contract import Readable
from tests.archive.reading import rows
from tests.archive.samples import NOW, PARSER, item, sms


def write(engine: Engine, *items: Item) -> None:
    """Store `items` as one submission."""
    Store(engine).write([Submission(None, tuple(items))], NOW)


def test_arrivals_keep_no_plain_hash_of_the_mail(archive_engine: Engine) -> None:
    """Once a mail is erased nobody can guess its text from what stays: the key is taken under a secret."""
    write(archive_engine, item(1))
    raw = b"Date: Sun, 1 Mar 2026 12:00:00 +0100\n\n482913"
    write(archive_engine, item(1), item(2, raw=raw, content_key=mail_content_key(raw)))
    kept = b"".join(bytes(key) for (key,) in rows(archive_engine, "SELECT content_key FROM arrivals"))
    assert item(1).content_key not in kept
    assert mail_content_key(raw)[4:] not in kept


def test_the_uuid_of_a_post_is_kept_as_it_is(archive_engine: Engine) -> None:
    """It begins with the time: keys of POSTs that came together lie together, and it tells nothing else."""
    first, second = new_identity(NOW), new_identity(NOW + timedelta(milliseconds=1))
    write(archive_engine, item(1, content_key=second), item(2, content_key=first))
    kept = rows(archive_engine, "SELECT content_key FROM arrivals ORDER BY content_key")
    assert [bytes(key) for (key,) in kept] == [first, second]
    assert (UUID(bytes=first).version, UUID(bytes=first).variant) == (7, RFC_4122)


def test_the_day_of_a_key_is_the_same_for_every_copy_of_a_mail() -> None:
    """LF or CRLF, whole or only its first 32 KiB, with or without a Date line: one mail has one key."""
    long = b"X-Long: y\n" * 1500
    heads = (b"Date: Sun, 1 Mar 2026 12:00:00 +0100\n", b"date: odd\n", b"", b"Date:\t1 Mar 2026\n", long)
    for head in heads:
        for filling in (b"", long * 6):
            mail = head + b"Subject: x\n\n" + filling + b"Date: Mon, 2 Mar 2026 x\n"
            crlf = mail.replace(b"\n", b"\r\n")
            assert mail_content_key(mail) == mail_content_key(crlf + b"\r\n")
            assert mail_day(mail) == mail_day(mail[:32768]) == mail_day(crlf) == mail_day(crlf[:32768])
    assert mail_day(b"Received: x\nDate: Sun, 1 Mar 2026 12:00:00 +0100\n") == (20260301).to_bytes(4, "big")
    assert mail_day(b"Date/Time: 1 Mar 2026\n\n") == mail_day(b"") == bytes(4)
    assert mail_day(b"Date: 99 Xyz 9999\n") == (99990099).to_bytes(4, "big")


def test_one_hash_for_both_gives_what_two_give() -> None:
    """A mail with LF ends is hashed once for its key and its payload, and has the same as every other."""
    for mail in (b"", b"\n\n", b"Date: 1 Mar 2026\n\nx", b"a: b\n\nx\n\n", b"a: b\r\n\r\nx\r\n", b"\rx\n"):
        for dictionary in (None, shipped()):
            both = mail_content_key(mail), pack(mail, dictionary=dictionary)
            assert packed_mail(mail, dictionary) == both


def test_keys_of_one_time_lie_together(archive_engine: Engine) -> None:
    """What a large archive's speed rests on: the indexes are in the order of days, or of the SMS's clock."""
    items = []
    for n in range(30):
        day = n % 3 + 1
        raw = b"Date: Sun, %d Mar 2026 12:00:00 +0100\n\n%d" % (day, n)
        reading = Readable(sms(n, date_time=f"2026030{day}130000"), PARSER)
        items.append(item(n, raw=raw, content_key=mail_content_key(raw), reading=reading))
    write(archive_engine, *items)
    days = [(20260301 + n // 10).to_bytes(4, "big") for n in range(30)]
    keys = rows(archive_engine, "SELECT content_key FROM arrivals ORDER BY content_key")
    assert [bytes(key)[:4] for (key,) in keys] == days
    times = [int(f"2026030{n // 10 + 1}130000").to_bytes(6, "big") for n in range(30)]
    keys = rows(archive_engine, "SELECT fingerprint FROM sms ORDER BY fingerprint")
    assert [bytes(key)[:6] for (key,) in keys] == times
