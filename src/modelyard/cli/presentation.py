"""What `--json` says of a model version; `register` and `models` share it."""

from typing import Any

import msgspec

from modelyard.registry.versions import ModelVersion


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
