"""What the API asks of the controller's memory."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from modelyard.control.gateways import Gateways
from modelyard.control.judging import Judge
from modelyard.control.reconciler import Reconciler
from modelyard.control.snapshots import Publisher
from modelyard.core.gateways import GatewayFacts
from modelyard.core.rollout import Rollout

_LOGS_S = 10.0
_ASK_S = 2.0


class ControllerRuntime:
    """Answers from threads: it only reads."""

    def __init__(
        self,
        gateways: Gateways,
        publisher: Publisher,
        gateway_token: str,
        reconciler: Reconciler,
        judge: Judge,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._reconciler = reconciler
        self._judge = judge
        self._gateways = gateways
        self._publisher = publisher
        self._headers = {"authorization": f"Bearer {gateway_token}"}

    def gateways(self) -> tuple[GatewayFacts, ...]:
        return self._gateways.living()

    def in_flight(self) -> Mapping[str, int]:
        return self._gateways.in_flight()

    def routes_version(self) -> int:
        return self._publisher.current.version

    def waits_for(self, rollout: Rollout) -> str:
        return self._reconciler.waits.get((rollout.id, rollout.phase), "")

    def logs(self, deployment: str, lines: int) -> Mapping[str, Sequence[str]]:
        asked = self._reconciler.logs(deployment, lines)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(_LOGS_S)

    def told(self, rollout: Rollout) -> Rollout:
        return self._judge.told(rollout)

    def explanation(self, request_id: str) -> Mapping[str, Any] | None:
        for gateway in self._gateways.living():
            # Its certificate is for clients: from here it may go by another name, and the token
            # is only told to what wrote its address into the home.
            with (
                contextlib.suppress(httpx.HTTPError, ValueError),
                httpx.Client(trust_env=False, verify=False, timeout=_ASK_S) as http,  # noqa: S501
            ):
                path = f"{gateway.url}/admin/requests/{quote(request_id, safe='')}"
                reply = http.get(path, headers=self._headers)
                if reply.status_code == 200:
                    found: Mapping[str, Any] = reply.json()
                    return found
        return None
