"""`ingestor rescan` against a real IMAP conversation, on both databases."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.calling import PROGRAM, Called, ingestor
from tests.sample_mails import generate
from tests.servers.imap.box import Box
from tests.servers.imap.server import ImapServer


@pytest.fixture
def configuration(archive_url: str, tmp_path: Path) -> Path:
    path = tmp_path / "ingestor.toml"
    path.write_text(
        f'[database]\nurl = "{archive_url}"\n'
        '[[mailbox]]\nname = "main"\nhost = "127.0.0.1"\nport = PORT\nsecurity = "plain"\n'
        'username = "demo"\npassword = "demo"\nfolders = ["INBOX", "Other"]\n'
    )
    return path


def test_rescan_balances_and_stores_once(configuration: Path, tmp_path: Path) -> None:
    """Every mail of the folder has its outcome; a second rescan stores nothing; --folder reads one alone."""
    mails = list(generate(60, seed=5))
    inbox, other = Box(), Box()
    for number, mail in enumerate(mails):
        (inbox if number < 40 else other).deliver(mail.raw)

    with ImapServer({"INBOX": inbox, "Other": other}).running() as server:
        configuration.write_text(configuration.read_text().replace("PORT", str(server.port)))

        def rescan(*arguments: str) -> tuple[int, dict[str, float]]:
            called = ingestor(
                "--config", configuration, "rescan", "main", "--json", *arguments, folder=tmp_path
            )
            assert called.faults == []
            return called.code, json.loads(called.out.splitlines()[-1])

        assert ingestor("--config", configuration, "db", "upgrade", folder=tmp_path).code == 0
        one = rescan("--folder", "Other")
        first, second = rescan(), rescan()

    assert (one[0], first[0], second[0]) == (0, 0, 0)
    assert one[1]["read"] == 20
    for _, balance in (one, first, second):
        outcomes = ("stored", "duplicate", "ignored", "quarantined", "failed")
        assert balance["read"] == sum(balance[name] for name in outcomes)
    assert first[1]["read"] == second[1]["read"] == 60
    assert second[1]["stored"] == second[1]["failed"] == 0
    distinct = len({tuple(mail.expected.items()) for mail in mails if mail.expected})
    assert one[1]["stored"] + first[1]["stored"] == distinct


def test_an_unreachable_mailbox_is_exit_1_with_its_balance(
    configuration: Path, called: Callable[..., Called]
) -> None:
    """A server that is not there is one line; the run is recorded and its empty balance printed."""
    with ImapServer().running() as server:
        port = server.port
    configuration.write_text(configuration.read_text().replace("PORT", str(port)))
    called("--config", configuration, "db", "upgrade")

    answer = called("--config", configuration, "rescan", "main", "--json")

    assert answer.code == 1
    assert len(answer.faults) == 1
    assert json.loads(answer.out.splitlines()[-1])["read"] == 0
    assert '"demo"' not in answer.err


def test_ctrl_c_ends_a_hung_rescan_with_its_balance(configuration: Path, tmp_path: Path) -> None:
    """A server that answers nothing can be left: 130, and what was done so far."""
    with ImapServer().running() as server:
        server.faults.silent = True
        configuration.write_text(configuration.read_text().replace("PORT", str(server.port)))
        assert ingestor("--config", configuration, "db", "upgrade", folder=tmp_path).code == 0
        with subprocess.Popen(
            [PROGRAM, "--config", configuration, "rescan", "main", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        ) as process:  # fmt: skip
            while not server.connections and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert json.loads(out)["read"] == 0
    assert b"Traceback" not in err


def test_an_unknown_mailbox_names_the_known_ones(configuration: Path, called: Callable[..., Called]) -> None:
    """A wrong name is exit 2 before anything is opened."""
    configuration.write_text(configuration.read_text().replace("PORT", "143"))

    answer = called("--config", configuration, "rescan", "mian")

    assert answer.code == 2
    assert answer.err == "ingestor: no mailbox is called 'mian'; the configuration has: main\n"
    assert called("--config", configuration, "rescan", "main", "--since", "yesterday").code == 2
