"""What a user would write from Agile's own example: Flask, SQLAlchemy, a commit for each request.

Run by gunicorn in the webhook benchmark; RECEIVER_DATABASE names the database. Run as a program it only
makes its table, which two workers must not do at once.
"""

import os
import sqlite3
from datetime import UTC, datetime
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue
from sqlalchemy import DateTime, String, Text, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(os.environ["RECEIVER_DATABASE"])
app = Flask(__name__)


@event.listens_for(engine, "connect")
def _durable(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA busy_timeout = 10000")


class Base(DeclarativeBase):
    """The tables."""


class Sms(Base):
    """One received SMS."""

    __tablename__ = "received_sms"

    id: Mapped[int] = mapped_column(primary_key=True)
    originator: Mapped[str] = mapped_column(String(32))
    destination: Mapped[str] = mapped_column(String(32))
    date_time: Mapped[str] = mapped_column(String(14))
    text: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(DateTime)


@app.post("/agile/<secret>")
def receive(secret: str) -> ResponseReturnValue:
    """Store one SMS, then say +OK."""
    form = request.form
    with Session(engine) as session:
        session.add(
            Sms(
                originator=form["originator"], destination=form["destination"], date_time=form["date_time"],
                text=form["text"], received_at=datetime.now(UTC),
            )
        )  # fmt: skip
        session.commit()
    return "+OK", 200, {"Content-Type": "text/plain"}


if __name__ == "__main__":
    Base.metadata.create_all(engine)
