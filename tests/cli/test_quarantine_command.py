"""`ingestor quarantine` on a real archive, on both databases."""

import contextlib
import json
import mailbox
from datetime import UTC, datetime

import pytest

from ingestor.archive.engine import writing
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from tests.archive.reading import number_of
from tests.archive.samples import broken
from tests.cli.conftest import Filled
from tests.sample_mails import generate


def ids(filled: Filled) -> list[int]:
    listed = filled.call("quarantine", "list", "--json").out.splitlines()
    return [json.loads(line)["id"] for line in listed]


def test_list_shows_what_stands(filled: Filled) -> None:
    """Each arrival is a row with its reason, the newest first; --limit bounds them."""
    header, *rows = (line.split("\t") for line in filled.call("quarantine", "list").out.splitlines())

    assert header == ["id", "arrived_at", "channel", "source", "reason", "subject", "size", "retries"]
    assert [row[4] for row in rows] == ["no Body label", "the label To is missing"]
    assert len(filled.call("quarantine", "list", "--limit", "1").out.splitlines()) == 2


def test_show_and_raw(filled: Filled) -> None:
    """One arrival with its provenance, and its bytes exactly."""
    number = ids(filled)[1]

    assert "the label To is missing" in filled.call("quarantine", "show", str(number)).out
    assert (
        filled.call("quarantine", "show", str(number), "--raw").raw
        == b"Subject: mail 6 copy 0\n\ntext of 6\n"
    )
    absent = filled.call("quarantine", "show", "1")
    assert (absent.code, len(absent.faults)) == (1, 1)


def test_retry_reads_again_and_balances(filled: Filled) -> None:
    """What today's parser reads becomes an SMS; the rest stays with its reason; the run adds up."""
    mail = next(one for one in generate(50) if one.kind == "sms")
    now = datetime.now(UTC)
    Store(filled.engine).write([Submission(None, (broken(8, raw=mail.raw),))], now)

    called = filled.call("quarantine", "retry", "--json")

    balance = json.loads(called.out.splitlines()[-1])
    seconds = balance.pop("seconds")
    assert seconds >= 0
    assert balance == {
        "run": 2, "read": 3, "stored": 1, "duplicate": 0, "ignored": 0, "quarantined": 2, "failed": 0,
    }  # fmt: skip
    assert called.code == 0
    assert len(ids(filled)) == 2
    found = json.loads(filled.call("search", "--json", "--limit", "0").out.splitlines()[0])
    assert mail.expected is not None
    shown = filled.call("search", "--json", "--originator", mail.expected["originator"]).out
    assert mail.expected["text"] in [json.loads(line)["text"] for line in shown.splitlines()], found["id"]


def test_retry_of_one_leaves_the_others(filled: Filled) -> None:
    """Ids on the command line are the only ones read; an absent one is refused before anything happens."""
    first = ids(filled)[0]

    assert "1 read" in filled.call("quarantine", "retry", str(first)).out
    refused = filled.call("quarantine", "retry", str(first), "1")
    assert refused.code == 1
    assert refused.err == (
        "ingestor: nothing stands in the quarantine as 1; `ingestor quarantine list` shows what does\n"
    )


def test_discard_needs_a_reason_and_keeps_the_bytes(filled: Filled) -> None:
    """A discarded arrival leaves the list; its bytes and the reason stay to be seen."""
    number = str(ids(filled)[0])

    assert filled.call("quarantine", "discard", number).code == 2
    assert filled.call("quarantine", "discard", number, "--reason", " ").code == 2
    assert filled.call("quarantine", "discard", number, "--reason", "a test mail").code == 0
    assert int(number) not in ids(filled)
    shown = filled.call("quarantine", "show", number).out
    assert "a test mail" in shown
    assert "stands in the quarantine no more" in shown
    assert filled.call("quarantine", "show", number, "--raw").raw.startswith(b"Subject: mail 7")
    assert filled.call("quarantine", "discard", number, "--reason", "again").code == 1


def test_export_is_an_mbox(filled: Filled) -> None:
    """A mail client's reader finds each quarantined mail in the file; - writes the same to stdout."""
    path = filled.folder / "q.mbox"

    called = filled.call("quarantine", "export", path)

    assert called.err == "2 exported\n"
    with contextlib.closing(mailbox.mbox(path, create=False)) as box:
        assert sorted(mail["Subject"] for mail in box) == ["mail 6 copy 0", "mail 7 copy 0"]
    assert filled.spawn("quarantine", "export", "-").raw == path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_damaged_bytes_stop_nothing_behind_them(filled: Filled) -> None:
    """What can no longer be read stays where it is, with the reason; the next is read, and exported."""
    second, first = ids(filled)
    on = " ON payloads" if filled.engine.name == "postgresql" else ""
    with writing(filled.engine) as connection:
        connection.exec_driver_sql(f"DROP TRIGGER payloads_no_update{on}")
        connection.exec_driver_sql(
            "UPDATE payloads SET sha256 = (SELECT sha256 FROM payloads WHERE arrival_id = 1)"
            f" WHERE arrival_id = {first}"
        )

    retried = filled.call("quarantine", "retry")
    exported = filled.call("quarantine", "export", "q.mbox")

    assert (retried.code, retried.faults) == (0, [])
    assert "2 read" in retried.out
    assert "SHA-256 differs" in retried.out
    assert ids(filled) == [second, first]
    assert exported.code == 1
    assert exported.err.splitlines() == [
        "1 exported",
        f"ingestor: {first} is left out: its bytes are damaged; see `ingestor check --deep`",
    ]
    assert b"mail 7" in (filled.folder / "q.mbox").read_bytes()


@pytest.mark.parametrize("command", [("quarantine", "retry"), ("import", ".")])
def test_words_that_cannot_be_begin_no_run(filled: Filled, command: tuple[str, ...]) -> None:
    """A run without an end would stand in `status` as one that was stopped, and is to be resumed."""
    (filled.folder / "c.toml").write_text('[opt_out]\nstop = ["!"]\n')

    done = filled.call("--config", filled.folder / "c.toml", *command)

    assert (done.code, len(done.faults)) == (2, 1)
    assert "has no letter and no digit" in done.err
    assert number_of(filled.engine, "runs") == 1
