"""What traces cost a request on the gateway's loop, and a span in the exporter's thread, in µs.

    python -m benchmarks._observe_traces [--rounds 20]

The loop: `begin` when a request is let in, three moments on its way, `ended` at its end; the
median of rounds of 10,000. The thread: a span built, put into OTLP's form, and its part of the
batch's bytes; nothing is sent.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

from modelyard.core.records import Attempt, RequestRecord
from modelyard.core.spans import Sampler
from modelyard.gateway.calls import Call
from modelyard.gateway.standing import Standing
from modelyard.gateway.tracing import Relayed, Tracer, Tracing
from modelyard.observe.collectors import Collector
from modelyard.observe.otlp import Pending, SpanExporter

COUNT = 10_000
SAMPLED = {b"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
RECORD = RequestRecord(
    request_id="req-a1b2c3d4e5f6-1f", gateway="a1b2c3d4e5f6", received_at=1.7e9, operation="chat",
    stream=True, outcome="completed", status=200, tenant="blue", key_id="k", model="assistant",
    deployment="assistant", slot="green", version=3, digest="sha256:" + "5" * 64, replica="r1",
    attempts=(Attempt(replica="r1", slot="green", digest="sha256:" + "5" * 64, started_s=0.001,
                      outcome="completed", duration_s=2.0, status=200, reason="only_one"),),
    ttft_s=0.1, e2e_s=2.0, prompt_tokens=12, completion_tokens=40, finish_reason="stop", cost=0.1,
)  # fmt: skip


class Kept:
    """Takes spans, and sends none."""

    def __init__(self) -> None:
        self.spans: list[Pending] = []
        self.sent = self.dropped = 0

    def put(self, pending: Pending) -> None:
        """Take a span."""
        self.spans.append(pending)


def on_the_loop(tracing: Tracing, ended: Callable[..., None], headers: dict[bytes, bytes]) -> float:
    """Seconds for a request."""
    calls = [Call(f"req-a1b2c3d4e5f6-{number:x}", 1.7e9) for number in range(COUNT)]
    limits = ("requests_per_min:key",)
    begun = time.process_time()
    for call in calls:
        tracing.begin(call, headers)
        call.mark("admission", model="assistant", limits=limits)
        call.mark("cache", result="miss")
        call.mark("choose", replica="r1", slot="green", reason="only_one")
        ended(RECORD, call)
    return (time.process_time() - begun) / COUNT


def in_the_thread(spans: Sequence[Pending]) -> float:
    """Seconds for a span."""
    exporter = SpanExporter(Collector(url="http://127.0.0.1:9/v1/traces", sample=1), "bench")
    begun = time.process_time()
    for first in range(0, len(spans), 512):
        exporter._scope(spans[first : first + 512]).SerializeToString()
    return (time.process_time() - begun) / len(spans)


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args(argv).rounds
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        kept = Kept()
        none, all_ = (Tracer(Sampler(share), kept, Standing()) for share in (0.0, 1.0))
        ways: dict[str, tuple[Tracing, Callable[..., None], dict[bytes, bytes]]] = {
            "traces off": (Relayed(), lambda *_: None, {}),
            "traces on, request not sampled": (none, none.ended, {}),
            "sampled by the share": (all_, all_.ended, {}),
            "sampled by the caller": (none, none.ended, SAMPLED),
        }
        for name, way in ways.items():
            found.setdefault(name, []).append(on_the_loop(*way))
        found.setdefault("a span, in the thread", []).append(in_the_thread(kept.spans[:COUNT]))
    for name, times in found.items():
        print(f"{name:32} {median(times) * 1e6:6.2f} µs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
