"""A Hugging Face byte-level BPE tokenizer in GGUF's terms.

llama.cpp has the rules by which text is cut before the merges built in, under a name per family;
which one a `tokenizer.json` stands for is seen from its own rules, never guessed from the model's
name. What is not known is refused: a wrong rule would cost quality without any error.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelyard.core.errors import InvalidRequest, Unsupported
from modelyard.forms.architectures import CONVERTER_OF_LLAMA_CPP

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""GGUF's token types."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_AFTER_NUMBERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SPLIT_RULES = {
    rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_AFTER_NUMBERS}": "qwen2",
    rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_AFTER_NUMBERS}": "llama-bpe",
}
IGNORES_MERGES = frozenset({"llama-bpe"})
"""Rules with which llama.cpp takes a word that is a token as it is, without merging up to it."""


class Tokenizer(msgspec.Struct, frozen=True, kw_only=True):
    """What the GGUF file says of the tokenizer."""

    pre: str
    """llama.cpp's name of the rule that cuts text before the merges."""
    tokens: list[str]
    types: list[int]
    merges: list[str]
    bos: int | None
    eos: int | None
    pad: int | None
    end_of_turn: int | None
    add_bos: bool
    chat_template: str | None


def read_tokenizer(files: Mapping[str, bytes], vocabulary: int) -> Tokenizer:
    """Understand a tokenizer from the contents of the model's small files, by file name.

    `vocabulary` is the number of rows of the embedding; ids without a token become unused ones.
    Raises Unsupported for a kind that can't be carried over, InvalidRequest for broken files.
    """
    if "tokenizer.json" not in files:
        raise Unsupported(
            "the model has no tokenizer.json; other kinds of tokenizer can't be converted",
            next_step=CONVERTER_OF_LLAMA_CPP,
        )
    spec = read_json(files, "tokenizer.json")
    config = read_json(files, "tokenizer_config.json")
    generation = read_json(files, "generation_config.json")
    tokens, types = _tokens(spec, vocabulary)
    ids = {text: number for number, text in enumerate(tokens)}

    def special(role: str) -> int | None:
        given = config.get(f"{role}_token")
        text = given.get("content") if isinstance(given, Mapping) else given
        return ids[text] if text in ids else _first(generation.get(f"{role}_token_id"))

    bos, eos = special("bos"), special("eos")
    also_ends = [end for end in _list(generation.get("eos_token_id")) if end != eos]
    return Tokenizer(
        pre=identify_pre_tokenizer(spec),
        tokens=tokens,
        types=types,
        merges=[_merge(merge) for merge in spec["model"].get("merges", [])],
        bos=bos,
        eos=eos,
        pad=special("pad"),
        end_of_turn=_first(also_ends),
        add_bos=_adds_bos(spec, config, bos),
        chat_template=_chat_template(files, config),
    )


def identify_pre_tokenizer(spec: Mapping[str, Any]) -> str:
    """llama.cpp's name of the cutting rule; raises Unsupported naming what is not known."""
    model = spec.get("model", {})
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = "BPE with byte fallback (SentencePiece)" if model.get("byte_fallback") else None
        raise _unsupported(f"a tokenizer of type {kind or model.get('type')}")
    if (spec.get("normalizer") or {}).get("type", "NFC") != "NFC":
        raise _unsupported(f"normalizer {json.dumps(spec['normalizer'])[:200]}")
    pre = _known_rule(spec.get("pre_tokenizer") or {})
    if pre is None:
        raise _unsupported(f"pre-tokenizer {json.dumps(spec.get('pre_tokenizer'))[:300]}")
    if bool(model.get("ignore_merges")) != (pre in IGNORES_MERGES):
        raise _unsupported(f"ignore_merges = {bool(model.get('ignore_merges'))} with rule {pre}")
    return pre


def read_json(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """One of the small files; empty when the model has none, InvalidRequest when it is broken."""
    try:
        content = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise InvalidRequest(
            f"{name} is not a JSON object: {content if isinstance(content, ValueError) else ''}",
            next_step="download the model again",
        )
    return content


def _known_rule(rule: Mapping[str, Any]) -> str | None:
    steps = rule["pretokenizers"] if rule.get("type") == "Sequence" else [rule]
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    before, byte_level_cuts = steps[:-1], steps[-1].get("use_regex", True)
    if not before:
        return "gpt-2" if byte_level_cuts else None
    step = before[0]
    if len(before) > 1:
        return None
    if step.get("type") == "Digits" and step.get("individual_digits"):
        return "smollm" if byte_level_cuts else None
    if step.get("type") == "Split" and step.get("behavior") == "Isolated" and not byte_level_cuts:
        return SPLIT_RULES.get(step.get("pattern", {}).get("Regex", ""))
    return None


def _tokens(spec: Mapping[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{number}]" for number in range(vocabulary)]
    types = [UNUSED] * vocabulary
    known = [(text, number, NORMAL) for text, number in spec["model"].get("vocab", {}).items()]
    for added in spec.get("added_tokens", []):
        kind = CONTROL if added.get("special") else USER_DEFINED
        known.append((added["content"], added["id"], kind))
    for text, number, kind in known:
        if not 0 <= number < vocabulary:
            raise InvalidRequest(
                f"tokenizer.json: token {text!r} has id {number}, "
                f"but the model has only {vocabulary} embeddings",
                next_step="use the tokenizer that the weights were trained with",
            )
        tokens[number], types[number] = text, kind
    return tokens, types


def _merge(merge: str | Sequence[str]) -> str:
    """Both spellings: `"a b"` and, since tokenizers 0.20, `["a", "b"]`."""
    return merge if isinstance(merge, str) else " ".join(merge)


def _adds_bos(spec: Mapping[str, Any], config: Mapping[str, Any], bos: int | None) -> bool:
    """Whether text is begun with the bos token: the post-processor says it, else the config."""
    processor = spec.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing":
            first = (step.get("single") or [{}])[0].get("SpecialToken", {}).get("id")
            ids = step.get("special_tokens", {}).get(first, {}).get("ids", [])
            return bos is not None and ids == [bos]
    return bos is not None and bool(config.get("add_bos_token", False))


def _chat_template(files: Mapping[str, bytes], config: Mapping[str, Any]) -> str | None:
    if "chat_template.jinja" in files:
        return files["chat_template.jinja"].decode()
    given = config.get("chat_template")
    if isinstance(given, list):
        named = {entry.get("name"): entry.get("template") for entry in given}
        given = named.get("default")
    return given


def _list(ids: int | Sequence[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _first(ids: int | Sequence[int] | None) -> int | None:
    return next(iter(_list(ids)), None)


def _unsupported(what: str) -> Unsupported:
    return Unsupported(
        f"tokenizer.json: {what} can't be converted", next_step=CONVERTER_OF_LLAMA_CPP
    )
