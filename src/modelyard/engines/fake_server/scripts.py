"""The directive grammar: what a request tells the fake engine to do with it.

    directive = "[[fake:" word* "]]"         anywhere in the last user message or the prompt
    word      = key | key "=" value          separated by white space; a bare key means true

The keys are the fields of `Script`; the same words, without brackets, make a rule of the control
route. An unknown key or a value out of range is an InvalidRequest that names it.
"""

import re
from typing import Annotated, Any, Literal

import msgspec

from modelyard.core.errors import InvalidRequest

_OPEN = "[[fake:"
_DIRECTIVE = re.compile(r"\[\[fake:([^\[\]]*)\]\]")
_Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Script(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one request is told to do; all left out: answer properly. `*_after`: in tokens.

    An `*_after=0` acts when the request comes, before the queue; of a stream its head is sent.
    """

    tokens: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    """Length of the answer, unless `max_tokens` is less."""
    first_token_s: _Seconds | None = None
    """Extra time before the first token, spent in the slot."""
    refuse: bool | None = None
    """Reset the connection (RST) before any byte of an answer."""
    hang: bool | None = None
    """Hold a slot and never answer."""
    stall_after: _Count | None = None
    """Send so many tokens, then nothing more; the connection stays open, the slot held."""
    truncate_after: _Count | None = None
    """Send so many tokens and a part of the next, then close the connection."""
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    """Answer with this error status."""
    retry_after_s: _Count | None = None
    """Retry-After of that error, in whole seconds."""
    crash: bool | None = None
    """End the process at once."""
    crash_after: _Count | None = None
    """Send so many tokens, then end the process."""
    crash_code: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    """Exit code of a crash; 1 unless given."""
    garbage: Literal["html", "chunk"] | None = None
    """`html`: status 200 with a page in place of JSON; `chunk`: an invalid chunk size."""
    model: str | None = None
    """Name this model in the answer."""
    fingerprint: str | None = None
    """Name this `system_fingerprint` in the answer: weights that are not those asked for."""


PLAIN = Script()


def parse_directives(text: str) -> Script:
    """Read all directives of a message; PLAIN when it holds none. Raises InvalidRequest."""
    opened = text.count(_OPEN)
    if not opened:
        return PLAIN
    words = _DIRECTIVE.findall(text)
    if len(words) != opened:
        raise InvalidRequest(
            "a directive that begins with '[[fake:' is not closed by ']]'",
            next_step="Write [[fake: key=value …]] without brackets inside.",
        )
    return parse_script(" ".join(words))


def parse_script(text: str) -> Script:
    """Read the words of a directive or of a control rule. Raises InvalidRequest."""
    fields: dict[str, Any] = {}
    for word in text.split():
        key, separator, value = word.partition("=")
        if key not in Script.__struct_fields__:
            raise InvalidRequest(
                f"unknown directive key {key!r}",
                next_step="Known keys: " + ", ".join(Script.__struct_fields__) + ".",
            )
        if key in fields:
            raise InvalidRequest(f"directive key {key!r} is given twice")
        fields[key] = value if separator else "true"
    try:
        return msgspec.convert(fields, Script, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"directive value not allowed: {error}") from None


def overlay(base: Script, over: Script) -> Script:
    """`base` with every key that `over` gives."""
    if over is PLAIN:
        return base
    given = {
        key: value for key in Script.__struct_fields__ if (value := getattr(over, key)) is not None
    }
    return msgspec.structs.replace(base, **given)


def words_of(script: Script) -> str:
    """Write a script in the grammar's own words; `parse_script` reads it back."""
    values = ((key, getattr(script, key)) for key in Script.__struct_fields__)
    return " ".join(
        key if value is True else f"{key}={str(value).lower() if value is False else value}"
        for key, value in values
        if value is not None
    )
