"""The seam between Modelyard and an inference engine."""

from typing import Literal, Protocol

import msgspec

from modelyard.core.facts import Format, ModelFacts
from modelyard.core.metrics.vocabularies import Vocabulary
from modelyard.core.routes import Operation, Tokenizer


class EngineLaunch(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker of an engine is started with, as seen from where it runs."""

    model_path: str
    """Folder (safetensors) or file (GGUF) whose bytes were verified for this launch."""
    served_name: str
    host: str
    port: int
    context_length: int | None = None
    """Tokens per request; None: the model's own, or what the engine can afford."""
    parallel: int = 4
    """Requests decoded at once."""
    threads: int | None = None
    """Processor threads; None: the engine's choice for this machine."""
    drain_s: float = 600.0
    """Time that requests in flight get after SIGTERM."""
    extra_args: tuple[str, ...] = ()
    """The user's own arguments, appended as they are."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """An argument vector and the environment variables it needs beside the launcher's own."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """How to see that the weights are loaded; a real generation follows anyway (promise E1)."""

    path: str
    status: int = 200
    load_deadline_s: float = 600.0


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do, for the router, the scaler and `doctor`."""

    operations: tuple[Operation, ...]
    forms: tuple[Format, ...]
    """Formats that it loads; the first is preferred."""
    cancels_on_disconnect: Literal["at_once", "streams", "never"]
    """Whether it stops within a second when its client leaves: always, only of a stream, or not."""
    accelerators: tuple[Literal["cpu", "cuda", "rocm", "metal"], ...]
    tokenizer: Tokenizer = "none"
    """Whether it counts tokens when asked, and how it is asked."""


class Engine(Protocol):
    """One kind of engine. Pure: every method is a function of its arguments."""

    name: str
    capabilities: Capabilities
    readiness: Readiness
    vocabulary: Vocabulary | None
    """What its own metrics mean (promise O1); None when it has none to be asked for."""

    def refusal(self, facts: ModelFacts) -> str | None:
        """Say why this engine can't run such a model, or None when it can."""

    def command(self, launch: EngineLaunch) -> Command:
        """Build what starts a worker."""
