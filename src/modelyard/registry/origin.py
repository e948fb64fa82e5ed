"""What the one who registers a version knows of it and its files don't tell."""

import math
from collections.abc import Mapping

import msgspec

from modelyard.core.errors import InvalidRequest
from modelyard.core.refs import Ref, is_digest
from modelyard.registry.versions import Recipe


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version comes from, and how good it was found to be."""

    parent: str | Ref | None = None
    """What it was made of: a ref of a registered version, or `sha256:…` of one elsewhere."""
    recipe: Recipe | None = None
    """How it was made from its parent."""
    metrics: Mapping[str, float] = {}
    """Evaluation results by name; finite numbers."""
    licence: str | None = None
    """What the one who registers says; recorded as declared beside what the files say."""
    source: str = ""
    """Where the files were before; empty: the path that is registered."""
    source_commit: str | None = None
    """What the revision in `source` meant, for one on a hub."""

    def is_given(self) -> bool:
        """Whether anything but the source is said."""
        return bool(self.parent is not None or self.recipe is not None or self.metrics)


def check_origin(origin: Origin) -> None:
    """Raise InvalidRequest, naming what is wrong."""
    for name, value in origin.metrics.items():
        if not name.strip() or not name.isprintable() or len(name) > 250:
            raise InvalidRequest(
                f"the metric name {name!r} is not allowed",
                next_step="use 1 to 250 printable characters",
                param="metrics",
            )
        if not math.isfinite(value):
            raise InvalidRequest(
                f"the metric {name} is {value}",
                next_step="give a finite number, or leave the metric out",
                param="metrics",
            )
    if origin.licence is not None and not (origin.licence.strip() and origin.licence.isprintable()):
        raise InvalidRequest(
            f"{origin.licence!r} is no licence",
            next_step="give its SPDX name, such as apache-2.0",
            param="licence",
        )
    recipe = origin.recipe
    if recipe is None:
        return
    if origin.parent is None:
        raise InvalidRequest(
            "a recipe is given and no parent",
            next_step="name what it was applied to as the parent",
            param="parent",
        )
    if not recipe.kind.strip():
        raise InvalidRequest(
            "the recipe has no kind",
            next_step="say in one word what was done: quantize, prune, distill, finetune",
            param="recipe",
        )
    if recipe.data_digest is not None and not is_digest(recipe.data_digest):
        raise InvalidRequest(
            f"{recipe.data_digest!r} is not a digest",
            next_step="give 'sha256:' and 64 lower-case hexadecimal digits of the data",
            param="recipe",
        )
