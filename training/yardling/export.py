"""Write a model folder, rounding the weights to the wanted type.

`python -m training.yardling.export --source FLOAT32_FOLDER --out FOLDER --dtype float16`
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen3ForCausalLM,
)

from .tokens import END_OF_TEXT, TURN_END

METRICS = "metrics.json"  # train.py writes its "training", evaluate.py the rest
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def save(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str
) -> None:
    """Save weights, configuration, tokenizer and chat template; the model given is not changed."""
    folder.mkdir(parents=True, exist_ok=True)
    end, pad = (tokenizer.convert_tokens_to_ids(t) for t in (TURN_END, END_OF_TEXT))
    rounded = copy.deepcopy(model).to(DTYPES[dtype])
    rounded.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=[end, pad], pad_token_id=pad
    )
    rounded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float16")
    arguments = parser.parse_args()
    model = Qwen3ForCausalLM.from_pretrained(arguments.source, dtype=torch.float32)
    save(model, AutoTokenizer.from_pretrained(arguments.source), arguments.out, arguments.dtype)
    metrics = json.loads((arguments.source / METRICS).read_text())
    text = json.dumps({"training": metrics["training"]}, indent=2)
    (arguments.out / METRICS).write_text(text + "\n")


if __name__ == "__main__":
    main()
