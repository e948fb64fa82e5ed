"""Groups of subcommands, known by name and summary; one is imported when it is to be run."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from modelyard.cli import failures


class Entry(NamedTuple):
    """Where a subcommand is, and what its group's `--help` says of it without importing it."""

    target: str
    """`module:name` of a function, or of a Typer app that has subcommands of its own."""
    summary: str
    panel: str | None = None


Table = Mapping[str, Entry]


def load(table: Table, name: str) -> Any:
    """Import the subcommand `name` and make a Typer command of it."""
    module, _, attribute = table[name].target.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        single.command(name, no_args_is_help=False)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    return command


def build_group(table: Table, **options: Any) -> typer.Typer:
    """A Typer app over `table`, with a placeholder for every subcommand; `options` are Typer's."""
    app = typer.Typer(
        cls=_group_class(table),
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        **options,
    )
    for name, entry in table.items():
        app.command(name, help=entry.summary, rich_help_panel=entry.panel)(_placeholder())
    return app


def _group_class(table: Table) -> type[TyperGroup]:
    class LazyGroup(TyperGroup):
        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """Find the subcommand by its placeholder and put the real one in its place."""
            name, placeholder, rest = super().resolve_command(ctx, args)
            if placeholder is None or name is None or name not in table:
                return name, placeholder, rest
            return name, load(table, name), rest

        def invoke(self, ctx: Any) -> Any:
            """Run; Typer itself would end an interrupted command without a word."""
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                raise typer.Exit(failures.tell_interrupted()) from None

    return LazyGroup


def _placeholder() -> Callable[[], None]:
    def never_called() -> None:
        raise AssertionError("the group puts the real command in its place")

    return never_called
