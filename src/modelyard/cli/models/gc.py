"""`modelyard models gc`"""

from collections import Counter
from typing import Annotated

import msgspec
import typer

from modelyard.cli.options import HomeOption, JsonOption, WaitOption, resolve_home
from modelyard.cli.output import human_bytes, print_json
from modelyard.registry.gc import Collection
from modelyard.registry.registry import Registry

_SHOWN = 20


def collect(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    wait: WaitOption = 10.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give back the space of what no version, deployment or registration needs."""
    done = Registry(resolve_home(home)).gc(dry_run=dry_run, wait_s=wait)
    if as_json:
        facts = {"removed": done.removed, "size_bytes": done.size_bytes}
        print_json({**facts, "garbage": msgspec.to_builtins(done.garbage)})
        return
    _tell(done)


def _tell(done: Collection) -> None:
    if not done.garbage:
        print("nothing to remove: everything is needed")
        return
    for item in sorted(done.garbage, key=lambda item: -item.size_bytes)[:_SHOWN]:
        print(f"{human_bytes(item.size_bytes):>9}  {item.kind:<10}  {item.path}")
    if len(done.garbage) > _SHOWN:
        print(f"and {len(done.garbage) - _SHOWN} more (--json lists all)")
    kinds = Counter(item.kind for item in done.garbage)
    counted = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    verb = "removed" if done.removed else "would be removed"
    print(f"{human_bytes(done.size_bytes)} {verb} ({counted})")
