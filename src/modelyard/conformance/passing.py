"""What of a request came to the engines, as it came."""

from modelyard.conformance.bench import Bench, Question
from modelyard.conformance.check import Inapplicable
from modelyard.engines.fake_server.ledger import Arrival


async def arrivals(bench: Bench, question: Question) -> list[Arrival]:
    """The question's requests at the engines.

    Raises Broken where none arrived, Inapplicable where the engines do not show them.
    """
    await bench.until_seen(question)
    found = [arrival for engine in bench.engines for arrival in await engine.arrivals(question.tag)]
    if not found:
        raise Inapplicable("the engines do not show what arrived")
    return found
