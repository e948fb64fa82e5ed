"""Registration against cp, SHA-256 and MLflow's log_artifacts; listing with 10,000 versions.

    scripts/bench registry [--gigabytes 2] [--rounds 5] [--only CASES] [--folder DIR]
                           [--json FILE] [--write]

Every figure is a ratio of medians of the same run: what is compared runs in turns, each in a
process of its own that has imported what it needs and made its catalogue before the clock starts.
Sources are in the page cache (warm); what is written is flushed to the disk inside the timing,
unless the row says otherwise. The rows lie in `_registry_cases.py`, the timed work in
`_registry_work.py`. `--write` puts the table into docs/benchmarks.md.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._registry_cases import CASES, Case, Target, make_sources

REMOVED_LATER_BYTES = 500_000_000
"""Copies of smaller sources stay until their case is over: for half a minute after ten thousand
removals, ext4 takes up to 0.6 ms to create a file, and whoever comes next would pay for it."""
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- registry: begin -->", "<!-- registry: end -->"


def main(argv: Sequence[str]) -> int:
    """Run, print the table, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--files", type=int, default=10_000, help="small files")
    parser.add_argument("--versions", type=int, default=10_000, help="versions in the catalogue")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rest-s", type=float, default=8.0, help="pause before each measurement")
    parser.add_argument("--only", help="comma-separated names of cases")
    parser.add_argument("--folder", type=Path, help="on the disk that is measured")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args(argv)
    cases = [c for c in CASES if not chosen.only or c.name in chosen.only.split(",")]
    results: dict[str, Any] = {"machine": _machine(), "settings": _settings(chosen), "cases": {}}
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-", dir=chosen.folder) as name:
        folder = Path(name)
        make_sources(folder, round(chosen.gigabytes * 1e9), chosen.files, chosen.versions, cases)
        for case in cases:
            results["cases"][case.name] = _run(case, folder, chosen.rounds, chosen.rest_s)
    table = _table(cases, results)
    print(table)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1))
    if chosen.write:
        _write(table, results)
    return 0


def _run(case: Case, folder: Path, rounds: int, rest_s: float) -> dict[str, Any]:
    """Measure every work of a case in turns."""
    seconds: dict[str, list[float]] = {work: [] for work in case.works}
    peak: dict[str, float] = dict.fromkeys(case.works, 0.0)
    moved: dict[str, list[float]] = {}
    loads = []
    done_with: list[Path] = []
    found_bytes = _bytes(folder / case.source)
    for number in range(rounds):
        # The order changes, so that nobody always pays for the other's dirty pages.
        for work in case.works if number % 2 == 0 else reversed(case.works):
            loads.append(os.getloadavg()[0])
            scratch = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
            os.sync()
            time.sleep(rest_s)  # a disk that is lent in bursts has to come to rest
            found = _measure(work, folder / case.source, scratch)
            done_with.append(scratch)
            if not case.keeps and found_bytes > REMOVED_LATER_BYTES:
                shutil.rmtree(done_with.pop())
            seconds[work].append(found["seconds"])
            peak[work] = max(peak[work], found["peak_mb"])
            moved[work] = [found["read_mb"], found["written_mb"]]
            print(f"  {case.name:12} {work:16} {found['seconds']:8.3f} s", file=sys.stderr)
    if not case.keeps:
        for scratch in done_with:
            shutil.rmtree(scratch)
    return {
        "seconds": seconds,
        "median_s": {work: statistics.median(times) for work, times in seconds.items()},
        "peak_mb": peak,
        "read_and_written_mb": moved,
        "bytes": found_bytes,
        "load": statistics.median(loads),
    }


def _measure(work: str, source: Path, scratch: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks._registry_work", work, str(source), str(scratch)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _bytes(source: Path) -> int:
    return sum(path.stat().st_size for path in source.rglob("*") if path.is_file())


def _table(cases: Sequence[Case], results: dict[str, Any]) -> str:
    lines = ["| what | ours | against | ratio | to reach | |", "|---|---|---|---|---|---|"]
    for case in cases:
        found = results["cases"][case.name]
        lines += [_row(target, found) for target in case.targets]
    if "shards" in results["cases"]:
        shards = results["cases"]["shards"]
        read, written = shards["read_and_written_mb"]["register"]
        times = [f"{count / shards['bytes'] * 1e6:.2f}" for count in (read, written)]
        lines.append(
            f"| 8 shards: bytes read and written, per byte registered | {times[0]} and "
            f"{times[1]} | | | | |"
        )
    registering = [c for c in results["cases"].values() if "register" in c["peak_mb"]]
    if registering:
        peak = max(max(c["peak_mb"].values()) for c in registering)
        mark = "reached" if peak < 200 else "**missed**"
        lines.append(f"| peak memory of a registration | {peak:.0f} MB | | | < 200 MB | {mark} |")
    return "\n".join(lines)


def _row(target: Target, found: dict[str, Any]) -> str:
    medians = found["median_s"]
    ours = medians[target.ours]
    cells = [target.what, _shown(ours, found["bytes"])]
    if target.against:
        # The slowest of what bounds us is the limit.
        other = max(target.against, key=lambda work: medians[work])
        ratio = medians[other] / ours
        cells += [f"{other}: {_shown(medians[other], found['bytes'])}", f"{ratio:.2f}"]
        reached = target.at_least is None or ratio >= target.at_least
        cells.append("" if target.at_least is None else f"≥ {target.at_least:g}")
    else:
        reached = target.within_s is None or ours <= target.within_s
        cells += ["", "", "" if target.within_s is None else f"< {target.within_s * 1000:.0f} ms"]
    known = target.at_least is not None or target.within_s is not None
    cells.append(("reached" if reached else "**missed**") if known else "")
    return "| " + " | ".join(cells) + " |"


def _shown(seconds: float, size_bytes: int) -> str:
    if seconds < 0.5 and size_bytes < 1e8:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.2f} s ({size_bytes / seconds / 1e6:.0f} MB/s)"


def _machine() -> str:
    cpu = "an unnamed CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GiB, Linux {platform.release()}"


def _settings(chosen: argparse.Namespace) -> str:
    return (
        f"{chosen.gigabytes:g} GB, {chosen.files} small files, {chosen.versions} versions, "
        f"{chosen.rounds} rounds"
    )


def _write(table: str, results: dict[str, Any]) -> None:
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    load = statistics.median(case["load"] for case in results["cases"].values())
    about = (
        f"{time.strftime('%Y-%m-%d')}; {results['machine']}; {results['settings']}; "
        f"load of the machine {load:.1f} (medians)."
    )
    DOCUMENT.write_text(f"{before}{BEGIN}\n{about}\n\n{table}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
