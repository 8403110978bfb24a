"""POSTs that come together become durable together, and none waits for another's sake."""

import time

from tests.intake.listener.client import post, sms
from tests.intake.listener.stand import AGILE, Stand, finish

CROWD = 20


def test_a_crowd_needs_few_commits(stand: Stand) -> None:
    """Twenty POSTs sent at once reach the writer in a few submissions, each POST in one of them."""
    clients = [stand.client() for _ in range(CROWD)]
    service = stand.listener._service
    assert service is not None
    while len(service._connections) < CROWD:
        time.sleep(0.01)
    time.sleep(0.1)
    service._loop.call_soon_threadsafe(time.sleep, 0.5)  # then the loop finds all of them waiting
    for number, client in enumerate(clients):
        client.send(post(AGILE, sms(number)))
    for client in clients:
        assert client.answer().body == b"+OK"
    sizes = [len(submission.items) for submission, _ in stand.at_hand.taken]
    assert sum(sizes) == CROWD
    assert len(sizes) <= CROWD // 2


def test_a_lone_post_is_handed_on_at_once(stand: Stand) -> None:
    """Whoever comes alone is a submission of its own."""
    for number in range(3):
        assert stand.sms(number).body == b"+OK"
    assert [len(submission.items) for submission, _ in stand.at_hand.taken] == [1, 1, 1]


def test_a_slow_writer_holds_up_nobody_else(stand: Stand) -> None:
    """While POSTs wait for the database, others are answered; the POSTs are, too, once durable."""
    stand.at_hand.silent = True
    with stand.client() as waiting:
        waiting.send(post(AGILE, sms(1)))
        while not stand.at_hand.taken:
            time.sleep(0.01)
        began = time.monotonic()
        for _ in range(50):
            assert stand.ask(post("/nothing/here", b"")).status == 404
        assert time.monotonic() - began < 5
        for submission, future in stand.at_hand.taken:
            finish(submission, future)
        assert waiting.answer().body == b"+OK"
