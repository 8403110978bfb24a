"""A row in every table of what leaves, for tests of the archive."""

from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from ingestor.archive.engine import writing
from ingestor.archive.store import Store
from ingestor.intake.listener.posts import ReceivedPost, submission_of
from ingestor.providers.contract import Post, Rules
from ingestor.replies.agile import Message
from ingestor.replies.answers import Decision, Kind, claim, decide
from ingestor.replies.opt_outs import number_hmac, read_secret
from tests.archive.samples import NOW


def add_rows_of_replies(engine: Engine) -> None:
    """Add a message with its claim, and a report about it."""
    with writing(engine) as connection:
        message = Message("m-1", "+393351234567", "MyShop", "Grazie")
        secret = read_secret(connection)
        hashed = number_hmac(secret, message.number)
        answer_id = decide(connection, secret, hashed, Decision(Kind.COMMAND, message), NOW)
        assert answer_id is not None
        assert claim(connection, answer_id, 1, NOW)
    body = b'{"messageId": "m-1", "statusCode": 3, "description": "Delivered"}'
    post = ReceivedPost(bytes(16), "reports-1", "agile-reports", "127.0.0.1", Post(body, b"", "", NOW))
    submission = submission_of(post, {"agile-reports": Rules(ZoneInfo("UTC"))})
    assert submission is not None
    Store(engine).write([submission._replace(run_id=None)], NOW)
