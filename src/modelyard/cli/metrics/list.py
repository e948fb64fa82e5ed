"""`modelyard metrics list`: what is measured, by whom, in which unit."""

from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption
from modelyard.cli.output import print_json, stdout_console
from modelyard.core.metrics.catalogue import ALL


def list_metrics(
    of: Annotated[
        str | None,
        typer.Option("--of", metavar="PART", help="gateway or controller; both when not given."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every metric there is.

    docs/metrics.md says more about each.
    """
    del home  # understood by every command; this one reads nothing there
    if of not in (None, "gateway", "controller"):
        raise typer.BadParameter("gateway or controller", param_hint="--of")
    shown = [metric for metric in ALL if of in (None, metric.by)]
    if as_json:
        print_json(
            [
                {
                    "name": metric.name,
                    "kind": metric.kind,
                    "unit": metric.unit,
                    "labels": metric.labels,
                    "by": metric.by,
                    "meaning": metric.help,
                    "convention": metric.convention or None,
                }
                for metric in shown
            ]
        )
        return
    console = stdout_console()
    width = max(len(metric.name) for metric in shown)
    for metric in shown:
        labels = ", ".join(metric.labels)
        line = f"{metric.name:{width}}  {metric.kind:9}  {metric.unit:11}  {metric.by:10}  {labels}"
        console.print(line.rstrip(), soft_wrap=True)
