"""Whether a folder's UIDs still name the mails that were read under them; asked when a folder is opened."""

from collections.abc import Mapping, Sequence

from ingestor.archive.items import Item
from ingestor.archive.rows import keyed
from ingestor.intake.mailbox.fetching import Fetch
from ingestor.intake.mailbox.session import Header
from ingestor.intake.mailbox.standing import MARKED, Mark, Standing, mark_of, names_itself
from ingestor.providers.contract import NotOurs


def marks_of(
    headers: Mapping[int, Header], items: Mapping[int, Item | NotOurs], secret: bytes
) -> dict[int, Mark]:
    """Return the marks of the newest of `headers`; `items` are those mails among them that are ours."""
    marks = {}
    for uid in sorted(headers)[-MARKED:]:
        header, item = headers[uid], items.get(uid)
        key = keyed(item.content_key, secret) if isinstance(item, Item) else b""
        marks[uid] = mark_of(header.lines, header.size, key, secret)
    return marks


def renumbered(standing: Standing, fetch: Fetch, secret: bytes) -> bool:
    """Say whether a mail of `standing` is another one now, or none is left that could tell.

    Of ours the content decides, wherever size and header leave room for doubt: some servers only guess sizes,
    and a mail without a Message-ID may look like the next one. Then its mark is brought up to date.
    """
    headers = _headers(sorted(standing.marks), fetch)
    now = marks_of(headers, {}, secret)
    alike = {uid for uid, mark in now.items() if mark.looks_like(standing.marks[uid])}
    ours = {uid for uid in now if standing.marks[uid].ours}
    # Of strangers' mail a Message-ID is enough: nothing depends on its size, which may be guessed each time.
    alike |= {
        uid for uid, mark in now.items()
        if mark.head == standing.marks[uid].head and uid not in ours and names_itself(headers[uid].lines)
    }  # fmt: skip
    if not now.keys() <= alike | ours:
        return True
    doubtful = {uid: headers[uid] for uid in ours if uid not in alike or not names_itself(headers[uid].lines)}
    items = _items(doubtful, fetch)
    if not doubtful.keys() <= alike | items.keys():  # a body that does not come says nothing by itself
        return True
    now = marks_of({uid: doubtful[uid] for uid in items}, items, secret)
    if any(mark.content != standing.marks[uid].content for uid, mark in now.items()):
        return True
    standing.marks |= now
    return not headers and len(standing.uids) > len(standing.marks) > 0


def mark_newest(standing: Standing, fetch: Fetch, secret: bytes) -> bool:
    """Give marks to the newest mails of `standing` that have none yet; say whether there were any."""
    bare = [uid for uid in standing.uids.newest(MARKED) if uid not in standing.marks]
    headers = _headers(bare, fetch)
    standing.met((), marks_of(headers, _items(fetch.wanted(headers), fetch), secret))
    return bool(headers)


def _headers(uids: Sequence[int], fetch: Fetch) -> dict[int, Header]:
    return {uid: h for portion in fetch.portions(uids) for uid, h in fetch.headers(portion).items()}


def _items(wanted: dict[int, Header], fetch: Fetch) -> dict[int, Item | NotOurs]:
    return {uid: item for group in fetch.groups(wanted) for uid, item in fetch.items(group, wanted).items()}
