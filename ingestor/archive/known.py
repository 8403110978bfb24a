"""What the archive knows already: a look-up, never a judge of duplicates."""

from collections.abc import Sequence
from hashlib import blake2b
from hmac import digest

from sqlalchemy import Connection, Engine, select

from ingestor.archive.engine import reading
from ingestor.archive.entries import NO_DAY, POST_KEY_BYTES, mail_content_key
from ingestor.archive.inserts import inserts_for, sms_by_content_key
from ingestor.archive.keys import keyed, unique_key
from ingestor.archive.tables import archive_key
from ingestor.errors import SchemaMismatch
from ingestor.record import InboundSms


def read_archive_key(engine: Engine) -> bytes:
    """Return the secret under which this archive takes all its keys.

    Raises SchemaMismatch where there is none, ArchiveUnavailable where the database is away.
    """
    try:
        with reading(engine) as connection:
            secret = connection.execute(select(archive_key.c.secret)).scalar()
    except SchemaMismatch:  # a snapshot has no such table
        secret = None
    if secret is None:
        raise SchemaMismatch("this archive has no key: it is a snapshot, which is for reading only")
    return bytes(secret)


def known_sms(connection: Connection, secret: bytes, messages: Sequence[InboundSms]) -> list[int | None]:
    """Return the id of each SMS that is in the archive, None for those that are not.

    `secret` is `Store.archive_key()`; `connection` one of `engine.reading`.
    """
    unique = [unique_key(sms, secret) for sms in messages]
    found = inserts_for(connection).sms_by_fingerprint(unique) if unique else {}
    return [found.get(value) for value in unique]


def sms_of_mails(connection: Connection, secret: bytes, content_keys: Sequence[bytes]) -> list[int | None]:
    """Return the id of the SMS that each mail became when its bytes were read first, None where never.

    `content_keys` are of `entries.mail_content_key`. Whatever today's reader says, that mail stays with it.
    """
    keys = [keyed(content_key, secret) for content_key in content_keys]
    found = sms_by_content_key(inserts_for(connection), keys)
    return [found.get(key) for key in keys]


def is_earlier_post(content_key: bytes) -> bool:
    """Say whether this is the UUID of a POST that an early program took: of version 4 and not 7."""
    return len(content_key) == POST_KEY_BYTES and content_key[6] >> 4 == 4


def key_of_earlier_post(connection: Connection, secret: bytes, identity: bytes) -> bytes | None:
    """Return the key under which an early program wrote the POST `identity` down, None where none did.

    Its file may still lie in the spool. No program makes such keys any more, so that nothing can come in
    between the look and the insert.
    """
    long, short = (blake2b(identity, key=secret, digest_size=size).digest() for size in (32, 16))
    forms = (digest(secret, identity, "sha256"), long, NO_DAY + short)
    found = inserts_for(connection).arrivals_by_key(forms)
    return next((key for key, _, _ in found), None)


def known_mail(engine: Engine, raw: bytes, sms: InboundSms | None) -> dict[str, int | None]:
    """Return what the archive has of the mail `raw`, of which today's reader makes `sms`.

    `read_as`: the SMS its bytes became; `same_sms`: the SMS that has what `sms` says; `quarantined_as`: the
    arrival as which its bytes stand in the quarantine. None where there is none.
    """
    secret = read_archive_key(engine)
    key = keyed(mail_content_key(raw), secret)
    with reading(engine) as connection:
        inserts = inserts_for(connection)
        [same] = known_sms(connection, secret, [sms]) if sms is not None else [None]
        arrivals = inserts.arrivals_by_key([key])
        read = sms_by_content_key(inserts, [key]).get(key)
    waiting = [number for number, sms_id in arrivals.values() if sms_id is None]
    stands = min(waiting) if waiting and read is None else None
    return {"read_as": read, "same_sms": same, "quarantined_as": stands}
