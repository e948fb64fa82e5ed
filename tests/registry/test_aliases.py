"""The alias journal: only ever added to."""

from pathlib import Path

import pytest

from modelyard.core.errors import IntegrityError
from modelyard.registry.aliases import AliasJournal, AliasMove


def move(version: int, *, alias: str = "production", name: str = "yard") -> AliasMove:
    return AliasMove(
        at=1000.0 + version, name=name, alias=alias, version=version, actor="user:me", reason="why"
    )


def test_moves_are_kept_in_order_and_the_last_one_counts(tmp_path: Path) -> None:
    journal = AliasJournal(tmp_path / "home" / "aliases.jsonl")
    assert journal.current("yard") == {}
    moves = [move(1), move(2), move(1, alias="canary"), move(7, name="other")]
    for each in moves:
        journal.append(each)
    assert journal.moves() == moves
    assert journal.current("yard") == {"production": 2, "canary": 1}


def test_a_line_cut_short_by_a_crash_is_not_a_move(tmp_path: Path) -> None:
    path = tmp_path / "aliases.jsonl"
    journal = AliasJournal(path)
    journal.append(move(1))
    with path.open("ab") as file:
        file.write(b'{"at":1.0,"name":"ya')
    assert journal.moves() == [move(1)]
    journal.append(move(2))
    assert journal.moves() == [move(1), move(2)]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "aliases.jsonl"
    path.write_bytes(b'{"at":"x"}\n')
    with pytest.raises(IntegrityError, match="line 1 of the alias journal"):
        AliasJournal(path).moves()
