"""`modelyard keys rotate`"""

import sys
from typing import Annotated

import typer

from modelyard.cli.keys.words import read_seconds
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json
from modelyard.client import Client


def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    grace: Annotated[
        str,
        typer.Option(
            "--grace", metavar="1h", help="For so long the secret of before is taken too."
        ),
    ] = "0s",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a key another secret, printed this once. Limits and what was used of them stay."""
    with Client.from_home(resolve_home(home)) as client:
        made = client.rotate_key(key_id, read_seconds(grace, "--grace"))
    if as_json:
        print_json({**made.key.model_dump(mode="json"), "secret": made.secret})
        return
    print(made.secret)
    print("keep the secret now: it is not shown again", file=sys.stderr)
