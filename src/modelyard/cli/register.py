"""`modelyard register NAME PATH`"""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import bytes_progress, human_bytes, human_count, print_json
from modelyard.cli.presentation import version_facts
from modelyard.core.refs import check_alias


def register(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="Folder or file that holds its weights, or hf://ORG/MODEL@REVISION.",
        ),
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            metavar="PATH",
            help="Folder or file with a tokenizer that lies elsewhere.",
            show_default=False,
        ),
    ] = None,
    link: Annotated[
        bool,
        typer.Option("--link", help="Take read-only files of the same disk in without a copy."),
    ] = False,
    parent: Annotated[
        str | None,
        typer.Option("--parent", metavar="REF", help="What it was made of.", show_default=False),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE.json",
            help="How: kind, tool, options, seed, data_digest.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME=VALUE", help="An evaluation result; repeatable."),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(
            "--alias", metavar="ALIAS", help="Let this alias mean it.", show_default=False
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            metavar="NAME",
            help="Recorded as declared, beside what the files say.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store a folder of weights as the next version of a model.

    Every file is hashed while it is copied. The same content again is the same version. An
    interrupted registration, or fetch from a hub, is continued by the same command.
    """
    from modelyard.cli.origins import read_origin
    from modelyard.cli.registries import open_registry

    where = resolve_home(home)
    if alias is not None:
        check_alias(alias)
    origin = msgspec.structs.replace(read_origin(parent, recipe, metrics or ()), licence=licence)
    registry = open_registry(where)
    with bytes_progress("registering", quiet=as_json) as progress:
        registration = registry.register(
            name, path, origin=origin, link=link, tokenizer=tokenizer, progress=progress
        )
    version = registration.version
    ref = f"{version.name}:{version.version}"
    warnings = list(registration.warnings)
    if alias is not None:
        warnings += registry.set_alias(ref, alias)
        version = registry.get(ref)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        created = {"created": registration.created, "warnings": warnings}
        print_json({**version_facts(version), **created})
        return
    print(f"{'registered' if registration.created else 'already registered as'} {ref}")
    print(f"digest  {version.digest}")
    print(
        f"model   {version.facts.architecture}, "
        f"{human_count(version.facts.parameters)} parameters, {version.facts.dtype}, "
        f"{human_bytes(version.size_bytes)}"
    )
    print(f"next    {hint(f'deploy {ref}', where)}")
