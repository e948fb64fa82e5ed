"""`modelyard models alias REF ALIAS`"""

import sys
from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json
from modelyard.cli.registries import open_registry


def alias(
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="NAME, NAME:3, NAME@ALIAS or NAME@sha256:…")
    ],
    alias_: Annotated[
        str, typer.Argument(metavar="ALIAS", help="A word such as production, not a version.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.")
    ] = "",
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the alias of this model away instead.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an alias mean a version from now on.

    The move is kept in the history with its time, who made it and why.
    """
    where = resolve_home(home)
    registry = open_registry(where)
    version = registry.get(ref)
    before = registry.aliases(version.name).get(alias_)
    if remove:
        warnings = registry.remove_alias(version.name, alias_, reason=reason)
    else:
        warnings = registry.set_alias(f"{version}", alias_, reason=reason)
    now = None if remove else version.version
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        facts = {"name": version.name, "alias": alias_, "version": now, "before": before}
        print_json({**facts, "warnings": list(warnings)})
        return
    was = f" (it was {version.name}:{before})" if before is not None and before != now else ""
    print(
        f"{version.name}@{alias_} is no more{was}"
        if remove
        else f"{version.name}@{alias_} is {version}{was}"
    )
    print(f"next  {hint(f'models history {version.name}', where)}")
