"""Keys of the archive that are computed before anything reaches the database; workers do it too.

Both begin with four bytes of day, for the reason that `entries.mail_day` gives. The day follows from what
the key is taken over, so that keys are equal exactly where they would be without it.
"""

from hashlib import blake2b

from ingestor.archive.entries import MAIL_KEY_BYTES, NO_DAY
from ingestor.record import InboundSms, fingerprint


def keyed(content_key: bytes, secret: bytes) -> bytes:
    """Return a content key as the archive keeps it: its day, and 16 bytes of BLAKE2b under the archive's key.

    A plain hash would let the text of an erased mail be guessed. A POST's UUID has no day.
    """
    day = content_key[:4] if len(content_key) == MAIL_KEY_BYTES else NO_DAY
    return day + blake2b(content_key, key=secret, digest_size=16).digest()


def unique_key(sms: InboundSms, secret: bytes) -> bytes:
    """Return what makes `sms` unique in the archive: the day of its own clock, and its 32-byte fingerprint.

    The day is part of what the fingerprint is taken over, except where that is the provider's id: then
    there is none. Raises ValueError where `date_time` does not begin with digits.
    """
    if sms.provider_message_id is not None:
        return NO_DAY + fingerprint(sms, secret)
    return int(sms.date_time[:8]).to_bytes(4, "big") + fingerprint(sms, secret)
