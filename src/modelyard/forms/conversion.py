"""safetensors → GGUF in the same precision: BF16 stays BF16, F16 stays F16, F32 stays F32.

Only vectors (norms) become F32, which holds every value of the other two exactly. Weights go from
a memory map to the file one tensor at a time, so memory is bounded by the largest tensor.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from modelyard.core.errors import InvalidRequest, Unsupported
from modelyard.forms.architectures import (
    CONVERTER_OF_LLAMA_CPP,
    Shape,
    metadata,
    read_shape,
    rope_factors,
    tensor_names,
)
from modelyard.forms.checkpoints import Weights, read_weights
from modelyard.forms.tokenizers import Tokenizer, read_json, read_tokenizer
from modelyard.registry.progress import Progress

CONVERTER = "modelyard safetensors-to-gguf"
CONVERTER_VERSION = 1
"""Raised by hand when the same source would give another file; forms made before are remade."""

_TYPES = {
    "BF16": gguf.GGMLQuantizationType.BF16,
    "F16": gguf.GGMLQuantizationType.F16,
    "F32": gguf.GGMLQuantizationType.F32,
}
_FILE_TYPES = {
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "F32": gguf.LlamaFileType.ALL_F32,
}
_NOT_WEIGHTS = ("rotary_emb.inv_freq",)
"""Endings of tensors that some checkpoints carry and that are computed anyway."""
_SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
)

# The package announces each file that it opens at level INFO; the program's log is not its place.
logging.getLogger("gguf").setLevel(logging.WARNING)


def convert(source: Path, target: Path, *, name: str, progress: Progress | None = None) -> None:
    """Write the model in the folder `source` to the file `target`.

    `name` goes into the metadata. Raises Unsupported for what can't be carried over and
    InvalidRequest for a folder that is not whole; OSError when the disk refuses. A target that
    is half written is the caller's to remove.
    """
    files = {
        file: (source / file).read_bytes() for file in _SMALL_FILES if (source / file).exists()
    }
    shape = read_shape(read_json(files, "config.json"))
    tokenizer = read_tokenizer(files, shape.vocabulary)
    tensors = _named(read_weights(source), tensor_names(shape))
    writer = gguf.GGUFWriter(None, shape.architecture.gguf_name)
    _write_metadata(writer, name, shape, tokenizer, tensors)
    factors = rope_factors(shape)
    if factors is not None:
        extra = np.array(factors, np.float32)
        writer.add_tensor_info("rope_freqs.weight", extra.shape, extra.dtype, extra.nbytes)
    for gguf_name, tensor in tensors.items():
        kind = _target_type(tensor)
        size = int(np.prod(tensor.shape)) * (4 if kind == "F32" else 2)
        writer.add_tensor_info(gguf_name, tensor.shape, np.dtype("f4"), size, _TYPES[kind])
    try:
        writer.write_header_to_file(target)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(extra)
        _write_weights(writer, shape, tensors, progress)
    finally:
        writer.close()


def _named(tensors: Mapping[str, Weights], names: Mapping[str, str]) -> dict[str, Weights]:
    """The tensors by their GGUF names, in the file's order; all of them, and no others."""
    missing = [name for name in names if name not in tensors]
    if missing:
        raise InvalidRequest(
            f"the weights lack {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            next_step="download the model again; config.json asks for more than is there",
        )
    for name, tensor in tensors.items():
        # A tied output head is sometimes stored a second time.
        extra = name not in names and name != "lm_head.weight" and not name.endswith(_NOT_WEIGHTS)
        if extra or tensor.dtype not in _TYPES:
            what = f"tensor {name} of dtype {tensor.dtype} can't be converted to GGUF"
            raise Unsupported(what, next_step=CONVERTER_OF_LLAMA_CPP)
    return {ours: tensors[theirs] for theirs, ours in names.items()}


def _write_metadata(
    writer: Any, name: str, shape: Shape, tokenizer: Tokenizer, tensors: Mapping[str, Weights]
) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(_FILE_TYPES[tensors["token_embd.weight"].dtype])
    adders = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
    for key, value in metadata(shape).items():
        adders[type(value)](key, value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    writer.add_add_bos_token(tokenizer.add_bos)
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos),
        (writer.add_eos_token_id, tokenizer.eos),
        (writer.add_pad_token_id, tokenizer.pad),
        (writer.add_eot_token_id, tokenizer.end_of_turn),
    ):
        if token is not None:
            add(token)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _write_weights(
    writer: Any, shape: Shape, tensors: Mapping[str, Weights], progress: Progress | None
) -> None:
    total = sum(tensor.size_bytes for tensor in tensors.values())
    done = 0
    for name, tensor in tensors.items():
        weights = tensor.read()
        if shape.architecture.rotary_pairs == "neighbours":
            if name.endswith("attn_q.weight"):
                weights = pair_neighbours(weights, shape.heads)
            elif name.endswith("attn_k.weight"):
                weights = pair_neighbours(weights, shape.kv_heads)
        writer.write_tensor_data(_as_f32(weights, tensor.dtype) if weights.ndim == 1 else weights)
        done += tensor.size_bytes
        if progress:
            progress("convert", done, total)


def pair_neighbours(weights: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Reorder the rows of q or k, (heads * size, hidden): i, i + size/2 → 2i, 2i + 1."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)


def _as_f32(weights: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    if dtype == "BF16":  # the upper half of a float32
        return (weights.astype(np.uint32) << 16).view(np.float32)
    return weights.astype(np.float32)


def _target_type(tensor: Weights) -> str:
    return "F32" if len(tensor.shape) == 1 else tensor.dtype
