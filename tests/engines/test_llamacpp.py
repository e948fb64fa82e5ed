"""The llama.cpp engine: arguments in, command out."""

import sys
from pathlib import Path

import pytest

from modelyard.engines.engine import EngineLaunch
from modelyard.engines.llamacpp import CONVERTIBLE, LlamaCpp
from modelyard.engines.llamacpp_header import GgufHeader, affordable_context, read_header
from modelyard.engines.llamacpp_worker import default_threads
from modelyard.forms.architectures import ARCHITECTURES


def test_the_command_names_all_that_was_asked_for() -> None:
    launch = EngineLaunch(
        model_path="/m.gguf",
        served_name="yardling",
        host="127.0.0.1",
        port=8123,
        context_length=512,
        parallel=2,
        threads=1,
        drain_s=9.0,
        extra_args=("--more", "1"),
    )
    assert LlamaCpp().command(launch).argv == (
        *(sys.executable, "-m", "modelyard.engines.llamacpp_worker"),
        *("--model", "/m.gguf", "--alias", "yardling", "--host", "127.0.0.1", "--port", "8123"),
        *("--parallel", "2", "--context-length", "512", "--threads", "1", "--drain-s", "9.0"),
        *("--more", "1"),
    )


def test_what_was_not_asked_for_is_left_to_the_worker() -> None:
    launch = EngineLaunch(model_path="/m", served_name="m", host="127.0.0.1", port=1)
    argv = LlamaCpp().command(launch).argv
    assert "--context-length" not in argv
    assert "--threads" not in argv


def test_what_it_takes_is_what_can_be_converted() -> None:
    assert set(ARCHITECTURES) == CONVERTIBLE


def test_a_small_model_gets_one_thread() -> None:
    assert default_threads(3_000_000) == 1


def header(**own: int) -> GgufHeader:
    """Metadata of a Llama with a width of 1,024 keys per block."""
    values: dict[str, int | float | bool | str] = {"general.architecture": "llama"}
    values |= {f"llama.{key.replace('__', '.')}": value for key, value in own.items()}
    return GgufHeader(values)


def test_the_model_s_context_is_used_where_memory_allows() -> None:
    small = header(context_length=2048, block_count=1, attention__head_count=1, embedding_length=8)
    assert affordable_context(small, 4) == 2048


def test_a_context_that_memory_does_not_allow_is_cut() -> None:
    huge = header(
        context_length=1 << 30, block_count=80, attention__head_count=8, embedding_length=8192
    )
    assert 512 <= affordable_context(huge, 4) < 1 << 30


def test_a_string_of_absurd_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    head = b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little")
    path.write_bytes(head + b"\xff" * 8)
    with pytest.raises(ValueError, match="damaged"):
        read_header(path)
