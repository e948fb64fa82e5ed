"""A small hub: the endpoints that a registration asks, on a port of this machine.

Weights are "large files": their bytes come by a redirect from another origin, as from the hub's
content network.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandIn:
    """One model, `acme/small`, with the files of a folder under the revision `main`."""

    def __init__(self, folder: Path) -> None:
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.url = ""
        self.content_url = ""
        self.sent: dict[str, int] = {}
        """Bytes of each file that went over the wire."""
        self.asked: list[tuple[str, str, str | None, str | None]] = []
        """Path, origin, Range and Authorization of every request."""
        self.break_after: dict[str, int] = {}
        """The next answer with this file breaks off after so many bytes."""
        self.no_ranges = False
        self.statuses: dict[str, tuple[int, dict[str, str]]] = {}
        """What a path is answered with instead, and headers beside it."""

    def tree(self) -> list[dict[str, Any]]:
        listed = []
        for path, data in self.files.items():
            blob = f"blob {len(data)}\0".encode() + data
            git = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git}
            if path.endswith((".safetensors", ".gguf", ".bin")):
                entry["lfs"] = {
                    "oid": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 134,
                }
            listed.append(entry)
        return listed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        self.hub.asked.append(
            (path, f"http://{headers['Host']}", headers["Range"], headers["Authorization"])
        )
        model = "/api/models/acme/small"
        if path in self.hub.statuses:
            status, more = self.hub.statuses[path]
            self.answer(status, b"{}", more)
        elif path in (model, f"{model}/revision/main", f"{model}/revision/{COMMIT}"):
            self.answer(200, json.dumps({"id": "acme/small", "sha": COMMIT}).encode())
        elif path.startswith(f"{model}/revision/"):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path == f"{model}/tree/{COMMIT}":
            self.answer(200, json.dumps(self.hub.tree()).encode())
        elif path.startswith(f"/acme/small/resolve/{COMMIT}/"):
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            if name.endswith((".safetensors", ".gguf")):
                self.answer(302, b"", {"Location": f"{self.hub.content_url}/content/{name}"})
            else:
                self.file(name)
        elif path.startswith("/content/"):
            self.file(path.removeprefix("/content/"))
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def file(self, name: str) -> None:
        data = self.hub.files[name]
        wanted = self.headers["Range"]
        first, last, status = 0, len(data) - 1, 200
        if wanted and not self.hub.no_ranges:
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last, status = int(begin), int(end), 206
        body = data[first : last + 1]
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        cut = self.hub.break_after.pop(name, len(body))
        self.wfile.write(body[:cut])
        self.hub.sent[name] = self.hub.sent.get(name, 0) + len(body[:cut])
        self.close_connection = cut < len(body)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[StandIn]:
    """A stand-in that answers until the block ends."""
    hub = StandIn(folder)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _listening(handler) as hub.url, _listening(handler) as hub.content_url:
        yield hub


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are part of the tests."""


@contextlib.contextmanager
def _listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with _Server(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
