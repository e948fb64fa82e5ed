"""What is particular to a SQLite file."""

import sqlite3
from pathlib import Path

import pytest

from modelyard.core.errors import StorageAway, StorageError
from modelyard.state import sqlite
from modelyard.state.store import open_sqlite


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"these are not the tables you are looking for" * 100)
    with pytest.raises(StorageError, match=r"state\.db") as refusal:
        open_sqlite(path)
    assert "backup" in refusal.value.next_step


def test_a_writer_of_another_process_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_MS", 50)
    path = tmp_path / "home" / "state.db"
    store = open_sqlite(path)
    writer = sqlite3.connect(path, isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")
        assert store.deployments.all() == []
        with pytest.raises(StorageAway, match="locked") as refusal:
            store.meta.set_default_model("chat")
        assert "which other process" in refusal.value.next_step
    finally:
        writer.close()
        store.close()
