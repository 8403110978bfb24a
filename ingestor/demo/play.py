"""The demo from beginning to end: mailbox, daemon, what arrives, the balance, and how to go on."""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from ingestor.demo.agile import FakeAgile
from ingestor.demo.folder import (
    OUTCOMES,
    Agile,
    ArchiveWatch,
    Folder,
    free_port,
    pause,
    prepare,
    watching,
    write,
)
from ingestor.demo.imap import Mailbox, live_mails, waiting_mails
from ingestor.errors import IngestorError

_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # they would turn our own words


class Screen:
    """Prints lines; nothing that came in a message is taken for markup or for a terminal's control codes."""

    def __init__(self, console: Console | None = None) -> None:
        if console is None:
            for stream in (sys.stdout, sys.stderr):
                # An emoji must not end the demo where the locale cannot show it.
                getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
            console = Console(markup=False, highlight=False)
        self._console = console

    def say(self, text: str = "") -> None:
        self._console.print(text, soft_wrap=True)

    def heading(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, style="bold"), soft_wrap=True)

    def fact(self, name: str, value: str) -> None:
        self._console.print(Text.assemble((f"  {name:<9}", "dim"), value), soft_wrap=True)

    def sms(self, number: int, received_at: str, originator: str, text: str) -> None:
        """Print one SMS, its text shortened to the width of the terminal."""
        head = f"  {number:>3}  {received_at[:10]} {received_at[11:16]}  {originator:<15} "
        room = max(self._console.width - len(head) - 1, 20)
        line = Text.assemble((head, "dim"), (shortened(text, room), "green"))
        self._console.print(line, soft_wrap=True)

    def live(self, what: str, became: str, style: str) -> None:
        """Print what was delivered while the daemon watched, and what became of it."""
        self._console.print(Text.assemble(f"  {what:<36}", (became, style)), soft_wrap=True)

    def commands(self, lines: Sequence[str]) -> None:
        """Print commands to be pasted: each whole on its line, however long."""
        for line in lines:
            self._console.print(Text("  " + line, style="cyan"), soft_wrap=True)


def shortened(text: str, room: int) -> str:
    """Return `text` on one line of at most `room` characters, line ends shown as ⏎, control codes as ·."""
    line = "".join("·" if _controls(character) else character for character in text.replace("\n", " ⏎ "))
    return line if len(line) <= room else line[: room - 1] + "…"


def _controls(character: str) -> bool:
    # Not all format characters (Cf): without its joiners a family of emoji falls apart.
    return unicodedata.category(character) == "Cc" or unicodedata.bidirectional(character) in _TURNING


USERNAME = "demo@example.org"
WHOLE_SECONDS = 50.0
STOP_SECONDS = 12.0
LIVE_PAUSE = 0.6  # so that an onlooker sees one after the other

_OF_OTHERS = (
    "INGESTOR_CONFIG",
    "INGESTOR_DATABASE_URL",
    "STATE_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
)
_MEANING = {
    "stored": ("a new row", "green"),
    "duplicate": ("one more arrival", "yellow"),
    "ignored": ("counted, and left alone", "dim"),
    "quarantined": ("kept in the quarantine", "red"),
    "failed": ("will be tried again", "red"),
}


class DemoFailed(IngestorError):
    """The demo could not be shown to its end."""


class _Stage(NamedTuple):
    """What a scene plays on; `deadline` (monotonic) ends the demo."""

    screen: Screen
    folder: Folder
    daemon: "subprocess.Popen[str]"
    watch: ArchiveWatch
    deadline: float

    def wait(self) -> None:
        """Wait a moment; raise where the daemon has ended, or the time is over."""
        _still_there(self.daemon, self.folder)
        pause(self.deadline)

    def balance(self, read: int) -> dict[str, int]:
        while (balance := self.watch.balance())["read"] < read:
            self.wait()
        return balance


def play(path: Path, screen: Screen) -> None:
    """Show the whole thing in the folder `path`; raise DemoFailed where it does not go as it should."""
    deadline = time.monotonic() + WHOLE_SECONDS
    folder = prepare(path)
    server = Mailbox(USERNAME, secrets.token_urlsafe(12))
    with server.running(), FakeAgile() as provider:
        agile = Agile(provider.base_url, free_port(), f"/reports/{secrets.token_hex(16)}")
        provider.reports_url = f"http://127.0.0.1:{agile.port}{agile.path}"
        waiting = waiting_mails(datetime.now(UTC))
        for mail in waiting:
            server.deliver(mail.raw)
        write(folder, agile, port=server.port, username=USERNAME, password=server.password)
        _introduce(screen, folder, len(waiting), server.port)
        with _daemon(folder) as daemon:
            try:
                with watching(folder.archive, lambda: _still_there(daemon, folder), deadline) as watch:
                    stage = _Stage(screen, folder, daemon, watch, deadline)
                    _show_waiting(stage, len(waiting))
                    _show_live(stage, server)
                    _show_answer(stage, provider)
            except TimeoutError:
                raise DemoFailed(f"the demo took too long; {folder.log} says what the daemon did") from None
            balance = _stop(daemon, folder)
    _conclude(screen, folder, balance, untouched=not server.asked_to_change)


def _introduce(screen: Screen, folder: Folder, waiting: int, port: int) -> None:
    screen.say("A throw-away mailbox, the real daemon on it, and the archive that it fills.")
    if folder.afresh:
        screen.say(f"{folder.path}/ holds an earlier demo: starting afresh.")
    screen.heading("The parts")
    screen.fact("mailbox", f"{waiting} mails on imap://127.0.0.1:{port}, in memory, gone when the demo ends")
    screen.fact("daemon", shlex.join([*own_command(), "--config", str(folder.configuration), "run"]))
    screen.fact("archive", str(folder.archive))
    screen.fact("Agile", "a small one that takes our answers and reports them as delivered; no SMS leaves")
    screen.fact("its log", str(folder.log))


@contextmanager
def _daemon(folder: Folder) -> Iterator["subprocess.Popen[str]"]:
    """Run the daemon on the demo's configuration; end it with the block, whatever happens there."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_OTHERS}
    command = [*own_command(), "--config", str(folder.configuration), "run", "--json"]
    with folder.log.open("w") as log:
        daemon = subprocess.Popen(  # noqa: S603 - our own program with our own arguments
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends the daemon in order
        )  # fmt: skip
        try:
            yield daemon
        finally:
            if daemon.poll() is None:
                daemon.terminate()
                try:
                    daemon.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    # Without a limit it would wait for ever where Ctrl-C came in the middle of a poll():
                    # the lock that poll() had taken is never given back.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        daemon.wait(1)
            if daemon.stdout is not None:
                daemon.stdout.close()


def _still_there(daemon: "subprocess.Popen[str]", folder: Folder) -> None:
    code = daemon.poll()
    if code is not None:
        raise DemoFailed(f"the daemon ended too early, with exit code {code}; {folder.log} says why")


def _show_waiting(stage: _Stage, mails: int) -> None:
    stage.screen.heading("What was waiting (id, time in UTC, from, text)")
    balance = stage.balance(mails)
    for sms in stage.watch.new_sms():
        stage.screen.sms(*sms)
    stage.screen.say(
        f"  {mails} mails: {balance['stored']} SMS, {balance['duplicate']} repeats (each uses up an id), "
        f"{balance['ignored']} of other people, {balance['quarantined']} broken"
    )


def _show_live(stage: _Stage, server: Mailbox) -> None:
    screen, watch = stage.screen, stage.watch
    screen.heading("What arrives while the daemon watches (IMAP IDLE), and how soon it is committed")
    for what, mail in live_mails(datetime.now(UTC)):
        time.sleep(LIVE_PAUSE)
        before = watch.balance()
        delivered = time.monotonic()
        server.deliver(mail.raw)
        after = stage.balance(before["read"] + 1)
        took = (time.monotonic() - delivered) * 1000
        outcome = next(name for name in OUTCOMES if after[name] != before[name])
        meaning, style = _MEANING[outcome]
        screen.live(what, f"{outcome} after {took:.0f} ms ({meaning})", style)
        for sms in watch.new_sms():
            screen.sms(*sms)


def _show_answer(stage: _Stage, agile: FakeAgile) -> None:
    screen, watch = stage.screen, stage.watch
    screen.heading("What the STOP has caused")
    while (answer := watch.newest_answer()) is None:
        stage.wait()
    sender, text, state = answer
    screen.fact("answer", f"from {sender}: {text}")
    screen.fact("report", f"{state}; Agile was asked {len(agile.requests)} time")
    for number, scope in watch.opt_outs():
        screen.fact("opt_outs", f"{number} gets no more messages from {scope}")


def _stop(daemon: "subprocess.Popen[str]", folder: Folder) -> dict[str, int]:
    """Stop the daemon as systemd would, and return the balance that it prints last."""
    daemon.terminate()
    try:
        said, _ = daemon.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"the daemon did not stop; {folder.log} says what it did") from None
    if daemon.returncode != 0:
        raise DemoFailed(f"the daemon ended with exit code {daemon.returncode}; {folder.log} says why")
    balance: dict[str, int] = json.loads(said.splitlines()[-1])
    return balance


def _conclude(screen: Screen, folder: Folder, balance: dict[str, int], *, untouched: bool) -> None:
    counts = {outcome: balance[outcome] for outcome in OUTCOMES}
    if sum(counts.values()) != balance["read"]:
        raise DemoFailed(f"the balance does not add up: {balance}")
    screen.heading("The balance")
    screen.say(
        f"  {balance['read']} read, the report among them = "
        + " + ".join(f"{n} {name}" for name, n in counts.items())
    )
    if untouched:
        screen.say("  No flag was changed on any mail of the mailbox.")
    screen.heading("Go on with SQL")
    screen.commands(sql_commands(folder))
    screen.heading("or with the program")
    screen.commands(program_commands(folder))
    screen.heading("and then with a mailbox of yours")
    program = shlex.join(own_command())
    screen.commands([f"{program} config example > ingestor.toml", f"{program} --config ingestor.toml check"])


def sql_commands(folder: Folder) -> list[str]:
    """Return shell commands that ask the archive in SQL, with what this machine has."""
    archive = shlex.quote(str(folder.archive))
    queries = [
        "SELECT received_at, originator, text, arrivals FROM inbound_sms ORDER BY received_at DESC LIMIT 5",
        "SELECT originator_kind, count(*) AS sms, sum(arrivals) AS arrivals FROM inbound_sms GROUP BY 1",
        "SELECT number, scope, since, sms_id FROM opt_outs",
        "SELECT number, text, state, done_at FROM answers_sent",
        "SELECT id, command, read, stored, duplicate, ignored, quarantined, failed FROM runs",
    ]
    if shutil.which("sqlite3"):
        return [f'sqlite3 -box {archive} "{query}"' for query in queries]
    python = shlex.quote(_shown(Path(sys.executable)))
    program = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]), sep=chr(10))"
    return [f'{python} -c "{program}" {archive} "{query}"' for query in queries]


def program_commands(folder: Folder) -> list[str]:
    """Return commands of ours that go on with the demo's archive."""
    # What is in the environment goes before the file, and would lead these to another archive.
    clear = ["env", "-u", "INGESTOR_DATABASE_URL"] if os.environ.get("INGESTOR_DATABASE_URL") else []
    program = shlex.join([*clear, *own_command(), "--config", str(folder.configuration)])
    table = shlex.quote(str(folder.path / "sms.csv"))
    return [
        f"{program} search disdire",
        f"{program} show 1 --raw",
        f"{program} quarantine list",
        f"{program} export --format csv > {table}",
    ]


def own_command() -> list[str]:
    """Return how this program is called, as short as it works from the working folder."""
    script = Path(sys.argv[0])
    if script.name != "ingestor" or not os.access(script, os.X_OK):
        return [_shown(Path(sys.executable)), "-m", "ingestor"]
    found = shutil.which("ingestor")
    if found and script.samefile(found):
        return ["ingestor"]
    return [_shown(script)]


def _shown(path: Path) -> str:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would leave the .venv through its link
    if absolute.is_relative_to(Path.cwd()):
        return str(absolute.relative_to(Path.cwd()))
    return str(absolute)
