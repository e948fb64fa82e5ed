"""What an answer is held to, and what is said when it does not hold."""

from typing import Any

import pytest

from modelyard.core.errors import InvalidConfig
from modelyard.core.smoke import (
    ANSWERS,
    SmokeAnswer,
    SmokeTest,
    check_test,
    default_tests,
    judge,
)


def _fits(_value: Any, _schema: dict[str, Any]) -> str | None:
    return None


def _answer(text: str, **changes: Any) -> SmokeAnswer:
    return SmokeAnswer(**{"text": text, "finish_reason": "stop", "ttft_s": 0.1, **changes})


@pytest.mark.parametrize(
    ("test", "text", "told"),
    [
        ({}, "Fine.", None),
        ({}, "", "nothing readable"),
        ({}, " \n…!", "nothing readable"),
        ({"all_of": ("4",)}, "2 + 2 = 4.", None),
        ({"all_of": ("4", "FOUR")}, "2 + 2 = 4.", "'FOUR' is not in"),
        ({"any_of": ("fine", "well")}, "I am FINE", None),
        ({"any_of": ("fine", "well")}, "No.", "none of fine, well"),
        ({"none_of": ("sorry",)}, "Sorry!", "'sorry' is in"),
        ({"regex": r"^\d+$"}, "42", None),
        ({"regex": r"^\d+$"}, "4x2", "does not match"),
        ({"json_schema": {"type": "object"}}, '{"a": 1}', None),
        ({"json_schema": {"type": "object"}}, "no", "is no JSON"),
        ({"max_ttft_s": 0.05}, "Fine.", "0.05 s are allowed"),
    ],
)
def test_an_answer_is_held_to_all_that_is_given(
    test: dict[str, Any], text: str, told: str | None
) -> None:
    result = judge(SmokeTest(prompt="?", **test), _answer(text), _fits)

    assert result.passed is (told is None)
    assert (told or "as expected") in result.told


def test_a_misfit_is_told_in_its_words() -> None:
    test = SmokeTest(prompt="?", json_schema={"type": "array"})
    result = judge(test, _answer("{}"), lambda value, schema: f"{value} is no {schema['type']}")

    assert not result.passed
    assert "{} is no array" in result.told


def test_no_answer_and_another_versions_answer_fail() -> None:
    lost = judge(ANSWERS, _answer("", error="status 503"), _fits)
    other = judge(ANSWERS, _answer("Fine.", version=1), _fits, version=2)

    assert (lost.passed, lost.ttft_s) == (False, None)
    assert "503" in lost.told
    assert not other.passed
    assert "version 1 answered" in other.told


def test_a_model_that_we_know_is_asked_what_we_know() -> None:
    assert [test.prompt for test in default_tests("yardling")] == [
        "Hello, how are you?",
        "What is 2+2?",
    ]
    assert default_tests("another") == (ANSWERS,)


def test_a_regex_that_is_none_is_refused() -> None:
    check_test(SmokeTest(prompt="?", regex="a+"))
    with pytest.raises(InvalidConfig, match="can't be read"):
        check_test(SmokeTest(name="numbers", prompt="?", regex="("))


@pytest.mark.parametrize("field", ["model", "messages", "prompt", "stream"])
def test_parameters_do_not_ask_somebody_else(field: str) -> None:
    with pytest.raises(InvalidConfig, match=f"can't hold '{field}'") as refused:
        check_test(SmokeTest(prompt="?", parameters={field: "other"}))
    assert "leave it out" in refused.value.next_step
