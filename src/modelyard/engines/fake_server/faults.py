"""Faults set by the control route, for the next requests or for all of them."""

from typing import Annotated

import msgspec

from modelyard.core.errors import InvalidRequest
from modelyard.engines.fake_server.scripts import PLAIN, Script, overlay, parse_script, words_of

ACCEPT = "accept"
"""A rule's `path` that stands for the connection itself."""
_STATIC_KEYS = ("refuse", "hang", "status", "retry_after_s", "garbage", "crash", "crash_code")


class FaultRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule, as `POST /control/faults` takes it."""

    script: str
    """Words of the directive grammar; they override those of the request's own directive."""
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Requests that it applies to before it is spent; None: all."""
    match: str = ""
    """Applies only where the last user message or the prompt contains this."""
    path: str = ""
    """Applies to this path only (`/health`, …); "": chat, completions and embeddings;
    "accept": to connections, which are reset as they come."""


class FaultBook:
    """The rules in force, in the order they were set."""

    def __init__(self) -> None:
        self._rules: list[tuple[FaultRule, Script]] = []

    def __bool__(self) -> bool:
        return bool(self._rules)

    def add(self, rule: FaultRule) -> None:
        """Put a rule in force; raises InvalidRequest where it could never apply."""
        script = parse_script(rule.script)
        if not rule.script.strip():
            raise InvalidRequest("a fault rule needs at least one word in 'script'", param="script")
        if rule.path == ACCEPT and (rule.times is None or script != Script(refuse=True)):
            raise InvalidRequest("a rule for 'accept' takes the script 'refuse' and 'times'")
        if rule.path not in ("", ACCEPT) and not rule.path.startswith("/v1/"):
            useless = [word for word in words_of(script).split() if not _is_static(word)]
            if useless:
                raise InvalidRequest(f"{useless[0]!r} has no meaning for {rule.path}")
        self._rules.append((rule, script))

    def clear(self) -> None:
        """Forget all rules."""
        self._rules.clear()

    def rules(self) -> list[FaultRule]:
        """The rules in force; `times` is what is left of it."""
        return [rule for rule, _ in self._rules]

    def take(self, paths: tuple[str, ...], prompt: str = "") -> Script:
        """What the rules for any of `paths` say of one request; uses up one of their times."""
        script = PLAIN
        left: list[tuple[FaultRule, Script]] = []
        for rule, rule_script in self._rules:
            if rule.path not in paths or rule.match not in prompt:
                left.append((rule, rule_script))
                continue
            script = overlay(script, rule_script)
            if rule.times is None:
                left.append((rule, rule_script))
            elif rule.times > 1:
                left.append((msgspec.structs.replace(rule, times=rule.times - 1), rule_script))
        self._rules = left
        return script


def _is_static(word: str) -> bool:
    return word.partition("=")[0] in _STATIC_KEYS
