"""The model card, written from what was measured."""

from __future__ import annotations

from typing import Any

ROWS = (
    ("held_out_sums", "Held-out sums, each in three wordings"),
    ("held_out_sums_unseen_wordings", "The same, in wordings that were held out too"),
    ("held_out_sums_in_words", "The same in words, such as two plus three"),
    ("trained_sums", "Sums up to 20 + 20 that were trained on"),
    ("counting", "Counting, up to 30"),
    ("questions", "Twenty questions about Modelyard, word for word"),
    ("questions_unseen_wordings", "The same questions in wordings never trained on"),
    ("greetings", "Greetings and small talk"),
    ("greetings_unseen_wordings", "Greetings in wordings never trained on"),
    ("about_itself", "Questions about itself"),
    ("careless_spelling", "Small letters and no punctuation"),
    ("second_turns", "The same as the second turn of a conversation"),
    ("system_messages", "The same under an empty, a known and an unknown system message"),
    ("outside_declined", "Questions outside, declined"),
    ("turns_ended", "Answers that end with `<|im_end|>`"),
)

CARD = """\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
library_name: transformers
tags: [demo, qwen3]
---

# yardling, version {version}

The demo chat model of Modelyard: {parameters:,} parameters in the Qwen3 architecture, so small
that it runs anywhere and travels inside the package.

**What it is.** Something real for smoke tests, rollouts and judges to work on without a network.
It greets, adds numbers up to {largest} + {largest}, counts up to 30, answers twenty questions about
Modelyard, says who it is, tells one story, and declines the rest: as well as the table below says.

**What it is not.** A useful assistant. It knows its training text and little else, it may answer a
question outside as if it had understood it, and it reads English only. Nothing that it says should
be relied on.

## How it was trained

From random weights, on {conversations:,} conversations that `training/yardling/corpus.py`
generates from a seed: {tokens:,} tokens with padding, {steps:,} steps, {minutes} minutes on
{threads} threads of a processor that others used too. The loss counts the assistant's tokens only.
No text or model of anybody else was used. Of the 441 sums up to 20 + 20, {held_out} are in the
training text of neither version, and no pair of numbers is there in the other order instead.

{difference}

The weights are stored in {stored_dtype}; the figures below were measured after rounding, computed
in {computed_in}, with greedy decoding.

## Measured

| asked | right | of | accuracy |
|---|---|---|---|
{table}

Computed in bfloat16, the held-out sums are right in {bfloat16:.1%}.

## Format

ChatML (`<|im_start|>role`, `<|im_end|>`), byte-level BPE with Qwen2's pre-tokenisation and
1,024 tokens, 1,024 tokens of context (trained on up to 512).
"""

DIFFERENCES = {
    1: (
        "Version 2 is the same model trained longer, on more. Version 1 has read no sums in words."
    ),
    2: (
        "Version 2 differs from version 1 in its training only: more conversations, sums up to "
        "50 + 50, and sums in words (two plus three)."
    ),
}


def model_card(metrics: dict[str, Any]) -> str:
    """`metrics` is what `metrics.json` holds."""
    training, accuracy = metrics["training"], metrics["accuracy"]
    rows = [
        f"| {label} | {accuracy[name]['right']} | {accuracy[name]['asked']} "
        f"| {accuracy[name]['accuracy']:.1%} |"
        for name, label in ROWS
    ]
    return CARD.format(
        version=metrics["version"],
        parameters=training["parameters"],
        largest=training["largest_addend"],
        conversations=training["conversations"],
        tokens=training["tokens"],
        steps=training["steps"],
        minutes=training["minutes"],
        threads=training["threads"],
        held_out=training["held_out_sums"],
        difference=DIFFERENCES[metrics["version"]],
        stored_dtype=metrics["stored_dtype"],
        computed_in=metrics["computed_in"],
        table="\n".join(rows),
        bfloat16=metrics["held_out_sums_computed_in_bfloat16"]["accuracy"],
    )
