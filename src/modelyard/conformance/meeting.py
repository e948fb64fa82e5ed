"""Before the first check: are the engines, the gateway and its models there, and joined?"""

import asyncio
import time

from modelyard.conformance.answers import Answer
from modelyard.conformance.bench import Bench, Question
from modelyard.conformance.client import Cut
from modelyard.core.errors import InvalidRequest, Unavailable

_LOOK_EVERY_S = 0.1
_EXTRA_MODELS = {
    "single_model": "--single-model",
    "cached_model": "--cached-model",
    "fallback_model": "--fallback-model",
}
"""Models beside M that are asked once, and the options that gave them."""
_ON_C = ("single_model", "fallback_model")


async def meet(bench: Bench) -> None:
    """Raise Unavailable or InvalidRequest when something that was named is not there.

    Without this, one wrong word on the command line would look like a gateway that fails at all.
    """
    target = bench.target
    for field in _ON_C:
        if getattr(target, field) is not None and len(bench.engines) < 3:
            raise InvalidRequest(
                f"{_EXTRA_MODELS[field]} is served by engine C, and two engines were given",
                next_step="give a third --engine",
            )
    for engine in bench.engines:
        await engine.state()
    await _expect_gateway(bench)
    await _expect_model(bench, target.model, "--model")
    for field, option in _EXTRA_MODELS.items():
        model = getattr(target, field)
        if model is not None:
            await _expect_model(bench, model, option)


async def _expect_gateway(bench: Bench) -> None:
    try:
        connection = await bench.connect()
    except OSError as error:
        raise Unavailable(
            f"there is no gateway at {bench.target.url}: {error.strerror or error}",
            next_step="start it, or give another URL",
        ) from None
    connection.leave()


async def _expect_model(bench: Bench, model: str, option: str) -> None:
    """Ask a model until it is answered; its answer must come from one of the engines."""
    deadline = time.monotonic() + bench.target.settle_s
    while True:
        question = bench.ask("tokens=1", model=model)
        answer, came = await _answer(bench, question)
        if answer is not None and answer.status == 200:
            break
        if (answer is not None and answer.status < 500) or time.monotonic() > deadline:
            raise Unavailable(
                f"the gateway at {bench.target.url} does not answer for {model!r}: {came}",
                next_step=f"see its configuration, then {option} and --key",
            )
        await asyncio.sleep(_LOOK_EVERY_S)
    if not await bench.seen(question):
        raise Unavailable(
            f"{model!r} was answered, but not by one of the engines: {came}",
            next_step="let the gateway send it to: "
            + ", ".join(engine.url for engine in bench.engines),
        )


async def _answer(bench: Bench, question: Question) -> tuple[Answer | None, str]:
    """What came, if anything, and in words."""
    try:
        async with asyncio.timeout(bench.target.settle_s):
            answer = await bench.whole(question)
            return answer, answer.brief
    except TimeoutError:
        return None, f"nothing came for {bench.target.settle_s:g} s"
    except (OSError, Cut) as error:
        return None, str(error)
    finally:
        await bench.close()
