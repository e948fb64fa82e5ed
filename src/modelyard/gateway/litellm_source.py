"""A LiteLLM configuration file as plain data: names are text, values are what JSON has.

Nothing in it is trusted: aliases that multiply, loops, names that stand twice.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from modelyard.core.errors import InvalidConfig
from modelyard.gateway.litellm_notes import Notes

LARGEST_BYTES = 32 * 1024 * 1024
MOST_VALUES = 2_000_000
"""With aliases counted as often as they are used."""
DEEPEST = 100
# The reader written in C is some ten times as fast; not every build has it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TRIPS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What the constructors of dates, numbers and tags raise when they trip over a value."""
_TWICE = "this name stands twice, and the last one counts"


def read_source(file: Path, notes: Notes) -> dict[str, Any]:
    """The mapping in `file`; raises InvalidConfig for what is none.

    What two equal names hide is noted.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(
            f"{file} can't be read: {getattr(error, 'strerror', None) or error}",
            next_step="give the YAML file that the LiteLLM proxy is started with",
        ) from None
    if len(content) > LARGEST_BYTES:
        raise InvalidConfig(
            f"{file} has more than {LARGEST_BYTES} bytes", next_step="convert it in parts"
        )
    found = parsed(text, str(file), notes)
    if not isinstance(found, dict):
        raise InvalidConfig(
            f"{file} holds no settings", next_step="give a file that has a model_list"
        )
    return found


def parsed(text: str, named: str, notes: Notes) -> Any:
    """YAML as plain data; raises InvalidConfig, with the line."""
    loader = None
    try:
        _check_depth(text, named)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, named)
        hidden = list(_hidden(node, "", set()))
        value = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{named} line {mark.line + 1}" if mark is not None else named
        what = getattr(error, "problem", None) or str(error).partition("\n")[0]
        if mark is not None and "nesting depth" in what:  # PyYAML has a bound of its own by now
            raise _unbounded(named, mark, "deep") from None
        raise InvalidConfig(f"{where} is not YAML: {what}", next_step="correct the line") from None
    except _TRIPS as error:
        raise InvalidConfig(
            f"{named} holds a value that can't be read: {error or type(error).__name__}",
            next_step="correct it, or put it between quotes",
        ) from None
    finally:
        if loader is not None:
            loader.dispose()
    for path in hidden:
        notes.add(path, "", _TWICE, "see which of them was meant")
    return _plain(value, "", notes)


def _check_depth(text: str, named: str) -> None:
    """Before anything is built: the builder written in C ends the process where it is too deep."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise _unbounded(named, event.start_mark, "deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(root: yaml.Node, named: str) -> None:
    """Count without unfolding: a node that many aliases lead to is looked at once."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        if depth > DEEPEST or id(node) in above:
            how = "leads back to itself" if id(node) in above else "deep"
            raise _unbounded(named, node.start_mark, how)
        above.add(id(node))
        total = 1 + sum(size(each, depth + 1) for each in _below(node))
        above.remove(id(node))
        if total > MOST_VALUES:
            raise _unbounded(named, node.start_mark, "large")
        sizes[id(node)] = total
        return total

    size(root, 0)


def _unbounded(named: str, mark: Any, how: str) -> InvalidConfig:
    told = {
        "deep": f"is nested more than {DEEPEST} deep",
        "large": f"unfolds to more than {MOST_VALUES} values",
    }.get(how, how)
    return InvalidConfig(
        f"{named} line {mark.line + 1}: what begins here {told}",
        next_step="no proxy's settings do; write it out by hand, without aliases",
    )


def _below(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _hidden(node: yaml.Node, path: str, seen: set[int]) -> Iterator[str]:
    """Paths of names that stand twice in a mapping."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[Hashable] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            below = f"{path}.{key.value}" if path else key.value
            if key.value in names:
                yield below
            names.add(key.value)
            yield from _hidden(value, below, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _hidden(item, f"{path}[{number}]", seen)


def _plain(value: Any, path: str, notes: Notes) -> Any:
    """The same with names as text, and with no type that JSON does not have."""
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, below in value.items():
            name = _text(key)
            place = f"{path}.{name}" if path else name
            if name in found:
                notes.add(place, below, _TWICE, "see which of them was meant")
            found[name] = _plain(below, place, notes)
        return found
    if isinstance(value, list):
        return [_plain(item, f"{path}[{number}]", notes) for number, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return value if abs(value) <= 2**63 else _text(value)
    return _text(value)


def _text(value: Any) -> str:
    """Text that can be written; of dates, sets and bytes too, and of numbers that nobody means."""
    try:
        return str(value).encode(errors="replace").decode()
    except ValueError:  # more digits than Python writes
        return "a number of very many digits"
