"""`modelyard demo`"""

import os
import shutil
import signal
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
import typer

from modelyard import __version__
from modelyard.cli.asking import Answer
from modelyard.cli.options import HomeOption, JsonOption
from modelyard.cli.output import print_json, short_digest, stdout_console
from modelyard.cli.story import Progress, Report, Story
from modelyard.core.errors import Conflict
from modelyard.core.home import Home

STEPS = ("register", "verify", "convert", "start", "deploy", "ask", "replace", "refuse")


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay up after the report, until Ctrl-C.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """See the whole main job with a small model that comes with Modelyard; no network needed.

    Registers, verifies, converts, starts and deploys it, asks it two questions through the gateway,
    puts a better version live while users go on asking, and tries to put a broken one live. All of
    it happens in a temporary folder, and nothing stays.
    """
    with _ended_like_ctrl_c() as interrupts, _temporary_home(home) as place:
        teller = _Screen(interrupts, quiet=as_json)
        story = Story(place, teller)
        try:
            report = story.tell()
            if as_json:
                print_json(msgspec.to_builtins(report))
            else:
                _print(report, keep=keep)
            if keep:
                story.wait()
        finally:
            teller.close()
            with _undisturbed():
                story.close()


class _Interrupts:
    """Remembers an interrupt: a library that swallows one only puts it off to the next step."""

    def __init__(self) -> None:
        self._came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt when one came before."""
        if self._came:
            raise KeyboardInterrupt


@contextmanager
def _ended_like_ctrl_c() -> Iterator[_Interrupts]:
    """SIGTERM and a closed terminal clean up as Ctrl-C does."""
    interrupts = _Interrupts()
    before = {
        number: signal.signal(number, interrupts)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not leave half of it behind; what is done here is bounded in time."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _temporary_home(wanted: Path | None) -> Iterator[Home]:
    """A home that is gone afterwards; `wanted` must not hold anything yet."""
    if wanted is None:
        root = Path(tempfile.mkdtemp(prefix="modelyard-demo-"))
    else:
        root = wanted.expanduser().absolute()
        if root.exists() and any(root.iterdir()):
            raise Conflict(
                f"{root} is not empty, and the demo removes its home at its end",
                next_step="leave --home out, or name a folder that is not there yet",
            )
        root.mkdir(parents=True, exist_ok=True)
    try:
        yield Home(root)
    finally:
        with _undisturbed():
            _remove(root)


def _remove(root: Path) -> None:
    """Remove the tree; materialised versions are read-only folders."""
    for folder, _, _ in os.walk(root):
        Path(folder).chmod(0o700)
    shutil.rmtree(root)


class _Screen:
    """Shows the story on stdout: a line per step, then questions and answers."""

    def __init__(self, interrupts: _Interrupts, *, quiet: bool) -> None:
        self._interrupts = interrupts
        self._quiet = quiet
        self._out = stdout_console()
        self._spinner: Any = None
        if not quiet:
            self._out.print(
                f"Modelyard {__version__}: from weights to an answering service, on this machine\n",
                style="bold",
            )

    def begin(self, step: str) -> Progress:
        self._interrupts.check()
        title = f"{STEPS.index(step) + 1}/{len(STEPS)}  {step:<9}"
        if step == "ask" or self._quiet or not sys.stdout.isatty():
            return lambda _stage, _done, _total: None
        self._spinner = self._out.status(title)
        self._spinner.start()

        def show(stage: str, done: int, total: int) -> None:
            if total:
                stage = f"{done / total:.0%}" if done < total else "finishing"
            self._spinner.update(f"{title} {stage}")

        return show

    def end(self, step: str, outcome: str, took_s: float) -> None:
        self.close()
        if not self._quiet and step != "ask":
            number = f"{STEPS.index(step) + 1}/{len(STEPS)}"
            self._out.print(f"{number}  {step:<9} {outcome:<56} {took_s:5.1f} s", soft_wrap=True)

    def question(self, text: str) -> None:
        if not self._quiet:
            self._out.print(f"\n{text}", style="bold", soft_wrap=True)

    def piece(self, text: str) -> None:
        if not self._quiet:
            self._out.file.write(text)
            self._out.file.flush()

    def answered(self, answer: Answer) -> None:
        if not self._quiet:
            came_from = f"{answer.version} {short_digest(answer.digest)}"
            self._out.print(f"\n{answer.measured()}\n{came_from}", style="dim", soft_wrap=True)

    def close(self) -> None:
        """Take the spinner off the screen."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


def _print(report: Report, *, keep: bool) -> None:
    lines = {
        "version": report.version,
        "digest": report.digest,
        "engine": report.engine,
        "gateway": f"{report.gateway_url}/v1",
        "api": report.controller_url,
        "home": report.home,
        "logs": report.logs,
        "took": f"{sum(report.steps_s.values()):.1f} s",
    }
    print("\nReport")
    for label, text in lines.items():
        print(f"{label:<8}{text}")
    answers = ", ".join(f"{count} by {name}" for name, count in report.answers_by_version.items())
    print(f"requests: {report.requests_sent} sent, {report.requests_lost} lost")
    print(f"answers: {answers}; the switch took {report.switch_ms:.0f} ms")
    print(textwrap.fill(f"refused: {report.refused}", 80, subsequent_indent="  "))
    if keep:
        print("\nIt stays up until Ctrl-C. Ask it something:")
        print(
            f"  curl {report.gateway_url}/generate -H 'content-type: application/json' \\\n"
            """    -d '{"prompt": "What is 2+2?", "max_length": 32}'""",
            flush=True,
        )
    else:
        print("\nNothing of it stays. Next, with a model of your own:")
        program = "modelyard" if shutil.which("modelyard") else os.path.relpath(sys.argv[0])
        print(f"  {program} up                      in one terminal")
        print(f"  {program} register NAME FOLDER    in another")
        print(f"  {program} deploy NAME:1")
        print(f"  {program} chat")
