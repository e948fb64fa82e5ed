"""`modelyard models list` and `modelyard models show REF`"""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
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

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="List and show registered versions.",
)


@app.command("list")
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


@app.command("show")
def show(
    ref: Annotated[
        str,
        typer.Argument(metavar="REF", help="NAME, NAME:3, NAME@ALIAS or NAME@sha256:…"),
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one version: its facts, its files, its digest."""
    version = Registry(resolve_home(home)).get(ref)
    files = [msgspec.to_builtins(entry) for entry in version.manifest.files]
    if as_json:
        print_json({**version_facts(version), "files": files})
        return
    facts = version.facts
    context = f"{facts.context_length} tokens" if facts.context_length else "not stated"
    registered = datetime.fromtimestamp(version.created_at, UTC)
    lines = {
        "quarantined": version.quarantined,
        "aliases": ", ".join(version.aliases),
        "parent": version.parent or "",
        "architecture": facts.architecture,
        "parameters": f"{human_count(facts.parameters)} ({facts.parameters:,})",
        "format": f"{facts.format}, mostly {facts.dtype}",
        "context": context,
        "chat template": "yes" if facts.chat_template else "no",
        "licence": facts.licence or "not stated",
        "size": human_bytes(version.size_bytes),
        "registered": f"{registered:%Y-%m-%d %H:%M:%S} UTC",
        **{name: f"{value:g}" for name, value in version.metrics.items()},
    }
    print(f"{version.name}:{version.version}\n{version.digest}")
    for label, text in lines.items():
        if text:
            print(f"  {label:<14}{text}")
    print("files")
    for entry in version.manifest.files:
        print(f"  {entry.sha256[:12]}  {human_bytes(entry.size_bytes):>9}  {entry.path}")
