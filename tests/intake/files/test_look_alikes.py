"""Mails that a copy spoilt, and mails that only look like ours: read, kept, or counted by name."""

from pathlib import Path

import pytest

from ingestor.archive.queries import look_alikes
from tests.intake.files.importing import Importer
from tests.intake.mailbox.desk import FOREIGN, mail

SEPARATOR = b"From x@example.org Mon May 11 10:00:00 2026\n"
REPLY = b"From: boss@example.org\r\nSubject: Re: Agile Telecom -- SMS received\r\n\r\nPlease call.\r\n"
QUOTED = b"From: boss@example.org\r\nSubject: Fwd\r\n\r\n> " + mail(9).partition(b"\r\n\r\n")[2].replace(
    b"\r\n", b"\r\n> "
)
NEAR = mail(5).replace(b"smsin@agiletelecom.com", b"list@example.net", 1)


def _mbox(*mails: bytes, end: bytes = b"\n") -> bytes:
    lf = b"".join(SEPARATOR + one.replace(b"\r\n", b"\n") + b"\n" for one in mails)
    return lf.replace(b"\n", end)


@pytest.mark.parametrize(
    "spoilt",
    [
        _mbox(mail(1), mail(2), end=b"\r\r\n"),
        b"".join(SEPARATOR + mail(n).replace(b"\r\n", b"\r\r\n") + b"\n" for n in (1, 2)),
        b"".join(SEPARATOR + mail(n).replace(b"\r\n", b"\r") + b"\n\n" for n in (1, 2)),
        _mbox(mail(1), mail(2)).replace(b"utf-8\n\n", b"utf-8\n \n"),
        _mbox(mail(1), mail(2)).replace(b"utf-8\n\n", b"utf-8\n"),
    ],
    ids=["CR CR LF", "CR CR LF behind the separator", "CR", "blank", "no line"],
)
def test_spoilt_line_ends_cost_no_sms(run_import: Importer, tmp_path: Path, spoilt: bytes) -> None:
    """A mailbox whose lines a copy changed gives every SMS, and a second run none."""
    (tmp_path / "m.mbox").write_bytes(spoilt)

    assert run_import(tmp_path / "m.mbox").counts == (2, 2, 0, 0, 0, 0)
    assert run_import(tmp_path / "m.mbox").counts == (2, 0, 2, 0, 0, 0)


def test_look_alikes_are_counted_by_what_they_lack(run_import: Importer, tmp_path: Path) -> None:
    """A reply and a quoted block leave a count and nothing else; another sender's SMS is quarantined."""
    (tmp_path / "m.mbox").write_bytes(_mbox(REPLY, mail(1), FOREIGN, QUOTED, NEAR, REPLY))

    done = run_import(tmp_path / "m.mbox")

    assert done.counts == (6, 1, 0, 4, 1, 0)
    assert {(one.missing, one.count) for one in look_alikes(run_import.engine)} == {
        ("block", 2),
        ("subject", 1),
    }
    assert "2 of the ignored look like ours, but lack the block" in done.out
    assert "from somebody, who is not one of [agile] senders" in done.out
    run_import(tmp_path / "m.mbox", "--dry-run")
    assert {one.count for one in look_alikes(run_import.engine)} == {1, 2}


def test_a_long_reply_is_a_look_alike_too(run_import: Importer, tmp_path: Path) -> None:
    """A mail longer than a block that only has our subject is ignored and counted, not kept."""
    (tmp_path / "m.mbox").write_bytes(_mbox(REPLY + b"x" * 70 + b"\r\n" + b"long line\r\n" * 300_000))

    assert run_import(tmp_path / "m.mbox").counts == (1, 0, 0, 1, 0, 0)
    assert [(one.missing, one.count) for one in look_alikes(run_import.engine)] == [("block", 1)]
