"""`ingestor optout` as people and the scripts that send campaigns call it."""

import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ingestor.archive.engine import open_engine, writing
from ingestor.archive.items import Submission
from ingestor.cli import main
from ingestor.numbers import OriginatorKind
from ingestor.providers.contract import Readable
from ingestor.replies.lists import Unusable, read_list
from ingestor.replies.opt_outs import Event, hearing_store
from ingestor.settings import OptOut
from tests.archive.samples import NOW
from tests.cli.calling import Called
from tests.replies.given import OTHER, OURS, SHE, said

HE = "+393357654321"


@pytest.fixture
def archive_url(made_archive_url: str) -> str:
    """The URL of an archive that is there already."""
    return made_archive_url


@pytest.fixture
def engine(archive_url: str) -> Iterator[Engine]:
    """An archive in which she has said STOP, and somebody something like it."""
    engine = open_engine(archive_url)
    put(engine, said(1, "STOP"), said(2, "please stop it", minutes=-60))
    yield engine
    engine.dispose()


def put(engine: Engine, *items: object) -> None:
    """Store SMS as an intake does."""
    hearing_store(engine, OptOut()).write([Submission(None, tuple(items))], NOW)


def called(*arguments: str, stdin: str = "") -> Called:
    """Call the command in this process: another one for each call would take a second."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with streams[0], streams[1], pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        patch.setattr("ingestor.cli.optout.configure_log", lambda _: None)  # the log is the tests' own
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    out.seek(0)
    return Called(code, out.read(), err.getvalue(), b"")


def optout(url: str, *arguments: str, stdin: str = "") -> Called:
    """Call `ingestor optout` for an archive."""
    return called("--database-url", url, "optout", *arguments, stdin=stdin)


def test_check_answers_by_its_exit_code(engine: Engine, archive_url: str, tmp_path: Path) -> None:
    """0: may be written to; 1: is out, of the sender or at all; 3: no number. Written as people write."""

    def check(*arguments: str) -> int:
        return optout(archive_url, "check", *arguments).code

    assert check(HE) == 0
    assert check(SHE) == 1
    assert check("0039 335-1234567") == 1
    assert check(SHE, "--our-number", OURS) == 1
    assert check(SHE, "--our-number", OTHER) == 0
    assert check(SHE, "--our-number", "Acme") == 1
    assert check("nonsense") == 3
    assert check("3351234567") == 3  # of which country?
    assert check() == 2
    assert check(SHE, "--our-number", "3331234333") == 2  # else nobody would be out of it


def test_check_knows_a_number_that_came_without_its_country(engine: Engine, archive_url: str) -> None:
    """A STOP of a number of kind `unknown` may be that of any country's: neither 0 nor 1."""
    one = said(7, "STOP")
    assert isinstance(one.reading, Readable)
    written = one.reading.sms._replace(originator="3357654321", originator_kind=OriginatorKind.UNKNOWN)
    put(engine, one._replace(reading=one.reading._replace(sms=written)))

    for number in (HE, "3357654321", "+1335765432"):
        done = optout(archive_url, "check", number)
        assert (done.code, "not known" in done.out) == ((3, True) if number != "+1335765432" else (0, False))
    assert optout(archive_url, "check", HE, SHE).code == 1


def test_check_takes_a_campaign_from_stdin(engine: Engine, archive_url: str, tmp_path: Path) -> None:
    """A line for each number, in their order; any that is out makes it 1, else any that cannot be told 3."""
    campaign = optout(archive_url, "check", "-", stdin=f"{HE}\n\n{SHE}\nfoo\n")
    doubtful = optout(archive_url, "check", "-", stdin=f"{HE}\nfoo\n")
    nobody = optout(archive_url, "check", "-", stdin="")

    assert [line.split("\t")[0] for line in campaign.out.splitlines()] == [HE, SHE, "foo"]
    assert "out of +393331234333 since 2026-05-14 10:01:00Z by stop, SMS 1" in campaign.out
    assert (campaign.code, doubtful.code, nobody.code) == (1, 3, 0)


def test_check_never_guesses(engine: Engine, archive_url: str, tmp_path: Path) -> None:
    """As long as old SMS are not read, or the archive is away, the answer is neither 0 nor 1."""
    with writing(engine) as connection:
        connection.execute(text("UPDATE consent_scans SET finished_at = NULL"))
    unread = optout(archive_url, "check", HE)
    away = optout("postgresql+psycopg://nobody@127.0.0.1:1/none", "check", HE)
    missing = optout(f"sqlite:///{tmp_path}/none.db", "check", HE)
    odd = called("--config", f"{tmp_path}/none.toml", "optout", "check", HE)

    assert (unread.code, away.code, missing.code, odd.code) == (3, 3, 3, 2)
    assert "old SMS have not all been read" in unread.err
    assert optout(archive_url, "scan").code == 0
    assert optout(archive_url, "check", HE).code == 0


def test_a_person_adds_and_removes_with_a_reason(engine: Engine, archive_url: str, tmp_path: Path) -> None:
    """Each change is a dated event with its reason; without one nothing is changed."""
    assert optout(archive_url, "add", HE).code == 2
    assert optout(archive_url, "add", HE, "--reason", " ").code == 2
    assert optout(archive_url, "add", "12", "--reason", "x").code == 2

    assert optout(archive_url, "add", HE, "--reason", "by telephone").code == 0
    assert optout(archive_url, "check", HE, "--our-number", OTHER).code == 1
    assert optout(archive_url, "remove", HE, SHE, "--reason", "signed form").code == 0
    assert optout(archive_url, "check", HE, SHE).code == 0

    events = optout(archive_url, "export", "--events")
    rows = [(row["kind"], row["number"], row["reason"]) for row in csv.DictReader(io.StringIO(events.out))]
    assert rows[-3] == ("add", HE, "by telephone")
    assert set(rows[-2:]) == {("remove", SHE, "signed form"), ("remove", HE, "signed form")}


def test_a_list_goes_out_and_comes_in_once(engine: Engine, archive_url: str, tmp_path: Path) -> None:
    """What is exported can be imported; twice it changes nothing; what is no number is named (row 7)."""
    (tmp_path / "old.csv").write_text(
        f"Phone;Date;Note\n{HE};2020-01-31;shop\n335 123;;\n00393350000001;;\n{HE};tomorrow;\n", "utf-8-sig"
    )

    first = optout(archive_url, "import", f"{tmp_path}/old.csv", "--reason", "the old system")
    again = optout(archive_url, "import", f"{tmp_path}/old.csv", "--reason", "the old system")
    listed = [json.loads(line) for line in optout(archive_url, "list", "--json").out.splitlines()]

    assert (first.code, again.code) == (1, 1)
    assert "line 3: …" in first.err
    assert "line 5: its date" in first.err
    assert first.out.startswith("2 opted out, 0 were out already, 2 lines")
    assert again.out.startswith("0 opted out, 2 were out already, 2 lines")
    assert {(one["number"], one["kind"], one["reason"]) for one in listed} == {
        (SHE, "stop", "the word STOP"), (HE, "import", "shop"), ("+393350000001", "import", "the old system"),
    }  # fmt: skip

    assert optout(archive_url, "export", f"{tmp_path}/mine.csv").code == 0
    back = optout(archive_url, "import", f"{tmp_path}/mine.csv", "--reason", "again")
    assert (back.code, back.out.split(",")[0]) == (0, "0 opted out")


def test_a_person_decides_what_is_doubtful(engine: Engine, archive_url: str, tmp_path: Path) -> None:
    """A doubtful SMS is listed until somebody says what it was; its own time counts."""

    def waiting() -> list[int]:
        return [
            json.loads(line)["sms_id"] for line in optout(archive_url, "review", "--json").out.splitlines()
        ]

    assert waiting() == []  # she has said STOP clearly since
    assert optout(archive_url, "remove", SHE, "--reason", "x", "--our-number", OURS).code == 0
    assert waiting() == [2]
    assert "please stop it" in optout(archive_url, "review").out

    assert optout(archive_url, "review", "2", "--out").code == 2
    assert optout(archive_url, "review", "99", "--out", "--reason", "x").code == 1
    assert optout(archive_url, "review", "2", "--out", "--reason", "plain").code == 0
    assert waiting() == []
    assert optout(archive_url, "check", SHE).code == 0  # undone since

    put(engine, said(3, "stop doing that, ok?", minutes=60 * 24 * 365))
    assert waiting() == [3]
    assert optout(archive_url, "review", "3", "--dismiss", "--reason", "talk").code == 0
    assert waiting() == []
    put(engine, said(4, "stop it now", minutes=60 * 24 * 366))
    assert optout(archive_url, "review", "4", "--out", "--every", "--reason", "plain").code == 0
    assert optout(archive_url, "check", SHE, "--our-number", OTHER).code == 1


def test_old_cases_are_dismissed_at_once(engine: Engine, archive_url: str) -> None:
    """Each by an event of its own, at the SMS's time and with the reason; newer ones and the clear stay."""
    put(engine, *(said(n, f"please stop {n}", minutes=60 * 24 * (365 + n)) for n in range(10, 20)))
    assert optout(archive_url, "review", "--before", "2027-05-27").code == 2
    assert optout(archive_url, "review", "--before", "2027-05-27", "--dismiss").code == 2
    assert (
        optout(archive_url, "review", "9", "--before", "2027-05-27", "--dismiss", "--reason", "x").code == 2
    )
    optout(archive_url, "remove", SHE, "--reason", "x", "--our-number", OURS)

    before = ("review", "--before", "2027-05-27", "--dismiss", "--reason", "of the import", "--utc")
    done, again = optout(archive_url, *before), optout(archive_url, *before)

    assert (done.code, done.out, again.out) == (0, "4 SMS: noted\n", "0 SMS: noted\n")
    left = [json.loads(line)["sms_id"] for line in optout(archive_url, "review", "--json").out.splitlines()]
    assert sorted(left) == list(range(6, 13))
    events = optout(archive_url, "export", "--events").out
    dismissed = [one for one in csv.DictReader(io.StringIO(events)) if one["kind"] == "dismiss"]
    assert [(one["at"], one["reason"]) for one in dismissed] == [
        (f"{day}:00:00Z", "of the import")
        for day in ("2026-05-14T09", "2027-05-24T10", "2027-05-25T10", "2027-05-26T10")
    ]


def test_try_says_what_a_text_means_and_why(tmp_path: Path) -> None:
    """It needs no archive, and takes the words of the configuration (row 4)."""
    (tmp_path / "c.toml").write_text('[opt_out]\nlanguages = ["it"]\n')

    plain = called("optout", "try", "Arrêt!")
    basta = called("--config", f"{tmp_path}/c.toml", "optout", "try", "basta")
    nothing = called("optout", "try", "basta")

    assert plain.out.splitlines() == [
        "read as  arret",
        "verdict  stop",
        "  means  opts out of the number written to",
        "because  the word ARRET",
    ]
    assert "the word BASTA" in basta.out
    assert "verdict  none" in nothing.out
    assert plain.code == basta.code == nothing.code == 0


@pytest.mark.parametrize(
    ("end", "why"), [("", "unexpected end of data"), ("\n" + "x" * 140_000, "field larger than")]
)
def test_a_list_whose_quote_has_no_end_is_taken_as_a_whole_or_not(
    engine: Engine, archive_url: str, tmp_path: Path, end: str, why: str
) -> None:
    """What stands behind the quote would be lost in one cell, and those people be written to."""
    (tmp_path / "old.csv").write_text(f'number,reason\n{HE},"moved\n{SHE},late{end}\n')

    done = optout(archive_url, "import", f"{tmp_path}/old.csv", "--reason", "the old system")

    assert (done.code, done.out) == (1, "")
    assert f"line 2: its quotes do not match ({why}" in done.err
    assert optout(archive_url, "check", HE).code == 0


@pytest.mark.parametrize("command", ["optout scan", "db upgrade"])
def test_a_scan_that_another_took_over_is_not_told_as_done(
    engine: Engine, archive_url: str, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Whoever began to read by other words goes on; who is out cannot be told before that has ended."""
    put(engine, said(5, "an SMS of before"))
    monkeypatch.setattr("ingestor.cli.optout.scan", lambda *_: iter(()))
    monkeypatch.setattr("ingestor.cli.db.configure_log", lambda _: None)

    done = called("--database-url", archive_url, *command.split())

    assert done.code == 1
    assert "by other words" in done.err
    assert "All SMS have been read" not in done.out


def test_scan_reads_for_other_words(engine: Engine, archive_url: str, tmp_path: Path) -> None:
    """After a change of the words the old SMS are read for them, and the command tells the figures."""
    put(engine, said(5, "basta"))
    (tmp_path / "c.toml").write_text('[opt_out]\nstop = ["BASTA"]\n')

    done = called("--config", f"{tmp_path}/c.toml", "--database-url", archive_url, "optout", "scan")

    assert done.code == 0, done.err
    assert "1 numbers are out" in done.out
    events = optout(archive_url, "export", "--events").out
    assert events.count(",stop,") == 2


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("+393351234567", ("+393351234567", "*", NOW, "r")),
        ("number\n(+39) 335/1234567", ("+393351234567", "*", NOW, "r")),
        ("msisdn\tour_number\n393351234567\t+393331234333", ("+393351234567", OURS, NOW, "r")),
        (
            "phone,date\n+393351234567,2020-05-01",
            ("+393351234567", "*", datetime(2020, 5, 1, tzinfo=UTC), "r"),
        ),
        (
            "phone,date\n+393351234567,2020-05-01T12:00:00+02:00",
            ("+393351234567", "*", datetime(2020, 5, 1, 10, tzinfo=UTC), "r"),
        ),
        ('number,reason\n+393351234567,"a, b"', ("+393351234567", "*", NOW, "a, b")),
        ("phone,date\n+393351234567,2999-01-01", 2),
        ("phone,date\n+393351234567,0001-01-01", 2),
        ("number,scope,sms_id\n48888,*,7", ("48888", "*", NOW, "r")),
        ("Acme", 1),
        ("3351234567", 1),
    ],
)
def test_lines_of_a_list(line: str, found: object) -> None:
    """What a line of somebody's CSV becomes, or the number of the line that cannot be taken."""
    [one] = read_list(io.StringIO(line, newline=""), "*", "r", NOW)

    if isinstance(one, Unusable):
        assert one.line == found
    else:
        assert one == Event(*found[:2], "import", found[2], reason=found[3])


def test_status_shows_the_day_and_what_waits(engine: Engine, archive_url: str) -> None:
    """Opt-outs that were written down today, reviews, and old SMS that are still to be read."""
    optout(archive_url, "remove", SHE, "--reason", "x", "--our-number", OURS)
    told = json.loads(called("--database-url", archive_url, "status", "--json").out)
    assert told["opt_outs"] == {"opted_out": 1, "opted_in": 1, "to_review": 1, "scan": None}

    with writing(engine) as connection:
        connection.execute(text("UPDATE consent_scans SET finished_at = NULL, after_id = 0, until_id = 2"))
    shown = called("--database-url", archive_url, "status").out
    assert "1, and 1 in again" in shown
    assert "1 SMS wait for a person" in shown
    assert "not all read for opt-outs yet (at SMS 0 of 2)" in shown
