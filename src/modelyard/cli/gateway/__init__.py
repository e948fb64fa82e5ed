"""`modelyard gateway …`: serves by itself; one file per verb, imported when it was asked for."""

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.lazy import Entry, build_group
from modelyard.cli.options import HomeOption

VERBS: dict[str, Entry] = {
    "check": Entry("modelyard.cli.gateway.check:check", "Say whether a file can be used."),
    "import-litellm": Entry(
        "modelyard.cli.gateway.import_litellm:import_litellm",
        "Make a file out of a LiteLLM proxy's.",
    ),
}

app = build_group(VERBS, rich_markup_mode="markdown")


@app.callback(invoke_without_command=True)
def gateway(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Serve what this file says.", dir_okay=False),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Serve any OpenAI-compatible upstreams from a configuration file, without a controller.

    `modelyard gateway --config gateway.yaml` serves until SIGTERM or Ctrl-C; the file is read
    again when it changes. docs/gateway.reference.yaml holds every setting.
    """
    if context.invoked_subcommand is not None:
        if config is not None:
            raise typer.BadParameter(
                f"it serves; {context.invoked_subcommand} takes its file as an argument",
                param_hint="--config",
            )
        return
    if config is None:
        raise typer.BadParameter("a file is needed to serve from", param_hint="--config")
    from modelyard.cli.gateway.serve import serve

    serve(config, home)
