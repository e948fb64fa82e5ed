"""What slots can do and cost, as the gateways are told."""

import asyncio
from collections.abc import Mapping

import msgspec

from modelyard.control.weights import Weights, serving_of
from modelyard.core.cost import PriceList
from modelyard.core.deployments import SlotSpec
from modelyard.core.publishing import Serving
from modelyard.engines.engine import Engine


class Abilities:
    """Learnt of each version once; prices are those of now."""

    def __init__(self, weights: Weights, engines: Mapping[str, Engine], prices: PriceList) -> None:
        self._weights = weights
        self._engines = engines
        self._prices = prices
        self._learnt: dict[tuple[str, str, int | None], Serving] = {}

    async def learn(self, spec: SlotSpec | None) -> None:
        """Ask the registry what a version can do, unless that is known."""
        if spec is None or _key(spec) in self._learnt:
            return
        facts = await asyncio.to_thread(self._weights.facts, spec)
        self._learnt[_key(spec)] = serving_of(spec, self._engines[spec.engine], facts)

    def of(self, spec: SlotSpec) -> Serving:
        """What was learnt; of a version that the registry can't tell of now, the engine's part."""
        known = self._learnt.get(_key(spec)) or self._of_engine(spec)
        price = self._prices.of(spec.launcher, spec.accelerators_per_replica)
        return msgspec.structs.replace(known, price=price)

    def _of_engine(self, spec: SlotSpec) -> Serving:
        capabilities = self._engines[spec.engine].capabilities
        return Serving(
            operations=capabilities.operations,
            context_length=spec.context_length,
            chat_template=True,
            ask_as_stream=capabilities.cancels_on_disconnect == "streams",
            tokenizer=capabilities.tokenizer,
        )


def _key(spec: SlotSpec) -> tuple[str, str, int | None]:
    return spec.digest, spec.engine, spec.context_length
