"""Measure a finished yardling and write `metrics.json` and the model card beside it.

`python -m training.yardling.evaluate FOLDER` reads the folder as a user would: the rounded
weights, the saved tokenizer and chat template, greedy decoding.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM

from . import wording
from .card import model_card
from .corpus import LARGEST_ADDEND, LARGEST_COUNT, Messages, counting, held_out_sums, sum_answer
from .export import METRICS

MOST_NEW_TOKENS = 160
ROWS_AT_ONCE = 64
REFUSAL = "I am a very small demo model"

# Written by hand, in none of the training templates' words where that was possible.
OUTSIDE = (
    "Who discovered penicillin?",
    "Please book me a flight to Madrid.",
    "What's the tallest building in the world?",
    "Can you fix my code?",
    "How many legs does a spider have?",
    "Should I invest in gold?",
    "What will happen tomorrow?",
    "Which film won the prize last year?",
    "Why is the sky blue?",
    "What is the boiling point of water?",
    "Wie spät ist es?",
    "Give me five names for a puppy.",
    "Who wrote Don Quixote?",
    "How do vaccines work?",
    "What is Kubernetes?",
    "What is 6 times 7?",
    "What is 345 + 678?",
    "asdf qwer zxcv",
    "Draw me a picture of a sheep.",
    "Is there life on Mars?",
)


@dataclass(frozen=True)
class Case:
    messages: Messages
    right: Callable[[str], bool]


@dataclass(frozen=True)
class Answer:
    text: str
    ended: bool  # by <|im_end|>, within MOST_NEW_TOKENS


class Model:
    """A model folder that answers conversations greedily."""

    def __init__(self, folder: Path, compute: torch.dtype) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = Qwen3ForCausalLM.from_pretrained(folder, dtype=compute).eval()

    def answers(self, asked: Sequence[Messages]) -> list[Answer]:
        prompts = [
            self._tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True)
            for m in asked
        ]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found: dict[int, Answer] = {}
        for start in range(0, len(order), ROWS_AT_ONCE):
            rows = order[start : start + ROWS_AT_ONCE]
            found.update(zip(rows, self._batch([prompts[i] for i in rows]), strict=True))
        return [found[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _batch(self, prompts: list[str]) -> Iterator[Answer]:
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True)
        output = self._model.generate(**inputs, max_new_tokens=MOST_NEW_TOKENS)
        for row in output[:, inputs.input_ids.shape[1] :].tolist():
            end = self._tokenizer.eos_token_id
            ended = end in row
            said = row[: row.index(end)] if ended else row
            yield Answer(self._tokenizer.decode(said), ended)


def user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def said(question: str, answer: str) -> Messages:
    return [*user(question), {"role": "assistant", "content": answer}]


def exactly(answer: str) -> Callable[[str], bool]:
    return lambda text: text == answer


def sums(pairs: Sequence[tuple[int, int]], wordings: Sequence[str]) -> list[Case]:
    return [
        Case(user(w.format(a=a, b=b)), exactly(sum_answer(a, b)))
        for w in wordings
        for a, b in pairs
    ]


def word_sums(pairs: Sequence[tuple[int, int]]) -> list[Case]:
    names = wording.NUMBER_WORDS
    text = wording.WORD_SUMS[0]
    return [
        Case(user(text.format(a=names[a], b=names[b])), exactly(sum_answer(a, b))) for a, b in pairs
    ]


def counts() -> list[Case]:
    return [
        Case(user(wording.COUNTS[0].format(n=last)), exactly(counting(last)))
        for last in range(2, LARGEST_COUNT + 1)
    ]


def first_wordings(topics: Sequence[wording.Topic]) -> list[Case]:
    return [Case(user(t.asked[0]), exactly(t.answer)) for t in topics]


def unseen_wordings(topics: Sequence[wording.Topic]) -> list[Case]:
    return [Case(user(text), exactly(t.answer)) for t in topics for text in t.unseen]


def careless(topics: Sequence[wording.Topic]) -> list[Case]:
    """Small letters, no marks."""
    return [Case(user(t.asked[1].lower().rstrip("?!.")), exactly(t.answer)) for t in topics]


def after_history(cases: Sequence[Case]) -> list[Case]:
    """The same as the second turn, after each of two first turns."""
    histories = (
        said("Hello, how are you?", wording.SMALL_TALK[0].answer),
        said("What is 3+9?", sum_answer(3, 9)),
    )
    return [Case([*h, *case.messages], case.right) for h in histories for case in cases]


def under_system_messages(cases: Sequence[Case]) -> list[Case]:
    """The same under an empty, a known and an unknown system message."""
    texts = (
        "",
        "You are a helpful assistant.",
        "You are a careful tester of software. Think first.",
    )
    return [
        Case([{"role": "system", "content": text}, *case.messages], case.right)
        for text in texts
        for case in cases
    ]


def all_cases() -> dict[str, list[Case]]:
    """Each measurement's name and what is asked for it."""
    held_out = sorted(held_out_sums())
    numbers = range(LARGEST_ADDEND + 1)
    trained = [(a, b) for a in numbers for b in numbers if (a, b) not in held_out_sums()]
    mixed = [
        *first_wordings(wording.MODELYARD),
        *first_wordings(wording.SMALL_TALK),
        *sums([(2, 2), (7, 15), (12, 9)], wording.SUMS_CANONICAL),
    ]
    return {
        "two_plus_two": sums([(2, 2)], wording.SUMS + wording.SUMS_UNSEEN),
        "held_out_sums": sums(held_out, wording.SUMS_CANONICAL),
        "held_out_sums_unseen_wordings": sums(held_out, wording.SUMS_UNSEEN),
        "trained_sums": sums(trained, wording.SUMS_CANONICAL[:1]),
        "held_out_sums_in_words": word_sums(held_out),
        "counting": counts(),
        "questions": first_wordings(wording.MODELYARD),
        "questions_unseen_wordings": unseen_wordings(wording.MODELYARD),
        "greetings": first_wordings(wording.SMALL_TALK),
        "greetings_unseen_wordings": unseen_wordings(wording.SMALL_TALK),
        "about_itself": first_wordings(wording.ABOUT_ITSELF),
        "careless_spelling": careless((*wording.MODELYARD, *wording.SMALL_TALK)),
        "second_turns": after_history(mixed),
        "system_messages": under_system_messages(mixed),
        "outside_declined": [Case(user(t), lambda text: text.startswith(REFUSAL)) for t in OUTSIDE],
    }


def measure(model: Model, cases: dict[str, list[Case]]) -> tuple[dict[str, object], list[str]]:
    """The share that was answered rightly, by name, and a line for each wrong answer."""
    flat = [case for group in cases.values() for case in group]
    answers = iter(model.answers([case.messages for case in flat]))
    results: dict[str, object] = {}
    wrong: list[str] = []
    ended = 0
    for name, group in cases.items():
        right = 0
        for case in group:
            answer = next(answers)
            ended += answer.ended
            good = answer.ended and case.right(answer.text)
            right += good
            if not good:
                wrong.append(f"{name}: {case.messages[-1]['content']!r} -> {answer.text!r}")
        results[name] = share(right, len(group))
    results["turns_ended"] = share(ended, len(flat))
    return results, wrong


def share(right: int, asked: int) -> dict[str, float]:
    return {"right": right, "asked": asked, "accuracy": round(right / asked, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wrong", action="store_true", help="print each wrong answer")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    folder: Path = arguments.folder
    stored = json.loads((folder / "config.json").read_text())["dtype"]
    training = json.loads((folder / METRICS).read_text())["training"]
    cases = all_cases()
    results, wrong = measure(Model(folder, torch.float32), cases)
    sums_only = {"held_out_sums": cases["held_out_sums"]}
    in_bfloat16, _ = measure(Model(folder, torch.bfloat16), sums_only)
    metrics = {
        "model": "yardling",
        "version": training["version"],
        "stored_dtype": stored,
        "computed_in": "float32",
        "accuracy": results,
        "held_out_sums_computed_in_bfloat16": in_bfloat16["held_out_sums"],
        "training": training,
    }
    (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
    (folder / "README.md").write_text(model_card(metrics))
    if arguments.wrong:
        print("\n".join(wrong))
    for name, value in results.items():
        print(f"{name:32} {value}")
    print(f"{'held_out_sums in bfloat16':32} {in_bfloat16['held_out_sums']}")


if __name__ == "__main__":
    main()
