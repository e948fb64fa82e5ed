"""`modelyard models show REF`"""

from datetime import UTC, datetime

import msgspec

from modelyard.cli.options import HomeOption, JsonOption, RefArgument, resolve_home
from modelyard.cli.output import human_bytes, human_count, print_json
from modelyard.cli.presentation import told_recipe, version_facts
from modelyard.registry.registry import Registry
from modelyard.registry.versions import ModelVersion


def show(
    ref: RefArgument,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one version: its facts, its files, its digest."""
    registry = Registry(resolve_home(home))
    version = registry.get(ref)
    children = registry.children(str(version))
    files = [msgspec.to_builtins(entry) for entry in version.manifest.files]
    if as_json:
        recipe = None if version.recipe is None else msgspec.to_builtins(version.recipe)
        more = {"recipe": recipe, "children": list(children), "files": files}
        print_json({**version_facts(version), **more})
        return
    facts = version.facts
    context = f"{facts.context_length} tokens" if facts.context_length else "not stated"
    registered = datetime.fromtimestamp(version.created_at, UTC)
    lines = {
        "quarantined": version.quarantined,
        "aliases": ", ".join(version.aliases),
        "parent": version.parent or "",
        "recipe": told_recipe(version.recipe) if version.recipe else "",
        "children": ", ".join(children),
        "architecture": facts.architecture,
        "parameters": f"{human_count(facts.parameters)} ({facts.parameters:,})",
        "format": f"{facts.format}, mostly {facts.dtype}",
        "context": context,
        "chat template": "yes" if facts.chat_template else "no",
        "licence": _licence(version),
        "size": human_bytes(version.size_bytes),
        "source": version.source if version.source_commit else "",
        "commit": version.source_commit or "",
        "registered": f"{registered:%Y-%m-%d %H:%M:%S} UTC",
        **{name: f"{value:g}" for name, value in version.metrics.items()},
    }
    print(f"{version.name}:{version.version}\n{version.digest}")
    for label, text in lines.items():
        if text:
            print(f"  {label:<14}{text}")
    print("files")
    for entry in version.manifest.files:
        print(f"  {entry.sha256[:12]}  {human_bytes(entry.size_bytes):>9}  {entry.path}")


def _licence(version: ModelVersion) -> str:
    """What the files say, and beside it what was declared."""
    stated = version.facts.licence
    if version.declared_licence in (None, stated):
        return stated or "not stated"
    return f"{stated}; " * (stated is not None) + f"{version.declared_licence} (declared)"
