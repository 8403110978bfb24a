"""The import as a whole, on both databases: balances, provenance, filters, dry runs, and what is refused."""

import itertools
import mailbox
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from ingestor.archive import queries
from ingestor.archive.items import Item, Position, Submission
from ingestor.archive.payloads import pack
from ingestor.archive.rows import mail_content_key
from ingestor.archive.store import Store
from ingestor.providers import mail_reader
from ingestor.providers.contract import NotOurs, Rules
from ingestor.record import Channel
from tests.intake.files.containers import tar_of, zip_of
from tests.intake.files.importing import Importer
from tests.intake.files.mails import broken_mail, foreign_mail, mbox_of, sms_mail
from tests.sample_mails import generate

RULES = Rules(ZoneInfo("Europe/Rome"))
COLUMNS = (
    "provider, originator, originator_kind, destination, date_time, received_at, time_quality, text, keyword,"
    " clean_text, provider_message_id, segments"
)


def sample(count: int = 120, seed: int = 3) -> list[bytes]:
    """Return mails of every kind, some of them twice."""
    return [mail.raw for mail in generate(count, seed, duplicates=0.1, broken=0.05)]


def by_mailbox(engine: Engine, mails: list[bytes]) -> None:
    """Store `mails` as the mailbox intake would."""
    reader = mail_reader("agile")
    items = []
    for uid, raw in enumerate(mails, 1):
        reading = reader.read_mail(raw, RULES)
        if not isinstance(reading, NotOurs):
            position = Position(folder="INBOX", uidvalidity=1, uid=uid)
            items.append(
                Item(
                    reading,
                    Channel.MAILBOX,
                    "main",
                    mail_content_key(raw),
                    datetime.now(UTC),
                    pack(raw),
                    position,
                )
            )
    Store(engine).write([Submission(None, tuple(items))], datetime.now(UTC))


def test_the_balance_adds_up_and_the_second_run_stores_nothing(run_import: Importer, tmp_path: Path) -> None:
    """Every mail has its one outcome, runs and views say the same, and a second run has nothing new."""
    box = tmp_path / "box"
    box.write_bytes(
        mbox_of(sms_mail(1), foreign_mail(1), sms_mail(2), sms_mail(1), broken_mail(3), sms_mail(2, "other"))
    )
    first = run_import(box)
    assert (first.code, first.counts) == (0, (6, 3, 1, 1, 1, 0))
    assert f"{box} at " in first.out
    assert run_import.texts == ["text 1", "text 2", "other"]
    assert run_import.rows("SELECT count(*) FROM quarantine") == [(1,)]
    again = run_import(box)
    assert (again.code, again.counts) == (0, (6, 0, 4, 1, 1, 0))
    assert "nothing new" in again.out
    assert run_import.rows("SELECT arrivals FROM inbound_sms ORDER BY id") == [(2,), (1,), (1,)]
    assert run_import.rows("SELECT read, stored, ended_at IS NULL FROM runs ORDER BY id") == [
        (6, 3, 0),
        (6, 0, 0),
    ]
    assert run_import.rows("SELECT DISTINCT path, member, size, position FROM run_inputs") == [
        (str(box), "", box.stat().st_size, box.stat().st_size)
    ]


def test_prepared_rows_are_what_the_writer_makes(
    run_import: Importer, archive_engine: Engine, tmp_path: Path
) -> None:
    """Every column of every table is the same by the fast lane and by the writer, but for keys and times."""
    mails = sample()
    box = tmp_path / "box"
    box.write_bytes(
        b"".join(b"From a@example.org Mon Jan  1 00:00:00 2024\n" + mail + b"\r\n" for mail in mails)
    )
    run_import(box, "--format", "mboxcl2", "--source", "main")
    tables = {
        "sms": "SELECT fingerprint_version, provider, originator_kind, destination, date_time, received_at,"
        " time_quality, provider_message_id, segments, fingerprint FROM sms",
        "sms_content": "SELECT originator, originator_raw, destination_raw, text, keyword, clean_text,"
        " details FROM sms_content",
        # An import has one for each copy of a mail.
        "arrivals": "SELECT DISTINCT content_key, number, message_id, subject, peer, sender_verified, size,"
        " reason, parser, source FROM arrivals JOIN arrival_content ON arrival_id = id WHERE channel = '{}'",
        "payloads": "SELECT p.content_type, p.size, p.sha256 FROM payloads p"
        " JOIN arrivals a ON a.id = p.arrival_id WHERE a.channel = '{}'",
    }
    lane = {
        name: sorted(map(repr, run_import.rows(query.format("import")))) for name, query in tables.items()
    }
    by_mailbox(archive_engine, mails)
    for name in ("sms", "sms_content"):  # the writer found the same fingerprints: nothing was added
        assert sorted(map(repr, run_import.rows(tables[name]))) == lane[name]
    for name in ("arrivals", "payloads"):
        assert sorted(map(repr, run_import.rows(tables[name].format("mailbox")))) == lane[name]


@pytest.mark.parametrize("order", sorted(set(itertools.permutations(["mailbox", "import", "import"]))))
def test_the_ways_may_come_in_any_order(
    run_import: Importer, archive_engine: Engine, tmp_path: Path, order: tuple[str, ...]
) -> None:
    """Mailbox, import and import again end in the same SMS, whichever comes first."""
    mails = sample()
    box = tmp_path / "box"
    box.write_bytes(mbox_of(*(mail.replace(b"\r\n", b"\n") for mail in mails)))
    expected = {
        tuple(sms.expected[name] for name in ("originator", "destination", "date_time", "text"))
        for sms in generate(120, 3, duplicates=0.1, broken=0.05) if sms.expected
    }  # fmt: skip
    for way in order:
        if way == "mailbox":
            by_mailbox(archive_engine, mails)
        else:
            run_import(box)
    found = run_import.rows("SELECT originator, destination, date_time, text, arrivals FROM inbound_sms")
    assert {row[:4] for row in found} == expected
    assert len(found) == len(expected)
    assert min(row[4] for row in found) == 2


def test_raw_bytes_come_back_and_say_where_they_were(run_import: Importer, tmp_path: Path) -> None:
    """Each arrival names file, member, offset and length, and the kept bytes are those that stand there."""
    files = {
        "box": mbox_of(sms_mail(1), foreign_mail(1), sms_mail(2)),
        "crlf.eml": sms_mail(3, line_end=b"\r\n"),
    }
    for name, content in files.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in" / "old.zip").write_bytes(zip_of({"a/inner": mbox_of(sms_mail(4), sms_mail(5))}))
    assert run_import(tmp_path / "in").counts[:2] == (6, 5)
    arrivals = run_import.rows(
        "SELECT id, source, input, member, byte_offset, byte_length FROM arrivals_detail ORDER BY id"
    )
    assert [Path(row[2]).name for row in arrivals] == ["box", "box", "crlf.eml", "old.zip", "old.zip"]
    for number, source, path, member, offset, length in arrivals:
        assert source == str(tmp_path / "in")
        content = Path(path).read_bytes()
        if member is not None:
            content = zipfile.ZipFile(path).read(member)
        assert queries.raw_of_arrival(run_import.engine, number) == content[offset : offset + length]


def test_a_source_is_named_and_days_are_filtered(run_import: Importer, tmp_path: Path) -> None:
    """`--source` is what arrivals name; SMS outside `--since` and `--until` (both included) are ignored."""
    box = tmp_path / "box"
    days = ("20240108", "20240109", "20240110")
    box.write_bytes(
        mbox_of(*(sms_mail(i, day).replace(b"20240108", day.encode()) for i, day in enumerate(days)))
    )
    done = run_import(box, "--since", "2024-01-09", "--until", "2024-01-09", "--source", "backup of May")
    assert done.counts == (3, 1, 0, 2, 0, 0)
    assert run_import.texts == ["20240109"]
    assert run_import.rows("SELECT source FROM arrivals") == [("backup of May",)]


def test_a_dry_run_tells_all_and_writes_nothing(run_import: Importer, tmp_path: Path) -> None:
    """A dry run has the counts of the real one, names rows, senders and reasons, and leaves no trace."""
    known, box = tmp_path / "known", tmp_path / "box"
    known.write_bytes(mbox_of(sms_mail(1)))
    box.write_bytes(mbox_of(sms_mail(1), sms_mail(2), sms_mail(2), foreign_mail(7), broken_mail(3)))
    run_import(known)
    before = [run_import.rows(f"SELECT * FROM {name}") for name in ("runs", "sms", "arrivals", "run_inputs")]
    dry = run_import(box, "--dry-run")
    assert [
        run_import.rows(f"SELECT * FROM {name}") for name in ("runs", "sms", "arrivals", "run_inputs")
    ] == before
    assert dry.result["run"] is None
    (identity,) = run_import.rows("SELECT id FROM inbound_sms")[0]
    for words in (
        f"SMS {identity} in the archive",
        f"the one in {box} at ",
        "friend7@example.net",
        "Body label",
    ):
        assert words in dry.out
    assert dry.counts == run_import(box).counts == (5, 1, 2, 1, 1, 0)


def test_a_dry_run_needs_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an archive everything would be stored, and none is made."""
    from ingestor.cli import main

    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1), sms_mail(1)))
    assert main(["--database-url", f"sqlite:///{tmp_path}/none.db", "import", "--dry-run", str(box)]) == 0
    assert "1 stored + 1 duplicate" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["box"]


@pytest.mark.parametrize("kind", ["Maildir", "MH", "mbox"])
def test_mailboxes_of_the_standard_library(run_sqlite_import: Importer, tmp_path: Path, kind: str) -> None:
    """What the standard library's classes write is read with the same outcomes, sub-folders included."""
    mails = sample()
    box = getattr(mailbox, kind)(str(tmp_path / "box"))
    inner = box if kind == "mbox" else box.add_folder("inner")
    for number, mail in enumerate(mails):
        (inner if number % 3 == 0 else box).add(mail)
    box.close()
    if kind == "Maildir":
        for number, path in enumerate(sorted((tmp_path / "box" / "new").iterdir())):
            if number % 2:
                path.rename(tmp_path / "box" / "cur" / f"{path.name}:2,S")
    done = run_sqlite_import(tmp_path / "box")
    kinds = [mail.kind for mail in generate(120, 3, duplicates=0.1, broken=0.05)]
    assert (done.code, done.counts[0]) == (0, len(mails))
    assert done.counts[3:5] == (kinds.count("unrelated"), kinds.count("broken"))
    assert sum(done.counts[1:3]) == kinds.count("sms")


def test_order_follows_the_files_whatever_the_jobs(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """With several workers the rows stand in the order of the files; of two equal ones the first counts."""
    for number in range(6):
        (tmp_path / "in").mkdir(exist_ok=True)
        content = mbox_of(*(sms_mail(number * 2000 + i) for i in range(2000)), sms_mail(0))
        (tmp_path / "in" / f"{number}.mbox").write_bytes(content)
    done = run_sqlite_import(tmp_path / "in", jobs=3)
    assert done.counts == (12_006, 12_000, 6, 0, 0, 0)
    assert run_sqlite_import.texts == [f"text {number}" for number in range(12_000)]
    offsets = run_sqlite_import.rows("SELECT input, byte_offset FROM arrivals_detail ORDER BY id")
    assert offsets == sorted(offsets)


def test_what_is_no_mailbox_is_refused_in_one_line(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Named by itself an unknown file is a failure with a sentence; in a folder it is counted by its kind."""
    (tmp_path / "in").mkdir()
    picture, box = tmp_path / "in" / "picture", tmp_path / "in" / "box"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
    box.write_bytes(mbox_of(sms_mail(1)))
    alone = run_sqlite_import(picture, box)
    assert (alone.code, alone.counts) == (1, (2, 1, 0, 0, 0, 1))
    assert f"{picture} is neither mail, mailbox nor archive" in alone.err
    folder = run_sqlite_import(tmp_path / "in")
    assert (folder.code, folder.counts) == (0, (1, 0, 1, 0, 0, 0))
    assert f"no mail, mailbox or archive:\n         1  without ending, 800 bytes: {picture}\n" in folder.out


def test_a_mistyped_path_is_refused_before_anything_begins(
    run_sqlite_import: Importer, tmp_path: Path
) -> None:
    """One wrong name among right ones: one line, exit 2, no run, and nothing of the others imported."""
    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1)))
    missing = run_sqlite_import(box, tmp_path / "nothing")
    assert missing.code == 2
    assert missing.err == (
        f"ingestor: {tmp_path}/nothing: there is no such file or folder; nothing was imported\n"
    )
    assert run_sqlite_import.rows("SELECT * FROM runs") == []


@pytest.mark.parametrize("pack_in", [zip_of, tar_of])
def test_a_damaged_archive_keeps_its_whole_members(
    run_sqlite_import: Importer, tmp_path: Path, pack_in: object
) -> None:
    """A cut-off archive fails with one line; what was whole before the cut is stored."""
    assert callable(pack_in)
    packed = pack_in(
        {"one": mbox_of(sms_mail(1)), "two": mbox_of(sms_mail(2), *(foreign_mail(i) for i in range(9)))}
    )
    path = tmp_path / "cut"
    path.write_bytes(packed[: packed.index(b"friend5")] if pack_in is tar_of else packed[:-200])
    done = run_sqlite_import(path)
    assert (done.code, done.counts[5]) == (1, 1)
    assert len([line for line in done.err.splitlines() if line.startswith("ingestor: ")]) == 1


def test_a_bomb_ends_with_one_line(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A zip bomb is given up as a whole, and the import goes on with the next file."""
    bomb, box = tmp_path / "bomb.zip", tmp_path / "box"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"{number}", bytes(20 << 20))
    box.write_bytes(mbox_of(sms_mail(1)))
    done = run_sqlite_import(bomb, box)
    assert (done.code, done.counts) == (1, (2, 1, 0, 0, 0, 1))
    assert "decompression bomb" in done.err
    nested = zip_of({"a": b""})
    for _ in range(7):
        nested = zip_of({"a.zip": nested})
    bomb.write_bytes(nested)
    assert "deep" in run_sqlite_import(bomb).err


def test_usage_is_checked(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Wrong usage exits with 2 and one line."""
    for words in ([], ["--resume", "77"], ["--dry-run", "--resume", "1"]):
        done = run_sqlite_import(*words)
        assert done.code == 2
        assert done.err.startswith("ingestor: ")
    for words in (["--jobs", "0"], ["--since", "yesterday"], ["--format", "pst"]):
        with pytest.raises(SystemExit, match="2"):
            run_sqlite_import(tmp_path, *words)


def test_file_names_may_be_any_bytes(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A name that is no UTF-8 is kept readable."""
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)  # noqa: PTH102 -- a path of bytes
    with open(folder + b"/caf\xe9.eml", "wb") as file:  # noqa: PTH123 -- a path of bytes
        file.write(sms_mail(1))
    assert run_sqlite_import(tmp_path / "in").counts[:2] == (1, 1)
    assert run_sqlite_import.rows("SELECT input FROM arrivals_detail")[0][0].endswith("caf\\xe9.eml")
