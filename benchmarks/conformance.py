"""Modelyard's gateway and its peers through the conformance suite, one after another.

    scripts/bench conformance [--only PEERS] [--checks GLOB …] [--cache DIR] [--json FILE] [--write]

Each product is installed into an environment of its own below the cache, put before three fake
engines on this machine with the configuration in benchmarks/peers/, and driven through the same
checks. What failed is run twice more, with a product that was started anew, so that neither chance
nor a busy machine decides: it is failed when it failed twice. What a product does not claim is not
applicable; the reason is told. `--write` puts the table into docs/benchmarks.md; with `--from FILE`
it is made from an earlier run's JSON.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from benchmarks.peers.litellm import LITELLM
from benchmarks.peers.nginx import NGINX
from benchmarks.peers.own import MODELYARD
from benchmarks.peers.peer import Peer, Running
from benchmarks.peers.sglang_router import SGLANG_ROUTER
from benchmarks.peers.table import written_into

from modelyard.cli.conformance.driving import ended_by_signals
from modelyard.conformance.bench import Bench
from modelyard.conformance.check import Check, Finding
from modelyard.conformance.checks.catalogue import CHECKS
from modelyard.conformance.engines import Engine
from modelyard.conformance.runner import Runner, choose, excluded
from modelyard.conformance.yard import ENGINE_NAMES, running_engines

PEERS = (MODELYARD, LITELLM, SGLANG_ROUTER, NGINX)
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "modelyard" / "peers"
AGAIN = 2
"""How often what failed is run again."""
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main(argv: Sequence[str]) -> int:
    """Run, print the table, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--only", action="append", choices=names, help="may be given again")
    parser.add_argument("--checks", action="append", default=[], metavar="GLOB")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where peers are installed")
    parser.add_argument("--logs", type=Path, help="keep what the peers wrote here")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--from", dest="earlier", type=Path, help="an earlier run's JSON")
    parser.add_argument("--write", action="store_true", help=f"into {DOCUMENT.name}")
    chosen = parser.parse_args(argv)
    if chosen.earlier:
        results = json.loads(chosen.earlier.read_text())
    else:
        peers = [peer for peer in PEERS if not chosen.only or peer.name in chosen.only]
        with ended_by_signals():
            results = _run(peers, choose(CHECKS, chosen.checks), chosen.cache, chosen.logs)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1))
    text = written_into(DOCUMENT.read_text(), results, whole=chosen.write)
    if chosen.write:
        DOCUMENT.write_text(text)
    else:
        print(text)
    return 0


def _run(
    peers: Sequence[Peer], checks: Sequence[Check], cache: Path, logs: Path | None
) -> dict[str, Any]:
    versions = {peer.name: peer.install(cache) for peer in peers}  # before anything is measured
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, Linux {platform.release()}",
        "loads": [],
        "checks": {check.name: check.meaning for check in checks},
        "peers": {},
    }
    for peer in peers:
        print(f"{peer.name} {versions[peer.name]}", file=sys.stderr)
        begun = time.monotonic()
        rounds = [_driven(peer, checks, cache, logs)]
        failed = [check for check in checks if rounds[0][check.name].result == "failed"]
        if failed:
            rounds += [_driven(peer, failed, cache, logs) for _ in range(AGAIN)]
        results["peers"][peer.name] = {
            "version": versions[peer.name],
            "configs": list(peer.configs),
            "not_claimed": dict(peer.not_claimed),
            "took_s": round(time.monotonic() - begun),
            "findings": {check.name: judged(check.name, rounds) for check in checks},
        }
        results["loads"].append(round(os.getloadavg()[1], 1))
    return results


def judged(name: str, rounds: Sequence[dict[str, Finding]]) -> dict[str, Any]:
    """Of a check's rounds: the result that most had, what was seen with it, and how often."""
    found = [each[name] for each in rounds if name in each]
    counts = Counter(finding.result for finding in found)
    result, count = counts.most_common(1)[0]
    seen = next(finding.seen for finding in found if finding.result == result)
    return {"result": result, "seen": seen, "rounds": len(found), "agreed": count}


def _driven(
    peer: Peer, checks: Sequence[Check], cache: Path, logs: Path | None
) -> dict[str, Finding]:
    """Start engines and product, run the checks, end all."""
    words = excluded(CHECKS, peer.not_claimed)
    with (
        tempfile.TemporaryDirectory(prefix="modelyard-peer-") as name,
        running_engines() as engines,
    ):
        place = logs / peer.name.replace(" ", "-") if logs else Path(name)
        place.mkdir(parents=True, exist_ok=True)
        with peer.start(cache, place, engines) as running:
            found = asyncio.run(_drive(running, checks, words))
    return {finding.name: _with_reason(finding, peer, words) for finding in found}


async def _drive(running: Running, checks: Sequence[Check], words: dict[str, str]) -> list[Finding]:
    urls = running.target.engines
    engines = tuple(Engine(name, url) for name, url in zip(ENGINE_NAMES, urls, strict=True))
    bench = Bench(running.target, engines, exit_code=running.exit_code)
    return await Runner(bench, without=words, told=_tell).run(checks)


def _tell(finding: Finding) -> None:
    if finding.result == "failed":
        print(f"  FAILED {finding.name}: {finding.seen}", file=sys.stderr)


def _with_reason(finding: Finding, peer: Peer, words: dict[str, str]) -> Finding:
    """What is not claimed says why."""
    word = words.get(finding.name)
    if word is None:
        return finding
    return msgspec.structs.replace(finding, seen=f"not claimed: {peer.not_claimed[word]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
