"""The checks in docs/conformance.md: sees that the list is current, or writes it (`--write`)."""

import sys
from itertools import groupby
from pathlib import Path

from modelyard.conformance.checks.catalogue import CHECKS
from modelyard.conformance.target import GIVEN_BY

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "conformance.md"
MARK = "<!-- Below: written by scripts/conformance_list.py --write -->\n"


def render() -> str:
    """The list, theme by theme."""
    parts = []
    for theme, checks in groupby(CHECKS, key=lambda check: check.theme):
        parts.append(f"\n### {theme}\n\n| check | holds when it passes | needs |\n|---|---|---|\n")
        for check in checks:
            needs = ", ".join(f"`{GIVEN_BY[need].partition(',')[0]}`" for need in check.needs)
            meaning = check.meaning.replace("|", "\\|")
            parts.append(f"| `{check.name}` | {meaning} | {needs} |\n")
    return "".join(parts)


def main(arguments: list[str]) -> int:
    """Write the list, or say whether it is current."""
    before = DOCUMENT.read_text()
    kept = before.partition(MARK)[0]
    wanted = kept + MARK + render()
    if arguments == ["--write"]:
        DOCUMENT.write_text(wanted)
        return 0
    if before == wanted:
        return 0
    print(
        "docs/conformance.md is not current\nnext: python scripts/conformance_list.py --write",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
