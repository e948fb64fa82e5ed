"""`modelyard models list`"""

import sys
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
from modelyard.registry.lookup import Page
from modelyard.registry.registry import Registry

_ALL = 10**9
_SHOWN = 100


def list_versions(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only the versions of this model.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            help=f"At most so many; {_SHOWN} by default, with --json all.",
            show_default=False,
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after", metavar="NAME:3", help="Go on behind this one.", show_default=False
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List registered versions, by name and newest first."""
    where = resolve_home(home)
    limit = limit or (_ALL if as_json else _SHOWN)
    page = Registry(where).page(name, limit=limit, after=after)
    if as_json:
        print_json([version_facts(version) for version in page.versions])
    elif page.total == 0:
        print("no model is registered here")
        print(f"next: {hint('register NAME PATH', where)}")
    else:
        stdout_console().print(_table(page))
    if page.next is not None:
        named = f" {name}" if name else ""
        print(
            f"{len(page.versions)} of {page.total} versions; "
            f"go on with: {hint(f'models list{named} --after {page.next}', where)}",
            file=sys.stderr,
        )


def _table(page: Page) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("MODEL", "ALIASES", "PARAMETERS", "DTYPE", "SIZE", "AGE", "DIGEST"):
        right = column in {"PARAMETERS", "SIZE", "AGE"}
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "ALIASES")
    now = time.time()
    for version in page.versions:
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
