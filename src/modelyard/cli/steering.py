"""`modelyard promote|pause|resume|abort|rollback|undeploy NAME`, and `modelyard logs NAME`"""

from typing import Annotated

import typer

from modelyard.cli.narrating import told
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json
from modelyard.client import Client, Verb

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Public name of a deployment.")]


def promote(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Go on now: end the canary and switch, or end the bake and stop the former version."""
    _steer(name, "promote", home, as_json)


def pause(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stay at this step. What speaks against the candidate still takes it back."""
    _steer(name, "pause", home, as_json)


def resume(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Go on after a pause; its time does not count."""
    _steer(name, "resume", home, as_json)


def abort(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Give the candidate up; what was live before is live."""
    _steer(name, "abort", home, as_json)


def rollback(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Go back to the version before: at once while it stands by, else by a rollout of it."""
    _steer(name, "rollback", home, as_json)


def undeploy(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Serve it no more. Its requests in flight finish; its version stays registered."""
    with Client.from_home(resolve_home(home)) as client:
        view = client.undeploy(name)
    if as_json:
        print_json(view.model_dump(mode="json"))
    else:
        print(f"{name} is taken away; what is in flight finishes")


def logs(
    name: NameArgument,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=10_000, help="Of each worker.")
    ] = 40,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last lines that the workers of a deployment wrote, the youngest worker first."""
    with Client.from_home(resolve_home(home)) as client:
        said = client.logs(name, lines)
    if as_json:
        print_json([log.model_dump(mode="json") for log in said])
        return
    for log in said:
        print(f"== {log.replica}, version {log.version}, {log.state.value}")
        print("\n".join(log.lines) or "(nothing)")
    if not said:
        print(f"no worker of {name} has written anything")


def _steer(name: str, verb: Verb, home: HomeOption, as_json: bool) -> None:
    where = resolve_home(home)
    with Client.from_home(where) as client:
        view = client.steer(name, verb)
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    print(told(view))
    if view.rollout is not None:
        print(f"next    {hint(f'rollouts watch {view.rollout.id}', where)}")
