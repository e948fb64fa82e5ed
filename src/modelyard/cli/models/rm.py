"""`modelyard models rm REF`"""

import sys
from typing import Annotated

import typer

from modelyard.cli.options import (
    HomeOption,
    JsonOption,
    RefArgument,
    WaitOption,
    hint,
    resolve_home,
)
from modelyard.cli.output import print_json
from modelyard.cli.presentation import version_facts
from modelyard.cli.registries import open_registry


def remove(
    ref: RefArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for those who come later.")
    ] = "",
    wait: WaitOption = 10.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a version out for good; its number is never given again.

    Refused while an alias, a deployment or a child needs it. The bytes go with the next gc.
    """
    where = resolve_home(home)
    removed = open_registry(where).remove(ref, reason=reason, wait_s=wait)
    for warning in removed.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print_json({**version_facts(removed.version), "warnings": list(removed.warnings)})
        return
    print(f"{removed.version} is taken out")
    print(f"next: {hint('models gc', where)} gives its bytes back")
