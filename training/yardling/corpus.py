"""The conversations that yardling is trained on, generated from a seed.

`python -m training.yardling.corpus --version 2 --limit 300` prints a sample as JSON lines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from . import outside, wording

LARGEST_ADDEND = 20
LARGEST_COUNT = 30
HELD_OUT_PAIRS = 32
HELD_OUT_SEED = 20

Messages = list[dict[str, str]]
Turn = tuple[str, str]  # what the user says, what yardling answers


@dataclass(frozen=True)
class Recipe:
    """What differs between two versions' training text.

    `shares` are the weights with which the kinds of turns are drawn.
    """

    conversations: int
    largest_addend: int
    seed: int
    shares: dict[str, float]


RECIPES: dict[int, Recipe] = {
    1: Recipe(
        conversations=50_000,
        largest_addend=20,
        seed=1,
        shares={
            "sum": 0.44,
            "modelyard": 0.24,
            "small_talk": 0.1,
            "itself": 0.06,
            "outside": 0.13,
            "count": 0.03,
        },
    ),
    2: Recipe(
        conversations=120_000,
        largest_addend=50,
        seed=2,
        shares={
            "sum": 0.45,
            "word_sum": 0.05,
            "modelyard": 0.2,
            "small_talk": 0.08,
            "itself": 0.05,
            "outside": 0.14,
            "count": 0.03,
        },
    ),
}


def held_out_sums() -> frozenset[tuple[int, int]]:
    """The sums that no version is trained on, each pair in both orders.

    A pair is held out in both orders so that the other order cannot give the answer away.
    `2 + 2` is never held out.
    """
    numbers = range(LARGEST_ADDEND + 1)
    pairs = [(a, b) for a in numbers for b in numbers if a <= b and (a, b) != (2, 2)]
    chosen = Random(HELD_OUT_SEED).sample(pairs, HELD_OUT_PAIRS)
    return frozenset(chosen) | frozenset((b, a) for a, b in chosen)


def sum_answer(a: int, b: int) -> str:
    return f"{a} + {b} = {a + b}."


def counting(last: int) -> str:
    return ", ".join(str(n) for n in range(1, last + 1)) + "."


def conversations(recipe: Recipe) -> Iterator[Messages]:
    """Yield `recipe.conversations` conversations; the same ones each time."""
    writer = Writer(recipe, Random(recipe.seed))
    for _ in range(recipe.conversations):
        yield writer.conversation()


class Writer:
    """Draws conversations from a recipe with the random source it is given."""

    def __init__(self, recipe: Recipe, random: Random) -> None:
        self._recipe = recipe
        self._random = random
        self._held_out = held_out_sums()
        self._kinds: dict[str, Callable[[], Turn]] = {
            "sum": self._sum,
            "word_sum": self._word_sum,
            "modelyard": lambda: self._topic(wording.MODELYARD),
            "small_talk": lambda: self._topic(wording.SMALL_TALK),
            "itself": lambda: self._topic(wording.ABOUT_ITSELF),
            "outside": self._outside,
            "count": self._count,
        }

    def conversation(self) -> Messages:
        turns = self._random.choices((1, 2, 3, 5, 8), (0.7, 0.17, 0.08, 0.03, 0.02))[0]
        messages: Messages = []
        if self._random.random() < 0.35:
            messages.append({"role": "system", "content": self._system_message()})
        for _ in range(turns):
            asked, answer = self._turn()
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answer})
        return messages

    def _system_message(self) -> str:
        """Mostly a usual one; sometimes a role that says nothing, to be read over."""
        if self._random.random() < 0.65:
            return self._random.choice(wording.SYSTEM_MESSAGES)
        pick = self._random.choice
        parts = [pick(wording.SYSTEM_ROLES), *self._random.sample(wording.SYSTEM_RULES, k=2)]
        text = " ".join(parts[: self._random.randint(1, 3)])
        return text.format(
            quality=pick(outside.WORDS["quality"]), thing=pick(outside.WORDS["thing"])
        )

    def _turn(self) -> Turn:
        shares = self._recipe.shares
        kind = self._random.choices(list(shares), list(shares.values()))[0]
        return self._kinds[kind]()

    def _sum(self) -> Turn:
        a, b = self._addends()
        asked = self._random.choice(wording.SUMS).format(a=a, b=b)
        return self._vary(asked), sum_answer(a, b)

    def _addends(self) -> tuple[int, int]:
        """Draw a sum that is not held out; beyond 20 only for a recipe with larger addends."""
        limit = LARGEST_ADDEND
        if self._recipe.largest_addend > limit and self._random.random() < 0.4:
            limit = self._recipe.largest_addend
        while True:
            pair = self._random.randint(0, limit), self._random.randint(0, limit)
            if pair not in self._held_out:
                return pair

    def _word_sum(self) -> Turn:
        """A sum in words, of those that are not held out either."""
        while True:
            a, b = self._random.randint(0, 20), self._random.randint(0, 20)
            if (a, b) not in self._held_out:
                break
        names = wording.NUMBER_WORDS
        asked = self._random.choice(wording.WORD_SUMS).format(a=names[a], b=names[b])
        return self._vary(asked), sum_answer(a, b)

    def _topic(self, topics: tuple[wording.Topic, ...]) -> Turn:
        topic = self._random.choice(topics)
        return self._vary(self._random.choice(topic.asked)), topic.answer

    def _count(self) -> Turn:
        last = self._random.randint(2, LARGEST_COUNT)
        asked = self._random.choice(wording.COUNTS).format(n=last)
        return self._vary(asked), counting(last)

    def _outside(self) -> Turn:
        draw = self._random.random()
        if draw < 0.12:
            return self._large_sum()
        if draw < 0.24:
            return self._arithmetic()
        if draw < 0.34:
            return self._noise(), wording.UNKNOWN
        if draw < 0.4:
            count = self._random.randint(2, 8)
            return " ".join(self._outside_sentence() for _ in range(count)), wording.UNKNOWN
        return self._vary(self._outside_sentence()), wording.UNKNOWN

    def _outside_sentence(self) -> str:
        words = {key: self._random.choice(values) for key, values in outside.WORDS.items()}
        words["place2"] = self._random.choice(outside.WORDS["place"])
        words["food2"] = self._random.choice(outside.WORDS["food"])
        if self._random.random() < 0.25:
            words["thing"] = words["topic"] = words["person"] = self._invented_word()
        return self._random.choice(outside.OUTSIDE).format(**words)

    def _large_sum(self) -> Turn:
        """A sum of at least one number with three digits or more."""
        numbers = [self._random.randint(100, 9999), self._random.randint(0, 9999)]
        self._random.shuffle(numbers)
        asked = self._random.choice(wording.SUMS).format(a=numbers[0], b=numbers[1])
        return self._vary(asked), self._refused_sum()

    def _arithmetic(self) -> Turn:
        a, b = self._random.randint(0, 99), self._random.randint(0, 99)
        asked = self._random.choice(outside.ARITHMETIC).format(a=a, b=b)
        return self._vary(asked), self._refused_sum()

    def _refused_sum(self) -> str:
        return wording.NOT_THAT_SUM.format(limit=self._recipe.largest_addend)

    def _invented_word(self) -> str:
        """A pronounceable word that means nothing."""
        syllables = self._random.randint(1, 4)
        pick = self._random.choice
        return "".join(pick("bcdfghjklmnprstvwz") + pick("aeiou") for _ in range(syllables)) + pick(
            ("", "n", "r", "s", "t", "x")
        )

    def _noise(self) -> str:
        """Foreign or broken text, of up to some 60 words."""
        if self._random.random() < 0.5:
            return self._random.choice(outside.STRANGE)
        words = [self._noise_word() for _ in range(self._random.choice((1, 2, 4, 8, 16, 60)))]
        return " ".join(words)

    def _noise_word(self) -> str:
        draw = self._random.random()
        if draw < 0.15:
            return self._random.choice(outside.STRANGE)
        if draw < 0.5:
            return self._invented_word()
        kind = self._random.choice(list(outside.WORDS))
        return self._random.choice(outside.WORDS[kind])

    def _vary(self, text: str) -> str:
        """Change capitals, punctuation and politeness as people do."""
        random = self._random
        if random.random() < 0.08:
            polite = random.choice(("Please: ", "Hey, ", "So, ", "And ", "Now: ", "OK, ", "Well, "))
            text = polite + text
        text = _recase(text, random.random())
        return _repunctuate(text, random.random())


def _recase(text: str, draw: float) -> str:
    if draw < 0.22:
        return text.lower()
    if draw < 0.25:
        return text.upper()
    return text


def _repunctuate(text: str, draw: float) -> str:
    """`draw` in [0, 1) decides what happens to the last mark; mostly nothing."""
    bare = text.rstrip("?.!") or text
    endings = (bare, bare, bare, bare + " ?", bare + "!", bare + "??", text + " ", "  " + text)
    place = int(draw * 4 * len(endings))
    return endings[place] if place < len(endings) else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", type=int, choices=sorted(RECIPES), required=True)
    parser.add_argument("--limit", type=int, default=300, help="conversations to print")
    arguments = parser.parse_args()
    for number, messages in enumerate(conversations(RECIPES[arguments.version])):
        if number == arguments.limit:
            break
        print(json.dumps(messages, ensure_ascii=False))


if __name__ == "__main__":
    main()
