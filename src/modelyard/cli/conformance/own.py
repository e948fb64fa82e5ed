"""`modelyard conformance self`"""

import typer

from modelyard.cli.conformance.driving import OnlyOption, WithoutOption, drive, ended_by_signals
from modelyard.cli.options import HomeOption, JsonOption
from modelyard.conformance.checks.catalogue import CHECKS
from modelyard.conformance.runner import choose, excluded
from modelyard.conformance.yard import running_engines, running_gateway


def own(
    only: OnlyOption = None,
    without: WithoutOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check Modelyard's own gateway: starts engines and a gateway, ends them when it is done.

    Exits 1 when a check failed.
    """
    del home  # understood by every command; this one keeps nothing
    checks = choose(CHECKS, only or ())
    left_out = excluded(CHECKS, without or ())
    with ended_by_signals(), running_engines() as engines, running_gateway(engines) as gateway:
        code = drive(gateway.target, checks, left_out, as_json=as_json, exit_code=gateway.exit_code)
    raise typer.Exit(code)
