"""What ships as the demo model: read without torch, as the registry would read it."""

import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

YARDLING = Path(str(files("modelyard.demo"))) / "yardling"
VERSIONS = (1, 2)
SHIPPED = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "metrics.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
MOST_BYTES = 6_000_000  # both versions together


def read(version: int, name: str) -> Any:
    return json.loads((YARDLING / str(version) / name).read_text(encoding="utf-8"))


def tensors(version: int) -> dict[str, Any]:
    """The header of the safetensors file: 8 bytes of length, then JSON."""
    with (YARDLING / str(version) / "model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


def held_out_accuracy(version: int) -> float:
    accuracy: float = read(version, "metrics.json")["accuracy"]["held_out_sums"]["accuracy"]
    return accuracy


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_is_complete(version: int) -> None:
    assert {path.name for path in (YARDLING / str(version)).iterdir()} == SHIPPED


def test_both_versions_are_small() -> None:
    total = sum(path.stat().st_size for path in YARDLING.rglob("*") if path.is_file())
    assert total < MOST_BYTES


@pytest.mark.parametrize("version", VERSIONS)
def test_the_weights_are_a_small_qwen3(version: int) -> None:
    config = read(version, "config.json")
    header = tensors(version)
    parameters = sum(math.prod(tensor["shape"]) for tensor in header.values())

    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["model_type"] == "qwen3"
    assert config["tie_word_embeddings"] is True
    assert 1_000_000 < parameters < 3_000_000
    assert parameters == read(version, "metrics.json")["training"]["parameters"]
    assert "model.layers.0.self_attn.q_norm.weight" in header


@pytest.mark.parametrize("version", VERSIONS)
def test_the_weights_fill_the_file_exactly(version: int) -> None:
    path = YARDLING / str(version) / "model.safetensors"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    end = max(tensor["data_offsets"][1] for tensor in tensors(version).values())
    assert path.stat().st_size == 8 + length + end


@pytest.mark.parametrize("version", VERSIONS)
def test_any_text_can_be_encoded(version: int) -> None:
    tokenizer = read(version, "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    specials = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}

    single = [token for token in vocabulary if len(token) == 1]
    assert len(single) == 256  # the byte alphabet
    assert set(specials) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    ids = sorted([*vocabulary.values(), *specials.values()])
    assert ids == list(range(read(version, "config.json")["vocab_size"]))


@pytest.mark.parametrize("version", VERSIONS)
def test_turns_are_chatml_and_end(version: int) -> None:
    template = (YARDLING / str(version) / "chat_template.jinja").read_text()
    tokenizer = read(version, "tokenizer.json")
    end = next(t["id"] for t in tokenizer["added_tokens"] if t["content"] == "<|im_end|>")

    assert "<|im_start|>assistant" in template
    assert "add_generation_prompt" in template
    assert read(version, "tokenizer_config.json")["eos_token"] == "<|im_end|>"
    assert read(version, "config.json")["eos_token_id"] == end
    assert end in read(version, "generation_config.json")["eos_token_id"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_card_states_what_was_measured(version: int) -> None:
    card = (YARDLING / str(version) / "README.md").read_text()
    metrics = read(version, "metrics.json")

    assert card.startswith("---\nlicense: apache-2.0\n")
    assert f"{metrics['training']['parameters']:,} parameters" in card
    for name in ("held_out_sums", "questions", "greetings", "turns_ended"):
        share = metrics["accuracy"][name]
        row = f"| {share['right']} | {share['asked']} | {share['accuracy']:.1%} |"
        assert row in card, name


@pytest.mark.parametrize("version", VERSIONS)
def test_the_questions_of_the_smoke_test_are_answered(version: int) -> None:
    accuracy = read(version, "metrics.json")["accuracy"]
    for name in ("two_plus_two", "questions", "greetings", "turns_ended"):
        assert accuracy[name]["accuracy"] == 1.0, name


def test_version_2_is_better_at_sums_it_never_saw() -> None:
    assert 0.8 <= held_out_accuracy(1) < held_out_accuracy(2)
    assert held_out_accuracy(2) >= 0.95
