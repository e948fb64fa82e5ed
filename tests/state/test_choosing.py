"""Which database: the setting, and what is shown of it."""

from pathlib import Path

import pytest

from modelyard.core.errors import InvalidConfig, StorageError
from modelyard.core.home import Home
from modelyard.settings import load_settings
from modelyard.state.store import Store, open_store

URL = "postgresql://yard:p%40ss-w@db.example:5432/yard"


def test_without_a_setting_it_is_the_file_in_the_home(home: Home) -> None:
    store = open_store(home, load_settings(home.config, {}).state.plain_url(), sole=True)
    store.confirm()
    store.close()
    assert home.state.exists()
    assert store.place == str(home.state)


def test_the_environment_comes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("state: {url: 'postgresql://of-the-file/yard'}\n")
    assert load_settings(file, {}).state.plain_url() == "postgresql://of-the-file/yard"
    monkeypatch.setenv("MODELYARD_STATE__URL", URL)
    settings = load_settings(file, {})
    assert settings.state.plain_url() == URL
    assert "p%40ss" not in f"{settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    monkeypatch.setenv("MODELYARD_STATE__URL", "")
    assert load_settings(file, {}).state.plain_url() is None


@pytest.mark.parametrize(
    "url", ["mysql://u:p%40ss-w@h/d", "p@ss-w", "sqlite:////p@ss-w.db", "p@ss-w://u@h/d"]
)
def test_another_kind_of_url_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"state: {{url: '{url}'}}\n")
    with pytest.raises(InvalidConfig) as refusal:
        load_settings(file, {})
    told = f"{refusal.value.message} {refusal.value.next_step} {refusal.value.__cause__}"
    assert refusal.value.param == "state.url"
    assert "postgresql://USER@HOST" in told
    assert "ss-w" not in told


def test_a_url_that_can_not_be_read_is_not_repeated() -> None:
    with pytest.raises(InvalidConfig) as refusal:
        Store("postgresql://u:p@ss-w:x/y:z@h:port/d")
    assert "ss-w" not in f"{refusal.value.message} {refusal.value.next_step}"


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'")

    monkeypatch.setattr("sqlalchemy.create_engine", not_there)
    with pytest.raises(StorageError, match="driver is not installed") as refusal:
        Store(URL)
    assert refusal.value.next_step == "pip install 'modelyard[postgresql]'"
