"""A program on a terminal of its own: what its screen shows, and keys pressed."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence

_CODE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>78])")
_HOME = "\x1b[H"


class Terminal:
    """Runs a program until it ends, or `close`."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], *, rows: int = 24, columns: int = 80
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        kept = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**kept, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is one
        )
        os.close(slave)
        self._written = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        told = b""
        while True:
            try:
                part = os.read(self._master, 65536)
            except OSError:  # how Linux says that nobody has it open any more
                return
            if not part:
                return
            told += part
            self._written = told.decode(errors="replace")

    @property
    def written(self) -> str:
        """All that came, codes included."""
        return self._written

    @property
    def screen(self) -> list[str]:
        """The lines of the last frame that is whole."""
        frames = self._written.split(_HOME)
        whole = frames[-1] if self.process.poll() is not None or len(frames) < 2 else frames[-2]
        return [line.rstrip() for line in _CODE.sub("", whole).replace("\r", "").split("\n")]

    def until(self, condition: Callable[[str], object], deadline_s: float = 40.0) -> str:
        """Wait for what the screen is to show; its text."""
        end = time.monotonic() + deadline_s
        while True:
            text = "\n".join(self.screen)
            if condition(text):
                return text
            assert time.monotonic() < end, f"not within {deadline_s} s; the screen:\n{text}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Send a key."""
        os.write(self._master, key.encode())

    def ended(self, deadline_s: float = 20.0) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(deadline_s)
        self._reader.join(5.0)
        return code

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._master)
