"""The small IMAP server's commands for who is there and which folder is open."""

import asyncio
import re
from typing import TYPE_CHECKING

from tests.servers.imap.box import Box, Message
from tests.servers.imap.line import Line
from tests.servers.imap.words import Words, atom_of

if TYPE_CHECKING:
    from tests.servers.imap.server import ImapServer


class FolderCommands(Line):
    """Login, folders, and which messages the client knows by number."""

    def __init__(
        self, server: "ImapServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(server, reader, writer)
        self.box: Box | None = None
        self.writable = False
        self.view: list[Message] = []
        self.news = asyncio.Event()
        self.logged_in = False

    async def do_capability(self, _: Words) -> bytes:
        await self.line("* CAPABILITY " + " ".join(self._capabilities()))
        return b"OK done"

    def _capabilities(self) -> list[str]:
        offered = list(self.server.capabilities)
        if self.server.starttls is not None and self.writer.get_extra_info("ssl_object") is None:
            offered += ["STARTTLS", "LOGINDISABLED"]
        return offered

    async def do_noop(self, _: Words) -> bytes:
        return b"OK done"

    async def do_logout(self, _: Words) -> bytes:
        await self.line("* BYE see you")
        return b"OK done"

    async def do_starttls(self, _: Words) -> bytes:
        return b"OK begin TLS" if self.server.starttls is not None else b"BAD no TLS here"

    def _welcome(self, accepted: bool) -> bytes:
        self.logged_in = accepted
        return b"OK logged in" if accepted else b"NO [AUTHENTICATIONFAILED] no such user or password"

    async def do_login(self, words: Words) -> bytes:
        username, password = (atom_of(word).decode() for word in words)
        return self._welcome(self.server.accepts(username, password))

    async def do_authenticate(self, words: Words) -> bytes:
        if atom_of(words[0]).upper() != b"PLAIN":
            return b"NO mechanism not offered"
        await self.line("+ ")
        response = await self.reader.readuntil(b"\r\n")
        return self._welcome(self.server.accepts_plain(response))

    async def do_namespace(self, _: Words) -> bytes:
        await self.line(f'* NAMESPACE (("{self.server.prefix}" "{self.server.separator}")) NIL NIL')
        return b"OK done"

    async def do_list(self, words: Words) -> bytes:
        pattern = re.escape(atom_of(words[0]) + atom_of(words[1])).replace(rb"\*", b".*").replace(b"%", b".*")
        for name in self.server.boxes:
            if re.fullmatch(pattern, name.encode()):
                await self.line(f'* LIST () "{self.server.separator}" "{name}"')
        for line in self.server.faults.listed:
            await self.line(line)
        return b"OK done"

    def _box(self, word: "bytes | Words") -> Box | None:
        name = atom_of(word).decode()
        return self.server.boxes.get("INBOX" if name.upper() == "INBOX" else name)

    async def do_create(self, words: Words) -> bytes:
        if self._box(words[0]) is not None:
            return b"NO it exists"
        self.server.boxes[atom_of(words[0]).decode()] = Box(uidvalidity=77)
        return b"OK done"

    async def do_status(self, words: Words) -> bytes:
        box = self._box(words[0])
        if box is None:
            return b"NO [NONEXISTENT] no such folder"
        await self.line(
            f'* STATUS "{atom_of(words[0]).decode()}" (MESSAGES {len(box.messages)} '
            f"UIDNEXT {box.uidnext} UIDVALIDITY {box.uidvalidity})"
        )
        return b"OK done"

    async def do_select(self, words: Words) -> bytes:
        return await self._select(words, writable=True)

    async def do_examine(self, words: Words) -> bytes:
        return await self._select(words, writable=False)

    async def _select(self, words: Words, *, writable: bool) -> bytes:
        self.leave()
        if not self.logged_in:
            return b"NO log in first"
        box = self._box(words[0])
        if box is None:
            return b"NO [NONEXISTENT] no such folder"
        self.box, self.view = box, list(box.messages)
        self.writable = writable and not box.read_only
        box.watchers.add(self.news)
        await self.line("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)")
        await self.line(f"* {len(self.view)} EXISTS")
        await self.line("* 0 RECENT")
        await self.line(f"* OK [UIDVALIDITY {box.uidvalidity}] valid")
        if box.keep_uidnext:
            await self.line(f"* OK [UIDNEXT {box.uidnext}] next")
        return b"OK [READ-WRITE] selected" if self.writable else b"OK [READ-ONLY] selected"

    def leave(self) -> None:
        """Forget the selected box."""
        if self.box is not None:
            self.box.watchers.discard(self.news)
        self.box, self.view = None, []

    async def do_unselect(self, _: Words) -> bytes:
        self.leave()
        return b"OK done"

    async def sync(self) -> bool:
        """Tell the client what came and went in its box; True when there was something to tell."""
        if self.box is None or not self.news.is_set():
            return False
        self.news.clear()
        told = False
        for number in range(len(self.view), 0, -1):
            if self.view[number - 1].gone:
                del self.view[number - 1]
                await self.line(f"* {number} EXPUNGE")
                told = True
        if len(self.view) < len(self.box.messages):
            self.view = list(self.box.messages)
            await self.line(f"* {len(self.view)} EXISTS")
            told = True
        return told
