"""What observing costs: the gateway with and without metrics, records and traces; the state.

    scripts/bench observe [--rounds 5] [--seconds 4] [--only gateway|controller|store] [--write]

The gateway has core 0 for itself; the upstream (nginx, one canned answer), the load and the
controller share core 1. A gateway that follows a real feed into a real state serves one model to
one key with three limits. In turns, round by round: everything off, metrics only, all as it ships,
all and one request in a hundred traced to a collector; ratios are medians over the rounds. The
processor time is the gateway's own by the kernel's account, which others on the machine change less
than the rate. Then an open loop at half the rate that was reached, with the controller working and
with it stopped by a signal, in turns. Then a month of generated traffic is asked of.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import psutil
from benchmarks._canned import QUESTION, canned_upstream, pinned, requests_per_s
from benchmarks._observe_queries import measured
from benchmarks._open_loop import Found, Shape, measure
from benchmarks.peers.processes import HOST, Started, free_port, started

from benchmarks import _observe_controller
from modelyard.core.home import Home
from modelyard.state.store import open_store

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- observe: begin -->", "<!-- observe: end -->"
GATEWAY_CORE, OTHER_CORE = 0, 1
HEADERS = (("authorization", f"Bearer {_observe_controller.KEY}"),)
TAKEN_WITHIN_S = 300.0
OPEN_LOOP_RATE = 0.5


def main(argv: Sequence[str]) -> int:
    """Run, print, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args(argv)
    lines: list[str] = []
    for name, part in PARTS.items():
        if chosen.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
                found = part(Path(folder), chosen.rounds, chosen.seconds)
            print("\n".join(found), flush=True)
            lines += [*found, ""]
    if chosen.write:
        before, rest = DOCUMENT.read_text().split(BEGIN)
        about = (
            f"{time.strftime('%Y-%m-%d')}; `scripts/bench observe --rounds {chosen.rounds} "
            f"--seconds {chosen.seconds:g}`; 2 cores."
        )
        told = "\n".join(lines).rstrip()
        DOCUMENT.write_text(f"{before}{BEGIN}\n{about}\n\n{told}\n{END}{rest.split(END)[1]}")
    return 0


# --- the gateway ---------------------------------------------------------------------------------


def _gateway_part(folder: Path, rounds: int, seconds: float) -> list[str]:
    rates: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, list[float]] = defaultdict(list)
    sent = lost = 0
    with canned_upstream(folder / "nginx", OTHER_CORE) as upstream:
        for number in range(rounds):
            for name, (parts, traced) in WAYS.items():
                place = folder / f"{number}-{parts}-{traced}"
                with _yard(place, upstream, parts, traced=traced) as yard:
                    yard.rate(1.0)  # warm
                    begun_s = yard.processor_s()
                    rate = yard.rate(seconds)
                    each_us = (yard.processor_s() - begun_s) / (rate * seconds) * 1e6
                    rates[name].append(rate)
                    spent[name].append(each_us)
                    told = f"  {name}: {rate:,.0f}/s, {each_us:.1f} us each"
                    print(told, file=sys.stderr, flush=True)
                    if parts == "all":
                        sent += yard.sent
                        lost += yard.lost()
                shutil.rmtree(place)
    off = rates["everything off"]
    head = "| the gateway | requests/s (median) | range | of everything off | processor time each |"
    table = [head, "|---|---|---|---|---|"]
    for name, found in rates.items():
        span = f"{min(found):,.0f} to {max(found):,.0f}"
        ratio = median(each / base for each, base in zip(found, off, strict=True))
        each = f"{median(spent[name]):.1f} µs"
        table.append(f"| {name} | {median(found):,.0f} | {span} | {ratio:.1%} | {each} |")
    traces = median(each / base for each, base in zip(rates[TRACED], rates[SHIPPED], strict=True))
    told = f"{sent:,} requests at the gateway's top rate: {lost} records missing in the state."
    return [*table, "", f"Traces at 1 %: {traces:.1%} of the rate without. {told}"]


SHIPPED, TRACED = "metrics and records", "metrics, records, traces at 1 %"
WAYS: Mapping[str, tuple[str, bool]] = {
    "everything off": ("off", False),
    "metrics": ("metrics", False),
    SHIPPED: ("all", False),
    TRACED: ("all", True),
}


class _Yard:
    """A gateway that follows a feed into a state."""

    def __init__(
        self, place: Path, url: str, home: Home, controller: Started, gateway: Started
    ) -> None:
        self._place = place
        self._gateway = gateway
        self.url = url
        self._home = home
        self.controller = controller

    def rate(self, seconds: float) -> float:
        """Requests per second that are answered."""
        return requests_per_s(self.url, self._place, OTHER_CORE, seconds, headers=HEADERS)

    def processor_s(self) -> float:
        """Processor time of the gateway so far."""
        spent = psutil.Process(self._gateway.pid).cpu_times()
        return float(spent.user + spent.system)

    @property
    def sent(self) -> int:
        """Requests that the gateway has answered."""
        return int(_metric(self.url, "modelyard_requests_total"))

    def lost(self) -> int:
        """Records that are not in the state once the gateway has none left to send."""
        deadline = time.monotonic() + TAKEN_WITHIN_S
        while _metric(self.url, "modelyard_gateway_records_waiting"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"records still wait after {TAKEN_WITHIN_S:g} s")
            time.sleep(0.2)
        with contextlib.closing(open_store(self._home, None)) as store:
            taken = sum(row.requests for row in store.usage.since(0))
        return self.sent - taken


@contextlib.contextmanager
def _yard(place: Path, upstream: str, parts: str, *, traced: bool) -> Iterator[_Yard]:
    own, following = Home(place / "controller"), Home(place / "gateway")
    for home in (own, following):
        home.root.mkdir(parents=True)
    port, listen = free_port(), free_port()
    serve = pinned(OTHER_CORE, sys.executable, "-m", "benchmarks._observe_controller", own.root,
                   port, upstream)  # fmt: skip
    environment = dict(os.environ)
    with contextlib.ExitStack() as stack:
        controller = stack.enter_context(
            started(serve, log=place / "controller.log", env=environment, cwd=Path.cwd())
        )
        controller.until_answers(f"http://{HOST}:{port}/", {})
        following.gateway_token.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(own.gateway_token, following.gateway_token)
        if traced:
            collector = stack.enter_context(_collector(place))
            environment |= {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.01",
            }
        argv = pinned(GATEWAY_CORE, sys.executable, "-m", "benchmarks._observe_gateway", parts,
                      "--home", following.root, "--controller", f"http://{HOST}:{port}",
                      "--listen", f"{HOST}:{listen}")  # fmt: skip
        gateway = stack.enter_context(
            started(argv, log=place / "gateway.log", env=environment, cwd=Path.cwd())
        )
        url = f"http://{HOST}:{listen}"
        gateway.until_answers(f"{url}/ready", {})
        yield _Yard(place, url, own, controller, gateway)


@contextlib.contextmanager
def _collector(place: Path) -> Iterator[str]:
    """Whoever takes spans and says so: nginx, which reads them and answers 200."""
    with canned_upstream(place / "collector", OTHER_CORE) as url:
        yield url


def _metric(url: str, name: str) -> float:
    """The sum of a metric over its labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 - loopback
        text = answer.read().decode()
    return sum(float(each) for each in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))


# --- the controller's work -----------------------------------------------------------------------


def _controller_part(folder: Path, rounds: int, seconds: float) -> list[str]:
    found: dict[str, list[Found]] = defaultdict(list)
    with (
        canned_upstream(folder / "nginx", OTHER_CORE) as upstream,
        _yard(folder / "yard", upstream, "all", traced=False) as yard,
    ):
        rate = yard.rate(2.0) * OPEN_LOOP_RATE
        while _metric(yard.url, "modelyard_gateway_records_waiting"):
            time.sleep(0.2)
        os.sched_setaffinity(0, {OTHER_CORE})
        for number in range(rounds):
            for name, stopped in (("working", False), ("stopped", True)):
                os.kill(yard.controller.pid, signal.SIGSTOP if stopped else signal.SIGCONT)
                shape = Shape(
                    rate=rate, seconds=seconds * 2, body=QUESTION.encode(), headers=HEADERS,
                    seed=number,
                )  # fmt: skip
                found[name].append(measure(yard.url, shape))
                os.kill(yard.controller.pid, signal.SIGCONT)
                if stopped:  # what it left is taken before it is measured again
                    while _metric(yard.url, "modelyard_gateway_records_waiting"):
                        time.sleep(0.2)
    head = "| the controller | p50 | p99 (median of rounds) | range |"
    lines = [f"Open loop, {rate:,.0f} requests/s.", "", head, "|---|---|---|---|"]
    for name, runs in found.items():
        ends = [run.quantile_ms(0.99) for run in runs]
        middle = median(run.quantile_ms(0.5) for run in runs)
        span = f"{min(ends):.2f} to {max(ends):.2f} ms"
        lines.append(f"| {name} | {middle:.2f} ms | {median(ends):.2f} ms | {span} |")
    ratio = median(
        one.quantile_ms(0.99) / other.quantile_ms(0.99)
        for one, other in zip(found["working"], found["stopped"], strict=True)
    )
    return [*lines, "", f"p99 with its work: {ratio:.1%} of that without."]


PARTS: Mapping[str, Callable[[Path, int, float], list[str]]] = {
    "gateway": _gateway_part,
    "controller": _controller_part,
    "store": measured,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
