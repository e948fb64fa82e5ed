"""A prompt that, with the answer asked for, does not fit into the model's context (promise G26)."""

from collections.abc import Sequence
from typing import Literal

import msgspec

Overflow = Literal["reject", "clamp", "truncate_oldest"]
ANSWER_SHARE = 0.25
"""Of the context, kept for an answer whose length nobody bounded, when turns are left out."""


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a request."""

    action: Literal["send", "reject", "clamp", "truncate"]
    max_tokens: int | None = None
    """For `clamp`: the most that the answer may have."""
    excess: int = 0
    """For `truncate`: tokens of the prompt that have to go."""


def fit(policy: Overflow, *, prompt: int, wanted: int | None, context: int) -> Fit:
    """Decide by numbers of tokens; `wanted` is what the request asks for at most, None: no bound.

    An answer has one token at least; an engine itself ends one without a bound at the context.
    """
    if prompt + (wanted or 1) <= context:
        return Fit(action="send")
    if policy == "truncate_oldest":
        room = wanted if wanted is not None else max(1, round(context * ANSWER_SHARE))
        if room < context:
            return Fit(action="truncate", excess=prompt + room - context)
    if policy == "clamp" and prompt < context:
        return Fit(action="clamp", max_tokens=context - prompt)
    return Fit(action="reject")


def oldest_turns(roles: Sequence[str]) -> list[list[int]]:
    """Indices of the messages that may be left out, a list for each turn, the oldest first.

    A turn begins with a user's message and goes up to the next one, so that an answer never stays
    without its question, nor a tool's result without its call. Instructions (`system`,
    `developer`) and the last turn stay.
    """
    turns: list[list[int]] = []
    for index, role in enumerate(roles):
        if role in ("system", "developer"):
            continue
        if role == "user" or not turns:
            turns.append([])
        turns[-1].append(index)
    return turns[:-1]


def leave_out(
    turns: Sequence[Sequence[int]], tokens: Sequence[int], excess: int
) -> set[int] | None:
    """The messages of the fewest oldest turns that together free `excess` tokens.

    `tokens` is what each message counts. None: all of them together do not.
    """
    gone: set[int] = set()
    for turn in turns:
        if excess <= 0:
            break
        gone.update(turn)
        excess -= sum(tokens[index] for index in turn)
    return gone if excess <= 0 else None
