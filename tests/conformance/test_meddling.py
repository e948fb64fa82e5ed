"""What the checks of requests, keys, limits, caches and HTTP say of gateways that are wrong."""

from collections.abc import Collection, Iterator, Sequence

import msgspec
import pytest
from tests.conformance.meddling import FLAWS
from tests.conformance.meddling_proxy import MeddlingProxy

from modelyard.conformance.bench import Bench
from modelyard.conformance.check import Check, Finding
from modelyard.conformance.checks import (
    bodies,
    caching,
    errors,
    fallbacks,
    http,
    keys,
    limits,
    parsing,
    routing,
    usage,
)
from modelyard.conformance.engines import Engine
from modelyard.conformance.runner import Runner, choose
from modelyard.conformance.target import Target
from modelyard.conformance.yard import EngineProcess, running_gateway

THEMES = (bodies, caching, errors, fallbacks, http, keys, limits, parsing, routing, usage)
CHECKS: tuple[Check, ...] = tuple(check for theme in THEMES for check in theme.CHECKS)
FOUND_BY: dict[str, dict[str, str]] = {
    "reads_http_carelessly": {
        "parsing/both-lengths": "hidden behind it was executed",
        "parsing/two-lengths": "was",
        "parsing/odd-lengths": "was",
        "parsing/codings": "was",
        "parsing/bare-lf": "was executed",
        "parsing/folded": "neither refused nor answered",
        "parsing/colons": "was executed",
        "parsing/chunk-sizes": "was",
        "parsing/host": "was executed",
        "parsing/huge-heads": "was executed",
        "http/continue": "not over",
        "bodies/too-large": "not over",
    },
    "forgets_bodies": {"parsing/bodies": "its body was"},
    "lets_all_in": {
        "keys/missing": "401 was expected, came: 200",
        "keys/wrong": "401 was expected, came: 200",
        "keys/scheme": "401 was expected, came: 200",
    },
    "lets_in_by_the_query": {"keys/in-query": "401 was expected, came: 200"},
    "wants_bearer_written_so": {"keys/spelling": "200 was expected, came: 401"},
    "opens_all_models": {"keys/forbidden-model": "came: 200"},
    "limits_nobody": {
        "limits/requests-at-once": "should be let in, 10 were",
        "limits/refusal-form": "came: 200",
        "limits/others-untouched": "429 was expected",
        "limits/tokens-at-once": "let in and used",
        "limits/tokens-of-many": "at most 1000 tokens",
        "limits/tokens-of-streams": "429 was expected",
        "limits/concurrent-at-once": "came: 200",
        "limits/freed-by-end": "came: 200",
        "limits/freed-by-leaving": "came: 200",
        "limits/freed-by-error": "came: 200",
    },
    "limits_all_as_one": {"limits/others-untouched": "200 was expected, came: 429"},
    "notices_no_leaving": {"limits/freed-by-leaving": "a free place was expected"},
    "mixes_tenants": {
        "caching/tenants": "without asking an engine",
        "caching/tenants-at-once": "were one at the engines",
    },
    "drops_fields": {
        "caching/fields": "the answer to the request without",
        "bodies/unknown-fields": "was expected at the engine",
        "usage/finish-reason": "length was expected",
        "usage/choices": "choice 1 was expected",
    },
    "trims_messages": {"caching/messages": "the answer to another conversation"},
    "forgets_roles": {"bodies/messages": "as they were sent"},
    "makes_all_deterministic": {"caching/sampled": "2 arrivals were expected"},
    "spoils_the_cache": {
        "caching/hit": "an answer from the cache was expected",
        "caching/other-form": "an answer from the cache was expected",
        "caching/age": "an answer from the cache was expected",
        "caching/single-flight": "came 10",
    },
    "forgets_no_store": {"caching/no-store": "was kept"},
    "counts_in_floats": {"bodies/numbers": "a whole answer was expected"},
    "drops_controls": {"bodies/unicode": "a whole answer was expected"},
    "says_200_to_all": {
        "errors/malformed-json": "came: 200",
        "errors/not-an-object": "came: 200",
        "errors/unknown-model": "came: 200",
        "errors/wrong-types": "came: 200",
        "errors/unknown-path": "came: 200",
        "errors/wrong-method": "came: 200",
        "errors/engines-refusal": "came: 200",
        "errors/engines-failure": "came: 200",
        "caching/errors": "came: 200",
        "fallbacks/callers-fault": "came: 200",
        "fallbacks/all-out": "came: 200",
    },
    "says_500_to_all": {
        "bodies/deep": "came: 500",
        "bodies/lone-surrogate": "came: 500",
        "errors/missing-model": "came: 500",
    },
    "has_errors_of_its_own_form": {
        "errors/malformed-json": "an error of the form",
        "errors/unknown-path": "an error of the form",
    },
    "has_errors_as_pages": {"errors/unknown-model": "application/json was expected"},
    "hides_what_engines_say": {"errors/engines-refusal": "the engine's own message"},
    "tells_where_engines_are": {"errors/nothing-leaks": "address was told"},
    "never_says_when_to_come_back": {
        "limits/refusal-form": "Retry-After",
        "errors/engines-busy": "Retry-After",
    },
    "tells_usage_unasked": {"usage/not-asked": "no usage was asked for"},
    "tells_no_usage": {
        "usage/whole": "came: None",
        "usage/asked": "ended too early",
        "bodies/large-prompt": "prompt tokens were expected",
    },
    "counts_usage_wrong": {"usage/whole": "was expected"},
    "says_stop_to_all": {"usage/finish-reason": "length was expected"},
    "names_every_answer": {
        "usage/model-name": "one name",
        "fallbacks/names": "should name who made it",
    },
    "loses_a_choice": {"usage/choices": ""},
    "has_one_id": {"usage/request-id": "the engine should know"},
    "makes_other_vectors": {"routing/embeddings": "is another one"},
    "lists_in_another_form": {"routing/models": "in OpenAI's form"},
}
"""For each flaw, the checks that must fail, and a part of what they say."""
HANGING = {"http/continue", "bodies/too-large"}
"""Checks that go on to their deadline when a careless reader waits for more."""


@pytest.fixture
def gateway(engines: list[EngineProcess]) -> Iterator[Target]:
    """A right one; keys that are used up are its own."""
    with running_gateway(engines) as started:
        yield started.target


async def findings(
    target: Target,
    engines: Sequence[EngineProcess],
    names: Sequence[str],
    hanging: Collection[str] = (),
) -> dict[str, Finding]:
    """Drive a gateway through some checks."""
    bench = Bench(target, tuple(Engine(each.name, each.url) for each in engines))
    chosen = [
        msgspec.structs.replace(check, deadline_s=3.0) if check.name in hanging else check
        for check in choose(CHECKS, names)
    ]
    found = await Runner(bench, without={}, told=lambda _: None).run(chosen)
    return {finding.name: finding for finding in found}


@pytest.mark.parametrize("name", FOUND_BY)
async def test_a_flaw_is_found(engines: list[EngineProcess], gateway: Target, name: str) -> None:
    expected = FOUND_BY[name]

    async with MeddlingProxy(gateway, FLAWS[name]) as target:
        found = await findings(target, engines, list(expected), HANGING)

    for check, said in expected.items():
        assert found[check].result == "failed", f"{check}: {found[check].seen}"
        assert said in found[check].seen


@pytest.mark.timeout(240)
async def test_without_a_flaw_the_same_checks_pass(
    engines: list[EngineProcess], gateway: Target
) -> None:
    """So that each failure above is that of the flaw."""
    async with MeddlingProxy(gateway, None) as target:
        found = await findings(target, engines, sorted({n for e in FOUND_BY.values() for n in e}))

    assert {name: each.seen for name, each in found.items() if each.result != "passed"} == {}
