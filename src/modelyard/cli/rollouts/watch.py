"""`modelyard rollouts watch`"""

import time
from typing import Annotated

import typer

from modelyard.cli.narrating import Narrator
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json
from modelyard.cli.rollouts.show import IdArgument, lines
from modelyard.client import Client
from modelyard.core.errors import LaunchFailed, Unavailable
from modelyard.core.rollout import OVER, Phase

_LOOK_EVERY_S = 0.2


def watch(
    rollout: IdArgument,
    timeout: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="How long to watch at most.")
    ] = 86_400,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a rollout on stderr until it is over, then show it. Exit code 1: it went back."""
    where = resolve_home(home)
    deadline = time.monotonic() + timeout
    narrator = Narrator()
    with Client.from_home(where) as client:
        view = client.rollout(rollout)
        while view.phase not in OVER:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{rollout} was not over within {timeout} s (it is {view.phase.value})",
                    next_step=f"it goes on; see {hint(f'rollouts show {rollout}', where)}",
                )
            if not as_json:
                narrator(client.deployment(view.deployment))
            time.sleep(_LOOK_EVERY_S)
            view = client.rollout(rollout)
    if as_json:
        print_json(view.model_dump(mode="json"))
    else:
        for line in lines(view):
            print(line)
    if view.phase is Phase.UNDONE:
        raise LaunchFailed(
            f"{rollout} went back: {view.reason}",
            next_step=f"see {hint(f'rollouts show {rollout}', where)}",
        )
