"""`modelyard models pull REF FOLDER`"""

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption, RefArgument, resolve_home
from modelyard.cli.output import bytes_progress, human_bytes, print_json
from modelyard.cli.presentation import version_facts
from modelyard.registry.registry import Registry


def pull(
    ref: RefArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to; not there yet, or empty.")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a version's files out to a folder, every byte hashed on the way.

    The folder appears when it is whole; after Ctrl-C the same command goes on where it was.
    """
    registry = Registry(resolve_home(home))
    version = registry.get(ref)
    with bytes_progress(f"copying {version}", quiet=as_json) as progress:
        target = registry.pull(str(version), folder, progress=progress)
    if as_json:
        print_json({**version_facts(version), "folder": str(target.absolute())})
        return
    print(f"{version} is in {target}: {human_bytes(version.size_bytes)}, every byte verified")
