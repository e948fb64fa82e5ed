"""`modelyard metrics engines`: the names of vLLM, SGLang and llama.cpp beside ours."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.options import HomeOption, JsonOption
from modelyard.cli.output import print_json, stdout_console
from modelyard.core.errors import InvalidRequest
from modelyard.core.metrics.translation import translate
from modelyard.core.metrics.vocabularies import VOCABULARIES, Vocabulary


def engines(
    text: Annotated[
        Path | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="Text of an engine's /metrics; - for stdin: say what of it is not mapped.",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what engines' own metrics are called here, and which are left out.

    The controller reads them from its ready replicas and tells them at its own `/metrics`.
    """
    del home  # understood by every command; this one reads nothing there
    if text is not None:
        _unmapped(_read(text), as_json=as_json)
        return
    if as_json:
        print_json({each.engine: _facts(each) for each in VOCABULARIES})
        return
    console = stdout_console()
    for vocabulary in VOCABULARIES:
        console.print(f"{vocabulary.engine}", soft_wrap=True)
        for mapped in vocabulary.mapped:
            names = " or ".join(" + ".join(each) for each in mapped.alternatives)
            console.print(f"  {mapped.metric.sample:52}  {names}", soft_wrap=True)
        for name, why in vocabulary.left_out.items():
            console.print(f"  left out: {vocabulary.prefix + name:42}  {why}", soft_wrap=True)


def _facts(vocabulary: Vocabulary) -> dict[str, object]:
    return {
        "mapped": {each.metric.name: each.alternatives for each in vocabulary.mapped},
        "left_out": {vocabulary.prefix + name: why for name, why in vocabulary.left_out.items()},
    }


def _unmapped(text: str, *, as_json: bool) -> None:
    found = [name for each in VOCABULARIES for name in translate(text, each).unmapped]
    known = [each.metric.name for v in VOCABULARIES for each in translate(text, v).samples]
    if not known and not found:
        raise InvalidRequest(
            "there are no metrics of vLLM, SGLang or llama.cpp in it",
            next_step="give what curl http://ENGINE/metrics prints",
        )
    if as_json:
        print_json({"mapped": sorted(set(known)), "unmapped": found})
        return
    console = stdout_console()
    console.print(f"{len(set(known))} mapped, {len(found)} not known")
    for name in found:
        console.print(f"  {name}", soft_wrap=True)


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(errors="replace")
    except OSError as error:
        raise InvalidRequest(
            f"can't read {path}: {error.strerror}", next_step="give a file that is there"
        ) from error
