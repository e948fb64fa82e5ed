"""`modelyard gateway check`"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli import failures
from modelyard.cli.gateway.tables import key_table, model_table, tenant_table
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json, stdout_console
from modelyard.core.errors import InvalidConfig
from modelyard.core.home import Home


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Such as gateway.yaml.")],
    without_secrets: Annotated[
        bool,
        typer.Option(
            "--without-secrets",
            help="Variables and files of secrets need not be there, as in a CI that has none.",
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a configuration file as the gateway would at its start, and show what it says.

    Nothing is started and nobody is asked. Exit code 1, with the mistakes, when it can't be used.
    """
    from modelyard.gateway.checking import check_file

    checked = check_file(file, os.environ, secrets_needed=not without_secrets)
    if checked.found is None:
        raise typer.Exit(_tell_mistakes(file, checked.mistakes, as_json))
    settings = checked.found.settings
    if as_json:
        import msgspec

        facts: dict[str, Any] = {"file": str(file), "ok": True, "mistakes": []}
        print_json(facts | {"settings": msgspec.to_builtins(settings)})
        return
    console = stdout_console()
    console.print(model_table(settings.models))
    if settings.tenants:
        console.print(tenant_table(settings.tenants))
    if settings.keys:
        console.print(key_table(settings.keys))
    else:
        console.print("there are no keys: whoever reaches it may ask\n", soft_wrap=True)
    console.print(f"{file} can be used; it listens on {settings.listen}", soft_wrap=True)
    console.print(f"next: {_serving(file, resolve_home(home))}", soft_wrap=True)


def _serving(file: Path, home: Home) -> str:
    import shlex

    return hint(f"gateway --config {shlex.quote(str(file))}", home)


def _tell_mistakes(file: Path, mistakes: tuple[InvalidConfig, ...], as_json: bool) -> int:
    import sys

    if as_json:
        told = [{"message": each.message, "next_step": each.next_step} for each in mistakes]
        print_json({"file": str(file), "ok": False, "mistakes": told})
    for each in mistakes:
        failures.tell(each, as_json=False)
    if len(mistakes) > 1:
        print(f"{len(mistakes)} mistakes", file=sys.stderr)
    return failures.FAILED
