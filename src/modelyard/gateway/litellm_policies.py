"""What LiteLLM's router and module settings say of all models: balancing, retries, times, cache."""

from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.gateway.litellm_deployments import seconds, try_seconds
from modelyard.gateway.litellm_notes import Section, plain
from modelyard.gateway.litellm_reasons import OF_CACHE, OF_MODULE, OF_ROUTER

LONGEST_S = 86_400
DEFAULT_RETRIES = 2
"""LiteLLM's own, where nothing says how many."""
_BALANCING: Mapping[str, tuple[str, str]] = {
    "simple-shuffle": ("round_robin", ""),
    "least-busy": ("least_in_flight", ""),
    "latency-based-routing": (
        "power_of_two",
        (
            "the gateway measures no latencies: of two upstreams it takes the one with fewer "
            "requests in flight, and slow ones have more"
        ),
    ),
    "usage-based-routing": (
        "least_in_flight",
        "the gateway counts requests in flight, not tokens of the last minute",
    ),
    "usage-based-routing-v2": (
        "least_in_flight",
        "the gateway counts requests in flight, not tokens of the last minute",
    ),
    "cost-based-routing": ("least_in_flight", "the gateway does not choose by price"),
}
_AFFINITY: Mapping[str, tuple[str, str | None, str]] = {
    "prompt_caching": (
        "prefix_affinity",
        None,
        "prompts that begin alike go to one upstream",
    ),
    "deployment_affinity": ("session", "key", "all requests of a key go to one upstream"),
    "session_affinity": (
        "session",
        "session",
        "a session is told by the header x-session-id",
    ),
}
ENFORCED = "enforce_model_rate_limits"


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every model, unless its entries say otherwise."""

    balancing: str | None
    """None: nothing was said."""
    sticky_by: str | None
    shuffles: bool
    """Requests are spread by weight."""
    limits_hold: bool
    """`rpm` and `tpm` bound requests; else they only spread them."""
    timeout_s: float | None
    stream_timeout_s: float | None
    retries: int | None
    failures: int | None
    cooldown_s: float | None
    caching: dict[str, Any]
    room: int | None
    """Requests at once of an upstream that does not say it."""
    origins: tuple[tuple[str, str], ...]
    """From which setting each came."""


class PolicyReader:
    """Reads `router_settings` and `litellm_settings`, which say the same things in part."""

    def __init__(self, router: Section, module: Section) -> None:
        self._router = router
        self._module = module
        self._origins: list[tuple[str, str]] = []

    def read(self) -> Policies:
        """Take what has a counterpart; the rest is left for `rest`."""
        balancing, shuffles, by_usage = self._balancing()
        checks, sticky, chosen = self._checks()
        timeout = self._either(("timeout", "request_timeout"), "timeouts")
        retries_in = self._first("num_retries", "num_retries")
        retries = (
            None if retries_in is None else retries_in.whole("num_retries", least=0, most=1000)
        )
        if retries_in is not None and retries is not None:
            self._came(retries_in, "num_retries", "retries.max_attempts")
        fails_in = self._first("allowed_fails", "allowed_fails")
        failures = (
            None if fails_in is None else fails_in.whole("allowed_fails", least=0, most=10**6)
        )
        if fails_in is not None and failures is not None:
            self._came(fails_in, "allowed_fails", "breaking.failures")
            fails_in.note(
                "allowed_fails",
                failures,
                f"counted failures of a minute; here {failures + 1} in a row leave an upstream "
                "alone",
                "breaking.outlier_ratio acts on those that fail in part",
                taken=True,
            )
        policies = Policies(
            balancing=chosen or balancing,
            sticky_by=sticky,
            shuffles=shuffles and chosen is None,
            limits_hold=by_usage or checks,
            timeout_s=timeout,
            stream_timeout_s=self._seconds(self._router, "stream_timeout", "timeouts"),
            retries=retries,
            failures=None if failures is None else failures + 1,
            cooldown_s=self._seconds(self._router, "cooldown_time", "breaking.open_s"),
            caching=self._caching(),
            room=self._room(),
            origins=(),
        )
        return msgspec.structs.replace(policies, origins=tuple(self._origins))

    def rest(self) -> None:
        """Note what nobody took."""
        self._router.rest(OF_ROUTER)
        self._module.rest(OF_MODULE)

    def _came(self, section: Section, name: str, target: str) -> None:
        self._origins.append((section.at(name), target))

    def _first(self, of_router: str, of_module: str) -> Section | None:
        """Where a setting stands that both may hold; the router's goes first."""
        if of_router in self._router:
            self._module.leave(
                of_module, f"{self._router.at(of_router)} goes before it", "leave one of them"
            )
            return self._router
        return self._module if of_module in self._module else None

    def _either(self, names: tuple[str, str], target: str) -> float | None:
        found = self._first(*names)
        if found is None:
            return None
        name = names[0] if found is self._router else names[1]
        value = try_seconds(found, name)
        if value is not None:
            self._came(found, name, target)
        return value

    def _seconds(self, section: Section, name: str, target: str) -> float | None:
        value = seconds(section, name)
        if value is not None:
            self._came(section, name, target)
        return value

    def _balancing(self) -> tuple[str | None, bool, bool]:
        """Which, whether it goes by weights, and whether `rpm` and `tpm` bound."""
        named = self._router.text("routing_strategy")
        if named is None:
            return None, True, False
        known = _BALANCING.get(named)
        if known is None:
            self._router.note(
                "routing_strategy",
                named,
                "is none that this converter knows",
                "set balancing of the models; it is least_in_flight now",
            )
            return None, False, False
        balancing, differs = known
        self._came(self._router, "routing_strategy", "balancing")
        if differs:
            self._router.note(
                "routing_strategy", named, differs, "see balancing of the models", taken=True
            )
        return balancing, named == "simple-shuffle", named.startswith("usage-based")

    def _checks(self) -> tuple[bool, str | None, str | None]:
        """Whether limits are held, what sessions hold on to, and the balancing that does so."""
        holds = self._router.flag("enable_pre_call_checks")
        if holds is not None:
            self._router.note(
                "enable_pre_call_checks",
                holds,
                "rpm and tpm become limits where it is on; whether a prompt is too long is known "
                "by context_length alone",
                "set context_length and tokenizer of the models",
                taken=True,
            )
        holds = bool(holds)
        sticky = chosen = None
        for path, check in self._router.items("optional_pre_call_checks"):
            named = check if isinstance(check, str) else ""
            affinity = _AFFINITY.get(named)
            if named == ENFORCED:
                holds = True
                self._origins.append((path, "limits"))
            elif affinity is None or chosen is not None:
                self._router.notes.add(
                    path,
                    check,
                    "has no counterpart"
                    if affinity is None
                    else "an upstream is chosen in one way; another one was named before",
                    "see balancing of the models",
                )
            else:
                chosen, sticky, how = affinity
                self._origins.append((path, "balancing"))
                self._router.notes.add(
                    path, check, f"became balancing: {chosen}: {how}",
                    "see balancing and sticky_by of the models", taken=True,
                )  # fmt: skip
        return holds, sticky, chosen

    def _room(self) -> int | None:
        room = self._router.whole("default_max_parallel_requests")
        if room is not None:
            self._came(self._router, "default_max_parallel_requests", "max_concurrency")
            self._router.note(
                "default_max_parallel_requests",
                room,
                "a request beyond it is refused at once, and did wait before",
                "set queueing.max_waiting of the models if requests are to wait",
                taken=True,
            )
        return room

    def _caching(self) -> dict[str, Any]:
        """`caching` of every model."""
        on = self._module.flag("cache")
        if (of_router := self._router.flag("cache_responses")) is not None:
            self._came(self._router, "cache_responses", "caching.mode")
            on = on or of_router
        params = self._module.below("cache_params")
        kind, mode = params.text("type"), params.text("mode")
        ttl_name = "ttl" if "ttl" in params else "default_in_redis_ttl"
        ttl = params.number(ttl_name, most=10**9)
        if not on:
            for name, value in (("type", kind), ("mode", mode), (ttl_name, ttl)):
                if value is not None:
                    params.note(name, value, "the cache is off", "caching of a model turns it on")
            params.rest(OF_CACHE)
            return {}
        self._came(self._module, "cache", "caching.mode")
        if kind not in (None, "local"):
            params.note(
                "type",
                kind,
                "the cache is in the memory of the gateway's process, and knows equal requests",
                "cache.max_bytes says how large it is",
                taken=True,
            )
        caching: dict[str, Any] = {"mode": "all"}
        if mode == "default_off":
            caching["mode"] = "off"
        if mode is not None:
            params.note(
                "mode",
                mode,
                f"is caching.mode: {caching['mode']}; requests can't opt in or out, but where the "
                "mode is deterministic, by the header x-modelyard-cache",
                "see caching.mode of the models",
                taken=True,
            )
        if ttl is not None:
            self._came(params, ttl_name, "caching.ttl_s")
            caching["ttl_s"] = plain(ttl)
        if kind == "local":
            self._came(params, "type", "caching")
        params.rest(OF_CACHE)
        return caching


def times(
    timeout_s: float | None, stream_timeout_s: float | None, retries: int | None
) -> dict[str, Any]:
    """LiteLLM's time of one try as the times of a request and its retries.

    Theirs ends a try that sends nothing for so long; a stream may last longer than it.
    """
    found: dict[str, Any] = {}
    silent = stream_timeout_s or timeout_s
    if silent is not None:
        found["first_token_s"] = found["gap_s"] = plain(silent)
    if timeout_s is not None:
        tries = 1 + (DEFAULT_RETRIES if retries is None else retries)
        found["total_s"] = plain(min(timeout_s * tries, LONGEST_S))
    return found


def breaking(failures: int | None, open_s: float | None) -> dict[str, Any]:
    """When an upstream that fails is left alone, and for how long."""
    found: dict[str, Any] = {}
    if failures is not None:
        found["failures"] = failures
    if open_s is not None:
        found["open_s"] = plain(open_s)
        found["max_open_s"] = plain(max(open_s, 60.0))
    return found
