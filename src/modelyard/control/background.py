"""Loops beside the reconcile loop: each goes on whatever happens in it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)
Loop = Callable[[], Awaitable[None]]
_AGAIN_S = 5.0


async def keep_on(name: str, loop: Loop) -> None:
    """Run a loop until cancelled; a fault ends one run of it, is said once, and it begins anew."""
    trouble = ""
    while True:
        try:
            await loop()
        except Exception as error:  # the edge: no fault here may reach the reconcile loop
            told = f"{type(error).__name__}: {error}"
            if told != trouble:
                log.exception("%s failed and begins again", name)
            trouble = told
        await asyncio.sleep(_AGAIN_S)
