"""The installed unit, as far as it decides what the daemon sees: its user, credentials and sandbox.

It is read from its files and drop-ins as systemd.unit(5) says, whether a systemd runs or not.
"""

import os
import pwd
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from grp import getgrnam
from pathlib import Path
from typing import Final

from ingestor.errors import ConfigurationError
from ingestor.service.checks import Finding, fail, ok
from ingestor.settings import DEFAULT_FILE, Settings, state_directory
from ingestor.settings.credentials import ENCRYPTED_STORES, STORES, decrypted

NAME: Final = "ingestor.service"
_FOLDERS: Final = (
    "/etc/systemd/system:/run/systemd/system:/usr/local/lib/systemd/system:/usr/lib/systemd/system"
)
_TRUE: Final = frozenset({"1", "yes", "true", "on"})
_HOMES: Final = tuple(map(Path, ("/home", "/root", "/run/user")))
_TEMPORARY: Final = tuple(map(Path, ("/tmp", "/var/tmp")))  # noqa: S108 - what PrivateTmp= replaces


@dataclass(frozen=True, slots=True)
class Unit:
    """What its [Service] sections assign, key by key, in their order; an empty value has cleared a list."""

    path: Path
    keys: Mapping[str, Sequence[str]]

    def last(self, key: str, otherwise: str = "") -> str:
        """Return what counts of a key that holds one value."""
        return next(reversed(self.keys.get(key, ())), otherwise)

    def words(self, key: str) -> list[str]:
        """Return all words of a key that holds several."""
        return [word for value in self.keys.get(key, ()) for word in shlex.split(value)]

    @property
    def environment(self) -> dict[str, str]:
        """What Environment= sets."""
        pairs = (word.partition("=") for word in self.words("Environment"))
        return {name: value for name, equals, value in pairs if equals}

    @property
    def config(self) -> Path:
        """The configuration file that it runs with."""
        words = self.words("ExecStart")
        given = words[words.index("--config") + 1] if "--config" in words[:-1] else None
        return Path(given or self.environment.get("INGESTOR_CONFIG") or DEFAULT_FILE)

    @property
    def credentials(self) -> dict[str, tuple[list[Path], bool]]:
        """The name of each credential that it passes, where systemd looks for it, and whether it decrypts."""
        found = {}
        for key, stores in (("LoadCredential", STORES), ("LoadCredentialEncrypted", ENCRYPTED_STORES)):
            for word in self.words(key):
                name, colon, path = word.partition(":")
                given = colon and path.startswith("/")
                places = [Path(path)] if given else [one / name for one in stores]
                found[name] = places, key == "LoadCredentialEncrypted"
        return found

    @property
    def state(self) -> Path | None:
        """The state directory that systemd makes for it."""
        return next((Path("/var/lib") / word for word in self.words("StateDirectory")), None)


def installed() -> Unit | None:
    """Return the unit of this machine, None where there is none."""
    folders = [Path(one) for one in os.environ.get("SYSTEMD_UNIT_PATH", _FOLDERS).split(":") if one]
    main = next((one / NAME for one in folders if (one / NAME).is_file()), None)
    if main is None:
        return None
    further = {path.name: path for one in reversed(folders) for path in (one / f"{NAME}.d").glob("*.conf")}
    keys: dict[str, list[str]] = {}
    for path in (main, *(further[name] for name in sorted(further))):
        for key, value in _assigned(path.read_text(encoding="utf-8", errors="replace")):
            keys[key] = [*keys.get(key, ()), value] if value else []
    return Unit(main, keys)


def _assigned(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.startswith("["):
            section = line.strip()
        elif section == "[Service]" and "=" in line and line.lstrip()[0] not in "#;":
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()


def become(settings: Settings, config: Path, stack: ExitStack) -> Iterator[Finding]:
    """As root, go on as the installed unit runs the file `config`, and say so; else change nothing.

    User, groups, home, state directory and credentials are then the unit's. There is no way back; `stack`
    removes the credentials, which lie in memory.
    """
    unit = installed() if os.geteuid() == 0 else None
    if unit is None:
        return
    if unit.config.resolve() != config.resolve():
        yield ok("unit", f"{unit.path} runs {unit.config}, so this file was looked at with root's eyes")
        return
    try:
        user = pwd.getpwnam(unit.last("User", "root"))
        group = getgrnam(unit.last("Group")).gr_gid if unit.last("Group") else user.pw_gid
        more = [getgrnam(name).gr_gid for name in unit.words("SupplementaryGroups")]
    except KeyError as fault:
        yield fail("unit", f"{unit.path}: {fault.args[0]}", "run: systemd-sysusers")
        return
    in_memory = next((place for place in ("/dev/shm", "/run") if os.path.ismount(place)), None)  # noqa: S108 - a folder of our own in it
    folder = stack.enter_context(tempfile.TemporaryDirectory(dir=in_memory))
    yield from _passed(unit, Path(folder), user.pw_uid)
    os.chown(folder, user.pw_uid, group)
    os.environ |= {"HOME": user.pw_dir, "CREDENTIALS_DIRECTORY": folder, **unit.environment}
    if unit.state is not None:
        os.environ["STATE_DIRECTORY"] = str(unit.state)
    os.setgroups([*os.getgrouplist(user.pw_name, group), *more])
    os.setresgid(group, group, group)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    names = ", ".join(unit.credentials) or "none"
    yield ok("unit", f"looked at as {unit.path} runs it: as {user.pw_name}, with its credentials ({names})")
    yield from _closed(settings, user.pw_name)
    yield from _sandboxed(unit, settings)


def _passed(unit: Unit, folder: Path, user: int) -> Iterator[Finding]:
    """Put what the unit would pass into `folder`, and name what it could not."""
    for name, (places, encrypted) in unit.credentials.items():
        place = next((one for one in places if one.is_file()), None)
        if place is None:
            if len(places) == 1:  # a path of its own: systemd does not start the unit without it
                yield fail("unit", f"its credential {name} is not at {places[0]}", "put it there")
            continue
        try:
            content = decrypted(name, place) if encrypted else place.read_bytes()
        except ConfigurationError:
            yield fail("unit", f"its credential {name} cannot be decrypted", f"encrypt {place} again")
            continue
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o400)
        os.chown(folder / name, user, -1)


def _closed(settings: Settings, user: str) -> Iterator[Finding]:
    """Name the configuration files that the user may not read."""
    for path in settings.sources:
        if not os.access(path, os.R_OK):
            fix = f"chgrp {user} {path} && chmod 0640 {path}"
            yield fail("settings", f"{path} may not be read by {user}", fix)


def _sandboxed(unit: Unit, settings: Settings) -> Iterator[Finding]:
    """Name the files and folders that this process sees, and the unit's sandbox hides or closes."""
    file = settings.database.file
    written = {state_directory(settings), *([file.absolute().parent] if file else ())}
    for path in (*written, *(path for _, path in settings.files)):
        if unit.last("ProtectHome") in _TRUE and _below(path, _HOMES):
            yield fail("unit", f"{path} is hidden from it (ProtectHome=yes)", "move it, to /etc/ingestor say")
        elif unit.last("PrivateTmp") in _TRUE and _below(path, _TEMPORARY):
            yield fail("unit", f"{path} is hidden from it (PrivateTmp=yes)", "move it")
        elif path in written and unit.last("ProtectSystem") == "strict" and not _below(path, _open(unit)):
            fix = f"add ReadWritePaths={path} by `systemctl edit ingestor`"
            yield fail("unit", f"{path} may only be read by it (ProtectSystem=strict)", fix)


def _open(unit: Unit) -> list[Path]:
    paths = [Path(word.lstrip("-+")) for word in unit.words("ReadWritePaths")]
    return paths + ([unit.state] if unit.state else [])


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)
