"""`modelyard deploy NAME:VERSION`"""

import sys
import time
from typing import Annotated

import typer

from modelyard.api.messages import DeploymentView, DeployRequest
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json
from modelyard.client import Client


def deploy(
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="NAME, NAME:3, NAME@ALIAS or NAME@sha256:…")
    ],
    as_name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Public name; by default the model's own."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="By default chosen from format and hardware."),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, metavar="N", help="Workers to run.")] = 1,
    default: Annotated[
        bool, typer.Option("--default", help="Also serve requests that name no model.")
    ] = False,
    timeout: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="How long to wait until it is live.")
    ] = 600,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a version under a public name, or replace the version that is served there.

    Waits until its replicas have loaded the verified weights and answered a real request.
    """
    request = DeployRequest(
        ref=ref, as_name=as_name, engine=engine, replicas=replicas, default=default
    )
    where = resolve_home(home)
    with Client.from_home(where) as client:
        asked = client.deploy(request)
        live = client.wait_until_live(
            asked.name, asked.generation, timeout, on_change=None if as_json else _Narrator()
        )
        gateway_url = client.status().gateway.url
    if as_json:
        print_json(live.model_dump(mode="json"))
        return
    print(f"live    {live.name} serves {live.model}:{live.version} on {live.engine}")
    print(f"digest  {live.digest}")
    print(f"url     {gateway_url}/v1/chat/completions")
    print(f"next    {hint(f'chat --model {live.name}', where)}")


class _Narrator:
    """Tells on stderr what changed, with the seconds since the command was given."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._last = ""

    def __call__(self, view: DeploymentView) -> None:
        line = f"{view.state.value}, {view.replicas_ready} of {view.replicas_wanted} replicas ready"
        if view.message:
            line += f": {view.message.splitlines()[0]}"  # the error that ends it tells the rest
        if line != self._last:
            self._last = line
            print(f"{time.monotonic() - self._began:6.1f} s  {line}", file=sys.stderr)
