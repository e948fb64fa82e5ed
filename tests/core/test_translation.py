"""Engines' metrics in one vocabulary (promise O1); the texts are written after their documents."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.metrics import engines as ours
from modelyard.core.metrics.declaration import Metric
from modelyard.core.metrics.translation import MAX_BORDERS, Translated, translate
from modelyard.core.metrics.vocabularies import LLAMACPP, SGLANG, VLLM, VOCABULARIES, Vocabulary

TEXTS = Path(__file__).parent / "expositions"


def read(name: str, vocabulary: Vocabulary) -> Translated:
    return translate((TEXTS / f"{name}.txt").read_text(), vocabulary)


def plain(told: Translated) -> dict[Metric, float]:
    return {each.metric: each.value for each in told.samples if each.metric.kind != "histogram"}


def buckets(told: Translated, metric: Metric) -> list[tuple[str, float | None, float]]:
    return [(s.suffix, s.le, s.value) for s in told.samples if s.metric is metric]


def test_vllms_are_added_up_over_its_engines() -> None:
    told = read("vllm", VLLM)

    assert plain(told) == {
        ours.RUNNING: 5,
        ours.WAITING: 1,
        ours.KV_USAGE: 0.75,
        ours.PROMPT_TOKENS: 1000,
        ours.COMPLETION_TOKENS: 5000,
        ours.PREFIX_QUERIES: 1000,
        ours.PREFIX_HITS: 400,
        ours.COMPLETED: 50,
        ours.PREEMPTIONS: 2,
    }
    assert buckets(told, ours.TIME_TO_FIRST_TOKEN) == [
        ("_bucket", 0.1, 11),
        ("_bucket", 1.0, 42),
        ("_bucket", float("inf"), 52),
        ("_sum", None, 32),
        ("_count", None, 52),
    ]
    for metric in (ours.INTER_TOKEN, ours.DURATION, ours.QUEUE_TIME):
        assert buckets(told, metric)


def test_what_nobody_has_looked_at_is_named() -> None:
    assert read("vllm", VLLM).unmapped == ("vllm:of_next_year",)


def test_the_former_names_are_known() -> None:
    told = read("vllm_before", VLLM)

    values = plain(told)
    assert values[ours.KV_USAGE] == 0.5
    assert (values[ours.PREFIX_QUERIES], values[ours.PREFIX_HITS]) == (100, 40)
    assert buckets(told, ours.INTER_TOKEN)[-1] == ("_count", None, 9)
    assert told.unmapped == ()


def test_sglangs_are_known() -> None:
    told = read("sglang", SGLANG)

    assert plain(told) == {
        ours.RUNNING: 3,
        ours.WAITING: 1,
        ours.KV_USAGE: 0.28,
        ours.PROMPT_TOKENS: 8128902,
        ours.COMPLETION_TOKENS: 7557572,
        ours.PREFIX_QUERIES: 8128902,
        ours.PREFIX_HITS: 1000,
        ours.COMPLETED: 11228,
    }
    for metric in (ours.TIME_TO_FIRST_TOKEN, ours.INTER_TOKEN, ours.DURATION, ours.QUEUE_TIME):
        assert buckets(told, metric)
    assert told.unmapped == ()


def test_an_older_llamacpp_is_known() -> None:
    told = read("llamacpp_before", LLAMACPP)

    assert plain(told) == {
        ours.RUNNING: 1,
        ours.WAITING: 4,
        ours.KV_USAGE: 0.125,
        ours.PROMPT_TOKENS: 6886,
        ours.COMPLETION_TOKENS: 3469,
    }
    assert told.unmapped == ()


def test_a_part_of_a_histogram_is_none() -> None:
    name = "vllm:e2e_request_latency_seconds"
    without_end = f'{name}_bucket{{le="1"}} 1\n{name}_count 1\n{name}_sum 1\n'
    odd = f'{name}_bucket{{le="x"}} 1\n{name}_bucket{{le="+Inf"}} 1\n'
    many = "".join(f'{name}_bucket{{le="{n}"}} 1\n' for n in range(MAX_BORDERS))
    for text in (without_end, odd, many + f'{name}_bucket{{le="+Inf"}} 1\n'):
        assert translate(text, VLLM).samples == ()


@pytest.mark.parametrize("line", ["{", "} 3", "{a=1} x", " NaN", " +Inf", "", '{a="b" 4', " 1e999"])
def test_lines_without_a_number_are_passed_over(line: str) -> None:
    text = f"vllm:num_requests_running{line}\nvllm:num_requests_waiting 2\n"

    assert plain(translate(text, VLLM)) == {ours.WAITING: 2}


@given(st.text())
def test_whatever_an_engine_tells_is_read(text: str) -> None:
    for vocabulary in VOCABULARIES:
        translate(text, vocabulary)
        translate(f"# TYPE {vocabulary.prefix}{text}\n{vocabulary.prefix}{text}", vocabulary)


def test_nothing_is_both_mapped_and_left_out() -> None:
    for vocabulary in VOCABULARIES:
        metrics = [mapped.metric for mapped in vocabulary.mapped]
        assert len(set(metrics)) == len(metrics)
        assert set(metrics) <= set(ours.VOCABULARY)
        for mapped in vocabulary.mapped:
            for alternative in mapped.alternatives:
                assert all(name.startswith(vocabulary.prefix) for name in alternative)
