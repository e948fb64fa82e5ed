"""`modelyard gateway import-litellm`"""

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli import failures
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json
from modelyard.core.errors import Conflict, InvalidConfig, StorageError
from modelyard.core.home import Home

if TYPE_CHECKING:
    from modelyard.gateway.litellm import Conversion
    from modelyard.gateway.litellm_notes import Note


def import_litellm(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `litellm --config` is started with.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the new file goes.")
    ] = Path("gateway.yaml"),
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a configuration file out of a LiteLLM proxy's.

    Says of every setting that has no counterpart, or not quite the same, why and what to do
    instead; the file holds that too. Secrets are not taken along: the new file names variables.
    """
    from modelyard.gateway.litellm import convert_file
    from modelyard.gateway.litellm_writing import written

    try:
        conversion = convert_file(source, os.environ)
    except InvalidConfig as error:
        raise typer.Exit(_refuse(error, as_json)) from None
    if not conversion.settings["models"]:
        if not as_json:
            _tell_notes(conversion.notes, sys.stderr)
        raise typer.Exit(
            _refuse(
                InvalidConfig(
                    f"{source} has no model that this gateway can serve",
                    next_step="see above; docs/gateway.reference.yaml has every setting"
                    if conversion.notes
                    else "give a file that has a model_list",
                ),
                as_json,
                conversion.notes,
            )
        )
    _write(output, written(conversion, str(source)), force=force)
    if as_json:
        print_json(_facts(output, conversion))
        return
    _tell_notes(conversion.notes, sys.stdout)
    _tell_end(output, conversion, resolve_home(home))


def _write(output: Path, text: str, *, force: bool) -> None:
    """Write it whole or not at all; not over a file that is there, unless that is wanted."""
    try:
        if force:
            partial = output.with_name(f".{output.name}.part")
            partial.write_text(text, encoding="ascii")
            partial.replace(output)
        else:
            with output.open("x", encoding="ascii") as file:
                file.write(text)
    except FileExistsError:
        raise Conflict(
            f"{output} is there already",
            next_step="name another with --output, or write over it with --force",
        ) from None
    except OSError as error:
        raise StorageError(
            f"{output} can't be written: {error.strerror}", next_step="name another with --output"
        ) from None


def _facts(output: Path | None, conversion: "Conversion") -> dict[str, Any]:
    return {
        "output": None if output is None else str(output),
        "models": [model["name"] for model in conversion.settings["models"]],
        "settings": conversion.settings,
        "variables": list(conversion.variables),
        "taken": [{"path": path, "became": became} for path, became in conversion.origins],
        "notes": _as_facts(conversion.notes),
    }


def _as_facts(notes: Iterable["Note"]) -> list[dict[str, Any]]:
    import msgspec

    return [msgspec.to_builtins(note) for note in notes]


def _refuse(error: InvalidConfig, as_json: bool, notes: Iterable["Note"] = ()) -> int:
    if as_json:
        told = {"message": error.message, "next_step": error.next_step, "code": error.code}
        print_json({"error": told, "notes": _as_facts(notes)})
    failures.tell(error, as_json=False)
    return failures.FAILED


def _tell_notes(notes: Iterable["Note"], stream: Any) -> None:
    from modelyard.gateway.litellm_writing import grouped, one_line

    known = list(notes)
    for title, taken in (("taken over, but not quite the same", True), ("left out", False)):
        chosen = [note for note in known if note.taken is taken]
        if not chosen:
            continue
        print(f"{title}:", file=stream)
        for group in grouped(chosen):
            for line in group.shown:
                print(f"  {line}", file=stream)
            for what, told in (("why", group.why), ("instead", group.instead)):
                print(_wrapped(f"      {what:8} ", one_line(told)), file=stream)
        print(file=stream)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _wrapped(begin: str, text: str) -> str:
    return textwrap.fill(
        text,
        width=max(40, min(shutil.get_terminal_size().columns, 100)),
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _tell_end(output: Path, conversion: "Conversion", home: Home) -> None:
    models = conversion.settings["models"]
    upstreams = sum(len(model["upstreams"]) for model in models)
    print(f"{output}: {_many(len(models), 'model')}, {_many(upstreams, 'upstream')}")
    missing = [name for name in conversion.variables if not os.environ.get(name)]
    if missing:
        print(f"set before it starts: {', '.join(missing)}")
    print(f"next: {hint(f'gateway check {shlex.quote(str(output))}', home)}")
