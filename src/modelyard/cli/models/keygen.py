"""`modelyard models keygen KEY.pem`"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json


def keygen(
    key: Annotated[
        Path, typer.Argument(metavar="KEY.pem", help="Where the private key is to be written.")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key pair for signing: KEY.pem for you alone, KEY.pub.pem for everybody."""
    from modelyard.registry.keys import make_key_pair

    pair = make_key_pair(key)
    if as_json:
        print_json({"key_id": pair.key_id, "private": pair.private, "public": pair.public})
        return
    print(f"private  {pair.private} (keep it: whoever has it can sign)")
    print(f"public   {pair.public}")
    print(f"key id   {pair.key_id}")
    command = f"models sign REF --key {shlex.quote(str(pair.private))}"
    print(f"next     {hint(command, resolve_home(home))}")
