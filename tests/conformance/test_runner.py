"""Choosing checks, leaving some out, counting, and what becomes of a check that ends badly."""

from typing import Any

import pytest
from tests.conformance.flawed_gateway import Flaw, FlawedGateway

from modelyard.conformance.bench import Bench
from modelyard.conformance.check import Broken, Check, Finding, Inapplicable, Look
from modelyard.conformance.engines import Engine
from modelyard.conformance.runner import Runner, choose, excluded, report
from modelyard.conformance.target import LimitedKey, Target
from modelyard.conformance.yard import EngineProcess
from modelyard.core.errors import InvalidRequest, ModelyardError


async def _passes(bench: Bench) -> str:
    return "nothing wrong"


def check(name: str, look: Look = _passes, **more: Any) -> Check:
    return Check(name=name, meaning="what holds", look=look, **more)


CHECKS = [check("end/all", last=True), check("a/one"), check("a/two"), check("b/one")]


def test_all_are_chosen_without_a_glob_and_the_end_comes_last() -> None:
    assert [each.name for each in choose(CHECKS, ())] == ["a/one", "a/two", "b/one", "end/all"]


def test_globs_choose() -> None:
    assert [each.name for each in choose(CHECKS, ["*/one"])] == ["a/one", "b/one"]
    assert [each.name for each in choose(CHECKS, ["a/two", "end/*"])] == ["a/two", "end/all"]


def test_a_glob_that_chooses_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no check is called 'c/x'") as refused:
        choose(CHECKS, ["a/one", "c/x"])

    assert "a, b" in refused.value.next_step


def test_themes_names_and_globs_are_left_out() -> None:
    assert excluded(CHECKS, ["a", "*/all"]) == {"a/one": "a", "a/two": "a", "end/all": "*/all"}
    with pytest.raises(InvalidRequest, match="'zz'"):
        excluded(CHECKS, ["zz"])


def test_results_are_counted() -> None:
    found = [
        Finding("a/one", "passed", ""),
        Finding("a/two", "failed", ""),
        Finding("b/one", "not_applicable", ""),
        Finding("b/two", "passed", ""),
    ]

    counted = report(found)

    assert (counted.passed, counted.failed, counted.not_applicable) == (2, 1, 1)
    assert counted.checks == found


def test_a_target_knows_what_it_lacks() -> None:
    target = Target(
        url="http://x:1",
        model="m",
        engines=(),
        key="k",
        limited_keys=(LimitedKey("l", {"requests_per_min": 3}),),
    )

    assert target.lacks(("key", "requests_per_min")) == ()
    assert target.lacks(("pid", "tokens_per_min", "key")) == ("pid", "tokens_per_min")


async def run(
    engines: list[EngineProcess],
    *checks: Check,
    without: dict[str, str] | None = None,
    flaw: Flaw = "none",
    **target: Any,
) -> list[Finding]:
    """Drive the small gateway."""
    urls = [engine.url for engine in engines]
    async with FlawedGateway(urls[:2], flaw) as url:
        known = {"url": url, "model": "m", "engines": tuple(urls), "settle_s": 1.0} | target
        bench = Bench(Target(**known), tuple(Engine(each.name, each.url) for each in engines))
        runner = Runner(bench, without=without or {}, told=lambda _: None)
        return await runner.run(checks)


async def _broken(bench: Bench) -> str:
    raise Broken("it is otherwise")


async def _unknowable(bench: Bench) -> str:
    raise Inapplicable("nobody can know")


async def _defective(bench: Bench) -> str:
    return str(1 // 0)


async def _endless(bench: Bench) -> str:
    await bench.whole(bench.ask("hang"))
    return ""


async def test_how_a_check_ends_is_its_result(engines: list[EngineProcess]) -> None:
    found = await run(
        engines,
        check("a/passes"),
        check("a/broken", _broken),
        check("a/unknowable", _unknowable),
        check("a/defective", _defective),
        check("a/endless", _endless, deadline_s=0.2),
        check("a/needy", needs=("pid",)),
        check("a/unclaimed"),
        check("a/after"),
        without={"a/unclaimed": "a/un*"},
    )

    assert [(each.result, each.seen) for each in found] == [
        ("passed", "nothing wrong"),
        ("failed", "it is otherwise"),
        ("not_applicable", "nobody can know"),
        (
            "failed",
            "the check itself failed: ZeroDivisionError: integer division or modulo by zero",
        ),
        ("failed", "not over after 0.2 s"),
        ("not_applicable", "needs --pid"),
        ("not_applicable", "not claimed (--without a/un*)"),
        ("passed", "nothing wrong"),
    ]


async def test_faults_of_one_check_are_gone_before_the_next(engines: list[EngineProcess]) -> None:
    async def spoil(bench: Bench) -> str:
        await bench.a.fault("status=500")
        await bench.b.fault("hang")
        return "spoilt"

    async def see(bench: Bench) -> str:
        states = [await engine.state() for engine in bench.engines]
        return f"{[len(state.faults) for state in states]} {await bench.expect_both_asked(4)}"

    found = await run(engines, check("a/spoil", spoil), check("a/see", see, both=True))

    assert found[1].result == "passed"
    assert found[1].seen.startswith("[0, 0, 0] 4 requests at once were answered")


async def test_a_gateway_that_is_not_there_is_said(engines: list[EngineProcess]) -> None:
    with pytest.raises(ModelyardError, match="there is no gateway at"):
        await run(engines, check("a/one"), url="http://127.0.0.1:9")


async def test_a_model_of_engine_c_needs_engine_c(engines: list[EngineProcess]) -> None:
    with pytest.raises(ModelyardError, match="two engines were given"):
        await run(engines[:2], check("a/one"), single_model="cached")


async def test_answers_of_other_engines_are_told_apart(engines: list[EngineProcess]) -> None:
    """The gateway is right, but stands before engines that are not those looked at."""
    async with FlawedGateway([engines[2].url] * 2, "none") as url:
        target = Target(url=url, model="m", engines=(), settle_s=1.0)
        bench = Bench(target, tuple(Engine(each.name, each.url) for each in engines[:2]))
        with pytest.raises(ModelyardError, match="not by one of the engines"):
            await Runner(bench, without={}, told=lambda _: None).run([check("a/one")])


async def test_what_a_gateway_goes_on_with_is_cut_before_the_next(
    engines: list[EngineProcess],
) -> None:
    """Else a gateway that never cancels would fill the engines, and fail at all that follows."""

    async def leave(bench: Bench) -> str:
        for _ in range(3):
            question = bench.ask("hang")
            connection = await bench.post(question)
            await bench.until_seen(question)
            connection.leave()
        return "left"

    async def see(bench: Bench) -> str:
        raise Broken(f"busy: {[(await engine.state()).busy for engine in bench.engines]}")

    found = await run(engines, check("a/leave", leave), check("a/see", see), flaw="never_cancels")

    assert found[1].seen.startswith("busy: [0, 0, 0] (before it, requests of earlier checks")
