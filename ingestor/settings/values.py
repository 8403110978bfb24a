"""Single values of the configuration: what is accepted, and the sentence that says what is wrong.

Every function takes what stood in the file and raises ValueError with words for the user. The words never
repeat a value that may be a secret or a phone number.
"""

import re
import shlex
from calendar import monthrange
from collections.abc import Callable
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt

from ingestor.providers.contract import Section, Text
from ingestor.redaction import HIDDEN

_POSTGRESQL = {"postgresql", "postgres", "postgresql+psycopg"}
_SQLITE = {"sqlite", "sqlite+pysqlite"}
_URL_FORMS = "use sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"


def database_url(url: str) -> str:
    """Return `url` with the driver spelled out; only SQLite files and PostgreSQL are accepted."""
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z0-9+]+", scheme):
        raise ValueError(f"is no database URL; {_URL_FORMS}")
    if scheme in _SQLITE:
        path = rest.partition("?")[0]
        if not path.startswith("/"):
            raise ValueError(
                "needs three slashes before the file: sqlite:///FILE, or four: sqlite:////ABSOLUTE"
            )
        if path == "/" or path.startswith("/:memory:"):
            raise ValueError("names no file; an archive in memory would be lost: sqlite:///FILE")
        return "sqlite://" + re.sub("^/{3,}", "//", rest)  # SQLite would read //HOST/PATH as a host
    if scheme in _POSTGRESQL:
        try:
            _ = urlsplit(url).port
        except ValueError:
            raise ValueError(
                "has a port that is no number (an @ : / in the password must be written as %40 %3A %2F)"
            ) from None
        return f"postgresql+psycopg://{rest}"
    raise ValueError(f"names the unknown database {scheme!r}; {_URL_FORMS}")


def url_password(url: str) -> str | None:
    """Return the password inside a database `url`, decoded, or None."""
    parts = urlsplit(url)
    if parts.password:
        return unquote(parts.password)
    return next((value for key, value in parse_qsl(parts.query) if key == "password"), None)


def hide_url_password(url: str) -> str:
    """Return `url` fit for a screen: its password replaced by three stars."""
    scheme, separator, rest = url.partition("://")
    location, slash, tail = rest.partition("/")
    credentials, at, host = location.rpartition("@")
    user, colon, _ = credentials.partition(":")
    tail = re.sub(r"(?<=[?&]password=)[^&]*", HIDDEN, tail)
    return f"{scheme}{separator}{user}{colon and colon + HIDDEN}{at}{host}{slash}{tail}"


def command(argv: Any) -> Any:
    """Return a command as a tuple of arguments; a string is split as a shell would, but no shell runs it."""
    if isinstance(argv, str):
        argv = shlex.split(argv)
    if isinstance(argv, list | tuple) and not argv:
        raise ValueError("is empty; give the program and its arguments")
    return argv


def file_path(written: Any) -> Any:
    """Return a path; an empty one would mean the working folder."""
    if not written:
        raise ValueError("is empty; give a path or leave it out")
    return written


def network(written: Any) -> Any:
    """Return a network or single address as an `ipaddress` network."""
    if isinstance(written, IPv4Network | IPv6Network):
        return written
    if not isinstance(written, str):
        raise ValueError('must be a network in quotes, like "198.51.100.0/24"')  # noqa: TRY004 - pydantic reads ValueError
    try:
        return ip_network(written)
    except ValueError:
        pass
    try:
        meant = ip_network(written, strict=False)
    except ValueError:
        raise ValueError(f"{written!r} is no network like 198.51.100.0/24 or 2001:db8::/32") from None
    raise ValueError(f"{written!r} has bits beyond its mask; write {meant}")


def listen_address(written: str) -> str:
    """Return `ADDRESS:PORT` as written, where both can be listened on (port 0: any free one)."""
    host, port = split_listen(written)
    try:
        if host != "localhost":
            ip_address(host)
    except ValueError:
        raise ValueError("needs an IP address to listen on, like 127.0.0.1:8080 or [::1]:8080") from None
    if not 0 <= port <= 65535:
        raise ValueError("has a port above 65535")
    return written


def split_listen(written: str) -> tuple[str, int]:
    """Return address (without brackets) and port of `ADDRESS:PORT`."""
    host, separator, port = written.rpartition(":")
    if not separator or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError("must be ADDRESS:PORT, like 127.0.0.1:8080 or [::1]:8080")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("needs brackets around an IPv6 address, like [::1]:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def name_server(written: str) -> str:
    """Return `ADDRESS` or `ADDRESS:PORT` as written, where a name server can be asked there."""
    address, port = split_server(written)
    try:
        ip_address(address)
    except ValueError:
        raise ValueError("needs the IP address of a name server, like 127.0.0.1 or [::1]:5353") from None
    if not 0 < port <= 65535:
        raise ValueError("has no port between 1 and 65535")
    return written


def split_server(written: str) -> tuple[str, int]:
    """Return the address of a name server without brackets, and its port (53 where none is written)."""
    if written.startswith("[") or written.count(":") == 1:
        return split_listen(written)
    return written, 53


def host_name(written: str) -> str:
    """Return the name of a server, which stands alone: neither a scheme nor a port is in it."""
    if "://" in written:
        raise ValueError("is an address with a scheme; write the name alone, and security = … beside it")
    name, colon, port = written.rpartition(":")
    if colon and ":" not in name and port.isdecimal():
        raise ValueError(f'has a port in it; write host = "{name}" and port = {port}')
    return written


class Listening(Section):
    """What a table has that listens: `listen` as ADDRESS:PORT."""

    listen: str

    @property
    def host(self) -> str:
        """The address to listen on, without brackets."""
        return split_listen(self.listen)[0]

    @property
    def port(self) -> int:
        """The port to listen on (0: any free one)."""
        return split_listen(self.listen)[1]


def like(pattern: str, otherwise: str) -> Callable[[str], str]:
    """Return the check that a value is all of `pattern`; `otherwise` says what is wrong."""

    def check(written: str) -> str:
        if not re.fullmatch(pattern, written):
            raise ValueError(otherwise)
        return written

    return check


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine by its very name; other names are not looked up."""
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def url_path(path: str) -> str:
    """Return the path of an endpoint: absolute, of characters that need no quoting."""
    if not path.startswith("/"):
        raise ValueError("must start with /")
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", path):
        raise ValueError("may hold only letters, digits and . _ ~ - /")
    return path


def web_address(url: str) -> str:
    """Return the address of an authorisation server: https, or http on this very machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return url
    raise ValueError("must be an https:// address; http:// would send secrets readable over the network")


_AT = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_HOURS = like(f"{_AT}-(?:{_AT}|24:00)", 'must be like "08:00-20:00"; one over midnight is "22:00-06:00"')
Hours = Annotated[str, AfterValidator(_HOURS)]
"""HH:MM-HH:MM: such times sort as text; over midnight the end comes first."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]
Host = Annotated[Text, AfterValidator(host_name)]
FilePath = Annotated[Path, BeforeValidator(file_path)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(network)]
Command = Annotated[tuple[Text, ...], BeforeValidator(command)]
WebAddress = Annotated[str, AfterValidator(web_address)]


_UNITS = {"d": 1, "m": 1, "y": 12}
_MOST = 9999


def period(written: str) -> str:
    """Return a period such as 90d, 18m or 10y."""
    number, unit = written[:-1], written[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdecimal() and 0 < int(number) <= _MOST):
        raise ValueError("is no period like 90d (days), 18m (months) or 10y (years)")
    return written


def before(written: str, now: datetime) -> datetime:
    """Return the moment up to which what arrived is older than the period, counted back from `now`."""
    number = int(written[:-1])
    if written.endswith("d"):
        return now - timedelta(days=number)
    months = now.year * 12 + now.month - 1 - number * _UNITS[written[-1]]
    year, month = max(1, months // 12), months % 12 + 1
    return now.replace(year=year, month=month, day=min(now.day, monthrange(year, month)[1]))


Period = Annotated[str, AfterValidator(period)]
