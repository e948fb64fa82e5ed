"""`modelyard models list`"""

import time
from typing import Annotated, Any

import typer

from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import (
    age,
    human_bytes,
    human_count,
    print_json,
    short_digest,
    stdout_console,
)
from modelyard.cli.presentation import version_facts
from modelyard.registry.registry import Registry
from modelyard.registry.versions import ModelVersion


def list_versions(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only the versions of this model.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List registered versions."""
    where = resolve_home(home)
    versions = Registry(where).versions(name)
    if as_json:
        print_json([version_facts(version) for version in versions])
        return
    if not versions:
        print("no model is registered here")
        print(f"next: {hint('register NAME PATH', where)}")
        return
    stdout_console().print(_table(versions))


def _table(versions: list[ModelVersion]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("MODEL", "ALIASES", "PARAMETERS", "DTYPE", "SIZE", "AGE", "DIGEST"):
        right = column in {"PARAMETERS", "SIZE", "AGE"}
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "ALIASES")
    now = time.time()
    for version in versions:
        table.add_row(
            f"{version.name}:{version.version}",
            ", ".join(version.aliases) or "-",
            human_count(version.facts.parameters),
            version.facts.dtype,
            human_bytes(version.size_bytes),
            age(now - version.created_at),
            "quarantined" if version.quarantined else short_digest(version.digest),
        )
    return table
