"""`modelyard models sign REF --key PRIVATE.pem`"""

import os
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json

PASSWORD_VARIABLE = "MODELYARD_KEY_PASSWORD"  # noqa: S105 - the name of a variable


def sign(
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="NAME, NAME:3, NAME@ALIAS or NAME@sha256:…")
    ],
    key: Annotated[
        Path, typer.Option("--key", metavar="PRIVATE.pem", help="Private key, mode 0600.")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a version, offline.

    Signed are the digests of all its files; nothing is read again. The password of an encrypted
    key is taken from MODELYARD_KEY_PASSWORD.
    """
    from modelyard.registry.registry import Registry

    where = resolve_home(home)
    registry = Registry(where)
    version = registry.get(ref)
    password = os.environ.get(PASSWORD_VARIABLE)
    made = registry.sign(
        f"{version}", key, password=None if password is None else password.encode()
    )
    if as_json:
        print_json(
            {
                "name": version.name,
                "version": version.version,
                "digest": version.digest,
                "key_id": made.key_id,
                "signature": made.path,
            }
        )
        return
    print(f"signed {version}")
    print(f"digest     {version.digest}")
    print(f"key id     {made.key_id}")
    print(f"signature  {made.path}")
    print(f"next       {hint(f'models verify {version} --public-key PUBLIC.pem', where)}")
