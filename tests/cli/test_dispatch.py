"""The front door: help, errors in one line, exit codes, and nothing heavy loaded for nothing."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from ingestor import __version__
from ingestor.cli import COMMANDS
from tests.cli.calling import PROGRAM, Called, ingestor
from tests.cli.conftest import Filled

HEAVY = {
    "alembic", "apscheduler", "fast_mail_parser", "imapclient", "mailparser", "psycopg", "pydantic", "rich",
    "sqlalchemy", "structlog", "uvicorn", "zstandard",
}  # fmt: skip


def test_help_lists_every_command(tmp_path: Path) -> None:
    """`--help` names each command of the contract with what it does, and shows examples."""
    called = ingestor("--help", folder=tmp_path, environment={"COLUMNS": "100"})

    assert called.code == 0
    listed = called.out.partition("\ncommands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split(maxsplit=1)[0] for line in listed] == [
        "run", "check", "login", "token", "import", "rescan", "explain", "search", "show", "follow",
        "export", "send", "answers", "credit", "quarantine", "optout", "erase", "snapshot", "backup",
        "restore", "status", "db", "config", "webhook", "demo",
    ]  # fmt: skip
    assert all(len(line.split(maxsplit=1)[1]) > 10 for line in listed)
    assert "examples:\n  ingestor demo\n" in called.out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, called: Callable[..., Called]) -> None:
    """`COMMAND --help` shows what it does, and examples that begin with the command."""
    answer = called(command, "--help")

    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"usage: ingestor {command}")
    examples = answer.out.partition("\nexamples:\n")[2].partition("\n\n")[0].splitlines()
    assert examples[0].startswith(f"  ingestor {command}")


@pytest.mark.parametrize(
    ("command", "verbs"),
    {
        "quarantine": ["list", "show", "retry", "discard", "export"],
        "db": ["upgrade", "current", "history"],
        "config": ["example", "show", "new-endpoint"],
        "webhook": ["test"],
    }.items(),
)
def test_each_verb_explains_itself(command: str, verbs: list[str], called: Callable[..., Called]) -> None:
    """`COMMAND VERB --help` says in a sentence what it does, and shows examples of that verb alone."""
    for verb in verbs:
        answer = called(command, verb, "--help")
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.split("\n\n")[1].endswith(".")
        examples = answer.out.partition("\nexamples:\n")[2].partition("\n\n")[0].splitlines()
        assert examples
        assert all(f"{command} {verb}" in example for example in examples)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_module_keeps_the_convention(command: str) -> None:
    """Every entry of the table has a module with EXAMPLES, add_arguments and run, or verbs with theirs."""
    module = import_module(COMMANDS[command][0])

    assert isinstance(module.EXAMPLES, str)
    assert callable(module.add_arguments)
    assert callable(getattr(module, "run", None) or module.verbs_of)


def test_help_loads_nothing_heavy() -> None:
    """`ingestor --help` and `--version` import no database, mail or log library."""
    script = (
        "import json, sys\n"
        "from ingestor.cli import main\n"
        "for call in ('--version', '--help'):\n"
        "    try:\n        main([call])\n    except SystemExit:\n        pass\n"
        "print(json.dumps([name for name in sys.modules if '.' not in name]), file=sys.stderr)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert HEAVY & set(json.loads(done.stderr)) == set()


def test_version(tmp_path: Path) -> None:
    """`--version` prints the version, and `python -m ingestor` is the same command."""
    assert ingestor("--version", folder=tmp_path).out == f"ingestor {__version__}\n"
    done = subprocess.run([sys.executable, "-m", "ingestor", "--version"], capture_output=True, text=True)
    assert done.stdout == f"ingestor {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "ingestor: the following arguments are required: COMMAND; see ingestor --help"),
        (["serch"], "ingestor: there is no command 'serch'; did you mean search? (see ingestor --help)"),
        (["qqqqqq"], "ingestor: there is no command 'qqqqqq' (see ingestor --help)"),
        (["config"], "ingestor: the following arguments are required: VERB; see ingestor config --help"),
        (["config", "show", "--conf", "x"],
         "ingestor: unrecognized arguments: --conf x; see ingestor --help"),
        (["--config"], "ingestor: argument --config: expected one argument; see ingestor --help"),
        (["--log-format", "xml", "config", "show"],
         ("ingestor: argument --log-format: invalid choice: 'xml' (choose from auto, json, console); "
          "see ingestor --help")),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str], line: str, tmp_path: Path) -> None:
    """Usage faults are a single line that says where to look, and exit 2."""
    called = ingestor(*arguments, folder=tmp_path)

    assert (called.code, called.out) == (2, "")
    said = called.err.replace("'auto', 'json', 'console'", "auto, json, console")  # Python 3.11 quotes them
    assert said.splitlines() == [line]


def test_global_options_stand_before_or_after(tmp_path: Path) -> None:
    """--config and --database-url are the same before the command, after it, and after its verb."""
    config = tmp_path / "x.toml"
    config.write_text('[agile]\ntimezone = "UTC"\n')
    url = "sqlite:////srv/a.db"

    for arguments in (
        ["--config", config, "--database-url", url, "config", "show"],
        ["config", "--config", config, "--database-url", url, "show"],
        ["config", "show", "--config", config, "--database-url", url],
        ["--config", "/nonexistent", "config", "show", "--config", config, "--database-url", url],
    ):
        called = ingestor(*arguments, folder=tmp_path)
        assert f'url = "{url}"' in called.out
        assert 'timezone = "UTC"' in called.out


def test_the_environment_goes_before_the_file_and_after_the_options(tmp_path: Path) -> None:
    """INGESTOR_CONFIG and INGESTOR_DATABASE_URL count where the command line says nothing; empty is unset."""
    config = tmp_path / "x.toml"
    config.write_text('[database]\nurl = "sqlite:///file.db"\n')
    environment = {"INGESTOR_CONFIG": str(config), "INGESTOR_DATABASE_URL": "sqlite:///environment.db"}

    def url(*arguments: str, **changed: str) -> str:
        shown = ingestor(
            "config", "show", *arguments, folder=tmp_path, environment={**environment, **changed}
        )
        return shown.out.partition('url = "')[2].partition('"')[0]

    assert url() == "sqlite:///environment.db"
    assert url("--database-url", "sqlite:///option.db") == "sqlite:///option.db"
    assert url(INGESTOR_DATABASE_URL="") == "sqlite:///file.db"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[databse]\n[agile]\nnumber = []\n",
         ["3: agile.number: unknown key; did you mean numbers?",
          "1: databse: unknown key; did you mean database?"]),
        ("[agile\n",
         [" is no valid TOML: Expected ']' at the end of a table declaration (at line 1, column 7)"]),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_exit_2(text: str, lines: list[str], tmp_path: Path) -> None:
    """Every fault of the file is a line of its own, and nothing else is printed."""
    config = tmp_path / "x.toml"
    config.write_text(text)

    called = ingestor("--config", config, "status", folder=tmp_path)

    assert (called.code, called.out) == (2, "")
    assert called.err.splitlines() == [f"ingestor: {config}:{line}" for line in lines]


def test_tracebacks_only_with_debug(tmp_path: Path) -> None:
    """A fault is one line; --debug adds where it came from."""
    for arguments, traceback in (
        (["status"], False),
        (["--debug", "status"], True),
        (["status", "--debug"], True),
    ):
        called = ingestor("--config", "/nonexistent.toml", *arguments, folder=tmp_path)
        assert called.code == 2
        assert ("Traceback" in called.err) is traceback
        assert called.faults == [
            (
                "ingestor: /nonexistent.toml: there is no such configuration file; "
                "`ingestor config example` prints one"
            )
        ]


def test_a_closed_pipe_is_no_drama(tmp_path: Path) -> None:
    """When the reader goes away nothing is printed about it."""
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [str(PROGRAM), "config", "example"], stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path
    )

    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("closed", "code", "said"), [("<&-", 0, ""), (">&-", 1, "is closed"), ("2>&-", 0, "")]
)
def test_a_closed_stream_is_no_internal_fault(tmp_path: Path, closed: str, code: int, said: str) -> None:
    """Without stdout the line says that nothing was done; what else is closed, nobody misses."""
    shell = f'"$0" "$@" {closed}'
    words = ["--database-url", f"sqlite:///{tmp_path}/a.db", "db", "upgrade"]
    done = subprocess.run(["sh", "-c", shell, PROGRAM, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "internal fault" not in done.stderr
    assert (tmp_path / "a.db").exists() == (code == 0)


@pytest.mark.parametrize("words", ["optout check -", "import -", "send --sender Shop +393335556667 -"])
def test_a_closed_stdin_is_no_empty_file(tmp_path: Path, words: str) -> None:
    """Who is to read it says that it cannot: `optout check -` would find that nobody is out."""
    (tmp_path / "key").write_text("secret")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "ingestor.toml").write_text(
        f'[database]\nurl = "sqlite:///{tmp_path}/a.db"\n'
        f'[agile.api]\nbase_url = "http://127.0.0.1:9/"\napi_key_file = "{tmp_path}/key"\n'
    )
    for words_, closed in (("db upgrade", ""), (words, " <&-")):
        done = subprocess.run(
            ["sh", "-c", f'"$0" --config ingestor.toml "$@"{closed}', PROGRAM, *words_.split()],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert done.returncode not in (0, None)
    assert "stdin is closed" in done.stderr


def test_ctrl_c_is_quiet(tmp_path: Path) -> None:
    """An interrupted command ends with 130 and without a word."""
    config = tmp_path / "fifo"
    os.mkfifo(config)
    process = subprocess.Popen(
        [str(PROGRAM), "--config", str(config), "status"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=tmp_path,
    )  # fmt: skip
    writer = os.open(config, os.O_WRONLY)  # returns once the command waits for its configuration

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    os.close(writer)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_an_unforeseen_fault_is_one_line_without_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever escapes from a command is one redacted line and exit 1."""
    from ingestor import cli
    from ingestor.cli import config

    def broken(_: object) -> int:
        raise KeyError("the number +393331234567\nsecond line")

    monkeypatch.setattr(config, "run", broken)

    assert cli.main(["config", "show"]) == 1
    assert capsys.readouterr().err == (
        "ingestor: internal fault: KeyError: 'the number …4567\\nsecond line'; "
        "--debug shows where, please report it\n"
    )


@pytest.mark.parametrize(
    ("fault", "lack"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("can't start new thread"), "no room for another thread"),
    ],
)
def test_what_the_machine_lacks_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: Exception, lack: str
) -> None:
    """It is no fault of the program to be reported, and the line says which limit to raise."""
    from ingestor import cli
    from ingestor.cli import config

    def broken(_: object) -> int:
        raise fault

    monkeypatch.setattr(config, "run", broken)

    assert cli.main(["config", "show"]) == 1
    assert capsys.readouterr().err == (
        f"ingestor: there is {lack}; raise the limit (ulimit -a; TasksMax and MemoryMax of a unit)\n"
    )


def test_a_question_that_nobody_answers_is_no_fault_of_the_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who ends the input, by Ctrl-D say, reads in a line that nothing was done."""
    from ingestor import cli
    from ingestor.cli import config

    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr(config, "run", lambda _: input())

    assert cli.main(["config", "show"]) == 1
    assert capsys.readouterr().err == "ingestor: nothing was answered, so nothing was done\n"


def test_what_only_reads_starts_without_what_it_does_not_need() -> None:
    """No command that reads loads a log's renderer, a terminal's, a mailbox's client or a server."""
    reading = [
        "search", "show", "status", "export", "follow", "quarantine", "optout", "erase", "db", "snapshot",
    ]  # fmt: skip
    heavy = {"structlog", "rich", "alembic", "imapclient", "mailparser", "uvicorn", "apscheduler", "urllib3"}
    code = f"import sys, {', '.join(f'ingestor.cli.{one}' for one in reading)}; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert heavy & set(loaded.stdout.split()) == set()


@pytest.mark.parametrize(("given", "frozen"), [("", True), ("sys.argv[1:]", False)])
def test_what_a_command_imports_is_not_searched_for_garbage(given: str, frozen: bool) -> None:
    """Neither while it runs nor at its end, where the process is its own: that took a quarter of `status`."""
    code = (
        "import gc, sys; from ingestor.cli import main; sys.argv[1:] = ['config', 'example']\n"
        f"main({given}); print(gc.isenabled(), gc.get_freeze_count() > 0, file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stderr.splitlines()[-1] == f"True {frozen}"


def test_nor_is_what_the_archive_needs(filled: Filled) -> None:
    """PostgreSQL's driver is loaded when the archive is opened: to search that was 6 ms of each start."""
    code = (
        "import gc, sys; from ingestor.cli import main; had = gc.get_stats()[1]['collections']; main();"
        "print(gc.get_stats()[1]['collections'] - had, gc.isenabled())"
    )
    call = [sys.executable, "-c", code, "--database-url", filled.url, "search"]

    done = subprocess.run(call, cwd=filled.folder, capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "0 True", done.stderr


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("search", ""), ("search text", ""), ("show 999", ""), ("status", ""), ("quarantine list", ""),
        ("optout check +393331234567", "replies.words"), ("optout list", "replies.words"), ("erase list", ""),
        ("erase hold list", "archive.holds archive.inserts archive.payloads"), ("answers list", ""),
        ("db current", ""), ("export", "archive.comments archive.export archive.intact"),
    ],
)  # fmt: skip
def test_what_is_asked_often_loads_nothing_that_it_does_not_need(
    filled: Filled, command: str, needed: str
) -> None:
    """It loads no module that stores, erases, compares, exports, sends or serves, nor what only a new archive
    or a payload needs; and of databases the archive's own alone. Each was 2 to 30 ms of every start."""
    code = "import sys; from ingestor.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    call = [sys.executable, "-c", code, "--database-url", filled.url, *command.split()]

    done = subprocess.run(call, cwd=filled.folder, capture_output=True, text=True)

    loaded = set(done.stdout.splitlines()[-1].split())
    assert "ingestor.archive.engine" in loaded, done.stderr
    unwanted = {
        "archive.comments", "archive.erasure", "archive.export", "archive.holds", "archive.inserts",
        "archive.intact", "archive.payloads", "archive.settle", "archive.store", "archive.transfer",
        "http", "providers.posts", "replies.agile", "replies.rules", "replies.words",
    }  # fmt: skip
    unwanted = {f"ingestor.{name}" for name in unwanted - set(needed.split())}
    unwanted |= {"structlog", "urllib3"}
    of_others = {
        "sqlite": "psycopg sqlalchemy.dialects.postgresql",
        "postgresql": "sqlalchemy.dialects.sqlite",
    }
    unwanted |= set(of_others[filled.engine.dialect.name].split())
    assert unwanted & loaded == set()
