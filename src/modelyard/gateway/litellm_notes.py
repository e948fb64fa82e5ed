"""Reading a LiteLLM configuration so that nothing is lost: what is not taken is noted.

A `Section` is one mapping of the file. Settings are taken out of it by name; whatever is left at
its end becomes a note, so a setting that nobody thought of can't go unmentioned.
"""

import math
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

HIDDEN = "(hidden)"
REFERENCE = "os.environ/"
"""Before the name of an environment variable that LiteLLM reads in a setting's place."""

_SECRET_NAME = re.compile(
    r"key|secret|token$|token_|password|passwd|credential|authorization|cookie|headers?$|license"
    r"|database_url|redis_url|connection_string|dsn|webhook",
    re.IGNORECASE,
)
_OPEN_NAME = re.compile(
    r"per_token|_tokens?$|tokens_|key_management|key_header|key_alias|tokenizer", re.IGNORECASE
)
_SECRET_LOOK = re.compile(
    r"^(sk|pk|rk|hf|gsk|xai|nvapi|pplx|csk|fw|tvly|ghp|xox\w)[-_]|^AKIA|^AIza|^Bearer |://[^/\s]*@"
    r"|(?=[^\s/]*\d)(?=[^\s/]*[A-Za-z])^[A-Za-z0-9_\-+=.]{28,}$"
)


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One setting that was left out, or that means something else now."""

    path: str
    """`router_settings.redis_host`, `model_list[2].litellm_params.model`."""
    value: Any
    """What it was; secrets are hidden."""
    why: str
    instead: str
    taken: bool = False
    """It has a counterpart, which differs as `why` says."""


class Reason(msgspec.Struct, frozen=True):
    """Why settings with these names are left out: names, or patterns of them."""

    names: tuple[str, ...]
    why: str
    instead: str

    def covers(self, name: str) -> bool:
        """Whether it speaks of a setting."""
        return any(fnmatchcase(name, pattern) for pattern in self.names)


UNKNOWN = Reason(
    (),
    "no setting of LiteLLM that this converter knows",
    "look up in LiteLLM's documentation what it does, and whether you need it here",
)
BOUND_VALUE = "is not a value that LiteLLM's documentation allows here"


class Notes:
    """Gathers notes, each once, in the order in which they were made."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Note] = {}

    def add(self, path: str, value: Any, why: str, instead: str, *, taken: bool = False) -> None:
        """Note a setting; `value` is hidden where its name or look says that it is a secret."""
        name = re.sub(r"\[\d+\]", "", path).rpartition(".")[2]
        note = Note(path=path, value=shown(name, value), why=why, instead=instead, taken=taken)
        self._made.setdefault((path, why), note)

    def all(self) -> tuple[Note, ...]:
        """Those made so far."""
        return tuple(self._made.values())


def shown(name: str, value: Any) -> Any:
    """A value as it may be shown: plain data, without secrets."""
    if isinstance(value, Mapping):
        secret = _is_secret_name(name)
        return {
            str(key): shown("secret" if secret else str(key), below) for key, below in value.items()
        }
    if isinstance(value, list | tuple):
        return [shown(name, below) for below in value]
    if value is None or isinstance(value, bool):
        return value
    if _is_secret_name(name) and not _is_reference(value):
        return HIDDEN
    if isinstance(value, str):
        return HIDDEN if _SECRET_LOOK.search(value) and not _is_reference(value) else value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, int | float) else str(value)


def _is_secret_name(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _OPEN_NAME.search(name)


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(REFERENCE)


def plain(number: float) -> float | int:
    """A number as people write it: 30, not 30.0."""
    return int(number) if number == int(number) else number


class Section:
    """One mapping of the file, with the path that leads to it."""

    def __init__(
        self, path: str, found: Mapping[Any, Any], notes: Notes, variables: Mapping[str, str]
    ) -> None:
        """`variables`: what `os.environ/NAME` stands for, where that is no secret."""
        self.path = path
        self.notes = notes
        self.variables = variables
        self._left = {str(name): value for name, value in found.items()}
        self._paths: dict[str, str] = {}

    def at(self, name: str) -> str:
        """The path of a setting of it."""
        below = f"{self.path}.{name}" if self.path else name
        return self._paths.get(name, below)

    def fill(self, path: str, more: Mapping[Any, Any]) -> None:
        """Add settings that stand elsewhere, except those that are here."""
        for name, value in more.items():
            if self._left.get(str(name)) is None:
                self._left[str(name)] = value
                self._paths[str(name)] = f"{path}.{name}"

    def __contains__(self, name: str) -> bool:
        """Whether a setting is there, and not null."""
        return self._left.get(name) is not None

    def left(self) -> dict[str, Any]:
        """What was not taken so far."""
        return dict(self._left)

    def take(self, name: str) -> Any:
        """The setting as it stands; None when it is not there, or null."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """A setting that is text, or names a variable that holds one."""
        value = self.take(name)
        if value is None:
            return None
        found = self.resolved(name, value)
        if isinstance(found, int | float) and not isinstance(found, bool):
            found = str(found)
        if isinstance(found, str) and found.strip():
            return found.strip()
        if found is not None:
            self.wrong(name, value)
        return None

    def number(self, name: str, *, over: float = 0.0, most: float = 2.0**53) -> float | None:
        """A number over `over` and up to `most`; 0 and less count as not set where `over` is 0."""
        value = self.take(name)
        if value is None:
            return None
        found = self.resolved(name, value)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float | str):
            self.wrong(name, value)
            return None
        try:
            amount = float(found)
        except (ValueError, OverflowError):
            amount = math.nan
        if not over < amount <= most:
            self.wrong(name, value)
            return None
        return amount

    def whole(self, name: str, *, least: int = 1, most: int = 2**53) -> int | None:
        """A whole number from `least` on."""
        given = self._left.get(name)
        amount = self.number(name, over=least - 1, most=most)
        if amount is None:
            return None
        if amount != int(amount):
            self.wrong(name, given)
            return None
        return int(amount)

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value = self.take(name)
        if value is None:
            return None
        found = self.resolved(name, value)
        if isinstance(found, str) and found.lower() in ("true", "false"):
            return found.lower() == "true"
        if isinstance(found, bool):
            return found
        if found is not None:
            self.wrong(name, value)
        return None

    def below(self, name: str) -> "Section":
        """The mapping under a name; empty when there is none."""
        value = self.take(name)
        if value is not None and not isinstance(value, Mapping):
            self.wrong(name, value)
            value = None
        return Section(self.at(name), value or {}, self.notes, self.variables)

    def items(self, name: str) -> list[tuple[str, Any]]:
        """The list under a name, each item with its path."""
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            self.wrong(name, value)
            value = None
        return [(f"{self.at(name)}[{number}]", item) for number, item in enumerate(value or [])]

    def resolved(self, name: str, value: Any) -> Any:
        """What a setting that names a variable amounts to; None, and a note, when nobody knows."""
        if not _is_reference(value):
            return value
        variable = value.removeprefix(REFERENCE)
        if (found := self.variables.get(variable)) is None:
            self.note(
                name,
                value,
                f"it is read from {variable}, which is not set here",
                f"set {variable} and convert again, or write the value into the new file",
            )
            return None
        self.note(
            name,
            value,
            f"taken over with the value that {variable} has now: the new file names no variable "
            "here",
            "change it in the new file when it changes",
            taken=True,
        )
        return found

    def wrong(self, name: str, value: Any) -> None:
        """Note a value that can't be meant."""
        self.note(name, value, BOUND_VALUE, "write the setting into the new file by hand")

    def note(self, name: str, value: Any, why: str, instead: str, *, taken: bool = False) -> None:
        """Note one of its settings."""
        self.notes.add(self.at(name), value, why, instead, taken=taken)

    def leave(self, name: str, why: str, instead: str) -> None:
        """Note a setting, if it is there, and take it out."""
        if name in self._left:
            self.note(name, self._left.pop(name), why, instead)

    def rest(self, reasons: Iterable[Reason]) -> None:
        """Note whatever was not taken: by the first reason that covers it, else as unknown."""
        known = tuple(reasons)
        for name in tuple(self._left):
            reason = next((each for each in known if each.covers(name)), UNKNOWN)
            self.leave(name, reason.why, reason.instead)
