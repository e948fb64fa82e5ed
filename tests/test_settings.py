"""Flags before environment before file before defaults; nothing misspelt goes unnoticed."""

from pathlib import Path

import pytest

from modelyard.core.cost import PriceList
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
        ("cost: {replica_hour: {process: -1}}", "cost.replica_hour.process: ", "config.yaml"),
        ("cost: {replica_hour: {process: .nan}}", "cost.replica_hour.process: ", "config.yaml"),
        (
            "cost: {accelerator_hour: {docker: 1e9}}",
            "cost.accelerator_hour.docker: ",
            "config.yaml",
        ),
        ("cost: {replica_hour: {proces: 1}}", "unknown key 'cost.replica_hour.proces'", "process"),
        ("cost: {currency: euros}", "cost.currency: ", "config.yaml"),
    ],
)
def test_a_bad_file_names_the_key(file: Path, text: str, words: str, next_step: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidConfig) as refusal:
        load_settings(file, {})
    assert words in refusal.value.message
    assert "\n" not in refusal.value.message
    assert next_step in refusal.value.next_step


def test_prices_that_nobody_gave_are_unknown(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(file, {}).cost.prices() == PriceList()
    file.write_text("cost: {currency: USD, replica_hour: {process: 0}}")
    monkeypatch.setenv("MODELYARD_COST__ACCELERATOR_HOUR__DOCKER", "2.5")
    assert load_settings(file, {}).cost.prices() == PriceList(
        currency="USD", replica_hour={"process": 0.0}, accelerator_hour={"docker": 2.5}
    )
