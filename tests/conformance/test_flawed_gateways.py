"""A suite that can't fail proves nothing: each flaw of a gateway is found by the check for it."""

from collections.abc import Sequence

import msgspec
import pytest
from tests.conformance.flawed_gateway import Flaw, FlawedGateway

from modelyard.conformance.bench import Bench
from modelyard.conformance.check import Finding
from modelyard.conformance.checks.catalogue import CHECKS
from modelyard.conformance.engines import Engine
from modelyard.conformance.runner import Runner, choose
from modelyard.conformance.target import Target
from modelyard.conformance.yard import EngineProcess

FOUND_BY: dict[Flaw, dict[str, str]] = {
    "buffers_streams": {
        "streaming/first-token": "the engine made 1 tokens, 0 came",
    },
    "reads_ahead": {"streaming/held-back": "to be held back"},
    "loses_a_chunk": {"streaming/whole": "tokens came", "streaming/many-at-once": "tokens came"},
    "says_done_after_a_cut": {
        "truncation/stream": "must not look whole",
        "truncation/error-event": "must not look whole",
    },
    "says_done_twice": {"streaming/whole": "one [DONE] was expected"},
    "begins_before_the_engine": {
        "failover/both-out-stream": "a 5xx before anything was sent",
        "truncation/before-first-token": "must not look whole",
    },
    "retries_after_the_first_byte": {"failover/never-after-first-byte": "2 came"},
    "retries_the_same_engine": {"failover/each-once": "asked twice"},
    "retries_refusals": {"breakers/4xx-not-retried": "2 came"},
    "never_fails_over": {"failover/status-500": "200 was expected, came: 502"},
    "never_cancels": {
        "leaving/midway": "after the client had left",
        "leaving/whole-answer": "after the client had left",
    },
    "takes_out_who_is_left": {"leaving/not-held-against": "answers by both engines"},
    "takes_out_who_refuses": {"breakers/4xx-of-both": "answers by both engines"},
    "errors_as_200": {
        "truncation/answer": "a 5xx was expected, came: 200",
        "failover/each-once": "a 5xx was expected, came: 200",
    },
    "passes_half_answers": {"truncation/answer": "a 5xx was expected, came: 200"},
    "hangs_without_engines": {"failover/both-out": "nothing came in"},
    "cache_of_all_tenants": {"caching/tenants": "another tenant's equal request was answered"},
}
"""For each flaw, the checks that must fail, and a part of what they say."""
NEVER = {"breakers/5xx": "asked by", "timeouts/gap": "not over after"}
"""What the small gateway can't do even without a flaw."""


async def findings(
    engines: Sequence[EngineProcess],
    flaw: Flaw,
    names: Sequence[str],
    *,
    deadline_s: float | None = None,
) -> dict[str, Finding]:
    """Drive the flawed gateway through some checks."""
    async with FlawedGateway([engine.url for engine in engines[:2]], flaw) as url:
        target = Target(
            url=url,
            model="m",
            engines=tuple(engine.url for engine in engines),
            key="one",
            other_tenant_key="two",
            cached_model="cached",
            gap_s=0.1,
            settle_s=2.0,
        )
        bench = Bench(target, tuple(Engine(each.name, each.url) for each in engines))
        chosen = [
            msgspec.structs.replace(check, deadline_s=deadline_s or check.deadline_s)
            for check in choose(CHECKS, names)
        ]
        found = await Runner(bench, without={}, told=lambda _: None).run(chosen)
        return {finding.name: finding for finding in found}


@pytest.mark.parametrize("flaw", FOUND_BY)
async def test_a_flaw_is_found(engines: list[EngineProcess], flaw: Flaw) -> None:
    expected = FOUND_BY[flaw]

    found = await findings(engines, flaw, list(expected))

    for name, said in expected.items():
        assert found[name].result == "failed", f"{name}: {found[name].seen}"
        assert said in found[name].seen


@pytest.mark.timeout(240)
async def test_without_a_flaw_the_same_checks_pass(engines: list[EngineProcess]) -> None:
    """So that each failure above is that of the flaw."""
    names = sorted({name for expected in FOUND_BY.values() for name in expected})

    found = await findings(engines, "none", names)

    assert {name: each.seen for name, each in found.items() if each.result != "passed"} == {}


async def test_what_a_gateway_lacks_is_found(engines: list[EngineProcess]) -> None:
    found = await findings(engines, "none", list(NEVER), deadline_s=3.0)

    for name, said in NEVER.items():
        assert found[name].result == "failed"
        assert said in found[name].seen
