"""`modelyard models history NAME`"""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json, stdout_console
from modelyard.cli.registries import open_registry
from modelyard.core.errors import InvalidRequest
from modelyard.registry.aliases import AliasMove


def history(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help="What the aliases meant then: 2026-11-23, '2026-11-23 14:05' (UTC) or "
            "2026-11-23T14:05+01:00.",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how aliases were moved: when, by whom and why; and what they meant at any time.

    Moves made in MLflow's own UI are among them, marked as external, with the time they were
    noticed.
    """
    until = None if at is None else _unix_s(at)
    found = open_registry(resolve_home(home)).history(name, at=until)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print_json({**msgspec.to_builtins(found), "at": until})
        return
    if found.moves:
        stdout_console().print(_table(found.moves))
    then = "now" if until is None else f"at {_time(until)}"
    if not found.aliases:
        print(f"{then}: {name} has no alias")
    for alias, version in sorted(found.aliases.items()):
        print(f"{then}: {name}@{alias} is {name}:{version}")


def _table(moves: tuple[AliasMove, ...]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("TIME", "ALIAS", "VERSION", "BY", "REASON"):
        table.add_column(column, justify="right" if column == "VERSION" else "left")
    for move in moves:
        version = "removed" if move.version is None else str(move.version)
        table.add_row(_time(move.at), move.alias, version, move.actor, move.reason)
    return table


def _time(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _unix_s(text: str) -> float:
    try:
        time = datetime.fromisoformat(text.strip())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{text!r} is no time",
            next_step="write it as 2026-11-23, '2026-11-23 14:05' or 2026-11-23T14:05+01:00",
            param="at",
        ) from None
