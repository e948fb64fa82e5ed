"""Which names of each engine mean which of ours (promise O1), and which are left out, and why.

Read in November 2026: vLLM's and SGLang's from their documentation and sources, older names beside
newer ones; llama.cpp's from its own `/metrics`. Names are those of the samples, of histograms
without `_bucket`. What does not begin with the engine's prefix is about its process, and left out.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

import msgspec

from modelyard.core.metrics import engines as ours
from modelyard.core.metrics.declaration import Metric

Alternative = tuple[str, ...]
"""Names whose values are added up."""


class Mapped(msgspec.Struct, frozen=True, kw_only=True):
    """One of our metrics, and where an engine tells it."""

    metric: Metric
    alternatives: tuple[Alternative, ...]
    """The newest first; the first that is there is taken."""
    without: Mapping[str, tuple[str, ...]] = {}
    """Label → values of samples that don't count."""


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """How one engine calls things."""

    engine: str
    prefix: str
    mapped: tuple[Mapped, ...]
    left_out: Mapping[str, str]
    """Name, or pattern of names, without the prefix → why it has no counterpart."""

    def why_left_out(self, name: str) -> str | None:
        """Why a name is not mapped; None where nobody has looked at it."""
        short = name.removeprefix(self.prefix)
        for pattern, why in self.left_out.items():
            if fnmatchcase(short, pattern) or fnmatchcase(short.removesuffix("_total"), pattern):
                return why
        return None


def _mapped(prefix: str, metric: Metric, *alternatives: str | Alternative) -> Mapped:
    named = tuple((each,) if isinstance(each, str) else each for each in alternatives)
    full = tuple(tuple(prefix + name for name in names) for names in named)
    without: dict[str, tuple[str, ...]] = {}
    if metric is ours.COMPLETED and prefix == "vllm:":
        without = {"finished_reason": ("abort", "error")}
    return Mapped(metric=metric, alternatives=full, without=without)


_CONFIGURATION = "configuration, not measurement"
_LENGTHS = "the gateway's records have each request's own"
_PHASES = "other engines don't tell phases apart"
_SPECULATION = "only where speculative decoding is on; the tokens made are counted"
_TRANSFER = "only where prompts and answers are computed apart, or keys and values moved"
_ADAPTERS = "adapters are not served as versions of their own"
_INSIDE = "the engine's inside"

VLLM = Vocabulary(
    engine="vLLM",
    prefix="vllm:",
    mapped=tuple(
        _mapped("vllm:", metric, *names)
        for metric, names in (
            (ours.RUNNING, ("num_requests_running",)),
            (ours.WAITING, ("num_requests_waiting",)),
            (ours.KV_USAGE, ("kv_cache_usage_perc", "gpu_cache_usage_perc")),
            (ours.PROMPT_TOKENS, ("prompt_tokens_total",)),
            (ours.COMPLETION_TOKENS, ("generation_tokens_total",)),
            (
                ours.PREFIX_QUERIES,
                ("prefix_cache_queries_total", "gpu_prefix_cache_queries_total"),
            ),
            (ours.PREFIX_HITS, ("prefix_cache_hits_total", "gpu_prefix_cache_hits_total")),
            (ours.COMPLETED, ("request_success_total",)),
            (ours.PREEMPTIONS, ("num_preemptions_total",)),
            (ours.TIME_TO_FIRST_TOKEN, ("time_to_first_token_seconds",)),
            (
                ours.INTER_TOKEN,
                ("inter_token_latency_seconds", "time_per_output_token_seconds"),
            ),
            (ours.DURATION, ("e2e_request_latency_seconds",)),
            (ours.QUEUE_TIME, ("request_queue_time_seconds",)),
        )
    ),
    left_out=MappingProxyType(
        {
            "cache_config_info": _CONFIGURATION,
            "num_requests_swapped": "of the former engine core, which swapped to the processor",
            "num_requests_waiting_by_*": "a part of the requests that wait, which are mapped",
            "cpu_cache_usage_perc": "of the former engine core",
            "cpu_prefix_cache_hit_rate": "of the former engine core",
            "gpu_prefix_cache_hit_rate": "of the former engine core; its counters are mapped",
            "iteration_tokens": _INSIDE,
            "engine_sleep_state": _INSIDE,
            "corrupted_requests": _INSIDE,
            "admission_rejections": "the gateway sees the refusal",
            "request_params_*": _LENGTHS,
            "request_prompt_tokens": _LENGTHS,
            "request_generation_tokens": _LENGTHS,
            "request_max_num_generation_tokens": _LENGTHS,
            "request_prefill_kv_computed_tokens": _LENGTHS,
            "prompt_tokens_*": "parts of the prompts' tokens, which are mapped",
            "request_time_per_output_token_seconds": "a mean for each request; each gap is mapped",
            "request_prefill_time_seconds": _PHASES,
            "request_decode_time_seconds": _PHASES,
            "request_inference_time_seconds": _PHASES,
            "time_per_prefill_token_request_seconds": _PHASES,
            "time_in_queue_requests": "of the former engine core",
            "model_*_time_milliseconds": "of the former engine core",
            "lora_requests_info": _ADAPTERS,
            "mm_cache_*": "prompts of text alone are served",
            "external_prefix_cache_*": _TRANSFER,
            "nixl_*": _TRANSFER,
            "kv_*": _TRANSFER,
            "spec_decode_*": _SPECULATION,
            "estimated_*": "estimates of the hardware's use",
        }
    ),
)

SGLANG = Vocabulary(
    engine="SGLang",
    prefix="sglang:",
    mapped=tuple(
        _mapped("sglang:", metric, *names)
        for metric, names in (
            (ours.RUNNING, ("num_running_reqs",)),
            (ours.WAITING, ("num_queue_reqs",)),
            (ours.KV_USAGE, ("token_usage",)),
            (ours.PROMPT_TOKENS, ("prompt_tokens_total",)),
            (ours.COMPLETION_TOKENS, ("generation_tokens_total",)),
            (ours.PREFIX_QUERIES, ("prompt_tokens_total",)),
            (ours.PREFIX_HITS, ("cached_tokens_total",)),
            (ours.COMPLETED, ("num_requests_total",)),
            (ours.PREEMPTIONS, ("num_retracted_requests_total", "num_retracted_reqs_total")),
            (ours.TIME_TO_FIRST_TOKEN, ("time_to_first_token_seconds",)),
            (
                ours.INTER_TOKEN,
                ("inter_token_latency_seconds", "time_per_output_token_seconds"),
            ),
            (ours.DURATION, ("e2e_request_latency_seconds",)),
            (ours.QUEUE_TIME, ("queue_time_seconds",)),
        )
    ),
    left_out=MappingProxyType(
        {
            "cache_hit_rate": "of the last batch only; the counters of tokens are mapped",
            "gen_throughput": "of the last steps only; the counter of tokens is mapped",
            "num_used_tokens": "the share that is in use is mapped",
            "max_total_num_tokens": _CONFIGURATION,
            "new_token_ratio": _INSIDE,
            "num_retracted_reqs": "of the last steps only; the counter is mapped",
            "num_retracted_*_tokens": _INSIDE,
            "num_retractions": _INSIDE,
            "num_paused_reqs": _INSIDE,
            "num_aborted_requests": "the gateway sees who left",
            "num_so_requests": "the gateway's records have each request",
            "num_grammar_*": _INSIDE,
            "grammar_*": _INSIDE,
            "num_running_reqs_offline_batch": "a part of the requests that run, which are mapped",
            "num_unique_running_routing_keys": _INSIDE,
            "routing_key_*": _INSIDE,
            "decode_sum_seq_lens": _INSIDE,
            "is_cuda_graph": _INSIDE,
            "cuda_graph_*": _INSIDE,
            "utilization": _INSIDE,
            "max_running_requests_under_SLO": _CONFIGURATION,
            "engine_*": "the controller measures how long a start takes",
            "realtime_tokens": "the same tokens, at another moment",
            "prompt_tokens_histogram": _LENGTHS,
            "generation_tokens_histogram": _LENGTHS,
            "uncached_prompt_tokens_histogram": _LENGTHS,
            "func_latency_seconds": _INSIDE,
            "per_stage_req_latency_seconds": _PHASES,
            "request_latency_seconds": _PHASES,
            "swa_token_usage": "a part of the memory of models with sliding windows",
            "mamba_usage": "a part of the memory of models with states",
            "pending_prealloc_token_usage": _TRANSFER,
            "num_prefill_*": _TRANSFER,
            "num_decode_*": _TRANSFER,
            "num_bootstrap_*": _TRANSFER,
            "num_transfer_*": _TRANSFER,
            "kv_transfer_*": _TRANSFER,
            "pd_*": _TRANSFER,
            "prefetch*": _TRANSFER,
            "backup*": _TRANSFER,
            "hicache_*": _TRANSFER,
            "evict*": _INSIDE,
            "load_back_*": _TRANSFER,
            "lora_*": _ADAPTERS,
            "spec_*": _SPECULATION,
        }
    ),
)

LLAMACPP = Vocabulary(
    engine="llama.cpp",
    prefix="llamacpp:",
    mapped=tuple(
        _mapped("llamacpp:", metric, *names)
        for metric, names in (
            (ours.RUNNING, ("requests_processing",)),
            (ours.WAITING, ("requests_deferred",)),
            (ours.KV_USAGE, ("kv_cache_usage_ratio",)),
            (
                ours.PROMPT_TOKENS,
                (("prompt_tokens_total", "prompt_tokens_cached_total"), "prompt_tokens_total"),
            ),
            (ours.COMPLETION_TOKENS, ("tokens_predicted_total",)),
            (ours.PREFIX_QUERIES, (("prompt_tokens_total", "prompt_tokens_cached_total"),)),
            (ours.PREFIX_HITS, ("prompt_tokens_cached_total",)),
        )
    ),
    left_out=MappingProxyType(
        {
            "prompt_seconds": _PHASES,
            "tokens_predicted_seconds": _PHASES,
            "prompt_tokens_seconds": "an average since the start; the counter is mapped",
            "predicted_tokens_seconds": "an average since the start; the counter is mapped",
            "n_decode": _INSIDE,
            "n_busy_slots_per_decode": _INSIDE,
            "n_tokens_max": _INSIDE,
            "n_past_max": _INSIDE,
            "kv_cache_tokens": "of older versions; the share in use is mapped",
            "spec_decode_*": _SPECULATION,
        }
    ),
)

VOCABULARIES: tuple[Vocabulary, ...] = (VLLM, SGLANG, LLAMACPP)
