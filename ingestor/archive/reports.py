"""Delivery reports into their table, in the transaction of the POST that brought them."""

import hmac
import secrets
from collections.abc import Sequence

from sqlalchemy import Connection, insert

from ingestor.archive.columns import insert_once
from ingestor.archive.items import ReportItem
from ingestor.archive.payloads import compress
from ingestor.archive.reply_tables import delivery_report_content, delivery_reports
from ingestor.providers.contract import Report
from ingestor.record import Outcome
from ingestor.timestamps import iso_utc


def write_reports(
    connection: Connection, secret: bytes, run_id: int | None, items: Sequence[ReportItem]
) -> list[Outcome]:
    """Insert the reports that are not there yet, in the caller's transaction; return the outcome of each.

    A POST that is given again (from the spool, after a doubtful commit) is the same report, a `duplicate`; a
    report that the provider sends again is one more row, which the view counts.
    """
    return [_write(connection, secret, run_id, item) for item in items]


def _write(connection: Connection, secret: bytes, run_id: int | None, item: ReportItem) -> Outcome:
    report = item.report
    values = {
        "post": item.post, "number": item.number, "report_hmac": _report_hmac(secret, report),
        "message_id": report.message_id, "shape": report.shape, "status": report.status,
        "status_raw": report.status_raw, "part": report.part, "parts": report.parts,
        "operator": report.operator, "price": report.price, "done_at": report.done_at,
        "source": item.source, "run_id": run_id, "arrived_at": item.arrived_at,
    }  # fmt: skip
    report_id = insert_once(connection, delivery_reports, values)
    if report_id is None:
        return Outcome.DUPLICATE
    connection.execute(insert(delivery_report_content).values(
        report_id=report_id, destination=report.destination, content_type=item.content_type,
        payload=compress(item.raw), salt=secrets.token_bytes(32),
    ))  # fmt: skip
    return Outcome.STORED


def _report_hmac(secret: bytes, report: Report) -> bytes:
    """Return what equal reports have in common: message, destination, part, state and time."""
    done = "" if report.done_at is None else iso_utc(report.done_at)
    told = (report.message_id, report.destination or "", str(report.part), report.status, done)
    return hmac.digest(secret, b"report\0" + "\0".join(told).encode(), "sha256")
