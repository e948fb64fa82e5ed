"""`modelyard`: the table of subcommands. Only the one that was asked for is imported."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from modelyard.cli import failures
from modelyard.core.errors import ModelyardError


class Entry(NamedTuple):
    """Where a subcommand is, and what `modelyard --help` says of it without importing it."""

    target: str
    """`module:name` of a function, or of a Typer app that has subcommands of its own."""
    summary: str
    panel: str


_START = "Start"
_MODELS = "Models"
_SERVE = "Serve"
_TOOLS = "Tools"

COMMANDS: dict[str, Entry] = {
    "demo": Entry("modelyard.cli.demo:demo", "See the whole main job with a small model.", _START),
    "up": Entry("modelyard.cli.up:up", "Start the gateway and the controller.", _START),
    "doctor": Entry(
        "modelyard.cli.doctor:doctor", "Say what works here and what is missing.", _START
    ),
    "register": Entry(
        "modelyard.cli.register:register", "Store a folder of weights as a version.", _MODELS
    ),
    "models": Entry("modelyard.cli.models:app", "List and show registered versions.", _MODELS),
    "deploy": Entry("modelyard.cli.deploy:deploy", "Serve a version under a public name.", _SERVE),
    "status": Entry("modelyard.cli.status:status", "Show what runs.", _SERVE),
    "chat": Entry("modelyard.cli.chat:chat", "Talk to a deployed model.", _SERVE),
    "fake-engine": Entry(
        "modelyard.cli.fake_engine:fake_engine",
        "Run a scripted engine for tests and benchmarks.",
        _TOOLS,
    ),
    "version": Entry("modelyard.cli.version:version", "Print the version of Modelyard.", _TOOLS),
}


class LazyGroup(TyperGroup):
    """Knows every subcommand by name and summary; imports one when it is to be run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand by its placeholder and put the real one in its place."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        if placeholder is None or name not in COMMANDS:
            return name, placeholder, rest
        return name, load(name), rest

    def invoke(self, ctx: Any) -> Any:
        """Run; Typer itself would end an interrupted command without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(failures.tell_interrupted()) from None


def load(name: str) -> Any:
    """Import the subcommand `name` and make a Typer command of it."""
    entry = COMMANDS[name]
    module, _, attribute = entry.target.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        single.command(name, no_args_is_help=False)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    return command


def build() -> typer.Typer:
    """The app, with a placeholder for every subcommand."""
    app = typer.Typer(
        cls=LazyGroup,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Take a large language model from a folder of weights to a production service.",
        epilog="Exit codes: 0 done, 1 refused or failed, 2 usage. Start with: modelyard demo",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, entry in COMMANDS.items():
        app.command(name, help=entry.summary, rich_help_panel=entry.panel)(_placeholder())
    return app


def _placeholder() -> Callable[[], None]:
    def never_called() -> None:
        raise AssertionError("LazyGroup puts the real command in its place")

    return never_called


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; `arguments` are the process's own when None."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        build()(args=given, prog_name="modelyard")
    except ModelyardError as error:
        sys.exit(failures.tell(error, as_json=as_json))
    except KeyboardInterrupt:
        sys.exit(failures.tell_interrupted())
    except Exception as error:  # noqa: BLE001 - the edge of the program: nobody is left to raise to
        sys.exit(failures.tell_unexpected(error, as_json=as_json))


if __name__ == "__main__":
    main()
