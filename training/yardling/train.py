"""Train yardling.

`python -m training.yardling.train --version 1 --out FOLDER` needs a processor and some minutes.
The same seed, thread count and library versions give the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from .batches import Batch, batches, encode, render
from .corpus import RECIPES, conversations, held_out_sums
from .export import DTYPES, METRICS, save
from .tokens import CONTEXT, END_OF_TEXT, TURN_END, VOCABULARY, chat_tokenizer

REPORT_EVERY_S = 5.0


@dataclass(frozen=True)
class Schedule:
    peak_rate: float
    warmup_steps: int
    tokens_per_batch: int
    weight_decay: float
    epochs: int


SCHEDULES = {
    1: Schedule(
        peak_rate=3e-3, warmup_steps=100, tokens_per_batch=1536, weight_decay=0.1, epochs=1
    ),
    2: Schedule(
        peak_rate=3e-3, warmup_steps=200, tokens_per_batch=2048, weight_decay=0.1, epochs=1
    ),
}


def new_model(tokenizer: PreTrainedTokenizerBase) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights, of about 1.3 million parameters."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
    )
    return Qwen3ForCausalLM(config)


def loss_of(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy, in nats, of the assistant's tokens.

    Padding is on the right and the model is causal, so no attention mask is needed; the head is
    computed only where there is something to learn.
    """
    hidden = model.model(batch.tokens[:, :-1], use_cache=False).last_hidden_state
    learned = batch.learned[:, 1:]
    logits = model.lm_head(hidden[learned])
    return functional.cross_entropy(logits, batch.tokens[:, 1:][learned])


def rate_at(step: int, steps: int, schedule: Schedule) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < schedule.warmup_steps:
        return schedule.peak_rate * (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, steps - schedule.warmup_steps)
    return schedule.peak_rate * 0.5 * (1 + math.cos(math.pi * done))


def optimizer_of(model: Qwen3ForCausalLM, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW; norms are not decayed."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": schedule.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.peak_rate, betas=(0.9, 0.98), fused=True)


class Progress:
    """Prints loss, speed and time left on one line that is rewritten."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._started = self._reported = time.monotonic()
        self._tokens = 0
        self.loss = math.nan

    def step(self, number: int, loss: float, tokens: int) -> None:
        self.loss = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss
        self._tokens += tokens
        now = time.monotonic()
        if now - self._reported < REPORT_EVERY_S and number < self._steps:
            return
        self._reported = now
        spent = now - self._started
        left = spent / number * (self._steps - number)
        print(
            f"step {number}/{self._steps}  loss {self.loss:.4f}  "
            f"{self._tokens / spent:,.0f} tokens/s  {left / 60:.1f} min left",
            flush=True,
        )

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def tokens(self) -> int:
        return self._tokens


def fit(
    model: Qwen3ForCausalLM, steps: Iterable[Batch], count: int, schedule: Schedule
) -> Progress:
    """Train the model in place, one optimizer step for each batch."""
    optimizer = optimizer_of(model, schedule)
    progress = Progress(count)
    model.train()
    for number, batch in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(number, count, schedule)
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress.step(number + 1, loss.item(), batch.tokens.numel())
    model.eval()
    return progress


def train(arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    recipe, schedule = RECIPES[arguments.version], SCHEDULES[arguments.version]
    tokenizer = chat_tokenizer()
    print(f"writing {recipe.conversations:,} conversations", flush=True)
    examples = encode([render(m) for m in conversations(recipe)], tokenizer)
    order = Random(arguments.seed)
    plan = [
        batch
        for _ in range(schedule.epochs)
        for batch in batches(examples, schedule.tokens_per_batch, tokenizer.pad_token_id, order)
    ]
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(plan):,} steps", flush=True)
    progress = fit(model, plan, len(plan), schedule)
    facts = {
        "version": arguments.version,
        "seed": arguments.seed,
        "threads": arguments.threads,
        "parameters": model.num_parameters(),
        "conversations": recipe.conversations,
        "largest_addend": recipe.largest_addend,
        "held_out_sums": len(held_out_sums()),
        "steps": len(plan),
        "tokens": progress.tokens,
        "minutes": round(progress.spent_s / 60, 1),
        "final_loss": round(progress.loss, 4),
    }
    for folder, dtype in ((arguments.out, arguments.dtype), (arguments.keep_float32, "float32")):
        if folder is not None:
            save(model, tokenizer, folder, dtype)
            (folder / METRICS).write_text(json.dumps({"training": facts}, indent=2) + "\n")
            print(f"wrote {folder} ({dtype})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", type=int, choices=sorted(RECIPES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--keep-float32", type=Path, help="folder for an unrounded copy")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    try:
        train(parser.parse_args())
    except KeyboardInterrupt:
        print("\nstopped; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
