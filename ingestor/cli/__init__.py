"""The command line: one table of commands, each in a module of its own that is imported only when used.

A command's module exposes

    EXAMPLES: str                                   lines of `ingestor …` for the end of its --help
    add_arguments(parser: argparse.ArgumentParser) -> None
    run(arguments: argparse.Namespace) -> int       the exit code; a command with verbs has one for each

`run` prints results on stdout and raises `errors.IngestorError` for everything that a person should read.
`arguments` also carries the global options. Pieces to share: `arguments` (values, filters, time zones),
`opening` (settings, logging, the archive), `printing` (tables, JSON, what a run did), `verbs_of`.

Only this module must stay light, for `ingestor --help`: what it needs for one command it imports there.
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from ingestor import __version__

if TYPE_CHECKING:
    from ingestor.settings import Settings

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("ingestor.cli.run", "watch every mailbox and archive what arrives (the daemon)"),
    "check": ("ingestor.cli.check", "try everything a start needs, a line each, with the fix"),
    "login": ("ingestor.cli.login", "log in to a mailbox by OAuth2, from a server without a browser"),
    "token": ("ingestor.cli.token", "give an access token of a mailbox, as the daemon asks for it"),
    "import": ("ingestor.cli.import_", "read old mailboxes: mbox, Maildir, MH, .eml, folders, archives"),
    "rescan": ("ingestor.cli.rescan", "read a whole IMAP folder again"),
    "explain": ("ingestor.cli.explain", "say what becomes of a mail, and why"),
    "search": ("ingestor.cli.search", "find SMS in the archive"),
    "show": ("ingestor.cli.show", "show one SMS with all its arrivals, or its raw bytes"),
    "follow": ("ingestor.cli.follow", "print SMS as they come, a JSON line each"),
    "export": ("ingestor.cli.export", "write the archive as JSON lines or CSV"),
    "send": ("ingestor.cli.send", "send a message through Agile's API"),
    "answers": ("ingestor.cli.answers", "look after what was sent, and what may have been"),
    "credit": ("ingestor.cli.credit", "show what is left of the account at Agile"),
    "quarantine": ("ingestor.cli.quarantine", "look after what could not be read"),
    "optout": ("ingestor.cli.optout", "say who may not be written to, and why"),
    "erase": ("ingestor.cli.erase", "plan, do and list erasures, and hold what must stay"),
    "snapshot": ("ingestor.cli.snapshot", "write a consistent copy for an auditor"),
    "backup": ("ingestor.cli.backup", "write the whole archive, with its key, into one new file"),
    "restore": ("ingestor.cli.restore", "put a backup in the place of the archive"),
    "status": ("ingestor.cli.status", "show sources, counts and the last runs"),
    "db": ("ingestor.cli.db", "upgrade or inspect the schema"),
    "config": ("ingestor.cli.config", "print a sample, the effective settings, or a new endpoint"),
    "webhook": ("ingestor.cli.webhook", "try the listener"),
    "demo": ("ingestor.cli.demo", "show the whole thing on a throw-away mailbox"),
}
"""name → module, what it does in one line."""

EXAMPLES = """\
  ingestor demo
  ingestor config example > /etc/ingestor/ingestor.toml
  ingestor check
  ingestor import /var/mail/old.mbox --dry-run
  ingestor search "appointment" --since 2026-01-01
  ingestor COMMAND --help"""

GLOBAL_OPTIONS: dict[str, dict[str, Any]] = {
    "--config": {
        "metavar": "FILE",
        "help": "configuration file (INGESTOR_CONFIG; default /etc/ingestor/ingestor.toml)",
    },
    "--database-url": {
        "metavar": "URL",
        "help": "sqlite:///FILE or postgresql+psycopg://… (INGESTOR_DATABASE_URL)",
    },
    "--log-format": {
        "choices": ("auto", "json", "console"),
        "default": "auto",
        "help": "how stderr looks; auto: pretty on a terminal, JSON lines elsewhere",
    },
    "--debug": {"action": "store_true", "help": "show tracebacks"},
}
"""Options that may stand before or after the command."""

Run = Callable[[argparse.Namespace], int]

_WITH_VALUE = ("--config", "--database-url", "--log-format")


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the usage in one line, and takes every option by its full name only."""

    def __init__(self, **options: Any) -> None:
        """Show descriptions and examples as they are written."""
        shown = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**{**shown, **options})

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        complain(f"{message}; see {self.prog} --help")
        raise SystemExit(2)


class CommandParser(Parser):
    """The parser of a command or of one of its verbs: it takes the global options too, without a word."""

    def __init__(self, **options: Any) -> None:
        """Add them; argparse builds the verbs of a command as the command's own class."""
        super().__init__(**options)
        for name, settings in GLOBAL_OPTIONS.items():
            self.add_argument(name, **{**settings, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS})
        self.interleaved = False
        """Whether words may stand between and behind the options; argparse forbids it to some kinds."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse `args`, with words and options in any order where this command wants that."""
        if not self.interleaved:
            return super().parse_known_args(args, namespace)
        self.interleaved = False  # what is called now calls this again
        return self.parse_known_intermixed_args(args, namespace)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names (default: of this process) and return its exit code."""
    alone, argv = argv is None, sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    if None in (sys.stdin, sys.stdout, sys.stderr):
        closed = _open_streams()
        if "stdout" in closed and _command_in(argv) != "run":
            complain("stdout is closed, so nothing was done; send it to a file, or to /dev/null")
            return 1
    try:
        code = _run(argv, alone=alone)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as fault:  # noqa: BLE001 - the last resort: whatever it is, the user reads one line
        if debug:
            import traceback

            traceback.print_exc()
        return _report(fault)
    finally:
        opening = sys.modules.get("ingestor.cli.opening")
        if opening is not None:
            opening.close_all()
    return code


def _open_streams() -> list[str]:
    """Put /dev/null in the place of each closed stream, lest a file gets its number; return their names.
    `sys.stdin` stays None: who reads it must not take nothing for an empty file.
    """
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: its own
        if name != "stdin":
            setattr(sys, name, open(number, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - no path; it stays open
    return closed


def _run(argv: Sequence[str], *, alone: bool) -> int:
    name = _command_in(argv)
    if name is None:
        build_parser(None, None).parse_args(argv)  # prints the help or what is missing, and exits
        raise SystemExit(2)
    if name not in COMMANDS:
        return _report(_unknown(name))
    gc.disable()  # what is imported stays: to search it for garbage, at the end once more, took a third
    module = import_module(COMMANDS[name][0])
    if alone:
        gc.freeze()
    gc.enable()
    arguments = build_parser(name, module).parse_args(argv)
    return int(arguments.do(arguments))


def _unknown(name: str) -> Exception:
    from ingestor.errors import ConfigurationError, nearest

    return ConfigurationError(f"there is no command {name!r}{nearest(name, COMMANDS)} (see ingestor --help)")


def _command_in(argv: Sequence[str]) -> str | None:
    """Return the first word of `argv` that belongs to no option; None where help comes before it."""
    skip = False
    for word in argv:
        if skip:
            skip = False
        elif word in _WITH_VALUE:
            skip = True
        elif word in {"-h", "--help", "--version"}:
            return None
        elif not word.startswith("-"):
            return word
    return None


def settings_of(arguments: argparse.Namespace) -> "Settings":
    """Return the settings of command line, environment, file. Raises ConfigurationError, a line a fault."""
    from pathlib import Path

    from ingestor.settings import load

    config = arguments.config or os.environ.get("INGESTOR_CONFIG")
    database_url = arguments.database_url or os.environ.get("INGESTOR_DATABASE_URL")
    return load(Path(config) if config else None, database_url or None)


def build_parser(name: str | None, module: ModuleType | None) -> argparse.ArgumentParser:
    """Return the parser of the command `name`, or the one that lists all: to build a dozen takes longer than
    the interpreter's start.
    """
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {command:<{width}}  {summary}" for command, (_, summary) in COMMANDS.items())
    parser = Parser(
        prog="ingestor",
        usage="ingestor [--config FILE] [--database-url URL] [--log-format F] [--debug] COMMAND …",
        description="Turns Agile Telecom's inbound-SMS mails, posts and old mailboxes into a SQL archive.",
        epilog=f"commands:\n{listed}\n\nexamples:\n{EXAMPLES}",
    )
    parser.add_argument("--version", action="version", version=f"ingestor {__version__}")
    for option, settings in GLOBAL_OPTIONS.items():
        parser.add_argument(option, **settings)
    if name is None or module is None:
        parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
        return parser
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", prog="ingestor", parser_class=CommandParser
    )
    summary = COMMANDS[name][1]
    child = commands.add_parser(
        name, description=f"{summary[0].upper()}{summary[1:]}.", epilog=_epilog(module.EXAMPLES)
    )
    module.add_arguments(child)
    if hasattr(module, "run"):
        child.set_defaults(do=module.run)
    return parser


def verbs_of(
    parser: argparse.ArgumentParser, examples: str
) -> Callable[[str, str, Run], argparse.ArgumentParser]:
    """Return what adds a verb to a command's `parser`: its name, its summary, and what does it.
    Its help shows those of the command's `examples` that have the verb.
    """
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")

    def add_verb(name: str, summary: str, do: Run) -> argparse.ArgumentParser:
        description = f"{summary[0].upper()}{summary[1:]}."
        verb = verbs.add_parser(
            name, help=summary, description=description, epilog=_epilog(examples, f" {name}")
        )
        verb.set_defaults(do=do)
        return verb

    return add_verb


def _epilog(examples: str, verb: str = "") -> str:
    """Return the examples of a command (of one `verb`, where given), indented, for the end of its help."""
    lines = [line.strip() for line in examples.strip().splitlines()]
    shown = "\n".join(f"  {line}" for line in lines if f"{verb} " in f"{line} ")
    return f"examples:\n{shown}\n\nThe options of `ingestor --help` may stand here too."


def _report(fault: Exception) -> int:
    """Print `fault` as its line (or lines) on stderr and return the exit code it asks for."""
    from ingestor.errors import IngestorError
    from ingestor.redaction import redact, redact_secrets

    if isinstance(fault, IngestorError):
        code, message = fault.exit_code, redact_secrets(str(fault))
    elif isinstance(fault, OSError) and fault.strerror:
        code = 1
        message = redact(f"{fault.filename}: {fault.strerror}" if fault.filename else fault.strerror)
    elif isinstance(fault, EOFError):
        code, message = 1, "nothing was answered, so nothing was done"
    elif isinstance(fault, MemoryError) or "start new thread" in str(fault):
        code = 1
        lack = "not enough memory" if isinstance(fault, MemoryError) else "no room for another thread"
        message = f"there is {lack}; raise the limit (ulimit -a; TasksMax and MemoryMax of a unit)"
    else:
        first_line = str(fault).partition("\n")[0][:300]
        code = 1
        message = redact(
            f"internal fault: {type(fault).__name__}: {first_line}; --debug shows where, please report it"
        )
    complain(message)
    return code


def complain(message: str) -> None:
    """Print each line of `message` on stderr, harmless to a terminal; in the journal as an error, in JSON."""
    import json

    from ingestor.cli.printing import printable
    from ingestor.logs import is_journal

    journal = is_journal(sys.stderr)
    for line in message.split("\n"):
        told = {"event": printable(line), "level": "error"}
        shown = f"<3>{json.dumps(told, ensure_ascii=False)}" if journal else f"ingestor: {told['event']}"
        print(shown, file=sys.stderr)
