"""`modelyard models import SOURCE`"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import bytes_progress, print_json
from modelyard.cli.presentation import version_facts
from modelyard.cli.registries import open_registry

_MLFLOW = ("runs:", "models:")


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An archive that `modelyard models export` wrote; or, in MLflow, "
            "runs:/RUN_ID/PATH, models:/NAME/3 or models:/NAME@ALIAS.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name here; by default the name there."),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="URI",
            help="Tracking server or store of that MLflow; by default the catalogue's.",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a version out of an archive, or a model that MLflow holds.

    Every byte is hashed on the way in. An import out of MLflow that was interrupted goes on where
    it stopped.
    """
    where = resolve_home(home)
    registry = open_registry(where)
    with bytes_progress("importing", quiet=as_json) as progress:
        if source.startswith(_MLFLOW):
            registration = registry.import_mlflow(
                source, name=name, tracking_uri=tracking_uri, progress=progress
            )
        elif tracking_uri is not None:
            raise typer.BadParameter("--from belongs to runs:/… and models:/…")
        else:
            registration = registry.import_archive(Path(source), name=name, progress=progress)
    version = registration.version
    for warning in registration.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        created = {"created": registration.created, "warnings": list(registration.warnings)}
        print_json({**version_facts(version), **created})
        return
    print(f"{'imported as' if registration.created else 'already registered as'} {version}")
    print(f"digest  {version.digest}")
    print(f"next    {hint(f'models show {version}', where)}")
