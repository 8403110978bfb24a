"""An Agile of good behaviour on loopback: it takes messages, counts them, and reports each as delivered."""

import json
import threading
import urllib.request
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ingestor.replies.parts import parts_of

PRICE = Decimal("0.005")


class FakeAgile(ThreadingHTTPServer):
    """Answers as Agile's REST document says; what it was sent stands in `requests`, oldest first."""

    daemon_threads = True

    def __init__(self, reports_url: str | None = None) -> None:
        """Listen on a free port; reports are posted to `reports_url`, where given."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.credit = Decimal("10.324")
        self.reports_url = reports_url
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def base_url(self) -> str:
        """What `base_url` of `[agile.api]` must be."""
        return f"http://127.0.0.1:{self.server_address[1]}/services/"

    def __enter__(self) -> "FakeAgile":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def accept(self, handler: "Handler", request: dict[str, Any]) -> None:
        messages = request["messages"]
        parts = sum(parts_of(one["body"]).parts for one in messages)
        self.credit -= PRICE * parts
        handler.reply(200, {
            "globalId": request.get("globalId"), "processedMessages": len(messages),
            "processedSmsParts": parts, "credit": float(self.credit),
        })  # fmt: skip
        if self.reports_url and request.get("enableDelivery", True) and not request.get("simulation"):
            for one in messages:
                self.report(messageId=one["ids"][0], destination=one["destinations"][0])

    def report(self, **fields: Any) -> None:
        """Post one delivery report; `fields` stand beside or in place of those of a delivered message."""
        done = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "+0000"
        report = {
            "statusCode": 3, "description": "Delivered", "doneDate": done, "concatTotal": 1,
            "concatProgressive": 1, "lcrOperator": "22210", "realOperator": "22201", "price": 0.005, **fields,
        }  # fmt: skip
        asked = urllib.request.Request(  # noqa: S310 - our own listener
            self.reports_url or "", json.dumps(report).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - our own listener
            answer.read()


class Handler(BaseHTTPRequestHandler):
    """Reads one request and lets the server say what becomes of it."""

    server: FakeAgile

    def do_GET(self) -> None:
        self.reply(200, {"credit": float(self.server.credit)})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.server.accept(self, request)

    def reply(self, status: int, answer: Any, **headers: str) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
