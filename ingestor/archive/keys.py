"""Keys of the archive that are computed before anything reaches the database; workers do it too.

Each begins with a time where it can, for the reason that `entries.mail_day` gives: keys that come together
lie together in the index. The time follows from what the key is taken over, so that keys are equal exactly
where they would be without it.
"""

from hashlib import blake2b

from ingestor.archive.entries import MAIL_KEY_BYTES, NO_DAY, POST_KEY_BYTES
from ingestor.record import InboundSms, fingerprint

_NO_TIME = bytes(6)


def keyed(content_key: bytes, secret: bytes) -> bytes:
    """Return a content key as the archive keeps it.

    Of a mail: its day, and 16 bytes of BLAKE2b under the archive's key, because a plain hash would let the
    text of an erased mail be guessed. The UUID of a POST says nothing about its content, and stays as it is.
    """
    if len(content_key) == POST_KEY_BYTES:
        return content_key
    day = content_key[:4] if len(content_key) == MAIL_KEY_BYTES else NO_DAY
    return day + blake2b(content_key, key=secret, digest_size=16).digest()


def unique_key(sms: InboundSms, secret: bytes) -> bytes:
    """Return what makes `sms` unique in the archive: the time of its own clock, and its 32-byte fingerprint.

    The time is six bytes that sort like the 14 digits. They are part of what the fingerprint is taken over,
    except where that is the provider's id: then there is none. Raises ValueError or OverflowError where
    `date_time` is no such number.
    """
    if sms.provider_message_id is not None:
        return _NO_TIME + fingerprint(sms, secret)
    return int(sms.date_time).to_bytes(6, "big") + fingerprint(sms, secret)
