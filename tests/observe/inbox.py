"""A receiver of webhooks: a real server that keeps what it is sent and answers as it is told."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Message(NamedTuple):
    """One POST that came in whole."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return str(self.json()["type"])

    def json(self) -> Any:
        return json.loads(self.body)

    def signed_by(self, secret: bytes) -> bool:
        """As the guide's snippet verifies."""
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        made = hmac.new(secret, signed, hashlib.sha256).digest()
        expected = "v1," + base64.b64encode(made).decode()
        fresh = abs(time.time() - int(self.headers["webhook-timestamp"])) < 300
        return fresh and hmac.compare_digest(self.headers["webhook-signature"], expected)


class Inbox:
    """Answers 200, what `answers` holds before that, or nothing at all."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.hangs = threading.Event()
        self._going = threading.Event()
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                inbox.messages.append(Message(headers, body))
                while inbox.hangs.is_set() and not inbox._going.wait(0.05):
                    pass
                status, more = inbox.answers.pop(0) if inbox.answers else (200, {})
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/alerts/token-in-path"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def of(self, kind: str) -> list[Message]:
        """Those of one type."""
        return [message for message in list(self.messages) if message.type == kind]

    def close(self) -> None:
        self._going.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> "Inbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def until(condition: Callable[[], object], what: str, deadline_s: float = 60.0) -> None:
    """Return when `condition` holds; fail after the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        time.sleep(0.02)
