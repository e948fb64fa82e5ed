"""Write the golden values that the test of the GGUF conversion compares llama.cpp with.

`python -m training.yardling.golden` reads the packaged models, computes in float32 and writes
`tests/forms/golden/yardling_<version>.json`: for each prompt its text, its tokens, and the twenty
most probable next tokens with their natural-log probabilities.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM

from .corpus import Messages

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "src" / "modelyard" / "demo" / "yardling"
GOLDEN = ROOT / "tests" / "forms" / "golden"
KEPT = 20

LONG = (
    "I have a long story for you. My neighbour has a garden with seven trees, two dogs and a pond, "
    "and every morning at half past six she walks around it twice with a cup of coffee. Last week "
    "it rained for three days; the pond ran over, the dogs were wet, and one of the trees fell on "
    "the fence. What should she do first, and whom should she call?"
)
ASKED = (
    "What is 2+2?",
    "what's 7 + 15",
    "12+9=?",
    "Add 20 and 20.",
    "What is 3 plus 14?",
    "Hello, how are you?",
    "Hi",
    "good morning",
    "Thanks a lot!",
    "Who are you?",
    "What is Modelyard?",
    "What is a digest?",
    "what does blue-green mean",
    "Which command starts everything?",
    "What is the capital of France?",
    "Grüße aus Zürich! ¿Qué tal?",
    "你好吗 🙂 東京 Москва",
    'if (x > 0) {\n\treturn "a  b";\n}\n\n# 3.14159',
    LONG,
)
CONVERSATION: Messages = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Hello! How can I help you?"},
    {"role": "user", "content": "What is 8 + 5?"},
]


@torch.inference_mode()
def golden_values(version: int) -> list[dict[str, object]]:
    folder = MODELS / str(version)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    values: list[dict[str, object]] = []
    for messages in [*([{"role": "user", "content": text}] for text in ASKED), CONVERSATION]:
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(prompt).input_ids
        logits = model(torch.tensor([tokens])).logits[0, -1]
        best = torch.log_softmax(logits.double(), -1).topk(KEPT)
        top = [
            [token, round(logprob, 6)]
            for token, logprob in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        values.append({"version": version, "prompt": prompt, "tokens": tokens, "top": top})
    return values


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for version in sorted(int(folder.name) for folder in MODELS.iterdir()):
        rows = ",\n".join(json.dumps(value) for value in golden_values(version))
        path = GOLDEN / f"yardling_{version}.json"
        path.write_text(f"[\n{rows}\n]\n")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
