"""What a process does that is killed in the middle: it stores SMS, and hears the STOPs among them."""

from multiprocessing.synchronize import Event

from ingestor.archive.engine import open_engine
from ingestor.archive.items import Submission
from ingestor.archive.queries import counts
from ingestor.replies.opt_outs import hearing_store
from ingestor.replies.scanning import begin_scan, scan
from ingestor.replies.words import Words
from ingestor.settings import OptOut
from tests.archive.samples import NOW
from tests.replies.given import said

WORDS = ("STOP", "hello", "please stop", "START", "STOP ALL")


def words_of_sms(number: int) -> str:
    """Return what SMS `number` says."""
    return WORDS[number % len(WORDS)]


def store_on(url: str, last: int, begun: Event) -> None:
    """Store the SMS up to the last one, a few a transaction; those that are there already are duplicates."""
    engine = open_engine(url)
    store = hearing_store(engine, OptOut())
    first = counts(engine).sms
    begun.set()
    for start in range(max(0, first - 3), last, 7):
        items = [said(number, words_of_sms(number)) for number in range(start, min(start + 7, last))]
        store.write([Submission(None, tuple(items))], NOW)
    engine.dispose()


def scan_on(url: str, last: int, begun: Event) -> None:
    """Read all SMS for opt-outs, from where the last one stopped."""
    engine = open_engine(url)
    begin_scan(engine, Words())
    begun.set()
    assert list(scan(engine, Words()))
    engine.dispose()
