"""An IMAP server that answers as a test tells it to: for words that no server at hand says."""

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

CAPABILITIES = "IMAP4rev1 IDLE UIDPLUS MOVE"

_COMMAND = re.compile(rb"(\S+) ((?:UID )?[A-Za-z]+) ?(.*)", re.DOTALL)


class Gone(Exception):
    """The connection is over."""


@dataclass
class Message:
    """One mail of a folder; line ends are CRLF."""

    uid: int
    raw: bytes
    flags: set[bytes] = field(default_factory=set)


@dataclass
class Script:
    """What the server holds, and how its answers differ from an honest server's."""

    folders: dict[str, list[Message]] = field(default_factory=lambda: {"INBOX": []})
    """Mails by the name that LIST and SELECT use on the wire."""
    capabilities: str = CAPABILITIES
    uidvalidity: str = "777"
    uidnext: str | None = "honest"
    instead: dict[int, list[bytes]] = field(default_factory=dict)
    """UID to what its next fetches of BODY[] give, used up one by one."""
    bare: dict[int, int] = field(default_factory=dict)
    """UID to how many more times its header comes without a field."""
    search_chunk: int | None = None
    """SEARCH answers with one line for each so many numbers."""
    listed: list[bytes] = field(default_factory=list)
    """Lines of LIST beside those of `folders`."""
    refuse: dict[str, bytes] = field(default_factory=dict)
    """Command to the tagged answer that it gets."""
    hang_up_over: set[int] = field(default_factory=set)
    """UIDs at whose FETCH, of whatever, the server says BYE and closes."""
    on_command: "Callable[[Talk, str, bytes, bytes], bool] | None" = None
    """Called with the connection, the command, its arguments and its tag; True: it has answered itself."""


class ScriptedImap:
    """Serves `script` on a loopback port of its own, a thread a connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.lock = threading.RLock()
        self.commands: list[str] = []
        """Every command of every connection, in order."""
        self._highest: dict[str, int] = {}
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(Gone, OSError):
                    Talk(outer, self.request).run()

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads = True, True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    @contextlib.contextmanager
    def running(self) -> "Iterator[ScriptedImap]":
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(5)

    def add(self, raw: bytes, folder: str = "INBOX") -> int:
        """Add a mail behind the others and return its UID."""
        with self.lock:
            box = self.script.folders[folder]
            uid = self.next_uid(folder)
            box.append(Message(uid, raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")))
            return uid

    def next_uid(self, folder: str) -> int:
        """Return the UID of the next mail: never one that was there before."""
        highest = max((one.uid for one in self.script.folders[folder]), default=0)
        self._highest[folder] = max(self._highest.get(folder, 0), highest)
        return self._highest[folder] + 1

    def uids(self, folder: str = "INBOX") -> list[int]:
        """Return the UIDs that a folder holds."""
        with self.lock:
            return [one.uid for one in self.script.folders[folder]]


class Talk:
    """One connection."""

    def __init__(self, server: ScriptedImap, connection: socket.socket) -> None:
        self.server = server
        self.script = server.script
        self.connection = connection
        self.folder = ""
        self._buffer = b""
        self._known = 0

    @property
    def box(self) -> list[Message]:
        """The mails of the folder that is open."""
        return self.script.folders[self.folder]

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.connection.sendall(data)

    def end(self, tag: bytes, words: bytes = b"OK done") -> bool:
        """Send the tagged answer."""
        self.send(tag + b" " + words + b"\r\n")
        return True

    def hang_up(self, farewell: bytes = b"* BYE Internal error occurred.\r\n") -> bool:
        """Close, after a farewell."""
        self.send(farewell)
        self.connection.close()
        raise Gone

    def line(self, seconds: float = 60.0) -> bytes:
        """Return the next line of the client, literals within it."""
        self.connection.settimeout(seconds)
        while b"\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        line = line.rstrip(b"\r")
        if literal := re.search(rb"\{(\d+)(\+?)\}$", line):
            if not literal[2]:
                self.send(b"+ go on\r\n")
            size = int(literal[1])
            while len(self._buffer) < size:
                self._more()
            whole, self._buffer = self._buffer[:size], self._buffer[size:]
            return line[: literal.start()] + whole + self.line(seconds)
        return line

    def _more(self) -> None:
        data = self.connection.recv(65536)
        if not data:
            raise Gone
        self._buffer += data

    def run(self) -> None:
        """Greet, and answer until the connection is over."""
        if not self._told("GREETING", b"", b"*"):
            self.send(f"* OK [CAPABILITY {self.script.capabilities}] ready\r\n".encode())
        while True:
            match = _COMMAND.match(self.line())
            if match is None:
                raise Gone
            tag, command, arguments = match[1], match[2].decode().upper(), match[3]
            if not self._told(command, arguments, tag):
                with self.server.lock:
                    getattr(self, "_" + command.lower().replace(" ", "_"), self._unknown)(tag, arguments)

    def _told(self, command: str, arguments: bytes, tag: bytes) -> bool:
        self.server.commands.append(command)
        hook = self.script.on_command
        if hook is not None and hook(self, command, arguments, tag):
            return True
        if command in self.script.refuse:
            return self.end(tag, self.script.refuse[command])
        return False

    def _unknown(self, tag: bytes, _: bytes) -> None:
        self.end(tag, b"BAD no such command")

    def _capability(self, tag: bytes, _: bytes) -> None:
        self.send(f"* CAPABILITY {self.script.capabilities}\r\n".encode())
        self.end(tag)

    def _login(self, tag: bytes, _: bytes) -> None:
        self.end(tag)

    _noop = _create = _login

    def _logout(self, tag: bytes, _: bytes) -> None:
        self.send(b"* BYE\r\n")
        self.end(tag)

    def _list(self, tag: bytes, _: bytes) -> None:
        for line in [f'* LIST () "/" "{name}"'.encode() for name in self.script.folders] + self.script.listed:
            self.send(line + b"\r\n")
        self.end(tag)

    def _select(self, tag: bytes, arguments: bytes, state: bytes = b"READ-WRITE") -> None:
        name = arguments.strip(b'"').decode()
        if name not in self.script.folders:
            self.end(tag, b"NO [NONEXISTENT] no such folder")
            return
        self.folder, self._known = name, len(self.script.folders[name])
        self.send(f"* {len(self.box)} EXISTS\r\n* OK [UIDVALIDITY {self.script.uidvalidity}] v\r\n".encode())
        if self.script.uidnext is not None:
            honest = str(self.server.next_uid(name))
            following = honest if self.script.uidnext == "honest" else self.script.uidnext
            self.send(f"* OK [UIDNEXT {following}] n\r\n".encode())
        self.end(tag, b"OK [" + state + b"] done")

    def _examine(self, tag: bytes, arguments: bytes) -> None:
        self._select(tag, arguments, b"READ-ONLY")

    def chosen(self, numbers: bytes, *, by_uid: bool = True) -> list[tuple[int, Message]]:
        """Return the mails of a set with their sequence numbers; `*` is the last one."""
        counted = list(enumerate(self.box, 1))
        if not counted:
            return []
        last = counted[-1][1].uid if by_uid else counted[-1][0]
        wanted: list[tuple[int, int]] = []
        for part in numbers.split(b","):
            ends = [last if end == b"*" else int(end) for end in part.split(b":")]
            wanted.append((min(ends), max(ends)))
        return [
            (number, one) for number, one in counted
            if any(low <= (one.uid if by_uid else number) <= high for low, high in wanted)
        ]  # fmt: skip

    def _uid_search(self, tag: bytes, arguments: bytes) -> None:
        numbers = re.search(rb"UID ([\d:*,]+)", arguments)
        found = [one for _, one in self.chosen(numbers[1] if numbers else b"1:*")]
        if b" DELETED" in arguments:
            found = [one for one in found if b"\\Deleted" in one.flags]
        uids = [str(one.uid).encode() for one in found]
        size = self.script.search_chunk or max(1, len(uids))
        for begin in range(0, max(1, len(uids)), size):
            self.send(b" ".join([b"* SEARCH", *uids[begin : begin + size]]) + b"\r\n")
        self.end(tag)

    def _fetch(self, tag: bytes, arguments: bytes) -> None:
        numbers, _, items = arguments.partition(b" ")
        self._rows(tag, self.chosen(numbers, by_uid=False), items)

    def _uid_fetch(self, tag: bytes, arguments: bytes) -> None:
        numbers, _, items = arguments.partition(b" ")
        self._rows(tag, self.chosen(numbers), items)

    def _rows(self, tag: bytes, chosen: list[tuple[int, Message]], items: bytes) -> None:
        for number, one in chosen:
            if one.uid in self.script.hang_up_over and b"BODY" in items:
                self.hang_up()
            self.send(b"* %d FETCH (UID %d%s)\r\n" % (number, one.uid, self._sections(one, items)))
        self.end(tag)

    def _sections(self, one: Message, items: bytes) -> bytes:
        head = one.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        answer = b" RFC822.SIZE %d" % len(one.raw) if b"RFC822.SIZE" in items else b""
        for section, part in re.findall(rb"BODY\.PEEK(\[[^]]*\])(<[\d.]+>)?", items):
            if section == b"[]":
                data = self._body(one)
            elif section == b"[HEADER]":
                data = head
            else:
                kept = re.findall(rb"(?im)^(?:from|subject):.*\r\n(?:[ \t].*\r\n)*", head)
                data = b"".join(kept) + b"\r\n"
            if section != b"[]" and self.script.bare.get(one.uid, 0):
                self.script.bare[one.uid] -= 1
                data = b""
            origin = b""
            if part:
                begin, _, size = part.strip(b"<>").partition(b".")
                data = data[int(begin) :][: int(size)]
                origin = b"<%s>" % begin
            answer += b" BODY%s%s {%d}\r\n%s" % (section, origin, len(data), data)
        return answer

    def _body(self, one: Message) -> bytes:
        if instead := self.script.instead.get(one.uid):
            return instead.pop(0)
        return one.raw

    def _uid_store(self, tag: bytes, arguments: bytes) -> None:
        numbers, _, what = arguments.partition(b" ")
        for _, one in self.chosen(numbers):
            one.flags |= set(re.findall(rb"\\\w+", what))
        self.end(tag)

    def _uid_copy(self, tag: bytes, arguments: bytes) -> None:
        numbers, _, target = arguments.partition(b" ")
        copied = [one.raw for _, one in self.chosen(numbers)]
        for raw in copied:
            self.server.add(raw, target.strip(b'"').decode())
        self.end(tag)

    def _uid_move(self, tag: bytes, arguments: bytes) -> None:
        moved = [one for _, one in self.chosen(arguments.partition(b" ")[0])]
        for one in moved:
            self.server.add(one.raw, arguments.partition(b" ")[2].strip(b'"').decode())
        self._remove(moved)
        self.end(tag)

    def _uid_expunge(self, tag: bytes, arguments: bytes) -> None:
        self._remove([one for _, one in self.chosen(arguments) if b"\\Deleted" in one.flags])
        self.end(tag)

    def _remove(self, messages: list[Message]) -> None:
        self.server.next_uid(self.folder)
        for one in messages:
            self.send(b"* %d EXPUNGE\r\n" % (self.box.index(one) + 1))
            self.box.remove(one)

    def _idle(self, tag: bytes, _: bytes) -> None:
        self.send(b"+ idling\r\n")
        self.server.lock.release()
        try:
            while True:
                try:
                    self.line(0.05)
                except TimeoutError:
                    if len(self.box) != self._known:
                        self._known = len(self.box)
                        self.send(b"* %d EXISTS\r\n" % self._known)
                else:
                    break
        finally:
            self.server.lock.acquire()
        self.end(tag)
