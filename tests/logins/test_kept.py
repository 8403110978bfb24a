"""What is kept between two processes: rotation, one at a time, a full disk, and a kill at any line."""

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ingestor.errors import LoginFault
from ingestor.logins import access_token, state
from tests.logins.conftest import Configure, person_logs_in
from tests.servers.authorization import SECRET, AuthorizationServer, Refusal


def test_the_refresh_token_rotates(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path
) -> None:
    """Each of a hundred refreshes uses the token that the last one gave; without rotation one stays."""
    mailbox = configure()
    person_logs_in(mailbox, tmp_path)
    for _ in range(100):
        access_token(mailbox, tmp_path, fresh=True)

    used = [form["refresh_token"] for form in authority.asked[1:]]
    assert len(set(used)) == 100

    authority.rotates = False
    for _ in range(3):
        access_token(mailbox, tmp_path, fresh=True)
    assert len({form["refresh_token"] for form in authority.asked[-2:]}) == 1


def test_two_processes_never_spend_one_refresh_token(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path
) -> None:
    """Eight at once ask the server once: the others take what the first has brought."""
    mailbox = configure()
    person_logs_in(mailbox, tmp_path)
    kept = state.read(tmp_path, "main")
    assert kept is not None
    authority.delay = 0.2
    got: list[str] = []

    def ask() -> None:
        got.append(access_token(mailbox, tmp_path, clock=lambda: kept.renew_at + 1).token)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(got) == 8
    assert len({form["refresh_token"] for form in authority.asked[1:]}) == len(authority.asked[1:])


def test_what_is_kept_is_its_owners_alone(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path
) -> None:
    """The file is 0600 even where one left behind was open, and nothing else is left in the folder."""
    (tmp_path / "login-main.new").write_text("left behind by a crash")
    (tmp_path / "login-main.new").chmod(0o666)
    person_logs_in(configure(), tmp_path)

    assert (tmp_path / "login-main.json").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.glob("login-*")) == ["login-main.json", "login-main.lock"]


def test_another_login_under_the_same_name(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path
) -> None:
    """What was kept for another application is not used; a file that is none counts as nothing kept."""
    person_logs_in(configure(), tmp_path)

    with pytest.raises(LoginFault, match=r"nobody has logged in.*ingestor login main") as fault:
        access_token(configure(client_id="another"), tmp_path)
    assert fault.value.state == "needs_login"

    (tmp_path / "login-main.json").write_text('{"login": 1, "what": ')
    with pytest.raises(LoginFault, match="nobody has logged in"):
        access_token(configure(), tmp_path)


def test_a_full_disk_spends_no_refresh_token(
    authority: AuthorizationServer, configure: Configure, small_disk: Path, tmp_path: Path
) -> None:
    """Where the next one could not be kept, the server is not asked, and the one we have stays good."""
    mailbox = configure()
    person_logs_in(mailbox, small_disk)
    (small_disk / "fill").write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    asked = len(authority.asked)

    with pytest.raises(LoginFault, match="No space left") as fault:
        access_token(mailbox, small_disk, fresh=True)

    assert (fault.value.state, len(authority.asked)) == ("unreachable", asked)
    (small_disk / "fill").unlink()
    assert access_token(mailbox, small_disk, fresh=True).fetched


def test_the_old_token_serves_while_it_lasts(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path
) -> None:
    """While the server is away the kept token is given, to be asked for again in a minute; then no more."""
    mailbox = configure()
    person_logs_in(mailbox, tmp_path)
    kept = state.read(tmp_path, "main")
    assert kept is not None
    authority.refusals = [Refusal("down", "", 503) for _ in range(2)]

    late = access_token(mailbox, tmp_path, clock=lambda: kept.renew_at + 1)

    assert (late.token, late.fetched) == (kept.token, False)
    assert late.renew_at == kept.renew_at + 61
    with pytest.raises(LoginFault, match="busy"):
        access_token(mailbox, tmp_path, clock=lambda: kept.expires_at + 1)


@pytest.mark.parametrize("life", [None, 0, "3600", "soon", 10**12])
def test_how_long_a_token_lives(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path, life: object
) -> None:
    """Where the answer does not say, five minutes are assumed; text is a number, too; a day is the most."""
    authority.life = life  # type: ignore[assignment]
    (tmp_path / "secret").write_text(SECRET)
    if not isinstance(life, int):
        authority._made = lambda _: {"access_token": "token-1", "expires_in": life}  # type: ignore[method-assign]
    given = access_token(
        configure("client_credentials", secret_file=str(tmp_path / "secret")), tmp_path, clock=lambda: 0.0
    )

    expected = {None: 300, 0: 300, "3600": 3600, "soon": 300, 10**12: 86400}[life]
    assert given.expires_at == expected


KILLED = """
import os, signal, sys, time
from pathlib import Path
from ingestor.logins import access_token, endpoint, state
from ingestor.settings import load
at = int(sys.argv[2])
mailbox = load(Path(sys.argv[1]), None).mailbox[0]
folder, seen, counting = Path(sys.argv[1]).parent, 0, False
inside = {state.__file__, sys.modules["ingestor.logins"].__file__}
def trace(frame, event, _):
    global seen
    if frame.f_code.co_filename not in inside:
        return None
    if event == "line" and counting:
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
real = endpoint.ask
def ask(*arguments):
    global counting
    answer = real(*arguments)
    counting = True
    return answer
import ingestor.logins
ingestor.logins.ask = ask
sys.settrace(trace)
access_token(mailbox, folder, fresh=True)
sys.settrace(None)
print(seen)
"""


def test_a_kill_at_any_line_loses_no_login(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path
) -> None:
    """Killed at twenty lines after the server's answer, the login still gives tokens, by the old or the new.

    The server ends a refresh token when its successor is used, as those do that allow for a lost answer.
    """
    mailbox = configure()
    person_logs_in(mailbox, tmp_path)
    config = tmp_path / "ingestor.toml"

    def run(at: int) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", KILLED, str(config), str(at)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    whole = run(0)
    lines = int(whole.stdout)
    assert lines >= 20, whole.stderr
    before = set(authority.refresh_tokens)
    for step in range(20):
        killed = run(1 + step * (lines - 1) // 19)
        assert killed.returncode == -signal.SIGKILL, killed.stderr

        assert access_token(mailbox, tmp_path, fresh=True).token in authority.tokens
    assert before.isdisjoint({state.read(tmp_path, "main").refresh_token})  # type: ignore[union-attr]
    assert (tmp_path / "login-main.json").stat().st_mode & 0o777 == 0o600
