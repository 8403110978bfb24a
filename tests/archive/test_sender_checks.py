"""What checks of the sender found, beside the arrivals that they belong to."""

from sqlalchemy import Engine

from ingestor.archive.items import SenderCheck, Submission
from ingestor.archive.store import Store
from ingestor.record import Channel
from tests.archive.reading import one, rows
from tests.archive.samples import NOW, broken, item

PASS = SenderCheck("dkim", "pass", "agiletelecom.com", "s1", "v=DKIM1; p=MIGf")
NONE = SenderCheck("dkim", "the mail has no signature")
SHOWN = (
    "SELECT sms_id, sender_verified, sender_method, sender_finding, sender_domain, sender_selector,"
    " sender_public_key FROM arrivals_detail ORDER BY id"
)


def test_a_finding_stands_once_and_every_arrival_shows_it(archive_engine: Engine) -> None:
    """Mails of which the same was found share a row; what was not checked has none; a view shows it."""
    store = Store(archive_engine)
    checked = [
        item(1, channel=Channel.MAILBOX, sender_verified=True, sender_check=PASS),
        item(2, channel=Channel.MAILBOX, sender_verified=False, sender_check=NONE),
        broken(3, channel=Channel.MAILBOX, sender_verified=False, sender_check=NONE),
        item(4),
    ]
    store.write([Submission(None, tuple(checked))], NOW)
    again = item(5, channel=Channel.MAILBOX, sender_verified=True, sender_check=PASS)
    store.write([Submission(None, (again,))], NOW)

    assert one(archive_engine, "SELECT count(*) FROM sender_checks") == 2
    assert one(archive_engine, "SELECT count(*) FROM arrivals WHERE sender_check_id = " + str(PASS.id)) == 2
    shown = [(sms, None if ok is None else bool(ok), *told) for sms, ok, *told in rows(archive_engine, SHOWN)]
    assert shown == [
        (1, True, *PASS), (2, False, *NONE), (None, False, *NONE), (3, None, *[None] * 5), (4, True, *PASS)
    ]  # fmt: skip


def test_every_other_finding_has_another_number() -> None:
    """The number follows from what is said, so that two daemons write the same row."""
    others = [PASS._replace(**{name: "x"}) for name in SenderCheck._fields]
    assert len({one.id for one in [PASS, NONE, *others]}) == 7
    assert SenderCheck(*PASS).id == PASS.id
