"""One entry of LiteLLM's `model_list`: the upstream that it becomes, or why it becomes none."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from modelyard.core.routes import Operation
from modelyard.gateway.config import LONGEST_NAME, is_name
from modelyard.gateway.litellm_keys import SecretNames, variable_of
from modelyard.gateway.litellm_notes import HIDDEN, Notes, Section, plain
from modelyard.gateway.litellm_providers import (
    ELSEWHERE,
    LEFT_OUT,
    PROVIDERS,
    Provider,
    family,
    provider_of,
)
from modelyard.gateway.litellm_reasons import OF_DEPLOYMENT, OF_MODEL, OF_MODEL_INFO

LONGEST_S = 86_400
_PRICES = {
    "input_cost_per_token": "input_per_million",
    "cache_read_input_token_cost": "cached_per_million",
    "output_cost_per_token": "output_per_million",
}
_DEAREST_PER_TOKEN = 1000.0
_BESIDE = (
    "weight", "rpm", "tpm", "order", "timeout", "stream_timeout", "max_retries", *_PRICES,
)  # fmt: skip
"""Settings that LiteLLM takes beside `litellm_params` too."""
_BY_MODE: Mapping[str, tuple[Operation, ...]] = {
    "chat": (),
    "completion": ("completions",),
    "embedding": ("embeddings",),
    "responses": ("responses",),
}
_HOST = re.compile(r"[A-Za-z0-9._~\-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_PATH = re.compile(r"[!-~]*")
_VERSION = re.compile(r"/v\d+[a-z0-9]*(/|$)")


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry amounts to."""

    name: str
    path: str
    upstream: dict[str, Any]
    """`url`, and `model`, `max_concurrency`, `api_key_env`, `price` where they are set."""
    operations: tuple[Operation, ...]
    """Empty: the defaults."""
    counts_messages: bool
    order: float | None
    weight: float | None
    rpm: int | None
    tpm: int | None
    timeout_s: float | None
    stream_timeout_s: float | None
    retries: int | None
    retries_setting: str
    cooldown_s: float | None
    params: Section
    """For notes on what its neighbours make of it."""


class _Left(Exception):
    """It becomes no upstream."""

    def __init__(self, why: str, instead: str, value: Any = None) -> None:
        super().__init__(why)
        self.why = why
        self.instead = instead
        self.value = value


class DeploymentReader:
    """Reads entries one by one."""

    def __init__(
        self,
        notes: Notes,
        variables: Mapping[str, str],
        names: SecretNames,
        credentials: Mapping[str, Section],
    ) -> None:
        """`credentials`: `credential_values` by their name."""
        self._notes = notes
        self._variables = variables
        self._names = names
        self._credentials = credentials
        self.used_credentials: set[str] = set()

    def read(self, path: str, item: Any) -> Deployment | None:
        """What it becomes; None, and a note, when it becomes nothing."""
        try:
            if not isinstance(item, Mapping):
                raise _Left("is no mapping", "write it into the new file by hand", item)
            return self._read(Section(path, item, self._notes, self._variables))
        except _Left as left:
            self._notes.add(path, left.value, left.why, left.instead)
            return None

    def _read(self, entry: Section) -> Deployment:
        name = entry.text("model_name")
        params, info = entry.below("litellm_params"), entry.below("model_info")
        if name is None:
            raise _Left("has no model_name", "give it one")
        self._gather(entry, params, info)
        model = params.text("model")
        if model is None:
            raise _Left(f"{name}: litellm_params has no model", "give it one")
        provider, own = _provider(name, model, params.text("custom_llm_provider"))
        operations = _operations(name, provider, info.text("mode"))
        base = _base(params)
        url = _url(provider, base, model, params)
        says_key = "api_key" in params
        key = variable_of(
            params, "api_key", self._names, f"{name}_api_key", may_be_placeholder=base is not None
        )
        if not says_key and provider.key_env is not None:
            key = _known_key(provider.key_env, base, params)
        upstream: dict[str, Any] = {"url": url}
        if provider.model_prefix and not own.startswith("accounts/"):
            own = provider.model_prefix + own
        if own != name:
            upstream["model"] = own
        if (room := params.whole("max_parallel_requests")) is not None:
            upstream["max_concurrency"] = room
            params.note(
                "max_parallel_requests",
                room,
                "is max_concurrency: a request beyond it is refused at once, and did wait before",
                "set queueing.max_waiting of the model if requests are to wait",
                taken=True,
            )
        if key is not None:
            upstream["api_key_env"] = key
        if price := _price(params):
            upstream["price"] = price
        weight = params.number("weight", over=-1)
        if weight is not None and weight < 0:
            params.wrong("weight", weight)
            weight = None
        retries_setting = _retries_setting(params)
        deployment = Deployment(
            name=name,
            path=entry.path,
            upstream=upstream,
            operations=operations,
            counts_messages=provider.counts_messages,
            order=params.number("order", over=-(2.0**53)),
            weight=weight,
            rpm=params.whole("rpm"),
            tpm=params.whole("tpm"),
            timeout_s=try_seconds(params, "timeout"),
            stream_timeout_s=seconds(params, "stream_timeout"),
            retries=params.whole(retries_setting, least=0, most=1000),
            retries_setting=retries_setting,
            cooldown_s=seconds(params, "cooldown_time"),
            params=params,
        )
        params.rest(OF_DEPLOYMENT)
        info.rest(OF_MODEL_INFO)
        entry.rest(OF_MODEL)
        return deployment

    def _gather(self, entry: Section, params: Section, info: Section) -> None:
        """Bring together what may stand in several places."""
        for setting in _BESIDE:
            for place in (entry, info):
                if setting not in place:
                    continue
                if setting in params:
                    place.leave(
                        setting,
                        f"{params.at(setting)} goes before it",
                        "leave one of them",
                    )
                else:
                    params.fill(place.path, {setting: place.take(setting)})
        if "litellm_credential_name" not in params:
            return
        named = params.text("litellm_credential_name")
        if named is None:
            return
        held = self._credentials.get(named)
        if held is None:
            params.note(
                "litellm_credential_name",
                named,
                "no credential of this name is in the file; it may be in LiteLLM's database",
                "add api_key_env to the upstream",
            )
            return
        self.used_credentials.add(named)
        for setting, value in held.left().items():
            if setting in params:
                held.note(setting, value, f"{params.at(setting)} goes before it", "leave one")
            else:
                params.fill(held.path, {setting: value})


def _provider(name: str, model: str, named: str | None) -> tuple[Provider, str]:
    if len(name) > LONGEST_NAME:
        raise _Left(f"its name is longer than {LONGEST_NAME} letters", "give it a shorter one")
    if not is_name(name):
        raise _Left("its name is empty or has control characters", "give it another one")
    if "*" in name or "*" in model:
        raise _Left(
            "is a pattern of names; the gateway serves models by their names",
            "write an entry for each model that is asked for",
            name,
        )
    prefix, own = provider_of(model, named)
    why_not = LEFT_OUT.get(family(prefix))
    if why_not is not None:
        raise _Left(why_not[0], why_not[1], model)
    provider = PROVIDERS.get(prefix)
    if provider is None:
        named = f"its provider {prefix!r}" if prefix else "its provider, which it does not name,"
        raise _Left(f"{named} is none that this converter knows", ELSEWHERE, model)
    if not own.strip():
        raise _Left("names no model of the provider", "name one", model)
    if own.startswith("responses/"):
        raise _Left(
            "chat was turned into the responses API; the gateway does not turn one into another",
            "let clients ask /v1/responses, and leave `responses/` out of the name",
            model,
        )
    return provider, own


def _operations(name: str, provider: Provider, mode: str | None) -> tuple[Operation, ...]:
    if mode is None or mode == "chat":
        return provider.operations
    found = _BY_MODE.get(mode)
    if found is None:
        raise _Left(
            f"{name}: its mode {mode!r} is nothing that the gateway serves: chat, completions, "
            "embeddings, responses and messages",
            "serve it from elsewhere",
            mode,
        )
    return found


def _price(params: Section) -> dict[str, float]:
    """LiteLLM's prices are of one token, and in dollars."""
    found: dict[str, float] = {}
    for theirs, ours in _PRICES.items():
        each = params.number(theirs, over=-1)
        if each is None:
            continue
        if not 0 <= each <= _DEAREST_PER_TOKEN:
            params.wrong(theirs, each)
            continue
        found[ours] = round(each * 1_000_000, 9)
    return found


def _base(params: Section) -> str | None:
    given = "api_base" in params or "base_url" in params
    if "api_base" in params and "base_url" in params:
        params.leave("base_url", "api_base goes before it", "leave one of them")
    base = params.text("api_base") or params.text("base_url")
    if given and base is None:
        # A default address in its place would get what was meant for another.
        raise _Left("where its upstream is can't be known from its api_base", "write it out")
    return base


def _url(provider: Provider, base: str | None, model: str, params: Section) -> str:
    if base is None:
        if provider.url is None:
            raise _Left("it needs an api_base", "add one", model)
        return provider.url
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError:
        raise _Left("its api_base is no URL", "write http(s)://HOST[:PORT]", HIDDEN) from None
    fits = _HOST.fullmatch(parts.netloc) and _PATH.fullmatch(parts.path) and port != 0
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or not fits:
        raise _Left("its api_base is no URL of a host alone", "write http(s)://HOST[:PORT]", HIDDEN)
    if parts.query or parts.fragment or "?" in base or "#" in base:
        raise _Left(
            "its api_base has a query, which the gateway sends to no upstream",
            "give its key by api_key_env",
            HIDDEN,
        )
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    root = f"{parts.scheme.lower()}://{parts.netloc}"
    if path.endswith("/v1"):
        path = path.removesuffix("/v1")
        if path.endswith("/v1"):
            raise _Left("its api_base ends with /v1/v1", "write it without", HIDDEN)
        return root + path
    if _VERSION.search(path):
        raise _Left(f"its API is below {path}, not below /v1", ELSEWHERE, model)
    if not provider.adds_v1:
        params.note(
            "api_base",
            base,
            f"LiteLLM asks {path}/chat/completions there, the gateway {path}/v1/chat/completions",
            "see that the upstream serves it; most do",
            taken=True,
        )
    return root + path


def _known_key(variable: str, base: str | None, params: Section) -> str | None:
    """The key that LiteLLM finds by itself."""
    if base is None:
        return variable
    params.note(
        "api_key",
        None,
        f"LiteLLM sends what is in {variable} to {base}, if it is set; the gateway sends no key",
        f"add api_key_env: {variable} to the upstream if it needs that",
        taken=True,
    )
    return None


def _retries_setting(params: Section) -> str:
    if "num_retries" in params:
        params.leave("max_retries", "num_retries goes before it", "leave one of them")
        return "num_retries"
    return "max_retries"


def try_seconds(section: Section, name: str) -> float | None:
    """LiteLLM's time of one try, with a note on what it is here."""
    found = seconds(section, name)
    if found is not None:
        section.note(
            name,
            plain(found),
            "was the time of one try; here it is that of silence (first_token_s, gap_s), and "
            "total_s holds all tries of a request",
            "see timeouts of the models: total_s ends long streams too",
            taken=True,
        )
    return found


def seconds(section: Section, name: str) -> float | None:
    """A length of time, of a day at most."""
    found = section.number(name)
    if found is not None and found > LONGEST_S:
        section.note(
            name, plain(found), "the longest time is a day", "see that it is enough", taken=True
        )
        return LONGEST_S
    return found
