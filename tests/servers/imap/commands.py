"""The small IMAP server's commands for messages: SEARCH, FETCH, STORE, COPY, MOVE, APPEND and IDLE."""

import asyncio
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from tests.servers.imap.box import Box, Message
from tests.servers.imap.folders import FolderCommands
from tests.servers.imap.words import Words, atom_of, pick_fields, ranges_of

_FIELDS = re.compile(rb"BODY(?:\.PEEK)?\[HEADER\.FIELDS \(([^)]*)\)\](?:<(\d+)\.(\d+)>)?", re.IGNORECASE)
_BODY = re.compile(rb"BODY(?:\.PEEK)?\[(HEADER|TEXT|)\](?:<(\d+)\.(\d+)>)?", re.IGNORECASE)
_KEYWORDS = {
    b"SEEN": ("\\Seen", True),
    b"UNSEEN": ("\\Seen", False),
    b"DELETED": ("\\Deleted", True),
    b"UNDELETED": ("\\Deleted", False),
}
_uid = attrgetter("uid")


class Conversation(FolderCommands):
    """One client's connection with every command."""

    def _chosen(self, word: "bytes | Words", *, by_uid: bool) -> Iterator[tuple[int, Message]]:
        """Yield number and message of a sequence set, in the set's order."""
        largest = len(self.view)
        if by_uid:
            largest = self.view[-1].uid if self.view else 0
        for low, high in ranges_of(atom_of(word), largest):
            if by_uid:
                first = bisect_left(self.view, low, key=_uid)
                last = bisect_right(self.view, high, key=_uid)
            else:
                first, last = max(0, low - 1), min(high, len(self.view))
            yield from ((number + 1, self.view[number]) for number in range(first, last))

    async def do_search(self, words: Words) -> bytes:
        return await self._search(words, by_uid=False)

    async def do_uid_search(self, words: Words) -> bytes:
        return await self._search(words, by_uid=True)

    async def _search(self, words: Words, *, by_uid: bool) -> bytes:
        found: dict[int, int] | None = None
        left = iter(atom_of(word).upper() for word in words)
        for word in left:
            if word == b"CHARSET":
                return b"NO [BADCHARSET] not spoken here"
            if word in (b"SINCE", b"BEFORE"):
                next(left)  # every mail here is of today
            elif word in _KEYWORDS:
                flag, wanted = _KEYWORDS[word]
                chosen = {n: m.uid for n, m in enumerate(self.view, 1) if (flag in m.flags) is wanted}
                found = chosen if found is None else {n: u for n, u in found.items() if n in chosen}
            elif word != b"ALL":
                numbers = next(left) if word == b"UID" else word
                chosen = {n: m.uid for n, m in self._chosen(numbers, by_uid=word == b"UID")}
                found = chosen if found is None else {n: u for n, u in found.items() if n in chosen}
        if found is None:
            found = {number: message.uid for number, message in enumerate(self.view, 1)}
        hits = [uid if by_uid else number for number, uid in found.items()]
        chunk = self.server.faults.search_chunk
        while chunk is not None and len(hits) > chunk:
            await self.line("* SEARCH" + "".join(f" {hit}" for hit in hits[:chunk]))
            hits = hits[chunk:]
        line = "* SEARCH" + "".join(f" {hit}" for hit in hits)
        if self.server.faults.search_line is not None:
            line += " 1" * (max(0, self.server.faults.search_line - len(line)) // 2)
        await self.line(line)
        return b"OK done"

    async def do_fetch(self, words: Words) -> bytes:
        return await self._fetch(words, by_uid=False)

    async def do_uid_fetch(self, words: Words) -> bytes:
        return await self._fetch(words, by_uid=True)

    async def _fetch(self, words: Words, *, by_uid: bool) -> bytes:
        asked = [atom_of(w) for w in words[1]] if isinstance(words[1], list) else [words[1]]
        faults = self.server.faults
        for number, message in list(self._chosen(words[0], by_uid=by_uid)):
            if message.gone:
                continue
            if faults.missing_row.get(message.uid, 0) > 0:
                faults.missing_row[message.uid] -= 1
                continue
            if faults.foreign_rows:
                await self.line(f"* {number} FETCH (FLAGS (\\Flagged))")
                await self.line("* 1 FETCH (FLAGS (\\Answered))")
            row = b"* %d FETCH (UID %d" % (number, message.uid)
            for item in asked:
                row += self._item(item, message)
            whole_body = b"BODY[]" in row
            if message.uid in faults.cut_body_of and whole_body:
                await self.send(row[: len(row) // 2 + 20])
                raise EOFError
            await self.send(row + b")\r\n")
        return b"OK done"

    def _item(self, item: bytes, message: Message) -> bytes:
        name = item.upper()
        if name == b"UID":
            return b""
        if name == b"FLAGS":
            return b" FLAGS (%s)" % " ".join(sorted(message.flags)).encode()
        if name == b"RFC822.SIZE":
            return b" RFC822.SIZE %d" % message.size
        header, _, text = message.raw.partition(b"\r\n\r\n")
        if fields := _FIELDS.fullmatch(item):
            picked = pick_fields(header, fields[1]) + b"\r\n"
            section = b"BODY[HEADER.FIELDS (%s)]" % fields[1]
            if fields[2] is not None:
                picked = picked[int(fields[2]) : int(fields[2]) + int(fields[3])]
                section += b"<%s>" % fields[2]
            return b" %s {%d}\r\n%s" % (section, len(picked), picked)
        body = _BODY.fullmatch(item)
        if body is None:
            raise ValueError("unknown FETCH item")
        missing = self.server.faults.missing_body
        if missing.get(message.uid, 0) > 0 and not body[1]:
            missing[message.uid] -= 1
            return b""
        if self.writable and b".PEEK" not in name:
            message.flags.add("\\Seen")
        empty = self.server.faults.empty_body
        if empty.get(message.uid, 0) > 0 and not body[1]:
            empty[message.uid] -= 1
            return b" BODY[] {0}\r\n"
        part = {b"": message.raw, b"HEADER": header + b"\r\n\r\n", b"TEXT": text}[body[1].upper()]
        if body[2] is None:
            return b" BODY[%s] {%d}\r\n%s" % (body[1], len(part), part)
        part = part[int(body[2]) : int(body[2]) + int(body[3])]
        return b" BODY[%s]<%s> {%d}\r\n%s" % (body[1], body[2], len(part), part)

    def _may_write(self) -> Box:
        if self.box is None or not self.writable:
            raise ValueError("read-only")
        return self.box

    async def do_uid_store(self, words: Words) -> bytes:
        self._may_write()
        flags = words[2] if isinstance(words[2], list) else [words[2]]
        names = {atom_of(flag).decode() for flag in flags}
        operation = atom_of(words[1]).upper()
        for _, message in self._chosen(words[0], by_uid=True):
            if operation.startswith(b"+"):
                message.flags |= names
            elif operation.startswith(b"-"):
                message.flags -= names
            else:
                message.flags = set(names)
        return b"OK done"

    async def do_uid_copy(self, words: Words) -> bytes:
        target = self._box(words[1])
        if target is None:
            return b"NO [TRYCREATE] no such folder"
        for _, message in self._chosen(words[0], by_uid=True):
            target.deliver(message.source, message.flags, message.size)
        return b"OK done"

    async def do_uid_move(self, words: Words) -> bytes:
        box = self._may_write()
        chosen = [message for _, message in self._chosen(words[0], by_uid=True)]
        answer = await self.do_uid_copy(words)
        if answer.startswith(b"OK"):
            box.remove(chosen)
        return answer

    async def do_uid_expunge(self, words: Words) -> bytes:
        chosen = [m for _, m in self._chosen(words[0], by_uid=True) if "\\Deleted" in m.flags]
        self._may_write().remove(chosen)
        return b"OK done"

    async def do_expunge(self, _: Words) -> bytes:
        box = self._may_write()
        box.remove([message for message in box.messages if "\\Deleted" in message.flags])
        return b"OK done"

    async def do_append(self, words: Words) -> bytes:
        box = self._box(words[0])
        if box is None:
            return b"NO [TRYCREATE] no such folder"
        flags = words[1] if isinstance(words[1], list) else []
        box.deliver(atom_of(words[-1]), [atom_of(flag).decode() for flag in flags])
        return b"OK done"

    async def do_idle(self, _: Words) -> bytes:
        faults = self.server.faults
        together = b"+ idling\r\n"
        if self.box is not None and (raw := faults.exists_before_continuation) is not None:
            faults.exists_before_continuation = None
            self.box.deliver(raw)
            await self.sync()
        if self.box is not None and (raw := faults.exists_with_continuation) is not None:
            faults.exists_with_continuation = None
            self.box.deliver(raw)
            self.view = list(self.box.messages)
            self.news.clear()
            together += b"* %d EXISTS\r\n" % len(self.view)
        elif await self.sync():
            pass  # what came between the last command and IDLE
        await self.send(together)
        if faults.bye_in_idle:
            await self.line("* BYE going down")
            raise EOFError
        done = asyncio.ensure_future(self.reader.readuntil(b"\r\n"))
        try:
            await self._push_until(done)
            await done
        finally:
            done.cancel()
        return b"OK done"

    async def _push_until(self, done: "asyncio.Future[bytes]") -> None:
        """Push what comes and goes until the client says DONE."""
        while not done.done():
            if self.server.faults.quiet_idle:
                await asyncio.wait({done})
                return
            news = asyncio.ensure_future(self.news.wait())
            try:
                waited: set[asyncio.Future[Any]] = {done, news}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            if not done.done() and await self.sync():
                self.server.pushed()
