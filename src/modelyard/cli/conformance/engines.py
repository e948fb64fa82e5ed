"""`modelyard conformance engines`"""

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from modelyard.cli.conformance.driving import ended_by_signals
from modelyard.cli.options import HomeOption, JsonOption
from modelyard.cli.output import print_json, stdout_console
from modelyard.conformance.yard import DEFAULT_PORTS, EngineProcess, running_engines
from modelyard.core.errors import Unavailable

_LOOK_EVERY_S = 0.2
MODELS = (
    ("M", "A and B", "the model that most checks ask; the only one needed"),
    ("SINGLE", "C", "timeouts of 1 to 3 s, to be told to the suite"),
    ("CACHED", "A and B", "an exact cache"),
    ("FALLBACK", "C", "falls back on M when C fails"),
    ("FORBIDDEN", "any", "not allowed to the key that the suite uses"),
)
"""What a gateway is configured with: the model, its engines, what is said of it."""


def engines(
    port: Annotated[
        int,
        typer.Option(min=0, max=65533, help="Engine A's port; B and C have the next. 0: any."),
    ] = DEFAULT_PORTS[0],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start engines A, B and C, and say what a gateway must be configured with.

    They run until Ctrl-C.
    """
    del home  # understood by every command; this one keeps nothing
    ports = (port, port + 1, port + 2) if port else (0, 0, 0)
    with (
        ended_by_signals(),
        running_engines(ports) as started,
        contextlib.suppress(KeyboardInterrupt),  # the way to end it, from its first word on
    ):
        if as_json:
            print_json({"engines": [_facts(engine) for engine in started]})
        else:
            _tell(started, default=ports == DEFAULT_PORTS)
        sys.stdout.flush()
        _until_one_ends(started)


def _until_one_ends(started: Sequence[EngineProcess]) -> None:
    """Wait until interrupted; raises Unavailable when an engine is gone."""
    while True:
        for engine in started:
            if engine.exit_code() is not None:
                raise Unavailable(
                    f"engine {engine.name} ended by itself ({engine.exit_code()})",
                    next_step="start the engines again",
                )
        time.sleep(_LOOK_EVERY_S)


def _facts(engine: EngineProcess) -> dict[str, object]:
    return {"name": engine.name, "url": engine.url, "pid": engine.pid}


def _tell(started: Sequence[EngineProcess], *, default: bool) -> None:
    from rich import box
    from rich.table import Table

    console = stdout_console()
    table = Table("engine", "address", "process", box=box.SIMPLE_HEAD, pad_edge=False)
    for engine in started:
        table.add_row(engine.name, engine.url, str(engine.pid))
    console.print(table)
    console.print("Put the gateway before them with one of these models, or more:")
    models = Table("model", "served by", "", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in MODELS:
        models.add_row(*row)
    console.print(models)
    console.print("An engine serves any model name; its base URL ends before /v1.")
    given = "" if default else "".join(f" --engine {engine.url}" for engine in started)
    console.print(
        f"next: modelyard conformance run http://HOST:PORT --model M{given}", soft_wrap=True
    )
    console.print("Ctrl-C ends the engines.")
