"""Switching versions under load: blue-green, a restart, and nginx's reload; lost requests, TTFT.

    scripts/bench deploy [--switches 5] [--rounds 3] [--seed 1] [--json FILE] [--write]

Three ways to change the version behind one address, in turns, under the same open-loop load on fake
engines (20 requests per second, log-normal streams of 1 to 120 seconds at a sixtieth of their
length, a quarter of the answers in one piece; an engine takes a second to load). Every answer is
checked. nginx is Debian's package, unpacked into the cache. `--write` puts the table into
docs/benchmarks.md.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._deploy_ways import CACHE, Way, blue_green, nginx, program_of, restart, version_of
from tests.soak._load import Asked, Load, quantile

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- deploy: begin -->", "<!-- deploy: end -->"
WAYS: dict[str, Callable[[Path], AbstractContextManager[Way]]] = {
    "modelyard deploy (blue-green)": blue_green,
    "stop the engine, start the next": restart,
    "nginx -s reload": nginx,
}
STEADY_S = 4.0


@dataclass
class Found:
    """All rounds of one way."""

    asked: list[Asked] = field(default_factory=list)
    switching: list[tuple[float, float]] = field(default_factory=list)
    """From when to when (Unix seconds) each switch went."""

    def ttft_s(self, *, switching: bool) -> list[float]:
        """Of the streams that began during a switch, or between them."""
        return [
            each.ttft_s
            for each in self.asked
            if each.ttft_s is not None and switching == self._within(each.began)
        ]

    def _within(self, at: float) -> bool:
        return any(begin <= at <= end for begin, end in self.switching)


def main(argv: Sequence[str]) -> int:
    """Run, print the table, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--switches", type=int, default=5, help="of each way, in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args(argv)
    nginx_version = version_of(program_of(CACHE))
    found: dict[str, Found] = defaultdict(Found)
    for number in range(chosen.rounds):
        for name, way in WAYS.items():
            with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
                _round(way, Path(folder), chosen.switches, chosen.seed + number, found[name])
            print(f"  {name}: {_row(name, found[name])}", file=sys.stderr)
    table = _table(found)
    print(table)
    if chosen.json:
        chosen.json.write_text(json.dumps({n: _plain(f) for n, f in found.items()}, indent=1))
    if chosen.write:
        before, rest = DOCUMENT.read_text().split(BEGIN)
        about = (
            f"{time.strftime('%Y-%m-%d')}; `scripts/bench deploy --switches {chosen.switches} "
            f"--rounds {chosen.rounds} --seed {chosen.seed}`; 2 cores that others use, too; nginx "
            f"{nginx_version}."
        )
        DOCUMENT.write_text(f"{before}{BEGIN}\n{about}\n\n{table}\n{END}{rest.split(END)[1]}")
    return 0


def _round(
    way: Callable[[Path], AbstractContextManager[Way]],
    folder: Path,
    switches: int,
    seed: int,
    found: Found,
) -> None:
    with way(folder) as service, Load([service.url], seed) as load:
        time.sleep(STEADY_S)
        for number in range(switches):
            begin = time.time()
            service.switch(2 - number % 2)
            found.switching.append((begin, time.time()))
            time.sleep(STEADY_S)  # what rests after failures comes back
        time.sleep(STEADY_S)
        # The load ends before the service does: it waits for what it has asked.
        load.end()
    found.asked += load.asked


def _table(found: dict[str, Found]) -> str:
    head = (
        "| way | switches | took (median) | requests | lost | TTFT p50, p99 between switches "
        "| TTFT p50, p99 during a switch |"
    )
    return "\n".join([head, "|---|---|---|---|---|---|---|", *map(_row, found, found.values())])


def _row(name: str, found: Found) -> str:
    lost = sum(bool(each.problem) for each in found.asked)
    count = len(found.asked)
    told = f"**{lost}** ({lost / count:.1%})" if lost else f"0 (at most {3 / count:.2%})"
    took = quantile([end - begin for begin, end in found.switching], 0.5)
    times = (found.ttft_s(switching=False), found.ttft_s(switching=True))
    times = [_times(found.ttft_s(switching=switching)) for switching in (False, True)]
    cells = [name, str(len(found.switching)), f"{took:.1f} s", str(count), told, *times]
    return "| " + " | ".join(cells) + " |"


def _times(ttft_s: Sequence[float]) -> str:
    if not ttft_s:
        return "none began"
    return f"{quantile(ttft_s, 0.5) * 1000:.0f} ms, {quantile(ttft_s, 0.99) * 1000:.0f} ms"


def _plain(found: Found) -> dict[str, object]:
    return {
        "switching": found.switching,
        "problems": [each.problem for each in found.asked if each.problem],
        "ttft_s": [found.ttft_s(switching=each) for each in (False, True)],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
