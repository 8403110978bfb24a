"""Reading the archive: search, evidence, exports."""

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive import queries, searching
from ingestor.archive.engine import reading
from ingestor.archive.export import COLUMNS, export_csv, export_jsonl
from ingestor.archive.inserts import sms_of_mails
from ingestor.archive.items import Item, Submission
from ingestor.archive.searching import Filters
from ingestor.archive.store import Store
from ingestor.providers.contract import Readable
from ingestor.record import Channel
from tests.archive.samples import NOW, PARSER, broken, item, sms


def fill(engine: Engine, *items: Item) -> None:
    """Store `items`."""
    Store(engine).write([Submission(None, items)], NOW)


def texts(engine: Engine, **filters: Any) -> list[str]:
    """Return the texts that a search finds."""
    return [row["text"] for row in searching.search(engine, Filters(**filters))]


def test_search_finds_by_every_filter_newest_first(archive_engine: Engine) -> None:
    """Parts of numbers and texts, times, provider and a limit, alone and together."""
    fill(
        archive_engine,
        *[item(n) for n in range(1, 6)],
        item(9, reading=Readable(sms(9, text="100% Sure_"), PARSER)),
    )
    received = [sms(n).received_at for n in range(7)]
    assert texts(archive_engine, text="TEXT OF", limit=2) == ["text of 5 è €", "text of 4 è €"]
    assert texts(archive_engine, originator="0000003") == ["text of 3 è €"]
    assert texts(archive_engine, since=received[4], until=received[6]) == ["text of 5 è €", "text of 4 è €"]
    assert texts(archive_engine, destination="393331234333", provider="agile", text="of 1") == [
        "text of 1 è €"
    ]
    assert texts(archive_engine, provider="infobip") == []
    assert texts(archive_engine, text="100%") == texts(archive_engine, text="e_") == ["100% Sure_"]
    (row,) = searching.search(archive_engine, Filters(originator="0000003"))
    assert tuple(row) == COLUMNS
    assert row["received_at"] == received[3]


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("Perché no?", "PERCHÉ"), ("PERCHÉ SÌ", "perché sì"), ("ÀÈÌÒÙ", "àèìòù"), ("Ünïcödé", "üNÏCÖDÉ"),
        ("ΚΑΛΗΜΈΡΑ ΣΑΣ", "καλημέρα σας"), ("Οδυσσεύς", "ΟΔΥΣΣΕΎΣ"), ("Привет, мир", "ПРИВЕТ"),
        ("ŁÓDŹ", "łódź"), ("中文 ok", "中文 OK"),
        ("100% è [così] (no) \\d_", "È [COSÌ] (NO) \\D_"), ("a€b", "A€B"), ("riga è\nriga", "È\nR"),
        ("Straße", "STRAẞE"), ("caffè 😀", "È 😀"),
    ],
)  # fmt: skip
def test_search_knows_the_case_of_every_alphabet(archive_engine: Engine, stored: str, wanted: str) -> None:
    """Accented, Greek and Cyrillic letters are found in any case, whatever the database's locale."""
    words = (stored, "text: e a o ss", stored.replace("è", "e").replace("é", "e").replace("€", "$"))
    fill(
        archive_engine,
        *(item(n, reading=Readable(sms(n, text=text), PARSER)) for n, text in enumerate(words)),
    )
    found = texts(archive_engine, text=wanted)

    assert stored in found
    assert set(found) <= {stored, words[2]}
    assert words[1] not in found


def test_show_gives_all_evidence_and_the_raw_bytes(archive_engine: Engine) -> None:
    """Every arrival with its place, the raw numbers, and the identical bytes."""
    raw = b"Subject: x\r\n\r\n\xff\x00body\r\n"
    post = item(1, channel=Channel.WEBHOOK, content_key=b"u" * 16, raw=raw)
    second = item(2, channel=Channel.WEBHOOK)._replace(content_key=b"u" * 16, number=1, payload=None)
    fill(archive_engine, post, second, broken(1))
    fill(archive_engine, item(1), item(2, copy=1))
    evidence = queries.show(archive_engine, 1)
    assert evidence is not None
    assert evidence.sms["arrivals"] == 2
    assert evidence.content is not None
    assert evidence.content["originator_raw"] == "393330000001"
    assert [arrival["channel"] for arrival in evidence.arrivals] == ["webhook", "import"]
    assert [bool(arrival["read_by_retry"]) for arrival in evidence.arrivals] == [False, True]
    assert evidence.arrivals[0]["payload_size"] == len(raw)
    assert evidence.arrivals[1]["byte_offset"] == 100
    assert queries.raw_of_arrival(archive_engine, 1) == raw
    other = queries.show(archive_engine, 2)
    assert other is not None
    assert queries.raw_of_arrival(archive_engine, other.arrivals[0]["id"]) == raw
    assert queries.show(archive_engine, 99) is None
    assert queries.raw_of_arrival(archive_engine, 99) is None


def test_counts_say_what_is_there(archive_engine: Engine) -> None:
    """Numbers of SMS, arrivals and quarantine, and the first and last time received."""
    empty = queries.counts(archive_engine)
    assert (empty.sms, empty.quarantined, empty.first_received) == (0, 0, None)
    fill(archive_engine, item(1), item(2), item(1, copy=1), broken(5))
    found = queries.counts(archive_engine)
    assert (found.sms, found.arrivals, found.quarantined, found.pending) == (2, 4, 1, 0)
    assert (found.first_received, found.last_received) == (sms(1).received_at, sms(2).received_at)


def test_jsonl_is_exact(archive_engine: Engine) -> None:
    """Each line is one row with the view's columns, whatever the text holds; NULL and '' stay apart."""
    nasty = 'quote " comma, line\nbreak \u2028 emoji 😀 \t=1+1'
    fill(
        archive_engine,
        item(1, reading=Readable(sms(1, text=nasty, clean_text="", segments=2), PARSER)),
        item(2),
    )
    out = io.StringIO(newline="")
    assert export_jsonl(archive_engine, out) == 2
    first, second = (json.loads(line) for line in out.getvalue().split("\n")[:-1])
    assert list(first) == list(COLUMNS)
    assert (first["text"], first["clean_text"], first["keyword"], first["segments"]) == (nasty, "", None, 2)
    assert (first["received_at"], first["arrivals"]) == ("2026-03-01T12:00:01Z", 1)
    assert second["id"] == 2
    one = io.StringIO()
    assert export_jsonl(archive_engine, one, Filters(originator="0000002")) == 1


def test_csv_is_exact(archive_engine: Engine) -> None:
    """The csv module reads back every text to the letter; an empty text is quoted, NULL is not there."""
    nasty = 'quote " comma, line\nbreak 😀\r =1+1'
    fill(archive_engine, item(1, reading=Readable(sms(1, text=nasty, clean_text=""), PARSER)))
    out = io.StringIO(newline="")
    assert export_csv(archive_engine, out) == 1
    header, row = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert header == list(COLUMNS)
    shown = dict(zip(header, row, strict=True))
    assert (shown["text"], shown["originator"]) == (nasty, "+393330000001")
    assert ',,"",,' in out.getvalue()  # keyword is NULL, clean_text is empty, the provider's id is NULL


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_spreadsheet_safe_csv_runs_no_formula(archive_engine: Engine, start: str) -> None:
    """No cell begins with what a spreadsheet would run; numbers have a column without their plus."""
    fill(archive_engine, item(1, reading=Readable(sms(1, text=f"{start}cmd|' /C calc'!A0"), PARSER)))
    out = io.StringIO(newline="")
    export_csv(archive_engine, out, spreadsheet_safe=True)
    header, row = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert not [cell for cell in row if cell[:1] in "=+-@\t\r\n＝" and cell]
    shown = dict(zip(header, row, strict=True))
    assert shown["originator_digits"] == "393330000001"
    assert shown["text"][1:].startswith(start)


def test_a_run_that_must_not_write_can_look_up_what_is_known(archive_engine: Engine) -> None:
    """It sees what each mail became when its bytes were read."""
    fill(archive_engine, item(1), broken(2))
    secret = Store(archive_engine).archive_key()
    with reading(archive_engine) as connection:
        keys = [item(number).content_key for number in (1, 2, 3)]
        assert sms_of_mails(connection, secret, keys) == [1, None, None]


def test_a_long_export_is_streamed(archive_engine: Engine) -> None:
    """More rows than one fetch holds come out whole and in order."""
    fill(archive_engine, *[item(n) for n in range(2500)])
    out = io.StringIO(newline="")
    assert export_jsonl(archive_engine, out, Filters(since=NOW + timedelta(seconds=100))) == 2400
    ids = [json.loads(line)["id"] for line in out.getvalue().splitlines()]
    assert ids == sorted(ids)
