"""Proof: a switch to another version loses no request (promises D1, D2, D3, D4).

A controller, two gateways and fake engines. Clients ask all the time, log-normal streams of 1 to
120 seconds at a sixtieth of their length, while the deployment is switched from one version to the
other and back by real rollouts. Every answer is checked: whole, of the version that its header
names, by the engine of that version; nobody is answered by the old version who asks after all
gateways have the new routes, nor by the new one before.
"""

import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.soak._load import Asked, Load, quantile
from tests.soak._proof import Proof, parse, say
from tests.soak._yard import FINGERPRINTS, Yard

from modelyard.api.messages import RolloutView
from modelyard.core.rollout import Phase

STEADY_S = 5.0
"""Before the first switch and after the last; a second for each in short runs."""
REST_S = 0.3
AROUND_S = 0.25
"""A request belongs to a switch when it began so close to it."""
SAID_EVERY = 25


@dataclass(frozen=True)
class Switch:
    """One rollout that went through; times are Unix seconds."""

    rollout: str
    version: str
    asked_at: float
    published_at: float
    acknowledged_at: float
    over_at: float
    cut: int

    @classmethod
    def of(cls, view: RolloutView) -> "Switch":
        """Read from its history."""
        at = {entry.phase: entry.at for entry in reversed(view.history)}
        return cls(
            view.id, view.version, view.started_at, at[Phase.SWITCHING], at[Phase.BAKING],
            at[Phase.DONE], view.cut,
        )  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run the proof; 0 when it holds."""
    proof = parse(argv, "switches under load", count=1000)
    with tempfile.TemporaryDirectory(prefix="modelyard-soak-") as folder:
        yard = Yard(Path(folder))
        try:
            return _prove(proof, yard)
        finally:
            yard.close()


def _prove(proof: Proof, yard: Yard) -> int:
    yard.gateways_follow()
    yard.until_over(yard.deploy(1))
    switches: list[Switch] = []
    undone: list[str] = []
    with Load(yard.gateway_urls, proof.seed, fingerprints=FINGERPRINTS) as load:
        time.sleep(min(STEADY_S, proof.count))
        for number in range(proof.count):
            view = yard.until_over(yard.deploy(2 - number % 2))
            if view.phase is Phase.DONE:
                switches.append(Switch.of(view))
            else:
                undone.append(f"{view.id}: {view.reason}")
            if (number + 1) % SAID_EVERY == 0:
                lost = sum(bool(each.problem) for each in load.asked)
                say(f"{number + 1} switches, {len(load.asked)} requests, {lost} lost")
            time.sleep(proof.random.uniform(0, 2 * REST_S))
        time.sleep(min(STEADY_S, proof.count))
    workers = yard.workers()
    problems = [each.problem for each in load.asked if each.problem]
    problems += misrouted(load.asked, switches)
    problems += [f"undone: {each}" for each in undone]
    problems += [f"{each.rollout} cut {each.cut} requests" for each in switches if each.cut]
    if len(workers) != 1:
        problems.append(f"{len(workers)} workers run at the end")
    for told in problems[:20]:
        say(f"  {told}")
    say(told_of(load.asked, switches, len(problems)))
    say("holds" if not problems else "FAILS")
    return 0 if not problems else 1


def misrouted(asked: Sequence[Asked], switches: Sequence[Switch]) -> list[str]:
    """Answers by the old version to whom began after a switch, and by the new before it."""
    found = []
    ordered = sorted(switches, key=lambda each: each.published_at)
    live, after = "", 0
    for each in sorted(asked, key=lambda one: one.began):
        while after < len(ordered) and each.began > ordered[after].acknowledged_at:
            live, after = ordered[after].version, after + 1
        changing = after < len(ordered) and (each.ended > ordered[after].published_at)
        if live and each.version and each.version != live and not changing:
            found.append(f"{each.version} answered at {each.began:.3f}, {live} was live")
        if live and changing and each.version not in ("", live, ordered[after].version):
            found.append(f"{each.version} answered at {each.began:.3f}, during {ordered[after]}")
    return found


def told_of(asked: Sequence[Asked], switches: Sequence[Switch], lost: int) -> str:
    """The report: requests, bound, times."""
    count = len(asked)
    steady, rolling, around = _times(asked, switches)
    took = [each.acknowledged_at - each.published_at for each in switches]
    apart = _overlaps(asked, switches)
    whole = [each.over_at - each.asked_at for each in switches]
    lines = [
        f"{len(switches)} switches, {count} requests, {lost} lost"
        + (f": at most {3 / count:.4%} with 95 % confidence" if not lost and count else ""),
        (
            f"from the journal to every gateway's acknowledgement: median {_ms(took, 0.5)}, "
            f"p99 {_ms(took, 0.99)}"
        ),
        (
            f"at a gateway, from the first start by the new version to the last by the old: median "
            f"{_ms(apart, 0.5)}, p99 {_ms(apart, 0.99)}, at most {_ms(apart, 1.0)}"
        ),
        f"whole rollouts: median {quantile(whole, 0.5):.1f} s, p99 {quantile(whole, 0.99):.1f} s",
    ]
    lines += [
        f"TTFT {name}: {len(times)} streams, median {_ms(times, 0.5)}, p99 {_ms(times, 0.99)}"
        for name, times in (
            ("while nothing is rolled out", steady),
            ("while a rollout launches, tests or drains", rolling),
            (f"within {AROUND_S:g} s of a switch", around),
        )
    ]
    return "\n".join(lines)


def _times(
    asked: Sequence[Asked], switches: Sequence[Switch]
) -> tuple[list[float], list[float], list[float]]:
    """Times to the first token: between rollouts, during them, around their switches."""
    steady, rolling, around = [], [], []
    ordered = sorted(switches, key=lambda each: each.asked_at)
    at = 0
    for each in sorted(asked, key=lambda one: one.began):
        if each.ttft_s is None:
            continue
        while at < len(ordered) and each.began > ordered[at].over_at:
            at += 1
        if at >= len(ordered) or each.began < ordered[at].asked_at:
            steady.append(each.ttft_s)
        elif (
            ordered[at].published_at - AROUND_S
            <= each.began
            <= ordered[at].acknowledged_at + AROUND_S
        ):
            around.append(each.ttft_s)
        else:
            rolling.append(each.ttft_s)
    return steady, rolling, around


def _overlaps(asked: Sequence[Asked], switches: Sequence[Switch]) -> list[float]:
    """For each switch the longest time at one gateway in which both versions began answers."""
    ordered = sorted(asked, key=lambda each: each.began)
    began = [each.began for each in ordered]
    found = []
    for switch in switches:
        first, last = bisect_left(began, switch.asked_at), bisect_left(began, switch.over_at)
        found.append(_overlap_s(ordered[first:last], switch.version))
    return found


def _overlap_s(near: Sequence[Asked], version: str) -> float:
    longest = 0.0
    for gateway in {each.gateway for each in near}:
        headed = [each for each in near if each.gateway == gateway and each.head_at is not None]
        new = [each.began for each in headed if each.version == version]
        old = [each.began for each in headed if each.version != version]
        if new and old:
            longest = max(longest, max(old) - min(new))
    return longest


def _ms(times: Sequence[float], share: float) -> str:
    return f"{quantile(times, share) * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
