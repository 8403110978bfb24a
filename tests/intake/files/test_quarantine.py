"""The quarantine of an import: read again, discarded, exported, without an arrival being changed."""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from ingestor.archive import quarantine
from ingestor.archive.store import Store
from ingestor.intake.retry import retry, todays_reader
from ingestor.providers.agile import mail as agile
from ingestor.providers.contract import Reading, Rules
from ingestor.record import Outcome
from tests.intake.files.importing import Importer
from tests.intake.files.mails import broken_mail, mbox_of, sms_mail

ALL = Rules(ZoneInfo("Europe/Rome"))
NOW = datetime(2026, 5, 1, tzinfo=UTC)
ARRIVALS = (
    "SELECT a.id, a.channel, a.source, c.input, a.byte_offset, a.outcome, a.reason, a.sms_id"
    " FROM arrivals AS a JOIN arrival_content AS c ON c.arrival_id = a.id ORDER BY a.id"
)


def other_label(number: int) -> bytes:
    """Return a mail whose text label nobody knows yet."""
    return sms_mail(number).replace(b"Body: ", b"Testo: ")


def test_retry_makes_rows_of_what_is_readable_now(
    run_import: Importer, archive_engine: Engine, tmp_path: Path
) -> None:
    """With today's reader a quarantined mail is an SMS with its old provenance; no arrival changes."""
    box = tmp_path / "box"
    box.write_bytes(mbox_of(other_label(1), broken_mail(2), other_label(3), sms_mail(3)))
    assert run_import(box).counts == (4, 1, 0, 0, 3, 0)
    arrivals = run_import.rows(ARRIVALS)
    today = Rules(ALL.zone, labels={"text": ("Testo",)})
    reader = todays_reader(lambda _: today)
    verdicts = list(retry(Store(archive_engine), reader, None, NOW))
    assert [verdict.outcome for verdict in verdicts] == [
        Outcome.STORED,
        Outcome.QUARANTINED,
        Outcome.DUPLICATE,
    ]
    assert run_import.rows(ARRIVALS) == arrivals
    assert sorted(run_import.texts) == ["text 1", "text 3"]
    assert run_import.rows("SELECT count(*) FROM quarantine") == [(1,)]
    assert run_import.rows("SELECT channel, arrivals FROM inbound_sms ORDER BY text") == [
        ("import", 1),
        ("import", 2),
    ]
    assert run_import(box).counts[1] == 0
    assert run_import.rows(ARRIVALS) == arrivals


def test_a_mail_that_memory_does_not_hold_is_quarantined(
    run_import: Importer, archive_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MemoryError on one mail is that mail's fate, not the import's; a retry with more memory reads it."""
    read = agile._read

    def scarce(raw: bytes, rules: Rules, **more: Any) -> Reading:
        if b"text 2" in raw:
            raise MemoryError
        return read(raw, rules, **more)

    box = tmp_path / "box"
    box.write_bytes(mbox_of(*(sms_mail(number) for number in range(4))))
    monkeypatch.setattr(agile, "_read", scarce)
    assert run_import(box, jobs=1).counts == (4, 3, 0, 0, 1, 0)
    assert run_import.rows("SELECT reason FROM quarantine") == [("there is not enough memory to read it",)]

    reader = todays_reader(lambda _: ALL)
    [again] = retry(Store(archive_engine), reader, None, NOW)
    assert again.outcome is Outcome.QUARANTINED
    monkeypatch.undo()
    [again] = retry(Store(archive_engine), reader, None, NOW)
    assert again.outcome is Outcome.STORED


def test_an_import_reads_what_stood_in_the_quarantine(
    run_import: Importer, archive_engine: Engine, tmp_path: Path
) -> None:
    """Imported again with a better reader, a quarantined mail is stored by a verdict, not by an arrival."""
    box, config = tmp_path / "box", tmp_path / "c.toml"
    box.write_bytes(mbox_of(*(other_label(i) for i in range(5)), sms_mail(9)))
    assert run_import(box).counts == (6, 1, 0, 0, 5, 0)
    config.write_text('[agile.labels]\ntext = ["Testo"]\n')
    assert run_import(box, "--config", config).counts == (6, 5, 1, 0, 0, 0)
    assert run_import.rows("SELECT count(*) FROM arrivals") == [(6,)]
    assert run_import.rows("SELECT count(*) FROM retries") == [(5,)]
    assert run_import(box, "--config", config).counts == (6, 0, 6, 0, 0, 0)


def test_discard_and_export(run_import: Importer, archive_engine: Engine, tmp_path: Path) -> None:
    """An exported mbox comes back with the same bytes; what is discarded stands no longer."""
    box, out = tmp_path / "box", tmp_path / "out.mbox"
    box.write_bytes(mbox_of(broken_mail(1), broken_mail(2) + b"\nFrom here on\n", sms_mail(3)))
    assert run_import(box).counts == (3, 1, 0, 0, 2, 0)
    mbox = io.BytesIO()
    assert quarantine.export_mbox(archive_engine, mbox) == (2, [])
    out.write_bytes(mbox.getvalue())
    assert run_import(out).counts == (2, 0, 0, 0, 2, 0)
    assert run_import.rows("SELECT count(*) FROM arrivals") == [(3,)]
    standing = quarantine.standing_ids(archive_engine)
    assert quarantine.discard(archive_engine, standing[:1], "not worth it", NOW) == standing[:1]
    assert quarantine.standing_ids(archive_engine) == standing[1:]
