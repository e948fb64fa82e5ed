"""`modelyard cost`"""

import csv
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from modelyard.api.cost_messages import CostReport, CostRow
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json, stdout_console
from modelyard.client import Client
from modelyard.core.cost import NANOS, plain
from modelyard.core.errors import StorageError

if TYPE_CHECKING:
    from modelyard.core.home import Home

By = Literal["tenant", "key", "model", "version", "day"]
_TOP = 20
_DAY_S = 86_400
_WITH_CAPACITY = ("model", "version", "day")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What begins a formula in a spreadsheet (OWASP, CSV injection)."""


def cost(
    days: Annotated[
        int, typer.Option("--days", min=1, max=3660, metavar="N", help="Of the last days, in UTC.")
    ] = 30,
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="tenant, key, model, version or day.")
    ] = "tenant",
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="Only this one's.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Only requests of this one.")
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write all rows as CSV; - for stdout."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Of a stand-alone gateway: from its log."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what requests cost, and what the replicas cost that nobody asked.

    A request pays for the tokens by the price of its upstream, or for the time that it had a
    replica: while n requests were with one, 1/n of it was each one's. Idle is what replicas cost
    less what their requests paid: they waited, loaded, or worked for copies and smoke tests.
    Per M is what a million tokens cost: the cost of the requests by all their tokens, read and
    made; the last line says it with idle time.
    """
    if by not in get_args(By):
        raise typer.BadParameter(f"{by!r} is none of {', '.join(get_args(By))}", param_hint="--by")
    where = resolve_home(home)
    top = None if as_json or csv_file is not None else _TOP
    query: dict[str, Any] = {"days": days, "by": by, "tenant": tenant, "model": model, "top": top}
    report = _of_controller(where, query) if config is None else _of_log(config, where, query)
    if csv_file is not None:
        _write_csv(csv_file, report)
    elif as_json:
        print_json(_facts(report))
    else:
        _print_table(report)


def _of_controller(home: "Home", query: dict[str, Any]) -> CostReport:
    with Client.from_home(home) as client:
        return client.costs(**query)


def _of_log(config: Path, home: "Home", query: dict[str, Any]) -> CostReport:
    from modelyard.cli.costlog import report_of_log

    return report_of_log(config, home, **query)


# --- for programs --------------------------------------------------------------------------------


def _facts(report: CostReport) -> dict[str, Any]:
    return report.model_dump(mode="json") | {
        "since_day": _day(report.since_day),
        "rows": [_row_facts(row) for row in report.rows],
        "total": _row_facts(report.total),
    }


def _row_facts(row: CostRow) -> dict[str, Any]:
    each = _per_million(row)
    return row.model_dump(mode="json") | {
        "cost": row.cost_nanos / NANOS if _known(row) else None,
        "per_million": None if each is None else each / NANOS,
    }


def _write_csv(file: Path, report: CostReport) -> None:
    text = io.StringIO(newline="")
    out = csv.writer(text)  # RFC 4180: lines end in CR LF, quotes where they are needed
    out.writerow(
        [report.by, "requests", "priced_requests", "tokens_in", "tokens_out", "currency", "cost",
         "per_million", "capacity", "idle"]
    )  # fmt: skip
    for row in report.rows:
        out.writerow(_cells(report, row))
    if report.by not in _WITH_CAPACITY and report.idle_nanos is not None:
        out.writerow(["(idle)", "", "", "", "", report.currency, "", "", "",
                      plain(report.idle_nanos)])  # fmt: skip
    if str(file) == "-":
        sys.stdout.write(text.getvalue())
        return
    try:
        with file.open("w", newline="", encoding="utf-8") as target:
            target.write(text.getvalue())
    except OSError as error:
        raise StorageError(
            f"{file} can't be written: {error.strerror}", next_step="name another file, or -"
        ) from error


def _cells(report: CostReport, row: CostRow) -> list[str]:
    each = _per_million(row)
    return [
        _harmless(row.name),
        *map(str, (row.requests, row.priced, row.prompt_tokens, row.completion_tokens)),
        report.currency,
        plain(row.cost_nanos) if _known(row) else "",
        "" if each is None else plain(each),
        "" if not row.capacity_nanos else plain(row.capacity_nanos),
        "" if row.idle_nanos is None else plain(row.idle_nanos),
    ]


def _harmless(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(_FORMULA) else name


# --- for people ----------------------------------------------------------------------------------


def _print_table(report: CostReport) -> None:
    console = stdout_console()
    if not report.rows:
        console.print(f"nothing was asked, and nothing ran, since {_day(report.since_day)}")
        return
    console.print(_table(report))
    for line in _notes(report):
        console.print(line, soft_wrap=True)


def _table(report: CostReport) -> Any:
    from rich import box
    from rich.table import Table

    with_idle = report.by in _WITH_CAPACITY and report.idle_nanos is not None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(report.by, overflow="fold", min_width=14)
    titles = ["requests", "tokens in", "out", f"cost {report.currency}", "per M"]
    for title in (*titles, *(("idle", "share") if with_idle else ())):
        table.add_column(title, justify="right")
    for name, row, money, idle in _lines(report):
        cells = [name]
        if row is None:
            cells += ["", "", "", money, ""]
        else:
            counts = (row.requests, row.prompt_tokens, row.completion_tokens)
            cells += [f"{count:,}" for count in counts]
            cells += [money, _money(_per_million(row))]
        if with_idle:
            cells += [idle, _share(row.idle_nanos, row.capacity_nanos) if row else ""]
        table.add_row(*cells, end_section=False)
    return table


def _lines(report: CostReport) -> Iterator[tuple[str, CostRow | None, str, str]]:
    """Name, row, cost and idle cost of every line, rounded so that they add up as shown."""
    from modelyard.observe.costs import apportioned

    rows = [(row.name, row) for row in report.rows]
    if report.folded is not None:
        rows.append((f"({report.folded_count:,} more)", report.folded))
    beside = report.idle_nanos if report.by not in _WITH_CAPACITY else None
    amounts = [row.cost_nanos for _, row in rows] + ([] if beside is None else [beside])
    idles = [row.idle_nanos or 0 for _, row in rows]
    digits = _digits(sum(amounts) + sum(idles))
    unit = NANOS // 10**digits
    costs, idle = apportioned(amounts, unit), apportioned(idles, unit)
    for (name, row), money, free in zip(rows, costs, idle, strict=False):
        told = _fixed(money, digits) if _known(row) else "unknown"
        yield name, row, told, "" if row.idle_nanos is None else _fixed(free, digits)
    if beside is not None:
        yield "(idle)", None, _fixed(costs[-1], digits), ""
    told = _fixed(sum(costs), digits) if _known(report.total) or beside else "unknown"
    yield "total", report.total, told, _fixed(sum(idle), digits)


def _notes(report: CostReport) -> Iterator[str]:
    money, total = report.currency, report.total
    yield f"since {_day(report.since_day)}, in UTC"
    if report.idle_nanos is not None and total.capacity_nanos:
        share = _share(report.idle_nanos, total.capacity_nanos)
        yield (
            f"what ran cost {_money(total.capacity_nanos)} {money}; of that, "
            f"{_money(report.idle_nanos)} {money} were idle ({share})"
        )
        tokens = total.prompt_tokens + total.completion_tokens
        if tokens:
            every = round((total.cost_nanos + report.idle_nanos) * 1_000_000 / tokens)
            yield f"with idle time, a million tokens cost {_money(every)} {money}"
    unknown = total.requests - total.priced
    if unknown:
        yield f"the cost of {unknown:,} of {total.requests:,} requests is not known"
    if report.missing_settings:
        of_home = report.missing_settings[0].startswith("cost.")
        file = "config.yaml" if of_home else "the gateway's file"
        yield (
            f"no price is set for {', '.join(report.unpriced_models)}; "
            f"set {', '.join(report.missing_settings)} in {file}"
        )
    elif report.unpriced_models:
        yield (
            "they are from before a price was set, or of models that are not deployed: "
            f"{', '.join(report.unpriced_models)}"
        )


def _known(row: CostRow) -> bool:
    """Whether the cost of some of it is known."""
    return row.cost_nanos > 0 or row.priced == row.requests


def _per_million(row: CostRow) -> int | None:
    tokens = row.prompt_tokens + row.completion_tokens
    if tokens == 0 or row.priced < row.requests:
        return None
    return round(row.cost_nanos * 1_000_000 / tokens)


def _digits(total_nanos: int) -> int:
    """Decimals that tell amounts of this size apart."""
    for digits, bound in ((2, 100), (4, 1)):
        if abs(total_nanos) >= bound * NANOS:
            return digits
    return 6


def _money(nanos: int | None) -> str:
    if nanos is None:
        return ""
    return _fixed(nanos, _digits(nanos))


def _fixed(nanos: int, digits: int) -> str:
    unit = NANOS // 10**digits
    units = (2 * nanos + unit) // (2 * unit)
    whole, rest = divmod(abs(units), 10**digits)
    return f"{'-' if units < 0 else ''}{whole:,}.{rest:0{digits}d}"


def _share(part: int | None, whole: int | None) -> str:
    return "" if part is None or not whole else f"{100 * part / whole:.0f} %"


def _day(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * _DAY_S))
