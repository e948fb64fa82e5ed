"""Flags before environment before file before defaults; nothing misspelt goes unnoticed."""

from pathlib import Path

import pytest

from modelyard.core.errors import InvalidConfig
from modelyard.settings import load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def test_defaults_need_no_file(file: Path) -> None:
    settings = load_settings(file, {})
    assert (settings.gateway.port, settings.controller.port) == (8000, 8001)
    file.write_text("# nothing yet\n")
    assert load_settings(file, {}) == settings


def test_what_is_nearer_wins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("gateway: {port: 1, drain_s: 2}\ncontroller: {port: 3}\n")
    monkeypatch.setenv("MODELYARD_GATEWAY__PORT", "4")
    monkeypatch.setenv("MODELYARD_CONTROLLER__PORT", "5")
    settings = load_settings(file, {"gateway": {}, "controller": {"port": 6}})
    assert (settings.gateway.port, settings.gateway.drain_s) == (4, 2)
    assert settings.controller.port == 6


@pytest.mark.parametrize(
    ("text", "words", "next_step"),
    [
        ("gatewy: {}", "unknown key 'gatewy'", "'gateway'"),
        ("gateway: {prot: 1}", "unknown key 'gateway.prot'", "'gateway.port'"),
        ("gateway: {port: many}", "gateway.port", "config.yaml"),
        ("gateway: {port: 70000}", "gateway.port", "MODELYARD_GATEWAY__PORT"),
        ("- a\n- b", "no settings but a list", "gateway"),
        ("a: [", "can't be read", "mend"),
    ],
)
def test_a_bad_file_names_the_key(file: Path, text: str, words: str, next_step: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidConfig) as refusal:
        load_settings(file, {})
    assert words in refusal.value.message
    assert "\n" not in refusal.value.message
    assert next_step in refusal.value.next_step
