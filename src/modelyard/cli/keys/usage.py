"""`modelyard keys usage`"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json, stdout_console
from modelyard.client import Client
from modelyard.core.home import Home
from modelyard.core.records import RequestRecord
from modelyard.core.usage import DAY_S, Usage, summed


def usage(
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="Only this one's.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, metavar="N", help="Of the last days.")] = 30,
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="tenant, key, model or day.")
    ] = "tenant",
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Of a stand-alone gateway: from its log."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was used: requests, and the tokens that replicas read and made for them."""
    name = _NAMES.get(by)
    if name is None:
        raise typer.BadParameter(f"{by!r} is none of {', '.join(_NAMES)}", param_hint="--by")
    where = resolve_home(home)
    rows = rows_of_log(config, where, days) if config is not None else _of_controller(where, days)
    rows = [row for row in rows if tenant is None or row.tenant == tenant]
    totals = _total(rows, name)
    if as_json:
        print_json([{by: key, **_facts(row)} for key, row in totals])
    else:
        stdout_console().print(_table(by, totals))


_NAMES: dict[str, Callable[[Usage], str]] = {
    "tenant": lambda row: row.tenant or "(no key)",
    "key": lambda row: row.key_id or "(no key)",
    "model": lambda row: row.model or "(none)",
    "day": lambda row: time.strftime("%Y-%m-%d", time.gmtime(row.day * DAY_S)),
}


def _of_controller(home: Home, days: int) -> list[Usage]:
    with Client.from_home(home) as client:
        return [msgspec.convert(row.model_dump(), Usage) for row in client.usage(days)]


def rows_of_log(config: Path, home: Home, days: int) -> list[Usage]:
    """Summed from the request log of the gateway that has this configuration."""
    from modelyard.gateway.config import GatewayFile
    from modelyard.gateway.yamlfile import read_settings

    settings = read_settings(config, GatewayFile)
    state = settings.state_dir
    place = home if state is None else Home(config.absolute().parent / Path(state).expanduser())
    name = settings.records.file
    files = [] if name is None else sorted(place.gateway.glob(f"{name}*"))
    first = int(time.time() // DAY_S) - days + 1
    return [row for row in summed(_records(files)) if row.day >= first]


def _records(files: Sequence[Path]) -> Iterator[RequestRecord]:
    decoder = msgspec.json.Decoder(RequestRecord)
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # the last one may be half written
                    yield decoder.decode(line)


def _total(rows: Sequence[Usage], name: Callable[[Usage], str]) -> list[tuple[str, Usage]]:
    totals: dict[str, Usage] = {}
    for row in rows:
        key = name(row)
        known = totals.get(key)
        totals[key] = (
            row
            if known is None
            else msgspec.structs.replace(
                known, **{field: getattr(known, field) + getattr(row, field) for field in _SUMS}
            )
        )
    return sorted(totals.items())


_SUMS = ("requests", "unsuccessful", "cached", "prompt_tokens", "completion_tokens")


def _facts(row: Usage) -> dict[str, int]:
    return {field: getattr(row, field) for field in _SUMS}


def _table(by: str, totals: Sequence[tuple[str, Usage]]) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(by, overflow="fold")
    for title in ("requests", "unsuccessful", "cached", "tokens in", "tokens out"):
        table.add_column(title, justify="right")
    for key, row in totals:
        table.add_row(key, *(f"{getattr(row, field):,}" for field in _SUMS))
    return table
