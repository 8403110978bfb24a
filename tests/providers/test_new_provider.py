"""A new provider is one folder and one line: `pager` beside this file, put into a copy of the house."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import ingestor
from tests.cli.calling import ingestor as call
from tests.service.archive import rows
from tests.service.process import configuration, running, until

HOUSE = Path(ingestor.__file__).parent.parent
PAGER = Path(__file__).parent / "pager"
LINE = '    "pager": Provider("pager", mails="mail", posts="callback"),\n'
POSTED = (
    b'{"from": "447009000001", "to": "447009000009", "at": "2026-05-14T10:23:01Z", "text": "Beep by POST"}'
)
MAIL = """Subject: Beep

from=447009000001
to=447009000009
at=2026-05-14T10:23:02Z
text=Beep by mail
"""
SECTION = '[pager]\nnumbers = ["447009000009"]\n'
ENDPOINT = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/pager/x"\nprovider = "pager"\n'


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Copy the house, add the folder and the line, and say where Python finds it."""
    copy = tmp_path_factory.mktemp("house")
    for name in ("ingestor", "migrations"):
        shutil.copytree(HOUSE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PAGER, copy / "ingestor" / "providers" / "pager")
    table = copy / "ingestor" / "providers" / "__init__.py"
    head, end, tail = table.read_text().partition('"ip1": Provider("ip1", posts="callback"),\n')
    table.write_text(head + end + LINE + tail)
    yield {"PYTHONPATH": str(copy)}
    shutil.rmtree(copy)


def test_its_section_is_in_the_sample_and_the_reference(environment: dict[str, str], tmp_path: Path) -> None:
    """The sample file, the reference and the effective settings show the new table and the new endpoint."""
    example = call("config", "example", folder=tmp_path, environment=environment).out
    reference = call("config", "example", "--markdown", folder=tmp_path, environment=environment).out
    config = configuration(tmp_path, f"sqlite:///{tmp_path}/a.db", SECTION)
    shown = call("--config", config, "config", "show", folder=tmp_path, environment=environment).out

    assert (
        "\n# Pager: what a provider of tomorrow may send.\n[pager]\n# Our own numbers at Pager's.\n"
        in example
    )
    assert "## `[pager]`" in reference
    assert "| agile \\| infobip \\| ip1 \\| pager \\| agile-reports |" in reference
    assert '[pager]\nnumbers = ["+447009000009"]\n' in shown


def test_its_section_is_checked_like_the_others(environment: dict[str, str], tmp_path: Path) -> None:
    """A wrong key and a wrong number in its table are faults that name them."""
    config = configuration(tmp_path, "sqlite:///a.db", '[pager]\nnumber = "1"\nnumbers = ["x"]\n')

    called = call("--config", config, "config", "show", folder=tmp_path, environment=environment)

    assert called.code == 2
    assert "pager.number: unknown key; did you mean numbers?" in called.err
    assert "pager.numbers, entry 1: is no phone number" in called.err


def test_what_it_posts_and_mails_is_archived(environment: dict[str, str], tmp_path: Path) -> None:
    """The daemon takes its POST with its own answer, an import reads its mail, and a search finds both."""
    url = f"sqlite:///{tmp_path}/archive.db"
    config = configuration(tmp_path, url, SECTION, ENDPOINT)
    with running(config, environment=environment) as daemon:
        daemon.wait_ready()
        port = until(lambda: daemon.events("webhook listening"), "the listener")[0]["port"]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/pager/x", POSTED, {"Content-Type": "a/b"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert (answer.status, answer.read()) == (200, b"beep")
        assert daemon.stop() == 0
    (tmp_path / "beep.eml").write_text(MAIL)

    imported = call(
        "--config", config, "import", "--json", "beep.eml", folder=tmp_path, environment=environment
    )
    found = call(
        "--config", config, "search", "Beep", "--provider", "pager", "--json",
        folder=tmp_path, environment=environment,
    )  # fmt: skip

    assert json.loads(imported.out.splitlines()[-1])["stored"] == 1, imported.err
    assert found.out.count("Beep by") == 2, found
    assert rows(url, "SELECT provider, destination, channel FROM inbound_sms ORDER BY date_time") == [
        ("pager", "+447009000009", "webhook"),
        ("pager", "+447009000009", "import"),
    ]
