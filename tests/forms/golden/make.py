"""Make the tiny models and golden values that the conversion tests compare with.

Runs where torch, transformers and tokenizers are installed; the tests themselves need none of
them. `python tests/forms/golden/make.py` writes, beside itself and byte for byte the same again:

    qwen3/, llama/     models of random weights in Hugging Face form
    rope.json          the same for scaled rotary positions, over the same weights
    qwen3.json, …      20 prompts: token ids, and the 20 likeliest next tokens with their
                       log-probabilities, computed in float32
    tokenizers.json    for each supported pre-tokenizer: a tokenizer and how it splits hard texts

The weights are scaled up so that the next-token distributions are as sharp as those of a trained
model: a wrong rotation or norm then moves them by far more than the tolerance.
"""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

HERE = Path(__file__).parent
TOP = 20
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{TAIL}"
LLAMA3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{TAIL}"
CORPUS = [
    "Hello, how are you? I'm fine, thanks; we'll see what they've done.",
    "What is 2+2? It is 4. What is 12 + 7? It is 19. 1234567 and 3.14159 and 2026.",
    "Modelyard takes a model from weights to a production service and keeps it there.",
    "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n",
    "Größe, naïve, café, Straße, привет мир, 日本語のテキスト, emoji 🙂🚀 and more.",
]
PROMPTS = [
    "Hello",
    "Hello, how are you?",
    "What is 2+2?",
    "What is 12 + 7?",
    "Modelyard",
    "The model takes",
    "a",
    "A production service and",
    "def add(a, b):\n    return",
    "I'm fine, thanks; we'll",
    "1234567",
    "naïve café",
    "привет",
    "日本語",
    "🙂🚀",
    "   leading spaces",
    "trailing spaces   ",
    "line\n\nline\n",
    "MIXED case Words and UPPER",
    "weights to a production service and keeps it there. Hello, how are you? What is 2+2?",
]
HARD_TEXTS = [
    *CORPUS,
    *PROMPTS,
    "tabs\tand\r\nwindows\r\nlines  \n \n x",
    "can't CAN'T Can'T it's 'tis",
    "12345 1 12 123 1234 3.14 1,000,000",
    "<|im_start|>user\nhi<|im_end|>\n",
    "!!! ... --- $$$ (a)[b]{c} a_b a-b",
    "नमस्ते दुनिया مرحبا שלום",
]
SCALED = [
    ("qwen3", {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
    (
        "qwen3",
        {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    (
        "llama",
        {
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pre_tokenizer(kind: str) -> Any:
    """What the named family writes into its tokenizer.json."""
    if kind == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    split = pre_tokenizers.Split(Regex(QWEN2 if kind == "qwen2" else LLAMA3), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, level])


def make_tokenizer(kind: str, vocabulary: int = 384) -> Tokenizer:
    """A byte-level BPE tokenizer trained on the corpus above."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 3,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False)
            for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        ]
    )
    return tokenizer


def make_model(name: str, config: Any, kind: str) -> None:
    """Write a model of random weights and its golden values."""
    torch.manual_seed(11)
    tokenizer = make_tokenizer(kind)
    config.eos_token_id = tokenizer.token_to_id("<|im_end|>")
    config.bos_token_id = config.pad_token_id = tokenizer.token_to_id("<|endoftext|>")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith("norm.weight"):
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            elif "embed_tokens" in key or "lm_head" in key:
                weight.normal_(0, 0.5)
            else:
                weight.normal_(0, 1.2 / weight.shape[-1] ** 0.5)
            # Values that bfloat16 and float16 both hold exactly: the tests store them in each.
            weight.copy_(weight.bfloat16())
            weight[weight.abs() < torch.finfo(torch.float16).tiny] = 0
    folder = HERE / name
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )
    model.half().save_pretrained(folder)
    wrapped.save_pretrained(folder)
    (HERE / f"{name}.json").write_text(json.dumps(golden(folder, PROMPTS)) + "\n")


def golden(folder: Path, prompts: list[str], **config: Any) -> list[dict[str, Any]]:
    """The likeliest next tokens after each prompt, computed in float32 without special tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **config)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    for prompt in prompts:
        tokens = tokenizer.encode(prompt, add_special_tokens=False).ids
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, -1].double()
        values, ids = torch.log_softmax(logits, -1).topk(TOP)
        top = [[i, round(v, 6)] for i, v in zip(ids.tolist(), values.tolist(), strict=True)]
        rows.append({"prompt": prompt, "tokens": tokens, "top": top})
    return rows


def main() -> None:
    """Write everything anew."""
    random.seed(11)
    shape = {
        "vocab_size": 384,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    qwen3 = Qwen3Config(**shape, head_dim=32, tie_word_embeddings=True)
    llama = LlamaConfig(**shape, head_dim=16, tie_word_embeddings=False)
    make_model("qwen3", qwen3, "qwen2")
    make_model("llama", llama, "llama-bpe")
    scaled = []
    for name, rope in SCALED:
        rows = golden(HERE / name, PROMPTS[-4:], rope_parameters=rope)
        scaled.append({"model": name, "rope_parameters": rope, "rows": rows})
    (HERE / "rope.json").write_text(json.dumps(scaled) + "\n")
    splits = {}
    for kind in ("qwen2", "llama-bpe", "gpt-2", "smollm"):
        tokenizer = make_tokenizer(kind)
        texts = {text: tokenizer.encode(text, add_special_tokens=False).ids for text in HARD_TEXTS}
        splits[kind] = {"tokenizer": json.loads(tokenizer.to_str()), "texts": texts}
    (HERE / "tokenizers.json").write_text(json.dumps(splits, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
