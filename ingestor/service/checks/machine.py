"""All checks, from the machine outward; here those of settings, time zone, clock and state directory."""

import os
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from ingestor.archive.faults import unwritable, user_name
from ingestor.archive.ownership import as_owner, ownership_advice
from ingestor.providers.agile import Agile
from ingestor.service.checks import Check, Finding, Level, fail, ok, together, warn
from ingestor.settings import DEFAULT_FILE, Settings, rules_for, state_directory
from ingestor.watch.found import LITTLE_SPACE

_RANDOM_CHARACTERS = 20  # of an endpoint's path: 120 bits when taken from a 64-letter alphabet
_NO_SECRETS = frozenset({"ca_file", "tls_certificate"})
SECONDS = 30.0
"""The longest that the database takes, and then all others together; each connection has shorter limits."""


def check_everything(settings: Settings) -> Iterator[Finding]:
    """Yield what is found, in an order that reads from the machine outward."""
    # Here, as the daemon takes nothing but the cautions from this file.
    from ingestor.service.checks import archive, intakes, sending

    yield from check_machine(settings)
    if not settings.mailbox and settings.webhook is None:
        yield fail(
            "settings",
            "there is neither a mailbox nor a webhook, so nothing would be read",
            f"add a [[mailbox]] to {settings.source or DEFAULT_FILE} (`ingestor config example` shows one)",
        )
    state_fails = state(settings).level is Level.FAIL
    with as_owner(settings.database.url, state_directory(settings)):
        yield from list(together([("database", partial(archive.check, settings, state_fails))], SECONDS))
    senders = rules_for(settings, "agile").senders
    checks: list[tuple[str, Check]] = [
        (f"mailbox {mailbox.name}", partial(intakes.check_mailbox, mailbox, senders))
        for mailbox in settings.mailbox
    ]
    if settings.webhook is not None:
        checks.append(("webhook", partial(intakes.check_webhook, settings.webhook)))
    if settings.section(Agile).api is not None:
        checks.append(("agile.api", partial(sending.check, settings)))
    checks += sending.watching(settings)
    yield from together(checks, SECONDS)


def check_machine(settings: Settings) -> Iterator[Finding]:
    """Yield what is found about this machine and the settings as such."""
    files = ", ".join(map(str, settings.sources))
    yield ok("settings", f"{files} is valid" if files else f"defaults; {DEFAULT_FILE} is absent")
    for caution in cautions(settings):
        yield warn("settings", caution)
    yield time_zone(settings, datetime.now(UTC))
    yield clock(datetime.now(UTC))
    yield state(settings)
    if settings.webhook is not None:
        yield from spool(state_directory(settings) / "spool")


def cautions(settings: Settings) -> list[str]:
    """Return what is allowed but unwise, a line each: warnings, never refusals."""
    found = [
        f"mailboxes {first} and {second} read the same folder {folder!r}: each mail is read twice, and with "
        "after_store each takes it from the other; keep one of them"
        for first, second, folder in _same_folders(settings)
    ]
    inline = [f"mailbox {one.name}" for one in settings.mailbox if one.password is not None]
    found += [f"{one}: password stands in the configuration; password_credential is safer" for one in inline]
    secrets = [path for key, path in settings.files if key not in _NO_SECRETS]
    for path in (*(settings.sources if inline else ()), *secrets):
        found += _open_mode(path)
    if settings.webhook is not None:
        found += [
            f"webhook endpoint {number} ({one.provider}): its path is easily guessed; "
            f"`ingestor config new-endpoint {one.provider}` makes a strong one"
            for number, one in enumerate(settings.webhook.endpoint, 1)
            if not any(map(_hard_to_guess, one.path.split("/")))
        ]
    return found


def _same_folders(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield two mailboxes' names and a folder that both read, of one user on one server."""
    readers: dict[tuple[str, int, str, str], str] = {}
    for mailbox in settings.mailbox:
        for folder in mailbox.folders:
            key = mailbox.host.lower(), mailbox.port, mailbox.username, folder
            if (first := readers.setdefault(key, mailbox.name)) != mailbox.name:
                yield first, mailbox.name, folder


def _hard_to_guess(part: str) -> bool:
    """Say whether a part of a path may be random: long, of many letters, and not of words alone."""
    words_alone = not any(letter.isdigit() or letter.isupper() for letter in part)
    return len(part) >= _RANDOM_CHARACTERS and len(set(part)) >= 10 and not words_alone  # 10: hex has 16


def _open_mode(path: Path) -> list[str]:
    """Return the warning about a secret file that others may read or that the group may write."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return []
    if mode & 0o027:
        return [f"{path}: mode {mode:04o} is open to others; chmod 0600 (or 0640) it"]
    return []


def time_zone(settings: Settings, now: datetime) -> Finding:
    """Say what the provider's clock shows at `now`, which tells at a glance whether the zone is right."""
    zone = rules_for(settings, "agile").zone
    return ok("time zone", f"{zone}: Agile's clock shows {now.astimezone(zone):%H:%M} now")


def clock(now: datetime) -> Finding:
    """Say whether `now` can be right: it cannot lie before the time zone data that is installed."""
    year = int(version("tzdata").partition(".")[0])
    if now.year < year:
        fix = "set it and keep it set: timedatectl set-ntp true"
        return fail("clock", f"{now:%Y-%m-%d %H:%M} UTC lies before this software was made", fix)
    return ok("clock", f"{now:%Y-%m-%d %H:%M} UTC is possible")


def state(settings: Settings) -> Finding:
    """Say whether the state directory is there, may be written, and has room."""
    directory = state_directory(settings)
    root = os.geteuid() == 0
    if not directory.is_dir():
        owner = "ingestor" if root else user_name(os.geteuid())
        fix = f"make it: install -d -o {owner} -m 0750 {directory}"
        return fail("state", f"the folder {directory} does not exist", fix)
    advice = ownership_advice(settings.database.url, directory)
    if (why := unwritable(directory)) is not None:
        return fail("state", *why)
    if advice is not None and not root:
        return fail("state", advice)
    free = shutil.disk_usage(directory).free
    if free < LITTLE_SPACE:
        return warn("state", f"{directory} has only {free // 2**20} MiB free", "make room")
    if advice is not None:
        return _of_another(directory)
    return ok("state", f"{directory} may be written, {free // 2**20} MiB free")


def _of_another(directory: Path) -> Finding:
    """Say to root whose `directory` it is, and what in it its owner cannot write."""
    owner = directory.owner()
    roots = [path for path in (*directory.iterdir(), *directory.glob("spool/*")) if path.lstat().st_uid == 0]
    if roots and directory.stat().st_uid != 0:
        says = f"{roots[0].relative_to(directory)} belongs to root, and {owner} cannot write it"
        return fail("state", f"{directory}: {says}", f"chown -R {owner}: {directory}")
    return ok("state", f"{directory} belongs to {owner}, as whom root's commands write; run: sudo -u {owner}")


def spool(folder: Path) -> Iterator[Finding]:
    """Say where the webhook's spool could not be kept; it is made at the first start."""
    from ingestor.intake.listener.spool import moved

    if (why := moved(folder)) is not None:
        what, _, fix = why.partition(": ")
        yield fail("spool", what, fix)
    if folder.exists() and not folder.is_dir():
        yield fail("spool", f"{folder} is no folder", "move it away: `run` makes the spool there")
    elif folder.is_dir() and (unwritten := unwritable(folder)) is not None:
        yield fail("spool", *unwritten)
