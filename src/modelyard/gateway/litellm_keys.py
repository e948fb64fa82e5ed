"""Where the new file takes its secrets from: it names variables and never holds a secret."""

import re
from collections.abc import Mapping
from typing import Any

from modelyard.gateway.litellm_notes import REFERENCE, Section

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SHELL = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]{0,127})\}?")
PLACEHOLDERS = frozenset(
    ("none", "null", "empty", "dummy", "dummy-key", "dummykey", "fake", "fake-key", "fake_key",
     "no-key", "nokey", "not-needed", "not_needed", "notneeded", "no-key-required", "placeholder",
     "sk-no-key-required", "sk-none", "sk-dummy", "sk-fake", "anything", "any", "x", "na", "n/a",
     "ollama", "lm-studio", "vllm", "local", "test", "key", "my-fake-key", "token-abc123")
)  # fmt: skip
"""What people write where a server of their own wants no key, but LiteLLM does."""


class SecretNames:
    """Gives each literal secret of the file a variable of its own; equal ones share it."""

    def __init__(self) -> None:
        self._by_secret: dict[str, str] = {}
        self._used: set[str] = set()

    def use(self, variable: str) -> None:
        """A name that the file itself speaks of is not given to another secret."""
        self._used.add(variable)

    def of(self, secret: str, wanted: str) -> str:
        """The variable for a secret, called after what it is for."""
        known = self._by_secret.get(secret)
        if known is None:
            known = base = re.sub(r"[^A-Za-z0-9]+", "_", wanted).strip("_").upper()[:100] or "KEY"
            number = 1
            while known in self._used or known[0].isdigit():
                number += 1
                known = f"{'K_' if base[0].isdigit() else ''}{base}_{number}"
            self._used.add(known)
            self._by_secret[secret] = known
        return known


def variable_of(
    section: Section, setting: str, names: SecretNames, wanted: str, *, may_be_placeholder: bool
) -> str | None:
    """The variable that holds the secret of a setting; None, and a note, where none is sent."""
    value = section.take(setting)
    if value is None:
        return None
    if isinstance(value, Mapping | list | bool):
        section.wrong(setting, value)
        return None
    secret = str(value).strip()
    if not secret:
        section.note(setting, value, "is empty: no key is sent", "add api_key_env if one is needed")
        return None
    if secret.startswith(REFERENCE):
        variable = secret.removeprefix(REFERENCE).strip()
        if _VARIABLE.fullmatch(variable):
            return variable
        section.wrong(setting, value)
        return None
    if shell := _SHELL.fullmatch(secret):
        section.note(
            setting,
            value,
            f"was taken as the variable {shell[1]}",
            f"set {shell[1]} where the gateway is started",
            taken=True,
        )
        return shell[1]
    if may_be_placeholder and secret.lower() in PLACEHOLDERS:
        section.note(
            setting,
            value,
            "looks like a placeholder: no key is sent to this upstream",
            "add api_key_env to the upstream if it was a key",
            taken=True,
        )
        return None
    variable = names.of(secret, wanted)
    section.note(
        setting,
        value,
        f"stood in the file; the new one reads it from the variable {variable}",
        f"put it into {variable} where the gateway is started, or into a file: api_key_file or "
        "secret_file in the place of the variable",
        taken=True,
    )
    return variable


def names_in(tree: Any) -> set[str]:
    """Every variable that the file speaks of."""
    found: set[str] = set()
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and value.startswith(REFERENCE):
            found.add(value.removeprefix(REFERENCE).strip())
    return found
