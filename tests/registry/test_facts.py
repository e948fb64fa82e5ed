"""Facts are read from the files (R12); weights that are damaged or missing are refused."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from modelyard.core.errors import InvalidRequest
from modelyard.core.facts import ModelFacts
from modelyard.registry.facts import read_facts

from .conftest import MakeModel, write_safetensors


def facts(folder: Path) -> ModelFacts:
    files = {file.name: file for file in folder.iterdir()}
    return read_facts(files, sum(file.stat().st_size for file in files.values()))


def test_facts_of_a_folder(make_model: MakeModel) -> None:
    model = make_model(size_bytes=4096)
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert facts(model) == ModelFacts(
        format="safetensors",
        architecture="Qwen3ForCausalLM",
        parameters=2048,
        dtype="BF16",
        size_bytes=sum(file.stat().st_size for file in model.iterdir()),
        context_length=512,
        vocabulary_size=96,
        chat_template=True,
        licence="apache-2.0",
    )


def test_facts_that_files_are_silent_about_stay_unknown(make_model: MakeModel) -> None:
    model = make_model()
    (model / "config.json").write_text('{"model_type": "novel"}')
    (model / "README.md").write_text("---\n: [not yaml\n---\n")
    found = facts(model)
    assert found.architecture == "novel"
    assert (found.context_length, found.vocabulary_size, found.licence) == (None, None, None)
    assert not found.chat_template


def test_the_licence_file_is_recognised(make_model: MakeModel) -> None:
    model = make_model()
    (model / "LICENSE").write_text("\n   Apache License\n   Version 2.0, January 2004\n")
    assert facts(model).licence == "apache-2.0"


@pytest.mark.parametrize("config", ["", "[]", "{", "{}", '{"architectures": []}', "[" * 100_000])
def test_a_config_that_says_nothing_is_refused(make_model: MakeModel, config: str) -> None:
    model = make_model()
    (model / "config.json").write_text(config)
    with pytest.raises(InvalidRequest, match=r"config\.json"):
        facts(model)


def sharded(folder: Path, present: int = 2) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    weight_map = {}
    for number in (1, 2):
        shard = f"model-0000{number}-of-00002.safetensors"
        weight_map[f"w{number}"] = shard
        if number <= present:
            write_safetensors(folder / shard, {f"w{number}": ("F16", [3], b"\0" * 6)})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_parameters_are_summed_over_shards(tmp_path: Path) -> None:
    assert facts(sharded(tmp_path / "m")).parameters == 6


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"model-00002-of-00002\.safetensors .* is missing"):
        facts(sharded(tmp_path / "m", present=1))


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(InvalidRequest, match=r"model\.safetensors\.index\.json is missing"):
        facts(folder)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    write_safetensors(folder / "model-00002-of-00002.safetensors", {"v": ("F16", [3], b"\0" * 6)})
    with pytest.raises(InvalidRequest, match="holds no tensor 'w2'"):
        facts(folder)


def write_gguf(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_context_length(512)
    writer.add_license("mit")
    writer.add_chat_template("{{ messages }}")
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("w", np.ones((3, 5), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_facts_of_a_gguf_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    assert facts(tmp_path) == ModelFacts(
        format="gguf",
        architecture="qwen3",
        parameters=15,
        dtype="F16",
        size_bytes=path.stat().st_size,
        context_length=512,
        vocabulary_size=3,
        chat_template=True,
        licence="mit",
    )


def test_several_gguf_files_are_not_one_version(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    write_gguf(tmp_path / "b.gguf")
    with pytest.raises(InvalidRequest, match="a version is one whole GGUF file"):
        facts(tmp_path)
