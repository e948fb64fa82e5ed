"""`modelyard models export REF FILE.tar`"""

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption, RefArgument, resolve_home
from modelyard.cli.output import bytes_progress, human_bytes, print_json
from modelyard.cli.presentation import version_facts
from modelyard.registry.registry import Registry


def export(
    ref: RefArgument,
    archive: Annotated[Path, typer.Argument(metavar="FILE.tar", help="Where to; not there yet.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a version, its manifest and its lineage into one file, every byte hashed.

    `modelyard models import FILE.tar` registers it on another home, under the same digest.
    """
    registry = Registry(resolve_home(home))
    version = registry.get(ref)
    with bytes_progress(f"exporting {version}", quiet=as_json) as progress:
        registry.export(str(version), archive, progress=progress)
    if as_json:
        print_json({**version_facts(version), "archive": str(archive.absolute())})
        return
    print(f"{version} is in {archive}: {human_bytes(archive.stat().st_size)}")
    print(f"next: modelyard models import {archive.name}")
