"""How canaries are judged: rollbacks of equal candidates, and worse ones found, by three rules.

    scripts/bench canary [--equal 2000] [--worse 200] [--seed 1] [--json FILE] [--write]

Simulated, seeded, no I/O. Each canary lasts 30 minutes or until a rule rolls it back; both versions
slow down together meanwhile. Every rule sees the same draws: ours (`core/canary.py`, looked at each
second), a fixed threshold looked at each minute, and significance tests looked at each minute.
`--write` puts the tables into
docs/benchmarks.md.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._canary_rules import ALPHA, RULES, clopper_pearson
from benchmarks._canary_traffic import EQUAL, REGRESSIONS, Regression, Setting, draw

SETTINGS = tuple(Setting(rate=rate, share=share) for rate in (0.2, 1, 5) for share in (0.1, 0.5))
STREAMS = Setting(rate=1, share=0.5, tokens_median=3000, begun_before_s=1200)
"""Answers of two minutes, of a version that was asked before the canary began."""
CALLERS = Setting(rate=1, share=0.5, callers=200)
"""Callers who differ and stay with one version each: what is compared is callers, too."""
FEW = Setting(rate=1, share=0.5, callers=20)
ODD = {
    STREAMS: "long streams",
    CALLERS: "200 sticky callers who differ",
    FEW: "20 sticky callers who differ",
}
SIDE_BY_SIDE = (Setting(rate=1, share=0.1), Setting(rate=1, share=0.5))
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- canary: begin -->", "<!-- canary: end -->"
Found = dict[str, list[float | None]]
"""Rule → when it rolled each canary back."""


def main(argv: Sequence[str]) -> int:
    """Run, print the tables, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--equal", type=int, default=2000, help="canaries of equal candidates")
    parser.add_argument("--worse", type=int, default=200, help="canaries of each worse candidate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args(argv)
    begun = time.process_time()
    equal = {
        setting: _run(setting, EQUAL, chosen.equal,
                      chosen.seed)
        for setting in (*SETTINGS, *ODD)
    }  # fmt: skip
    worse = {
        (setting, wrong): _run(setting, wrong, chosen.worse, chosen.seed)
        for wrong in REGRESSIONS
        for setting in (*SETTINGS, CALLERS)
    }
    text = "\n\n".join((_equal_table(equal), _worse_table(worse), _beside_table(worse)))
    about = (
        f"{time.strftime('%Y-%m-%d')}; `scripts/bench canary --equal {chosen.equal} --worse "
        f"{chosen.worse} --seed {chosen.seed}`; {(time.process_time() - begun) / 60:.0f} minutes "
        "of one core."
    )
    print(text)
    if chosen.json:
        chosen.json.write_text(json.dumps(_plain(equal, worse), indent=1))
    if chosen.write:
        before, rest = DOCUMENT.read_text().split(BEGIN)
        after = rest.split(END)[1]
        DOCUMENT.write_text(f"{before}{BEGIN}\n{about}\n\n{text}\n{END}{after}")
    return 0


def _run(setting: Setting, wrong: Regression, count: int, seed: int) -> Found:
    """So many canaries, each judged by every rule."""
    found: Found = {rule: [] for rule in RULES}
    for number in range(count):
        requests = draw(setting, wrong, (seed, number))
        for rule, judge in RULES.items():
            found[rule].append(judge(requests))
    shown = ", ".join(f"{rule} {_share(times):.1%}" for rule, times in found.items())
    print(f"  {setting}; {wrong.name}: {shown}", file=sys.stderr)
    return found


def _share(times: Sequence[float | None]) -> float:
    return sum(each is not None for each in times) / len(times)


def _equal_table(equal: dict[Setting, Found]) -> str:
    lines = [
        f"Equal candidates that were rolled back (95 % Clopper-Pearson; stated: {ALPHA:.0%}):",
        "",
        "| requests, candidate's share | canaries | " + " | ".join(RULES) + " |",
        "|---|---|" + "---|" * len(RULES),
    ]
    for setting, found in equal.items():
        cells = []
        for times in found.values():
            hits = sum(each is not None for each in times)
            low, high = clopper_pearson(hits, len(times))
            cells.append(f"{hits / len(times):.1%} ({low:.1%} to {high:.1%})")
        name = f"{setting}, {ODD[setting]}" if setting in ODD else str(setting)
        lines.append(f"| {name} | {len(times)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _worse_table(worse: dict[tuple[Setting, Regression], Found]) -> str:
    lines = [
        "Worse candidates that ours rolled back within 30 minutes, and the median time to it:",
        "",
        "| what is worse | " + " | ".join(map(str, SETTINGS)) + " | 1/s, 50%, 200 callers |",
        "|---|" + "---|" * (len(SETTINGS) + 1),
    ]
    for wrong in REGRESSIONS:
        cells = [_cell(worse[setting, wrong]["ours"]) for setting in (*SETTINGS, CALLERS)]
        lines.append(f"| {wrong.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _beside_table(worse: dict[tuple[Setting, Regression], Found]) -> str:
    columns = [(setting, rule) for setting in SIDE_BY_SIDE for rule in RULES]
    heads = (f"{setting}: {rule}" for setting, rule in columns)
    lines = [
        "Beside the two usual rules, on the same draws; they watch errors and TTFT only:",
        "",
        "| what is worse | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for wrong in REGRESSIONS:
        cells = [_cell(worse[setting, wrong][rule]) for setting, rule in columns]
        lines.append(f"| {wrong.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(times: Sequence[float | None]) -> str:
    found = [each for each in times if each is not None]
    if not found:
        return "0 %"
    median_s = statistics.median(found)
    told = f"{median_s:.0f} s" if median_s < 120 else f"{median_s / 60:.1f} min"
    return f"{len(found) / len(times):.0%}, {told}"


def _plain(
    equal: dict[Setting, Found], worse: dict[tuple[Setting, Regression], Found]
) -> dict[str, Any]:
    found: dict[str, Any] = {f"{setting}; equal": each for setting, each in equal.items()}
    return found | {f"{setting}; {wrong.name}": each for (setting, wrong), each in worse.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
