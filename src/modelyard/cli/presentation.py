"""How a model version is shown; `register` and `models` share it."""

from typing import Any

import msgspec

from modelyard.cli.output import short_digest
from modelyard.registry.versions import ModelVersion, Recipe


def version_facts(version: ModelVersion) -> dict[str, Any]:
    """The documented keys, in their order."""
    return {
        "name": version.name,
        "version": version.version,
        "digest": version.digest,
        "aliases": list(version.aliases),
        "parent": version.parent,
        "facts": msgspec.to_builtins(version.facts),
        "metrics": version.metrics,
        "size_bytes": version.size_bytes,
    }


def told_recipe(recipe: Recipe) -> str:
    """`quantize by llmcompressor 0.14, bits=4, seed 7, data sha256:0123456789ab`."""
    parts = [f"{recipe.kind} by {recipe.tool}" if recipe.tool else recipe.kind]
    parts += [f"{name}={value}" for name, value in recipe.options.items()]
    if recipe.seed is not None:
        parts.append(f"seed {recipe.seed}")
    if recipe.data_digest is not None:
        parts.append(f"data {short_digest(recipe.data_digest)}")
    return ", ".join(parts)
