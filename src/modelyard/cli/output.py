"""How the command line speaks: facts on stdout, progress and errors on stderr."""

import json
import time
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
def bytes_progress(
    quiet: bool, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[str, int, int], None] | None]:
    """Yield a progress callback `(stage, bytes done, bytes in all)`; None when `quiet`.

    A bar with bytes per second and time left shows once the work has taken over a second.
    """
    if quiet:
        yield None
        return
    bar = _Bar(clock)
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    """A rich progress bar that is imported and drawn only when the work turns out to be long."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._progress: Any = None
        self._task: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._progress is None:
            if self._clock() - self._began < SHOW_PROGRESS_AFTER_S:
                return
            self._open()
        self._progress.update(self._task, description=stage[-24:], completed=done, total=total)

    def _open(self) -> None:
        from rich import progress

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=None),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(compact=True),
            console=stderr_console(),
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task("", total=None)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()
