"""The results of all products side by side, as Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
_WORDS = {"passed": "passed", "failed": "**failed**", "not_applicable": "n.a."}
_LONGEST = 160
"""Characters of what was seen."""
_RESULTS = ("passed", "failed", "not_applicable")


def written_into(document: str, results: Mapping[str, Any], *, whole: bool) -> str:
    """The document with these results between its marks, or only what goes there."""
    parts = (_about, _sums, _by_theme, _not_applicable, _failures, _by_check)
    part = "\n\n".join(make(results) for make in parts)
    if not whole:
        return part
    before, rest = document.split(BEGIN)
    return f"{before}{BEGIN}\n{part}\n{END}{rest.split(END)[1]}"


def _about(results: Mapping[str, Any]) -> str:
    loads = f"{min(results['loads'])} to {max(results['loads'])}"
    return (
        f"{results['date']}; {results['machine']}; {len(results['checks'])} checks. What is "
        f"failed was run three times and failed twice at least. Load of the machine {loads}."
    )


def _sums(results: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{name} {peer['version']}",
            *(str(count) for count in _counts(peer)),
            ", ".join(f"[{path.rpartition('/')[2]}](../{path})" for path in peer["configs"]),
        ]
        for name, peer in results["peers"].items()
    ]
    return _table(["product", "passed", "failed", "n.a.", "configured by"], rows)


def _counts(peer: Mapping[str, Any], theme: str = "") -> list[int]:
    found = [
        finding["result"]
        for name, finding in peer["findings"].items()
        if not theme or name.partition("/")[0] == theme
    ]
    return [found.count(result) for result in _RESULTS]


def _by_theme(results: Mapping[str, Any]) -> str:
    """Passed of those that apply."""
    themes = dict.fromkeys(name.partition("/")[0] for name in results["checks"])
    rows = []
    for theme in themes:
        cells = [theme]
        for peer in results["peers"].values():
            passed, failed, _ = _counts(peer, theme)
            cells.append(f"{passed} of {passed + failed}" if passed + failed else "n.a.")
        rows.append(cells)
    return _table(["theme", *results["peers"]], rows)


def _not_applicable(results: Mapping[str, Any]) -> str:
    """Why each product is not asked what it is not asked."""
    rows = []
    for name, peer in results["peers"].items():
        for reason, checks in _by_reason(peer).items():
            rows.append([name, ", ".join(f"`{check}`" for check in checks), reason])
    return "Not applicable:\n\n" + _table(["product", "checks", "why"], rows)


def _by_reason(peer: Mapping[str, Any]) -> dict[str, list[str]]:
    """Checks by the reason, a whole theme as such."""
    found: dict[str, list[str]] = {}
    for name, finding in peer["findings"].items():
        if finding["result"] != "not_applicable":
            continue
        theme = name.partition("/")[0]
        passed, failed, _ = _counts(peer, theme)
        shown = name if passed + failed else f"{theme}/*"
        checks = found.setdefault(_cell(finding["seen"].removeprefix("not claimed: ")), [])
        if shown not in checks:
            checks.append(shown)
    return found


def _failures(results: Mapping[str, Any]) -> str:
    rows = [
        [name, f"`{check}`", _cell(finding["seen"])]
        for name, peer in results["peers"].items()
        for check, finding in peer["findings"].items()
        if finding["result"] == "failed"
    ]
    return "Failed:\n\n" + _table(["product", "check", "seen"], rows)


def _cell(text: str) -> str:
    """Text that fits into a table."""
    plain = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", " ".join(text.split()))
    short = plain if len(plain) <= _LONGEST else plain[: _LONGEST - 2] + " …"
    return short.replace("|", "\\|").replace("<", "&lt;")


def _by_check(results: Mapping[str, Any]) -> str:
    rows = []
    for name in results["checks"]:
        found = [peer["findings"][name] for peer in results["peers"].values()]
        rows.append([f"`{name}`", *map(_result, found)])
    return "All checks:\n\n" + _table(["check", *results["peers"]], rows)


def _result(finding: Mapping[str, Any]) -> str:
    word = _WORDS[finding["result"]]
    agreed, rounds = finding["agreed"], finding["rounds"]
    return word if agreed == rounds else f"{word} {agreed} of {rounds}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
