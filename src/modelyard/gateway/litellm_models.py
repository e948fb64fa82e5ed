"""Entries of `model_list` with one name become one model with several upstreams."""

from collections.abc import Sequence
from typing import Any

from modelyard.gateway.config import LONGEST_NAME
from modelyard.gateway.litellm_deployments import Deployment
from modelyard.gateway.litellm_notes import plain
from modelyard.gateway.litellm_policies import Policies, breaking, times

_DEFAULTS = ("chat", "completions", "embeddings", "responses", "messages")
_LARGEST = 2**53
_ONE = "is one for the model: the largest of its entries counts"
Model = dict[str, Any]


class Group:
    """One model on the way to being written."""

    def __init__(self, settings: Model, paths: list[str], *, stands_for: str = "") -> None:
        self.settings = settings
        self.paths = paths
        """The entries that it came from."""
        self.stands_for = stands_for
        """The model that it is an alias or a later choice of."""
        self.is_later = False


def models_of(
    deployments: Sequence[Deployment], policies: Policies, taken: set[str]
) -> dict[str, Group]:
    """Models by name. `taken`: names that aliases have; an entry's `order` may make more."""
    by_name: dict[str, list[Deployment]] = {}
    for each in deployments:
        by_name.setdefault(each.name, []).append(each)
    found: dict[str, Group] = {}
    names = taken | by_name.keys()
    for name, members in by_name.items():
        tiers = _tiers(members)
        chain = [name, *(_name_of_tier(name, number, names) for number in range(2, len(tiers) + 1))]
        for own, tier in zip(chain, tiers, strict=True):
            found[own] = _group(own, tier, policies)
            found[own].is_later = own != name
        if len(chain) > 1:
            found[name].settings["fallbacks"] = chain[1:]
            _note_order(members, chain)
    return found


def _tiers(members: list[Deployment]) -> list[list[Deployment]]:
    """Those that are asked first, then those that are asked when these fail."""
    orders = sorted({each.order for each in members if each.order is not None})
    if len(orders) < 2 and not (orders and any(each.order is None for each in members)):
        for each in members:
            if each.order is not None:
                each.params.note(
                    "order", plain(each.order), "all entries of its model have the same",
                    "nothing is needed",
                )  # fmt: skip
        return [members]
    last = [each for each in members if each.order is None]
    tiers = [[each for each in members if each.order == order] for order in orders]
    return [*tiers, last] if last else tiers


def _name_of_tier(name: str, number: int, names: set[str]) -> str:
    wanted = base = f"{name[: LONGEST_NAME - 12]}-order-{number}"
    again = 1
    while wanted in names:
        again += 1
        wanted = f"{base}-{again}"
    names.add(wanted)
    return wanted


def _note_order(members: list[Deployment], chain: list[str]) -> None:
    for each in members:
        if each.order is None:
            continue
        each.params.note(
            "order",
            plain(each.order),
            f"entries of a later order are models of their own, which {chain[0]} falls back on: "
            f"{', '.join(chain[1:])}; clients see them too",
            "let keys name the models that they may ask",
            taken=True,
        )


def _group(name: str, members: list[Deployment], policies: Policies) -> Group:
    members, operations = _of_one_kind(members)
    members = _once(name, members)
    settings: Model = {"name": name, "upstreams": [_upstream(each, name) for each in members]}
    _share(settings, members, policies)
    if operations:
        settings["operations"] = list(operations)
    if all(each.counts_messages for each in members):
        settings["tokenizer"] = "messages"
    if policies.sticky_by is not None:
        settings["sticky_by"] = policies.sticky_by
    retries = _largest(members, "retries", "")
    retries = policies.retries if retries is None else int(retries)
    timeout = _largest(members, "timeout_s", "timeout")
    stream = _largest(members, "stream_timeout_s", "stream_timeout")
    cooldown = _largest(members, "cooldown_s", "cooldown_time")
    settings["timeouts"] = times(
        policies.timeout_s if timeout is None else timeout,
        policies.stream_timeout_s if stream is None else stream,
        retries,
    )
    if retries is not None:
        settings["retries"] = {"max_attempts": retries + 1}
    settings["breaking"] = breaking(
        policies.failures, policies.cooldown_s if cooldown is None else cooldown
    )
    settings["caching"] = dict(policies.caching)
    for each in settings["upstreams"]:
        if policies.room is not None:
            each.setdefault("max_concurrency", policies.room)
    return Group(
        {key: value for key, value in settings.items() if value != {}},
        [each.path for each in members],
    )


def _of_one_kind(members: list[Deployment]) -> tuple[list[Deployment], tuple[str, ...]]:
    """Those that serve something in common, and what."""
    common: tuple[str, ...] = members[0].operations or _DEFAULTS
    kept: list[Deployment] = []
    for each in members:
        narrower = tuple(op for op in common if op in (each.operations or _DEFAULTS))
        if narrower:
            common = narrower
            kept.append(each)
        else:
            each.params.notes.add(
                each.path, each.name, "serves nothing that the entries of its name before it do",
                "give it a name of its own",
            )  # fmt: skip
    return kept, () if common == _DEFAULTS else common


def _once(name: str, members: list[Deployment]) -> list[Deployment]:
    """Each upstream once: the gateway tells them apart by place, name there and key."""
    kept: dict[tuple[Any, ...], Deployment] = {}
    for each in members:
        place = tuple(_upstream(each, name).get(key) for key in ("url", "model", "api_key_env"))
        first = kept.setdefault(place, each)
        if first is not each:
            each.params.notes.add(
                each.path, each.name, f"is the same upstream as {first.path}",
                "set weight of that one if it is to get more",
            )  # fmt: skip
    return list(kept.values())


def _upstream(each: Deployment, name: str) -> dict[str, Any]:
    """As it stands below a model of this name, which need not be its own."""
    upstream = dict(each.upstream)
    if name != each.name:
        upstream.setdefault("model", each.name)
    return upstream


def _share(settings: Model, members: list[Deployment], policies: Policies) -> None:
    """Weights, and limits, from `weight`, `rpm` and `tpm`."""
    used = _weight_setting(members) if policies.shuffles else None
    if used is not None:
        for upstream, each in zip(settings["upstreams"], members, strict=True):
            upstream["weight"] = plain(getattr(each, used) or 0)
            if getattr(each, used) is None:
                each.params.note(
                    used, None,
                    "is missing where others have it: LiteLLM sends no requests there, and "
                    "neither does this gateway (weight: 0)",
                    "set weight of the upstream in the new file", taken=True,
                )  # fmt: skip
    if used is not None or policies.balancing is not None:
        settings["balancing"] = policies.balancing or "round_robin"
    limits: dict[str, int] = {}
    for setting, kind in (("rpm", "requests_per_min"), ("tpm", "tokens_per_min")):
        amounts = [getattr(each, setting) for each in members]
        holds = policies.limits_hold and all(amount is not None for amount in amounts)
        if holds:
            limits[kind] = min(sum(amounts), _LARGEST)
        for each, amount in zip(members, amounts, strict=True):
            if amount is not None:
                _note_share(each, setting, amount, weighs=used == setting, limits=holds, kind=kind)
    for each in members:
        if each.weight is not None and used != "weight":
            each.params.note(
                "weight", plain(each.weight),
                "nothing is shared by it: it is the only upstream, or not spread by weight",
                "set weight of the upstream in the new file",
            )  # fmt: skip
    if limits:
        settings["limits"] = limits


def _weight_setting(members: list[Deployment]) -> str | None:
    """By which setting LiteLLM would spread requests."""
    if len(members) < 2:
        return None
    for setting in ("weight", "rpm", "tpm"):
        if any((getattr(each, setting) or 0) > 0 for each in members):
            return setting
    return None


def _note_share(
    each: Deployment, setting: str, amount: int, *, weighs: bool, limits: bool, kind: str
) -> None:
    parts = []
    if weighs:
        parts.append("became its weight")
    if limits:
        parts.append(f"is part of the model's {kind}, which is a limit of all its upstreams")
    each.params.note(
        setting,
        amount,
        "; ".join(parts) or "bounds nothing in LiteLLM as it is set up here, and spreads nothing",
        f"limits.{kind} of the model bounds what all callers ask of it",
        taken=bool(parts),
    )


def _largest(members: list[Deployment], field: str, setting: str) -> float | None:
    """Of what the entries say; the others are noted. An empty `setting`: that of retries."""
    told = [(each, getattr(each, field)) for each in members if getattr(each, field) is not None]
    if not told:
        return None
    most: float = max(value for _, value in told)
    for each, value in told:
        if value < most or len(told) < len(members):
            name = setting or each.retries_setting
            each.params.note(name, plain(value), _ONE, "nothing is needed", taken=True)
    return most
