"""What `run` and `self` share: their options, the run itself, and how it is told."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import msgspec
import typer

from modelyard.cli.conformance.telling import Teller
from modelyard.cli.failures import FAILED
from modelyard.cli.output import print_json
from modelyard.conformance.bench import Bench
from modelyard.conformance.check import Check, Finding
from modelyard.conformance.engines import Engine
from modelyard.conformance.runner import Runner, report
from modelyard.conformance.target import Target
from modelyard.conformance.yard import ENGINE_NAMES

OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only", metavar="GLOB", help="Only these checks, such as 'limits/*'; may be given again."
    ),
]
WithoutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="THEME|GLOB",
        help="What the gateway does not claim: not applicable; may be given again.",
    ),
]


def drive(
    target: Target,
    checks: Sequence[Check],
    left_out: dict[str, str],
    *,
    as_json: bool,
    exit_code: Callable[[], int | None] | None = None,
) -> int:
    """Run the checks, tell of each as it ends; returns the command's exit code."""
    teller = Teller([check.name for check in checks])
    begun = time.monotonic()

    def told(finding: Finding) -> None:
        if not as_json:
            teller.tell(finding)

    async def work() -> list[Finding]:
        engines = tuple(
            Engine(name, url) for name, url in zip(ENGINE_NAMES, target.engines, strict=False)
        )
        bench = Bench(target, engines, exit_code=exit_code)
        return await Runner(bench, without=left_out, told=told).run(checks)

    found = report(asyncio.run(work()))
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        teller.sum(found, time.monotonic() - begun)
    return FAILED if found.failed else 0


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that nothing is left running."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
