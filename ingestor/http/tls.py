"""The server's own certificate: loading it, following its renewal, and how long it is good for."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ingestor.errors import ConfigurationError
from ingestor.logs import get_logger
from ingestor.timestamps import iso_utc

_log = get_logger(__name__)


class Validity(NamedTuple):
    begins: datetime
    ends: datetime


class Certificate:
    """A certificate chain and its key in PEM files; renewed files are taken up without a restart.

    A renewal makes a new `context`: one that has held an RSA key would offer it beside one of another kind.
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
    """Return from when to when the first certificate of `chain` is good. Raises ConfigurationError."""
    # Here, as it costs 7 MB of an idle daemon that listens behind a proxy or reads mailboxes alone.
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(chain.read_bytes())
    except OSError as fault:
        raise ConfigurationError(f"webhook: {chain} cannot be read ({fault.strerror})") from None
    except ValueError:
        raise ConfigurationError(f"webhook: {chain} holds no certificate in PEM") from None
    return Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _unreadable(*paths: Path) -> Path:
    for path in paths:
        try:
            path.open("rb").close()
        except OSError:
            return path
    return paths[0]
