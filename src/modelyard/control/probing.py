"""Asks a worker over HTTP: has it loaded, does it generate, does it still answer."""

import asyncio

import httpx

from modelyard.core.errors import LaunchFailed
from modelyard.engines.engine import Readiness

_PROBE_TIMEOUT_S = 2.0
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.25
GENERATION_DEADLINE_S = 120.0


class Prober:
    """Probes of one kind of worker; the HTTP client is shared and closed by its owner."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def answers(self, url: str, readiness: Readiness) -> bool:
        """Whether the worker's readiness path has the status that says yes."""
        try:
            response = await self._http.get(url + readiness.path, timeout=_PROBE_TIMEOUT_S)
        except httpx.HTTPError:
            return False
        return response.status_code == readiness.status

    async def loaded(self, url: str, readiness: Readiness) -> None:
        """Return when the weights are loaded; LaunchFailed at the engine's own deadline."""
        pause_s = _FIRST_PAUSE_S
        try:
            async with asyncio.timeout(readiness.load_deadline_s):
                while not await self.answers(url, readiness):
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        except TimeoutError as error:
            raise LaunchFailed(
                f"it did not load its model within {readiness.load_deadline_s:g} s",
                next_step="see its log; a larger model may need a faster disk or more memory",
            ) from error

    async def generates(self, url: str, model: str, *, chat: bool) -> None:
        """Return when a real generation came back (promise E1); LaunchFailed when none does."""
        body: dict[str, object] = {"model": model, "max_tokens": 1, "stream": False}
        if chat:
            path = "/v1/chat/completions"
            body["messages"] = [{"role": "user", "content": "Hi"}]
        else:
            path, body["prompt"] = "/v1/completions", "Hi"
        problem = "no answer"
        try:
            async with asyncio.timeout(GENERATION_DEADLINE_S):
                while True:
                    try:
                        response = await self._http.post(
                            url + path, json=body, timeout=GENERATION_DEADLINE_S
                        )
                        if _has_choice(response):
                            return
                        problem = f"status {response.status_code}: {response.text[:300]}"
                        if 400 <= response.status_code < 500 and response.status_code != 429:
                            raise LaunchFailed(f"its first generation was refused: {problem}")
                    except httpx.HTTPError as error:
                        problem = f"{type(error).__name__}: {error}"
                    await asyncio.sleep(_LONGEST_PAUSE_S)
        except TimeoutError as error:
            raise LaunchFailed(
                f"no generation came back within {GENERATION_DEADLINE_S:g} s ({problem})",
                next_step="see its log",
            ) from error


def _has_choice(response: httpx.Response) -> bool:
    if response.status_code != 200:
        return False
    try:
        return bool(response.json().get("choices"))
    except (ValueError, AttributeError):
        return False
