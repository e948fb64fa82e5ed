"""How the command line speaks: facts on stdout, progress and errors on stderr."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

SHOW_PROGRESS_AFTER_S = 1.0


def print_json(facts: object) -> None:
    """Print `facts` (dicts, lists, strings, numbers) as indented JSON."""
    print(json.dumps(facts, indent=2, ensure_ascii=False, default=str))


def stdout_console() -> "Console":
    """Where facts for people go; no markup is read out of what users named."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def stderr_console() -> "Console":
    """Where progress goes, so that stdout can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def human_bytes(size: int | float) -> str:
    """`5.3 MB`: decimal units, as disks and networks are sold."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def human_count(number: int) -> str:
    """`2.1M`: how many, as model sizes are told."""
    for bound, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= bound:
            return f"{number / bound:.3g}{unit}"
    return str(number)


def age(seconds: float) -> str:
    """`5s`, `12m`, `3h`, `4d`."""
    for bound, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= bound:
            return f"{seconds / bound:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def short_digest(digest: str) -> str:
    """The first twelve digits behind the prefix, enough to recognise one."""
    prefix, colon, digits = digest.partition(":")
    return f"{prefix}{colon}{digits[:12]}"


@contextmanager
def bytes_progress(title: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Yield a progress callback `(stage, bytes done, bytes in all)`; None when `quiet`.

    A bar with bytes per second and time left shows when the work takes over a second.
    """
    if quiet:
        yield None
        return
    bar = _Bar(title)
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    """A rich progress bar, imported and drawn only when the work turns out to be long.

    Called from several threads; a timer of its own draws it when nobody calls.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._lock = threading.Lock()
        self._known: tuple[str, int, int] | None = None
        self._progress: Any = None
        self._task: Any = None
        self._timer = threading.Timer(SHOW_PROGRESS_AFTER_S, self._open)
        self._timer.daemon = True
        self._timer.start()

    def __call__(self, stage: str, done: int, total: int) -> None:
        with self._lock:
            self._known = (stage, done, total)
            self._draw()

    def close(self) -> None:
        """Take the bar off the screen."""
        self._timer.cancel()
        self._timer.join()
        if self._progress is not None:
            self._progress.stop()

    def _open(self) -> None:
        from rich import progress

        with self._lock:
            self._progress = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(bar_width=None),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(compact=True),
                console=stderr_console(),
                transient=True,
            )
            self._task = self._progress.add_task(self._title, total=None)
            self._draw()
            self._progress.start()

    def _draw(self) -> None:
        if self._progress is not None and self._known is not None:
            stage, done, total = self._known
            doing = f"{self._title} {stage[-24:]}" if done < total else f"{self._title}, finishing"
            self._progress.update(self._task, description=doing, completed=done, total=total)
