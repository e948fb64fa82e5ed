"""Real gateways before a real controller, and a steady load whose every answer is checked."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
from tests.control.conftest import DEADLINE_S, until

from modelyard.core.home import Home
from modelyard.engines.fake_server.answers import check_answer


class Gateway:
    """One gateway process that follows a controller."""

    def __init__(self, home: Home, controller_url: str, folder: Path) -> None:
        self.home = Home(folder)
        self.home.gateway_token.parent.mkdir(parents=True)
        shutil.copy(home.gateway_token, self.home.gateway_token)
        self._controller_url = controller_url
        self.process = self._start()
        self.url = self._address()

    def _start(self) -> "subprocess.Popen[bytes]":
        arguments = [
            *("--home", str(self.home.root), "--controller", self._controller_url),
            *("--listen", "127.0.0.1:0", "--drain-s", "20"),
        ]
        with (self.home.root / "gateway.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "modelyard.gateway.main", *arguments], stdout=log, stderr=log
            )

    def _address(self) -> str:
        record = self.home.run / "gateway.json"

        def own() -> str:
            with contextlib.suppress(OSError, ValueError):
                said = json.loads(record.read_text())
                return str(said["url"]) if said["pid"] == self.process.pid else ""
            return ""

        until(own, "the gateway listens")
        return own()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def gateways(home: Home, controller_url: str, count: int = 1) -> Iterator[list[Gateway]]:
    """So many gateways, ended afterwards."""
    opened: list[Gateway] = []
    try:
        for number in range(count):
            folder = home.root.parent / f"gateway-{number}"
            opened.append(Gateway(home, controller_url, folder))
        yield opened
    finally:
        for each in opened:
            each.close()


class Load:
    """Clients that ask one after the other until they are told to end; nothing is asked twice."""

    def __init__(
        self, url: str, *, tokens: int = 20, clients: int = 4, streams: bool = True
    ) -> None:
        """`streams`: two answers of three are streamed; else all of them come whole."""
        self._url = url
        self._streams = streams
        self._tokens = tokens
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self.sent = 0
        self.versions: Counter[str] = Counter()
        self.order: list[str] = []
        self.relapses: list[tuple[str, str]] = []
        """Answers of an older version to who asked when a newer one had answered already."""
        self.lost: list[str] = []
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number,)) for number in range(clients)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def until_answered(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = len(self.order) + len(self.lost) + count
        until(lambda: len(self.order) + len(self.lost) >= wanted, f"{count} more answers")

    def _ask_on(self, number: int) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=DEADLINE_S) as client:
            turn = 0
            while not self._ending.is_set():
                turn += 1
                prompt = f"{os.getpid()}-{number}-{turn} [[fake: tokens={self._tokens}]]"
                stream = self._streams and turn % 3 != 0
                with self._lock:
                    newest = max(self.versions, default="")
                version, problem = self._ask(client, prompt, stream=stream)
                with self._lock:
                    self.sent += 1
                    if problem:
                        self.lost.append(problem)
                    else:
                        self.versions[version] += 1
                        self.order.append(version)
                        if version < newest:
                            self.relapses.append((newest, version))

    def _ask(self, client: httpx.Client, prompt: str, *, stream: bool) -> tuple[str, str]:
        """The version that answered, and what was wrong with the answer."""
        messages = [{"role": "user", "content": prompt}]
        body = {"model": "yardling", "messages": messages, "stream": stream}
        try:
            reply = client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            return "", f"{type(error).__name__}: {error}"
        if reply.status_code != 200:
            return "", f"status {reply.status_code}: {reply.text[:200]}"
        text = _streamed(reply.text) if stream else _whole(reply)
        check = check_answer(text, prompt=prompt)
        if not check.complete:
            return "", f"not whole: {text[:80]!r} {check.errors}"
        return reply.headers["x-modelyard-version"], ""


def _whole(reply: httpx.Response) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


def _streamed(body: str) -> str:
    events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data:")]
    if not events or events[-1] != "[DONE]":
        return ""
    parts = [json.loads(event) for event in events[:-1]]
    said = (choice["delta"].get("content") or "" for part in parts for choice in part["choices"])
    return "".join(said)
