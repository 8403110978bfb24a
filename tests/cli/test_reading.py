"""`search`, `show`, `export` and `snapshot` on a real archive, on both databases."""

import csv
import hashlib
import io
import json
import shlex
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from ingestor.archive.engine import writing
from tests.cli.calling import PROGRAM
from tests.cli.conftest import EVIL, RAW, Filled


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


FILTERS: list[tuple[list[str], list[int]]] = [
    ([], [5, 4, 3, 2, 1]),
    (["TEXT OF 3"], [3]),
    (["nowhere"], []),
    (["--originator", "alph"], [5]),
    (["--originator", "+39333"], [4, 3, 2, 1]),
    (["--destination", "1234333", "--limit", "2"], [5, 4]),
    (["--since", "2026-03-01T12:00:03"], [5, 4, 3]),
    (["--since", "2026-03-01T13:00:04+01:00"], [5, 4]),
    (["--until", "2026-03-01"], [5, 4, 3, 2, 1]),
    (["--until", "2026-02-28"], []),
    (["--until", "2026-03-01T12:00:02Z"], [1]),
    (["--provider", "ip1"], []),
    (["100%"], []),
]


def test_search_finds(filled: Filled) -> None:
    """Each filter narrows the result; the newest come first; nothing found is no fault."""
    for arguments, ids in FILTERS:
        called = filled.call("search", *arguments)
        header, *found = rows(called.out)
        assert called.code == 0
        assert header == ["id", "received_at", "originator", "destination", "text"]
        assert [int(row[0]) for row in found] == ids, arguments


def test_lists_say_when_there_are_more(filled: Filled) -> None:
    """A limit that hides something is told on stderr; 0 lifts it."""
    assert "--limit 0" in filled.call("search", "--limit", "2").err
    quarantine = filled.call("quarantine", "list", "--limit", "1", "--json")
    assert (quarantine.out.count("\n"), "--limit 0" in quarantine.err) == (1, True)
    assert filled.call("search", "--limit", "5").err == ""
    assert filled.call("search", "--limit", "0").err == ""


def test_hostile_text_cannot_move_the_cursor(filled: Filled) -> None:
    """Control characters and direction marks of an SMS are printed as escapes, a row stays a line."""
    called = filled.call("search", "--originator", "alpha")

    assert rows(called.out)[1][4] == "red \\x1b[31m\\u202ealert\\nsecond line\\twith a tab"
    shown = filled.call("show", "5").out
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_search_json_is_exact(filled: Filled) -> None:
    """--json prints each row with every column of the view, and the text as it is."""
    called = filled.spawn("search", "--json", "--originator", "alpha")

    row = json.loads(called.out)

    assert row["text"] == EVIL
    assert row["received_at"] == "2026-03-01T12:00:05Z"
    assert {"provider", "channel", "arrivals", "ingested_at"} < set(row)


def test_wrong_filters_are_exit_2(filled: Filled) -> None:
    """A day that is none, or words that are no UTF-8, are one line before the archive is opened."""
    for wrong in (["--since", "yesterday"], ["--until", "2026-13-01"], ["--limit", "-1"], ["\udcff"]):
        called = filled.call("search", *wrong)
        assert (called.code, len(called.faults)) == (2, 1), wrong


def test_show_tells_all_evidence(filled: Filled) -> None:
    """`show` prints the row, the raw numbers, and each arrival with where it came from."""
    text = filled.call("show", "2").out
    whole = json.loads(filled.call("show", "2", "--json").out)

    assert text.count("\narrival ") == 2
    assert "+39 333 1234333" in text
    assert [one["outcome"] for one in whole["arrivals"]] == ["stored", "duplicate"]
    assert whole["arrivals"][0]["input"] == "/mail/old.mbox"
    assert whole["arrivals"][0]["byte_offset"] == 200
    assert whole["sms"]["arrivals"] == 2
    assert whole["content"]["originator_raw"] == "393330000002"


def test_show_raw_gives_the_identical_bytes(filled: Filled) -> None:
    """--raw writes exactly what arrived: NULs, CRLF, the missing or the extra line end."""
    assert filled.spawn("show", "5", "--raw").raw == RAW


def test_show_raw_of_a_chosen_arrival(filled: Filled) -> None:
    """--arrival picks another copy of the same SMS; its SHA-256 is the one that `show` prints."""
    arrivals = json.loads(filled.call("show", "2", "--json").out)["arrivals"]

    for arrival in arrivals:
        raw = filled.call("show", "2", "--raw", "--arrival", str(arrival["id"])).raw
        assert hashlib.sha256(raw).hexdigest() == arrival["payload_sha256"]
    wrong = filled.call("show", "2", "--raw", "--arrival", "1")
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err.startswith("ingestor: arrival 1 is none of SMS 2; it has: ")


def test_show_refuses_what_contradicts_itself(filled: Filled) -> None:
    """One form at a time, and an arrival only for its raw bytes: exit 2 instead of a silent choice."""
    assert filled.call("show", "1", "--raw", "--json").code == 2
    assert filled.call("show", "1", "--arrival", "1").code == 2


def test_what_is_not_there_is_one_line(filled: Filled) -> None:
    """An unknown id is one line and exit 1; one that no database could hold is wrong usage."""
    called = filled.call("show", "99")
    assert called.code == 1
    assert called.err == "ingestor: there is no SMS 99; `ingestor search` lists them with their ids\n"
    for wrong in ("-1", "x", "9" * 40):
        assert filled.call("show", wrong).code == 2


def test_export_jsonl_is_exact(filled: Filled) -> None:
    """JSON lines hold every row with its text as it is, in the order of ids."""
    called = filled.spawn("export", "--format", "jsonl")

    exported = [json.loads(line) for line in called.raw.decode().split("\n")[:-1]]

    assert [row["id"] for row in exported] == [1, 2, 3, 4, 5]
    assert exported[4]["text"] == EVIL
    assert called.err == "5 SMS exported\n"


def test_export_csv_is_exact_and_filtered(filled: Filled) -> None:
    """CSV read by a standard reader gives the same text back; filters apply."""
    called = filled.call("export", "--format", "csv", "--since", "2026-03-01T12:00:04")

    exported = list(csv.DictReader(io.StringIO(called.raw.decode(), newline="")))

    assert [row["id"] for row in exported] == ["4", "5"]
    assert exported[1]["text"] == EVIL
    assert exported[0]["originator"] == "+393330000004"


def test_export_to_a_file_is_whole_and_private(filled: Filled) -> None:
    """--output makes a file of mode 0600 that replaces an older one only when it is complete."""
    path = filled.folder / "out.csv"
    path.write_text("older")

    called = filled.call("export", "--format", "csv", "--spreadsheet-safe", "--output", path)

    assert (called.code, called.out) == (0, "")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "originator_digits" in path.read_text()
    assert [one.name for one in filled.folder.glob(".out*")] == []
    failed = filled.call("export", "--output", filled.folder / "no" / "out.csv")
    assert failed.code == 2
    assert failed.err.endswith("no does not exist; make it, or name another\n")
    assert len(failed.faults) == 1


def test_spreadsheet_safe_is_for_csv(filled: Filled) -> None:
    """The switch with JSON lines is wrong usage."""
    assert filled.call("export", "--spreadsheet-safe").code == 2


def test_a_reader_that_goes_away_ends_the_export_quietly(filled: Filled) -> None:
    """`ingestor export | head -1` prints one line and no complaint."""
    export = shlex.join([str(PROGRAM), "--database-url", filled.url, "export", "--format", "csv"])
    done = subprocess.run(
        f"{export} | head -c 5; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True,
    )  # fmt: skip

    assert done.stdout == '"id",'
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_snapshot_opens_without_write_access(filled: Filled) -> None:
    """The copy holds the same rows, no key, is closed to others, and is read like an archive."""
    copy = filled.folder / "audit.db"

    called = filled.spawn("snapshot", copy)

    assert called.code == 0
    assert called.out.startswith(f"{copy}: 5 SMS, ")
    assert copy.stat().st_mode & 0o777 == 0o640
    with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT count(*) FROM inbound_sms").fetchone() == (5,)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    connection.close()
    assert "archive_key" not in tables
    again = filled.call("search", "--database-url", f"sqlite:///{copy}")
    assert len(rows(again.out)) == 6


def test_snapshot_does_not_overwrite_other_files(filled: Filled, tmp_path: Path) -> None:
    """A file that is no snapshot is left alone, with one line and exit 2."""
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")

    called = filled.call("snapshot", precious)

    assert called.code == 2
    assert len(called.faults) == 1
    assert precious.read_text() == "precious"


HIDES = (
    "CREATE VIEW inbound_sms AS SELECT 1 AS id, provider, 'import' AS channel, '' AS originator,"
    " originator_kind, destination, date_time, received_at, time_quality, '' AS text, '' AS keyword,"
    " '' AS clean_text, provider_message_id, segments, 1 AS arrivals, NULL AS sender_verified, ingested_at,"
    " NULL AS erased_at, NULL AS erasure_basis"
    " FROM sms WHERE id = 1"
)


def _tamper(filled: Filled, *statements: str) -> None:
    with writing(filled.engine) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("command", [("export",), ("snapshot", "copy.db")])
def test_what_leaves_says_how_the_archive_differs(filled: Filled, command: tuple[str, ...]) -> None:
    """A missing guard is named; where rows may have been refused the file is written, and exit is 1."""
    assert filled.call(*command).faults == []
    _tamper(filled, "DROP TRIGGER sms_no_delete" + (" ON sms" if filled.engine.name == "postgresql" else ""))
    guard = filled.call(*command)
    assert guard.code == 0
    assert guard.faults == [
        "ingestor: the archive differs from what this version makes: trigger sms_no_delete on sms is missing",
        "ingestor: see `ingestor check`",
    ]

    _tamper(filled, "CREATE UNIQUE INDEX sly ON sms (received_at)")
    harm = filled.call(*command)
    assert harm.code == 1
    assert len(harm.faults) == 3
    assert "5 SMS" in harm.out + harm.err


def test_an_export_through_another_view_than_ours_is_exit_1(filled: Filled) -> None:
    """It reads the view, and lacks what that hides; a snapshot copies the tables and makes the views anew."""
    _tamper(filled, "DROP VIEW inbound_sms", HIDES)

    export, copy = filled.call("export"), filled.call("snapshot", "copy.db")

    assert (export.code, copy.code) == (1, 0)
    assert "view inbound_sms is another one than ours" in export.faults[0]
    assert "1 SMS exported" in export.err
    assert export.faults == copy.faults
    assert len(filled.call("export", "--database-url", "sqlite:///copy.db").out.splitlines()) == 5


def test_a_snapshot_is_compared_too(filled: Filled) -> None:
    """It lacks the archive's key and is sound; what somebody changed in it is named."""
    filled.call("snapshot", "copy.db")
    sound = filled.call("export", "--database-url", "sqlite:///copy.db")
    assert (sound.code, sound.faults) == (0, [])

    with closing(sqlite3.connect("copy.db")) as connection:
        connection.execute("DROP VIEW inbound_sms")
        connection.execute(HIDES)
        connection.commit()
    assert filled.call("export", "--database-url", "sqlite:///copy.db").code == 1


def test_a_role_that_cannot_compare_says_so(filled: Filled) -> None:
    """One line, and the export goes its way."""
    if filled.engine.name != "postgresql":
        pytest.skip("SQLite has no roles")
    with writing(filled.engine) as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS only_reads")
        connection.exec_driver_sql("CREATE ROLE only_reads LOGIN")
        connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO only_reads")
    url = filled.engine.url.set(username="only_reads").render_as_string(hide_password=False)

    called = filled.call("export", "--database-url", url)

    assert called.code == 0
    assert len(called.faults) == 1
    assert "was not compared with what this version makes" in called.faults[0]
    assert len(called.out.splitlines()) == 5


def test_show_says_what_the_bytes_say_today(filled: Filled) -> None:
    """Bytes that today's reader reads otherwise are said; damaged ones too, apart from that, with exit 1."""
    otherwise = filled.call("show", "1")
    assert otherwise.code == 0
    assert "as no SMS: today's parser does not take it for ours" in otherwise.out
    told = json.loads(filled.call("show", "1", "--json").out)["arrivals"][0]
    assert told["payload_damaged"] is None
    assert told["today_read_otherwise"].startswith("as no SMS")

    on = " ON payloads" if filled.engine.name == "postgresql" else ""
    _tamper(
        filled, f"DROP TRIGGER payloads_no_update{on}", "UPDATE payloads SET sha256 = fingerprint FROM "
        "(SELECT substr(fingerprint, 1, 32) AS fingerprint FROM sms WHERE id = 2) AS other"
        " WHERE arrival_id = 1",
    )  # fmt: skip
    damaged = filled.call("show", "1")
    assert damaged.code == 1
    assert "the stored payload is not what arrived: its SHA-256 differs" in damaged.out
    assert "today_read_otherwise" not in damaged.out


def test_show_prints_a_conversation(filled: Filled) -> None:
    """What came from a number stands in order, however the number is written; an unknown one is told."""
    [number] = {row[2] for row in rows(filled.call("search", "TEXT OF 3").out)[1:]}
    shown = filled.call("show", "--conversation", number.replace("+", "00"), "--utc")
    printed = filled.call("show", "--conversation", number, "--json")
    unknown = filled.call("show", "--conversation", "+390000000001")

    header, *lines = rows(shown.out)
    assert header == ["at", "direction", "our_number", "state", "text"]
    assert lines
    assert all(line[1] == "in" for line in lines)
    assert [json.loads(line)["text"] for line in printed.out.splitlines()] == [line[4] for line in lines]
    assert unknown.code == 1
    assert "0001" in unknown.err
    assert "+390000000001" not in unknown.err
    assert filled.call("show").code == 2
    assert filled.call("show", "1", "--conversation", number).code == 2
