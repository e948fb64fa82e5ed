"""`modelyard alerts silence` and `unsilence`"""

import getpass
from typing import Annotated

import typer

from modelyard.api.alert_messages import SilenceWish
from modelyard.cli.keys.words import read_seconds, shown_time
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json
from modelyard.client import Client


def silence(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="As `alerts rules` lists it.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for others.")],
    length: Annotated[
        str, typer.Option("--for", metavar="TIME", help="45s, 10m, 2h or 3d.")
    ] = "2h",
    subject: Annotated[
        str | None,
        typer.Option("--subject", metavar="NAME", help="Only this one, as `alerts list` has it."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell nobody of a rule's alerts for a while. They are shown all the same.

    What still fires when the time is over is told then; the end of what was told is told always.
    """
    where = resolve_home(home)
    for_s = read_seconds(length, "--for")
    wish = SilenceWish(rule=rule, subject=subject, for_s=for_s, reason=reason, by=_user())
    with Client.from_home(where) as client:
        made = client.alerts.silence(wish)
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    of = "" if subject is None else f" of {subject}"
    print(f"silence {made.id}: nobody is told of {rule}{of} until {shown_time(made.until)}")
    print(f"next: {hint(f'alerts unsilence {made.id}', where)} ends it")


def unsilence(
    silence_id: Annotated[str, typer.Argument(metavar="ID", help="As `alerts list` has it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a silence now."""
    with Client.from_home(resolve_home(home)) as client:
        client.alerts.unsilence(silence_id)
    if as_json:
        print_json({"ended": silence_id})
    else:
        print(f"silence {silence_id} has ended")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return ""
