"""Who may come in: HTTPS, proxies, paths, networks and logins."""

from base64 import b64encode
from typing import Any

import pytest
import structlog

from ingestor.http import Refusal, RefusalLog
from ingestor.intake.listener import gate
from ingestor.intake.listener.gate import Admission, Gate
from ingestor.settings import Endpoint, Webhook

PATH = "/agile/3l6jr9S0uQb3m2VvKkq1xA7T"
OTHER = "/ip1/8Zp2cVd0WmR5yHn4sJt6kQ1a"
HTTPS = {b"x-forwarded-proto": b"https"}


def _gate(passwords: tuple[str, ...] = (), trusted: tuple[str, ...] = (), **endpoint: Any) -> Gate:
    webhook = Webhook(
        listen="127.0.0.1:0", trusted_proxies=trusted,  # type: ignore[arg-type]  # pydantic reads text
        endpoint=(
            Endpoint(path=PATH, provider="agile", **endpoint),
            Endpoint(path=OTHER, provider="ip1"),
        ),
    )  # fmt: skip
    return Gate(webhook, lambda _: passwords)


def _judge(
    gatekeeper: Gate, headers: dict[bytes, bytes] | None = None, *, address: str = "127.0.0.1",
    encrypted: bool = False, method: bytes = b"POST", path: str = PATH,
) -> Admission | Refusal:  # fmt: skip
    peer = gatekeeper.peer(address, encrypted=encrypted)
    return gatekeeper.judge(method, path.encode(), headers or {}, peer)


def _client(verdict: Admission | Refusal) -> str:
    assert isinstance(verdict, Admission), verdict
    return verdict.client


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_a_direct_request_from_this_machine_is_accepted(address: str) -> None:
    """Loopback needs no TLS: nobody can listen there."""
    assert isinstance(_judge(_gate(), address=address), Admission)


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%eth0"]
)
def test_plain_http_from_elsewhere_is_refused(address: str) -> None:
    """HTTPS only, whatever the network is called; TLS to us is fine."""
    assert _judge(_gate(), address=address) == gate.NO_HTTPS
    assert isinstance(_judge(_gate(), address=address, encrypted=True), Admission)


@pytest.mark.parametrize(
    "header",
    [b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded", b"forwarded", b"via",
     b"x-real-ip"],
)  # fmt: skip
def test_a_loopback_request_through_an_unknown_proxy_is_refused(header: bytes) -> None:
    """A header that proxies set shows that the request came from elsewhere, and nobody says how."""
    assert _judge(_gate(), {header: b"https"}) == gate.NO_HTTPS


@pytest.mark.parametrize(
    ("said", "verdict"),
    [(b"https", None), (b"HTTPS", None), (b" https , https", None), (b"http", gate.NO_HTTPS),
     (b"https, http", gate.NO_HTTPS), (b"http,https", gate.NO_HTTPS), (b"", gate.NO_HTTPS),
     (b"httpsx", gate.NO_HTTPS)],
)  # fmt: skip
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_trusted_proxy_must_say_https(
    said: bytes, verdict: Refusal | None, address: str, encrypted: bool
) -> None:
    """The proxy knows how the provider came to it; every hop must have been HTTPS."""
    gatekeeper = _gate(trusted=("10.0.0.0/24", "127.0.0.1"))
    judged = _judge(gatekeeper, {b"x-forwarded-proto": said}, address=address, encrypted=encrypted)

    assert (judged == verdict) if verdict else isinstance(judged, Admission)


def test_a_trusted_proxy_that_says_nothing_is_refused() -> None:
    """Without X-Forwarded-Proto nobody knows how the provider came to the proxy."""
    assert _judge(_gate(trusted=("10.0.0.7",)), address="10.0.0.7") == gate.NO_HTTPS


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (b"198.51.100.5", "198.51.100.5"),
        (b"203.0.113.9, 198.51.100.5", "198.51.100.5"),
        (b"203.0.113.9,198.51.100.5, 10.0.0.8", "198.51.100.5"),
        (b"198.51.100.5:4711", "198.51.100.5"),
        (b"[2001:db8::5]:4711", "2001:db8::5"),
        (b"2001:db8::5", "2001:db8::5"),
        (b"::ffff:198.51.100.5", "198.51.100.5"),
        (b"unknown", "10.0.0.7"),
        (b"198.51.100.5, unknown, 10.0.0.8", "10.0.0.8"),
        (b"", "10.0.0.7"),
        (b"10.0.0.9, 10.0.0.8", "10.0.0.9"),
    ],
)  # fmt: skip
def test_the_client_is_the_rightmost_hop_that_is_no_proxy_of_ours(forwarded: bytes, client: str) -> None:
    """Everything left of it anybody can write."""
    gatekeeper = _gate(trusted=("10.0.0.0/24",))

    assert _client(_judge(gatekeeper, HTTPS | {b"x-forwarded-for": forwarded}, address="10.0.0.7")) == client


def test_forwarded_for_is_believed_from_trusted_proxies_only() -> None:
    """A stranger with TLS cannot borrow an allowed address."""
    gatekeeper = _gate(allow_from=("198.51.100.0/24",))
    forged = {b"x-forwarded-for": b"198.51.100.5"}

    assert _judge(gatekeeper, forged, address="203.0.113.1", encrypted=True) == gate.WRONG_NETWORK
    assert isinstance(_judge(gatekeeper, address="198.51.100.5", encrypted=True), Admission)


def test_only_allowed_networks_come_in() -> None:
    """allow_from counts for the client behind the proxies, and for its endpoint alone."""
    gatekeeper = _gate(trusted=("127.0.0.1",), allow_from=("198.51.100.0/24", "2001:db8::/32"))

    def judged(client: bytes, path: str = PATH) -> Admission | Refusal:
        return _judge(gatekeeper, HTTPS | {b"x-forwarded-for": client}, path=path)

    assert isinstance(judged(b"198.51.100.255"), Admission)
    assert isinstance(judged(b"2001:db8::1"), Admission)
    assert judged(b"198.51.101.1") == gate.WRONG_NETWORK
    assert judged(b"unknown") == gate.WRONG_NETWORK
    assert isinstance(judged(b"198.51.101.1", OTHER), Admission)


@pytest.mark.parametrize(
    "path",
    ["/", "", PATH[:-1], PATH + "x", PATH + "/", PATH.upper(), "/agile", "/" + PATH, PATH.replace("/", "//"),
     "/x/.." + PATH, PATH.replace("a", "%61"), PATH + "#x", PATH + "\0"],
)  # fmt: skip
def test_a_path_is_right_to_the_byte_or_wrong(path: str) -> None:
    """No normalisation, no decoding, no prefix: anything else is not found."""
    assert _judge(_gate(), path=path) == gate.WRONG_PATH


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"post"]
)
def test_only_post_is_a_delivery(method: bytes) -> None:
    """Other methods at the right path are refused; at a wrong one they are simply not found."""
    assert _judge(_gate(), method=method) == gate.WRONG_METHOD
    assert _judge(_gate(), method=method, path="/x") == gate.WRONG_PATH


def _login(text: str, scheme: str = "Basic") -> dict[bytes, bytes]:
    return {b"authorization": f"{scheme} ".encode() + b64encode(text.encode())}


def test_any_of_the_accepted_passwords_opens() -> None:
    """Several at once, so that a password can be changed without a lost delivery."""
    gatekeeper = _gate(
        ("old", "nöw:with colon"), basic_username="agile", basic_password_credentials=("a", "b")
    )

    assert isinstance(_judge(gatekeeper, _login("agile:old")), Admission)
    assert isinstance(_judge(gatekeeper, _login("agile:nöw:with colon", "bASIC")), Admission)


@pytest.mark.parametrize(
    "headers",
    [_login("agile:older"), _login("agile:"), _login("Agile:old"), _login("agile"),
     _login("agile:old", "Bearer"), {b"authorization": b"Basic"}, {b"authorization": b"Basic !!!"},
     {b"authorization": b"Basic \xff"},
     {b"authorization": b"Basic YWdpbGU6b2xk,Basic YWdpbGU6b2xk"}],
)  # fmt: skip
def test_a_wrong_login_is_refused(headers: dict[bytes, bytes]) -> None:
    """Wrong, empty, twice, or in another scheme: 401."""
    gatekeeper = _gate(("old",), basic_username="agile", basic_password_credentials=("a",))

    assert _judge(gatekeeper, headers) == gate.WRONG_LOGIN


def test_a_first_try_without_login_is_no_wrong_one() -> None:
    """wget, LWP and urllib log in only once they are asked to: 401, and no warning."""
    gatekeeper = _gate(("old",), basic_username="agile", basic_password_credentials=("a",))
    assert _judge(gatekeeper, {}) == gate.NO_LOGIN
    assert gate.NO_LOGIN.status == gate.WRONG_LOGIN.status
    with structlog.testing.capture_logs() as lines:
        log = RefusalLog()
        log.note(gate.NO_LOGIN, "192.0.2.1")
        log.note(gate.WRONG_LOGIN, "192.0.2.1")
    assert [line["log_level"] for line in lines] == ["info", "warning"]


def test_a_password_may_come_in_latin_1() -> None:
    """`requests` sends it so; RFC 7617 asks for UTF-8."""
    gatekeeper = _gate(("nöw",), basic_username="agile", basic_password_credentials=("a",))
    for encoding in ("utf-8", "latin-1"):
        login = b"Basic " + b64encode("agile:nöw".encode(encoding))
        assert isinstance(_judge(gatekeeper, {b"authorization": login}), Admission)


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("10.0.0.1", {}, 200),
        ("192.0.2.1", {}, 404),
        ("10.0.0.1", {b"x-forwarded-for": b"192.0.2.1", b"x-forwarded-proto": b"https"}, 404),
        ("127.0.0.1", {b"x-forwarded-for": b"192.0.2.1"}, 404),
    ],
)
def test_health_is_for_balancers_only(address: str, headers: dict[bytes, bytes], status: int) -> None:
    """Loopback and trusted proxies are told that the listener lives; a client behind one is told nothing."""
    gatekeeper = _gate(trusted=("10.0.0.1",))
    peer = gatekeeper.peer(address, encrypted=False)
    for method in (b"GET", b"HEAD"):
        verdict = gatekeeper.judge(method, b"/healthz", headers, peer)
        assert (200 if isinstance(verdict, Admission) else verdict.status) == status


def test_every_path_and_password_is_compared_whatever_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time an answer takes must not tell how near a guess was."""
    compared: list[bytes] = []
    real = gate.hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return bool(real(one, other))

    monkeypatch.setattr(gate.hmac, "compare_digest", counting)
    gatekeeper = _gate(("old", "new"), basic_username="agile", basic_password_credentials=("a", "b"))
    _judge(gatekeeper, _login("agile:old"))
    _judge(gatekeeper, path="/nothing")

    assert compared == [
        PATH.encode(), OTHER.encode(), b"agile:old", b"agile:new", PATH.encode(), OTHER.encode()
    ]  # fmt: skip


def test_secrets_stay_out_of_representations() -> None:
    """Neither a path nor a login can slip into a log by way of an object."""
    gatekeeper = _gate(("hunter2",), basic_username="agile", basic_password_credentials=("a",))
    verdict = _judge(gatekeeper, _login("agile:hunter2"))

    assert isinstance(verdict, Admission)
    assert "hunter2" not in repr(verdict)
    assert PATH not in repr(verdict)
