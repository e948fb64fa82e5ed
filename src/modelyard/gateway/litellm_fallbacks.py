"""LiteLLM's fallbacks: which models are asked when one fails."""

from collections.abc import Mapping
from typing import Any

from modelyard.gateway.litellm_models import Group
from modelyard.gateway.litellm_notes import Section

_ANY = "*"


class FallbackReader:
    """Reads `fallbacks` and `default_fallbacks` of the router's and the module's settings."""

    def __init__(self, router: Section, module: Section, groups: Mapping[str, Group]) -> None:
        self._router = router
        self._module = module
        self._groups = groups
        self._own: dict[str, list[str]] = {}
        self._any: list[str] = []

    def read(self) -> None:
        """Put them into the models; the router's go before the module's."""
        for section in (self._router, self._module):
            for path, rule in section.items("fallbacks"):
                self._rule(section, path, rule)
        for section in (self._router, self._module):
            for path, target in section.items("default_fallbacks"):
                self._add(section, path, self._any, _ANY, target)
        for name, group in self._groups.items():
            if group.is_later:  # asked only when another fails, which has its fallbacks itself
                continue
            before = group.settings.get("fallbacks", [])
            # The general ones are for models that have none of their own.
            more = self._own.get(name) or self._own.get(group.stands_for) or self._any
            chain = [*before, *(each for each in more if each not in (name, *before))]
            if chain:
                group.settings["fallbacks"] = chain

    def _rule(self, section: Section, path: str, rule: Any) -> None:
        if not isinstance(rule, Mapping):
            self._note(section, path, rule, "is no mapping of a model to others")
            return
        for name, targets in rule.items():
            place = f"{path}.{name}"
            if name != _ANY and name not in self._groups:
                self._note(section, place, targets, "there is no such model in the new file")
                continue
            chain = self._any if name == _ANY else self._own.setdefault(name, [])
            if chain:
                self._note(section, place, targets, "other fallbacks of it go before these")
                continue
            for number, target in enumerate(targets if isinstance(targets, list) else [targets]):
                at = f"{place}[{number}]" if isinstance(targets, list) else place
                self._add(section, at, chain, name, target)

    def _add(self, section: Section, path: str, chain: list[str], name: str, target: Any) -> None:
        if not isinstance(target, str):
            self._note(section, path, target, "is no name of a model; nothing is set for it alone")
        elif target not in self._groups:
            self._note(section, path, target, "there is no such model in the new file")
        elif target == name or target in chain:
            self._note(section, path, target, "is the model itself, or stands there twice")
        else:
            chain.append(target)

    def _note(self, section: Section, path: str, value: Any, why: str) -> None:
        section.notes.add(path, value, why, "see fallbacks of the models in the new file")
