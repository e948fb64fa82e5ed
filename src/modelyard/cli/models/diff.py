"""`modelyard models diff A B`"""

from typing import Any

import msgspec

from modelyard.cli.options import HomeOption, JsonOption, RefArgument, resolve_home
from modelyard.cli.output import bytes_progress, human_bytes, print_json, stdout_console
from modelyard.registry.diff import TensorChange, VersionDiff
from modelyard.registry.registry import Registry

_SHOWN_TENSORS = 20


def diff(
    before: RefArgument,
    after: RefArgument,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what differs between two versions: files, facts, metrics, and tensors by name.

    With --json all tensors that differ are listed.
    """
    with bytes_progress("comparing", quiet=as_json) as progress:
        found = Registry(resolve_home(home)).diff(before, after, progress=progress)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    print(f"{found.before} → {found.after}")
    if found.same:
        print("the same files, byte for byte")
    else:
        stdout_console().print(_table(found))
    _print_metrics(found)


def _table(found: VersionDiff) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "WHAT", found.before, found.after):
        table.add_column(column, overflow="fold")
    for file in found.files:
        old, new = file.before_bytes, file.after_bytes
        sign = _sign(old, new)
        table.add_row(sign, f"file {file.path}", _size(old), _size(new))
    for fact in found.facts:
        table.add_row("~", fact.name.replace("_", " "), _text(fact.before), _text(fact.after))
    for tensor in found.tensors[:_SHOWN_TENSORS]:
        sign = _sign(tensor.before, tensor.after)
        table.add_row(sign, f"tensor {tensor.name}", _text(tensor.before), _after(tensor))
    more = len(found.tensors) - _SHOWN_TENSORS
    if more > 0:
        table.add_row("", f"and {more} more tensors (--json lists all)", "", "")
    if found.tensors_equal:
        table.add_row("=", f"{found.tensors_equal} tensors are equal", "", "")
    return table


def _print_metrics(found: VersionDiff) -> None:
    if not found.metrics:
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("METRIC", found.before, found.after, "CHANGE"):
        table.add_column(column, justify="left" if column == "METRIC" else "right")
    for metric in found.metrics:
        old, new = metric.before, metric.after
        both = isinstance(old, int | float) and isinstance(new, int | float)
        change = f"{new - old:+.4g}" if both else "-"  # type: ignore[operator]
        table.add_row(metric.name, _text(old), _text(new), change)
    stdout_console().print(table)


def _sign(before: object, after: object) -> str:
    if before is None:
        return "+"
    return "-" if after is None else "~"


def _after(tensor: TensorChange) -> str:
    return "other values" if tensor.before == tensor.after else _text(tensor.after)


def _size(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else human_bytes(size_bytes)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
