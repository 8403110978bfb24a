"""One connection of the small IMAP server: reads commands, sends answers, and commits the scripted faults."""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tests.servers.imap.words import Words, words_of

if TYPE_CHECKING:
    from tests.servers.imap.server import ImapServer

_LITERAL_AT_END = re.compile(rb"\{(\d+)(\+?)\}\r\n\Z")


class Line:
    """One client's line: commands in, answers and scripted faults out."""

    def __init__(
        self, server: "ImapServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.command = "GREETING"
        self._sent = 0

    async def send(self, data: bytes) -> None:
        """Send `data`, with whatever the script wants to go wrong."""
        faults = self.server.faults
        if faults.silent:
            await asyncio.sleep(3600)
        limit = faults.cut.get(self.command, faults.cut_always.get(self.command))
        if limit is not None and self._sent + len(data) >= limit:
            self.writer.write(data[: max(0, limit - self._sent)])
            faults.cut.pop(self.command, None)
            await self.writer.drain()
            raise EOFError
        self._sent += len(data)
        if faults.split_lines and data.startswith(b"* ") and len(data) > 8:
            self.writer.write(data[:6])
            await self.writer.drain()
            await asyncio.sleep(0.02)
            data = data[6:]
        self.writer.write(data)
        await self.writer.drain()

    async def line(self, text: str) -> None:
        await self.send(text.encode() + b"\r\n")

    def abort(self) -> None:
        """Close with a reset."""
        connected = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it may be closed already
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def read_command(self) -> bytes:
        """Return one command with its literals, without the last line end."""
        data = await self.reader.readuntil(b"\r\n")
        while literal := _LITERAL_AT_END.search(data):
            if not literal[2]:
                await self.line("+ go on")
            data += await self.reader.readexactly(int(literal[1]))
            data += await self.reader.readuntil(b"\r\n")
        return data[:-2]

    async def run(self) -> None:
        """Converse until the client leaves or is cut off."""
        await self.line("* OK ready")
        while True:
            data = await self.read_command()
            tag, _, rest = data.partition(b" ")
            name, _, arguments = rest.partition(b" ")
            if name.upper() == b"UID":
                verb, _, arguments = arguments.partition(b" ")
                name += b" " + verb
            self.command, self._sent = name.decode("ascii", "replace").upper(), 0
            self.server.commands.append(self.command)
            faults = self.server.faults
            if faults.on_command is not None:
                faults.on_command(self.command, arguments)
            if faults.delay:
                await asyncio.sleep(faults.delay)
            answer = faults.refuse.get(self.command) or await self._answer(arguments)
            await self.send(tag + b" " + answer + b"\r\n")
            if self.command == "LOGOUT":
                return
            if self.command == "STARTTLS" and answer.startswith(b"OK") and self.server.starttls is not None:
                await self.writer.start_tls(self.server.starttls)

    async def _answer(self, arguments: bytes) -> bytes:
        handler: Callable[[Words], Awaitable[bytes]] | None
        handler = getattr(self, "do_" + self.command.replace(" ", "_").lower(), None)
        if handler is None:
            return b"BAD unknown command"
        try:
            answer: bytes = await handler(words_of(arguments))
        except (ValueError, IndexError, KeyError):
            return b"BAD arguments"
        # RFC 3501 7.4.1: message numbers must not change under commands that use them.
        if self.command not in ("FETCH", "STORE", "SEARCH", "IDLE"):
            await self.sync()
        return answer

    async def sync(self) -> bool:
        """Tell the client what came and went; True when there was something to tell."""
        return False
