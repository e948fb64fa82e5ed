"""`modelyard alerts history`"""

from typing import Annotated

import typer

from modelyard.cli.alerts.words import table
from modelyard.cli.keys.words import shown_time
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import age, print_json, stdout_console
from modelyard.client import Client


def history(
    rule: Annotated[
        str | None, typer.Option("--rule", metavar="NAME", help="Only this one's.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, metavar="N")] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show alerts that fired and ended, the latest first."""
    with Client.from_home(resolve_home(home)) as client:
        alerts = client.alerts.history(limit, rule)
    if as_json:
        print_json([alert.model_dump(mode="json") for alert in alerts])
        return
    if not alerts:
        print("nothing has fired and ended" + (f" of {rule}" if rule else ""))
        return
    shown = table("fired", "for", "rule", "subject", "at its end")
    for alert in alerts:
        fired, ended = alert.fired_at or alert.began_at, alert.resolved_at or alert.began_at
        quiet = "" if alert.sent else "\n(nobody was told)"
        row = (shown_time(fired), age(ended - fired), alert.rule, alert.subject)
        shown.add_row(*row, alert.told + quiet)
    stdout_console().print(shown)
