"""The client against a fake Agile: what is written, and what each fault means."""

import socket
import ssl
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from ingestor.errors import ProviderUnavailable
from ingestor.providers.agile import Api
from ingestor.replies import agile as agile_client
from ingestor.replies.agile import AgileClient, Message, way_in
from ingestor.replies.verdicts import Fate
from tests.servers.agile import ScriptedAgile, drip, newer, plain, refusal, reset, silent

MESSAGE = Message("0b9c", "+393351234567", "MyShop", "Grazie, ciao")


@pytest.fixture
def agile() -> Iterator[ScriptedAgile]:
    """A fake Agile that behaves, until a test writes another script."""
    with ScriptedAgile() as server:
        yield server


def _client(base_url: str, **options: object) -> AgileClient:
    given = {"connect_seconds": 20.0, "answer_seconds": 20.0, "rate": 1000.0, "base_url": base_url, **options}
    return AgileClient(Api.model_construct(**given), {"X-Api-Key": "k3y"})  # type: ignore[arg-type]  # of any fields


def test_one_message_is_one_request_with_our_id_in_both_places(agile: ScriptedAgile) -> None:
    """The body is that of Agile's REST document, and no parameter is left to a default of theirs."""
    verdict = _client(agile.base_url).send(MESSAGE)

    assert (verdict.fate, verdict.parts, verdict.credit) == (Fate.ACCEPTED, 1, Decimal("10.319"))
    assert agile.requests == [{
        "globalId": "0b9c", "maxIdLen": 64, "enableConcatenated": True, "enableUnicode": True,
        "enableDelivery": True, "simulation": False,
        "messages": [{
            "ids": ["0b9c"], "destinations": ["+393351234567"], "sender": "MyShop", "body": "Grazie, ciao",
        }],
    }]  # fmt: skip


def test_both_ways_in_are_spoken(tmp_path: Path) -> None:
    """X-Api-Key as it is, Basic in UTF-8."""
    (tmp_path / "key").write_text("k3y")
    (tmp_path / "password").write_text("p:w")

    assert way_in(Api.model_construct(api_key_file=tmp_path / "key")) == {"X-Api-Key": "k3y"}
    named = Api.model_construct(username="ü", password_file=tmp_path / "password")
    assert way_in(named) == {"Authorization": "Basic w7w6cDp3"}


def test_the_key_is_in_no_representation(agile: ScriptedAgile) -> None:
    """What is printed of a client or a message names neither key nor number nor text."""
    shown = repr(_client(agile.base_url)) + repr(MESSAGE)

    assert not any(private in shown for private in ("k3y", "3351234567", "Grazie"))


@pytest.mark.parametrize("after", [0, 1, 20, 45, 60])
def test_a_reset_after_the_request_is_unknown(agile: ScriptedAgile, after: int) -> None:
    """However much of the answer came: the message may have been accepted."""
    agile.script = [reset(after)]

    assert _client(agile.base_url).send(MESSAGE).fate is Fate.UNKNOWN
    assert len(agile.requests) == 1


@pytest.mark.parametrize("behaviour", [silent, drip])
def test_silence_after_the_request_is_unknown(agile: ScriptedAgile, behaviour: object) -> None:
    """A server that hangs or drips holds a request no longer than it may take as a whole."""
    agile.script = [behaviour]  # type: ignore[list-item]

    assert _client(agile.base_url, answer_seconds=0.4).send(MESSAGE).fate is Fate.UNKNOWN


def test_what_cannot_be_reached_was_not_sent() -> None:
    """A refused connection, an unknown name, and a port where nobody speaks TLS are never `unknown`."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        refused = _client(f"http://127.0.0.1:{port}/services/").send(MESSAGE)
    unresolved = _client("http://nobody.invalid/services/").send(MESSAGE)
    with ScriptedAgile() as server:
        plain_text = _client(server.base_url.replace("http:", "https:")).send(MESSAGE)

    assert {refused.fate, unresolved.fate, plain_text.fate} == {Fate.NOT_SENT}


def test_a_certificate_that_is_not_trusted_stops_the_request(tmp_path: Path) -> None:
    """Nothing is written to a server whose name is not proved; with its authority it is."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with ScriptedAgile() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.base_url.replace("http:", "https:")

        strange = _client(url).send(MESSAGE)
        known = _client(url, ca_file=str(tmp_path / "ca.pem")).send(MESSAGE)

        assert (strange.fate, known.fate) == (Fate.NOT_SENT, Fate.ACCEPTED)
        assert len(server.requests) == 1


def test_nothing_is_tried_again_by_itself(agile: ScriptedAgile) -> None:
    """No refusal, no redirect and no fault makes the client send a second request."""
    faults = [refusal(9, 503), plain(500), plain(302, Location="/services/sms/send"), newer(False, 429)]
    agile.script = list(faults)
    client = _client(agile.base_url)

    fates = [client.send(MESSAGE).fate for _ in faults]

    assert fates == [Fate.LATER, Fate.UNKNOWN, Fate.UNKNOWN, Fate.LATER]
    assert len(agile.requests) == len(faults)


def test_the_credit_is_exact_or_a_sentence(agile: ScriptedAgile) -> None:
    """It comes as a decimal; where Agile does not tell it, one line says why."""
    assert _client(agile.base_url).credit() == Decimal("10.324")

    with pytest.raises(ProviderUnavailable, match="does not tell the credit: never sent: Connection refused"):
        _client("http://127.0.0.1:9/services/").credit()


def test_requests_keep_the_rate(agile: ScriptedAgile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten a second are a tenth of a second apart, counted from the first."""
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    api = Api.model_construct(base_url=agile.base_url, rate=10)
    monkeypatch.setattr(agile_client, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    client = AgileClient(api, {})
    for _ in range(4):
        client.credit()

    assert slept == pytest.approx([0.1, 0.1, 0.1])
