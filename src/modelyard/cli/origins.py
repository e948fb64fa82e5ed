"""From the options of `modelyard register` to what the registry records beside the files."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from modelyard.core.errors import InvalidRequest
from modelyard.registry.origin import Origin
from modelyard.registry.versions import Recipe

_EXAMPLE = '{"kind": "finetune", "tool": "trl 1.0", "options": {"epochs": 3}, "seed": 7}'


def read_origin(parent: str | None, recipe: Path | None, metrics: Sequence[str]) -> Origin:
    """Raises InvalidRequest naming the option that can't be read."""
    return Origin(
        parent=parent,
        recipe=None if recipe is None else _recipe(recipe),
        metrics=dict(_metric(text) for text in metrics),
    )


def _recipe(path: Path) -> Recipe:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recipe)
    except OSError as error:
        raise InvalidRequest(
            f"can't read the recipe {path}: {error.strerror}",
            next_step="check that it exists and that this user may read it",
            param="recipe",
        ) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(
            f"the recipe {path} can't be understood: {error}",
            next_step=f"write it like {_EXAMPLE}",
            param="recipe",
        ) from error


def _metric(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError
        return name, float(value)
    except ValueError:
        raise InvalidRequest(
            f"the metric {text!r} can't be understood",
            next_step="write it like --metric accuracy=0.93",
            param="metric",
        ) from None
