"""Options that every subcommand understands, and what they stand for."""

from pathlib import Path
from typing import Annotated

import typer

from modelyard.core.home import Home

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        envvar="MODELYARD_HOME",
        help="Where everything of this installation lies; by default the user's data folder.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print facts as JSON on stdout, nothing else.")
]


def resolve_home(chosen: Path | None) -> Home:
    """The home that was asked for, or the user's own; an absolute path either way."""
    if chosen is not None:
        return Home(chosen.expanduser().absolute())
    import platformdirs

    return Home(Path(platformdirs.user_data_dir("modelyard", appauthor=False)))
