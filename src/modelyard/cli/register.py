"""`modelyard register NAME PATH`"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import bytes_progress, human_bytes, human_count, print_json
from modelyard.cli.presentation import version_facts


def register(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder or file that holds its weights.")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store a folder of weights as the next version of a model.

    Every file is hashed while it is copied. The same content again is the same version.
    """
    from modelyard.registry.registry import Registry

    where = resolve_home(home)
    with bytes_progress("registering", quiet=as_json) as progress:
        registration = Registry(where).register(name, path, progress=progress)
    version = registration.version
    ref = f"{version.name}:{version.version}"
    for warning in registration.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        created = {"created": registration.created, "warnings": list(registration.warnings)}
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
