"""`modelyard keys revoke`"""

from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json
from modelyard.client import Client


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key: new requests with it are refused within a second, those in flight finish."""
    with Client.from_home(resolve_home(home)) as client:
        client.revoke_key(key_id)
    if as_json:
        print_json({"key_id": key_id, "revoked": True})
    else:
        print(f"{key_id} is revoked")
