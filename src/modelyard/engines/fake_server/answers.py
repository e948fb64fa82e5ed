"""What the fake engine says, and how to see that it arrived whole.

An answer of 3 tokens is `t0:5d1c9a3e t1:0f4411c2 t2:77ab03d9!3`: each token carries its number
and the running CRC-32 of the numbers so far, begun with a seed drawn from the prompt; the last one
carries `!` and the count. A lost, repeated, reordered or foreign token breaks the chain, and an
answer without the end mark was cut.
"""

import re
import zlib
from collections.abc import Iterator

import msgspec

_TOKEN = re.compile(r" ?t(\d+):([0-9a-f]{8})(?:!(\d+))?")


class AnswerCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What `check_answer` found."""

    tokens: int
    """Well-formed tokens seen, repeated ones included."""
    complete: bool
    """The end mark came, its count is right, and nothing was wrong before it."""
    errors: tuple[str, ...]
    """What broke the chain, in the order of the text; a cut at a token's end is no error."""


def answer_seed(prompt: str, seed: int = 0, choice: int = 0) -> int:
    """Start of an answer's CRC chain.

    `prompt`: the last user message, or the prompt of a completion; `seed`: the request's `seed`
    (0 when it gave none) plus the engine's `--seed`; `choice`: index of the choice among `n`.
    """
    return zlib.crc32(f"{seed}:{choice}:{prompt}".encode("utf-8", "surrogatepass"))


def answer_tokens(seed: int, count: int) -> Iterator[bytes]:
    """The `count` tokens (at least 1) of the answer whose chain starts at `seed`, one by one."""
    crc = seed
    last = count - 1
    for index in range(count):
        number = b"%d" % index
        crc = zlib.crc32(number, crc)
        gap = b" " if index else b""
        end = b"!%d" % count if index == last else b""
        yield b"%bt%b:%08x%b" % (gap, number, crc, end)


def answer_text(seed: int, count: int) -> str:
    """The whole answer."""
    return b"".join(answer_tokens(seed, count)).decode()


def cut_at_stop(tokens: Iterator[bytes], stops: tuple[bytes, ...]) -> tuple[list[bytes], bool]:
    """Tokens up to the first occurrence of a stop string, which is left out as OpenAI does.

    Returns the tokens (the last one shortened, possibly to nothing) and whether a stop was met.
    """
    longest = max(map(len, stops), default=0)
    text = b""
    kept: list[bytes] = []
    for token in tokens:
        # A stop string that ends in this token began at most its own length before it.
        begin = max(0, len(text) - longest)
        text += token
        kept.append(token)
        found = [at for stop in stops if (at := text.find(stop, begin)) >= 0]
        if found:
            return _shortened(kept, min(found)), True
    return kept, False


def _shortened(tokens: list[bytes], length: int) -> list[bytes]:
    """Keep `length` bytes in all; tokens beyond them become empty (they were made and count)."""
    kept = []
    for token in tokens:
        kept.append(token[: max(0, length)])
        length -= len(token)
    return kept


def check_answer(text: str, *, prompt: str | None = None, seed: int = 0) -> AnswerCheck:
    """Verify an answer's text: numbering, checksums, end mark.

    With `prompt` (and `seed`) given as `answer_seed` takes them, the first token is checked too,
    so an answer to somebody else's request is seen.
    """
    errors: list[str] = []
    previous: tuple[int, int] | None = None
    if prompt is not None:
        previous = (-1, answer_seed(prompt, seed))
    position = tokens = 0
    ended = False
    while position < len(text):
        match = _TOKEN.search(text, position)
        if match is None:
            errors.append(f"no token at character {position}: {text[position : position + 24]!r}")
            break
        if match.start() != position or (match[0][0] == " ") != (position > 0):
            errors.append(f"text between tokens at character {position}: {text[position:][:24]!r}")
        if ended:
            errors.append(f"token {match[1]} after the end mark")
        index, crc = int(match[1]), int(match[2], 16)
        errors += _broken(previous, index, crc)
        previous = (index, crc)
        tokens += 1
        position = match.end()
        if match[3] is not None:
            ended = True
            if int(match[3]) != tokens:
                errors.append(f"the end mark says {match[3]} tokens, {tokens} came")
    return AnswerCheck(tokens=tokens, complete=ended and not errors, errors=tuple(errors))


def _broken(previous: tuple[int, int] | None, index: int, crc: int) -> list[str]:
    """Say how a token fails to follow the one before it, if it does."""
    if previous is None:
        return [] if index == 0 else [f"the answer begins with token {index}: {index} lost"]
    before, chain = previous
    if index > before + 1:
        return [f"token {index} follows token {before}: {index - before - 1} lost"]
    if index <= before:
        return [f"token {index} follows token {before}: repeated or out of order"]
    if zlib.crc32(b"%d" % index, chain) != crc:
        return [f"token {index}: its checksum does not follow from what came before"]
    return []
