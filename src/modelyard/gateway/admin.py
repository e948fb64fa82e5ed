"""The gateway's own management routes, for this machine and the holder of its token alone.

GET /admin/requests/{id}    why a recent request went as it did (promise G25)
GET /admin/replicas         health and load of every replica, as this process sees them
GET /admin/limits           what is used of the limits of a key: ?key=ID
"""

import hmac
import ipaddress
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from modelyard.core.errors import InvalidRequest, NotFound, Unauthenticated
from modelyard.core.limits import Bound
from modelyard.gateway.explanations import Explanations
from modelyard.gateway.keys import KeyTable
from modelyard.gateway.limits import LimitBook
from modelyard.gateway.request import Request
from modelyard.gateway.routes import RouteTable

PREFIX = "/admin/"


class Admin:
    """Answers `/admin/…`."""

    def __init__(
        self,
        token: Callable[[], str],
        routes: RouteTable,
        explanations: Explanations,
        keys: KeyTable,
        book: LimitBook,
        metrics_token: Callable[[], str],
    ) -> None:
        """The tokens are asked for each time: they may be made after the start."""
        self._token = token
        self._metrics_token = metrics_token
        self._routes = routes
        self._explanations = explanations
        self._keys = keys
        self._book = book

    def answer(self, request: Request, peer: str) -> bytes:
        """The JSON of a page. Raises what the caller is told instead."""
        self._check(request, peer)
        path = request.path.removeprefix(PREFIX)
        noun, _, rest = path.partition("/")
        if request.method != "GET":
            raise InvalidRequest(f"{request.method} is not served here")
        if noun == "requests" and rest:
            return msgspec.json.encode(self._explain(unquote(rest)))
        if noun == "replicas" and not rest:
            return msgspec.json.encode({"replicas": self._replicas()})
        if noun == "limits" and not rest:
            key = parse_qs(request.query).get("key", [""])[0]
            return msgspec.json.encode({"limits": self._limits(key)})
        raise NotFound(f"there is nothing at {request.path[:200]!r}")

    def check_metrics(self, request: Request, peer: str) -> None:
        """Let whoever is on this machine see `/metrics`, others with the token for it; names,
        traffic and cost are not for everybody who may reach the gateway. Raises Unauthenticated."""
        if _is_loopback(peer):
            return
        expected = self._metrics_token()
        given = request.headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if not expected or not hmac.compare_digest(given, expected.encode()):
            raise Unauthenticated(
                "from another machine the metrics need their token",
                next_step="send 'Authorization: Bearer TOKEN' with the token from "
                "secrets/metrics.token in the gateway's home",
            )

    def _check(self, request: Request, peer: str) -> None:
        expected = self._token()
        given = request.headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        local = _is_loopback(peer)
        if not local or not expected or not hmac.compare_digest(given, expected.encode()):
            raise Unauthenticated(
                "the admin routes are for this machine and the holder of the gateway's token",
                next_step="use: modelyard explain REQUEST_ID",
            )

    def _explain(self, request_id: str) -> Any:
        found = self._explanations.find(request_id)
        if found is None:
            raise NotFound(
                f"nothing is remembered of the request {request_id[:100]!r}",
                next_step="only the last requests are; its record may still be there",
            )
        return found

    def _replicas(self) -> list[dict[str, Any]]:
        now = time.monotonic()
        return [
            {
                "replica": live.route.id,
                "model": live.model,
                "slot": live.slot.slot,
                "url": live.route.url,
                "state": live.circuit.state,
                "takes": live.circuit.takes(now),
                "back_in_s": round(live.circuit.back_in_s(now), 3),
                "in_flight": live.in_flight,
                "dispatched": live.dispatched,
            }
            for live in self._routes.replicas
        ]

    def _limits(self, key_id: str) -> list[dict[str, Any]]:
        found: dict[str, Bound] = {}
        keys = {key.key_id: key for key in self._keys.ring.keys}
        key = keys.get(key_id)
        if key_id and key is None:
            raise NotFound(f"there is no key {key_id[:100]!r}", param="key")
        for model in self._routes.names:
            found |= {bound.id: bound for bound in self._keys.ring.bounds(key, model)}
        return [
            {
                "kind": bound.kind,
                "scope": bound.scope,
                "subject": bound.subject,
                "model": bound.model,
                "amount": bound.in_units(bound.amount),
                "used": bound.in_units(self._book.used(bound)),
            }
            for bound in found.values()
        ]


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)  # how a socket of both kinds tells IPv4
    return found.is_loopback or (mapped is not None and mapped.is_loopback)
