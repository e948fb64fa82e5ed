"""`modelyard keys list`"""

from typing import Annotated

import typer

from modelyard.api.messages import KeyView
from modelyard.cli.keys.words import now, shown_limits, shown_time
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import age, print_json, stdout_console
from modelyard.client import Client


def list_keys(
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="Only this one's.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys that were not revoked. Nobody but its holder has a key's secret."""
    where = resolve_home(home)
    with Client.from_home(where) as client:
        known = client.keys()
    keys = [key for key in known if tenant is None or key.tenant == tenant]
    if as_json:
        print_json([key.model_dump(mode="json") for key in keys])
    elif not keys:
        print("there is no key: everybody on this machine may ask")
        print(f"next: {hint('keys create', where)}")
    else:
        stdout_console().print(_table(keys))


def _table(keys: list[KeyView]) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("key", "tenant", "may ask", "limits", "age", "until"):
        table.add_column(title, overflow="fold")
    for key in keys:
        low = "" if key.priority == "normal" else f", {key.priority} priority"
        table.add_row(
            key.key_id + (f"\n{key.name}" if key.name else ""),
            key.tenant,
            "all models" if key.models is None else ", ".join(key.models),
            (shown_limits(key.limits) or "none") + low,
            age(now() - key.created_at),
            shown_time(key.expires_at),
        )
    return table
