"""A name server on loopback over UDP: TXT records that a test gives it, or silence, or SERVFAIL."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset


class NameServer:
    """Answers questions for `records`; everything else does not exist."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.records: dict[str, list[list[bytes]]] = {}
        """TXT records by name, without the last dot; each of one string or several."""
        self.ttl = 300
        self.silent = False
        self.fails = False
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """ADDRESS:PORT."""
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def put(self, selector: str, record: bytes, domain: str = "agiletelecom.com") -> None:
        """Publish the record of a key, in strings of 200 bytes as long keys need them."""
        pieces = [record[at : at + 200] for at in range(0, len(record), 200)] or [b""]
        self.records[f"{selector}._domainkey.{domain}"] = [pieces]

    @contextlib.contextmanager
    def running(self) -> Iterator["NameServer"]:
        """Serve meanwhile."""
        thread = threading.Thread(target=self._serve, name="name server", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", self._socket.getsockname())
            thread.join()
            self._socket.close()

    def _serve(self) -> None:
        while True:
            packet, client = self._socket.recvfrom(4096)
            if not packet:
                return
            question = dns.message.from_wire(packet)
            self.asked.append(str(question.question[0].name).rstrip("."))
            if not self.silent:
                self._socket.sendto(self._answer(question), client)

    def _answer(self, question: dns.message.Message) -> bytes:
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        name = question.question[0].name
        records = self.records.get(str(name).rstrip("."))
        if self.fails:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif records is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            texts = [" ".join(_quoted(one) for one in strings) for strings in records]
            answer.answer.append(
                dns.rrset.from_text(name, self.ttl, dns.rdataclass.IN, dns.rdatatype.TXT, *texts)
            )
        return answer.to_wire(max_size=65535)


def _quoted(text: bytes) -> str:
    return '"' + text.decode("latin-1").replace("\\", "\\\\").replace('"', '\\"').replace(";", "\\;") + '"'
