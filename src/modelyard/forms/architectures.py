"""How each architecture's configuration and weights are called in GGUF.

The names on the right are those of llama.cpp's loader; an architecture that is not in this table,
and an option that changes the numbers in a way which the engine would not follow, are refused.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from modelyard.core.errors import InvalidRequest, Unsupported

CONVERTER_OF_LLAMA_CPP = (
    "convert it with llama.cpp's convert_hf_to_gguf.py and register the GGUF file that it writes"
)
Metadata = dict[str, str | int | float | bool]

OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
BLOCK = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
HEAD_NORMS = {
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
}


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """One architecture, as Hugging Face's `config.json` names it."""

    gguf_name: str
    block: Mapping[str, str]
    """Weights of one block, without the prefix `model.layers.N.`."""
    rotary_pairs: Literal["halves", "neighbours"]
    """Which two elements of a head llama.cpp turns together. Hugging Face turns element i with
    element i + half; where llama.cpp turns neighbours, the rows of q and k are reordered."""


ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture(gguf_name="llama", block=BLOCK, rotary_pairs="neighbours"),
    "Qwen3ForCausalLM": Architecture(
        gguf_name="qwen3", block=BLOCK | HEAD_NORMS, rotary_pairs="halves"
    ),
}


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the conversion needs of a `config.json`."""

    architecture: Architecture
    vocabulary: int
    context_length: int
    hidden: int
    feed_forward: int
    blocks: int
    heads: int
    kv_heads: int
    head_size: int
    norm_epsilon: float
    tied_embeddings: bool
    rope: Mapping[str, Any]
    """Hugging Face's `rope_parameters`, with `rope_type` and `rope_theta` always there."""


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Understand a `config.json`.

    Raises Unsupported for an architecture or option that can't be converted, InvalidRequest when
    a needed number is missing or is none.
    """
    named = config.get("architectures") or ["(none named)"]
    architecture = ARCHITECTURES.get(str(named[0]))
    if architecture is None:
        raise Unsupported(
            f"architecture {named[0]} can't be converted to GGUF; "
            f"those that can: {', '.join(sorted(ARCHITECTURES))}",
            next_step=CONVERTER_OF_LLAMA_CPP,
        )
    _refuse_what_changes_numbers(config)
    heads = _number(config, "num_attention_heads")
    hidden = _number(config, "hidden_size")
    return Shape(
        architecture=architecture,
        vocabulary=_number(config, "vocab_size"),
        context_length=_number(config, "max_position_embeddings"),
        hidden=hidden,
        feed_forward=_number(config, "intermediate_size"),
        blocks=_number(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_number(config, "num_key_value_heads", heads),
        head_size=_number(config, "head_dim", hidden // heads),
        norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        rope=_rope(config),
    )


def metadata(shape: Shape) -> Metadata:
    """Key-value pairs of the architecture, without those of the tokenizer."""
    rope = shape.rope
    values: Metadata = {
        "vocab_size": shape.vocabulary,
        "context_length": shape.context_length,
        "embedding_length": shape.hidden,
        "block_count": shape.blocks,
        "feed_forward_length": shape.feed_forward,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_size,
        "attention.value_length": shape.head_size,
        "attention.layer_norm_rms_epsilon": shape.norm_epsilon,
        "rope.dimension_count": shape.head_size,
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if rope["rope_type"] in ("linear", "yarn"):
        values["rope.scaling.type"] = str(rope["rope_type"])
        values["rope.scaling.factor"] = float(rope["factor"])
    if rope["rope_type"] == "yarn":
        trained = rope.get("original_max_position_embeddings") or shape.context_length
        values["rope.scaling.original_context_length"] = int(trained)
    prefix = shape.architecture.gguf_name
    return {f"{prefix}.{key}": value for key, value in values.items()}


def tensor_names(shape: Shape) -> dict[str, str]:
    """Every weight that the architecture has: its name in safetensors → its name in GGUF."""
    names = dict(OUTSIDE)
    if shape.tied_embeddings:
        del names["lm_head.weight"]
    for block in range(shape.blocks):
        for theirs, ours in shape.architecture.block.items():
            names[f"model.layers.{block}.{theirs}"] = f"blk.{block}.{ours}"
    return names


def rope_factors(shape: Shape) -> list[float] | None:
    """Divisors of the rotary frequencies, head_size / 2 of them, for the scaling of Llama 3.1.

    Wavelengths up to the trained context over `high_freq_factor` stay, those over the trained
    context over `low_freq_factor` are stretched by `factor`, and between the two it is blended.
    None when the frequencies are not scaled one by one.
    """
    rope = shape.rope
    if rope["rope_type"] != "llama3":
        return None
    factor, low, high = (
        float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor")
    )
    trained = int(rope["original_max_position_embeddings"])
    factors = []
    for pair in range(shape.head_size // 2):
        wavelength = 2 * math.pi * float(rope["rope_theta"]) ** (2 * pair / shape.head_size)
        if wavelength < trained / high:
            factors.append(1.0)
        elif wavelength > trained / low:
            factors.append(factor)
        else:
            blend = (trained / wavelength - low) / (high - low)
            factors.append(1.0 / ((1 - blend) / factor + blend))
    return factors


def _number(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InvalidRequest(
            f"config.json: {key} must be a positive whole number, it is {value!r}",
            next_step="download the model again, or correct its config.json",
        )
    return value


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_parameters`, or the older pair of `rope_theta` and `rope_scaling`."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = dict(given)
    rope.setdefault("rope_type", rope.pop("type", "default"))
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    if rope["rope_type"] not in ("default", "linear", "yarn", "llama3"):
        raise Unsupported(
            f"config.json: rotary scaling {rope['rope_type']!r} can't be converted to GGUF",
            next_step=CONVERTER_OF_LLAMA_CPP,
        )
    return rope


def _refuse_what_changes_numbers(config: Mapping[str, Any]) -> None:
    """Refuse options that the tables above don't carry over."""
    for key, usual in (
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("use_sliding_window", False),
    ):
        value = config.get(key, usual)
        if value != usual:
            raise Unsupported(
                f"config.json: {key} = {value!r} can't be converted to GGUF",
                next_step=CONVERTER_OF_LLAMA_CPP,
            )
    if config.get("quantization_config"):
        raise Unsupported(
            "config.json: quantized weights can't be converted to GGUF",
            next_step="register the weights they were quantized from, or serve these with vLLM",
        )
