"""`modelyard models lineage REF`"""

from collections.abc import Sequence
from typing import Any

import msgspec

from modelyard.cli.options import HomeOption, JsonOption, RefArgument, resolve_home
from modelyard.cli.output import print_json, short_digest, stdout_console
from modelyard.cli.presentation import told_recipe
from modelyard.registry.lineage import LineageNode
from modelyard.registry.registry import Registry


def lineage(ref: RefArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Draw what a version was made of and what was made of it."""
    family = Registry(resolve_home(home)).lineage(ref)
    if as_json:
        print_json([msgspec.to_builtins(node) for node in family])
        return
    stdout_console().print(_tree(family))


def _tree(family: Sequence[LineageNode]) -> Any:
    from rich.tree import Tree

    root = Tree(_label(family[0]))
    line = [root]
    for node in family[1:]:
        del line[node.depth :]
        line.append(line[-1].add(_label(node)))
    return root


def _label(node: LineageNode) -> Any:
    from rich.text import Text

    names = ", ".join(node.versions) or "not registered here"
    label = Text(names, style="bold" if node.asked else "")
    label.append(f"  {short_digest(node.digest)}", style="dim")
    if node.asked:
        label.append("  ← this one")
    if node.recipe is not None:
        label.append(f"\n{told_recipe(node.recipe)}", style="")
    return label
