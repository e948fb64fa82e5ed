"""`modelyard models rebuild-catalogue`"""

import sys

import msgspec

from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json
from modelyard.cli.registries import open_registry
from modelyard.registry.mirror import told


def rebuild(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Make the MLflow catalogue hold what is registered.

    A catalogue that was lost, emptied or exchanged for another is written anew from manifests,
    version records and the alias journal. Tags that somebody changed there are reported and put
    right; alias moves made there are taken over.
    """
    registry = open_registry(resolve_home(home))

    def progress(name: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"{done} of {total} names: {name}", file=sys.stderr)

    found = registry.rebuild_catalogue(progress=None if as_json else progress)
    for line in (*found.tampering, *found.warnings):
        print(f"warning: {line}", file=sys.stderr)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    for move in found.moves:
        print(told(move))
    print(f"versions added to the catalogue: {found.added}")
    print(f"tampering found: {len(found.tampering)}")
