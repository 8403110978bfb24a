"""Every flow against a server that checks what it is asked, and every refusal with what follows."""

import base64
import json
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ingestor.errors import ConfigurationError, LoginFault
from ingestor.logins import access_token, log_in, state
from ingestor.logins.grants import assertion, certificate_end
from ingestor.redaction import redact
from tests.logins.conftest import Configure, person_logs_in
from tests.servers.authorization import SECRET, AuthorizationServer, Refusal, key_and_certificate


def test_client_secret(authority: AuthorizationServer, configure: Configure, tmp_path: Path) -> None:
    """The secret of a file gives a token, which is kept until 80 % of its life has passed, and no longer."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    mailbox = configure("client_credentials", secret_file=str(tmp_path / "secret"), scope="mail")
    begin = time.time()

    first = access_token(mailbox, tmp_path)
    same = access_token(mailbox, tmp_path, clock=lambda: begin + 2870)
    other = access_token(mailbox, tmp_path, clock=lambda: begin + 2890)

    assert authority.tokens.keys() == {first.token, other.token}
    assert (first.fetched, same.fetched, other.fetched) == (True, False, True)
    assert same.token == first.token
    assert authority.asked[0]["scope"] == "mail"
    assert abs(first.expires_at - begin - 3600) < 60
    assert redact(f"Bearer {first.token}") == "Bearer ***"


def test_certificate(authority: AuthorizationServer, configure: Configure, tmp_path: Path) -> None:
    """A client assertion is signed by the key of the file; a key that the server does not know is told."""
    key, pem = key_and_certificate(timedelta(days=30))
    authority.public_key = key.public_key()
    (tmp_path / "key.pem").write_bytes(pem)
    mailbox = configure("client_credentials", key_file=str(tmp_path / "key.pem"))

    assert access_token(mailbox, tmp_path).token in authority.tokens
    ends = certificate_end(pem)
    assert ends is not None
    assert abs(ends.timestamp() - time.time() - 30 * 86400) < 3600

    _, other = key_and_certificate(timedelta(days=30))
    (tmp_path / "key.pem").write_bytes(other)
    with pytest.raises(LoginFault, match="the key was deleted") as refused:
        access_token(mailbox, tmp_path, fresh=True)
    assert refused.value.state == "refused"


@pytest.mark.parametrize(
    "junk", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_a_key_that_is_none(configure: Configure, tmp_path: Path, junk: bytes) -> None:
    """What holds no key is told as that, before anybody is asked."""
    (tmp_path / "key.pem").write_bytes(junk)
    with pytest.raises(ConfigurationError, match="mailbox main: the key"):
        access_token(configure("client_credentials", key_file=str(tmp_path / "key.pem")), tmp_path)
    with pytest.raises(ConfigurationError, match="not the JSON that Google gives"):
        access_token(configure("service_account", key_file=str(tmp_path / "key.pem")), tmp_path)


def google_key(authority: AuthorizationServer, tmp_path: Path) -> Path:
    key, _ = key_and_certificate(timedelta(days=30))
    authority.public_key = key.public_key()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "google.json"
    path.write_text(
        json.dumps({
            "type": "service_account", "private_key_id": "k1", "private_key": pem.decode(),
            "client_email": "robot@project.iam.gserviceaccount.com", "client_id": "10001",
        })
    )  # fmt: skip
    return path


def test_service_account(authority: AuthorizationServer, configure: Configure, tmp_path: Path) -> None:
    """A service account's JWT is taken by a server that checks signature, audience, subject and times."""
    mailbox = configure("service_account", key_file=str(google_key(authority, tmp_path)), client_id=None)

    assert access_token(mailbox, tmp_path).token in authority.tokens

    authority.subjects = frozenset({"somebody@else.example"})
    with pytest.raises(LoginFault) as refused:
        access_token(mailbox, tmp_path, fresh=True)
    assert refused.value.state == "needs_consent"

    (tmp_path / "other").mkdir()
    google_key(authority, tmp_path / "other")  # the server knows another key from now on
    with pytest.raises(LoginFault, match="key was deleted"):
        access_token(mailbox, tmp_path, fresh=True)


@pytest.mark.parametrize(("skew", "said"), [(-3600.0, "60 minutes fast"), (7200.0, "120 minutes slow")])
def test_a_wrong_clock(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path, skew: float, said: str
) -> None:
    """An assertion that is refused because our clock is wrong says so, and by how much."""
    mailbox = configure("service_account", key_file=str(google_key(authority, tmp_path)), client_id=None)
    authority.skew = skew

    with pytest.raises(LoginFault, match=f"{said}.*timedatectl") as refused:
        access_token(mailbox, tmp_path)

    assert refused.value.state == "clock"


def test_device_code(authority: AuthorizationServer, configure: Configure, tmp_path: Path) -> None:
    """A person is told page and code, and waited for: five seconds longer each time after slow_down."""
    authority.pending = ["authorization_pending", "slow_down", "authorization_pending", "slow_down"]
    mailbox = configure("device_code")
    lines: list[str] = []
    waits: list[float] = []

    log_in(mailbox, tmp_path, lines.append, lambda: "", sleep=waits.append)

    assert f"{authority.url}/activate" in lines[0]
    assert "ABCD-1234" in lines[1]
    assert waits == [5, 5, 10, 10, 15]
    assert access_token(mailbox, tmp_path).token in authority.tokens
    assert len(authority.asked) == 5


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "authorization_declined"])
def test_a_device_code_refused(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path, error: str
) -> None:
    """Who declines, or is too late, is told so, and nothing is kept."""
    authority.pending = ["authorization_pending", error]

    with pytest.raises(LoginFault, match="ingestor login main"):
        person_logs_in(configure("device_code"), tmp_path)

    assert state.read(tmp_path, "main") is None


def test_a_code_that_runs_out(authority: AuthorizationServer, configure: Configure, tmp_path: Path) -> None:
    """A code that nobody enters ends after its time, whatever the server goes on saying."""
    authority.pending = ["authorization_pending"] * 1000
    now = time.time()

    def later(seconds: float) -> None:
        nonlocal now
        now += seconds

    with pytest.raises(LoginFault, match="has run out"):
        log_in(configure("device_code"), tmp_path, lambda _: None, lambda: "", sleep=later, clock=lambda: now)
    assert len(authority.asked) == 900 / 5


def test_authorization_code(authority: AuthorizationServer, configure: Configure, tmp_path: Path) -> None:
    """The address that a browser elsewhere ended on is enough; PKCE and `state` are checked on both sides."""
    mailbox = configure("authorization_code", secret_file=str(tmp_path / "secret"))
    (tmp_path / "secret").write_text(SECRET)
    shown: list[str] = []

    def pasted() -> str:
        url = next(word for line in shown for word in line.split() if "/authorize?" in word)
        return authority.authorize(url) + "\n"

    log_in(mailbox, tmp_path, shown.append, pasted)

    assert access_token(mailbox, tmp_path).token in authority.tokens
    for wrong in ("http://localhost/?code=x&state=other", "", "http://localhost/?error=access_denied"):
        with pytest.raises(LoginFault, match="run the command again"):
            log_in(mailbox, tmp_path, lambda _: None, lambda wrong=wrong: wrong)


def test_a_login_without_refresh_token_is_refused(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path
) -> None:
    """A login that would end within the hour is told at once, with the scope that is missing."""
    authority.gives_refresh_token = False

    with pytest.raises(LoginFault, match="offline_access"):
        person_logs_in(configure(), tmp_path)


REFUSALS = {
    "dead refresh token": (Refusal("invalid_grant", "AADSTS700082"), "needs_login", 3600, "ingestor login"),
    "rule changed": (Refusal("interaction_required", "AADSTS50076"), "needs_login", 3600, "ingestor login"),
    "secret ended": (Refusal("invalid_client", "AADSTS7000222"), "needs_secret", 3600, "has ended"),
    "secret wrong": (Refusal("invalid_client", "", 401), "needs_secret", 3600, "not its id"),
    "no consent": (Refusal("invalid_grant", "AADSTS65001"), "needs_consent", 3600, "must agree|must allow"),
    "not allowed": (Refusal("unauthorized_client"), "needs_consent", 3600, "must allow"),
    "too many": (Refusal("slow", "", 429, **{"Retry-After": "120"}), "unreachable", 120, "busy"),
    "down": (Refusal("oops", "", 503), "unreachable", None, "busy"),
    "busy": (Refusal("temporarily_unavailable"), "unreachable", None, "busy"),
    "wrong scope": (Refusal("invalid_scope"), "misconfigured", 3600, "scope"),
    "nonsense": (Refusal("<script>+393331234567", "x" * 9999), "misconfigured", 3600, "HTTP 400"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_has_its_sentence_state_and_pause(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path, name: str
) -> None:
    """What a server refuses is told apart, and names no user, no number and no secret."""
    refusal, expected, pause, words = REFUSALS[name]
    refusal.body["error_description"] += " User demo@example.org"
    mailbox = configure()
    person_logs_in(mailbox, tmp_path)
    authority.refusals = [refusal]

    with pytest.raises(LoginFault, match=words) as fault:
        access_token(mailbox, tmp_path, fresh=True)

    assert (fault.value.state, fault.value.pause) == (expected, pause)
    assert "demo@example.org" not in str(fault.value)
    assert "script" not in str(fault.value)
    assert "\n" not in str(fault.value)
    assert access_token(mailbox, tmp_path, fresh=True).fetched, "a refusal must not cost the login"


def test_a_server_that_is_not_there(configure: Configure, tmp_path: Path) -> None:
    """Nobody there, no name, no answer: passing faults, said with the host; plain http goes to no network."""
    (tmp_path / "secret").write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/token", "https://no-such-host.invalid/token"):
        mailbox = configure("client_credentials", secret_file=str(tmp_path / "secret"), token_url=url)
        with pytest.raises(LoginFault, match="cannot be reached") as fault:
            access_token(mailbox, tmp_path)
        assert (fault.value.state, fault.value.pause) == ("unreachable", None)
    with pytest.raises(ConfigurationError, match="https://"):
        configure(token_url="http://login.example.org/token")


def test_a_secret_as_a_credential(
    authority: AuthorizationServer, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secret and key come from systemd credentials, too; a key keeps its lines."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    key, pem = key_and_certificate(timedelta(days=30))
    authority.public_key = key.public_key()
    (tmp_path / "one").write_text(SECRET)
    (tmp_path / "two").write_bytes(pem)

    for keys in ({"secret_credential": "one"}, {"key_credential": "two"}):
        assert access_token(configure("client_credentials", **keys), tmp_path, fresh=True).fetched
    with pytest.raises(ConfigurationError, match="no credential three"):
        access_token(configure("client_credentials", secret_credential="three"), tmp_path, fresh=True)


def test_an_assertion_is_short_lived(configure: Configure) -> None:
    """A signed assertion is good for ten minutes: who finds one later can do nothing with it."""
    _, pem = key_and_certificate(timedelta(days=1))
    made = assertion(configure(), {"alg": "RS256"}, {"sub": "s"}, pem, 1000.0)

    claims = json.loads(base64.urlsafe_b64decode(made.split(".")[1] + "=="))
    assert claims == {"sub": "s", "iat": 1000, "nbf": 1000, "exp": 1600}
