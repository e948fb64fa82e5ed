"""A conversion as a file: the settings, from where each came, and what was left out."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import yaml

from modelyard.gateway.litellm import Conversion
from modelyard.gateway.litellm_notes import Note

_SHOWN = 80
"""Letters of a value."""
_NAMED = 8
"""Paths that are named of notes that say the same."""


class NoteGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Notes that say the same of several settings."""

    paths: tuple[str, ...]
    values: tuple[Any, ...]
    why: str
    instead: str

    @property
    def shown(self) -> list[str]:
        """A line for each path, with its value; the last says how many more there are."""
        lines = [_line(path, value) for path, value in zip(self.paths, self.values, strict=True)][
            :_NAMED
        ]
        rest = len(self.paths) - len(lines)
        return [*lines, f"and {rest} more"] if rest else lines


def grouped(notes: Iterable[Note]) -> list[NoteGroup]:
    """Those that say the same together, in the order of the first of them."""
    found: dict[tuple[str, str], list[Note]] = {}
    for note in notes:
        found.setdefault((note.why, note.instead), []).append(note)
    return [
        NoteGroup(
            paths=tuple(note.path for note in same),
            values=tuple(note.value for note in same),
            why=why,
            instead=instead,
        )
        for (why, instead), same in found.items()
    ]


def written(conversion: Conversion, source: str) -> str:
    """The whole file; ASCII, whatever names there are. `source`: what it was made from."""
    return "".join(f"{line}\n" for line in _lines(conversion, source))


def one_line(text: str) -> str:
    """Without what could end a line, or do something to a terminal."""
    return json.dumps(text)[1:-1].replace('\\"', '"').replace("\\\\", "\\")


def _lines(conversion: Conversion, source: str) -> Iterator[str]:
    yield f"# Made from {one_line(source)}, a LiteLLM proxy's configuration."
    yield "# What was left out stands at the end. Every setting: docs/gateway.reference.yaml"
    if conversion.variables:
        yield "#"
        yield "# These variables must be set where the gateway is started:"
        yield from (f"#   {name}" for name in conversion.variables)
    if conversion.origins:
        yield "#"
        yield "# For all models:"
        yield from (f"#   {one_line(path)} -> {target}" for path, target in conversion.origins)
    yield ""
    settings = conversion.settings
    yield "# LiteLLM listens on 0.0.0.0:4000. For others to reach this one, keys are needed."
    yield from _yaml({"listen": settings["listen"]})
    if "keys" in settings:
        yield ""
        yield "# general_settings.master_key"
        yield from _yaml({"keys": settings["keys"]})
    if "max_body_bytes" in settings:
        yield ""
        yield from _yaml({"max_body_bytes": settings["max_body_bytes"]})
    if "currency" in settings:
        yield ""
        yield from _yaml({"currency": settings["currency"]})
    yield ""
    yield "models:"
    for model in settings["models"]:
        paths = conversion.sources[model["name"]]
        yield f"  # {_joined(paths)}"
        yield from (f"  {line}" for line in _yaml([model]))
    yield from _notes("Taken over, but not quite the same", conversion.notes, taken=True)
    yield from _notes("Left out", conversion.notes, taken=False)


def _notes(title: str, notes: Iterable[Note], *, taken: bool) -> Iterator[str]:
    chosen = [note for note in notes if note.taken is taken]
    if not chosen:
        return
    yield ""
    yield f"# {title}:"
    for group in grouped(chosen):
        yield "#"
        yield from (f"#   {line}" for line in group.shown)
        yield f"#     why: {one_line(group.why)}"
        yield f"#     instead: {one_line(group.instead)}"


def _line(path: str, value: Any) -> str:
    if value is None:
        return one_line(path)
    text = value if isinstance(value, str) else json.dumps(value)
    text = one_line(text[: 4 * _SHOWN])
    return f"{one_line(path)}: {text[:_SHOWN]}{'...' if len(text) > _SHOWN else ''}"


def _joined(paths: list[str]) -> str:
    more = len(paths) - _NAMED
    named = ", ".join(one_line(path) for path in paths[:_NAMED])
    return f"{named} and {more} more" if more > 0 else named


def _yaml(value: Any) -> list[str]:
    # Without aliases: people change one model and mean that one.
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, _: Any) -> bool:
            return True

    text: str = yaml.dump(value, Dumper=Plain, sort_keys=False, width=4096)
    return text.rstrip("\n").split("\n")
