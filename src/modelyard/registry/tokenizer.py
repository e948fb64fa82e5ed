"""A tokenizer that lies elsewhere than the weights, as for a fine-tune that was saved without."""

import filecmp
from collections.abc import Sequence
from pathlib import Path

from modelyard.core.errors import InvalidRequest
from modelyard.registry.source import SourceFile, list_files

TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
    | {"tokenizer.model", "spiece.model", "tekken.json", "vocab.json", "vocab.txt", "merges.txt"}
    | {"chat_template.jinja", "chat_template.json"}
)


def with_tokenizer(files: Sequence[SourceFile], tokenizer: Path) -> tuple[SourceFile, ...]:
    """The model's files and those of a tokenizer: a folder of which only its files are taken, or
    one of them.

    Raises InvalidRequest: no tokenizer there, or the model has another one, which is not replaced.
    """
    if not any(file.path.endswith(".safetensors") for file in files):
        raise InvalidRequest(
            "a GGUF file holds its own tokenizer", next_step="leave out the tokenizer"
        )
    found = [file for file in list_files(tokenizer) if file.path in TOKENIZER_FILES]
    if not found:
        raise InvalidRequest(
            f"{tokenizer} holds no tokenizer",
            next_step="give a folder with tokenizer.json or tokenizer.model, or such a file",
        )
    own = {file.path: file for file in files}
    for file in found:
        there = own.setdefault(file.path, file)
        if there is not file and not filecmp.cmp(there.location, file.location, shallow=False):
            raise InvalidRequest(
                f"the model has a {file.path} of its own, which is not the one in {tokenizer}",
                next_step="leave out the tokenizer, or take the model's own away",
            )
    return tuple(sorted(own.values(), key=lambda file: file.path))
