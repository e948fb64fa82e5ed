"""What is converted is bit for bit what was there; what can't be is refused with its name."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tests.forms.recasting import recast

from modelyard.core.errors import InvalidRequest, Unsupported
from modelyard.forms.checkpoints import read_weights
from modelyard.forms.conversion import convert, pair_neighbours

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tiny Qwen3 in BF16, free to be changed."""
    return recast(GOLDEN / "qwen3", tmp_path / "source", "BF16")


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | values))


def converted(source: Path) -> gguf.GGUFReader:
    """The file that comes of it."""
    convert(source, source.parent / "model.gguf", name="sha256:abc")
    return gguf.GGUFReader(source.parent / "model.gguf")


def test_every_matrix_keeps_its_bits(source: Path) -> None:
    stored = read_weights(source)
    tensors = {tensor.name: tensor for tensor in converted(source).tensors}
    down = tensors["blk.1.ffn_down.weight"]
    assert down.tensor_type.name == "BF16"
    assert down.data.tobytes() == stored["model.layers.1.mlp.down_proj.weight"].read().tobytes()
    assert len(tensors) == len(stored)


def test_the_metadata_is_that_of_the_model(source: Path) -> None:
    fields = {name: field.contents() for name, field in converted(source).fields.items()}
    assert {
        "general.architecture": "qwen3",
        "general.name": "sha256:abc",
        "qwen3.context_length": 256,
        "qwen3.attention.key_length": 32,
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.eos_token_id": 383,
    }.items() <= fields.items()
    assert fields["tokenizer.chat_template"].startswith("{% for message")
    assert fields["tokenizer.ggml.token_type"][-3:] == [3, 3, 3]


def test_converting_twice_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert(source, tmp_path / name, name="same")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_progress_ends_with_all_bytes(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    convert(
        source,
        tmp_path / "model.gguf",
        name="m",
        progress=lambda _, done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 100_000


def test_halves_of_a_head_become_neighbours() -> None:
    rows = np.arange(8).reshape(8, 1)
    assert pair_neighbours(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_the_older_spelling_of_rotary_scaling_is_read(source: Path) -> None:
    change(
        source / "config.json",
        rope_parameters=None,
        rope_theta=5e5,
        rope_scaling={"type": "linear", "factor": 4.0},
    )
    fields = {name: field.contents() for name, field in converted(source).fields.items()}
    assert fields["qwen3.rope.freq_base"] == 5e5
    assert fields["qwen3.rope.scaling.type"] == "linear"
    assert fields["qwen3.rope.scaling.factor"] == 4.0


def test_a_template_that_adds_the_bos_token_is_followed(source: Path) -> None:
    bos = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    processor = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [381]}},
    }
    change(source / "tokenizer.json", post_processor=processor)
    fields = converted(source).fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True


def test_embeddings_beyond_the_tokenizer_are_unused_tokens(source: Path) -> None:
    spec = json.loads((source / "tokenizer.json").read_text())
    spec["added_tokens"] = spec["added_tokens"][:2]
    (source / "tokenizer.json").write_text(json.dumps(spec))
    fields = converted(source).fields
    assert fields["tokenizer.ggml.tokens"].contents()[-1] == "[PAD383]"
    assert fields["tokenizer.ggml.token_type"].contents()[-1] == 5


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
    ],
)
def test_what_the_engine_would_not_follow_is_refused(
    source: Path, changed: dict[str, Any], named: str
) -> None:
    change(source / "config.json", **changed)
    with pytest.raises(Unsupported, match=named) as refused:
        converted(source)
    assert refused.value.next_step


def test_another_architecture_names_the_converter_of_llama_cpp(source: Path) -> None:
    change(source / "config.json", architectures=["MambaForCausalLM"])
    with pytest.raises(Unsupported) as refused:
        converted(source)
    assert "convert_hf_to_gguf.py" in refused.value.next_step


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"model": {"type": "Unigram"}}, "Unigram"),
        ({"model": {"type": "BPE", "byte_fallback": True}}, "SentencePiece"),
    ],
)
def test_an_unknown_tokenizer_is_named(source: Path, changed: dict[str, Any], named: str) -> None:
    change(source / "tokenizer.json", **changed)
    with pytest.raises(Unsupported, match=named):
        converted(source)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"hidden_size": "64"}, "hidden_size"),
        ({"num_hidden_layers": 3}, "model.layers.2"),
        ({"vocab_size": 300}, "only 300 embeddings"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    source: Path, changed: dict[str, Any], named: str
) -> None:
    change(source / "config.json", **changed)
    with pytest.raises(InvalidRequest, match=named):
        converted(source)


def test_broken_json_is_named(source: Path) -> None:
    (source / "tokenizer_config.json").write_text("{")
    with pytest.raises(InvalidRequest, match=r"tokenizer_config\.json"):
        converted(source)
