"""Smoke tests as data: what a candidate is asked before anybody else may, and what it must say."""

import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from modelyard.core.errors import InvalidConfig
from modelyard.core.routes import Seconds

_SHOWN = 200


class SmokeTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question and what its answer is held to; all that is given must hold."""

    name: str = ""
    prompt: Annotated[str, Meta(min_length=1)]
    """A user's message; of a model without a chat template, the beginning to be continued."""
    parameters: dict[str, Any] = {}
    """Fields of the request, such as `temperature`; `max_tokens` is 64 where it is left out."""
    all_of: tuple[str, ...] = ()
    """Each must be in the answer, in any case."""
    any_of: tuple[str, ...] = ()
    """One of them must."""
    none_of: tuple[str, ...] = ()
    regex: str | None = None
    """Must match somewhere."""
    json_schema: dict[str, Any] | None = None
    """The answer is JSON that this schema allows (https://json-schema.org)."""
    max_ttft_s: Seconds | None = None

    @property
    def title(self) -> str:
        """How it is named in reports."""
        return self.name or repr(self.prompt[:40])


class SmokeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    text: str
    finish_reason: str | None
    ttft_s: float
    version: int | None = None
    """Of the version that the answer names."""
    error: str = ""
    """Why none came, in words."""


class SmokeResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one test ended."""

    test: str
    passed: bool
    told: str
    """What was expected and what came."""
    answer: str
    ttft_s: float | None = None


ANSWERS = SmokeTest(name="it answers", prompt="Hello, how are you?")
"""Of every model: an answer with something readable in it."""
BY_MODEL: dict[str, tuple[SmokeTest, ...]] = {
    "yardling": (
        SmokeTest(
            name="it greets",
            prompt="Hello, how are you?",
            parameters={"temperature": 0},
            any_of=("fine", "well", "good", "thank"),
        ),
        SmokeTest(
            name="it adds", prompt="What is 2+2?", parameters={"temperature": 0}, all_of=("4",)
        ),
    )
}
"""Of models that we know the answers of, by their registered name."""


def default_tests(model: str) -> tuple[SmokeTest, ...]:
    """What is asked where nobody said otherwise."""
    return BY_MODEL.get(model, (ANSWERS,))


OURS = ("model", "messages", "prompt", "stream")
"""Fields of the request that are the test's own."""


def check_test(test: SmokeTest) -> None:
    """Raise InvalidConfig when it can't be run as it is."""
    taken = [name for name in OURS if name in test.parameters]
    if taken:
        raise InvalidConfig(
            f"smoke test {test.title}: parameters can't hold {taken[0]!r}",
            next_step="the candidate is asked the test's prompt, as a stream; leave it out",
        )
    if test.regex is not None:
        try:
            re.compile(test.regex)
        except re.error as error:
            raise InvalidConfig(
                f"smoke test {test.title}: the regex {test.regex!r} can't be read: {error}",
                next_step="see https://docs.python.org/3/library/re.html for the form",
            ) from None


Misfit = Callable[[Any, dict[str, Any]], str | None]
"""What of a value a JSON schema does not allow, in words; None when it fits."""


def judge(
    test: SmokeTest, answer: SmokeAnswer, misfit: Misfit, *, version: int | None = None
) -> SmokeResult:
    """Hold an answer to its test; `version`: the one that must have made it."""
    problem = f"no answer: {answer.error}" if answer.error else None
    if problem is None and version is not None and answer.version != version:
        problem = f"version {answer.version} answered, {version} was asked"
    problem = problem or _of_words(test, answer) or _of_form(test, answer, misfit)
    return SmokeResult(
        test=test.title,
        passed=problem is None,
        told=problem or "as expected",
        answer=answer.text[:_SHOWN],
        ttft_s=None if answer.error else answer.ttft_s,
    )


def _of_words(test: SmokeTest, answer: SmokeAnswer) -> str | None:
    said = answer.text.casefold()
    shown = repr(answer.text[:_SHOWN])
    formless = test.regex is None and test.json_schema is None
    if formless and not any(character.isalnum() for character in said):
        return f"nothing readable was answered: {shown}"
    missing = [word for word in test.all_of if word.casefold() not in said]
    if missing:
        return f"{missing[0]!r} is not in the answer {shown}"
    if test.any_of and not any(word.casefold() in said for word in test.any_of):
        return f"none of {', '.join(test.any_of)} is in the answer {shown}"
    present = [word for word in test.none_of if word.casefold() in said]
    if present:
        return f"{present[0]!r} is in the answer {shown}"
    return None


def _of_form(test: SmokeTest, answer: SmokeAnswer, misfit: Misfit) -> str | None:
    shown = repr(answer.text[:_SHOWN])
    if test.regex is not None and re.search(test.regex, answer.text) is None:
        return f"{test.regex!r} does not match the answer {shown}"
    if test.json_schema is not None:
        try:
            value = msgspec.json.decode(answer.text)
        except msgspec.DecodeError:
            return f"the answer is no JSON: {shown}"
        wrong = misfit(value, test.json_schema)
        if wrong:
            return f"the answer does not fit the schema: {wrong}: {shown}"
    if test.max_ttft_s is not None and answer.ttft_s > test.max_ttft_s:
        told = f"{answer.ttft_s:.2f} s, {test.max_ttft_s:g} s are allowed"
        return f"the first token came after {told}"
    return None
