"""As much of an image registry as a pull needs: one image of one small layer, over HTTP.

Docker speaks plain HTTP to registries on 127.0.0.1. The forms are those of the OCI distribution
specification and of Docker's image manifest, version 2, schema 2.
"""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


class ImageRegistry(ThreadingHTTPServer):
    """Serves `NAME:1` for any NAME that begins with `there`; 404 for all others."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[str] = []
        self.held = threading.Event()
        """Set: layers are sent. Clear: whoever fetches one waits."""
        self.held.set()
        layer = _layer()
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"User": "1234"},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()
        self.layer = _digest(layer)
        self.blobs = {_digest(config): config, self.layer: layer}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _described(_CONFIG, config),
                "layers": [_described(_LAYER, layer)],
            }
        ).encode()

    def name(self, image: str) -> str:
        """How Docker is told of an image here."""
        return f"127.0.0.1:{self.server_port}/{image}"


@contextmanager
def image_registry() -> Iterator[ImageRegistry]:
    """One that runs until the end of the block."""
    with ImageRegistry() as registry:
        thread = threading.Thread(target=registry.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield registry
        finally:
            registry.held.set()
            registry.shutdown()
            thread.join()


class _Answer(BaseHTTPRequestHandler):
    server: ImageRegistry

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        parts = self.path.strip("/").split("/")
        if parts == ["v2"]:
            self._send(b"{}", "application/json")
        elif not parts[1].startswith("there"):
            self._send(b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', "application/json", 404)
        elif parts[-2] == "manifests":
            self._send(self.server.manifest, _MANIFEST)
        else:
            if parts[-1] == self.server.layer:
                self.server.held.wait(30)
            self._send(self.server.blobs[parts[-1]], "application/octet-stream")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", _digest(body))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


def _layer() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    return made.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _described(kind: str, content: bytes) -> dict[str, str | int]:
    return {"mediaType": kind, "size": len(content), "digest": _digest(content)}
