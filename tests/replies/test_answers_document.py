"""ANSWERS.md: its commands run as written against a fake Agile, and its tables name the views' columns."""

import os
import subprocess
import sys
from pathlib import Path

from tests import readme
from tests.cli.test_send import config_of
from tests.servers.agile import ScriptedAgile, plain

DOCUMENT = (readme.ROOT / "ANSWERS.md").read_text()


def test_the_commands_run_as_written(tmp_path: Path) -> None:
    """In their order, with one answer lost, so that there is something unknown to look at."""
    with ScriptedAgile(plain(200, {"processedMessages": 1}), plain(500)) as agile:
        config = config_of(agile, f"sqlite:///{tmp_path / 'archive.db'}", tmp_path)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "INGESTOR_CONFIG": str(config)}
        for command in "".join(readme.blocks("agile")).splitlines():
            done = subprocess.run(command, shell=True, env=environment, cwd=tmp_path, capture_output=True)
            # Of the two numbers of the second `send` the first one's answer is lost.
            allowed = {0, 1} if "+393351234568" in command else {0}
            assert done.returncode in allowed, f"{command}\n{done.stdout!r}\n{done.stderr!r}"


def test_every_reason_is_explained() -> None:
    """Whatever may stand in `suppressed` has its line."""
    from ingestor.replies.answering import REASONS
    from ingestor.replies.worker import RULE_GONE

    assert [one for one in (*REASONS, RULE_GONE) if f"`{one}`" not in DOCUMENT] == []
