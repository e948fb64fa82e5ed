"""llama.cpp over the converted files says what transformers said in float32."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import httpx
import pytest
from tests.engines.llamacpp_replica import worker
from tests.forms.recasting import recast

from modelyard.forms.conversion import convert

GOLDEN = Path(__file__).parent / "golden"
DEMO = Path(__file__).parents[2] / "src" / "modelyard" / "demo" / "yardling"
TOLERANCE = 0.05
BF16_TOLERANCE = 0.2
"""llama.cpp rounds the activations to bfloat16 too, at every product with BF16 weights."""

Rows = Sequence[dict[str, Any]]


def rows_of(name: str) -> Rows:
    """Golden values by the name of their file."""
    rows: Rows = json.loads((GOLDEN / f"{name}.json").read_text())
    return rows


def worst(http: httpx.Client, rows: Rows) -> float:
    """The largest difference of any of the top log-probabilities; tokens must be equal."""
    differences = []
    forced = http.post("/tokenize", json={"content": "a"}).json()["tokens"][0]
    for row in rows:
        plain = {"content": row["prompt"], "parse_special": True, "add_special": False}
        assert http.post("/tokenize", json=plain).json()["tokens"] == row["tokens"]
        # The log-probabilities are those before sampling. What is sampled is a whole character:
        # for a piece of one the server gives none.
        ask = {"prompt": row["tokens"], "n_predict": 1, "n_probs": 60, "cache_prompt": False}
        answer = http.post("/completion", json=ask | {"logit_bias": [[forced, 1e4]]}).json()
        top = answer["completion_probabilities"][0]["top_logprobs"]
        got = {entry["id"]: entry["logprob"] for entry in top}
        differences += [abs(got.get(token, 1e9) - expected) for token, expected in row["top"]]
    return max(differences)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("F16", TOLERANCE), ("F32", TOLERANCE), ("BF16", BF16_TOLERANCE)]
)
def test_random_models(name: str, dtype: str, tolerance: float, tmp_path: Path) -> None:
    source = recast(GOLDEN / name, tmp_path / "source", dtype)
    target = tmp_path / "model.gguf"
    convert(source, target, name=name)
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(target).tensors}
    assert kinds["token_embd.weight"] == dtype
    assert kinds["output_norm.weight"] == "F32"
    with worker(target) as replica:
        assert worst(replica.http, rows_of(name)) < tolerance


@pytest.mark.parametrize("case", range(3))
def test_scaled_rotary_positions(case: int, tmp_path: Path) -> None:
    golden = rows_of("rope")[case]
    source = recast(GOLDEN / golden["model"], tmp_path / "source", "F16")
    config = json.loads((source / "config.json").read_text())
    config["rope_parameters"] = golden["rope_parameters"]
    (source / "config.json").write_text(json.dumps(config))
    convert(source, tmp_path / "model.gguf", name="scaled")
    with worker(tmp_path / "model.gguf") as replica:
        assert worst(replica.http, golden["rows"]) < TOLERANCE


def demo_versions() -> list[str]:
    """Versions of the demo model that have golden values."""
    return [path.stem.removeprefix("yardling_") for path in sorted(GOLDEN.glob("yardling_*.json"))]


@pytest.mark.parametrize("version", demo_versions())
def test_the_demo_model(version: str, tmp_path: Path) -> None:
    convert(DEMO / version, tmp_path / "model.gguf", name="yardling")
    rows = rows_of(f"yardling_{version}")
    assert len(rows) == 20
    with worker(tmp_path / "model.gguf") as replica:
        assert worst(replica.http, rows) < TOLERANCE


@pytest.mark.parametrize("kind", ["qwen2", "llama-bpe", "gpt-2", "smollm"])
def test_pre_tokenizers_cut_hard_texts_alike(kind: str, tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "tokenizers.json").read_text())[kind]
    source = recast(GOLDEN / "llama", tmp_path / "source", "F16")
    (source / "tokenizer.json").write_text(json.dumps(golden["tokenizer"]))
    convert(source, tmp_path / "model.gguf", name=kind)
    with worker(tmp_path / "model.gguf") as replica:
        for text, tokens in golden["texts"].items():
            ask = {"content": text, "parse_special": True, "add_special": False}
            assert replica.http.post("/tokenize", json=ask).json()["tokens"] == tokens, text
