"""`ingestor send` and `ingestor credit` against a fake Agile."""

import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.archive.reading import number_of, opened, rows
from tests.cli.calling import PROGRAM, Called
from tests.servers.agile import ScriptedAgile, newer, plain, refusal, reset
from tests.waiting import until

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Desk:
    """A configuration with `[agile.api]` that points to a fake Agile, and the command called with it."""

    agile: ScriptedAgile
    url: str
    config: Path
    called: Callable[..., Called]

    def send(self, *arguments: str) -> Called:
        """Call `send` with a sender and a text."""
        return self.called(
            "--config", str(self.config), "send", "--sender", "MyShop", "--text", "Grazie", *arguments
        )

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what the archive answers."""
        with opened(self.url, read_only=True) as engine:
            return rows(engine, statement)

    def states(self) -> list[str]:
        """Return the state of each message, oldest first."""
        return [state for (state,) in self.rows("SELECT state FROM answers_sent ORDER BY id")]


def config_of(agile: ScriptedAgile, url: str, folder: Path, more: str = "") -> Path:
    """Write a configuration and its key."""
    (folder / "api.key").write_text("k3y-of-the-api\n")
    (folder / "api.key").chmod(0o600)
    config = folder / "ingestor.toml"
    config.write_text(
        f'[database]\nurl = "{url}"\n[agile]\nnumbers = ["+393331234333"]\n[agile.api]\n'
        f'base_url = "{agile.base_url}"\napi_key_file = "{folder / "api.key"}"\n'
        f"connect_seconds = 20\nanswer_seconds = 20\nrate = 500\n{more}"
    )
    return config


@pytest.fixture
def desk(made_archive_url: str, called: Callable[..., Called], tmp_path: Path) -> Iterator[Desk]:
    """A desk with a fresh archive, once on each database."""
    with ScriptedAgile() as agile:
        yield Desk(agile, made_archive_url, config_of(agile, made_archive_url, tmp_path), called)


def test_a_message_is_shown_sent_and_kept(desk: Desk) -> None:
    """Encoding, characters and parts stand first; the row has our id, which is that of the request."""
    done = desk.send("+393351234567", "393351234568")

    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "GSM 7-bit, 6 characters, 1 part"
    assert lines[1].startswith("+393351234567  accepted; id ")
    assert lines[1].endswith(", 1 part, credit 10.319 EUR")
    ids = [request["globalId"] for request in desk.agile.requests]
    assert all(UUID.fullmatch(one) for one in ids)
    assert desk.rows(
        "SELECT message_id, number, text, sender, state, kind FROM answers_sent ORDER BY id"
    ) == [
        (ids[0], "+393351234567", "Grazie", "MyShop", "sent", "command"),
        (ids[1], "+393351234568", "Grazie", "MyShop", "sent", "command"),
    ]


def test_every_parameter_of_the_document_is_reachable(desk: Desk) -> None:
    """Simulation, schedule, HEX, header, no splitting, no UCS-2, no reports, an id of one's own."""
    done = desk.called(
        "--config", str(desk.config), "send", "+393351234567", "--sender", "393331234333", "--text", "00C8",
        "--simulate", "--schedule", "2099-12-08T06:00:00.002+01:00", "--hex-body", "--udh", "050003CC0201",
        "--no-concatenated", "--no-unicode", "--delivery", "--id", "order-17", "--max-id-len", "20",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert desk.agile.requests == [{
        "globalId": "order-17", "maxIdLen": 20, "enableConcatenated": False, "enableUnicode": False,
        "enableDelivery": True, "simulation": True,
        "messages": [{
            "ids": ["order-17"], "destinations": ["+393351234567"], "sender": "393331234333", "body": "00C8",
            "hexBody": True, "udhData": "050003CC0201", "scheduling": "2099-12-08 05:00:00.002+0000",
        }],
    }]  # fmt: skip
    assert "HEX, 2 bytes, 1 part" in done.out
    assert "Agile documents no call that cancels a scheduled message" in done.out
    assert "accepted (simulated)" in done.out
    assert desk.rows("SELECT kind, state FROM answers_sent") == [("simulation", "simulated")]


def test_the_character_that_makes_it_dear_is_named(desk: Desk) -> None:
    """An È turns the text into UCS-2; the text may come from stdin too, without its final line end."""
    done = subprocess.run(
        [PROGRAM, "--config", desk.config, "send", "+393351234567", "--sender", "MyShop", "-"],
        input="È pronto…\n".encode(), capture_output=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[0] == "UCS-2 (because of È, …), 9 characters, 1 part"
    assert desk.agile.requests[0]["messages"][0]["body"] == "È pronto…"


@pytest.mark.parametrize(
    ("behaviour", "words", "state"),
    [
        (refusal(26, 403), "the sender is not allowed", "refused"),
        (refusal(7), "the number is not valid (code 7)", "refused"),
        (newer(False, 403), "Agile's own list", "refused"),
        (plain(200, {"strange": 1}), "it may have been sent", "unknown"),
        (reset(10), "it may have been sent", "unknown"),
        (plain(502), "HTTP 502; it may have been sent", "unknown"),
    ],
)
def test_what_was_not_accepted_is_said_and_never_tried_again(
    desk: Desk, behaviour: Any, words: str, state: str
) -> None:
    """One request, one line in words, exit 1, and the row's state."""
    desk.agile.script = [behaviour]

    done = desk.send("+393351234567")

    assert (done.code, len(desk.agile.requests)) == (1, 1)
    assert words in done.out
    assert desk.states() == [state]


def test_what_was_surely_not_accepted_is_tried_three_times(desk: Desk) -> None:
    """A refusal for now is no end; the same id is used again, and the row counts the attempts."""
    desk.agile.script = [refusal(9, 503, Retry_After="0"), newer(False, 429)]

    done = desk.send("+393351234567")

    assert done.code == 0, done.out
    assert len({request["globalId"] for request in desk.agile.requests}) == 1
    assert desk.rows("SELECT state, attempts FROM answers_sent") == [("sent", 3)]

    desk.agile.script = [refusal(9, 503, Retry_After="0") for _ in range(9)]
    assert desk.send("+393351234567").code == 1
    assert desk.rows("SELECT state, attempts FROM answers_sent WHERE id = 2") == [("refused", 3)]


def test_after_a_refusal_of_the_whole_account_no_further_number_is_tried(desk: Desk) -> None:
    """No credit: the second number gets no request, and both are told."""
    desk.agile.script = [refusal(2, 402)]

    done = desk.send("+393351234567", "+393351234568")

    assert (done.code, len(desk.agile.requests)) == (1, 1)
    assert "insufficient credit" in done.out
    assert "+393351234568  not tried" in done.out


def test_the_row_is_committed_before_the_request_leaves(desk: Desk) -> None:
    """While Agile thinks, the archive has the message as `sending`; a kill leaves it so."""
    killed = threading.Event()
    desk.agile.then = lambda *_: killed.wait(60)
    arguments = ["send", "+393351234567", "--sender", "MyShop", "--text", "Grazie"]
    with subprocess.Popen(
        [PROGRAM, "--config", desk.config, *arguments], stdout=subprocess.DEVNULL
    ) as sending:
        until(lambda: desk.agile.requests)
        assert desk.states() == ["sending"]
        sending.send_signal(signal.SIGKILL)
    killed.set()
    assert desk.states() == ["sending"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["+393351234567", "--sender", "TwelveLetters"], "--sender is no sender"),
        (["+393351234567", "--sender", "12345678901234567"], "--sender is no sender"),
        (["Agile", "--sender", "MyShop"], "is no phone number in international format"),
        (["48888", "--sender", "MyShop"], "is no phone number in international format"),
        (["+393351234567", "--id", "x" * 65], "--id must have 1 to 64 characters"),
        (["+393351234567", "+393351234568", "--id", "x"], "--id is for one number"),
        (["+393351234567", "--max-id-len", "20"], "has no room for a UUID"),
        (["+393351234567", "--hex-body"], "is no HEX"),
        (["+393351234567", "--udh", "0G"], "--udh is no HEX"),
        (["+393351234567", "--udh", "060003CC0201"], "its first byte must say how many follow, 05"),
        (["+393351234567", "--udh", "040003CC02"], "the element 00 in it is cut off"),
        (["+393351234567", "--udh", "050003CC0103"], "it says that this is no part of its message"),
        (["+393351234567", "--schedule", "2020-01-01T10:00Z"], "in the past"),
        (["+393351234567", "--schedule", "2099-01-01T10:00"], "needs an offset"),
        (["+393351234567", "-"], "the text is given twice"),
    ],
)
def test_wrong_usage_is_one_line_and_sends_nothing(desk: Desk, arguments: list[str], says: str) -> None:
    """Exit 2 before anything is written or sent."""
    done = desk.send(*arguments)

    assert done.code == 2
    assert len(done.faults) == 1
    assert says in done.faults[0]
    assert desk.agile.requests == []


@pytest.mark.parametrize(
    ("udh", "body", "room"),
    [
        ("050003CC0201", "x" * 153, "153 septets"),
        ("050003CC0201", "è" * 151 + "€", "153 septets"),
        ("050003CC0201", "È" * 67, "67 UCS-2 characters"),
        ("0605040B8423F0", "0A" * 133, "133 bytes"),
        ("0A0804CC01020105021234", "00" * 129, "129 bytes"),
    ],
)
def test_a_header_and_its_text_fit_into_one_part(desk: Desk, udh: str, body: str, room: str) -> None:
    """What fits leaves as it is; a byte more is refused, with the room that the header leaves."""
    hex_body = ["--hex-body"] if room.endswith("bytes") else []

    def send(text: str) -> Called:
        return desk.called(
            "--config", str(desk.config), "send", "+393351234567", "--sender", "MyShop",
            "--text", text, "--udh", udh, *hex_body,
        )  # fmt: skip

    done, longer = send(body), send(body + body[:2])

    assert (done.code, longer.code, len(desk.agile.requests)) == (0, 2, 1), done.err
    assert desk.agile.requests[0]["messages"][0]["udhData"] == udh
    assert f"it leaves room for {room}, and the text has" in longer.err


def test_a_text_of_more_parts_than_there_can_be_is_refused(desk: Desk) -> None:
    """255 parts leave, 256 do not, as text and as HEX; several parts and no splitting is pointed out."""

    def send(text: str, *more: str) -> Called:
        return desk.called(
            "--config", str(desk.config), "send", "+393351234567", "--sender", "MyShop", "--text", text, *more
        )

    assert send("x" * 153 * 255).code == 0
    assert "the text takes 256 parts" in send("x" * (153 * 255 + 1)).err
    assert (
        "--no-concatenated makes of a text" in send("00" * 134 * 255, "--hex-body", "--no-concatenated").out
    )
    assert "the text takes 256 parts" in send("00" * (134 * 255 + 1), "--hex-body").err
    assert len(desk.agile.requests) == 2


def test_a_sender_without_its_country_tells_no_number_of_ours(desk: Desk) -> None:
    """Somebody who is out of one number of ours is not written to as from it, however it is spelled."""
    out = ["optout", "add", "+393351234567", "--our-number", "+393331234333", "--reason", "by letter"]
    assert desk.send("+393351234568").code == 0
    assert desk.called("--config", str(desk.config), *out).code == 0

    for sender in ("+393331234333", "00393331234333", "393331234333", "3331234333", "MyShop"):
        done = desk.called(
            "--config", str(desk.config), "send", "+393351234567", "--sender", sender, "--text", "x"
        )
        assert (done.code, "is out" in done.out) == (1, True), sender
    assert len(desk.agile.requests) == 1


def test_an_id_is_used_once(desk: Desk) -> None:
    """A report must never join two messages: the second use of an id is refused."""
    assert desk.send("+393351234567", "--id", "order-17").code == 0

    again = desk.send("+393351234567", "--id", "order-17")

    assert (again.code, len(desk.agile.requests)) == (2, 1)
    assert "was sent before" in again.err


def test_json_is_one_object_a_number(desk: Desk) -> None:
    """For scripts: stdout has nothing else."""
    done = desk.send("+393351234567", "--json")

    (line,) = done.out.splitlines()
    told = json.loads(line)
    assert (told["number"], told["outcome"], told["parts"], told["credit"]) == (
        "+393351234567", "accepted", 1, "10.319",
    )  # fmt: skip


def test_credit_is_told_exactly(desk: Desk) -> None:
    """As Agile wrote it, in words and as JSON; a refusal is one line and exit 1."""
    assert desk.called("--config", str(desk.config), "credit").out == "10.324 EUR\n"
    told = desk.called("--config", str(desk.config), "credit", "--json").out
    assert json.loads(told) == {"credit": "10.324", "currency": "EUR"}

    unreachable = desk.config.read_text().replace(desk.agile.base_url, "http://127.0.0.1:9/services/")
    desk.config.write_text(unreachable)
    failed = desk.called("--config", str(desk.config), "credit")
    assert (failed.code, failed.out) == (1, "")
    assert "never sent: Connection refused" in failed.faults[0]


def test_without_the_table_nothing_is_sent(called: Callable[..., Called], tmp_path: Path) -> None:
    """Both commands say what to configure."""
    for arguments in (["credit"], ["send", "+393351234567", "--sender", "MyShop", "--text", "x"]):
        done = called("--database-url", f"sqlite:///{tmp_path}/a.db", *arguments)

        assert done.code == 2
        assert "no [agile.api] in the configuration" in done.faults[0]


def test_a_number_that_is_out_is_refused_unless_forced(desk: Desk) -> None:
    """No request, a row with the reason, exit 1; --force takes a person's words, which are kept."""
    out = ["--config", str(desk.config), "optout", "add", "+393351234567", "--reason", "by letter"]
    assert desk.send("+393351234568").code == 0
    assert desk.called(*out).code == 0

    done = desk.send("+393351234567")
    assert (done.code, len(desk.agile.requests)) == (1, 1)
    assert "is out" in done.out
    assert desk.rows("SELECT state, suppressed FROM answers_sent WHERE id = 2") == [
        ("suppressed", "opted_out")
    ]

    assert (desk.send("+393351234567", "--force", " ").code, len(desk.agile.requests)) == (2, 1)
    assert desk.send("+393351234567", "--force", "she asked for it").code == 0
    assert desk.rows("SELECT state, reason FROM answers_sent WHERE id = 3") == [("sent", "she asked for it")]


def test_the_key_and_the_number_show_nowhere(desk: Desk) -> None:
    """Nothing on stderr names the key, and the log no whole number, whatever goes wrong."""
    for behaviour in (refusal(1, 401), reset(0), plain(200, b"+393351234567 k3y-of-the-api")):
        desk.agile.script = [behaviour]
        done = desk.send("+393351234567")
        assert "k3y" not in done.out + done.err
        assert "3351234567" not in done.err
    assert number_of_messages(desk) == 3


def number_of_messages(desk: Desk) -> int:
    """Return how many rows there are."""
    with opened(desk.url, read_only=True) as engine:
        return number_of(engine, "answers")


def test_a_message_stands_in_its_conversation(desk: Desk) -> None:
    """What was sent is one row of its number, with its state; a simulation is no message."""
    desk.send("+393351234567")
    desk.send("+393351234567", "--simulate")

    assert desk.rows("SELECT number, our_number, direction, text, state FROM conversations") == [
        ("+393351234567", "MyShop", "out", "Grazie", "sent")
    ]
