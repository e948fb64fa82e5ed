"""`modelyard rollouts list`"""

import time
from typing import Annotated

import typer

from modelyard.api.messages import RolloutView
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import age, print_json, stdout_console
from modelyard.client import Client


def list_rollouts(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Of this deployment.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, metavar="N")] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List rollouts, the newest first."""
    where = resolve_home(home)
    with Client.from_home(where) as client:
        found = client.rollouts(name, limit)
    if as_json:
        print_json([rollout.model_dump(mode="json") for rollout in found])
    elif not found:
        print(f"there is no rollout{f' of {name}' if name else ''}")
        print(f"next: {hint('deploy NAME:VERSION', where)}")
    else:
        stdout_console().print(_table(found))


def _table(found: tuple[RolloutView, ...]) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("ROLLOUT", "VERSION", "BEFORE", "PHASE", "AGE", "WHY"):
        table.add_column(title, overflow="fold")
    for one in found:
        why = one.reason or one.waits_for
        table.add_row(
            one.id,
            one.version,
            one.version_before or "-",
            f"{one.phase.value}{' (paused)' if one.paused else ''}",
            age(time.time() - one.started_at),
            why.splitlines()[0] if why else "",
        )
    return table
