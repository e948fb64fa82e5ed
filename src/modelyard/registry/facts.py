"""Facts of a model from its own files (promise R12), and the checks of its weights (R8)."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modelyard.core.errors import InvalidRequest
from modelyard.core.facts import ModelFacts
from modelyard.registry.formats.gguf import GgufHeader, read_gguf
from modelyard.registry.formats.safetensors import SafetensorsHeader, read_safetensors
from modelyard.registry.formats.tensors import Tensor

Files = Mapping[str, Path]
"""Manifest path → where the bytes are."""

_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(?:safetensors|gguf)")
_JSON_CAP_BYTES = 64 * 1024 * 1024
_TEXT_CAP_BYTES = 64 * 1024
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx")
_LICENCE_PHRASES = (
    ("Apache License", "apache-2.0"),
    ("MIT License", "mit"),
    ("BSD 3-Clause", "bsd-3-clause"),
    ("GNU GENERAL PUBLIC LICENSE", "gpl"),
    ("LLAMA 3", "llama3"),
    ("Gemma Terms of Use", "gemma"),
)


def concerned(path: str) -> bool:
    """Whether the file at this path of the manifest can tell any fact."""
    return "/" not in path or path.endswith((".safetensors", ".gguf"))


def read_facts(files: Files, size_bytes: int) -> ModelFacts:
    """Check every weight file and gather the facts.

    `files`: those that are `concerned`; `size_bytes`: of all files together. Raises
    InvalidRequest naming the file that is damaged, missing or not understood.
    """
    try:
        shards = {
            name: read_safetensors(path, name)
            for name, path in files.items()
            if name.endswith(".safetensors")
        }
        ggufs = {
            name: read_gguf(path, name) for name, path in files.items() if name.endswith(".gguf")
        }
        if any("/" not in name for name in shards):
            return _from_safetensors(files, size_bytes, shards)
        return _from_gguf(files, size_bytes, ggufs)
    except OSError as error:
        raise InvalidRequest(
            f"can't read {error.filename}: {error.strerror}",
            next_step="check that this user may read it",
        ) from error


def _from_safetensors(
    files: Files, size_bytes: int, shards: Mapping[str, SafetensorsHeader]
) -> ModelFacts:
    config = _json_object(files, "config.json")
    if config is None:
        raise InvalidRequest(
            "config.json is missing: the model's architecture is not known without it",
            next_step="put the config.json that belongs to the weights beside them",
        )
    tensors = [t for name in _weight_names(files, shards) for t in shards[name].tensors.values()]
    if not tensors:
        raise InvalidRequest(
            "the weight files hold no tensors", next_step="export or fetch the model again"
        )
    text_config = config.get("text_config")
    sources = [config, text_config if isinstance(text_config, dict) else {}]
    return ModelFacts(
        format="safetensors",
        architecture=_architecture(config),
        parameters=sum(tensor.elements for tensor in tensors),
        dtype=_main_dtype(tensors),
        size_bytes=size_bytes,
        context_length=_first_size(sources, _CONTEXT_KEYS),
        vocabulary_size=_first_size(sources, ("vocab_size",)),
        chat_template=_has_chat_template(files),
        licence=_licence(files),
    )


def _from_gguf(files: Files, size_bytes: int, headers: Mapping[str, GgufHeader]) -> ModelFacts:
    top = [name for name in headers if "/" not in name]
    if len(top) != 1 or _SHARD.fullmatch(top[0]):
        raise InvalidRequest(
            f"{', '.join(sorted(top)[:3])}: a version is one whole GGUF file",
            next_step="register the one file that is meant; join a split one first "
            "(llama-gguf-split --merge)",
        )
    (name,) = top
    header = headers[name]
    architecture = header.values.get("general.architecture")
    if not header.tensors or not isinstance(architecture, str) or not architecture:
        raise InvalidRequest(
            f"{name} holds no tensors or names no architecture",
            next_step="convert or fetch the model again",
        )
    tokens = header.array_lengths.get("tokenizer.ggml.tokens")
    licence = header.values.get("general.license")
    return ModelFacts(
        format="gguf",
        architecture=architecture,
        parameters=sum(tensor.elements for tensor in header.tensors.values()),
        dtype=_main_dtype(header.tensors.values()),
        size_bytes=size_bytes,
        context_length=_first_size([header.values], (f"{architecture}.context_length",)),
        vocabulary_size=tokens or _first_size([header.values], (f"{architecture}.vocab_size",)),
        chat_template=bool(header.values.get("tokenizer.chat_template")),
        licence=licence if isinstance(licence, str) and licence else _licence(files),
    )


def _weight_names(files: Files, shards: Mapping[str, SafetensorsHeader]) -> list[str]:
    """The files that hold the model's weights, each shard there and holding what it should."""
    index = _json_object(files, _INDEX)
    if index is not None:
        return _indexed(index, shards)
    top = sorted(name for name in shards if "/" not in name)
    if "model.safetensors" in top:
        return ["model.safetensors"]
    for name in top:
        if _SHARD.fullmatch(name):
            raise InvalidRequest(
                f"{_INDEX} is missing beside {name}",
                next_step="fetch it too: it names the shards that make the model",
            )
    return top


def _indexed(index: Mapping[str, Any], shards: Mapping[str, SafetensorsHeader]) -> list[str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise InvalidRequest(
            f"{_INDEX} has no weight_map", next_step="fetch or export the model again"
        )
    for tensor, shard in weight_map.items():
        if shard not in shards:
            raise InvalidRequest(
                f"the shard {shard} named by {_INDEX} is missing",
                next_step="fetch the rest of the model, then register the folder again",
            )
        if tensor not in shards[shard].tensors:
            raise InvalidRequest(
                f"{shard} holds no tensor {tensor!r}, though {_INDEX} says so",
                next_step="fetch or export the model again",
            )
    return sorted(set(weight_map.values()))


def _architecture(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    for candidate in (named, config.get("model_type")):
        if isinstance(candidate, str) and candidate:
            return candidate
    raise InvalidRequest(
        "config.json names neither architectures nor model_type",
        next_step="put the config.json that belongs to the weights beside them",
    )


def _main_dtype(tensors: Iterable[Tensor]) -> str:
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += tensor.elements
    # Ties go to the first name, so that the answer does not hang on the files' order.
    return min(elements, key=lambda dtype: (-elements[dtype], dtype))


def _first_size(sources: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> int | None:
    for source in sources:
        for key in keys:
            value = source.get(key)
            if type(value) is int and value > 0:
                return value
    return None


def _has_chat_template(files: Files) -> bool:
    if "chat_template.jinja" in files or "chat_template.json" in files:
        return True
    tokenizer = _json_object(files, "tokenizer_config.json")
    return bool(tokenizer and tokenizer.get("chat_template"))


def _licence(files: Files) -> str | None:
    """The README's front matter, as on the Hugging Face hub, else a known LICENSE text."""
    readme = _text(files, "README.md")
    if readme.startswith("---\n"):
        import yaml

        try:
            matter = yaml.safe_load(readme[4:].split("\n---", 1)[0])
        except (yaml.YAMLError, RecursionError, ValueError):
            matter = None
        if isinstance(matter, dict):
            name = matter.get("license")
            if name == "other":
                name = matter.get("license_name") or name
            if isinstance(name, str) and name:
                return name
    for file in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"):
        beginning = _text(files, file)[:2000]
        for phrase, licence in _LICENCE_PHRASES:
            if phrase in beginning:
                return licence
    return None


def _text(files: Files, name: str) -> str:
    path = files.get(name)
    if path is None:
        return ""
    with path.open("rb") as file:
        return file.read(_TEXT_CAP_BYTES).decode(errors="replace").replace("\r\n", "\n")


def _json_object(files: Files, name: str) -> dict[str, Any] | None:
    """Parse a JSON object; None when there is no such file."""
    path = files.get(name)
    if path is None:
        return None
    try:
        if path.stat().st_size > _JSON_CAP_BYTES:
            raise ValueError(f"larger than {_JSON_CAP_BYTES} bytes")
        parsed = json.loads(path.read_bytes())
        if not isinstance(parsed, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{name} is not valid JSON: {str(error)[:100]}",
            next_step="fetch or export the model again",
        ) from error
    return parsed
