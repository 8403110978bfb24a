"""What a process does that is killed in the middle: it writes like a mailbox thread does.

It reads its cursor and goes on behind it, a few mails a transaction.
"""

from multiprocessing.synchronize import Event

from ingestor.archive.engine import open_engine
from ingestor.archive.items import Action, CursorMove, Submission
from ingestor.archive.mailbox_state import read_cursor
from ingestor.archive.store import Store
from ingestor.record import Channel
from tests.archive.samples import NOW, broken, item

STEP = 7


def read_on(url: str, run_id: int, last: int, begun: Event) -> None:
    """Store the mails from the cursor on to the last one."""
    engine = open_engine(url)
    store = Store(engine)
    cursor = read_cursor(engine, "main", "INBOX")
    uid = cursor.last_uid if cursor else 0
    begun.set()
    while uid < last:
        uids = range(uid + 1, min(uid + STEP, last) + 1)
        mails = tuple(
            (broken if n % 11 == 0 else item)(n, channel=Channel.MAILBOX, raw=b"mail %d" % n * 300)
            for n in uids
        )
        move = CursorMove("main", "INBOX", 7, uids[-1])
        store.write([Submission(run_id, mails, ignored=1, cursor=move, after_store=Action.SEEN)], NOW)
        uid = uids[-1]
    engine.dispose()
