"""From a slot's version to a path that an engine can load, every byte hashed on the way (R6)."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from modelyard.core.deployments import SlotSpec
from modelyard.core.errors import IntegrityError
from modelyard.core.facts import ModelFacts
from modelyard.core.publishing import Serving
from modelyard.core.refs import Ref
from modelyard.core.trust import refuse_untrusted
from modelyard.engines.engine import Engine
from modelyard.forms.forms import Forms
from modelyard.registry.pins import Pin
from modelyard.registry.registry import Registry
from modelyard.registry.versions import ModelVersion


class Weights(Protocol):
    """Where verified model files come from. All calls block: they run in a thread."""

    def prepare(self, spec: SlotSpec) -> Path:
        """Verify, bring into the engine's form.

        IntegrityError names the damaged file; Untrusted says which signature the policy misses.
        """

    def facts(self, spec: SlotSpec) -> ModelFacts:
        """What is known of the model."""

    def hold(self, used: Collection[tuple[str, SlotSpec]]) -> None:
        """Keep what these deployments (by name) use, and nothing else; StorageError."""


class RegistryWeights:
    """Weights from this home's registry."""

    def __init__(
        self,
        registry: Registry,
        forms: Forms,
        engines: Mapping[str, Engine],
        *,
        signed_by: Sequence[Path] | None = None,
    ) -> None:
        """`signed_by`: public keys of which one must have signed what is launched; None: anyone."""
        self._registry = registry
        self._forms = forms
        self._engines = engines
        self._signed_by = signed_by

    def prepare(self, spec: SlotSpec) -> Path:
        """`Forms.prepare` hashes every byte of the version, and of the form that is made of it."""
        version = self._version(spec)
        if version.quarantined:
            raise IntegrityError(
                f"{spec.model}:{spec.version} is quarantined: {version.quarantined}",
                next_step="register its files again from a good copy",
            )
        if self._signed_by is not None:
            decision = self._registry.trust(
                Ref(spec.model, version=spec.version), self._signed_by, require_signed=True
            )
            refuse_untrusted(str(version), decision)
        wanted = self._engines[spec.engine].capabilities.forms
        known = version.facts.format
        return self._forms.prepare(version, known if known in wanted else wanted[0])

    def facts(self, spec: SlotSpec) -> ModelFacts:
        """From the registry's manifest."""
        return self._version(spec).facts

    def hold(self, used: Collection[tuple[str, SlotSpec]]) -> None:
        """As pins in the registry, so that nobody takes a version out that runs."""
        self._registry.hold(
            "controller",
            [
                Pin(spec.model, spec.version, spec.digest, f"deployment {name}")
                for name, spec in used
            ],
        )

    def _version(self, spec: SlotSpec) -> ModelVersion:
        version = self._registry.get(Ref(spec.model, version=spec.version))
        if version.digest != spec.digest:
            raise IntegrityError(
                f"{spec.model}:{spec.version} is {version.digest} now, and {spec.digest} was "
                "deployed",
                next_step="versions never change: see who wrote into the registry, then deploy "
                "what you mean by its digest",
            )
        return version


def serving_of(spec: SlotSpec, engine: Engine, facts: ModelFacts) -> Serving:
    """What a slot can do: the engine's operations, the model's context and template."""
    return Serving(
        operations=engine.capabilities.operations,
        context_length=spec.context_length or facts.context_length,
        chat_template=facts.chat_template,
        ask_as_stream=engine.capabilities.cancels_on_disconnect == "streams",
        tokenizer=engine.capabilities.tokenizer,
    )
