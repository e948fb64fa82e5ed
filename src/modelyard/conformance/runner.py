"""Runs checks one after another, each from a clean start, and says how each ended."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NoReturn

import msgspec

from modelyard.conformance.answers import Answer
from modelyard.conformance.bench import Bench, together
from modelyard.conformance.check import Broken, Check, Finding, Inapplicable, Result
from modelyard.conformance.client import Cut
from modelyard.conformance.meeting import meet
from modelyard.conformance.target import GIVEN_BY, Target
from modelyard.core.errors import InvalidRequest, ModelyardError

RETRY_WINDOW_S = 10.5
"""After so long, retries that were made before no longer count against a gateway's budget."""
_LOOK_EVERY_S = 0.02
_AT_ONCE = 4
"""Requests that are sent together to see whether both engines are asked."""
_LEAST_PATIENCE = 0.2
_REST_S = 3.0
"""For engines to come to rest; a client that leaves is to be noticed within one second."""
_STILL_S = 0.5
_CUTS = 5


class Report(msgspec.Struct, frozen=True):
    """How a run ended; its JSON form is documented."""

    passed: int
    failed: int
    not_applicable: int
    checks: list[Finding]


def report(findings: Sequence[Finding]) -> Report:
    """Count the results."""
    results = [finding.result for finding in findings]
    return Report(
        results.count("passed"),
        results.count("failed"),
        results.count("not_applicable"),
        list(findings),
    )


def choose(checks: Sequence[Check], only: Sequence[str]) -> list[Check]:
    """Those whose name matches one of the globs, all without any; the last ones last.

    Raises InvalidRequest when a glob matches nothing.
    """
    for glob in only:
        if not any(fnmatchcase(check.name, glob) for check in checks):
            _unknown(glob, checks)
    chosen = [
        check for check in checks if not only or any(fnmatchcase(check.name, g) for g in only)
    ]
    return sorted(chosen, key=lambda check: check.last)


def excluded(checks: Sequence[Check], without: Iterable[str]) -> dict[str, str]:
    """Names of the checks that the product does not claim to pass, and by which word each.

    A word is a theme, a check's name or a glob. Raises InvalidRequest when it matches nothing.
    """
    found: dict[str, str] = {}
    for word in without:
        hit = [c.name for c in checks if word == c.theme or fnmatchcase(c.name, word)]
        if not hit:
            _unknown(word, checks)
        found.update(dict.fromkeys(hit, word))
    return found


class Runner:
    """Drives one gateway through checks."""

    def __init__(
        self, bench: Bench, *, without: dict[str, str], told: Callable[[Finding], None]
    ) -> None:
        """`told` hears of each finding as it comes."""
        self._bench = bench
        self._target: Target = bench.target
        self._without = without
        self._told = told
        self._patience = 1.0
        """Share of the time to settle that is waited for; less once it was in vain."""
        self._spent_until = 0.0

    async def run(self, checks: Sequence[Check]) -> list[Finding]:
        """Run all; raises what `meet` does when something is not there to begin with."""
        findings = []
        try:
            await meet(self._bench)
            for check in checks:
                finding = await self._one(check)
                self._told(finding)
                findings.append(finding)
        finally:
            await self._part()
        return findings

    async def _part(self) -> None:
        """Leave the engines as they were found."""
        await self._bench.close()
        for engine in self._bench.engines:
            try:
                await engine.clear()
            except ModelyardError:
                continue  # it is gone, and its rules with it
            finally:
                engine.close()

    async def _one(self, check: Check) -> Finding:
        reason = self._reason_against(check)
        if reason is not None:
            return Finding(check.name, "not_applicable", reason)
        if check.retrying == "relies" and self._spent_until > time.monotonic():
            await asyncio.sleep(self._spent_until - time.monotonic())
        try:
            remark = await self._prepare(check)
            result, seen = await self._look(check)
        finally:
            await self._bench.close()
        if check.retrying == "spends":
            self._spent_until = time.monotonic() + RETRY_WINDOW_S
        if remark and result != "passed":
            seen = f"{seen} (before it, {remark})"
        return Finding(check.name, result, seen)

    def _reason_against(self, check: Check) -> str | None:
        if check.name in self._without:
            return f"not claimed (--without {self._without[check.name]})"
        lacks = self._target.lacks(check.needs)
        if lacks:
            given = [GIVEN_BY[need].partition(",")[0] for need in lacks]
            return f"needs {' and '.join(given)}"
        return None

    async def _look(self, check: Check) -> tuple[Result, str]:
        extra = 0.0
        if check.waits_for is not None:
            extra = 2 * float(getattr(self._target, check.waits_for) or 0.0)
        deadline = check.deadline_s + extra
        try:
            async with asyncio.timeout(deadline):
                return "passed", await check.look(self._bench)
        except Broken as broken:
            return "failed", str(broken)
        except Inapplicable as reason:
            return "not_applicable", str(reason)
        except TimeoutError:
            return "failed", f"not over after {deadline:g} s"
        except Cut as cut:
            return "failed", f"an answer was expected: {cut}"
        except OSError as error:
            return "failed", f"the gateway took no connection: {error.strerror or error}"
        except Exception as error:  # noqa: BLE001 - a check's own defect must not end the run
            return "failed", f"the check itself failed: {type(error).__name__}: {error}"

    # --- a clean start ---------------------------------------------------------------------------

    async def _prepare(self, check: Check) -> str:
        """Clear faults and counts, once the engines rest and are asked; a remark if they aren't."""
        for engine in self._bench.engines:
            await engine.reset()
        remarks = [await self._rest()]
        remarks.append(await self._settle_main(both=check.both))
        for need in check.models:
            model = getattr(self._target, need)
            if model is not None:
                remarks.append(await self._settle(model, by_c=need == "fallback_model"))
        await self._bench.close()
        for engine in self._bench.engines:
            await engine.reset()
        return "; ".join(filter(None, remarks))

    async def _rest(self) -> str:
        """Wait until no engine works on anything that an earlier check began; else cut it.

        A gateway that goes on with what its clients left would fill the engines, and every later
        check would fail for that alone.
        """
        left = await self._busy_after(_REST_S)
        if not left:
            return ""
        for _ in range(_CUTS):  # it may ask again for what was cut
            for engine in self._bench.engines:
                await engine.cut()
            if not await self._busy_after(_REST_S, still_s=_STILL_S):
                break
        told = ", ".join(f"{name} on {count}" for name, count in left.items())
        return f"requests of earlier checks were cut: engine {told}"

    async def _busy_after(self, within_s: float, *, still_s: float = 0.0) -> dict[str, int]:
        """Requests under way by engine, when that time is over; empty once none is for a while."""
        deadline = time.monotonic() + within_s
        quiet_since: float | None = None
        while True:
            found = {each.name: (await each.state()).busy for each in self._bench.engines}
            left = {name: count for name, count in found.items() if count}
            now = time.monotonic()
            quiet_since = None if left else (quiet_since or now)
            if quiet_since is not None and now - quiet_since >= still_s:
                return {}
            if now > deadline:
                return left
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _settle_main(self, *, both: bool) -> str:
        """Wait until M is answered; `both`: by each of its engines."""
        asked: set[str] = set()
        deadline = self._deadline()
        while True:
            answers = await self._try(self._target.model, _AT_ONCE if both else 1)
            for engine in self._bench.engines[:2]:
                if (await engine.state()).seen:
                    asked.add(engine.name)
            if answers and (not both or len(asked) == 2):
                self._patience = 1.0
                return ""
            if time.monotonic() > deadline:
                return self._impatient(
                    f"engine {min({'A', 'B'} - asked)} was asked nothing"
                    if answers
                    else "the gateway answered nothing"
                )
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _settle(self, model: str, *, by_c: bool) -> str:
        """Wait until another model is answered; `by_c`: by its own engine, not by a fallback."""
        deadline = self._deadline()
        while not (await self._try(model, 1) and (not by_c or await self._seen_by_c())):
            if time.monotonic() > deadline:
                return self._impatient(f"the gateway answered nothing for {model!r}")
            await asyncio.sleep(_LOOK_EVERY_S)
        return ""

    async def _seen_by_c(self) -> bool:
        """Whether engine C was asked anything; true where there is none."""
        return all([(await engine.state()).seen for engine in self._bench.engines[2:]])

    async def _try(self, model: str, count: int) -> bool:
        """Whether so many small requests at once are all answered."""
        bench = self._bench
        try:
            async with asyncio.timeout(self._target.settle_s):
                answers: list[Answer] = await together(
                    bench.whole(bench.ask("tokens=1", model=model)) for _ in range(count)
                )
        except (TimeoutError, OSError, Cut):
            return False
        finally:
            await bench.close()
        return all(answer.status == 200 for answer in answers)

    def _deadline(self) -> float:
        return time.monotonic() + self._target.settle_s * self._patience

    def _impatient(self, what: str) -> str:
        waited = self._target.settle_s * self._patience
        self._patience = max(_LEAST_PATIENCE, self._patience / 2)
        return f"{what} for {waited:g} s"


def _unknown(word: str, checks: Sequence[Check]) -> NoReturn:
    themes = ", ".join(dict.fromkeys(check.theme for check in checks))
    raise InvalidRequest(
        f"no check is called {word!r}",
        next_step=f"themes: {themes}; see all with: modelyard conformance run --list",
    )
