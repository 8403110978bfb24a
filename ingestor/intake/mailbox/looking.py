"""A look at mails of a mailbox that changes nothing: EXAMINE, PEEK, and no cursor."""

from collections.abc import Generator
from typing import NamedTuple

from ingestor.errors import IngestorError
from ingestor.intake.mailbox.context import Reader
from ingestor.intake.mailbox.login import connect
from ingestor.intake.mailbox.pieces import PIECE_BYTES
from ingestor.intake.mailbox.waiting import Bell, Timing
from ingestor.providers.contract import Rules
from ingestor.settings import Mailbox


class Seen(NamedTuple):
    """A mail of a folder: its From and Subject lines, and its bytes where it would be fetched whole.

    `size` is set where `raw` is only its beginning.
    """

    folder: str
    uid: int
    lines: bytes
    raw: bytes | None
    size: int | None = None


def look(
    mailbox: Mailbox, password: str, reader: Reader, rules: Rules, *, folder: str | None, uid: int | None,
    last: int,
) -> Generator[Seen]:  # fmt: skip
    """Yield the mail `uid`, or else the `last` ones, of `folder` (None: the first configured).

    Raises MailboxUnavailable, CredentialsRefused, and IngestorError where there is no such mail.
    """
    session = connect(mailbox, password, Timing(), Bell())
    try:
        name = session.require_folder(folder or mailbox.folders[0])
        session.select(name, writable=False)
        for wanted in [uid] if uid is not None else session.newest(last):
            header = session.headers([wanted]).get(wanted)
            if header is None:
                raise IngestorError(f"{mailbox.name}: the folder {name} has no mail {wanted}")
            raw, size = None, None
            if reader.may_be_ours(header.lines, rules):
                if (header.size or 0) > PIECE_BYTES:
                    raw, size = session.piece(wanted, 0), header.size
                else:
                    raw = session.bodies([wanted]).get(wanted)
            yield Seen(name, wanted, header.lines, raw, size)
    finally:
        session.close()
