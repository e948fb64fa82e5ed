"""Options that every subcommand understands, and what they stand for."""

import os
import shlex
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

RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help="NAME, NAME:3, NAME@ALIAS or NAME@sha256:…")
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0.0,
        help="How long to wait for registrations, checks and launches that run.",
    ),
]


def resolve_home(chosen: Path | None) -> Home:
    """The home that was asked for, or the user's own; an absolute path either way."""
    if chosen is not None:
        return Home(chosen.expanduser().absolute())
    return Home(_default_root())


def hint(command: str, home: Home) -> str:
    """`modelyard COMMAND` as it must be typed to mean the same home."""
    named = os.environ.get("MODELYARD_HOME")
    known = _default_root() if named is None else Path(named).expanduser().absolute()
    suffix = "" if home.root == known else f" --home {shlex.quote(str(home.root))}"
    return f"modelyard {command}{suffix}"


def _default_root() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("modelyard", appauthor=False))
