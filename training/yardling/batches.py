"""Conversations as padded batches of tokens, with the assistant's tokens marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from transformers import PreTrainedTokenizerBase

from .corpus import Messages
from .tokens import TURN_END, TURN_START

LONGEST = 512
BATCHES_SORTED_TOGETHER = 60


@dataclass(frozen=True)
class Example:
    tokens: list[int]
    learned: list[bool]  # True where the assistant speaks, its turn's end included


@dataclass(frozen=True)
class Batch:
    """`tokens` is [rows, length], padded on the right; `learned` has the same shape."""

    tokens: torch.Tensor
    learned: torch.Tensor


def render(messages: Messages) -> str:
    """The text that the chat template makes, without a generation prompt."""
    return "".join(f"{TURN_START}{m['role']}\n{m['content']}{TURN_END}\n" for m in messages)


class Marker:
    """Finds the assistant's turns in a conversation's tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._opening = tokenizer(f"{TURN_START}assistant\n").input_ids
        self._end = tokenizer.convert_tokens_to_ids(TURN_END)

    def example(self, tokens: Sequence[int]) -> Example:
        learned = [False] * len(tokens)
        width = len(self._opening)
        speaking = False
        for place, token in enumerate(tokens):
            learned[place] = speaking
            if speaking:
                speaking = token != self._end
            elif list(tokens[place - width + 1 : place + 1]) == self._opening:
                speaking = True
        return Example(list(tokens), learned)


def encode(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, longest: int = LONGEST
) -> list[Example]:
    """Tokenise rendered conversations; those over `longest` tokens are cut at the end."""
    marker = Marker(tokenizer)
    return [marker.example(row[:longest]) for row in tokenizer(list(texts)).input_ids]


def batches(
    examples: Sequence[Example], tokens_per_batch: int, pad: int, random: Random
) -> Iterator[Batch]:
    """Yield each example once, in batches of similar lengths and at most `tokens_per_batch`."""
    order = list(range(len(examples)))
    random.shuffle(order)
    mean = sum(len(e.tokens) for e in examples) / len(examples)
    window = max(1, int(BATCHES_SORTED_TOGETHER * tokens_per_batch / mean))
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lambda i: len(examples[i].tokens))
        groups = list(_groups([examples[i] for i in rows], tokens_per_batch))
        random.shuffle(groups)
        for group in groups:
            yield _padded(group, pad)


def _groups(rows: Sequence[Example], tokens_per_batch: int) -> Iterator[list[Example]]:
    """Split rows, sorted by length, so that rows times longest stays within the budget."""
    group: list[Example] = []
    for row in rows:
        if group and len(row.tokens) * (len(group) + 1) > tokens_per_batch:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _padded(group: Sequence[Example], pad: int) -> Batch:
    length = max(len(e.tokens) for e in group)
    return Batch(
        torch.tensor([e.tokens + [pad] * (length - len(e.tokens)) for e in group]),
        torch.tensor([e.learned + [False] * (length - len(e.tokens)) for e in group]),
    )
