"""`modelyard metrics rules > rules.yml`."""

import sys
from typing import Annotated

import typer

from modelyard.cli.options import HomeOption
from modelyard.core.alerting import BURN_RATES, OBJECTIVE


def rules(
    objective: Annotated[
        float,
        typer.Option(
            "--objective",
            metavar="SHARE",
            help="Share of requests that are to be answered, of those completed or failed.",
        ),
    ] = OBJECTIVE,
    home: HomeOption = None,
) -> None:
    """Print recording and alert rules for a Prometheus, as YAML.

    They ask what Modelyard's own alerts ask, with the same windows and bounds.
    """
    del home  # understood by every command; this one reads nothing there
    from modelyard.observe.rules import rules_yaml

    least = 1.0 - 1.0 / max(rate.factor for rate in BURN_RATES)
    if not least < objective < 1.0:
        raise typer.BadParameter(
            f"give a share between {least:.3f} and 1, such as 0.99", param_hint="--objective"
        )
    sys.stdout.write(rules_yaml(objective))
