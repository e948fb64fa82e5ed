"""`modelyard top`"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.api.trend_messages import Live
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json, stdout_console
from modelyard.cli.topframe import frame
from modelyard.client import Client
from modelyard.core.errors import ModelyardError
from modelyard.core.home import Home

if TYPE_CHECKING:
    from rich.console import Console

_EVERY_S = 1.0
_SILENT_S = 4.0
_LOOK_S = 0.2
"""How soon a key is noticed."""
_WIDTH_PIPED = 80


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Watch deployments, traffic, alerts, rollouts and the machine; q or Ctrl-C ends it.

    Rates and times are those of the last one to two minutes. With --json, and when its output goes
    to a file or another program, it says all of it once.
    """
    where = resolve_home(home)
    with Client.from_home(where) as client:
        first = client.live()
    if as_json:
        print_json(first.model_dump(mode="json"))
        return
    console = stdout_console()
    if once or not (console.is_terminal and sys.stdin.isatty()):
        width = console.width if console.is_terminal else max(console.width, _WIDTH_PIPED)
        for line in frame(first, "", width, None):
            console.print(line, soft_wrap=True)
        return
    watch = _Watch(where, first)
    try:
        _show(console, watch)
    except KeyboardInterrupt:
        return
    finally:
        watch.end()


class _Watch:
    """Asks the controller every second, in a thread of its own: one that is slow or away holds up
    neither the screen nor the keys."""

    def __init__(self, home: Home, first: Live) -> None:
        self._home = home
        self.live = first
        self._answered = time.monotonic()
        self._trouble = ""
        self._ending = threading.Event()
        threading.Thread(target=self._ask, daemon=True).start()

    def end(self) -> None:
        """Ask no more."""
        self._ending.set()

    @property
    def trouble(self) -> str:
        """Why what is shown is old; empty when it is not."""
        silent_s = time.monotonic() - self._answered
        if not self._trouble and silent_s < _SILENT_S:
            return ""
        return f"no answer for {silent_s:.0f} s: {self._trouble or 'the controller is busy'}"

    def _ask(self) -> None:
        client: Client | None = None
        while not self._ending.wait(_EVERY_S):
            try:
                # A controller that starts again may listen elsewhere.
                client = client or Client.from_home(self._home)
                self.live = client.live()
            except ModelyardError as error:
                self._trouble = error.message
                if client is not None:
                    client.close()
                client = None
            else:
                self._answered, self._trouble = time.monotonic(), ""
        if client is not None:
            client.close()


def _show(console: "Console", watch: _Watch) -> None:
    from rich.console import Group
    from rich.live import Live as Screen

    def draw() -> Group:
        return Group(*frame(watch.live, watch.trouble, console.width, console.height))

    with _keys() as pressed, Screen(draw(), console=console, screen=True, auto_refresh=False) as on:
        while (key := pressed(_LOOK_S)) not in ("q", "Q"):
            if key == "\x03":
                return
            on.update(draw(), refresh=True)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Read keys as they are pressed: what is yielded waits for one at most so many seconds, and
    says "" when none came. At the end of the input, q."""
    import os
    import select
    import termios
    import tty

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)

    def pressed(wait_s: float) -> str:
        ready, _, _ = select.select([stdin], [], [], wait_s)
        if not ready:
            return ""
        return os.read(stdin, 1).decode(errors="replace") or "q"

    tty.setcbreak(stdin)
    try:
        yield pressed
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
