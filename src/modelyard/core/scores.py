"""What a judge said of one answer: a score, or that it could not say.

A judge is a model, a prompt and a rubric; another of any of them is another judge, and the scores
of two judges are never compared with each other. A score that is missing is missing: nothing stands
in for it.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Meta

RequestId = Annotated[str, Meta(min_length=1, max_length=128)]
JudgeId = Annotated[str, Meta(min_length=1, max_length=128)]
MOST_AT_ONCE = 1000
"""Scores in one batch."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One judge on one request; the first that it said of it stands."""

    request_id: RequestId
    judge: JudgeId
    """Model, prompt and rubric, each with its version: `gpt-x/helpful/3`."""
    score: Annotated[float, Meta(ge=0, le=1)] | None
    """0 is the worst, 1 the best; None: the judge abstained."""
    reason: Annotated[str, Meta(max_length=500)] = ""
    """Why it abstained, or what it based the score on."""
    at: float = 0.0
    """Unix seconds; when the controller took it."""


def in_order(scores: Iterable[Score]) -> list[Score]:
    """By the time at which they were taken; those of one batch in an order that says nothing of
    the version that answered, for a judge may tell them version by version."""
    return sorted(scores, key=lambda each: (each.at, sha256(each.request_id.encode()).digest()))
