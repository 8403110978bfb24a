"""`ingestor login` and `ingestor token` as a person and the daemon call them."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calling import PROGRAM, Called, as_nobody, ingestor
from tests.servers.authorization import CLIENT, SECRET, AuthorizationServer, Refusal


@pytest.fixture
def authority() -> Iterator[AuthorizationServer]:
    """An authorisation server that gives what it is asked for."""
    with AuthorizationServer().running() as server:
        yield server


def configured(
    folder: Path, authority: AuthorizationServer, flow: str = "device_code", more: str = ""
) -> Path:
    path = folder / "ingestor.toml"
    path.write_text(
        f'[database]\nurl = "sqlite:///{folder}/archive.db"\n[[mailbox]]\nname = "main"\nhost = "127.0.0.1"\n'
        f'username = "demo"\n[mailbox.oauth]\nprovider = "other"\nflow = "{flow}"\nclient_id = "{CLIENT}"\n'
        f'token_url = "{authority.url}/token"\ndevice_url = "{authority.url}/device"\n'
        f'authorization_url = "{authority.url}/authorize"\n{more}'
    )
    return path


def call(config: Path, *words: str, stdin: bytes = b"", before: tuple[str, ...] = ()) -> Called:
    return ingestor("--config", config, *words, folder=config.parent, stdin=stdin, before=before)


def test_a_login_by_a_copied_address(authority: AuthorizationServer, tmp_path: Path) -> None:
    """On a server without a browser: the address is shown, what comes of it is pasted, and tokens follow."""
    config = configured(tmp_path, authority, "authorization_code")
    process = subprocess.Popen(
        [PROGRAM, "--config", config, "login", "main"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    url = next(line.strip() for line in process.stdout if "/authorize?" in line)
    said, _ = process.communicate(authority.authorize(url) + "\n", timeout=60)

    assert (process.returncode, "systemctl reload ingestor" in said) == (0, True)
    assert json.loads(call(config, "token", "main").out)["token"] in authority.tokens


def test_the_token_comes_as_json(authority: AuthorizationServer, tmp_path: Path) -> None:
    """The helper prints one object: token, times (seconds since the epoch), if it is new, and the skew."""
    (tmp_path / "secret").write_text(SECRET)
    config = configured(tmp_path, authority, "client_credentials", f'secret_file = "{tmp_path}/secret"\n')
    authority.skew = 600

    first, second = (json.loads(call(config, "token", "main").out) for _ in range(2))
    fresh = json.loads(call(config, "token", "main", "--fresh").out)

    assert first.keys() == {"token", "renew_at", "expires_at", "fetched", "skew"}
    assert (first["fetched"], second["fetched"], fresh["fetched"]) == (True, False, True)
    assert first["token"] == second["token"] != fresh["token"]
    assert 3000 < first["expires_at"] - time.time() <= 3600
    assert -620 < first["skew"] < -580
    assert "needs no person" in call(config, "login", "main").out


def test_a_fault_comes_as_json_too(authority: AuthorizationServer, tmp_path: Path) -> None:
    """Sentence, state and pause for the daemon; a broken configuration is such a fault as well."""
    config = configured(tmp_path, authority)
    told = call(config, "token", "main")

    assert told.code == 1
    assert json.loads(told.out) == {
        "fault": f"nobody has logged in to mailbox main yet, as {tmp_path}/login-main.json has no login; "
        "run: ingestor login main",
        "state": "needs_login", "pause": 3600.0, "said": "",
    }  # fmt: skip
    config.write_text("[mailbox")
    assert json.loads(call(config, "token", "main").out)["state"] == "misconfigured"
    config = configured(tmp_path, authority)
    config.write_text(config.read_text().partition("[mailbox.oauth]")[0] + 'password = "x"\n')
    assert "Logins by OAuth2" in call(config, "login", "main").err
    assert "has: main" in call(config, "login", "mian").err


def test_with_postgresql_the_state_directory_must_be_named(
    authority: AuthorizationServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login kept in whatever folder one stands in would not be found by the daemon: nothing is begun."""
    config = configured(tmp_path, authority)
    config.write_text(config.read_text().replace(f"sqlite:///{tmp_path}/archive.db", "postgresql://u@h/d"))
    told = call(config, "login", "main")
    assert (told.code, authority.asked) == (2, [])
    assert "STATE_DIRECTORY=/var/lib/ingestor ingestor" in told.err

    there = {"STATE_DIRECTORY": str(tmp_path)}
    said = ingestor("--config", config, "login", "main", folder=tmp_path, environment=there).out
    assert f"{tmp_path}/login-main.json" in said


def test_a_login_that_is_refused(authority: AuthorizationServer, tmp_path: Path) -> None:
    """Who declines reads one line, and nothing is kept."""
    authority.refusals = [Refusal("access_denied")]
    told = call(
        configured(tmp_path, authority, "authorization_code"), "login", "main", stdin=b"http://x/?a=b\n"
    )

    assert (told.code, len(told.faults)) == (1, 1)
    assert not (tmp_path / "login-main.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone becomes another user")
def test_root_keeps_the_login_as_its_owner(authority: AuthorizationServer, tmp_path: Path) -> None:
    """Root reads a secret that is his alone; what is kept belongs to whose the state directory is."""
    before = as_nobody()
    if before is None:
        pytest.skip("nobody cannot run the program here")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o400)
    config = configured(state, authority, "client_credentials", f'secret_file = "{tmp_path}/secret"\n')

    assert json.loads(call(config, "token", "main").out)["fetched"]

    kept = state / "login-main.json"
    assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (65534, 0o600)


def test_the_token_is_in_no_command_line(authority: AuthorizationServer, tmp_path: Path) -> None:
    """Neither token nor secret is an argument or in the environment of the helper: the answer is a pipe."""
    (tmp_path / "secret").write_text(SECRET)
    config = configured(tmp_path, authority, "client_credentials", f'secret_file = "{tmp_path}/secret"\n')
    authority.delay = 1.0
    process = subprocess.Popen(
        [PROGRAM, "--config", config, "token", "main"], stdout=subprocess.PIPE, cwd=tmp_path
    )
    seen = b""
    while not authority.tokens and not any(form for form in authority.asked) and process.poll() is None:
        seen += Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert SECRET.encode() not in seen
        time.sleep(0.05)
    out, _ = process.communicate(timeout=60)

    assert json.loads(out)["token"].encode() not in seen
