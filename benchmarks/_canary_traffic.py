"""Simulated requests of a canary: two versions behind one gateway, drawn with numpy, no I/O.

Requests come as a Poisson stream and each goes to the candidate with the share's probability.
Times and lengths are log-normal; both versions slow down together over the half hour, as they do
when the day's load rises. A request shows what it shows when it is over.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

LASTS_S = 1800.0
ERRORS = 0.01
TTFT_MEDIAN_S, TTFT_SIGMA = 0.4, 0.5
ITL_MEDIAN_S, ITL_SIGMA = 0.03, 0.3
TOKENS_MEDIAN, TOKENS_SIGMA = 150.0, 0.7
CALLERS_SIGMA = 0.3
"""How much callers differ in the first token's time and in the answer's length."""
DRIFT = 0.6
"""Over the whole time, times of both versions rise by this much."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a canary runs."""

    rate: float
    """Requests per second of both versions."""
    share: float
    """Of them, the candidate's."""
    tokens_median: float = TOKENS_MEDIAN
    begun_before_s: float = 0.0
    """The live version has been asked for so long before the canary began."""
    callers: int = 0
    """Each stays with one version and asks in a way of its own; 0: every request by itself."""

    def __str__(self) -> str:
        return f"{self.rate:g}/s, {self.share:.0%}"


@dataclass(frozen=True, kw_only=True)
class Regression:
    """What is wrong with the candidate."""

    name: str
    more_errors: float = 0.0
    ttft: float = 1.0
    slow_tail: float = 0.0
    """Of its requests, those whose first token takes ten times as long."""
    truncated: float = 0.0
    length: float = 1.0


EQUAL = Regression(name="none")
REGRESSIONS = (
    Regression(name="errors 1 % → 3 %", more_errors=0.02),
    Regression(name="errors 1 % → 6 %", more_errors=0.05),
    Regression(name="errors 1 % → 21 %", more_errors=0.2),
    Regression(name="TTFT x 1.2", ttft=1.2),
    Regression(name="TTFT x 1.5", ttft=1.5),
    Regression(name="TTFT x 2", ttft=2.0),
    Regression(name="TTFT x 10 for 5 %", slow_tail=0.05),
    Regression(name="3 % truncated", truncated=0.03),
    Regression(name="length x 0.5", length=0.5),
)


@dataclass(frozen=True)
class Requests:
    """One canary's finished requests, in the order in which they finished."""

    finished_s: Floats
    """Since the canary began."""
    began_s: Floats
    """Negative: before the canary did."""
    candidate: Flags
    failed: Flags
    truncated: Flags
    ttft_s: Floats
    itl_s: Floats
    tokens: Floats
    caller: Floats
    """Number of who asked; -1: dealt out by itself."""

    def until(self, time_s: float) -> "Requests":
        """Those that were over by then."""
        count = int(np.searchsorted(self.finished_s, time_s, side="right"))
        return Requests(*(getattr(self, name)[:count] for name in self.__dataclass_fields__))


def draw(setting: Setting, wrong: Regression, seed: tuple[int, ...]) -> Requests:
    """The requests of one canary; the same seed, the same ones."""
    draws = np.random.default_rng(seed)
    span_s = LASTS_S + setting.begun_before_s
    count = int(draws.poisson(setting.rate * span_s))
    arrived = np.sort(draws.uniform(-setting.begun_before_s, LASTS_S, count))
    chosen = draws.random(count) < setting.share
    callers = np.full(count, -1, dtype=np.int64)
    usual_ttft = usual_length = np.ones(1)
    if setting.callers:
        often = 1 / np.arange(1, setting.callers + 1)
        callers = draws.choice(setting.callers, size=count, p=often / often.sum())
        chosen = (draws.random(setting.callers) < setting.share)[callers]
        usual_ttft = draws.lognormal(0, CALLERS_SIGMA, setting.callers)
        usual_length = draws.lognormal(0, CALLERS_SIGMA, setting.callers)
    candidate = chosen & (arrived >= 0)
    failed = draws.random(count) < ERRORS + wrong.more_errors * candidate
    truncated = draws.random(count) < wrong.truncated * candidate
    slower = 1 + DRIFT * np.clip(arrived / LASTS_S, 0, 1)
    ttft = TTFT_MEDIAN_S * draws.lognormal(0, TTFT_SIGMA, count) * slower * usual_ttft[callers]
    ttft *= np.where(candidate, wrong.ttft, 1.0)
    ttft *= np.where(candidate & (draws.random(count) < wrong.slow_tail), 10.0, 1.0)
    itl = ITL_MEDIAN_S * draws.lognormal(0, ITL_SIGMA, count) * slower
    tokens = setting.tokens_median * draws.lognormal(0, TOKENS_SIGMA, count)
    tokens = np.ceil(tokens * usual_length[callers] * np.where(candidate, wrong.length, 1.0))
    finished = arrived + ttft + np.where(failed, 0.0, tokens * itl)
    order = np.argsort(finished)
    found = Requests(
        *(
            each[order]
            for each in (
                finished,
                arrived,
                candidate,
                failed,
                truncated,
                ttft,
                itl,
                tokens,
                callers,
            )
        )
    )
    return _within(found)


def _within(requests: Requests) -> Requests:
    """Those that finished while the canary ran."""
    kept = requests.until(LASTS_S)
    first = int(np.searchsorted(kept.finished_s, 0.0))
    return replace(
        kept, **{name: getattr(kept, name)[first:] for name in kept.__dataclass_fields__}
    )
