"""`modelyard doctor`"""

from typing import Annotated

import msgspec
import typer

from modelyard.cli.checks import Finding, Ports, look
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json, stdout_console

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    gateway_port: Annotated[
        int, typer.Option(metavar="PORT", help="Port of the gateway to look at.")
    ] = 8000,
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port of the controller to look at.")
    ] = 8001,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what works on this machine, what is missing and how to get it.

    Exits 1 only when something stops Modelyard from working.
    """
    findings = list(look(resolve_home(home), Ports(gateway_port, port)))
    failed = [finding for finding in findings if finding.mark == "fail"]
    if as_json:
        print_json({"ok": not failed, "findings": [msgspec.to_builtins(one) for one in findings]})
    else:
        _print(findings)
    if failed:
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        detail = Text(one.detail)
        if one.next_step:
            detail.append(f"\n→ {one.next_step}", style="" if one.mark == "fail" else "dim")
        table.add_row(Text(one.mark, style=STYLES[one.mark]), one.check, detail)
    stdout_console().print(table)
    marks = [one.mark for one in findings]
    if "fail" in marks:
        print(f"\n{marks.count('fail')} of {len(marks)} checks failed: see the arrows above")
    else:
        print("\nModelyard can work here. Next: modelyard demo")
