"""The engines that there are, and which one runs a model."""

from collections.abc import Mapping
from types import MappingProxyType

from modelyard.core.errors import NotFound, Unsupported
from modelyard.core.facts import ModelFacts
from modelyard.core.metrics.vocabularies import Vocabulary
from modelyard.engines.engine import Engine
from modelyard.engines.fake import FakeEngine
from modelyard.engines.llamacpp import LlamaCpp

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {engine.name: engine for engine in (LlamaCpp(), FakeEngine())}
)
"""By name."""

VOCABULARY_OF: Mapping[str, Vocabulary | None] = MappingProxyType(
    {name: engine.vocabulary for name, engine in ENGINES.items()}
)
"""What the metrics of each mean, by its name."""

PREFERRED = ("llamacpp",)
"""Asked in this order when the user names none; the fake one is used by name only."""


def choose_engine(facts: ModelFacts, wanted: str | None) -> Engine:
    """The engine named, or the first that doesn't refuse the model.

    Raises NotFound for a name that isn't known, Unsupported with each engine's reason.
    """
    if wanted is not None and wanted not in ENGINES:
        raise NotFound(
            f"no engine is called {wanted!r}; known: {', '.join(sorted(ENGINES))}",
            next_step="leave the engine out to have one chosen",
        )
    reasons = []
    for name in PREFERRED if wanted is None else (wanted,):
        refusal = ENGINES[name].refusal(facts)
        if refusal is None:
            return ENGINES[name]
        reasons.append(f"{name}: {refusal}")
    raise Unsupported("no engine runs this model: " + "; ".join(reasons))
