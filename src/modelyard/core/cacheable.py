"""Whether an answer may be kept, and under which key (promises G15, G16, G18).

Every field of a request is classified here: it can change the answer, or it can't. A request with
a field that nobody classified is not cached, so that a new parameter of an engine is never ignored.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.core.routes import Caching, Operation

_SAMPLING = frozenset(
    {
        "model", "temperature", "top_p", "top_k", "min_p", "typical_p", "top_a", "tfs_z", "n",
        "best_of", "use_beam_search", "length_penalty", "early_stopping", "seed", "stop",
        "stop_token_ids", "bad_words", "include_stop_str_in_output", "ignore_eos", "min_tokens",
        "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty",
        "repetition_penalty", "repeat_penalty", "repeat_last_n", "logit_bias", "mirostat",
        "mirostat_tau", "mirostat_eta", "dynatemp_range", "dynatemp_exponent", "xtc_probability",
        "xtc_threshold", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n",
        "samplers", "logprobs", "top_logprobs", "n_probs", "prompt_logprobs", "response_format",
        "grammar", "json_schema", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
        "structured_outputs", "regex", "ebnf", "skip_special_tokens",
        "spaces_between_special_tokens", "truncate_prompt_tokens", "add_special_tokens",
        "return_token_ids", "return_tokens",
        "cache_prompt", "reasoning_format", "thinking_budget_tokens",
    }
)  # fmt: skip
AFFECTING: Mapping[Operation, frozenset[str]] = {
    "chat": _SAMPLING
    | {
        "messages", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call",
        "reasoning_effort", "verbosity", "modalities", "audio", "prediction", "echo",
        "add_generation_prompt", "continue_final_message", "chat_template", "chat_template_kwargs",
        "documents", "include_reasoning", "separate_reasoning",
    },
    "completions": _SAMPLING | {"prompt", "suffix", "echo"},
    "embeddings": frozenset(
        {"model", "input", "dimensions", "encoding_format", "input_type", "normalize", "pooling"}
        | {"truncate_prompt_tokens", "add_special_tokens"}
    ),
}  # fmt: skip
"""Fields that can change the answer, by operation; other operations are not cached."""

NEUTRAL = frozenset(
    {"stream", "stream_options", "user", "metadata", "store", "safety_identifier", "service_tier"}
    | {"prompt_cache_key", "prompt_cache_retention", "priority", "request_id"}
)
"""Fields that can't: a hit honours `stream`, the others say who asks, or how urgently."""


def cacheable(
    caching: Caching, operation: Operation, fields: Mapping[str, Any], *, opted_in: bool
) -> bool:
    """Whether the policy lets this request's answer be kept."""
    if caching.mode == "off" or operation not in AFFECTING:
        return False
    known = AFFECTING[operation] | NEUTRAL
    if not fields.keys() <= known:
        return False
    return caching.mode == "all" or opted_in or deterministic(operation, fields)


def deterministic(operation: Operation, fields: Mapping[str, Any]) -> bool:
    """Whether the same request gets the same answer: temperature 0, or a seed, or embeddings."""
    temperature = fields.get("temperature")
    greedy = not isinstance(temperature, bool) and temperature == 0
    return operation == "embeddings" or greedy or fields.get("seed") is not None


def cache_key(tenant: str, digest: str, operation: Operation, fields: Mapping[str, Any]) -> bytes:
    """SHA-256 of tenant, version and all that can change the answer, canonically written.

    A field that is null counts as left out.
    """
    affecting = AFFECTING[operation]
    told = {
        name: value for name, value in fields.items() if name in affecting and value is not None
    }
    text = msgspec.json.encode([tenant, digest, operation, told], order="deterministic")
    return hashlib.sha256(text).digest()
