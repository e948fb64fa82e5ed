"""The alias journal: only ever added to."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from modelyard.core.errors import IntegrityError
from modelyard.registry.aliases import AliasJournal, AliasMove, replay, until


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


def test_what_an_alias_meant_at_a_time(tmp_path: Path) -> None:
    journal = AliasJournal(tmp_path / "aliases.jsonl")
    gone = AliasMove(at=1009.0, name="yard", alias="production", version=None, actor="user:me")
    journal.append(move(1), move(5), gone)
    at = {t: replay(until(journal.moves(), t)).get("yard", {}) for t in (1000, 1001, 1008, 1009)}
    assert at == {1000: {}, 1001: {"production": 1}, 1008: {"production": 5}, 1009: {}}


def test_a_clock_that_went_back_does_not_change_the_order(tmp_path: Path) -> None:
    """1, then 9 with a clock far ahead, then 3 with the clock set right."""
    journal = AliasJournal(tmp_path / "aliases.jsonl")
    journal.append(move(1), move(9), move(3))
    assert journal.current("yard") == {"production": 3}
    meant = {t: replay(until(journal.moves(), t))["yard"]["production"] for t in (1002, 1005, 1010)}
    assert meant == {1002: 1, 1005: 3, 1010: 3}


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "aliases.jsonl"
    code = (
        "import sys; from pathlib import Path\n"
        "from modelyard.registry.aliases import AliasJournal, AliasMove\n"
        "for n in range(25):\n"
        "    AliasJournal(Path(sys.argv[1])).append(AliasMove(\n"
        "        at=0.0, name=sys.argv[2], alias='a', version=n + 1, actor='user:me'))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("x", "y", "z")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    for name in ("x", "y", "z"):
        versions = [each.version for each in AliasJournal(path).moves(name)]
        assert versions == list(range(1, 26))


def test_whoever_decides_sees_what_others_wrote(tmp_path: Path) -> None:
    journal = AliasJournal(tmp_path / "aliases.jsonl")
    journal.append(move(1))
    assert journal.extend(lambda moves: [move(2)] if moves == [move(1)] else []) == [move(2)]
    assert journal.extend(lambda moves: []) == ()
    assert journal.moves() == [move(1), move(2)]


def test_a_journal_of_the_first_release_is_read(tmp_path: Path) -> None:
    path = tmp_path / "aliases.jsonl"
    line = {"at": 1.5, "name": "yard", "alias": "production", "version": 1, "actor": "user:me"}
    path.write_bytes(msgspec.json.encode({**line, "reason": "", "origin": "modelyard"}) + b"\n")
    assert AliasJournal(path).current("yard") == {"production": 1}
