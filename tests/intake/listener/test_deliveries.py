"""Deliveries that providers make, from their documented payloads to rows."""

from zoneinfo import ZoneInfo

import pytest

from ingestor.archive.items import Item, Submission
from ingestor.archive.payloads import pack, unpack
from ingestor.archive.rows import mail_content_key
from ingestor.providers import mail_reader
from ingestor.providers.contract import Rules
from ingestor.record import Channel
from tests.intake.listener.client import post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import AGILE, INFOBIP, IP1, Stand, rules
from tests.providers.conformance.samples import Sample, every_sample, samples

PATHS = {"agile": AGILE, "infobip": INFOBIP, "ip1": IP1}
JSON = "application/json"


def _guide(provider: str) -> Sample:
    return next(one for one in samples(provider) if one.name == "documented")


def test_agiles_guide_is_answered_with_three_bytes(archived: Stand) -> None:
    """The guide's own POST is stored and answered 200, text/plain, and exactly `+OK`."""
    answer = archived.ask(post(AGILE, _guide("agile").post.body))

    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/plain", b"+OK")
    assert archived.rows(
        "SELECT provider, channel, originator, originator_kind, destination, date_time, text, arrivals"
        " FROM inbound_sms"
    ) == [("agile", "webhook", "+393351234567", "msisdn", "+393331234333", "20260514102301", "News ON", 1)]


def test_infobips_document_fills_its_columns(archived: Stand) -> None:
    """Every column that Infobip's document speaks of is filled from it, and the answer is 200."""
    answer = archived.ask(post(INFOBIP, _guide("infobip").post.body, content_type=JSON))

    assert answer.status == 200
    assert archived.rows(
        "SELECT originator, destination, date_time, text, keyword, clean_text, provider_message_id, segments"
        " FROM inbound_sms"
    ) == [(
        "+385916242493", "+385921004026", "20161006092839", "QUIZ Correct answer is Paris", "QUIZ",
        "Correct answer is Paris", "817790313235066447", 1,
    )]  # fmt: skip


def test_ip1s_document_is_stored_under_its_id(archived: Stand) -> None:
    """IP1's sample is one row, unique by its id, and the answer is 200."""
    answer = archived.ask(post(IP1, _guide("ip1").post.body, content_type=JSON))

    assert answer.status == 200
    assert archived.rows("SELECT originator, destination, text, provider_message_id FROM inbound_sms") == [
        ("+46712345678", "+456189040623", "Hi my name is earl", "5c613848879973045cf39ac4")
    ]


def test_every_sample_ends_as_its_file_says_and_is_kept_whole(archived: Stand) -> None:
    """Each sample payload of each provider becomes rows or quarantined items; its raw bytes stay."""
    everything = [sample for sample in every_sample() if not sample.rules.numbers]
    for sample in everything:
        path = PATHS[sample.provider] + (f"?{sample.post.query.decode()}" if sample.post.query else "")
        answer = archived.ask(post(path, sample.post.body, content_type=sample.post.content_type))
        assert answer.status == 200, sample.name

    items = [reading for sample in everything for reading in sample.readings]
    quarantined = sum("quarantined" in reading for reading in items)
    [(arrivals,)] = archived.rows("SELECT count(*) FROM arrivals")
    [(unread,)] = archived.rows("SELECT count(*) FROM quarantine")
    [(payloads,)] = archived.rows("SELECT count(*) FROM payloads")
    assert (arrivals, unread) == (len(items), quarantined)
    assert payloads == sum(bool(sample.readings) for sample in everything)


def test_several_results_are_several_rows_of_one_submission(stand: Stand) -> None:
    """An Infobip POST is handed to the writer whole: one submission, its items numbered from 0."""
    sample = next(one for one in samples("infobip") if one.name == "one_good_among_bad")

    assert stand.ask(post(INFOBIP, sample.post.body, content_type=JSON)).status == 200

    [(submission, _)] = stand.at_hand.taken
    assert [item.number for item in submission.items] == [0, 1, 2, 3, 4]
    assert len({item.content_key for item in submission.items}) == 1
    assert [item.payload is not None for item in submission.items] == [True, False, False, False, False]


def test_no_results_are_accepted_and_leave_nothing(archived: Stand) -> None:
    """An empty `results` is answered 200, and nothing is written for it."""
    assert archived.ask(post(INFOBIP, b'{"results": []}', content_type=JSON)).status == 200

    assert archived.rows("SELECT count(*) FROM arrivals") == [(0,)]


def test_retries_and_the_mail_of_one_sms_are_one_row(archived: Stand) -> None:
    """The POST, its retries after 15 minutes, and the mail of the same SMS: one row, four arrivals."""
    body = _guide("agile").post.body
    mail = (
        b"From: smsin@agiletelecom.com\r\nSubject: Agile Telecom -- SMS received\r\n\r\n"
        b"From: +393351234567\r\nTo: +393331234333\r\nDate/Time: 20260514102301\r\nBody: News ON\r\n"
    )
    for _ in range(3):
        assert archived.ask(post(AGILE, body)).body == b"+OK"

    now = _guide("agile").post.arrived_at
    reading = mail_reader("agile").read_mail(mail, Rules(zone=ZoneInfo("Europe/Rome")))
    item = Item(reading, Channel.MAILBOX, "main", mail_content_key(mail), now, pack(mail))
    assert archived.writer is not None
    archived.writer.submit(Submission(None, (item,))).result(30)

    assert archived.rows("SELECT text, channel, arrivals FROM inbound_sms") == [("News ON", "webhook", 4)]


def test_a_foreign_number_is_accepted_and_quarantined(make_stand: MakeStand) -> None:
    """A message for a number that is not ours is answered as accepted: a refusal would lose it."""
    stand = make_stand(listener_rules=rules(numbers=frozenset({"+393330000000"})))

    assert stand.sms(1).body == b"+OK"

    [(submission, _)] = stand.at_hand.taken
    assert "not one of our numbers" in submission.items[0].reading.reason


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/xml", "", "multipart/form-data; boundary=b"]
)
def test_what_cannot_be_read_is_kept_with_its_content_type(archived: Stand, content_type: str) -> None:
    """Any body at the right path is accepted; its bytes and content type wait in the quarantine."""
    body = b"\x00\xff nothing that anybody can read"

    assert archived.ask(post(AGILE, body, content_type=content_type)).body == b"+OK"

    [(channel, source, reason, size)] = archived.rows("SELECT channel, source, reason, size FROM quarantine")
    assert (channel, source, size) == ("webhook", "agile-1", len(body))
    assert reason == "the field originator is missing"
    assert archived.rows("SELECT content_type FROM payloads") == [(content_type,)]


def test_arrivals_name_the_endpoint_and_the_peer_but_no_path(archived: Stand) -> None:
    """Provenance is the endpoint's name and the client's address; the secret path is nowhere."""
    archived.sms(1)

    assert archived.rows("SELECT source, peer, parser FROM arrivals_detail") == [
        ("agile-1", "127.0.0.1", "agile.form/1")
    ]


def test_new_rules_count_from_the_next_post(stand: Stand) -> None:
    """A reload changes how POSTs are read, without a restart."""
    stand.sms(1)
    stand.listener.reload(rules(numbers=frozenset({"+393330000000"})))
    stand.sms(2)

    readings = [submission.items[0].reading for submission, _ in stand.at_hand.taken]
    assert [hasattr(reading, "sms") for reading in readings] == [True, False]


def test_a_chunked_body_is_the_same_body(stand: Stand) -> None:
    """A proxy may send the body in chunks, with extensions and trailers."""
    body = sms(1)
    chunked = b"".join(b"%x;a=b\r\n%b\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
    request = post(AGILE, chunked + b"0\r\nX-Trailer: 1\r\n\r\n", "Transfer-Encoding: chunked")

    assert stand.ask(request).body == b"+OK"
    [(submission, _)] = stand.at_hand.taken
    assert submission.items[0].payload is not None
    assert unpack(submission.items[0].payload.compressed) == body


def test_many_requests_on_one_connection_are_answered_in_order(stand: Stand) -> None:
    """Keep-alive and pipelining: each request has its own answer, refusals end the connection."""
    with stand.client() as client:
        client.send(b"".join(post(AGILE, sms(number)) for number in range(50)))
        assert [client.answer().body for _ in range(50)] == [b"+OK"] * 50
        assert client.ask(post(INFOBIP, b"{}", content_type=JSON)).body == b""
        assert client.ask(post("/nowhere", b"")).status == 404
        assert client.rest() == b""


def test_a_client_that_waits_for_continue_is_told_to_go_on(stand: Stand) -> None:
    """`Expect: 100-continue` is answered before the body, once the head has passed the gate."""
    body = sms(1)
    with stand.client() as client:
        head = post(AGILE, b"", f"Content-Length: {len(body)}", "Expect: 100-continue")
        assert client.ask(head).status == 100
        assert client.ask(body).body == b"+OK"
        refused = client.ask(post("/nowhere", b"", f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert refused.status == 404


def test_http_1_0_is_answered_and_ended(stand: Stand) -> None:
    """nginx speaks HTTP/1.0 to its upstreams unless told otherwise."""
    body = sms(1)
    with stand.client() as client:
        client.send(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (AGILE.encode(), len(body), body))
        assert client.answer().headers["connection"] == "close"
        assert client.rest() == b""


def test_a_half_closed_connection_still_gets_its_answer(stand: Stand) -> None:
    """A client that ends its side behind the request hears that it was taken."""
    with stand.client() as client:
        client.send(post(AGILE, sms(1)))
        client.socket.shutdown(1)
        assert client.answer().body == b"+OK"
