"""Moving aliases: journalled first, mirrored then. And what they meant at any time."""

import time
from collections.abc import Callable
from itertools import pairwise

import msgspec

from modelyard.core.errors import ModelyardError, NotFound
from modelyard.core.refs import Ref, check_alias, check_name
from modelyard.registry.aliases import AliasMove, replay, until
from modelyard.registry.mirror import Mirror
from modelyard.registry.reading import storage_error
from modelyard.registry.stores import Stores, actor


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The aliases of one name over time."""

    name: str
    moves: tuple[AliasMove, ...]
    """In the order they were made, which their times may not have."""
    aliases: dict[str, int]
    """Alias → version number after those moves."""
    warnings: tuple[str, ...] = ()
    """Such as a clock that went back, or a catalogue that could not be asked for moves."""


class Aliases:
    """Lets aliases mean versions."""

    def __init__(
        self, stores: Stores, mirror: Mirror, clock: Callable[[], float] = time.time
    ) -> None:
        self._stores = stores
        self._mirror = mirror
        self._clock = clock

    def set(self, ref: str | Ref, alias: str, reason: str) -> tuple[str, ...]:
        """See `Registry.set_alias`."""
        check_alias(alias)
        with self._stores.in_use():
            version = self._stores.lookup.get(ref)
            warnings = self._move(version.name, alias, version.version, reason)
        self._mirror.catch_up(warnings)
        return tuple(warnings)

    def remove(self, name: str, alias: str, reason: str) -> tuple[str, ...]:
        """See `Registry.remove_alias`."""
        check_name(name)
        check_alias(alias)
        aliases = self._stores.aliases.current(name)
        if alias not in aliases:
            known = ", ".join(f"{name}@{each}" for each in sorted(aliases)) or "none"
            raise NotFound(
                f"no alias {name}@{alias}; there is {known}",
                next_step=f"modelyard models history {name} shows how aliases were moved",
                param="alias",
            )
        warnings = self._move(name, alias, None, reason)
        self._mirror.catch_up(warnings)
        return tuple(warnings)

    def history(self, name: str, at: float | None) -> History:
        """See `Registry.history`."""
        self._stores.lookup.get(check_name(name))
        warnings = self._ask_catalogue(name)
        moves = self._stores.aliases.moves(name)
        warnings += [
            f"the clock went back by {before.at - move.at:.0f} s between moves {number} and "
            f"{number + 1}: their order holds, their times don't"
            for number, (before, move) in enumerate(pairwise(moves), start=1)
            if move.at < before.at
        ]
        made = moves if at is None else until(moves, at)
        return History(
            name=name,
            moves=tuple(made),
            aliases=replay(made).get(name, {}),
            warnings=tuple(warnings),
        )

    def _ask_catalogue(self, name: str) -> list[str]:
        try:
            synced = self._mirror.sync([name], thorough=True)
        except ModelyardError as error:
            return [f"moves made in MLflow are not known ({error})"]
        return [*synced.tampering, *synced.warnings]

    def _move(self, name: str, alias: str, version: int | None, reason: str) -> list[str]:
        move = AliasMove(
            at=self._clock(),
            name=name,
            alias=alias,
            version=version,
            actor=actor(),
            reason=" ".join(reason.split()),
        )
        warnings: list[str] = []

        def decide(moves: list[AliasMove]) -> list[AliasMove]:
            if replay(moves).get(name, {}).get(alias) == version:
                return []
            if moves and moves[-1].at > move.at:
                behind_s = moves[-1].at - move.at
                warnings.append(
                    f"the clock is {behind_s:.0f} s behind the last move in the journal; "
                    "this move comes after that one all the same"
                )
            return [move]

        try:
            self._stores.records.mark_unmirrored(name)
            self._stores.aliases.extend(decide)
        except OSError as error:
            home = self._stores.home.root
            raise storage_error(error, f"moving {name}@{alias}", home) from error
        return warnings
