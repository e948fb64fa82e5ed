"""Streams arrive as they are made, whole, and at the client's pace (G5, G10)."""

from modelyard.conformance.bench import Bench
from modelyard.conformance.check import Check


async def _whole(bench: Bench) -> str:
    return "yes"


CHECKS: tuple[Check, ...] = (Check(name="streaming/whole", meaning="whole", look=_whole),)
