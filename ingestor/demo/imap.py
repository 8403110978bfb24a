"""The demo's mails (each usual way of writing one, repeats, a broken one, mail of others; dated today) and
its throw-away mailbox: as much IMAP4rev1 (RFC 3501, RFC 2177) as it takes to watch one folder.

Everything is in memory, on loopback. Nothing in it can be changed: `asked_to_change` says who wanted to.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from itertools import cycle
from zoneinfo import ZoneInfo

PEOPLE = ("+393470001111", "+393287654321", "+4366412345678", "+33612345678", "4855", "Corriere")
NUMBERS = ("+393331234333", "+393331234334")
"""The rented numbers that all SMS of the demo were sent to."""

CONFIRMATION = "You will get no more messages from {our_number}. START undoes it."

ZONE = ZoneInfo("Europe/Rome")
FORMS = ("7bit", "quoted-printable", "base64", "html", "alternative")
OLDEST = timedelta(hours=8)

_SENDER = "Agile Telecom <smsin@agiletelecom.com>"
_SUBJECT = "Agile Telecom -- SMS received"
_TEXTS = (
    "Confermo l'appuntamento di domani alle 9:30", "Il suo codice di verifica e 482913.", "News ON",
    "Perché non è arrivato? Così non va.", "Arrivo tra 10 minuti", "Grande! 🎉👍", "INFO",
    "Sì, alle 18 va bene. A più tardi!", "Prima riga\nSeconda riga", "SI", "Costa 12,50 € – va bene?",
    "Consegna ricevuta, tutto bene", "Lista:\n- pane\n- latte\n\n- uova", "Über die Änderung: ja, bitte",
    "Please call me back after 5pm, thanks", "Спасибо, всё получил", "Il caffè è già pagato", "OK grazie",
    "Inoltro:\nFrom: +393470000000\nBody: ciao", "Tanti auguri 🎂 a te e famiglia ❤️", "VOTO 7",
    "1+1=2 & 3<4 \"ok\" 'x'", "Più tardi… forse – non so", "Ευχαριστώ πολύ",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoMail:
    """A mail as a server hands it out (CRLF); `text` is that of its SMS, None where it is none to read."""

    raw: bytes = field(repr=False)
    text: str | None = field(default=None, repr=False)


def waiting_mails(now: datetime) -> list[DemoMail]:
    """Return what lies in the mailbox when the demo begins at `now` (aware): 24 SMS of the last hours, two of
    them twice, four mails of others and one of Agile's without its destination."""
    step = OLDEST / len(_TEXTS)
    forms = cycle(FORMS)
    sms = [
        sms_mail(text, now - OLDEST + step * number, next(forms), number)
        for number, text in enumerate(_TEXTS)
    ]
    again = sms_mail(_TEXTS[11], now - OLDEST + step * 11, "7bit", 11, mail_number=111)
    broken = _mail(_SENDER, _SUBJECT, now - step, 300, f"From: {PEOPLE[0]}\nBody: Dove siete?\n")
    others = [
        _mail(
            "Anna Rossi <anna.rossi@example.net>", "Pranzo di domenica", now - 5 * step, 301, "Ci vediamo!"
        ),
        _mail("News <news@shop.example.com>", "Offerte della settimana", now - 4 * step, 302, "Sconti"),
        _mail("Agile Telecom <info@agiletelecom.com>", "Fattura 2041", now - 3 * step, 303, "In allegato"),
        _mail("Luca <luca@example.net>", "Foto", now - 2 * step, 304, "Eccole"),
    ]
    return [*sms[:8], *others[:2], *sms[8:18], sms[3], again, *others[2:], *sms[18:], broken]


def live_mails(now: datetime) -> list[tuple[str, DemoMail]]:
    """Return what is delivered while the daemon watches, each with what a reader should know of it."""
    first = "Vorrei disdire l'appuntamento di domani, grazie 🙏"
    other = _mail("Anna <anna@example.net>", "Re: Pranzo di domenica", now, 305, "A dopo")
    return [
        ("an SMS", sms_mail(first, now, "quoted-printable", 200)),
        ("an SMS of two lines", sms_mail("Ça va très bien, à demain!\nMarie", now, "base64", 201)),
        ("the first once more, in a new mail", sms_mail(first, now, "7bit", 200, mail_number=299)),
        ("a mail of somebody else", other),
        ("an SMS that wants no more of them", sms_mail("STOP", now, "html", 204)),
    ]


def sms_mail(
    text: str, moment: datetime, form: str, number: int, *, mail_number: int | None = None
) -> DemoMail:
    """Return the mail of SMS `number`, sent at `moment`; another `mail_number` brings it in another mail."""
    originator = PEOPLE[number % len(PEOPLE)]
    fields = {
        "From": originator,
        "To": NUMBERS[number % len(NUMBERS)],
        "Date/Time": f"{moment.astimezone(ZONE):%Y%m%d%H%M%S}",
        "Body": text,
    }
    block = "".join(f"{name}: {value}\n" for name, value in fields.items())
    number = number if mail_number is None else mail_number
    mail = _mail(_SENDER, _SUBJECT, moment + timedelta(seconds=4), number, block, form)
    return DemoMail(mail.raw, text)


def _mail(
    sender: str, subject: str, moment: datetime, number: int, text: str, form: str = "7bit"
) -> DemoMail:
    mail = EmailMessage(policy=SMTP)
    mail["Date"] = format_datetime(moment.astimezone(ZONE))
    mail["From"] = sender
    mail["To"] = "sms@example.org"
    mail["Message-ID"] = f"<{number}.demo@example.org>"
    mail["Subject"] = subject
    page = "<br>\n".join(text.replace("&", "&amp;").replace("<", "&lt;").split("\n"))
    if form == "html":
        mail.set_content(f"<html><body>\n{page}\n</body></html>\n", subtype="html")
    elif form in ("7bit", "alternative"):  # the policy chooses 7bit where the text is ASCII, else 8bit
        mail.set_content(text, cte=None if text.isascii() else "8bit")
    else:
        mail.set_content(text, cte=form)
    if form == "alternative":
        mail.add_alternative(f"<html><body>\n{page}\n</body></html>\n", subtype="html")
        mail.set_boundary(f"=_demo_{number}")  # the same at every call
    return DemoMail(bytes(mail))


CAPABILITIES = "IMAP4rev1 IDLE UNSELECT"
UIDVALIDITY = 1

_LINE = re.compile(rb"(?P<tag>\S+) (?P<name>UID \S+|\S+) ?(?P<rest>.*)\r\n", re.DOTALL | re.IGNORECASE)
_QUOTED_OR_ATOM = re.compile(rb'"((?:[^"\\]|\\.)*)"|(\S+)')
_FIELDS = re.compile(rb"BODY\.PEEK\[HEADER\.FIELDS \(([^)]*)\)\]", re.IGNORECASE)
_CHANGES = (b"STORE", b"COPY", b"MOVE", b"EXPUNGE", b"APPEND", b"DELETE", b"RENAME", b"CREATE")


class Mailbox:
    """An IMAP server with one folder; `running` serves it from a thread of its own."""

    def __init__(self, username: str, password: str) -> None:
        self.username = username
        self.password = password
        self.port = 0
        self.asked_to_change = False
        self.mails: list[bytes] = []
        """A mail's UID is its place in here, counted from 1."""
        self._news = asyncio.Condition()
        self._loop = asyncio.new_event_loop()

    def deliver(self, mail: bytes) -> None:
        """Put a mail (CRLF ends) into the folder and tell everybody who watches; from any other thread."""

        async def add() -> None:
            async with self._news:
                self.mails.append(mail)
                self._news.notify_all()

        asyncio.run_coroutine_threadsafe(add(), self._loop).result(10)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve on a free port (`port`) until the block ends."""
        ready, stop = threading.Event(), asyncio.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        def run() -> None:
            with contextlib.closing(self._loop):
                self._loop.run_until_complete(serve())

        thread = threading.Thread(target=run, name="imap-server", daemon=True)
        thread.start()
        ready.wait(10)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join(10)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"* OK the demo's mailbox\r\n")
            await _Conversation(self, reader, writer).run()
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the daemon was stopped, or the demo was
        finally:
            writer.close()

    async def grown(self, known: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: len(self.mails) > known)


class _Conversation:
    def __init__(self, box: Mailbox, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._box = box
        self._reader = reader
        self._writer = writer
        self._known = 0
        self._selected = False

    async def run(self) -> None:
        while line := _LINE.fullmatch(await self._reader.readuntil(b"\r\n")):
            name = line["name"].upper()
            answer = await self._answer(name, line["rest"])
            if self._selected and name != b"UID FETCH":
                self._tell_growth()
            self._writer.write(line["tag"] + b" " + answer + b"\r\n")
            await self._writer.drain()
            if name == b"LOGOUT":
                return

    async def _answer(self, name: bytes, rest: bytes) -> bytes:
        words = [quoted or atom for quoted, atom in _QUOTED_OR_ATOM.findall(rest)]
        if name == b"LOGIN":
            given = [word.decode() for word in words]
            known = given == [self._box.username, self._box.password]
            return b"OK logged in" if known else b"NO [AUTHENTICATIONFAILED] no such user or password"
        if name in (b"SELECT", b"EXAMINE"):
            return self._select(words[0])
        if name == b"UID SEARCH":
            found = b"".join(b" %d" % uid for uid in self._uids(words[words.index(b"UID") + 1]))
            self._say(b"SEARCH" + found)
        elif name == b"UID FETCH":
            self._fetch(*rest.split(b" ", 1))
        elif name == b"IDLE":
            await self._idle()
        elif name in _SAYS:
            self._say(_SAYS[name])
        elif name not in (b"NOOP", b"UNSELECT", b"CLOSE"):
            if name.removeprefix(b"UID ") in _CHANGES:
                self._box.asked_to_change = True
            return b"BAD the demo's mailbox does not know this command"
        return b"OK done"

    def _say(self, text: bytes) -> None:
        self._writer.write(b"* " + text + b"\r\n")

    def _select(self, folder: bytes) -> bytes:
        if folder.upper() != b"INBOX":
            return b"NO [NONEXISTENT] no such folder"
        self._selected, self._known = True, len(self._box.mails)
        self._say(b"FLAGS ()")
        self._say(b"%d EXISTS" % self._known)
        self._say(b"OK [UIDVALIDITY %d] valid" % UIDVALIDITY)
        self._say(b"OK [UIDNEXT %d] next" % (self._known + 1))
        return b"OK [READ-ONLY] selected"

    def _tell_growth(self) -> None:
        if len(self._box.mails) > self._known:
            self._known = len(self._box.mails)
            self._say(b"%d EXISTS" % self._known)

    def _uids(self, numbers: bytes) -> list[int]:
        """Return the UIDs of a sequence set that exist; `9:*` holds the last mail always (RFC 3501 6.4.8)."""
        last = len(self._box.mails)
        chosen: set[int] = set()
        for part in numbers.split(b","):
            first, _, end = part.partition(b":")
            low, high = sorted(last if one == b"*" else int(one) for one in (first, end or first))
            chosen.update(range(max(low, 1), min(high, last) + 1))
        return sorted(chosen)

    def _fetch(self, numbers: bytes, items: bytes) -> None:
        if b"BODY[" in items.upper():
            self._box.asked_to_change = True  # without PEEK it would be marked as seen
        fields = _FIELDS.search(items)
        for uid in self._uids(numbers):
            mail = self._box.mails[uid - 1]
            row = b"%d FETCH (UID %d RFC822.SIZE %d" % (uid, uid, len(mail))
            if fields:
                row += _literal(b"BODY[HEADER.FIELDS (%s)]" % fields[1], _picked(mail, fields[1]))
            elif b"BODY.PEEK[]" in items.upper():
                row += _literal(b"BODY[]", mail)
            self._say(row + b")")

    async def _idle(self) -> None:
        self._writer.write(b"+ idling\r\n")
        self._tell_growth()
        done = asyncio.ensure_future(self._reader.readuntil(b"\r\n"))
        while not done.done():
            news = asyncio.ensure_future(self._box.grown(self._known))
            await asyncio.wait({done, news}, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            self._tell_growth()
        await done


_SAYS = {
    b"CAPABILITY": b"CAPABILITY " + CAPABILITIES.encode(),
    b"LOGOUT": b"BYE see you",
}


def _literal(name: bytes, part: bytes) -> bytes:
    return b" %s {%d}\r\n%s" % (name, len(part), part)


def _picked(mail: bytes, names: bytes) -> bytes:
    """Return the header lines (folded ones with theirs) whose names are asked for, and the empty line."""
    wanted = {name.lower() for name in names.split()}
    lines = re.split(rb"\r\n(?![ \t])", mail.partition(b"\r\n\r\n")[0])
    return b"".join(line + b"\r\n" for line in lines if line.partition(b":")[0].lower() in wanted) + b"\r\n"
