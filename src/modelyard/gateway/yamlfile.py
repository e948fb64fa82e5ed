"""YAML into typed settings, with errors that name the line, the setting and the nearest known."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from modelyard.core.errors import InvalidConfig

Settings = TypeVar("Settings")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_PLACED = re.compile(r"(.*) - at `(key` in `)?\$(.*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")


def read_settings(file: Path, kind: type[Settings]) -> Settings:
    """The settings in `file`; raises InvalidConfig that says what is wrong, and where."""
    found, tree = _parsed(file)
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), file, tree, kind, []) from None


def mistakes(file: Path, kind: type[Any], lists: Mapping[str, type[Any]]) -> list[InvalidConfig]:
    """Everything that is wrong with the settings in `file`: one of each of the file's settings.

    Of the settings in `lists`, which hold a list of such items each, it is one of each item.
    """
    try:
        found, tree = _parsed(file)
        msgspec.convert(found, kind)
        return []
    except InvalidConfig as error:
        return [error]
    except msgspec.ValidationError as error:
        whole = str(error)
    made = [
        _invalid(told, file, tree, kind, place)
        for place, value, part in _parts(found, kind, lists)
        if (told := _told(value, part)) is not None
    ]
    # What is wrong with the whole, such as a setting that is missing, is wrong with no part.
    return made or [_invalid(whole, file, tree, kind, [])]


def _parts(
    found: Any, kind: type[Any], lists: Mapping[str, type[Any]]
) -> Iterator[tuple[list[str | int], Any, Any]]:
    """Place, value and type of each part that is looked at by itself."""
    types = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for name, value in found.items() if isinstance(found, Mapping) else ():
        if name in lists and isinstance(value, list) and value:
            for number, item in enumerate(value):
                yield [name, number], item, lists[name]
        elif name in types:
            yield [name], value, types[name]
        elif isinstance(name, str):
            yield [], {name: value}, _Nothing


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """Has no settings: converting one into it says that there is none of that name."""


def _told(value: Any, kind: Any) -> str | None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _parsed(file: Path) -> tuple[Any, yaml.Node | None]:
    """What stands in a file, and where."""
    try:
        text = file.read_text()
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _no_duplicates(tree, file)
        found = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(
            f"{file} can't be read: {getattr(error, 'strerror', None) or error}",
            next_step="give a YAML file that this user may read",
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file} line {mark.line + 1}" if mark is not None else str(file)
        what = getattr(error, "problem", None) or str(error)
        raise InvalidConfig(f"{where} is not YAML: {what}", next_step="correct the line") from None
    except (ValueError, RecursionError) as error:  # a 31st of February; lists in lists in lists
        raise InvalidConfig(
            f"{file} holds a value that can't be read: {error}", next_step="correct it"
        ) from None
    return {} if found is None else found, tree


def _invalid(
    told: str, file: Path, tree: yaml.Node | None, kind: type[Any], place: list[str | int]
) -> InvalidConfig:
    """What msgspec told of the part at `place`."""
    placed = _PLACED.match(told)
    what, is_key, path = (placed[1], placed[2], placed[3]) if placed else (told, None, "")
    steps = [*place, *_steps(path)]
    next_step = "correct it; the reference lists every setting: docs/gateway.reference.yaml"
    unknown = _UNKNOWN.match(what)
    missing = _MISSING.match(what)
    if unknown:
        steps = [*steps, unknown[1]]
        what = "no such setting"
        known = _fields_at(kind, steps[:-1])
        near = difflib.get_close_matches(unknown[1], known, n=1)
        if near:
            next_step = f"did you mean {near[0]}?"
        elif known:
            next_step = f"known here: {', '.join(known)}"
    elif missing:
        what = f"`{missing[1]}` is missing"
    elif what.startswith("Invalid enum value"):
        allowed = _values_at(kind, steps, "key_type" if is_key else "")
        next_step = f"allowed here: {', '.join(allowed)}" if allowed else next_step
    line = _line(tree, steps)
    return InvalidConfig(f"{file}{line}: {_shown(steps)}{what}", next_step=next_step)


def _steps(path: str) -> list[str | int]:
    return [
        name if name else int(index) if index else 0
        for name, index in (found.groups() for found in _STEP.finditer(path))
    ]


def _shown(steps: list[str | int]) -> str:
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return f"{text}: " if text else ""


def _line(tree: yaml.Node | None, steps: list[str | int]) -> str:
    """The line of the deepest part that is there."""
    node, line = tree, None if tree is None else tree.start_mark.line
    for step in steps:
        below: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    below, line = value, key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            below = node.value[step] if step < len(node.value) else None
            line = line if below is None else below.start_mark.line
        if below is None:
            break
        node = below
    return "" if line is None else f" line {line + 1}"


def _fields_at(kind: Any, steps: list[str | int]) -> list[str]:
    """The settings that there are at a place."""
    here: Any = msgspec.inspect.type_info(kind)
    for step in steps:
        here = _below(here, step)
    here = _struct_of(here)
    return [field.encode_name for field in here.fields] if here is not None else []


def _values_at(kind: Any, steps: list[str | int], part: str) -> list[str]:
    """The words that a setting, or the names of a mapping, may be."""
    here: Any = msgspec.inspect.type_info(kind)
    for step in steps:
        here = _below(here, step)
    if part:
        here = getattr(_one_with(here, part), part, None)
    return [str(value) for value in getattr(_one_with(here, "values"), "values", ())]


def _below(here: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return getattr(_one_with(here, "item_type"), "item_type", None)
    struct = _struct_of(here)
    for field in struct.fields if struct is not None else ():
        if field.encode_name == step:
            return field.type
    return getattr(_one_with(here, "value_type"), "value_type", None)


def _struct_of(here: Any) -> Any:
    return _one_with(here, "fields")


def _one_with(here: Any, attribute: str) -> Any:
    """`here`, or the part of a union, that has the attribute."""
    for part in (here, *getattr(here, "types", ())):
        if hasattr(part, attribute):
            return part
    return None


def _no_duplicates(node: yaml.Node | None, file: Path) -> None:
    """YAML's reader lets the last of two equal names win: one of them would be ignored."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise InvalidConfig(
                    f"{file} line {key.start_mark.line + 1}: `{key.value}` stands here twice",
                    next_step="leave one of them",
                )
            seen.add(key.value)
            _no_duplicates(value, file)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _no_duplicates(item, file)
