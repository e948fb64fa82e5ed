"""yardling's tokenizer (Qwen2's rules, a vocabulary of its own) and its chat template."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

from .corpus import RECIPES, conversations

VOCABULARY = 1024
CONTEXT = 1024
END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIALS = (END_OF_TEXT, TURN_START, TURN_END)
CONVERSATIONS_READ = 40_000

# Qwen2's own expression: llama.cpp's pre-tokenizer "qwen2" splits in the same way.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def train_tokenizer() -> Tokenizer:
    """Learn the merges from version 2's corpus, for both versions.

    All 256 bytes are in the alphabet, so any text can be encoded. The special tokens come last, as
    in Qwen's vocabularies.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(
        add_prefix_space=False, trim_offsets=False, use_regex=False
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def _texts() -> Iterable[str]:
    yield "system\nuser\nassistant\n"
    for messages in islice(conversations(RECIPES[2]), CONVERSATIONS_READ):
        for message in messages:
            yield f"{message['role']}\n{message['content']}"


def chat_tokenizer() -> PreTrainedTokenizerBase:
    """The trained tokenizer with the names and the template that transformers saves."""
    return Qwen2Tokenizer(
        tokenizer_object=train_tokenizer(),
        bos_token=None,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
