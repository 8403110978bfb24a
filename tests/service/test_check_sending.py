"""What `check` says of the API and of the rules: each sender tried as a simulation, each text priced."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.service.checks import Level
from ingestor.service.checks.sending import check
from ingestor.settings import load
from tests.replies.desk import settings_of
from tests.servers.agile import ScriptedAgile, refusal

RULES = """
[[answer]]
name = "dear"
on = "any"
sender = "MyShop"
text = "È chiuso…"

[[answer]]
name = "long"
on = "help"
sender = "+393331234333"
text = "{text}"
"""


@pytest.fixture
def agile() -> Iterator[ScriptedAgile]:
    """A fake Agile that behaves, until a test writes another script."""
    with ScriptedAgile() as server:
        yield server


def test_each_sender_is_tried_and_nothing_is_sent(agile: ScriptedAgile, tmp_path: Path) -> None:
    """Simulated messages only; a sender that is not allowed fails, in Agile's words."""
    agile.script = [refusal(26, 403)]
    found = check(settings_of(agile, tmp_path, RULES.replace("{text}", "Ciao")))

    assert [request["simulation"] for request in agile.requests] == [True, True]
    assert [one.says for one in found if one.level is Level.FAIL] == [
        "sender MyShop: the sender is not allowed: have it registered, or use another (code 26)"
    ]
    assert any("credit 10.324 EUR" in one.says for one in found)
    assert any("sender +393331234333: a simulated message is accepted" in one.says for one in found)


def test_a_text_that_costs_more_is_named_with_its_characters(agile: ScriptedAgile, tmp_path: Path) -> None:
    """UCS-2 with the letters that make it so, and a text of several parts."""
    found = check(settings_of(agile, tmp_path, RULES.replace("{text}", "a" * 161)))

    assert [(one.subject, one.says) for one in found if one.level is Level.WARN] == [
        ("answer dear", "its text is UCS-2 because of È, …: 70 characters a part, not 160"),
        ("answer long", "its text takes 2 parts"),
    ]


def test_a_key_that_is_missing_or_refused_fails(agile: ScriptedAgile, tmp_path: Path) -> None:
    """Without its file, and where nobody answers, one line says so."""
    settings = settings_of(agile, tmp_path, RULES.replace("{text}", "Ciao"))
    (tmp_path / "api.key").unlink()
    assert [one.level for one in check(settings)] == [Level.FAIL]

    settings_of(agile, tmp_path, RULES.replace("{text}", "Ciao"))
    config = tmp_path / "answers.toml"
    config.write_text(config.read_text().replace(agile.base_url, "http://127.0.0.1:9/services/"))
    found = check(load(config, None))
    assert (found[0].level, "Connection refused" in found[0].says) == (Level.FAIL, True)
