"""The fake engine: an OpenAI-compatible engine for tests, benchmarks and conformance.

`python -m modelyard.engines.fake --port P` runs it (see docs/fake-engine.md); `FakeEngine` is what
Modelyard starts it by, like any other engine.
"""

import sys

from modelyard.core.facts import ModelFacts
from modelyard.core.metrics.vocabularies import VLLM, Vocabulary
from modelyard.engines.engine import Capabilities, Command, EngineLaunch, Readiness


class FakeEngine:
    """The engine that answers with numbered, checksummed tokens, whatever weights it is given."""

    name = "fake"
    capabilities = Capabilities(
        operations=("chat", "completions", "embeddings"),
        forms=("safetensors", "gguf"),
        cancels_on_disconnect="at_once",
        accelerators=("cpu",),
        tokenizer="content",
    )
    readiness = Readiness(path="/health", load_deadline_s=60.0)
    vocabulary: Vocabulary | None = VLLM

    def refusal(self, facts: ModelFacts) -> str | None:
        """None: it serves anything."""
        return None

    def command(self, launch: EngineLaunch) -> Command:
        """The argument vector of one worker; `threads` has no meaning for it."""
        argv = [sys.executable, "-m", "modelyard.engines.fake"]
        argv += ["--host", launch.host, "--port", str(launch.port)]
        argv += ["--model", launch.served_name, "--model-path", launch.model_path]
        argv += ["--parallel", str(launch.parallel), "--drain-s", str(launch.drain_s)]
        if launch.context_length is not None:
            argv += ["--context-length", str(launch.context_length)]
        return Command(argv=(*argv, *launch.extra_args))


if __name__ == "__main__":
    from modelyard.engines.fake_server.main import main

    sys.exit(main())
