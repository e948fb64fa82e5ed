"""`modelyard trends`"""

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from modelyard.api.trend_messages import Figures, Point, Summary, Trends
from modelyard.cli import drawing
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import human_bytes, human_count, print_json, stdout_console
from modelyard.client import Client

COLUMNS = 48
"""Of the drawings: with their names and numbers they fit into 80."""
LENGTHS_S = (
    60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 14_400, 21_600, 43_200, 86_400,
    2 * 86_400, 7 * 86_400, 28 * 86_400, 84 * 86_400,
)  # fmt: skip
_NAME = 10
_LABEL_EVERY = 12


def trends(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Its public name.")],
    hours: Annotated[
        float, typer.Option("--hours", metavar="N", help="How far back.", min=0.02)
    ] = 24.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a model's requests, errors, times and tokens of the last hours, and each version's."""
    with Client.from_home(resolve_home(home)) as client:
        summary = client.summary(model, hours)
        course = client.trends(model, hours, length_for(hours))
    if as_json:
        print_json(
            {"summary": summary.model_dump(mode="json"), "trends": course.model_dump(mode="json")}
        )
        return
    console = stdout_console()
    for line, style in _drawn(course, summary):
        console.print(line, style=style, soft_wrap=True)
    console.print()
    console.print(_versions(summary))
    for line in _machine(summary):
        console.print(line, style="dim", soft_wrap=True)


def length_for(hours: float) -> int:
    """Seconds of one column, so that they are at most `COLUMNS`."""
    wanted_s = hours * 3600 / COLUMNS
    return next((length for length in LENGTHS_S if length >= wanted_s), LENGTHS_S[-1])


def _drawn(course: Trends, summary: Summary) -> list[tuple[str, str | None]]:
    points = course.points
    lines: list[tuple[str, str | None]] = [
        (f"{summary.model}, the last {_hours(summary.hours)}, {_length(course.step_s)} a column",
         "bold"),
        ("", None),
    ]  # fmt: skip
    rates = [point.request_rate for point in points]
    for row, line in enumerate(drawing.bars(rates, 3)):
        name, told = "", ""
        if row == 0:
            told = f"most {drawing.amount(max(rates, default=0.0))}"
        elif row == 2:
            name = "requests/s"
            told = f"mean {drawing.amount(summary.request_rate)}"
        lines.append((_line(name, line, told), "cyan"))
    lines += [
        _row("errors", points, summary, lambda of: of.error_rate, drawing.share, "red"),
        _row("ttft p50", points, summary, lambda of: of.time_to_first_token.p50_s,
             _short, "green"),
        _row("ttft p99", points, summary, lambda of: of.time_to_first_token.p99_s,
             _short, "yellow"),
        _row("tokens/s", points, summary, lambda of: of.token_rate, drawing.amount, "magenta"),
        (_line("", _clock(points, course.step_s), ""), "dim"),
    ]  # fmt: skip
    return lines


def _row(
    name: str,
    points: Sequence[Point],
    summary: Summary,
    value: Callable[[Figures], float | None],
    tell: Callable[[Any], str],
    style: str,
) -> tuple[str, str]:
    values = [value(point) if point.request_count else None for point in points]
    known = [each for each in values if each is not None]
    told = f"{tell(value(summary))}" if known else ""
    if known:
        told += f", most {tell(max(known))}"
    return _line(name, drawing.sparkline(values), told), style


def _line(name: str, drawn: str, told: str) -> str:
    return f"{name:<{_NAME}}{drawn:<{COLUMNS + 1}} {told}".rstrip()


def _clock(points: Sequence[Point], step_s: int) -> str:
    form = "%H:%M" if step_s * COLUMNS <= 2 * 86_400 else "%d %b" if step_s <= 86_400 else "%b %Y"
    labels = [time.strftime(form, time.localtime(point.at)) for point in points[::_LABEL_EVERY]]
    return "".join(f"{label:<{_LABEL_EVERY}}" for label in labels).rstrip()


def _versions(summary: Summary) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for column in ("VERSION", "SLOT", "REQUESTS", "ERRORS", "TTFT p50", "p99", "TIME p50", "p99",
                   "TOKENS/S", "COST"):  # fmt: skip
        table.add_column(
            column, justify="left" if column in ("VERSION", "SLOT") else "right", no_wrap=True
        )
    for each in summary.versions:
        table.add_row(str(each.version or "-"), each.slot or "-", *_cells(each))
    if len(summary.versions) != 1:
        table.add_row("all", "", *_cells(summary))
    return table


def _cells(of: Figures) -> tuple[str, ...]:
    return (
        human_count(of.request_count),
        drawing.share(of.error_rate),
        drawing.seconds(of.time_to_first_token.p50_s),
        drawing.seconds(of.time_to_first_token.p99_s),
        drawing.seconds(of.response_time.p50_s),
        drawing.seconds(of.response_time.p99_s),
        drawing.amount(of.token_rate),
        "-" if of.cost is None else f"{of.cost:.4g}",
    )


def _machine(summary: Summary) -> list[str]:
    lines = []
    workers = summary.workers
    if workers is not None:
        used = [f"memory {human_bytes(workers.memory_bytes.average or 0)}",
                f"processors {drawing.amount(workers.cpus.average or 0.0)}"]  # fmt: skip
        if workers.gpu_memory_bytes.most:
            used.append(f"GPU memory {human_bytes(workers.gpu_memory_bytes.average or 0)}")
        lines.append(f"its workers  {', '.join(used)} on average")
    for machine in summary.machines:
        lines.append(
            f"{machine.host}  memory {human_bytes(machine.memory_bytes.average or 0)} of "
            f"{human_bytes(machine.memory_total_bytes)}, processors "
            f"{drawing.share(machine.cpu_share.average)}"
        )
        lines += [
            f"  GPU {gpu.index} {gpu.name}  {drawing.share(gpu.busy_share.average)} busy, memory "
            f"{human_bytes(gpu.memory_bytes.average or 0)} of "
            f"{human_bytes(gpu.memory_total_bytes)}"
            for gpu in machine.gpus
        ]
    return ["", *lines] if lines else []


def _short(value: float | None) -> str:
    return drawing.seconds(value).replace(" ", "")


def _hours(hours: float) -> str:
    if hours >= 48 and hours % 24 == 0:
        return f"{hours / 24:g} days"
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    return "hour" if hours == 1 else f"{hours:g} hours"


def _length(step_s: int) -> str:
    for bound, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if step_s % bound == 0:
            count = step_s // bound
            return f"1 {unit}" if count == 1 else f"{count} {unit}s"
    return f"{step_s} s"
