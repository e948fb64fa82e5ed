"""llama.cpp through xllamacpp: the default engine, on the processor, for GGUF files."""

import sys

from modelyard.core.facts import ModelFacts
from modelyard.core.metrics.vocabularies import LLAMACPP, Vocabulary
from modelyard.engines.engine import Capabilities, Command, EngineLaunch, Readiness

CONVERTIBLE = frozenset({"LlamaForCausalLM", "Qwen3ForCausalLM"})
"""Architectures whose safetensors `modelyard.forms` converts to GGUF; a test holds them equal."""


class LlamaCpp:
    """Runs `modelyard.engines.llamacpp_worker`, which holds the C++ server."""

    name = "llamacpp"
    capabilities = Capabilities(
        operations=("chat", "completions", "responses", "messages"),
        forms=("gguf",),
        cancels_on_disconnect="streams",
        accelerators=("cpu",),
        tokenizer="content",
    )
    readiness = Readiness(path="/health")
    vocabulary: Vocabulary | None = LLAMACPP

    def refusal(self, facts: ModelFacts) -> str | None:
        """GGUF always; safetensors of the architectures that can be converted."""
        if facts.format == "gguf" or facts.architecture in CONVERTIBLE:
            return None
        return (
            f"llamacpp runs GGUF files, and Modelyard converts {', '.join(sorted(CONVERTIBLE))} "
            f"to GGUF but not {facts.architecture}; convert it with llama.cpp's "
            "convert_hf_to_gguf.py and register the GGUF file"
        )

    def command(self, launch: EngineLaunch) -> Command:
        """The worker's argument vector; options that are None are left to the worker."""
        argv = [sys.executable, "-m", "modelyard.engines.llamacpp_worker"]
        options: dict[str, str | int | float | None] = {
            "--model": launch.model_path,
            "--alias": launch.served_name,
            "--host": launch.host,
            "--port": launch.port,
            "--parallel": launch.parallel,
            "--context-length": launch.context_length,
            "--threads": launch.threads,
            "--drain-s": launch.drain_s,
        }
        for option, value in options.items():
            if value is not None:
                argv += [option, str(value)]
        return Command(argv=(*argv, *launch.extra_args))
