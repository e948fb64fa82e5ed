"""What is known of a version from its own files (promise R12): never from the user's word."""

from typing import Literal

import msgspec

Format = Literal["safetensors", "gguf"]


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts from `config.json`, weight headers and the tokenizer; None where they are silent."""

    format: Format
    architecture: str
    """The class named by config.json (`Qwen3ForCausalLM`), or GGUF's `general.architecture`."""
    parameters: int
    """Number of weights, summed over the tensors' shapes."""
    dtype: str
    """The dtype of most parameters: `BF16`, `F16`, `F32`, `Q8_0`, …"""
    size_bytes: int
    """Sum of the sizes of all files of the version."""
    context_length: int | None = None
    """Tokens."""
    vocabulary_size: int | None = None
    chat_template: bool = False
    licence: str | None = None
