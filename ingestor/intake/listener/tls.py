"""The listener's own certificate: loading it, following its renewal, and how long it is good for."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog

from ingestor.errors import ConfigurationError
from ingestor.timestamps import iso_utc

_log = structlog.get_logger()

_UTC_TIME, _VERSION = 0x17, 0xA0


class Validity(NamedTuple):
    """From when to when a certificate is good (aware UTC)."""

    begins: datetime
    ends: datetime


class Certificate:
    """A certificate chain and its key in PEM files; renewed files are taken up without a restart.

    `context` is what new connections use. A renewal makes a new one, because a context that has held an
    RSA key would go on offering it beside a new key of another kind.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        """Load both. Raises ConfigurationError where they cannot be read or do not belong together."""
        self._chain = chain
        self._key = key
        self._stamps = self._look()
        self.context = server_context(chain, key)
        ends = validity(chain).ends
        if ends < datetime.now(UTC):
            _log.error("the webhook certificate has ended: no provider will trust it", ended=iso_utc(ends))

    def refresh(self) -> None:
        """Take renewed files up; where they cannot be used the old certificate stays, and the log says so."""
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self.context = server_context(self._chain, self._key)
        except ConfigurationError as fault:
            _log.error("the renewed webhook certificate cannot be used", error=str(fault))
        else:
            _log.info("webhook certificate renewed", ends=iso_utc(validity(self._chain).ends))

    def _look(self) -> list[tuple[int, int]]:
        stamps = []
        for path in (self._chain, self._key):
            try:
                status = path.stat()
            except OSError:
                stamps.append((0, 0))
            else:
                stamps.append((status.st_mtime_ns, status.st_ino))
        return stamps


def server_context(chain: Path, key: Path) -> ssl.SSLContext:
    """Return a TLS context of the server: 1.2 and newer. Raises ConfigurationError with one line."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(chain, key, password=lambda: b"")
    except ssl.SSLError as fault:
        reason = (fault.reason or "unreadable").replace("_", " ").lower()
        raise ConfigurationError(
            f"webhook: {chain} and {key} cannot be used for TLS ({reason}); tls_certificate is a PEM chain, "
            f"tls_key the unencrypted PEM key that belongs to it"
        ) from None
    except OSError as fault:
        raise ConfigurationError(
            f"webhook: {_unreadable(chain, key)} cannot be read ({fault.strerror}); check the path and who "
            f"may read it"
        ) from None
    return context


def validity(chain: Path) -> Validity:
    """Return from when to when the first certificate in the PEM file `chain` is good.

    Raises ConfigurationError where there is none.
    """
    try:
        text = chain.read_text("ascii", "replace")
        start = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----", start) + len("-----END CERTIFICATE-----")
        return _validity(ssl.PEM_cert_to_DER_cert(text[start:end]))
    except OSError as fault:
        raise ConfigurationError(f"webhook: {chain} cannot be read ({fault.strerror})") from None
    except (ValueError, IndexError):
        raise ConfigurationError(f"webhook: {chain} holds no certificate in PEM") from None


def _validity(certificate: bytes) -> Validity:
    """Read the validity out of DER: the fourth field behind the version (RFC 5280, 4.1)."""
    _, at, _ = _element(certificate, 0)
    _, at, _ = _element(certificate, at)
    tag, _, behind = _element(certificate, at)
    skipped = 3  # serial number, signature algorithm, issuer
    if tag == _VERSION:
        at = behind
    for _ in range(skipped):
        _, _, at = _element(certificate, at)
    _, at, _ = _element(certificate, at)
    begins, at = _time(certificate, at)
    ends, _ = _time(certificate, at)
    return Validity(begins, ends)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the element at `at`, where its content begins, and where the next element begins."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        length, at = int.from_bytes(der[at : at + octets]), at + octets
    return tag, at, at + length


def _time(der: bytes, at: int) -> tuple[datetime, int]:
    tag, start, end = _element(der, at)
    written = der[start:end].decode("ascii")
    if tag == _UTC_TIME:  # two digits: 50 and more are of the last century
        written = ("19" if written[:2] >= "50" else "20") + written
    return datetime.strptime(written, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC), end


def _unreadable(*paths: Path) -> Path:
    for path in paths:
        try:
            path.open("rb").close()
        except OSError:
            return path
    return paths[0]
